"""What goes to the terminal and what must not: escapes of the data's, TensorFlow's chatter."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console()


def fail(message: str) -> NoReturn:
    """Says it on stderr and ends with exit code 1; 2 is for options that cannot be right."""
    _say("Error:", "bold red", message)
    raise typer.Exit(1)


def refuse(message: str) -> NoReturn:
    """Says what is wrong with the options, and ends with exit code 2."""
    _say("Error:", "bold red", message)
    sys.exit(2)


def note(message: str) -> None:
    """Says on stderr what the reader of the numbers should know."""
    _say("Note:", "bold yellow", message)


def _say(kind: str, style: str, message: str) -> None:
    terminal = Console(stderr=True)
    text = Text.assemble((kind, style), " ", printable(message))
    # A terminal's line is broken between words; what goes elsewhere is one line.
    terminal.print(text, soft_wrap=not terminal.is_terminal)


def show_columns(
    title: str, names: Sequence[str], columns: Sequence[tuple[str, Sequence[str]]]
) -> None:
    """A table of named rows: under each other as many as it takes, where all columns do not fit."""
    widths = [max(map(cell_len, [head, *cells])) + 2 for head, cells in columns]
    longest = max(map(cell_len, [title, *names]))
    label = min(longest, max(console.width - 2 - max(widths), 8))
    part: list[int] = []
    for i in range(len(columns)):
        if part and 2 + label + sum(widths[j] for j in [*part, i]) > console.width:
            _show(title, names, [columns[j] for j in part])
            part = []
        part.append(i)
    _show(title, names, [columns[j] for j in part])


def _show(title: str, names: Sequence[str], columns: Sequence[tuple[str, Sequence[str]]]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column(Text(title), overflow="fold")
    for head, _ in columns:
        table.add_column(Text(head), justify="right", no_wrap=True)
    for name, *cells in zip(names, *(cells for _, cells in columns), strict=True):
        table.add_row(*map(Text, [name, *cells]))
    console.print(table)


def say(text: str) -> None:
    """A sentence to standard output: broken between words on a terminal, one line elsewhere."""
    console.print(text, soft_wrap=not console.is_terminal, markup=False, highlight=False)


def printable(text: str) -> str:
    r"""The text with what is no printable character escaped: names come from strangers' files.

    >>> print(printable("a\x1b[31mred\u202e"))
    a\x1b[31mred\u202e
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(name: str) -> str:
    """A column's name as messages show it: in quotes where its ends would not be seen.

    >>> print(shown("price"), shown(" price"), shown("a, b"), shown(""))
    price ' price' 'a, b' ''
    """
    plain = name and name == name.strip() and not set(name) & set(",'\"")
    return printable(name if plain else f"'{name}'")


def listed(names: Any, most: int = 20) -> str:
    """Names, shown, the first `most` of them."""
    names = [shown(name) for name in names]
    rest = len(names) - most
    return ", ".join(names[:most]) + (f", and {rest} more" if rest > 0 else "")


def count(number: int, what: str) -> str:
    """A number of things.

    >>> count(1, "row"), count(2, "row")
    ('1 row', '2 rows')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Three digits of a time.

    >>> duration(2.34e-5), duration(0.0123), duration(12.3)
    ('23.4 µs', '12.3 ms', '12.3 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def writable(path: Path | None, suffixes: tuple[str, ...]) -> Path | None:
    """The path of a file that can be made.

    Raises:
        typer.BadParameter: Its ending is none of `suffixes`, its folder is missing, it cannot be
            written.
    """
    if path is None:
        return None
    if path.suffix.lower() not in suffixes:
        allowed = suffixes[0] if len(suffixes) == 1 else f"one of {', '.join(suffixes)}"
        raise typer.BadParameter(f"'{path}' must end in {allowed}.")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"folder '{path.parent}' does not exist.")
    target = path.resolve()  # of a link: where it leads, which may be nowhere
    if not target.parent.is_dir():
        raise typer.BadParameter(f"'{path}' leads to '{target}', whose folder does not exist.")
    # A file is written beside it first; a pipe or a device, as it is.
    place = target if target.exists() and not target.is_file() else target.parent
    existing = target if target.exists() else place
    if target.is_dir() or not (os.access(place, os.W_OK) and os.access(existing, os.W_OK)):
        raise typer.BadParameter(f"'{path}' cannot be written.")
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says when `path` cannot be written into a line."""
    try:
        yield
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror or error}.")


def _picture_path(path: Path | None) -> Path | None:
    return writable(path, (".png", ".pdf", ".svg"))


Picture = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", callback=_picture_path, help="The picture: PNG, PDF, SVG."
    ),
]


@contextmanager
def without_tensorflow_logs() -> Iterator[None]:
    """Keeps TensorFlow's chatter about CPU features and drivers off the terminal.

    Its first lines come before its logging is set up and heed no setting, so stderr's file
    descriptor is redirected; what was caught is shown if the import fails. Who sets
    TF_CPP_MIN_LOG_LEVEL gets the logs.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_logical_devices()  # starts the devices, which logs too
            yield
        except Exception:
            caught.seek(0)
            os.write(terminal, caught.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


# What an ASCII or Latin-1 terminal shows for characters that it does not have.
_PLAIN = {"½": "1/2", "²": "^2", "Σ": "sum", "‖": "|", "µ": "u", "·": "*", "ᵀ": "^T"}


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c, "?") for c in lacking), error.end


def replace_what_the_terminal_lacks() -> None:
    """Prints 1/2 for ½, and ? for what has no such name, where a traceback would come."""
    codecs.register_error("linreg_ops.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream of an embedding program's
            stream.reconfigure(errors="linreg_ops.plain")  # type: ignore[union-attr]
