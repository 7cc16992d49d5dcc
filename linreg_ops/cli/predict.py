"""`linreg-ops predict`: a saved model on a new table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .._files import whole
from . import design, tables
from .model import Model, load
from .terminal import count, fail, listed, note, shown, writable, writing


def _csv_path(path: Path | None) -> Path | None:
    return writable(path, (".csv",))


def predict(
    model: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="What `fit --save` wrote.")
    ],
    table: tables.TablePath,
    separator: tables.Separator = None,
    decimal: tables.Decimal = None,
    no_header: tables.NoHeader = False,
    dropna: Annotated[
        bool, typer.Option("--dropna", help="Predict nothing for rows with missing values.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            callback=_csv_path,
            show_default="standard output",
            help="The CSV.",
        ),
    ] = None,
) -> None:
    """Predict a new table's targets by a saved model.

    The result is a CSV with one line per row, in the table's order. With --dropna a row that lacks
    a value gets an empty line.
    """
    fitted = load(model)
    data = tables.read(table, separator, decimal, no_header)
    missing = [f.column for f in fitted.features if f.column not in data.column_names]
    if missing:
        fail(f"no column {listed(missing)}. The table has: {listed(data.column_names)}.")
    _check_kinds(fitted, data)
    x = design.matrix(data, fitted.features)
    columns = {feature.column: design.matrix(data, [feature]) for feature in fitted.features} or {
        "": np.empty((data.num_rows, 0))
    }
    usable = design.usable_rows(columns, drop=dropna)
    if not usable.all():
        note(f"{count(int((~usable).sum()), 'row')} with missing values: not predicted.")
    predicted = fitted.predict(np.where(usable[:, None], x, 0.0))
    predicted[~usable] = np.nan
    _write(fitted, predicted, output)


def _check_kinds(fitted: Model, data: object) -> None:
    wrong = []
    for feature in fitted.features:
        kind, what = design.kind_of(data.column(feature.column).type)  # type: ignore[attr-defined]
        if kind is not feature.kind:
            wrong.append(f"{shown(feature.column)} is {what}, the model's is {feature.kind.value}")
    if wrong:
        fail("; ".join(wrong) + ".")


def _write(fitted: Model, predicted: design.Array, output: Path | None) -> None:
    import pyarrow as pa
    from pyarrow import csv

    names = [f"predicted {name}" for name in fitted.targets]
    result = pa.table([pa.array(column, from_pandas=True) for column in predicted.T], names=names)
    if output is None:
        sys.stdout.flush()
        stream = pa.BufferOutputStream()
        csv.write_csv(result, stream)
        sys.stdout.write(stream.getvalue().to_pybytes().decode())
        return
    with writing(output), whole(output) as temporary:
        csv.write_csv(result, str(temporary))
