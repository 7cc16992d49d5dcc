"""Rows from wherever they are, a batch at a time: arrays, files, datasets, iterators.

Each source yields (x, y, weight) in the order of its rows, from a given row on; the first row of
all is shown to a check before, by which a resumed reading knows its source.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .solvers.problem import Array
from .solvers.state import GramState

Batch = tuple[Any, Any, Any]
Check = Callable[[Any, Any], None]
# Bytes of x in a batch: enough for all threads, little beside other memory.
_BATCH = 2**24


@dataclass
class Source:
    """`batches(first, check)` begins at row `first`; `rows` is None where no one knows."""

    batches: Callable[[int, Check], Iterator[Batch]]
    rows: int | None = None
    names: list[str] | None = None  # of x's columns


def open_source(
    source: Any,
    y: Any = None,
    *,
    weight: Any = None,
    target: str | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> Source:
    """What `GramState.from_dataset` reads, of whichever kind it is."""
    if isinstance(source, str | os.PathLike) and not str(source).endswith(".npy"):
        if y is not None:
            raise ValueError("y is for arrays: name a Parquet file's columns of y by target")
        return _parquet(Path(source), weight, target, columns)
    if target is not None or columns is not None:
        raise ValueError("target and columns are names of a Parquet file's columns")
    x, y, weight = (_array(value) for value in (source, y, weight))
    if hasattr(x, "element_spec"):
        return _tensorflow(x, y, weight)
    if hasattr(x, "shape") and hasattr(x, "__getitem__"):
        return _arrays(x, y, weight)
    if not isinstance(x, Iterable):
        raise TypeError(
            "source must be an array, a path, a tf.data.Dataset or an iterable of (x, y), "
            f"got {type(source).__name__}"
        )
    _refuse(y, weight, "an iterable of (x, y) or (x, y, weight)")
    return Source(lambda first, check: _skip(map(_parts, x), first, check))


def _array(value: Any) -> Any:
    """An .npy file as a memmap, anything else as it is."""
    if isinstance(value, str | os.PathLike):
        return np.load(value, mmap_mode="r", allow_pickle=False)
    return value.to_numpy() if hasattr(value, "to_numpy") else value


def _refuse(y: Any, weight: Any, what: str) -> None:
    if y is not None or weight is not None:
        raise ValueError(f"y and weight come with the rows of {what}")


def _parts(element: Any) -> Batch:
    if not isinstance(element, tuple | list) or len(element) not in (2, 3):
        raise ValueError(
            f"rows must come as (x, y) or (x, y, weight), got {type(element).__name__}"
        )
    x, y, weight = (*element, None)[:3]
    return x, y, weight


def _skip(batches: Iterable[Batch], first: int, check: Check) -> Iterator[Batch]:
    """Leaves out the first rows, which have to be read for it."""
    checked = False
    for x, y, weight in batches:
        x, y = _sliceable(x), _sliceable(y)
        rows = x.shape[0] if x.ndim else 0
        if rows and not checked:
            check(x[:1], y[:1])
            checked = True
        if first >= rows:
            first -= rows
            continue
        yield x[first:], y[first:], None if weight is None else _sliceable(weight)[first:]
        first = 0


def _sliceable(value: Any) -> Any:
    return value.tocsr() if hasattr(value, "tocsr") else np.asarray(value)


def _arrays(x: Any, y: Any, weight: Any) -> Source:
    if y is None:
        raise ValueError("source is X alone: y must be given")
    if len(x.shape) != 2 or y.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"X must have shape [n, d] and y [n] or [n, k], got {list(x.shape)} and {list(y.shape)}"
        )
    if weight is not None and weight.shape != x.shape[:1]:
        raise ValueError(f"weight must have shape [{x.shape[0]}], got {list(weight.shape)}")
    x = x.tocsr() if hasattr(x, "tocsr") else x
    step = max(1024, _BATCH // max(1, x.shape[1] * x.dtype.itemsize))

    def batches(first: int, check: Check) -> Iterator[Batch]:
        if x.shape[0]:
            check(x[:1], y[:1])
        for begin in range(first, x.shape[0], step):
            rows = slice(begin, begin + step)
            yield x[rows], y[rows], None if weight is None else weight[rows]

    return Source(batches, x.shape[0])


def _tensorflow(dataset: Any, y: Any, weight: Any) -> Source:
    """A tf.data.Dataset of (x, y) or (x, y, weight), batched or row by row."""
    _refuse(y, weight, "the dataset")
    spec = _parts(dataset.element_spec)[0]
    if spec.shape.rank == 1:
        dataset = dataset.batch(1024)
    elif spec.shape.rank not in (2, None):
        raise ValueError(f"x must have shape [m, d] in the dataset, got {spec.shape}")
    return Source(
        lambda first, check: _skip(map(_parts, dataset.as_numpy_iterator()), first, check)
    )


def _parquet(
    path: Path, weight: str | None, target: str | Sequence[str] | None, columns: Any
) -> Source:
    """A Parquet file, or a folder of them: a row each; lists of one length count as columns."""
    try:
        import pyarrow.dataset as ds
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install pyarrow") from error
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    dataset = ds.dataset(path, format="parquet")
    targets = [target] if isinstance(target, str) else list(target or ())
    if not targets:
        raise ValueError("target must name the columns of y in a Parquet file")
    beside = [*targets, *([weight] if weight else [])]
    chosen = list(columns or (n for n in dataset.schema.names if n not in beside))
    unknown = [name for name in (*chosen, *beside) if name not in dataset.schema.names]
    if unknown:
        raise ValueError(f"{path} has no columns {unknown}; it has {dataset.schema.names}")

    def batch(record: Any) -> Batch:
        return (
            _matrix(record.select(chosen)),
            _matrix(record.select(targets), one=isinstance(target, str)),
            _matrix(record.select([weight]), one=True) if weight else None,
        )

    def batches(first: int, check: Check) -> Iterator[Batch]:
        for record in dataset.head(1, columns=[*chosen, *beside]).to_batches():
            check(*batch(record)[:2])
        yield from _ahead(map(batch, _record_batches(dataset, [*chosen, *beside], first)))

    nested = any(dataset.schema.field(name).type.num_fields for name in chosen)
    names = None if nested else chosen
    return Source(batches, dataset.count_rows(), names)


def _record_batches(dataset: Any, columns: list[str], first: int) -> Iterator[Any]:
    """In the files' order; files that end before `first` are not read."""
    for fragment in dataset.get_fragments():
        rows = fragment.count_rows()
        if first >= rows:
            first -= rows
            continue
        for record in fragment.to_batches(columns=columns, batch_size=2**14):
            if first >= record.num_rows:
                first -= record.num_rows
                continue
            yield record.slice(first)
            first = 0


