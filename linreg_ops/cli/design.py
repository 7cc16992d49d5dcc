"""A table's columns as numbers: only numeric and boolean ones are, the rest is refused by name.

Or encoded, where that is asked for: text as one column per level but the first, dates as days.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .terminal import count, fail, listed, shown

if TYPE_CHECKING:
    import pyarrow as pa

Array: TypeAlias = npt.NDArray[np.float64]


class Kind(str, Enum):
    """What a column holds, and so how it becomes numbers."""

    NUMBER = "number"
    TEXT = "text"
    DATE = "date"
    DURATION = "duration"
    OTHER = "other"


class Feature(NamedTuple):
    """A column of the table as columns of X: itself, or one per level but the first."""

    column: str
    kind: Kind = Kind.NUMBER
    levels: tuple[str, ...] = ()

    def labels(self) -> list[str]:
        """What the columns of X are called."""
        if self.kind is Kind.TEXT:
            return [f"{self.column}={level}" for level in self.levels[1:]]
        return [self.column]


def chosen(columns: Sequence[str], names: Iterable[str], option: str) -> list[str]:
    """The columns that an option names: each value is a column's name, or several with commas."""
    found: list[str] = []
    for given in names:
        found += [given] if given in columns else [name.strip() for name in given.split(",")]
    missing = [name for name in found if name not in columns]
    if missing:
        hint = ""
        if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
            mark = next(mark for mark in ";\t|" if mark in columns[0])
            hint = (
                f" Is the separator {mark!r}? Say --sep {'tab' if mark == chr(9) else repr(mark)}."
            )
        fail(f"no column {listed(missing)}. The table has: {listed(columns)}.{hint}")
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        fail(f"{option} names {listed(twice)} twice.")
    return found


def features_of(
    table: pa.Table, names: Sequence[str], *, one_hot: bool, dates: bool
) -> list[Feature]:
    """How each column becomes numbers; refuses all at once those that do not."""
    refused: dict[str, list[str]] = {}
    made = []
    for name in names:
        kind, what = kind_of(table.column(name).type)
        if kind is Kind.TEXT and one_hot:
            made.append(Feature(name, kind, _levels(table.column(name))))
        elif kind is Kind.NUMBER or (dates and kind in (Kind.DATE, Kind.DURATION)):
            made.append(Feature(name, kind))
        else:
            refused.setdefault(what, []).append(name)
    if refused:
        number = sum(map(len, refused.values()))
        columns = "; ".join(f"{listed(names)} ({what})" for what, names in refused.items())
        ways = ["leave out with --drop"]
        if "text" in refused and all(_looks_decimal(table.column(n)) for n in refused["text"]):
            ways.append("read 1,5 as a number with --decimal comma")
        if "text" in refused:
            ways.append("encode text with --encode onehot")
        if any(what.startswith(("date", "time", "duration")) for what in refused):
            ways.append("take dates as days with --dates")
        verb = "is" if number == 1 else "are"
        fail(f"{count(number, 'column')} {verb} not numeric: {columns}. {_sentence(ways)}.")
    return made


def _looks_decimal(column: pa.ChunkedArray) -> bool:
    """Whether the values are numbers, one of them at least with a decimal comma."""
    from pyarrow import compute

    number = r"^\s*[+-]?\d*,?\d+([eE][+-]?\d+)?\s*$"
    text = _plain(column)
    numbers = compute.all(compute.match_substring_regex(text, number)).as_py()
    return bool(numbers and compute.any(compute.match_substring(text, ",")).as_py())


def _sentence(ways: list[str]) -> str:
    text = ways[0] if len(ways) == 1 else ", ".join(ways[:-1]) + ", or " + ways[-1]
    return text[0].upper() + text[1:]


def kind_of(type: Any) -> tuple[Kind, str]:
    """A pyarrow type's kind, and what messages call it."""
    from pyarrow import types

    if types.is_dictionary(type):
        return kind_of(type.value_type)
    if (
        types.is_integer(type)
        or types.is_floating(type)
        or types.is_boolean(type)
        or types.is_decimal(type)
        or types.is_null(type)  # no value at all: missing() says so
    ):
        return Kind.NUMBER, "number"
    if types.is_string(type) or types.is_large_string(type) or types.is_string_view(type):
        return Kind.TEXT, "text"
    if types.is_timestamp(type) or types.is_date(type):
        return Kind.DATE, "date"
    if types.is_duration(type):
        return Kind.DURATION, "duration"
    return Kind.OTHER, "time of day" if types.is_time(type) else str(type)


