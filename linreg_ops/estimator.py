"""Linear regression with scikit-learn's conventions: right, or it says what is wrong.

What is solved, and how, is in `solvers`; here are arguments, attributes and warnings.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from . import inference, solvers
from ._arguments import refusing_the_absent
from ._linear_model import Array
from ._sklearn import ConvergenceWarning
from ._sums_model import SumsModel
from .solvers.gd import Descent
from .solvers.problem import EPS, Problem
from .solvers.refine import Refined


class LinearRegression(SumsModel):
    """Least squares, as a scikit-learn regressor.

    Minimises ½ Σ sᵢ ‖xᵢ·coef + intercept - yᵢ‖² (the sum convention of `tf.nn.l2_loss`, not a
    mean), on the CPU and without TensorFlow. The coefficients are those of the numbers in X and y
    exactly as they are, computed in float64 whatever X's type; X is read in blocks of rows and
    never copied whole (but by gradient descent on standardized columns).

    Equivalent, unfused::

        coef, *_ = np.linalg.lstsq(X - X.mean(0), y - y.mean(0))
        intercept = y.mean(0) - X.mean(0) @ coef

    Args:
        fit_intercept: Fit a constant term too.
        solver: "exact": QR, refined; right for any condition number. "gram": the Gram matrix of
            the columns from one read, then refined by the gradient, each time one more read, to
            the accuracy of QR. "cg": conjugate gradients, for very many columns. "gd": gradient
            descent. "auto": "gd" if there is a learning rate, "exact" where that takes less than
            a second, "gram" up to 4096 columns ("exact" if it does not converge), then "cg".
        learning_rate: For "gd". A float, or one per step; `"auto"`: 1 / λ, λ the largest eigenvalue
            of the Hessian (by power iteration). Rates apply to the *sum* of squares, so a stable
            one is below 2 / λ.
        num_steps: "cg" takes at most so many steps, "gd" exactly so many.
        momentum: For gradient descent (heavy ball), in [0, 1).
        tol: Converged when the part of the residual within reach of the columns is below so much of
            the residual, for every target; or within rounding. Then no coefficient is further off
            than `tol`·√n of its standard error.
        standardize: "gd" trains on centred columns of unit variance (a copy of X), then maps the
            coefficients back: the same minimum, reached in far fewer steps when columns differ in
            scale. With False, X itself is read, and not copied if it is C-contiguous. The other
            solvers need neither, and ignore it.

    Attributes:
        coef_: [d], or [k, d] if y has two dimensions. float64. A column whose values are all equal
            has 0, exactly.
        intercept_: Float, or [k] if y has two dimensions; 0.0 without `fit_intercept`.
        loss_: ½ Σ s r² of the coefficients as returned, from their residuals. Infinite where that
            sum is beyond float64.
        loss_curve_: The loss at zero, and after each step; the last one is `loss_`. A direct
            solution is one step, each refinement one more.
        n_iter_: Steps taken.
        solver_: The one used, and `solver_reason_` why.
        condition_: Estimate of the condition number of the centred columns, each scaled to unit
            length; of those directions that are kept, where `rank_` is below d. NaN for "cg", "gd".
        rank_: The rank of the centred columns. None for "cg", "gd".
        n_reads_: How often X was read.
        learning_rate_: The rate used; None but for "gd".
        state_: What `partial_fit` and `fit_state` keep: sums over the rows, a `GramState`.
        n_features_in_, feature_names_in_: As everywhere in scikit-learn.

    Where several coefficients fit equally well (more columns than rows, columns that depend on
    each other), "exact" and "gram" give those of least norm, the intercept not counted.

    Sources: Golub, "Numerical methods for solving linear least squares problems", 1965; Björck,
    "Numerical methods for least squares problems", 1996 (refinement); Hestenes and Stiefel,
    "Methods of conjugate gradients for solving linear systems", 1952.

    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> model = LinearRegression().fit(X, [1.0, 3.0, 5.0, 7.0])
    >>> model.coef_, model.intercept_, model.solver_
    (array([2.]), 1.0, 'exact')
    >>> model.predict([[10.0]])
    array([21.])
    """

    @refusing_the_absent
    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        solver: str = "auto",
        learning_rate: float | str | npt.ArrayLike | None = None,
        num_steps: int = 1000,
        momentum: float = 0.0,
        tol: float = 1e-10,
        standardize: bool = True,
    ) -> None:
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.learning_rate = learning_rate
        self.num_steps = num_steps
        self.momentum = momentum
        self.tol = tol
        self.standardize = standardize

    def fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> LinearRegression:
        """Fit to X [n, d] and y [n] or [n, k], each row counting `sample_weight` [n] times.

        X may be a SciPy sparse matrix (but not for "gd"): it is read in dense blocks of rows.

        Ctrl-C raises KeyboardInterrupt between blocks; coefficients of the last finished step, if
        there is one, are then set.

        Warns:
            ConvergenceWarning: The coefficients are not the least squares; the message says what
                to do.
            RuntimeWarning: The loss is too large for a float64; the coefficients are right.
            LinAlgWarning: The coefficients are right, but float64 cannot hold them to the accuracy
                of the data, as with a column of large offset: predictions round.

        Raises:
            ValueError: Parameters out of range, shapes that do not fit, NaN or infinite values,
                negative weights, coefficients beyond float64.
            DivergenceError: The learning rate is too large; carries the step and the last finite
                weights (see `linreg_ops.training.DivergenceError`).
        """
        self._check_parameters()
        x, targets, s = self._check_data(X, y, sample_weight)
        self._forget()
        self._one_target = targets.ndim == 1
        targets = targets.reshape(len(targets), -1)
        problem = self._problem(x, targets, s)
        progress = solvers.Progress(problem)
        self.learning_rate_: Any = None
        try:
            found = self._solve(problem, progress)
        except KeyboardInterrupt:
            if progress.w is not None:
                self._set_curve(progress.curve(), problem)
                self._set_coefficients(*problem.to_original(progress.w))
            raise
        self._set_found(problem, progress, found)
        self._warn(problem, found)
        return self

    @property
    def _descends(self) -> bool:
        return self.solver == "gd" or (self.solver == "auto" and self.learning_rate is not None)

    def _needs_x(self) -> str:
        if self.solver in ("auto", "gram") and not self._descends:
            return ""
        solver = "gd" if self._descends else self.solver
        return f"solver={solver!r} needs all of X, by fit: sums suffice for 'gram' only"

    def _solve(self, problem: Problem, progress: solvers.Progress) -> solvers.Solution:
        with np.errstate(all="ignore"):  # what is not finite is looked for
            if self._descends:
                return self._descend(problem, progress)
            return solvers.solve(
                problem, self.solver, tol=self.tol, num_steps=self.num_steps, progress=progress
            )

    def _descend(self, problem: Problem, progress: solvers.Progress) -> solvers.Solution:
        descent = Descent(problem, self.standardize)
        self.learning_rate_ = self.learning_rate
        if self.learning_rate is None or isinstance(self.learning_rate, str):
            self.learning_rate_ = 1.0 / descent.largest_eigenvalue()

        w, _ = descent.descend(
            self.learning_rate_, self.num_steps, self.momentum, progress.keep_many
        )
        w = descent.to_problem(w)
        found = Refined(w, np.zeros(problem.k), np.zeros(problem.k, bool))
        intercept, coef, losses = solvers.evaluate(problem, found)
        loss = float(losses.sum())
        eps = float(np.finfo(problem.x.dtype).eps)
        converged = bool(np.all(solvers.least(problem, w, self.tol, eps)))
        why = "asked for" if self.solver == "gd" else "a learning rate was given"
        return solvers.Solution(intercept, coef, loss, "gd", why, converged, None, float("nan"))

    def _set_found(
        self, problem: Problem, progress: solvers.Progress, found: solvers.Solution
    ) -> None:
        self.solver_, self.solver_reason_ = found.solver, found.reason
        self.rank_, self.condition_ = found.rank, found.condition
        curve = progress.curve()
        curve[-1] = found.loss  # of the coefficients as they are rounded
        self._set_curve(curve, problem)
        self._set_coefficients(found.intercept, found.coef)
        self._basis = None
        if found.factor is not None and found.squares is not None:
            error = EPS * found.condition ** (2 if found.solver == "gram" else 1)
            self._basis = inference.of_fit(problem, found.factor, found.squares, error)

    def _set_curve(self, losses: Array, problem: Problem) -> None:
        self.loss_, self.loss_curve_ = float(losses[-1]), losses
        self.n_iter_, self.n_reads_ = len(losses) - 1, problem.reads

    def _warn(self, problem: Problem, found: solvers.Solution) -> None:
        if not np.isfinite(found.loss):
            warnings.warn(
                "The loss, ½ Σ s r², is too large for a float64: loss_ is infinite",
                RuntimeWarning,
                stacklevel=3,
            )
        if not found.converged:
            advice = {
                "gd": "Increase num_steps or the learning rate, or leave the learning rate out.",
                "cg": "Increase num_steps, or use solver='exact'.",
            }.get(found.solver, "Use solver='exact'.")
            if found.solver == "exact":
                advice = "Leave out columns that nearly depend on others."
            warnings.warn(
                f"Not converged to tol={self.tol} after {self.n_iter_} steps of {found.solver!r}. "
                + advice,
                ConvergenceWarning,
                stacklevel=3,
            )
        size = np.abs(problem.x_shift)[:, None] * np.abs(found.coef)
        rounding = EPS * (size.max(axis=0, initial=0.0) + np.abs(found.intercept))
        worst = int(np.argmax(rounding * problem.y_scale))
        # y_scale · spread is between ½ and 1. A thousandth of it is R² of 10⁻⁶ lost.
        if rounding[worst] * problem.y_scale[worst] > 1e-3:
            name = self._name(int(np.argmax(size[:, worst])))
            warnings.warn(
                f"Predictions round at {rounding[worst]:.1g}, where y spreads over "
                f"{1 / problem.y_scale[worst]:.1g}: column {name} is large beside its own spread, "
                "or nearly depends on others. Subtract an offset from it, or leave it out.",
                scipy.linalg.LinAlgWarning,
                stacklevel=3,
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = not self._descends
        return tags

    def _check_parameters(self) -> None:
        if self.solver not in solvers.SOLVERS:
            raise ValueError(
                f"solver must be one of {', '.join(solvers.SOLVERS)}, got {self.solver!r}"
            )
        if not isinstance(self.num_steps, int | np.integer) or self.num_steps < 0:
            raise ValueError(f"num_steps must be an integer >= 0, got {self.num_steps!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum!r}")
        if self.learning_rate is not None and self.solver not in ("auto", "gd"):
            raise ValueError(f"learning_rate is of solver='gd', not {self.solver!r}")
        if self.momentum and not self._descends:
            raise ValueError("momentum needs a learning_rate: the other solvers have none")
        if not self.tol >= 0:
            raise ValueError(f"tol must be >= 0, got {self.tol!r}")
        rate = self.learning_rate
        if isinstance(rate, str):
            if rate != "auto":
                raise ValueError(f"learning_rate must be None, 'auto' or numbers, got {rate!r}")
        elif rate is not None and not np.all(np.asarray(rate, np.float64) > 0):
            raise ValueError(f"learning_rate must be positive, got {rate!r}")
