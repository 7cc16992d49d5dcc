"""What `linreg-ops fit` says of a model: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import numpy as np
import typer

from .design import Array
from .estimate import Choice, Problem
from .model import Model, Statistics
from .terminal import count, say, show_columns, shown


class Scores(NamedTuple):
    """For each target: R², weighted; root mean squared error; ½ Σ of the squared residuals."""

    rows: int
    r2: list[float]
    rmse: list[float]
    loss: float


def scores(model: Model, problem: Problem) -> Scores:
    """How well the model predicts these rows."""
    s = np.ones(len(problem.y)) if problem.weights is None else problem.weights
    squares = s @ np.square(model.predict(problem.x) - problem.y)
    total = float(s.sum())
    mean = (s @ problem.y) / total if total else np.zeros(problem.y.shape[1])
    spread = s @ np.square(problem.y - mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1.0 - squares / spread, math.nan)
        rmse = np.sqrt(squares / total)
    return Scores(len(problem.y), r2.tolist(), rmse.tolist(), float(squares.sum() / 2))


def print_tables(
    source: str,
    model: Model,
    choice: Choice | None,
    fitted: Scores,
    tested: Scores | None,
    *,
    summary: bool,
) -> None:
    """The coefficients, and under them how well they predict."""
    print_model(source, model, summary=summary)
    _print_scores(model, choice, fitted, tested)


def print_model(source: str, model: Model, *, summary: bool) -> None:
    """The coefficients; with `summary`, what each is worth."""
    targets, one = [shown(name) for name in model.targets], len(model.targets) == 1
    heading = f"{shown(source)}: {', '.join(targets)} from {count(len(model.labels()), 'column')}"
    say(heading + (f", alpha = {model.alpha[0]:.6g}" if one and model.alpha[0] else ""))
    constant = model.fit_intercept
    values = np.vstack([model.intercept, model.coef]) if constant else model.coef
    names = [*(["(intercept)"] if constant else []), *map(shown, model.labels())]
    if summary and model.statistics is not None:
        for t, target in enumerate(targets):
            if not one:
                say(target)
            about = "" if constant else " about zero"
            _print_statistics(names, values, model.statistics, t, about)
        found = model.statistics
        say(
            f"{count(found.rows, 'row')}, condition number {found.condition:.3g}, solved by "
            f"{model.solver!r}"
        )
        return
    columns = [
        ("coefficient" if one else name, [f"{value:.8g}" for value in column])
        for name, column in zip(targets, values.T, strict=True)
    ]
    show_columns("column", names, columns)


def _print_statistics(
    names: list[str], values: Array, found: Statistics, t: int, about: str
) -> None:
    parts = {
        "coefficient": (values, ".6g"),
        "std. error": (found.errors, ".4g"),
        "t": (found.t, ".3f"),
        "p": (found.p, ".2g"),
        "2.5%": (found.low, ".5g"),
        "97.5%": (found.high, ".5g"),
    }
    columns = [
        (head, [_known(value, form) for value in table[:, t]])
        for head, (table, form) in parts.items()
    ]
    show_columns("column", names, columns)
    say(
        f"residual std. error {_known(found.sigma[t], '.6g')} with {found.df_residual} degrees of "
        f"freedom, adjusted R²{about} = {_known(found.adjusted_r2[t], '.6f')}, F({found.df_model}, "
        f"{found.df_residual}) = {_known(found.f[t], '.5g')}, p = {_known(found.f_p[t], '.2g')}"
    )


def _known(value: float, form: str) -> str:
    return f"{value:{form}}" if math.isfinite(value) else "-"


def _print_scores(
    model: Model, choice: Choice | None, fitted: Scores, tested: Scores | None
) -> None:
    targets, one = [shown(name) for name in model.targets], len(model.targets) == 1
    if choice is not None:
        rmse = f", RMSE = {choice.rmse[0]:.6g}" if one else ""
        say(f"alpha of {choice.among} by {choice.cv} cross-validation{rmse}")
    if one:
        say(f"{_score_line(fitted)}, loss ½ Σ (xw - y)² = {fitted.loss:.6g}")
        if tested is not None:
            say(f"held out: {_score_line(tested)}")
        return
    each = []
    if model.alpha.any() or choice is not None:
        each.append(("alpha", [f"{alpha:.6g}" for alpha in model.alpha]))
    if choice is not None:
        each.append(("cv RMSE", [f"{value:.6g}" for value in choice.rmse]))
    for what, of in (("", fitted), ("held-out ", tested)):
        if of is not None:
            each.append((f"{what}R²", [f"{value:.6f}" for value in of.r2]))
            each.append((f"{what}RMSE", [f"{value:.6g}" for value in of.rmse]))
    show_columns("target", targets, each)
    held_out = "" if tested is None else f", {count(tested.rows, 'row')} held out"
    say(f"{count(fitted.rows, 'row')}{held_out}, loss ½ Σ (xw - y)² = {fitted.loss:.6g}")


def _score_line(of: Scores) -> str:
    return f"{count(of.rows, 'row')}, R² = {of.r2[0]:.6f}, RMSE = {of.rmse[0]:.6g}"


def print_json(
    source: str,
    model: Model,
    choice: Choice | None,
    fitted: Scores,
    tested: Scores | None,
    remarks: list[str],
) -> None:
    """All of it for a program; what is no number is null."""

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None  # JSON has no NaN

    def by_target(values: Any) -> dict[str, Any]:
        return dict(zip(model.targets, (number(float(v)) for v in values), strict=True))

    def score(of: Scores) -> dict[str, Any]:
        r2, rmse = by_target(of.r2), by_target(of.rmse)
        return {"rows": of.rows, "r2": r2, "rmse": rmse, "loss": number(of.loss)}

    content = {
        "table": source,
        "targets": model.targets,
        "alpha": by_target(model.alpha),
        "cross_validation": choice
        and {"method": choice.cv, "penalties": choice.among, "rmse": by_target(choice.rmse)},
        "solver": model.solver,
        "intercept": by_target(model.intercept),
        "coefficients": {
            label: by_target(values)
            for label, values in zip(model.labels(), model.coef, strict=True)
        },
        "fit": score(fitted),
        "held_out": tested and score(tested),
        "statistics": model.statistics and model.statistics.plain(),
        "notes": remarks,
    }
    typer.echo(json.dumps(content, indent=2))
