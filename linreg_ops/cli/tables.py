"""Reads a table: CSV and its like, compressed or not, from a file or stdin; Parquet.

By pyarrow: it reads CSV on every core, refuses rows that are longer or shorter than the header
(pandas shifts or drops their values in silence), guesses each column's type from all of its values,
and reads Parquet's columns without pandas' metadata, which may be foreign or broken.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .terminal import count, fail, note, printable, shown

if TYPE_CHECKING:
    import pyarrow as pa

# The last suffix less a compression's.
_TEXT = {".csv": ",", ".tsv": "\t", ".txt": ","}
_PARQUET = (".parquet", ".pq")
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_LARGEST_BLOCK = 2**31 - 1


def _table_path(path: Path) -> Path:
    # typer's own exists=True, allow_dash=True takes - for a file's name, in 0.29 at least.
    if str(path) != "-" and not path.is_file():
        raise typer.BadParameter(f"file '{path}' does not exist.")
    return path


TablePath = Annotated[
    Path,
    typer.Argument(
        callback=_table_path,
        help="CSV, TSV (also .gz, .bz2, .zst) or Parquet; - is CSV from standard input.",
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--sep",
        metavar="CHARACTER",
        show_default="comma; .tsv: tab",
        help="Between the values of a CSV.",
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER", show_default="point", help="In the numbers of a CSV: a comma, say."
    ),
]
NoHeader = Annotated[
    bool,
    typer.Option("--no-header", help="A CSV's first row is data: its columns are c1, c2, ..."),
]


class Text(NamedTuple):
    """How a CSV is written."""

    separator: str
    decimal: str
    header: bool


def read(
    path: Path,
    separator: str | None = None,
    decimal: str | None = None,
    no_header: bool = False,
) -> pa.Table:
    """The table, its columns' names stripped of spaces around them and each there once."""
    try:
        import pyarrow as pa
    except ImportError:
        fail("reading a table needs pyarrow. Install it with: pip install pyarrow")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    stdin = str(path) == "-"
    try:
        if suffix in _PARQUET:
            if separator is not None or decimal is not None or no_header:
                fail("--sep, --decimal and --no-header say how a CSV is written, not Parquet.")
            table = _read_parquet(path)
        elif stdin or suffix in _TEXT:
            table = _read_text(path, _text(separator, decimal, not no_header, suffix))
        else:
            fail(
                f"{shown(str(path))}: the name must end in .csv, .tsv, .txt (or one of them and "
                ".gz, .bz2, .zst) or .parquet."
            )
    except (pa.ArrowException, OSError, UnicodeError) as error:
        what = str(error).partition("\n")[0].removesuffix(".")
        fail(f"{shown(str(path))} cannot be read: {what}.")
    return _named(table)


def _text(separator: str | None, decimal: str | None, header: bool, suffix: str) -> Text:
    names = {"tab": "\t", r"\t": "\t", "comma": ",", "semicolon": ";", "point": "."}

    def character(given: str, option: str, hint: str = "") -> str:
        mark = names.get(given, given)
        if len(mark) != 1 or mark in '"\r\n' or not mark.isascii():
            what = f"{given!r} is not one ASCII character{hint}."
            raise typer.BadParameter(what, param_hint=f"'{option}'")
        return mark

    between = _TEXT.get(suffix, ",")
    if separator is not None:
        between = character(separator, "--sep", "; a tab is 'tab'")
    point = "." if decimal is None else character(decimal, "--decimal")
    if point == between:
        what = f"{point!r} is between the values too; say what is there with --sep, as --sep ';'."
        raise typer.BadParameter(what, param_hint="'--decimal'")
    if point.isalnum() or point in "+- ":
        what = f"{point!r} has a meaning of its own in numbers."
        raise typer.BadParameter(what, param_hint="'--decimal'")
    return Text(between, point, header)


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, partitioning=None)
    index = [name for name in table.column_names if re.fullmatch(r"__index_level_\d+__", name)]
    return table.drop_columns(index).replace_schema_metadata(None)


def _read_text(path: Path, text: Text) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    if str(path) == "-":
        content = pa.py_buffer(sys.stdin.buffer.read())
    else:
        with pa.input_stream(str(path)) as stream:  # decompresses by the suffix
            content = stream.read_buffer()
    utf_16 = bytes(content[:2]) in (b"\xff\xfe", b"\xfe\xff")
    if utf_16:
        content = pa.py_buffer(bytes(content).decode("utf-16").encode())
    odd: list[Any] = []

    def odd_row(row: Any) -> str:
        odd.append(row)
        return "error"

    def parse(threads: bool = True, types: Any = None) -> pa.Table:
        return csv.read_csv(
            pa.BufferReader(content),
            # One block: a column's type is guessed from the first.
            csv.ReadOptions(
                use_threads=threads,
                block_size=min(max(content.size, 1), _LARGEST_BLOCK),
                autogenerate_column_names=not text.header,
            ),
            csv.ParseOptions(
                delimiter=text.separator, newlines_in_values=True, invalid_row_handler=odd_row
            ),
            csv.ConvertOptions(column_types=types, decimal_point=text.decimal),
        )

    try:
        table = parse()
        if re.search(rb"0[xX]", memoryview(content)):
            table = _without_hexadecimals(table, parse)
    except pa.ArrowInvalid:
        if odd:
            odd.clear()
            try:
                parse(threads=False)  # which numbers the rows
            except pa.ArrowInvalid:
                _refuse_row(path, odd[0], text.header)
        raise
    if not text.header:
        table = table.rename_columns([f"c{i + 1}" for i in range(table.num_columns)])
    return table


def _without_hexadecimals(table: pa.Table, parse: Any) -> pa.Table:
    """The table, 0x10 as the text that it is: pyarrow takes it for an integer."""
    import pyarrow as pa
    from pyarrow import compute

    integers = [field.name for field in table.schema if pa.types.is_integer(field.type)]
    texts = parse(types=dict.fromkeys(integers, pa.string()))
    for i, name in enumerate(table.column_names):
        if name in integers:
            text = texts.column(i)
            if compute.any(compute.match_substring_regex(text, "0[xX]")).as_py():
                table = table.set_column(i, name, text)
    return table


def _refuse_row(path: Path, row: Any, header: bool) -> None:
    text = row.text if len(row.text) <= 60 else row.text[:57] + "..."
    where = "a row" if row.number is None else f"row {row.number}"
    if header and row.number is not None:
        where += " (the header is row 1)"
    fail(
        f"{shown(str(path))}: {where} has {count(row.actual_columns, 'value')} for "
        f"{count(row.expected_columns, 'column')}: {printable(text)}"
    )


def _named(table: pa.Table) -> pa.Table:
    table = table.rename_columns([name.strip() for name in table.column_names])
    if table.column_names and table.column_names[0] == "" and _counts_rows(table.column(0)):
        note("the first column has no name and numbers the rows: left out.")
        table = table.remove_column(0)
    twice = [name for name, times in Counter(table.column_names).items() if times > 1]
    if twice:
        fail(f"the table has more than one column {', '.join(map(shown, twice))}.")
    return table


def _counts_rows(column: pa.ChunkedArray) -> bool:
    import numpy as np
    import pyarrow as pa

    if not pa.types.is_integer(column.type) or column.null_count:
        return False
    numbers = column.to_numpy()
    return len(numbers) > 0 and bool(np.array_equal(numbers - numbers[0], np.arange(len(numbers))))
