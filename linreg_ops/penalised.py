"""Least squares with a penalty on the coefficients, given or chosen by cross-validation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from . import solvers
from ._arguments import refusing_the_absent
from ._linear_model import Array
from ._sklearn import check_cv, check_is_fitted
from .estimator import LinearRegression
from .inference import Summary
from .solvers import penalties
from .solvers.penalties import Errors
from .solvers.problem import Problem, refuse_overflow
from .solvers.state import GramState

_SCORINGS = ("neg_mean_squared_error", "r2")


class Ridge(LinearRegression):
    """Least squares with a penalty on the coefficients, as a scikit-learn regressor.

    Minimises ½ Σ sᵢ ‖xᵢ·coef + intercept - yᵢ‖² + ½ Σₜ alphaₜ Σⱼ penaltyⱼ coefₜⱼ², with the
    coefficients in X's own units and the intercept not penalised: what scikit-learn's `Ridge`
    minimises, halved.

    Args:
        alpha: The penalty: a number, or one per target [k]; not negative. All targets are fitted
            from the same reads of X.
        penalty: [d], by which alpha is multiplied for each column: 0 for one that is not to be
            shrunk, like the intercept; X's variances, for what standardized columns would give.
            None for ones. Not negative. A pandas Series is to be in the order of X's columns.
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

    >>> X, y = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), [1.0, -1.0, 1.0, -1.0]
    >>> Ridge(alpha=2.0, penalty=[0.0, 3.0]).fit(X, y).coef_
    array([1.  , 0.25])
    """

    learning_rate = None
    momentum = 0.0
    standardize = True

    @refusing_the_absent
    def __init__(
        self,
        alpha: float | npt.ArrayLike = 1.0,
        *,
        penalty: npt.ArrayLike | None = None,
        fit_intercept: bool = True,
        solver: str = "auto",
        num_steps: int = 1000,
        tol: float = 1e-10,
    ) -> None:
        self.alpha = alpha
        self.penalty = penalty
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.num_steps = num_steps
        self.tol = tol

    def summary(self, *arguments: Any, **options: Any) -> Summary:
        """As of `LinearRegression`, where the penalty is zero.

        Raises:
            ValueError: There is a penalty: penalised coefficients are biased by an unknown amount,
                and no standard error of theirs is one of their distance from the truth.
        """
        check_is_fitted(self)
        k = 1 if self._one_target else len(self.coef_)
        if np.any(self._alpha_of(k)) and np.any(self._column_penalty(self.n_features_in_)):
            raise ValueError(
                "penalised coefficients are biased, which no standard error shows: summary() is "
                "for alpha=0 and LinearRegression"
            )
        return super().summary(*arguments, **options)

    def _alphas(self) -> Array:
        return np.asarray(self.alpha, np.float64)

    def _alpha_of(self, targets: int) -> Array:
        alpha = self._alphas()
        if alpha.shape not in ((), (targets,)):
            raise ValueError(
                f"alpha must be a number or have one entry per target, shape [{targets}], "
                f"got shape {list(alpha.shape)}"
            )
        if not np.all(np.isfinite(alpha) & (alpha >= 0)):
            raise ValueError(f"alpha must not be negative, infinite or NaN, got {self.alpha!r}")
        return np.broadcast_to(alpha, targets)

    def _column_penalty(self, columns: int) -> Array:
        if self.penalty is None:
            return np.ones(columns)
        penalty = np.asarray(self.penalty, np.float64)
        if penalty.shape != (columns,):
            raise ValueError(
                f"penalty must have one entry per column of X, shape [{columns}], "
                f"got shape {list(penalty.shape)}"
            )
        names = list(getattr(self, "feature_names_in_", ()))
        index = getattr(self.penalty, "index", None)  # of a pandas Series; a list's is a method
        index = [] if index is None or callable(index) else list(index)
        if index != names and set(index) == set(names):
            raise ValueError(f"penalty must be in the order of X's columns, {names}, got {index}")
        wrong = ~(np.isfinite(penalty) & (penalty >= 0))
        if np.any(wrong):
            raise ValueError(
                f"penalty must not be negative, infinite or NaN, got {penalty[wrong][0]} "
                f"for column {self._name(int(np.argmax(wrong)))}"
            )
        refuse_overflow(self._alphas(), penalty)
        return penalty

    def _check_parameters(self) -> None:
        if self.solver == "gd":
            raise ValueError("solver='gd' has no penalty: use another, or LinearRegression")
        super()._check_parameters()


class RidgeCV(Ridge):
    """Ridge whose penalty is chosen by cross-validation, one for all targets or one for each.

    Minimises what `Ridge` does, at the penalty among `alphas` that predicts best. Rows are read
    once, into a `GramState` with the sums of every fold; an eigendecomposition for each fold then
    gives all penalties' errors. No n·k array is made, and X is not copied.

    Equivalent, unfused (mean of the folds, for each target)::

        GridSearchCV(Ridge(), {"alpha": alphas}, cv=cv, scoring="neg_mean_squared_error")

    Args:
        alphas: Penalties to choose from, as of `Ridge`'s alpha; not negative.
        penalty: [d], by which they are multiplied for each column, as of `Ridge`.
        fit_intercept: Fit a constant term too, not penalised.
        alpha_per_target: Choose for each target by itself.
        cv: None: leave-one-out, exactly, which takes a second read of X. An integer: so many folds
            of rows in a row, as scikit-learn's `KFold`, from one read. "gcv": generalised
            cross-validation, which stands in for leave-one-out, from one read. Or a splitter of
            scikit-learn's whose test sets hold each row once.
        scoring: "neg_mean_squared_error" (also for None) or "r2": a fold's 1 - Σ r² / Σ (y - ȳ)².
            The mean over the folds counts, and over the targets without `alpha_per_target`.

    Attributes:
        alpha_: The penalty chosen: float, or [k] with `alpha_per_target` and two dimensions of y.
        best_score_: Its score, of the same shape; higher is better.
        scores_: [penalties] or, if y has two dimensions, [penalties, k]: each penalty's score for
            each target, the mean over the folds. Errors are right to 10⁻¹³ of the targets'
            variance or so, and not below that.
        coef_, intercept_, loss_, condition_, rank_, n_reads_: As of `Ridge`, fitted to all rows at
            `alpha_`.
        state_: The `GramState` with the sums of every fold.

    `partial_fit` and `fit_state` choose and fit without X, for an integer `cv` or "gcv".
    `partial_fit` deals rows to the folds in turn; a `GramState` of your own can be told otherwise.

    Sources: Golub, Heath and Wahba, "Generalized cross-validation as a method for choosing a good
    ridge parameter", 1979; Allen, "The relationship between variable selection and data
    augmentation and a method for prediction", 1974.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 3))
    >>> y = np.column_stack([X @ [1.0, 2.0, 3.0], rng.normal(size=200)])
    >>> model = RidgeCV([1e-3, 1.0, 1e3], alpha_per_target=True, cv=5).fit(X, y)
    >>> model.alpha_, model.n_reads_
    (array([1.e-03, 1.e+03]), 1)
    """

    solver, tol, num_steps = "gram", 1e-10, 1000

    @refusing_the_absent
    def __init__(
        self,
        alphas: npt.ArrayLike = (0.1, 1.0, 10.0),
        *,
        penalty: npt.ArrayLike | None = None,
        fit_intercept: bool = True,
        alpha_per_target: bool = False,
        cv: Any = None,
        scoring: str | None = None,
    ) -> None:
        self.alphas = alphas
        self.penalty = penalty
        self.fit_intercept = fit_intercept
        self.alpha_per_target = alpha_per_target
        self.cv = cv
        self.scoring = scoring

    def fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> RidgeCV:
        """Choose a penalty and fit to X [n, d] and y [n] or [n, k], rows of weight `sample_weight`.

        X may be a SciPy sparse matrix, read in dense blocks of rows. float16 is read as it is.

        Warns:
            ConvergenceWarning, LinAlgWarning: As of `Ridge.fit`, at the penalty chosen.

        Raises:
            ValueError: As of `Ridge.fit`; more folds than rows; a splitter whose test sets do not
                hold each row once; no penalty with a finite error.
        """
        self._check_parameters()
        x, targets, s = self._check_data(X, y, sample_weight)
        self._forget()
        self._one_target = targets.ndim == 1
        folds, fold = self._folds(x, targets)
        state = GramState(folds).update(x, targets, s, fold=fold)
        rows = targets.reshape(len(targets), -1)
        errors = None
        if self.cv is None:
            blocks = Problem(x, rows, s, intercept=self.fit_intercept).raw_blocks()
            sums = state.centred(intercept=self.fit_intercept)
            column = self._column_penalty(x.shape[1])
            errors = penalties.leave_one_out(
                sums, blocks, self._alphas(), self.fit_intercept, column
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what sums cannot tell, X can
            self._fit_sums(state, errors)
        self.n_reads_ += int(self.cv is None)
        if self._error_of_sums > 1e-9:
            self._refine(self._problem(x, rows, s))
        return self

    def _refine(self, problem: Problem) -> None:
        """Solves with X at hand, where sums alone have lost digits."""
        progress = solvers.Progress(problem)
        with np.errstate(all="ignore"):
            found = solvers.solve(
                problem, "auto", tol=self.tol, num_steps=self.num_steps, progress=progress
            )
        reads = self.n_reads_
        self._set_found(problem, progress, found)
        self.n_reads_ += reads
        self._warn(problem, found)

    def _fit_sums(self, state: GramState, errors: Errors | None = None) -> RidgeCV:
        if errors is None:
            errors = self._errors(state)
        self._choose(errors, state.one_target)
        super()._fit_sums(state)
        return self

    def _errors(self, state: GramState) -> Errors:
        alphas, column = self._alphas(), self._column_penalty(state.n_features or 0)
        if self.cv == "gcv":
            sums = state.centred(intercept=self.fit_intercept)
            return penalties.generalised(sums, alphas, self.fit_intercept, column)
        if state.folds < 2 or (_is_integer(self.cv) and state.folds != self.cv):
            raise ValueError(f"cv={self.cv!r} needs a state of as many folds, got {state.folds}")
        return penalties.held_out(state, alphas, self.fit_intercept, column)

    def _choose(self, errors: Errors, one_target: bool) -> None:
        scores = -errors.squared
        if self.scoring == "r2":
            with np.errstate(divide="ignore", invalid="ignore"):
                scores = 1.0 - errors.squared / errors.variance[:, None]
            # As scikit-learn has it, of a target that does not vary.
            scores = np.where(np.isnan(scores), 1.0, np.where(np.isinf(scores), 0.0, scores))
        scores = scores.mean(axis=0)
        alphas = self._alphas()
        self.scores_ = scores[:, 0] if one_target else scores
        if scores.shape[1] == 0:
            scores = np.zeros((len(alphas), 1))
        per_target = self.alpha_per_target and not one_target
        compared = scores if per_target else scores.mean(axis=1, keepdims=True)
        best = np.argmax(compared, axis=0)
        score = np.take_along_axis(compared, best[None], axis=0)[0]
        if not np.all(np.isfinite(score)):
            raise ValueError(
                "no penalty in alphas has a finite error: there are as many coefficients as rows, "
                "and only larger penalties leave any to predict"
            )
        self.alpha_ = alphas[best] if per_target else float(alphas[best[0]])
        self.best_score_ = score if per_target else float(score[0])

    def _folds(self, x: Any, y: Array) -> tuple[int, Array | int]:
        """How many, and each row's."""
        n = x.shape[0]
        if self.cv is None and n < 2:
            raise ValueError(f"leave-one-out needs 2 rows, got n_samples = {n}")
        if self.cv is None or self.cv == "gcv":
            return 1, 0
        if _is_integer(self.cv):
            if n < self.cv:
                raise ValueError(f"cv={self.cv} folds need as many rows, got n_samples = {n}")
            sizes = np.full(self.cv, n // self.cv)
            sizes[: n % self.cv] += 1
            return self.cv, np.repeat(np.arange(self.cv), sizes)
        fold = np.full(n, -1)
        number = 0
        for number, (train, test) in enumerate(check_cv(self.cv).split(x, y), start=1):
            if np.any(fold[test] >= 0) or len(train) + len(test) != n:
                raise ValueError(f"cv must hold each row in one test set, got {self.cv!r}")
            fold[test] = number - 1
        if number < 2 or np.any(fold < 0):
            raise ValueError(f"cv must hold each row in one test set, got {self.cv!r}")
        return number, fold

    def _alphas(self) -> Array:
        return np.asarray(self.alphas, np.float64)

    def _alpha_of(self, targets: int) -> Array:
        return np.broadcast_to(self.alpha_, targets)

    def _new_state(self) -> GramState:
        return GramState(1 if self.cv == "gcv" else self.cv)

    def _needs_x(self) -> str:
        if self.cv == "gcv" or _is_integer(self.cv):
            return ""
        return f"cv={self.cv!r} needs X itself, by fit: take cv='gcv' or a number of folds"

    def _check_parameters(self) -> None:
        alphas = self._alphas()
        if alphas.ndim != 1 or len(alphas) == 0:
            raise ValueError(f"alphas must be a list of penalties, got {self.alphas!r}")
        if not np.all(np.isfinite(alphas) & (alphas >= 0)):
            raise ValueError(f"alphas must not be negative, infinite or NaN, got {self.alphas!r}")
        if self.scoring is not None and self.scoring not in _SCORINGS:
            raise ValueError(f"scoring must be one of {_SCORINGS} or None, got {self.scoring!r}")
        if isinstance(self.cv, str) and self.cv != "gcv":
            raise ValueError(f"cv must be None, 'gcv', an integer or a splitter, got {self.cv!r}")
        if isinstance(self.cv, int | float | np.number) and not (
            _is_integer(self.cv) and self.cv >= 2
        ):
            raise ValueError(f"cv must be an integer >= 2, got {self.cv!r}")


def _is_integer(cv: Any) -> bool:
    return isinstance(cv, int | np.integer) and not isinstance(cv, bool)
