"""Linear regression with scikit-learn's conventions: right, or it says what is wrong.

What is solved, and how, is in `solvers`; here are arguments, attributes and warnings.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

try:
    from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_array,
        check_is_fitted,
        validate_data,
    )
except ImportError as error:
    raise ImportError(
        "linreg_ops.LinearRegression needs scikit-learn 1.6 or later. Install it with:\n"
        '    pip install "linreg_ops[demo]"'
    ) from error

import scipy.linalg

from . import solvers
from .solvers.gd import Descent
from .solvers.problem import EPS, Problem
from .solvers.refine import Refined

Array: TypeAlias = npt.NDArray[Any]


class LinearRegression(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
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
        self._one_target = targets.ndim == 1
        targets = targets.reshape(len(targets), -1)
        alpha = self._penalty(targets.shape[1])
        problem = Problem(x, targets, s, intercept=self.fit_intercept, alpha=alpha)
        progress = solvers.Progress(problem)
        self.learning_rate_: Any = None
        try:
            found = self._solve(problem, progress)
        except KeyboardInterrupt:
            if progress.w is not None:
                self._set_curve(progress.curve(), problem)
                self._set_coefficients(*problem.to_original(progress.w))
            raise
        self.solver_, self.solver_reason_ = found.solver, found.reason
        self.rank_, self.condition_ = found.rank, found.condition
        curve = progress.curve()
        curve[-1] = found.loss  # of the coefficients as they are rounded
        self._set_curve(curve, problem)
        self._set_coefficients(found.intercept, found.coef)
        self._warn(problem, found)
        return self

    def predict(self, X: npt.ArrayLike) -> Array:
        """X·coef + intercept, in float64: [n], or [n, k] if y had two dimensions."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=[np.float64, np.float32], accept_sparse="csr")
        return np.asarray(x @ self.coef_.T + self.intercept_)

    def _penalty(self, targets: int) -> Any:
        return 0.0

    def _check_data(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Array, Array | None]:
        x, y_checked = validate_data(
            self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True,
            accept_sparse=False if self._descends else "csr",
        )  # fmt: skip
        targets = check_array(
            y_checked, dtype=[np.float64, np.float32], ensure_2d=False, input_name="y"
        )
        if sample_weight is None:
            return x, targets, None
        s = _check_sample_weight(sample_weight, x, dtype=np.float64)
        if s.min() < 0:
            raise ValueError("sample_weight must not be negative")
        if not s.any():
            raise ValueError("sample_weight must not be all zero")
        return x, targets, s

    @property
    def _descends(self) -> bool:
        return self.solver == "gd" or (self.solver == "auto" and self.learning_rate is not None)

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
        intercept, coef, loss = solvers.evaluate(problem, found)
        eps = float(np.finfo(problem.x.dtype).eps)
        converged = bool(np.all(solvers.least(problem, w, self.tol, eps)))
        why = "asked for" if self.solver == "gd" else "a learning rate was given"
        return solvers.Solution(intercept, coef, loss, "gd", why, converged, None, float("nan"))

    def _set_curve(self, losses: Array, problem: Problem) -> None:
        self.loss_, self.loss_curve_ = float(losses[-1]), losses
        self.n_iter_, self.n_reads_ = len(losses) - 1, problem.reads

    def _set_coefficients(self, intercept: Array, coef: Array) -> None:
        if not (np.all(np.isfinite(intercept)) and np.all(np.isfinite(coef))):
            raise ValueError(
                "the coefficients are beyond float64: X is too small for y, or holds extremes. "
                "Scale X or y"
            )
        self.coef_ = coef[:, 0] if self._one_target else np.ascontiguousarray(coef.T)
        self.intercept_: Any = 0.0
        if self.fit_intercept:
            self.intercept_ = float(intercept[0]) if self._one_target else intercept

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

    def _name(self, column: int) -> str:
        names = getattr(self, "feature_names_in_", None)
        return str(column) if names is None else repr(names[column])

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


class Ridge(LinearRegression):
    """Least squares with a penalty on the coefficients, as a scikit-learn regressor.

    Minimises ½ Σ sᵢ ‖xᵢ·coef + intercept - yᵢ‖² + ½ Σₜ alphaₜ ‖coefₜ‖², with the coefficients in
    X's own units and the intercept not penalised: what scikit-learn's `Ridge` minimises, halved.

    Args:
        alpha: The penalty: a number, or one per target [k]; not negative. All targets are fitted
            from the same reads of X.
        fit_intercept: Fit a constant term too.
        solver: "exact", "gram", "cg" or "auto", as of `LinearRegression`.
        num_steps: "cg" takes at most so many steps.
        tol: As of `LinearRegression`; of the residual of data and penalty together.

    Attributes:
        coef_, intercept_, solver_, condition_, rank_, n_iter_, n_reads_: As of `LinearRegression`;
            the condition number is that of data and penalty together, the worst of all targets'.
        loss_: ½ Σ s r², without the penalty.

    Source: Hoerl and Kennard, "Ridge regression: biased estimation for nonorthogonal problems",
    1970.

    >>> import numpy as np
    >>> X, y = np.array([[-1.0], [0.0], [1.0]]), np.array([[-1.0, 2.0], [0.0, 3.0], [1.0, 4.0]])
    >>> Ridge(alpha=[0.0, 2.0]).fit(X, y).coef_.ravel()
    array([1. , 0.5])
    """

    learning_rate = None
    momentum = 0.0
    standardize = True

    def __init__(
        self,
        alpha: float | npt.ArrayLike = 1.0,
        *,
        fit_intercept: bool = True,
        solver: str = "auto",
        num_steps: int = 1000,
        tol: float = 1e-10,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.num_steps = num_steps
        self.tol = tol

    def _penalty(self, targets: int) -> Array:
        alpha = np.asarray(self.alpha, np.float64)
        if alpha.shape not in ((), (targets,)):
            raise ValueError(
                f"alpha must be a number or have one entry per target, shape [{targets}], "
                f"got shape {list(alpha.shape)}"
            )
        if not np.all(np.isfinite(alpha) & (alpha >= 0)):
            raise ValueError(f"alpha must not be negative, infinite or NaN, got {self.alpha!r}")
        return alpha

    def _check_parameters(self) -> None:
        if self.solver == "gd":
            raise ValueError("solver='gd' has no penalty: use another, or LinearRegression")
        super()._check_parameters()
