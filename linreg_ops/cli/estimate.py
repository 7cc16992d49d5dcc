"""From a table's numbers to a model: which estimator, with which options, and what it warned of."""

from __future__ import annotations

import math
import warnings
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import typer

from .design import Array, Feature
from .model import Model
from .terminal import fail, note


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


def estimate(
    problem: Problem, targets: list[str], features: list[Feature], method: Method
) -> Model:
    """Fits, or ends the program where the coefficients would be wrong."""
    alphas = method.alphas or [0.0]
    if len(alphas) not in (1, len(targets)):
        fail(
            f"--alpha has {len(alphas)} numbers for {len(targets)} "
            f"target{'s' if len(targets) > 1 else ''}: give one, or one for each."
        )
    try:
        from ..estimator import LinearRegression, Ridge
    except ImportError as error:
        fail(str(error))
    options: dict[str, Any] = {"fit_intercept": method.intercept, "solver": method.solver.value}
    penalty = np.broadcast_to(alphas, len(targets))
    found = Ridge(penalty, **options) if penalty.any() else LinearRegression(**options)
    _fit(found, problem)
    constant = np.broadcast_to(np.asarray(found.intercept_, np.float64), len(targets))
    coef = np.asarray(found.coef_, np.float64).T
    return Model(targets, features, constant.copy(), coef, penalty.copy(), found.solver_)


def _fit(estimator: Any, problem: Problem) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            estimator.fit(problem.x, problem.y, problem.weights)
        except ValueError as error:
            fail(f"no coefficients: {str(error).rstrip('.')}.")
    for warning in said:
        message = str(warning.message).rstrip(".")
        if issubclass(warning.category, ConvergenceWarning):
            fail(f"no coefficients, for they would be wrong: {message}.")
        note(f"{message}.")
