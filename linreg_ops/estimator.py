"""Linear regression with scikit-learn's conventions: right, or it says what is wrong.

What is solved, and how, is in `solvers`; here are arguments, attributes and warnings.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

try:
    from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_array,
        check_is_fitted,
        validate_data,
    )
except ImportError as error:
    raise ImportError(
        "linreg_ops.LinearRegression needs scikit-learn 1.6 or later. Install it with: "
        "pip install 'scikit-learn>=1.6'"
    ) from error

import scipy.linalg

from . import inference, solvers, sources
from .inference import Summary
from .solvers import gram
from .solvers.factor import AnyFactor
from .solvers.gd import Descent
from .solvers.problem import EPS, Problem
from .solvers.refine import Refined
from .solvers.state import Centred, GramState

Array: TypeAlias = npt.NDArray[Any]


def _sums_suffice(model: LinearRegression) -> bool:
    """Whether the solver asked for needs no X beside sums over its rows; raises otherwise."""
    why_not = model._needs_x()
    if why_not:
        raise ValueError(why_not)
    return True


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

    @available_if(_sums_suffice)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> LinearRegression:
        """Fits to these rows and those of every `partial_fit` before, which need not be there.

        What is kept of them is `state_`, a `GramState`: any cut into batches gives the same bits,
        and the solution is that of all rows at once, but for digits that XᵀX alone cannot hold (a
        warning says so). X may be a SciPy sparse matrix.

        Each call solves for the coefficients anew, d³/3 operations: for many small batches, update
        a `GramState` and call `fit_state` at the end. Solvers other than "auto" and "gram" need all
        of X at once, and have no `partial_fit`.

        Warns:
            UserWarning: The model was made by `fit`, whose rows are not kept: it begins anew.

        Raises:
            ValueError: As of `fit`.
        """
        self._check_parameters()
        first = not hasattr(self, "state_")
        if first and hasattr(self, "coef_"):
            warnings.warn(
                "fit keeps no sums to add to: partial_fit begins anew, with these rows alone",
                UserWarning,
                stacklevel=2,
            )
        x, targets, s = self._check_data(X, y, sample_weight, reset=first)
        state = self._new_state() if first else self.state_
        return self._fit_sums(state.update(x, targets, s))

    def fit_state(self, state: GramState) -> LinearRegression:
        """Fits to the rows that a `GramState` has seen: no read of X, d³/3 operations.

        The state is kept as `state_`, and not copied: a later `partial_fit` goes on with it.

        Raises:
            ValueError: A state of no rows; solver="exact", "cg" or "gd", which need X.
        """
        self._check_parameters()
        _sums_suffice(self)
        self._forget()
        self.__dict__.pop("feature_names_in_", None)
        return self._fit_sums(state)

    def fit_dataset(
        self,
        source: Any,
        y: Any = None,
        *,
        weight: Any = None,
        target: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        progress: bool | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 30.0,
    ) -> LinearRegression:
        """Fits to a source of rows that need not be in memory, read once, as `fit_state` does.

        Arguments and errors are those of `GramState.from_dataset`: arrays, memmaps, .npy files, a
        `tf.data.Dataset`, Parquet, or an iterable of (x, y).

        >>> batches = [([[0.0], [1.0]], [1.0, 3.0]), ([[2.0]], [5.0])]
        >>> LinearRegression().fit_dataset(batches).coef_
        array([2.])
        """
        self._check_parameters()
        _sums_suffice(self)
        opened = sources.open_source(source, y, weight=weight, target=target, columns=columns)
        state = sources.read(
            opened, self._new_state(), progress=progress, checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
        )  # fmt: skip
        self.fit_state(state)
        if opened.names is not None:
            self.feature_names_in_ = np.array(opened.names, object)
        return self

    def merge(self, other: LinearRegression) -> LinearRegression:
        """Adds the rows that another model was fitted to, both by `partial_fit` or `fit_state`.

        Raises:
            ValueError: One of them keeps no sums; they differ in columns, targets or folds.
        """
        for model in (self, other):
            check_is_fitted(model)
            if not hasattr(model, "state_"):
                raise ValueError(
                    "merge needs models of partial_fit or fit_state: fit keeps no sums"
                )
        return self._fit_sums(self.state_.merge(other.state_))

    def summary(
        self,
        X: npt.ArrayLike | None = None,
        y: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
        *,
        covariance: str = "nonrobust",
        level: float = 0.95,
    ) -> Summary:
        """Standard errors, t, p, intervals, R², F, AIC: the table, by `print`, and its numbers.

        Takes no read of X with what `fit` kept, which is O(d). With the X, y and weights that the
        model was fitted to, they are read again: for the robust covariances "HC0" to "HC3" of
        errors whose variance differs from row to row, for `covariance` as a matrix, for solvers
        that keep nothing ("cg", "gd"), and for ill-conditioned columns of many rows.

        Args:
            X: [n, d], the same as was fitted to. None: by what was kept.
            y: [n] or [n, k].
            sample_weight: [n].
            covariance: "nonrobust" (errors of one variance), "HC0", "HC1", "HC2" or "HC3".
            level: The probability that an interval holds its coefficient.

        Returns:
            `linreg_ops.inference.Summary`, which names everything in it.

        Warns:
            LinAlgWarning: Standard errors have lost digits to the condition number; with X they
                have not.

        Raises:
            ValueError: X is needed, or is not what was fitted to.

        >>> import numpy as np
        >>> X = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
        >>> y = np.array([1.0, 3.1, 4.9, 7.2, 8.8])
        >>> print(LinearRegression().fit(X, y).summary())
        Least squares
        rows                             5    R²                        0.997661
        degrees of freedom               3    adjusted R²               0.996881
        solver                       exact    F(1, 3)                     1279.4
        condition number                 1    P>F                       4.81e-05
        residual std err          0.174165    AIC                       -1.84228
        covariance               nonrobust    BIC                       -2.62341
        ----------------------------------------------------------------------------
                          coef     std err         t   P>|t|      [0.025      0.975]
        ----------------------------------------------------------------------------
        intercept         1.06      0.1349     7.857   0.004     0.63066      1.4893
        x0                1.97     0.05508     35.77   0.000      1.7947      2.1453
        ----------------------------------------------------------------------------
        """
        check_is_fitted(self)
        if covariance not in inference.COVARIANCES:
            names = ", ".join(inference.COVARIANCES)
            raise ValueError(f"covariance must be one of {names}, got {covariance!r}")
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level!r}")
        coef, read = self._columns(), None
        if X is not None:
            basis, read = self._basis_of(X, y, sample_weight, covariance)
        else:
            if covariance != "nonrobust":
                raise ValueError(f"covariance={covariance!r} needs the rows: summary(X, y, ...)")
            kept = getattr(self, "_basis", None)
            if kept is None:
                raise ValueError(
                    f"solver {self.solver_!r} keeps nothing for statistics: summary(X, y) reads X"
                )
            basis = kept
            if basis.error > 1e-5:
                remedy = "leave out columns that nearly depend on others"
                if self.solver_ == "gram":
                    remedy = "summary(X, y) has as many digits as QR"
                warnings.warn(
                    f"Standard errors are right to {basis.error:.0e} of their size only, at a "
                    f"condition number of {basis.condition:.1g}: {remedy}",
                    scipy.linalg.LinAlgWarning,
                    stacklevel=2,
                )
        columns = getattr(self, "feature_names_in_", [f"x{j}" for j in range(self.n_features_in_)])
        return inference.summarise(
            basis,
            ["intercept"] * int(self.fit_intercept) + [str(name) for name in columns],
            coef,
            self.solver_,
            level=level,
            covariance_type=covariance,
            read=read,
            one_target=self._one_target,
        )

    def _columns(self) -> Array:
        """Intercept and coefficients as columns [p, k]."""
        coef = np.atleast_2d(self.coef_).T
        if not self.fit_intercept:
            return coef
        return np.vstack([np.atleast_1d(self.intercept_)[None], coef])

    def _basis_of(
        self, X: Any, y: Any, sample_weight: Any, covariance: str
    ) -> tuple[inference.Basis, inference.Read]:
        if y is None:
            raise ValueError("summary(X, y) needs y too")
        x, targets, s = self._check_data(X, y, sample_weight, reset=False)
        targets = targets.reshape(len(targets), -1)
        columns = self._columns()
        if targets.shape[1] != columns.shape[1]:
            raise ValueError(
                f"y must have the {columns.shape[1]} targets that were fitted to, "
                f"got {targets.shape[1]}"
            )
        problem = Problem(x, targets, s, intercept=self.fit_intercept)
        first = int(self.fit_intercept)
        intercept = columns[0] if first else np.zeros(columns.shape[1])
        with np.errstate(all="ignore"):
            found = inference.of_data(problem, intercept, columns[first:], covariance)
        if len(targets) and not self._least_of(problem, intercept, columns[first:]):
            raise ValueError("X, y and sample_weight are not those that the model was fitted to")
        return found

    def _least_of(self, problem: Problem, intercept: Array, coef: Array) -> bool:
        """Whether coefficients are the least squares of data, to what solvers promise at worst."""
        w = problem.from_original(intercept, coef).astype(np.float64)
        with np.errstate(all="ignore"):
            return bool(np.all(solvers.least(problem, w, 1e-3, EPS)))

    def predict(self, X: npt.ArrayLike) -> Array:
        """X·coef + intercept, in float64: [n], or [n, k] if y had two dimensions."""
        check_is_fitted(self)
        floats = [np.float64, np.float32, np.float16]
        x = validate_data(self, X, reset=False, dtype=floats, accept_sparse="csr")
        return np.asarray(x @ self.coef_.T + self.intercept_)

    def _problem(self, x: Any, targets: Array, s: Array | None) -> Problem:
        alpha, column = self._alpha_of(targets.shape[1]), self._column_penalty(x.shape[1])
        return Problem(
            x, targets, s, intercept=self.fit_intercept, alpha=alpha, column_penalty=column
        )

    def _alpha_of(self, targets: int) -> Array:
        """The penalty of each target [k]."""
        return np.zeros(targets)

    def _column_penalty(self, columns: int) -> Array:
        """By what it is multiplied for each column [d]."""
        return np.ones(columns)

    def _new_state(self) -> GramState:
        return GramState()

    def _forget(self) -> None:
        self.__dict__.pop("state_", None)

    def _needs_x(self) -> str:
        """Why sums do not suffice for the parameters, if so."""
        if self.solver in ("auto", "gram") and not self._descends:
            return ""
        solver = "gd" if self._descends else self.solver
        return f"solver={solver!r} needs all of X, by fit: sums suffice for 'gram' only"

    def _fit_sums(self, state: GramState) -> LinearRegression:
        sums = state.centred(intercept=self.fit_intercept)
        if not np.all(np.isfinite(sums.gram)) or not np.all(np.isfinite(sums.squares)):
            raise ValueError("X or y holds values whose squares have no place in float64: scale it")
        self.state_, self._one_target = state, state.one_target
        self.n_features_in_ = len(sums.gram)
        alpha, column = self._alpha_of(len(sums.squares)), self._column_penalty(len(sums.gram))
        factor, coef = gram.from_sums(sums, alpha, column)
        self.learning_rate_ = None
        self.solver_, self.solver_reason_ = "gram", f"from sums of {state.n_rows} rows"
        self.rank_: int | None = factor.rank
        self.condition_ = factor.condition
        zero = state.centred(intercept=False).squares.sum()
        self.loss_curve_ = 0.5 * np.array([zero, sums.residual_squares(coef).sum()])
        self.loss_, self.n_iter_, self.n_reads_ = float(self.loss_curve_[-1]), 1, 1
        self._set_coefficients(sums.y_mean - sums.x_mean @ coef, coef)
        self._basis = None
        if not (np.any(alpha) and np.any(column)):
            with_intercept = self.fit_intercept
            self._basis = inference.of_sums(sums, state.log_weight, factor, coef, with_intercept)
        self._warn_of_sums(sums, factor)
        return self

    def _warn_of_sums(self, sums: Centred, factor: AnyFactor) -> None:
        self._error_of_sums = error = EPS * (factor.condition**2 + sums.lost)
        possible = min(int(np.sum(np.diag(sums.gram) > 0)), sums.rows - int(self.fit_intercept))
        if factor.rank < possible:
            self._error_of_sums = 1.0
            what = "columns depend on others, or so nearly that XᵀX cannot tell"
        elif error > 1e-6:
            what = f"coefficients are right to about {error:.0e} of their size only"
        else:
            return
        warnings.warn(
            f"From sums alone, {what}: fit(X, y) can, and Ridge need not",
            scipy.linalg.LinAlgWarning,
            stacklevel=4,
        )

    def _check_data(
        self, X: Any, y: Any, sample_weight: Any, reset: bool = True
    ) -> tuple[Any, Array, Array | None]:
        floats = [np.float64, np.float32] + ([] if self._descends else [np.float16])
        x, y_checked = validate_data(
            self, X, y, reset=reset, dtype=floats, multi_output=True, y_numeric=True,
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
