"""What coefficients are worth: standard errors, tests, intervals, and the table of them.

Sources: Seber and Lee, "Linear regression analysis", 2003, chapters 3 and 4; White, "A
heteroskedasticity-consistent covariance matrix estimator", 1980 (HC0); MacKinnon and White, "Some
heteroskedasticity-consistent covariance matrix estimators", 1985 (HC1 to HC3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.linalg
from scipy.special import fdtrc, stdtr, stdtrit

from .solvers import CHECK_WORK, EXTENDED, exact, gram
from .solvers.factor import AnyFactor, Factor
from .solvers.problem import EPS, Array, Problem
from .solvers.sums import Centred

COVARIANCES = ("nonrobust", "HC0", "HC1", "HC2", "HC3")


@dataclass
class Basis:
    """What a fit keeps for its statistics, O(d + k): nothing of the rows, no matrix of columns."""

    rows: int  # of positive weight
    log_weight: float  # Σ log s
    intercept: bool
    rank: int  # the intercept not counted
    condition: float
    unit: Array  # [p]: diagonal of (XᵀSX)⁻¹, the intercept first; NaN: not to be estimated
    residual: Array  # [k]: Σ s r²
    total: Array  # [k]: Σ s (y - ȳ)², or Σ s y² without intercept
    error: float  # of `unit`, relative, by rounding


def of_fit(problem: Problem, factor: AnyFactor, residual: Array, error: float) -> Basis | None:
    """Describes a fit by "exact" or "gram" without a penalty; there is none of others."""
    if not isinstance(factor, Factor) or np.any(problem.penalty):
        return None
    with np.errstate(all="ignore"):
        root = problem.directions(factor.root())
        unit = problem.s_scale * np.sum(np.square(root), axis=1)
    unit[int(problem.intercept) :][~factor.estimable()] = np.nan
    return _basis(problem, factor, unit, residual, error)


def _basis(problem: Problem, factor: Factor, unit: Array, residual: Array, error: float) -> Basis:
    rows, logs = problem.n, 0.0
    if problem.s is not None:
        used = problem.s[problem.s > 0]
        rows, logs = len(used), float(np.log(used).sum())
    with np.errstate(all="ignore"):
        total = _spread(problem.y, problem.s, problem.intercept)
    head = (rows, logs, problem.intercept, factor.rank, factor.condition)
    return Basis(*head, unit, residual, total, error)


def _spread(y: Array, s: Array | None, intercept: bool) -> Array:
    """Σ s (y - ȳ)² of each column, or Σ s y²; block by block, as y may be large."""
    k = y.shape[1]
    step = max(1, 2**18 // max(k, 1))
    shift = np.zeros(k)
    weight, first, second = 0.0, np.zeros(k), np.zeros(k)
    for read in range(2 if intercept else 1):
        weight, first, second = 0.0, np.zeros(k), np.zeros(k)
        for begin in range(0, len(y), step):
            rows = slice(begin, begin + step)
            b = np.subtract(y[rows], shift, dtype=np.float64)
            ones = np.ones(len(b)) if s is None else s[rows]
            weight += float(ones.sum())
            first += ones @ b
            second += np.einsum("i,ij,ij->j", ones, b, b)
        if intercept and read == 0:
            shift = first / weight
    return second - np.square(first) / weight if intercept else second


def of_sums(
    sums: Centred, log_weight: float, factor: AnyFactor, coef: Array, intercept: bool
) -> Basis | None:
    """Describes a fit to sums, without a penalty."""
    if not isinstance(factor, Factor):
        return None
    root = factor.root()
    unit = np.sum(np.square(root), axis=1)
    unit[~factor.estimable()] = np.nan
    if intercept:
        first = 1.0 / sums.weight + np.sum(np.square(sums.x_mean @ root))
        unit = np.append(first, unit)
    error = EPS * (factor.condition**2 + sums.lost)
    head = (sums.rows, log_weight, intercept, factor.rank, factor.condition)
    return Basis(*head, unit, sums.residual_squares(coef), sums.squares, error)


@dataclass
class Read:
    """What a read of the rows adds to a basis."""

    covariances: Array  # [k, p, p]
    f: Array  # [k]: Wald's, of the slopes


def of_data(problem: Problem, intercept: Array, coef: Array, covariance: str) -> tuple[Basis, Read]:
    """The basis and the covariances of coefficients, from two to four reads of X.

    (AᵀSA)⁻¹ = Z Zᵀ with Z from a QR; or from a Gram matrix, and then again from that of A Z, in
    which nothing is left to be squared (Yamamoto and others, "Roundoff error analysis of the
    CholeskyQR2 algorithm", 2015).
    """
    if 2.0 * problem.n * problem.d**2 <= CHECK_WORK or problem.n < 2 * problem.d:
        factor, _ = exact.factorize(problem)
        root = factor.root()  # type: ignore[union-attr]
    else:
        factor, _ = gram.factorize(problem)
        root = factor.root()  # type: ignore[union-attr]
        lower = scipy.linalg.cholesky(problem.images(root, np.zeros(problem.d)), lower=True)
        root = scipy.linalg.solve_triangular(lower, root.T, lower=True).T
    assert isinstance(factor, Factor)
    # Residuals cancel: in long double where the fit computes them so too.
    extended = problem.n * max(problem.d, 1) * problem.k <= EXTENDED
    w = problem.from_original(intercept, coef).astype(np.longdouble if extended else np.float64)
    residual, meat = _meat(problem, root, w, covariance, factor.rank)
    wide = problem.directions(root)
    unit = problem.s_scale * np.sum(np.square(wide), axis=1)
    unknown = np.append(np.zeros(int(problem.intercept), bool), ~factor.estimable())
    unit[unknown] = np.nan
    basis = _basis(problem, factor, unit, residual, EPS * factor.condition)
    covariances = np.array([wide @ m @ wide.T for m in meat])
    covariances[:, unknown] = np.nan
    covariances[:, :, unknown] = np.nan
    first = int(problem.intercept)
    f = np.full(problem.k, np.nan)
    if factor.full and factor.rank:
        # By the slopes as Zᵀ's columns have them, in which their covariance is the meat.
        slopes = w[first:].astype(np.float64) / problem.y_scale
        v = np.linalg.solve(root[first:, first:], slopes)
        pairs = zip(v.T, meat[:, first:, first:], strict=True)
        f = np.array([own @ np.linalg.pinv(m) @ own / len(own) for own, m in pairs])
    return basis, Read(covariances, f)


def _meat(
    problem: Problem, root: Array, w: Array, covariance: str, rank: int
) -> tuple[Array, Array]:
    """Σ s r² [k], and Zᵀ⁻¹ covariance Z⁻¹ [k, r, r]: Σ s² r² u uᵀ of u = Zᵀa, or σ² of ones.

    Residuals are taken in w's dtype.
    """
    size = root.shape[1]
    loss, meat = np.zeros(problem.k), np.zeros((problem.k, size, size))
    power = {"HC2": 1, "HC3": 2}.get(covariance, 0)
    rows = 0
    for a, b, s in problem.blocks(w.dtype.type):
        ones = np.ones(len(a)) if s is None else s
        r = a @ w[int(problem.intercept) :] - b
        if problem.intercept:
            r += w[0]
        loss += (ones @ np.square(r)).astype(np.float64)
        a, r = a.astype(np.float64), r.astype(np.float64)
        u = a @ root[int(problem.intercept) :]
        if problem.intercept:
            u += root[0]
        rows += len(a)
        if covariance == "nonrobust":
            continue
        free = 1.0 - ones * np.einsum("ij,ij->i", u, u)
        with np.errstate(divide="ignore", invalid="ignore"):
            # A row that its own coefficient fits has no residual left, and no say.
            factor = np.where(free > 1e-9, np.square(ones) / free**power, 0.0)
        for t in range(problem.k):
            meat[t] += (u * (factor * np.square(r[:, t]))[:, None]).T @ u
    free_rows = rows - rank - int(problem.intercept)
    with np.errstate(divide="ignore", invalid="ignore"):
        if covariance == "nonrobust":
            meat += (
                problem.s_scale * np.eye(size) * (loss / problem.s_scale / free_rows)[:, None, None]
            )
        if covariance == "HC1":
            meat *= np.divide(rows, free_rows)
    with np.errstate(all="ignore"):
        scale = problem.y_scale * problem.y_scale
        return loss / scale / problem.s_scale, meat / scale[:, None, None]


@dataclass
class Summary:
    """Statistics of least squares: an attribute for each, `to_frame()`, and a table by `print`.

    There are p coefficients, the intercept first if there is one, and k targets; arrays of one
    target that was given in one dimension lack the k. σ² and all that follows divide by rows - p,
    p counting what is independent. Weights are those of `fit`: inverse variances, up to a factor.

    Attributes:
        names: [p], of the columns.
        coef: [p] or [p, k].
        standard_errors: [p] or [p, k], as are `t` and `p_values`. NaN for a coefficient that the
            rows do not determine: of a constant column, or one that depends on others.
        t, p_values: coef / standard_errors, and how probable as large a |t| is if the coefficient
            is zero: by Student's t with `df_residual` degrees of freedom, for every covariance.
        intervals: [p, 2] or [p, k, 2]: where the coefficient is, with a probability of `level`.
        covariance: [p, p] or [k, p, p] if X was given; else None.
        covariance_type: "nonrobust", "HC0", ... "HC3".
        sigma2: Σ s r² / df_residual; `sigma` is its root.
        r2, adjusted_r2: Coefficient of determination; about zero without an intercept.
        f, f_p_value: Of the hypothesis that all coefficients but the intercept are zero: by sums of
            squares, or by the robust covariance (Wald's).
        log_likelihood, aic, bic: Of normal errors; `-2 log_likelihood` + 2 p, or p log n.
        rows, df_model, df_residual: n, the rank without the intercept, and what is left.
        condition: As the model's `condition_`.
        solver: What found the coefficients.
    """

    names: list[str]
    coef: Array
    covariance_type: str
    level: float
    rows: int
    df_model: int
    df_residual: int
    condition: float
    solver: str
    standard_errors: Array = field(init=False)
    t: Array = field(init=False)
    p_values: Array = field(init=False)
    intervals: Array = field(init=False)
    covariance: Array | None = field(init=False)
    sigma2: Any = field(init=False)
    sigma: Any = field(init=False)
    r2: Any = field(init=False)
    adjusted_r2: Any = field(init=False)
    f: Any = field(init=False)
    f_p_value: Any = field(init=False)
    log_likelihood: Any = field(init=False)
    aic: Any = field(init=False)
    bic: Any = field(init=False)

    def to_frame(self) -> Any:
        """The table of coefficients as a pandas DataFrame: a row each, by (target, name) if k."""
        import pandas as pd

        low, high = (f"{q:.4g}" for q in (0.5 - self.level / 2, 0.5 + self.level / 2))
        columns = ["coef", "std err", "t", "P>|t|", f"[{low}", f"{high}]"]
        parts = [self.coef, self.standard_errors, self.t, self.p_values]
        parts += [self.intervals[..., 0], self.intervals[..., 1]]
        index: Any = pd.Index(self.names)
        if self.coef.ndim == 2:
            index = pd.MultiIndex.from_product([range(self.coef.shape[1]), self.names])
        values = {name: part.T.reshape(-1) for name, part in zip(columns, parts, strict=True)}
        return pd.DataFrame(values, index=index)

    def __str__(self) -> str:
        k = self.coef.shape[1] if self.coef.ndim == 2 else None
        if k is None:
            return self._table("", ())
        return "\n\n".join(self._table(f", target {t}", (t,)) for t in range(k))

    def _table(self, title: str, target: tuple[int, ...]) -> str:
        def of(value: Any) -> float:
            return float(np.asarray(value)[target] if target else value)

        head = [
            ("rows", f"{self.rows}", "R²", f"{of(self.r2):.6g}"),
            ("degrees of freedom", f"{self.df_residual}", "adjusted R²",
             f"{of(self.adjusted_r2):.6g}"),
            ("solver", self.solver, f"F({self.df_model}, {self.df_residual})", f"{of(self.f):.5g}"),
            ("condition number", f"{self.condition:.3g}", "P>F", f"{of(self.f_p_value):.3g}"),
            ("residual std err", f"{of(self.sigma):.6g}", "AIC", f"{of(self.aic):.6g}"),
            ("covariance", self.covariance_type, "BIC", f"{of(self.bic):.6g}"),
        ]  # fmt: skip
        lines = [f"Least squares{title}"]
        lines += [f"{a:<20}{b:>14}    {c:<20}{d:>14}" for a, b, c, d in head]
        low, high = (f"{q:.4g}" for q in (0.5 - self.level / 2, 0.5 + self.level / 2))
        columns = ("coef", "std err", "t", "P>|t|", f"[{low}", f"{high}]")
        width = max(len("intercept"), *(len(name) for name in self.names), 0)
        rule = "-" * (width + 67)
        lines += [rule, " " * width + "".join(
            f"{c:>{w}}" for c, w in zip(columns, (13, 12, 10, 8, 12, 12), strict=True)
        ), rule]  # fmt: skip
        for j, name in enumerate(self.names):
            at = (j, *target)
            lines.append(
                f"{name:<{width}}{self.coef[at]:>13.5g}{self.standard_errors[at]:>12.4g}"
                f"{self.t[at]:>10.4g}{self.p_values[at]:>8.3f}"
                f"{self.intervals[at][0]:>12.5g}{self.intervals[at][1]:>12.5g}"
            )
        return "\n".join([*lines, rule])


def summarise(
    basis: Basis,
    names: list[str],
    coef: Array,
    solver: str,
    *,
    level: float,
    covariance_type: str = "nonrobust",
    read: Read | None = None,
    one_target: bool = True,
) -> Summary:
    """Everything from a basis and coefficients [p, k], and what a read of X has added."""
    robust = read if covariance_type != "nonrobust" else None
    n, rank = basis.rows, basis.rank
    p = rank + int(basis.intercept)
    free = n - p
    found = Summary(names, coef, covariance_type, level, n, rank, free, basis.condition, solver)
    with np.errstate(all="ignore"):
        sigma2 = basis.residual / free if free > 0 else np.full_like(basis.residual, np.nan)
        variance = np.outer(basis.unit, sigma2)
        if robust is not None:
            variance = np.diagonal(robust.covariances, axis1=1, axis2=2).T
        error = np.sqrt(variance)
        t = coef / error
        reach = stdtrit(max(free, 1), 0.5 + level / 2) * error
        explained = basis.total - basis.residual
        f = explained / rank / sigma2 if rank else np.full_like(sigma2, np.nan)
        f = f if robust is None else robust.f
        likelihood = -0.5 * n * (np.log(2 * np.pi * basis.residual / n) + 1) + basis.log_weight / 2
        r2 = 1.0 - basis.residual / basis.total
        adjusted = 1.0 - (1.0 - r2) * (n - int(basis.intercept)) / free if free else np.nan * r2
    arrays: dict[str, Any] = {"standard_errors": error, "t": t}
    arrays["p_values"] = 2 * stdtr(max(free, 1), -np.abs(t))
    arrays["intervals"] = np.stack([coef - reach, coef + reach], axis=-1)
    scalars = {"sigma2": sigma2, "sigma": np.sqrt(sigma2), "r2": r2, "adjusted_r2": adjusted}
    scalars |= {"f": f, "f_p_value": fdtrc(max(rank, 1), max(free, 1), f)}
    scalars |= {"log_likelihood": likelihood, "aic": 2 * p - 2 * likelihood}
    scalars["bic"] = np.log(n) * p - 2 * likelihood
    for name, value in arrays.items():
        setattr(found, name, value[:, 0] if one_target else value)
    for name, value in scalars.items():
        setattr(found, name, float(value[0]) if one_target else value)
    found.covariance = None if read is None else read.covariances
    if one_target:
        found.coef = coef[:, 0]
        found.covariance = None if read is None else read.covariances[0]
    return found
