"""From a table's numbers to a model: which estimator, with which options, and what it warned of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import typer

from .design import Array, Feature
from .model import Model, Statistics
from .terminal import count, fail, note


class Solver(str, Enum):
    """How the least squares are found: those of the estimator that need no learning rate."""

    AUTO = "auto"
    EXACT = "exact"
    GRAM = "gram"
    CG = "cg"


class Problem(NamedTuple):
    """The rows that are fitted: X [n, columns], Y [n, targets], weights [n] or None."""

    x: Array
    y: Array
    weights: Array | None

    def rows(self, chosen: Any) -> Problem:
        """Some of them."""
        weights = None if self.weights is None else self.weights[chosen]
        return Problem(self.x[chosen], self.y[chosen], weights)


class Method(NamedTuple):
    """The options of `fit` that say what is minimised, and how."""

    intercept: bool
    solver: Solver
    alphas: list[float] | None
    cv: int | str | None  # folds, or "loo"
    seed: int
    statistics: bool  # standard errors too, where there is no penalty


class Choice(NamedTuple):
    """The penalty of each target, as cross-validation chose it: from how many, and its error."""

    among: int
    cv: str
    rmse: list[float]


class Fitted(NamedTuple):
    """The model, and how its penalty was chosen."""

    model: Model
    choice: Choice | None


def penalties(given: list[str] | None) -> list[float] | None:
    """The numbers of --alpha: each value is one, or several with commas."""
    if not given:
        return None
    found = []
    for text in ",".join(given).split(","):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise typer.BadParameter(
                f"{text.strip()!r} is not a number from 0 on.", param_hint="'--alpha'"
            )
        found.append(value)
    return found


def folds(text: str | None) -> int | str | None:
    """What --cv says: a number of folds, or that each row is left out in turn."""
    if text is None or text == "loo":
        return text
    if not text.isdecimal() or int(text) < 2:
        raise typer.BadParameter(
            f"{text!r} is not a number of folds from 2 on, nor loo.", param_hint="'--cv'"
        )
    return int(text)


def estimate(
    problem: Problem, targets: list[str], features: list[Feature], method: Method
) -> Fitted:
    """Fits, or ends the program where the coefficients would be wrong."""
    try:
        from ..estimator import LinearRegression
        from ..penalised import Ridge
    except ImportError as error:
        fail(str(error))
    found: Any
    if method.cv is not None:
        found, choice = _chosen(problem, method)
        penalty = np.asarray(found.alpha_)
    else:
        penalty, choice = _given(method, targets), None
        options: dict[str, Any] = {"fit_intercept": method.intercept, "solver": method.solver.value}
        found = Ridge(penalty, **options) if penalty.any() else LinearRegression(**options)
        _fit(found, problem)
    constant = np.broadcast_to(np.asarray(found.intercept_, np.float64), len(targets))
    coef = np.asarray(found.coef_, np.float64).T
    statistics = None
    if method.statistics and not penalty.any():
        # With the rows at hand: what the fit keeps has fewer digits, and "cg" keeps nothing.
        with _noting():
            statistics = Statistics.of(found.summary(problem.x, problem.y, problem.weights))
    penalty = penalty.copy()
    head = (targets, features, method.intercept, constant.copy(), coef)
    return Fitted(Model(*head, penalty, found.solver_, statistics), choice)


def _given(method: Method, targets: list[str]) -> Array:
    alphas = method.alphas or [0.0]
    if len(alphas) not in (1, len(targets)):
        fail(
            f"--alpha has {len(alphas)} numbers for {count(len(targets), 'target')}: give one, one "
            "for each, or --cv to choose among them."
        )
    return np.broadcast_to(np.asarray(alphas, np.float64), len(targets)).copy()


def _chosen(problem: Problem, method: Method) -> tuple[Any, Choice]:
    """Each target's penalty by cross-validation, rows in the folds at random: tables are sorted."""
    from sklearn.model_selection import KFold

    from ..penalised import RidgeCV

    if method.solver is not Solver.AUTO:
        fail(f"--cv finds the minimum in its own way: leave out --solver {method.solver.value}.")
    if method.alphas is not None and len(set(method.alphas)) < 2:
        fail("--cv chooses among several --alpha, got one: name more, or leave it out.")
    rows, cv = len(problem.y), method.cv
    if rows < (2 if cv == "loo" else int(cv or 0)):
        fail(f"--cv {cv} needs more rows than the {rows} that there are.")
    alphas = sorted(set(method.alphas)) if method.alphas else _grid(problem)
    splitter = None if cv == "loo" else KFold(int(cv or 0), shuffle=True, random_state=method.seed)
    found = RidgeCV(alphas, fit_intercept=method.intercept, alpha_per_target=True, cv=splitter)
    _fit(found, problem)
    for name, edge in (("smallest", alphas[0]), ("largest", alphas[-1])):
        if np.any(np.asarray(found.alpha_) == edge) and edge > 0:
            note(
                f"the penalty chosen is the {name} of all, {edge:.6g}: a better one may lie beyond."
            )
    how = "leave-one-out" if cv == "loo" else f"{cv}-fold"
    return found, Choice(len(alphas), how, np.sqrt(-found.best_score_).tolist())


def _grid(problem: Problem) -> list[float]:
    """Penalties from none to one that leaves nothing: in units of a column's sum of squares."""
    s = np.ones(len(problem.y)) if problem.weights is None else problem.weights
    mean = s @ problem.x / s.sum()
    unit = float(np.mean(s @ np.square(problem.x - mean))) or 1.0
    return [0.0, *(unit * np.logspace(-8, 2, 41)).tolist()]


def _fit(estimator: Any, problem: Problem) -> None:
    with _noting():
        try:
            estimator.fit(problem.x, problem.y, problem.weights)
        except ValueError as error:
            fail(f"no coefficients: {str(error).rstrip('.')}.")


@contextmanager
def _noting() -> Iterator[None]:
    """Says warnings as notes; one that the coefficients are wrong ends the program."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    for warning in said:
        message = str(warning.message).rstrip(".")
        if issubclass(warning.category, ConvergenceWarning):
            fail(f"no coefficients, for they would be wrong: {message}.")
        note(f"{message}.")
