"""A linear model with scikit-learn's conventions: data checked, predictions, what they are worth.

How its coefficients are found is in the classes on top: from sums over rows, or from X.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.linalg

from . import inference, solvers
from ._sklearn import (
    BaseEstimator,
    MultiOutputMixin,
    RegressorMixin,
    _check_sample_weight,
    check_array,
    check_is_fitted,
    validate_data,
)
from .inference import Summary
from .solvers.problem import EPS, Problem

Array: TypeAlias = npt.NDArray[Any]


class LinearModel(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """y = X·coef + intercept, for one target or several, once `coef_` and `intercept_` are set."""

    fit_intercept: bool
    solver_: str
    _one_target: bool  # whether y was [n]
    _basis: inference.Basis | None  # what `fit` kept for statistics

    @property
    def _descends(self) -> bool:
        """Whether X is for gradient descent, which reads neither sparse rows nor float16."""
        return False

    def predict(self, X: npt.ArrayLike) -> Array:
        """X·coef + intercept, in float64: [n], or [n, k] if y had two dimensions."""
        check_is_fitted(self)
        floats = [np.float64, np.float32, np.float16]
        x = validate_data(self, X, reset=False, dtype=floats, accept_sparse="csr")
        return np.asarray(x @ self.coef_.T + self.intercept_)

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

        >>> import numpy as np, linreg_ops as lo
        >>> X = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
        >>> y = np.array([1.0, 3.1, 4.9, 7.2, 8.8])
        >>> print(lo.LinearRegression().fit(X, y).summary())
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

    def _check_data(
        self, X: Any, y: Any, sample_weight: Any, reset: bool = True
    ) -> tuple[Any, Array, Array | None]:
        if getattr(getattr(y, "dtype", None), "name", "") == "bfloat16":
            y = np.asarray(y).astype(np.float32)  # the checks of targets do not know the type
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

    def _name(self, column: int) -> str:
        names = getattr(self, "feature_names_in_", None)
        return str(column) if names is None else repr(names[column])
