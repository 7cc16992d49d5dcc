"""Sums over rows, from one read, that every least-squares and ridge solution is made of.

XᵀSX, XᵀSY and the column sums, in float64 about a shift near the first rows' mean, for each fold of
a cross-validation. Sums of disjoint rows add: batches, machines, and all folds but one.

Rows are summed in blocks cut at fixed row numbers, so that batches of any size give the same bits.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels
from .._files import whole
from .._kernels import gram_sums_size
from .problem import Array, shift_and_spread
from .rows import all_finite, as_it_is, checked, dense
from .sums import Centred, Sums, add_up, centre

# Rows of a block. The first block of all also says what is shifted by.
BLOCK = kernels.GramState.BLOCK_ROWS
_FORMAT = 1
# Numbers of x that are converted at a time, where its layout is not the kernel's.
_CHUNK = 2**20
# Logarithms are summed as multiples of its inverse: 745 of it, 4096 times, are below 2⁶³.
_LOG_UNIT = 2.0**40


class GramState:
    """Sums over rows seen so far, from which coefficients follow without another read.

    Holds XᵀSX, XᵀSY, Σ s y² and the columns' sums in float64, about a shift near the first rows'
    mean, so that offsets cost no digits; for each of `folds` folds. O(folds · d · (d + k)) memory,
    whatever the number of rows.

    The unfused form, for one fold, without its shift::

        XtX, XtY, YtY = X.T @ (s * X), X.T @ (s * Y), (s * Y * Y).sum(0)

    Rows are summed in blocks of 1024, cut at fixed row numbers: batches of any size give the same
    bits, and so does a state that was saved and loaded on the way.

    Args:
        folds: Parts that rows are dealt to, for cross-validation.
        fold_rows: Unless a fold is named, this many rows in a row go to one fold, then as many to
            the next: more than 1 where neighbours are alike, as in a series.

    Attributes:
        n_rows: Rows of positive weight seen.
        n_features, n_targets: d and k; None before the first rows.
        one_target: Whether y has been [m].
        mark: Of a dataset's first row, by which a checkpoint is known to be of it.

    >>> import numpy as np, linreg_ops as lo
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> state = lo.GramState().update(X[:3], [1.0, 3.0, 5.0]).update(X[3:], [7.0])
    >>> model = lo.LinearRegression().fit_state(state)
    >>> model.coef_, model.intercept_
    (array([2.]), 1.0)
    """

    def __init__(self, folds: int = 1, *, fold_rows: int = 1) -> None:
        self.folds = _positive(folds, "folds")
        self.fold_rows = _positive(fold_rows, "fold_rows")
        self.n_features: int | None = None
        self.n_targets: int | None = None
        self.one_target = False  # whether y was [n]
        self._seen = 0
        self._kernel: kernels.GramState | None = None
        self._merged: list[Sums] = []  # of other states, for each fold
        # The first block's rows, which are to say what is shifted by: x, y, weight and fold.
        self._head: list[tuple[Array, ...]] = []
        self.mark = ""
        self._log_weight = 0  # Σ log s as an integer: a sum that knows no order

    @property
    def n_rows(self) -> int:
        """Rows of positive weight seen."""
        held = sum(len(rows[0]) for rows in self._head)
        taken = 0 if self._kernel is None else self._kernel.rows
        return held + taken + sum(sums.rows for sums in self._merged)

    @property
    def n_seen(self) -> int:
        """Rows seen, those of weight 0 too: where to go on reading."""
        return self._seen

    @property
    def log_weight(self) -> float:
        """Σ log s over rows of positive weight."""
        return self._log_weight / _LOG_UNIT

    def update(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        *,
        fold: npt.ArrayLike | None = None,
    ) -> GramState:
        """Adds rows: x [m, d], y [m] or [m, k], each row counting `sample_weight` [m] times.

        x is of float16, bfloat16, float32, float64 or integers, or a SciPy sparse matrix; it is not
        copied. `fold` names the rows' fold, one number or [m]; without it they are dealt in turn.

        Ctrl-C raises KeyboardInterrupt; `n_seen` then says how many of the rows are in.

        Raises:
            ValueError: Shapes that do not fit, or not those of the rows before; NaN or infinite
                values; negative weights; a fold that is not there. The state is then as it was.
        """
        rows_of_x, targets, s, which = self._checked(x, y, sample_weight, fold)
        m, d = rows_of_x.shape
        step = max(1, m) if as_it_is(rows_of_x) else max(BLOCK, _CHUNK // max(1, d))
        for begin in range(0, m, step):
            rows = slice(begin, min(begin + step, m))
            weights = None if s is None else s[rows]
            self._take(rows_of_x[rows], targets[rows], weights, which[rows])
        return self

    def merge(self, other: GramState) -> GramState:
        """Adds the rows of another state, fold to fold. The other stays as it is.

        The same as having seen the other's rows too, to rounding.

        Raises:
            ValueError: Another number of folds, columns or targets.
        """
        if self.folds != other.folds:
            raise ValueError(f"merge needs {self.folds} folds as here, got {other.folds}")
        if other.n_features is None:
            return self
        self._fits(other.n_features, other.n_targets)
        if self.n_features is None:
            self.n_features, self.n_targets = other.n_features, other.n_targets
            self.one_target = other.one_target
        if self._kernel is None and not self._head:
            self._kernel = other._empty_kernel(*other._shift())
        self._settle()
        x_shift, y_shift = self._shift()
        theirs, x_theirs, y_theirs = other._parts(), *other._shift()
        moved = [sums.moved(x_shift - x_theirs, y_shift - y_theirs) for sums in theirs]
        if self._merged:
            moved = [mine.plus(new) for mine, new in zip(self._merged, moved, strict=True)]
        self._merged = moved
        self._seen += other._seen
        self._log_weight += other._log_weight
        return self

    def centred(
        self, *, intercept: bool = True, fold: int | None = None, without: int | None = None
    ) -> Centred:
        """All rows' sums about their means (about zero without `intercept`).

        These are one fold's, with `fold`; all but one's, with `without`.

        Raises:
            ValueError: There are no such rows, or all of weight zero.
        """
        parts = self._parts()
        if fold is not None:
            parts = [parts[fold]]
        elif without is not None:
            parts = parts[:without] + parts[without + 1 :]
        return centre(add_up(parts), *self._shift(), intercept)

    def about(self, x_mean: Array, y_mean: Array, fold: int) -> Sums:
        """One fold's sums about given means: what another fit's residuals there are made of."""
        x_shift, y_shift = self._shift()
        return self._parts()[fold].moved(x_mean - x_shift, y_mean - y_shift)

    @classmethod
    def from_dataset(
        cls,
        source: Any,
        y: Any = None,
        *,
        weight: Any = None,
        target: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        folds: int = 1,
        fold_rows: int = 1,
        progress: bool | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 30.0,
    ) -> GramState:
        """The state of all rows of a source, which is read once, batch by batch.

        Args:
            source: X [n, d] as an array, a memmap, or the path of an .npy file, with y beside it;
                a `tf.data.Dataset` of (x, y) or (x, y, weight), batched or row by row; the path of
                a Parquet file or a folder of them; or any iterable of (x, y) or (x, y, weight) in
                batches. X larger than memory is what this is for.
            y: [n] or [n, k], as an array or the path of an .npy file, where source is X alone.
            weight: [n], likewise; the name of the column in a Parquet file.
            target: A Parquet file's columns of y: one name for y [n], a list for y [n, k].
            columns: A Parquet file's columns of X; by default all others. Columns of lists of one
                length count as that many.
            folds: As of `GramState`.
            fold_rows: As of `GramState`.
            progress: A bar with rows and bytes a second on stderr. None: if that is a terminal.
            checkpoint: A file that the state is saved to while reading, and at the end. If it is
                there already, reading goes on where it ends, to the same bits as without a stop. An
                iterable has to begin at its first row again.
            checkpoint_seconds: How often.

        Raises:
            ValueError: As of `update`; a checkpoint of other rows or folds; missing values in
                Parquet; no rows.
            FileNotFoundError: A path leads nowhere.

        >>> batches = [([[0.0], [1.0]], [1.0, 3.0]), ([[2.0]], [5.0])]
        >>> GramState.from_dataset(batches).n_rows
        3
        """
        from .. import sources

        opened = sources.open_source(source, y, weight=weight, target=target, columns=columns)
        state = cls(folds, fold_rows=fold_rows)
        return sources.read(
            opened, state, progress=progress, checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
        )  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything to an .npz file: whole, or not at all if the machine stops meanwhile.

        Loaded again it goes on to the same bits.
        """
        with whole(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **self._to_arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GramState:
        """The state that `save` wrote.

        Raises:
            ValueError: The file is not one of those.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls._from_arrays(dict(file.items()))
        except (KeyError, TypeError, ValueError, EOFError, AttributeError, OverflowError,
                zipfile.BadZipFile) as error:  # fmt: skip
            raise ValueError(f"{os.fspath(path)} holds no GramState: {error}") from None

    def _to_arrays(self) -> dict[str, Any]:
        arrays: dict[str, Any] = {
            "format": _FORMAT,
            "folds": [self.folds, self.fold_rows],
            "shape": [self.n_features or 0, self.n_targets or 0, self.one_target],
            "counts": [self._seen, len(self._head), len(self._merged), self._kernel is not None],
            "log_weight": str(self._log_weight),
            "mark": self.mark,
        }
        for number, rows in enumerate(self._head):
            arrays |= {f"head{number}_{i}": array for i, array in enumerate(rows)}
        for number, sums in enumerate(self._merged):
            arrays |= {f"merged{number}_{f.name}": getattr(sums, f.name) for f in fields(sums)}
        if self._kernel is not None:
            arrays |= {f"kernel_{name}": a for name, a in self._kernel.to_arrays().items()}
        return arrays

    @classmethod
    def _from_arrays(cls, arrays: dict[str, Array]) -> GramState:
        if int(arrays["format"]) != _FORMAT:
            raise ValueError(f"its format is {arrays['format']}, this reads {_FORMAT}")
        folds, fold_rows = map(int, arrays["folds"])
        self = cls(folds, fold_rows=fold_rows)
        d, k, one = map(int, arrays["shape"])
        self._seen, heads, merged, has_kernel = map(int, arrays["counts"])
        if heads or merged or has_kernel:
            self.n_features, self.n_targets, self.one_target = d, k, bool(one)
        self._log_weight, self.mark = int(str(arrays["log_weight"])), str(arrays["mark"])
        self._head = [tuple(arrays[f"head{n}_{i}"] for i in range(4)) for n in range(heads)]
        for n in range(merged):
            own = [arrays[f"merged{n}_{field.name}"] for field in fields(Sums)]
            self._merged.append(Sums(int(own[0]), float(own[1]), *own[2:]))
        if has_kernel:
            own_arrays = {n[7:]: a for n, a in arrays.items() if n.startswith("kernel_")}
            self._kernel = kernels.GramState.from_arrays(own_arrays)
        self._check_stored()
        return self

    def _check_stored(self) -> None:
        """That parts of a file, which anybody may have written, go together."""
        d, k = self.n_features or 0, self.n_targets or 0
        gram_sums_size(max(d, 1), k, self.folds)  # raises where no memory is so large
        stored = [
            (f"head{number}_{i}", array, (len(rows[2]), *columns))
            for number, rows in enumerate(self._head)
            for i, (array, columns) in enumerate(zip(rows, ((d,), (k,), (), ()), strict=True))
        ]
        of_sums = {"x": (d,), "y": (k,), "xx": (d, d), "xy": (d, k), "yy": (k,)}
        for number, sums in enumerate(self._merged):
            names = ((f"merged{number}_{name}", name) for name in of_sums)
            stored += [(label, getattr(sums, name), of_sums[name]) for label, name in names]
        for label, array, shape in stored:
            if array.shape != shape or array.dtype.kind not in "fi":
                raise ValueError(f"{label} must be numbers of shape {shape}, got {array.shape}")
            if array.dtype.kind == "f" and not all_finite(array):
                raise ValueError(f"{label} must be finite")
        folds = [rows[3] for rows in self._head]
        kernel = self._kernel
        if kernel is not None and (kernel.d, kernel.k, kernel.folds) != (d, k, self.folds):
            raise ValueError(f"its sums are not of {d} columns, {k} targets and {self.folds} folds")
        if not (
            self._seen >= self.n_rows >= 0
            and len(self._merged) in (0, self.folds)
            and all(sums.rows >= 0 for sums in self._merged)
            and all(np.all((which >= 0) & (which < self.folds)) for which in folds)
        ):
            raise ValueError("its rows or folds cannot be")

    # What is within.

    def _checked(self, x: Any, y: Any, s: Any, fold: Any) -> tuple[Any, Array, Array | None, Array]:
        """The arguments as arrays that fit, the fold as [m]."""
        x, y, s = checked(x, y, s)
        m, d = x.shape
        one, y = y.ndim == 1, y[:, None] if y.ndim == 1 else y
        self._fits(d, y.shape[1])
        which = np.asarray(self._dealt(m) if fold is None else fold)
        if which.shape not in ((), (m,)) or which.dtype.kind not in "iu":
            raise ValueError(f"fold must be an integer or have shape [{m}], got {fold!r}")
        if which.size and not (which.min() >= 0 and which.max() < self.folds):
            raise ValueError(f"fold must be from 0 to {self.folds - 1}, got {fold!r}")
        if self.n_features is None:
            self.n_features, self.n_targets, self.one_target = d, y.shape[1], one
        return x, y, s, np.broadcast_to(which, m)

    def _dealt(self, m: int) -> Array:
        if self.folds == 1:
            return np.zeros((), np.int64)
        return (self._seen + np.arange(m)) // self.fold_rows % self.folds

    def _fits(self, d: int, k: int | None) -> None:
        if self.n_features is not None and (d, k) != (self.n_features, self.n_targets):
            raise ValueError(
                f"rows have {self.n_features} columns of x and {self.n_targets} of y so far, "
                f"got {d} and {k}"
            )

    def _take(self, x: Any, y: Array, s: Array | None, which: Array) -> None:
        """Some rows that fit: those of positive weight to the head, then to the kernel."""
        m = x.shape[0]
        kept = np.arange(m)
        if s is not None and not np.all(s):
            kept = np.flatnonzero(s)
            x, y, s, which = x[kept], y[kept], s[kept], which[kept]
        before = self.n_rows
        try:
            held = sum(len(rows[0]) for rows in self._head)
            first = 0 if self._kernel else min(BLOCK - held, len(kept))
            if first:
                ones = np.ones(first) if s is None else s[:first]
                head = (dense(x[:first]), y[:first], ones, which[:first])
                # As float64, which .npy files know, as they do not know bfloat16.
                types = (np.float64, np.float64, np.float64, np.int64)
                pairs = zip(head, types, strict=True)
                self._head.append(tuple(np.array(a, t, order="C") for a, t in pairs))
                if held + first == BLOCK:
                    self._settle()
            if first < len(kept):
                weights = None if s is None else s[first:]
                self._feed(dense(x[first:]), y[first:], weights, which[first:])
        finally:  # Ctrl-C leaves a prefix of the rows
            taken = self.n_rows - before
            self._seen += m if taken == len(kept) else int(kept[taken])
            if s is not None:
                logs = np.rint(np.log(s[:taken]) * _LOG_UNIT).astype(np.int64)
                parts = np.array_split(logs, 1 + len(logs) // 4096)
                self._log_weight += sum(int(part.sum()) for part in parts)

    def _feed(self, x: Array, y: Array, s: Array | None, which: Array) -> None:
        assert self._kernel is not None
        fold = np.ascontiguousarray(which, np.int64) if self.folds > 1 else None
        targets = np.ascontiguousarray(y) if y.shape[1] else None
        self._kernel.update(np.ascontiguousarray(x), targets, sample_weight=s, fold=fold)

    def _settle(self) -> None:
        """Chooses the shift by the rows so far, and sums them."""
        if self._kernel is None:
            self._kernel = self._settled_kernel()
            self._head = []

    def _settled_kernel(self) -> kernels.GramState:
        """The kernel's state, as it would be if no row were to come."""
        if self._kernel is not None:
            return self._kernel
        if self.n_features is None:
            raise ValueError("the state has seen no rows: update it first")
        if not self._head:
            return self._empty_kernel(np.zeros(self.n_features), np.zeros(self.n_targets or 0))
        x, y, s, which = (np.concatenate(parts) for parts in zip(*self._head, strict=True))
        x_shift, y_shift = shift_and_spread(x, True)[0], shift_and_spread(y, True)[0]
        kernel = self._empty_kernel(x_shift, y_shift)
        fold = which.astype(np.int64) if self.folds > 1 else None
        return kernel.update(x, y if y.shape[1] else None, sample_weight=s, fold=fold)

    def _empty_kernel(self, x_shift: Array, y_shift: Array) -> kernels.GramState:
        d, k = len(x_shift), len(y_shift)
        return kernels.GramState(d, k, folds=self.folds, x_shift=x_shift, y_shift=y_shift)

    def _parts(self) -> list[Sums]:
        """Each fold's sums so far."""
        kernel = self._settled_kernel()
        parts = [Sums.of(kernel.result(fold)) for fold in range(self.folds)]
        if self._merged:
            parts = [mine.plus(new) for mine, new in zip(parts, self._merged, strict=True)]
        return parts

    def _shift(self) -> tuple[Array, Array]:
        kernel = self._settled_kernel()
        return kernel.x_shift, kernel.y_shift


def _positive(value: Any, name: str) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    return int(value)
