"""`linreg-ops fit`: least squares on the user's table; what it prints, draws and saves."""

from __future__ import annotations

import json
import math
import warnings
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from . import design, tables
from .design import Array
from .model import Model
from .terminal import Picture, console, count, fail, note, shown, writable, writing

if TYPE_CHECKING:
    import pyarrow as pa


class Encoding(str, Enum):
    """What text columns become."""

    ONE_HOT = "onehot"


class Problem(NamedTuple):
    """The rows that are fitted: X [n, columns], Y [n, targets], weights [n] or None."""

    x: Array
    y: Array
    weights: Array | None

    def rows(self, chosen: Any) -> Problem:
        """Some of them."""
        weights = None if self.weights is None else self.weights[chosen]
        return Problem(self.x[chosen], self.y[chosen], weights)


class Scores(NamedTuple):
    """For each target: R², weighted; root mean squared error; ½ Σ of the squared residuals."""

    rows: int
    r2: list[float]
    rmse: list[float]
    loss: float


def _model_path(path: Path | None) -> Path | None:
    return writable(path, (".json",))


def _fraction(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} is not between 0 and 1.")
    return value


def fit(
    table: tables.TablePath,
    target: Annotated[
        list[str], typer.Option(help="The column to predict; several: again, or a,b.")
    ],
    features: Annotated[
        list[str] | None,
        typer.Option(show_default="all others", help="Columns to predict it from: again, or a,b."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="Columns to leave out: again, or a,b.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="The column of the rows' weights, not negative.")
    ] = None,
    intercept: Annotated[bool, typer.Option(help="Fit a constant term too.")] = True,
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
    test: Annotated[
        float | None,
        typer.Option(callback=_fraction, help="Hold out this share of the rows, and score them."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which rows --test holds out.")] = 0,
    save: Annotated[
        Path | None, typer.Option(callback=_model_path, help="The model, for `predict`: .json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not tables.")] = False,
    output: Picture = None,
) -> None:
    """Fit a table's columns by least squares on its others.

    Only numeric and boolean columns are numbers. Text, dates and missing values are refused by
    name, with what can be done.
    """
    data = tables.read(table, separator)
    targets, used = _columns(data, target, features, drop, weights)
    chosen = design.features_of(data, used, one_hot=encode is not None, dates=dates)
    problem = _problem(data, chosen, targets, weights, dropna=dropna)
    labels = [label for feature in chosen for label in feature.labels()]
    if not labels:
        fail("no column is left to predict from: each text has one level only.")
    kept, held_out = _split(problem, test, seed)
    remarks = design.remarks(kept.x, kept.y, labels, targets)
    model = _estimate(kept, targets, chosen, intercept)
    scores = _scores(model, kept)
    tested = None if held_out is None else _scores(model, held_out)
    if not intercept:
        remarks.append("R² compares with the mean, which needs an intercept: it can be negative")
    source = "standard input" if str(table) == "-" else str(table)
    for remark in remarks:
        note(f"{remark}.")
    if save is not None:
        model.save(save)
    if as_json:
        _print_json(source, model, scores, tested, remarks)
    else:
        _print_tables(source, model, scores, tested, intercept=intercept)
    if output is not None:
        _draw(model, kept, output)
        if not as_json:
            console.print(f"Picture: {output}", soft_wrap=True, markup=False)


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


def _estimate(
    problem: Problem, targets: list[str], features: list[design.Feature], intercept: bool
) -> Model:
    try:
        from sklearn.exceptions import ConvergenceWarning

        from ..estimator import LinearRegression
    except ImportError as error:
        fail(str(error))
    estimator = LinearRegression(fit_intercept=intercept)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            estimator.fit(problem.x, problem.y, problem.weights)
        except ConvergenceWarning as warning:
            fail(f"no coefficients, for they would be wrong: {str(warning).rstrip('.')}.")
    constant = np.broadcast_to(np.asarray(estimator.intercept_, np.float64), len(targets))
    return Model(targets, features, constant.copy(), np.asarray(estimator.coef_, np.float64).T)


def _scores(model: Model, problem: Problem) -> Scores:
    s = np.ones(len(problem.y)) if problem.weights is None else problem.weights
    squares = s @ np.square(model.predict(problem.x) - problem.y)
    total = float(s.sum())
    mean = (s @ problem.y) / total if total else np.zeros(problem.y.shape[1])
    spread = s @ np.square(problem.y - mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1.0 - squares / spread, math.nan)
        rmse = np.sqrt(squares / total)
    return Scores(len(problem.y), r2.tolist(), rmse.tolist(), float(squares.sum() / 2))


def _print_tables(
    source: str, model: Model, scores: Scores, tested: Scores | None, *, intercept: bool
) -> None:
    targets = ", ".join(map(shown, model.targets))
    console.print(Text(f"{shown(source)}: {targets} from {count(len(model.labels()), 'column')}"))
    coefficients = Table(box=SIMPLE_HEAD, pad_edge=False)
    coefficients.add_column("column")
    for name in model.targets:
        title = "coefficient" if len(model.targets) == 1 else shown(name)
        coefficients.add_column(Text(title), justify="right", no_wrap=True)
    if intercept:
        coefficients.add_row("(intercept)", *(f"{value:.8g}" for value in model.intercept))
    for name, values in zip(model.labels(), model.coef, strict=True):
        coefficients.add_row(Text(shown(name)), *(f"{value:.8g}" for value in values))
    console.print(coefficients)
    for what, each in (("", scores), ("held out: ", tested)):
        if each is not None:
            console.print(_score_line(what, each, model.targets), soft_wrap=True, highlight=False)


def _score_line(what: str, scores: Scores, targets: list[str]) -> Text:
    each = [
        ("" if len(targets) == 1 else f"{shown(name)}: ") + f"R² = {r2:.6f}, RMSE = {rmse:.6g}"
        for name, r2, rmse in zip(targets, scores.r2, scores.rmse, strict=True)
    ]
    loss = "" if what else f", loss ½ Σ (xw - y)² = {scores.loss:.6g}"
    return Text(f"{what}{count(scores.rows, 'row')}, {'; '.join(each)}{loss}")


def _print_json(
    source: str, model: Model, scores: Scores, tested: Scores | None, remarks: list[str]
) -> None:
    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None  # JSON has no NaN

    def by_target(values: Any) -> dict[str, Any]:
        return dict(zip(model.targets, (number(float(v)) for v in values), strict=True))

    def score(scores: Scores) -> dict[str, Any]:
        r2, rmse = by_target(scores.r2), by_target(scores.rmse)
        return {"rows": scores.rows, "r2": r2, "rmse": rmse, "loss": number(scores.loss)}

    content = {
        "table": source,
        "targets": model.targets,
        "intercept": by_target(model.intercept),
        "coefficients": {
            label: by_target(values)
            for label, values in zip(model.labels(), model.coef, strict=True)
        },
        "fit": score(scores),
        "held_out": tested and score(tested),
        "notes": remarks,
    }
    typer.echo(json.dumps(content, indent=2))


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
