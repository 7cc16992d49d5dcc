"""`linreg-ops fit`: least squares on the user's table; what it prints, draws and saves."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from . import design, report, tables
from .design import Array
from .estimate import Method, Problem, Solver, estimate, folds, penalties
from .model import Model
from .terminal import Picture, count, fail, note, say, shown, writable, writing

if TYPE_CHECKING:
    import pyarrow as pa


class Encoding(str, Enum):
    """What text columns become."""

    ONE_HOT = "onehot"


def _model_path(path: Path | None) -> Path | None:
    return writable(path, (".json",))


def _fraction(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} is not between 0 and 1.")
    return value


def fit(
    table: tables.TablePath,
    target: Annotated[
        list[str],
        typer.Option(metavar="COLUMN", help="The column to predict; several: again, or a,b."),
    ],
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            show_default="all others",
            help="Columns to predict it from: again, or a,b.",
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Columns to leave out: again, or a,b."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column of the rows' weights, not negative."),
    ] = None,
    intercept: Annotated[bool, typer.Option(help="Fit a constant term too.")] = True,
    alpha: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER",
            help="Ridge: the penalty ½ alpha ‖coef‖², coefficients in their columns' units; "
            "one per target: again, or a,b.",
        ),
    ] = None,
    cv: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDS",
            help="Choose --alpha for each target by cross-validation, among those named or 42 that "
            "suit the columns; loo leaves each row out in turn.",
        ),
    ] = None,
    solver: Annotated[Solver, typer.Option(help="How the minimum is found.")] = Solver.AUTO,
    summary: Annotated[
        bool, typer.Option("--summary", help="Standard errors, t, p and 95% intervals too.")
    ] = False,
    encode: Annotated[
        Encoding | None,
        typer.Option(help="Text as a column of zeros and ones per level but the first."),
    ] = None,
    dates: Annotated[
        bool, typer.Option("--dates", help="Dates as days since 1970, durations as days.")
    ] = False,
    dropna: Annotated[
        bool, typer.Option("--dropna", help="Leave out rows with missing or infinite values.")
    ] = False,
    separator: tables.Separator = None,
    decimal: tables.Decimal = None,
    no_header: tables.NoHeader = False,
    test: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            callback=_fraction,
            help="Hold out this share of the rows, and score them.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Which rows --test and --cv hold out.")
    ] = 0,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=_model_path, help="The model, for `predict`: .json."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not tables.")] = False,
    output: Picture = None,
) -> None:
    """Fit a table's columns by least squares on its others.

    Only numeric and boolean columns are numbers. Text, dates and missing values are refused by
    name, with what can be done.
    """
    alphas, statistics = penalties(alpha), summary or save is not None
    method = Method(intercept, solver, alphas, folds(cv), seed, statistics)
    if summary and (cv is not None or any(alphas or [])):
        fail("--summary is of coefficients without a penalty: leave out --alpha and --cv.")
    data = tables.read(table, separator, decimal, no_header)
    targets, used = _columns(data, target, features, drop, weights)
    chosen = design.features_of(data, used, one_hot=encode is not None, dates=dates)
    problem = _problem(data, chosen, targets, weights, dropna=dropna)
    labels = [label for feature in chosen for label in feature.labels()]
    if not labels:
        fail("no column is left to predict from: each text has one level only.")
    kept, held_out = _split(problem, test, seed)
    remarks = design.remarks(kept.x, kept.y, labels, targets, intercept=intercept)
    model, choice = estimate(kept, targets, chosen, method)
    fitted = report.scores(model, kept)
    tested = None if held_out is None else report.scores(model, held_out)
    if not intercept:
        remarks.append("R² compares with the mean, which needs an intercept: it can be negative")
    source = "standard input" if str(table) == "-" else str(table)
    for remark in remarks:
        note(f"{remark}.")
    if save is not None:
        model.save(save)
    if as_json:
        report.print_json(source, model, choice, fitted, tested, remarks)
    else:
        report.print_tables(source, model, choice, fitted, tested, summary=summary)
    if output is not None:
        _draw(model, kept, output)
        if not as_json:
            say(f"Picture: {output}")


def _columns(
    data: pa.Table,
    target: list[str],
    features: list[str] | None,
    drop: list[str] | None,
    weights: str | None,
) -> tuple[list[str], list[str]]:
    """The targets, and the columns to predict them from."""
    columns = data.column_names
    targets = design.chosen(columns, target, "--target")
    dropped = design.chosen(columns, drop or [], "--drop")
    weighing = design.chosen(columns, [weights] if weights else [], "--weights")
    others = {"target": targets, "column to drop": dropped, "column of weights": weighing}
    if features is None:
        taken = {*targets, *dropped, *weighing}
        used = [name for name in columns if name not in taken]
    else:
        used = design.chosen(columns, features, "--features")
        for what, names in others.items():
            for name in names:
                if name in used:
                    fail(f"the {what} {shown(name)} is among the features.")
    for name in targets:
        if name in weighing or name in dropped:
            fail(f"the target {shown(name)} is named twice.")
    if not used:
        fail(f"the table has no column but the target {', '.join(map(shown, targets))}.")
    if data.num_rows == 0:
        fail("the table has no rows.")
    return targets, used


def _problem(
    data: pa.Table,
    features: list[design.Feature],
    targets: list[str],
    weights: str | None,
    *,
    dropna: bool,
) -> Problem:
    needed = [*targets, *([weights] if weights else [])]
    numeric = design.features_of(data, needed, one_hot=False, dates=False)
    columns = {f.column: design.matrix(data, [f]) for f in [*features, *numeric]}
    usable = design.usable_rows(columns, drop=dropna)
    if not usable.any():
        fail("every row has a missing value.")
    if not usable.all():
        note(f"{count(int((~usable).sum()), 'row')} with missing values left out.")

    def joined(names: list[str]) -> Array:
        stacked = np.column_stack([columns[name] for name in names])
        return np.ascontiguousarray(stacked[usable])

    s = None
    if weights:
        s = joined([weights])[:, 0]
        if s.min() < 0:
            row = int(np.flatnonzero(usable)[np.argmin(s)]) + 1
            fail(f"the weight {shown(weights)} is negative in row {row}.")
        if not s.any():
            fail(f"every weight {shown(weights)} is zero.")
    return Problem(joined([f.column for f in features]), joined(targets), s)


def _split(problem: Problem, share: float | None, seed: int) -> tuple[Problem, Problem | None]:
    if share is None:
        return problem, None
    rows = len(problem.y)
    held = min(max(round(share * rows), 1), rows - 1)
    if rows < 2:
        fail("--test needs at least two rows.")
    order = np.random.default_rng(seed).permutation(rows)
    return problem.rows(np.sort(order[held:])), problem.rows(np.sort(order[:held]))


def _draw(model: Model, problem: Problem, output: Path) -> None:
    try:
        from .. import plotting
    except ImportError as error:
        fail(str(error))
    predicted, names = model.predict(problem.x), [shown(name) for name in model.targets]
    labels = [shown(label) for label in model.labels()]
    with plotting.style():
        picture, panels = plotting.figure(2 * len(names), columns=2)
        for t, name in enumerate(names):
            left, right = panels[2 * t : 2 * t + 2]
            y = problem.y[:, t]
            if len(labels) == 1:
                line = (float(model.intercept[t]), float(model.coef[0, t]))
                plotting.plot_line(left, problem.x, y, {"least squares": line}, (labels[0], name))
            else:
                plotting.plot_predictions(left, y, predicted[:, t])
                left.set_title(f"{name}: predicted against actual", parse_math=False)
            plotting.plot_residuals(right, predicted[:, t], y - predicted[:, t])
            right.set_title(f"{name}: residuals", parse_math=False)
        with writing(output):
            plotting.save(picture, output)