def _matrix(record: Any, *, one: bool = False) -> Array:
    """A record batch's columns side by side: [m, d], or [m] of one column."""
    missing = [n for n, c in zip(record.schema.names, record.columns, strict=True) if c.null_count]
    if missing:
        raise ValueError(
            f"columns {missing} have missing values: fill them, or leave their rows out"
        )
    parts = []
    for column in record.columns:
        if column.type.num_fields:
            values = column.flatten().to_numpy(zero_copy_only=False)
            if column.offset == 0 and len(column) and len(values) % len(column):
                raise ValueError("lists must have one length in all rows")
            parts.append(values.reshape(len(column), -1))
        else:
            parts.append(column.to_numpy(zero_copy_only=False)[:, None])
    if one and len(parts) == 1 and parts[0].shape[1] == 1:
        return np.asarray(parts[0][:, 0])
    return np.asarray(parts[0] if len(parts) == 1 else np.hstack(parts))


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The next batch is decoded while this one is summed."""
    end = object()
    with ThreadPoolExecutor(1, "linreg_ops_reader") as pool:
        coming = pool.submit(next, batches, end)
        while (batch := coming.result()) is not end:
            coming = pool.submit(next, batches, end)
            yield batch  # type: ignore[misc]


def read(
    source: Source,
    state: GramState,
    *,
    progress: bool | None,
    checkpoint: str | os.PathLike[str] | None,
    checkpoint_seconds: float,
) -> GramState:
    """Updates a state with all rows of a source; resumes from a checkpoint that is there."""
    if checkpoint is not None and Path(checkpoint).exists():
        state = _resumed(checkpoint, state)

    def check(x: Any, y: Any) -> None:
        mark = _digest(x, y)
        if state.mark not in ("", mark):
            name = os.fspath(checkpoint or "")
            raise ValueError(f"{name} is of other rows: begin anew without it")
        state.mark = mark

    saved = time.monotonic()
    with _bar(source.rows, state.n_seen, progress) as advance:
        try:
            for x, y, weight in source.batches(state.n_seen, check):
                state.update(x, y, weight)
                advance(x.shape[0], getattr(x, "nbytes", 0))
                if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
                    state.save(checkpoint)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if checkpoint is not None:
                state.save(checkpoint)
            raise
    if checkpoint is not None:
        state.save(checkpoint)
    if state.n_seen == 0:
        raise ValueError("the source has no rows")
    return state


def _resumed(checkpoint: str | os.PathLike[str], like: GramState) -> GramState:
    state = GramState.load(checkpoint)
    if (state.folds, state.fold_rows) != (like.folds, like.fold_rows):
        raise ValueError(
            f"{os.fspath(checkpoint)} has {state.folds} folds of {state.fold_rows} rows in turn, "
            f"not {like.folds} of {like.fold_rows}: begin anew without it"
        )
    return state


def _digest(x: Any, y: Any) -> str:
    """What tells one source from another: its first row."""
    row = x[:1].toarray() if hasattr(x, "toarray") else np.asarray(x[:1])
    parts = (np.asarray(part, np.float64).tobytes() for part in (row, y[:1]))
    return hashlib.sha256(b"|".join(parts)).hexdigest()


def _bar(rows: int | None, done: int, wanted: bool | None) -> Any:
    """A context that gives `advance(rows, bytes)`."""
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        return nullcontext(lambda rows, size: None)
    try:
        import rich  # noqa: F401
    except ImportError:
        if wanted is None:
            return nullcontext(lambda rows, size: None)
        raise ImportError("progress needs rich: pip install rich") from None
    return _Bar(rows, done)


class _Bar:
    """Rows, rows a second and bytes a second, on stderr."""

    def __init__(self, rows: int | None, done: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("reading"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows, {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=rows, completed=done, rate="")
        self._rows = self._bytes = 0

    def __enter__(self) -> Callable[[int, int], None]:
        self._start = time.perf_counter()
        self._progress.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _advance(self, rows: int, size: int) -> None:
        self._rows, self._bytes = self._rows + rows, self._bytes + size
        seconds = max(time.perf_counter() - self._start, 1e-9)
        rate = f"{self._rows / seconds:,.0f} rows/s, {self._bytes / seconds / 1e9:.2f} GB/s"
        self._progress.update(self._task, advance=rows, rate=rate)