def _levels(column: pa.ChunkedArray) -> tuple[str, ...]:
    values = _plain(column).unique().drop_null().to_pylist()
    return tuple(sorted(values))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    from pyarrow import types

    return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column


def matrix(table: pa.Table, features: Sequence[Feature]) -> Array:
    """X, [rows, columns], C-contiguous; missing values are NaN."""
    columns = [values for feature in features for values in _values(table, feature)]
    if not columns:
        return np.empty((table.num_rows, 0))
    return np.ascontiguousarray(np.column_stack(columns), np.float64)


def _values(table: pa.Table, feature: Feature) -> list[Array]:
    column = _plain(table.column(feature.column))
    if feature.kind is Kind.TEXT:
        return _one_hot(column, feature)
    if feature.kind in (Kind.DATE, Kind.DURATION):
        return [_days(column)]
    return [_numbers(column, feature.column)]


def _numbers(column: pa.ChunkedArray, name: str) -> Array:
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    try:
        values = column.cast(pa.float64())
    except pa.ArrowInvalid:
        fail(f"column {shown(name)} has integers beyond 2^53, which float64 would round.")
    return np.asarray(values.to_numpy(), np.float64)


def _days(column: pa.ChunkedArray) -> Array:
    import pyarrow as pa

    values = column.to_numpy()  # datetime64 or timedelta64 of whatever unit
    if pa.types.is_date(column.type):
        values = values.astype("datetime64[D]")
    missing = np.isnat(values)
    since = values - (np.timedelta64(0) if values.dtype.kind == "m" else np.datetime64(0, "D"))
    days = since / np.timedelta64(1, "D")
    return np.where(missing, np.nan, days)


def _one_hot(column: pa.ChunkedArray, feature: Feature) -> list[Array]:
    from pyarrow import compute

    missing = column.is_null().to_numpy()
    unknown = compute.unique(column.filter(compute.invert(compute.is_in(column, _set(feature)))))
    strangers = unknown.drop_null().to_pylist()
    if strangers:
        fail(
            f"column {shown(feature.column)} has levels that the model was not fitted with: "
            f"{listed(strangers)}."
        )
    columns = []
    for level in feature.levels[1:]:
        values = compute.fill_null(compute.equal(column, level), False).to_numpy()
        columns.append(np.where(missing, np.nan, values.astype(np.float64)))
    return columns


def _set(feature: Feature) -> Any:
    import pyarrow as pa

    return pa.array(feature.levels, pa.string())


def usable_rows(columns: dict[str, Array], *, drop: bool) -> npt.NDArray[np.bool_]:
    """Which rows have a finite number in every column; without `drop` it must be all."""
    finite: dict[str, npt.NDArray[np.bool_]] = {
        name: np.all(np.isfinite(values), axis=1) for name, values in columns.items()
    }
    bad = {name: np.flatnonzero(~rows) for name, rows in finite.items() if not rows.all()}
    if bad and not drop:
        each = "; ".join(
            f"{shown(name)} has {len(rows)}, the first in row {rows[0] + 1}"
            for name, rows in list(bad.items())[:20]
        )
        fail(
            f"missing or infinite values: {each}. Fill them in, leave the rows out with --dropna, "
            "or the columns with --drop."
        )
    rows: npt.NDArray[np.bool_] = np.logical_and.reduce(list(finite.values()))
    return rows


def remarks(
    x: Array, y: Array, labels: Sequence[str], targets: Sequence[str], *, intercept: bool
) -> list[str]:
    """What makes coefficients arbitrary or a perfect fit meaningless."""
    said = []
    rows, columns = x.shape
    if rows <= columns + intercept:
        said.append(
            f"{count(rows, 'row')} for {count(columns, 'column')}"
            f"{' and an intercept' if intercept else ''}: any target is fitted exactly, "
            "and R² says nothing"
        )
    constant = [name for name, values in zip(labels, x.T, strict=True) if np.ptp(values) == 0]
    if constant:
        said.append(f"constant: {listed(constant)}: nothing can be learned from it")
    same: dict[bytes, list[str]] = {}
    for name, values in zip(labels, x.T, strict=True):
        if name not in constant:
            same.setdefault((values + 0.0).tobytes(), []).append(name)
    for names in same.values():
        if len(names) > 1:
            said.append(f"{listed(names)} are equal: they share one effect between them")
    for name, values in zip(targets, y.T, strict=True):
        if np.ptp(values) == 0:
            said.append(f"the target {shown(name)} is constant: R² is not defined")
    return said
