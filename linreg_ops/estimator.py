"""Linear regression with scikit-learn's conventions: exact where that is affordable, and checked.

`_least_squares.py` solves directly; `_iterative.py` descends by fused passes over X. The estimator
chooses, and says when the answer is not the least. On the raw kernels: no TensorFlow.
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

from . import _least_squares as direct
from ._iterative import Descent

Array: TypeAlias = npt.NDArray[Any]


SOLVERS = ("auto", "exact", "gram", "cg", "gd")
# Floating-point operations up to which QR takes about a second, and a direct solution a minute.
QR_WORK, DIRECT_WORK = 2e10, 1e12
# More columns than this (and as many rows) take an SVD of minutes: steps are tried first.
DIRECT_COLUMNS = 1000


class LinearRegression(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Least squares, as a scikit-learn regressor that does not give a wrong answer in silence.

    Minimises ½ Σ sᵢ ‖xᵢ·coef + intercept - yᵢ‖² (the sum convention of `tf.nn.l2_loss`, not a
    mean), on the CPU and without TensorFlow. X may be float32 or float64 and is read in blocks of
    rows; the coefficients are float64, for the data as they are: float32 would round an intercept
    by more than a fit is worth where columns vary little around a large value.

    Equivalent, unfused::

        coef, *_ = np.linalg.lstsq(X - X.mean(0), y - y.mean(0))
        intercept = y.mean(0) - X.mean(0) @ coef

    Args:
        fit_intercept: Fit a constant term too.
        solver: "exact": QR of blocks of rows, then SVD, refined by the gradient (in extended
            precision where n·d is small). "gram": XᵀX in float64, refined likewise; refuses where
            XᵀX has lost too many digits. "cg": conjugate gradients on the fused kernel. "gd":
            gradient descent, the whole loop in one call of it. "auto": "gd" with a learning rate;
            otherwise "exact", or for much data "gram" where it can and "exact" where it cannot,
            or "cg" for more than 1000 columns.
        learning_rate: A float, or one per step, for gradient descent; `"auto"`: 1 / λ, λ the
            largest eigenvalue of the Hessian (by power iteration). Rates apply to the *sum* of
            squares, so a stable one is below 2 / λ.
        num_steps: At most so many steps of "cg"; exactly so many of "gd".
        momentum: The share of the last step that "gd" adds to the next (heavy ball), in [0, 1).
        tol: "cg" and "gd" have converged when what of the residual X still explains is below
            tol times the residual, or within rounding of y.
        standardize: "cg" and "gd" train on centred columns of unit variance (a copy of X in its
            type), then map the coefficients back: the same minimum, reached in far fewer steps when
            columns differ in scale. With False, X itself is read, and not copied if it is
            C-contiguous. Where several coefficients fit equally well (more columns than rows,
            columns that depend on each other), it also says which are taken: those of least norm
            for columns of unit variance, or with False for the columns as they are.

    Attributes:
        coef_: [d], or [k, d] if y has two dimensions; float64. Exactly 0 for a constant column.
        intercept_: Float, or [k] if y has two dimensions; 0.0 without `fit_intercept`.
        loss_: ½ Σ s r² of the coefficients returned, from their residuals.
        loss_curve_: The loss before the first step and after each one; the last is `loss_`.
        n_iter_: Steps taken; for the direct solvers, the reads of X that refine.
        solver_: The solver that gave the coefficients; `solver_reason_` says why it was taken.
        condition_: Condition number of the centred columns of unit length, where the solver knows;
            infinite where they depend on each other.
        learning_rate_: The rate used; None but for "gd".
        n_features_in_, feature_names_in_: As everywhere in scikit-learn.

    Sources: Golub, "Numerical methods for solving linear least squares problems", 1965; Hestenes
    and Stiefel, "Methods of conjugate gradients for solving linear systems", 1952 (their variant
    for least squares, CGLS).

    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> model = LinearRegression().fit(X, [1.0, 3.0, 5.0, 7.0])
    >>> model.coef_.round(6), round(model.intercept_, 6)
    (array([2.]), 1.0)
    >>> model.predict([[10.0]]).round(6)
    array([21.])
    >>> model.solver_
    'exact'
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

        Warns:
            ConvergenceWarning: The coefficients are not those of least loss.
            RuntimeWarning: The loss is too large for a float64; the coefficients are right.

        Raises:
            ValueError: Parameters out of range, shapes that do not fit, NaN or infinite values,
                negative weights, coefficients too large for a float64.
            DivergenceError: The learning rate is too large; carries the step and the last finite
                weights (see `linreg_ops.training.DivergenceError`).
        """
        self._check_parameters()
        x, y_checked = validate_data(
            self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True
        )
        targets = check_array(y_checked, dtype=np.float64, ensure_2d=False, input_name="y")
        one_target = targets.ndim == 1
        targets = targets.reshape(len(targets), -1)
        s = None
        if sample_weight is not None:
            s = _check_sample_weight(sample_weight, x, dtype=np.float64)
            if s.min() < 0:
                raise ValueError("sample_weight must not be negative")
            if not s.any():
                raise ValueError("sample_weight must not be all zero")

        rows = direct.Rows(x, targets, s, self.fit_intercept)
        self.learning_rate_: Any = None
        self.condition_ = np.nan
        solver, self.solver_reason_ = self._choose(rows)
        if solver in ("exact", "gram"):
            intercept, coef = self._fit_directly(rows, solver)
        else:
            intercept, coef = self._fit_by_steps(rows, solver)
        self._check_result(intercept, coef)
        self.coef_ = coef[:, 0] if one_target else np.ascontiguousarray(coef.T)
        self.intercept_: Any = 0.0
        if self.fit_intercept:
            self.intercept_ = float(intercept[0]) if one_target else intercept
        return self

    def predict(self, X: npt.ArrayLike) -> Array:
        """X·coef + intercept in float64: [n], or [n, k] if y had two dimensions."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return np.asarray(x @ self.coef_.T + self.intercept_)

    def _choose(self, rows: direct.Rows) -> tuple[str, str]:
        if self.solver != "auto":
            return self.solver, "asked for"
        if self.learning_rate is not None:
            return "gd", "a learning rate was given"
        small, large = sorted((rows.n, rows.columns))
        work = 2.0 * large * small**2
        if small > DIRECT_COLUMNS and work > QR_WORK:
            return "cg", f"a direct solution would take {work:.0e} operations"
        if work <= QR_WORK or rows.n < 2 * rows.columns:
            return "exact", f"QR takes {work:.0e} operations"
        return "gram", f"QR would take {work:.0e} operations, XᵀX half of them"

    def _fit_directly(self, rows: direct.Rows, solver: str) -> tuple[Array, Array]:
        found = result = None
        if solver == "gram":
            found = direct.factorize_gram(rows)
            if found is not None:
                result = direct.refine(rows, *found)
            if result is None or not result.converged:
                if self.solver == "gram":
                    raise ValueError(
                        "solver='gram': XᵀX has lost too many digits, the columns are too nearly "
                        "dependent; use solver='exact'"
                    )
                solver, self.solver_reason_ = "exact", "XᵀX has lost too many digits"
        if solver == "exact":
            found = direct.factorize_qr(rows)
            result = direct.refine(rows, *found)
        assert found is not None
        assert result is not None
        self.solver_, self.condition_ = solver, found[0].condition
        intercept, coef = rows.original(result.w)
        if not self.standardize and found[0].condition == np.inf:
            intercept, coef = self._least_norm(rows, found[0], result.w)
        first, _ = rows.loss_and_gradient(rows.inner(np.zeros(rows.k), np.zeros((rows.d, rows.k))))
        self._keep_losses(rows, np.array([rows.original_loss(first)]), intercept, coef)
        self.n_iter_ = result.reads
        return intercept, coef

    @staticmethod
    def _least_norm(rows: direct.Rows, factor: direct.Factor, w: Array) -> tuple[Array, Array]:
        p = int(rows.intercept)
        slopes = direct.least_norm(factor, w[p:].astype(np.float64))
        if p:
            first = w[:1] + (factor.edge @ (w[p:] - slopes) / factor.corner)[None]
            slopes = np.vstack([first, slopes])
        return rows.original(slopes)

    def _fit_by_steps(self, rows: direct.Rows, solver: str) -> tuple[Array, Array]:
        descent = Descent(rows, self.standardize)
        if solver == "cg":
            w, losses = descent.conjugate_gradients(self.num_steps, self.tol)
        else:
            self.learning_rate_ = self.learning_rate
            if self.learning_rate is None or isinstance(self.learning_rate, str):
                self.learning_rate_ = descent.stable_rate()
            w, losses = descent.descend(self.learning_rate_, self.num_steps, self.momentum)
        intercept, coef = descent.original(w)
        self.solver_ = solver
        self._keep_losses(rows, losses[:-1], intercept, coef)
        self.n_iter_ = len(losses) - 1
        if not self._converged(rows, intercept, coef):
            self._warn_not_converged()
        return intercept, coef

    def _keep_losses(self, rows: direct.Rows, before: Array, intercept: Array, coef: Array) -> None:
        loss, _ = rows.loss_and_gradient(rows.inner(intercept, coef))
        self.loss_ = rows.original_loss(loss)
        self.loss_curve_ = np.append(before, self.loss_).astype(np.float64)
        if not np.isfinite(self.loss_) and np.isfinite(coef).all():
            warnings.warn(
                "The loss, ½ Σ s r², is too large for a float64: loss_ is infinite",
                RuntimeWarning,
                stacklevel=4,
            )

    def _converged(self, rows: direct.Rows, intercept: Array, coef: Array) -> bool:
        """Whether steps have come to the least loss, in float64 and for every target."""
        w = rows.inner(intercept, coef)
        if not np.isfinite(w).all():
            return False
        loss, gradient = rows.loss_and_gradient(w)
        small, large = sorted((rows.n, rows.columns))
        total, _ = rows.loss_and_gradient(np.zeros_like(w))
        eps = float(np.finfo(rows.x.dtype).eps)
        limit = max(self.tol, eps) * np.sqrt(loss) + 64 * eps * np.sqrt(total)
        if small <= DIRECT_COLUMNS and 2.0 * large * small**2 <= DIRECT_WORK:
            factor, _ = direct.factorize_qr(rows)
            self.condition_ = factor.condition
            return bool(np.all(np.sqrt(factor.gap(gradient)) <= limit))
        # Each column's cosine with the residual, which bounds what it alone would explain.
        length = np.sqrt(sum(np.square(a).sum(0) for a, _ in rows.blocks()))
        length[length == 0] = 1.0
        return bool(np.all(np.abs(gradient) <= length[:, None] * np.sqrt(2) * limit))

    def _warn_not_converged(self) -> None:
        what = f"The coefficients are not those of least loss after {self.n_iter_} steps"
        if self.solver_ == "cg":
            cure = "Increase num_steps, or use solver='exact'"
        else:
            cure = "Increase num_steps or learning_rate, or leave learning_rate out"
        if not self.standardize:
            cure += ", or use standardize=True"
        warnings.warn(f"{what}. {cure}.", ConvergenceWarning, stacklevel=4)

    @staticmethod
    def _check_result(intercept: Array, coef: Array) -> None:
        if not (np.isfinite(intercept).all() and np.isfinite(coef).all()):
            raise ValueError(
                "the coefficients are too large for a float64: scale the columns of X up, or y down"
            )

    def _check_parameters(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {self.solver!r}")
        if self.solver not in ("auto", "gd") and self.learning_rate is not None:
            raise ValueError(f"learning_rate needs solver='gd' or 'auto', got {self.solver!r}")
        if not isinstance(self.num_steps, int | np.integer) or self.num_steps < 0:
            raise ValueError(f"num_steps must be an integer >= 0, got {self.num_steps!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum!r}")
        if self.momentum and self.learning_rate is None and self.solver != "gd":
            raise ValueError("momentum needs a learning_rate: the other solvers have none")
        if not self.tol >= 0:
            raise ValueError(f"tol must be >= 0, got {self.tol!r}")
        rate = self.learning_rate
        if isinstance(rate, str):
            if rate != "auto":
                raise ValueError(f"learning_rate must be None, 'auto' or numbers, got {rate!r}")
        elif rate is not None and not np.all(np.asarray(rate, np.float64) > 0):
            raise ValueError(f"learning_rate must be positive, got {rate!r}")
