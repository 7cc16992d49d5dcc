"""The Gram engine on NumPy arrays: see :class:`GramState`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _gram_arguments as arguments
from . import _kernels

Array = NDArray[Any]

_FORMAT = 2  # of to_arrays


class Gram(NamedTuple):
    """Sums over rows, in float64. What z and t are says :class:`GramState`."""

    xx: Array  # [d, d]: Σ s z zᵀ, symmetric
    xy: Array  # [d, k]: Σ s z tᵀ
    yy: Array  # [k]: Σ s t²
    x_sum: Array  # [d]: Σ s z
    y_sum: Array  # [k]: Σ s t
    weight: float  # Σ s, the number of rows without weights
    rows: int


class GramState:
    """Sums over rows that arrive in batches, one set for each fold.

    With weights s (one for each row unless given),

        z = (x - x_shift) x_scale,  t = (y - y_shift) y_scale
        Σ s z zᵀ,  Σ s z tᵀ,  Σ s t²,  Σ s z,  Σ s t,  Σ s

    in float64: the products of float32 or narrower numbers are exact. Each fold's rows are cut
    into blocks of `BLOCK_ROWS`, counted from the fold's first row; a block that a batch leaves half
    done is kept as rows. So the bits of a result depend on the sequence of rows and weights in each
    fold, and on `d` and `k`, alone: not on batches, threads, the dtype that the same numbers come
    in, checkpoints, or the instruction set among those with a fused multiply-add.

    A block's sums are eight chains of 128 multiply-adds (Higham, Accuracy and Stability of
    Numerical Algorithms, section 3.1); blocks are added by Knuth's TwoSum, with their rounding
    errors kept. An entry's error is at most about 140·2⁻⁵³ of the sum of its terms' sizes, whatever
    the number of rows. NaN and infinity spread as in the formulas, from rows of weight 0 too.

    The state takes 16 bytes for each of d²/2 + d k numbers and 8 KiB for each of d + k + 1 columns,
    all of it once per fold.

    Args:
        d: Columns of X.
        k: Columns of Y; 0 for a Gram matrix alone. Not both are 0.
        folds: How many sets of sums to keep.
        x_shift: [d], what is subtracted from the rows of X, such as a first guess of their mean;
            None for zeros. It must not change, so that all rows add up.
        y_shift: [k], likewise.
        x_scale: [d], powers of two, so that they cost no digit; None for ones.
        y_scale: [k], likewise.
        num_threads: None for as many as the process has processors.
        isa: An instruction set of `isas`, None for the best.

    >>> import numpy as np
    >>> x, y = np.arange(6.0).reshape(3, 2), np.ones((3, 1))
    >>> state = GramState(d=2, k=1)
    >>> _ = state.update(x[:1], y[:1]).update(x[1:], y[1:])
    >>> state.result().xx
    array([[20., 26.],
           [26., 35.]])
    >>> state.result().xy.T
    array([[6., 9.]])
    """

    BLOCK_ROWS: int = _kernels.GRAM_BLOCK_ROWS

    def __init__(
        self,
        d: int,
        k: int = 0,
        *,
        folds: int = 1,
        x_shift: Any = None,
        y_shift: Any = None,
        x_scale: Any = None,
        y_scale: Any = None,
        num_threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        self._d, self._k, self._folds = (
            arguments.size(d, "d"),
            arguments.size(k, "k"),
            arguments.size(folds, "folds"),
        )
        size = _kernels.gram_sums_size(self._d, self._k, self._folds)
        self.x_shift = arguments.column_values(x_shift, 0.0, self._d, "x_shift")
        self.y_shift = arguments.column_values(y_shift, 0.0, self._k, "y_shift")
        self.x_scale = arguments.powers_of_two(x_scale, self._d, "x_scale")
        self.y_scale = arguments.powers_of_two(y_scale, self._k, "y_scale")
        scale = np.concatenate([self.x_scale, self.y_scale])
        with np.errstate(over="ignore"):
            offset = -np.concatenate([self.x_shift, self.y_shift]) * scale
        if not np.all(np.isfinite(offset)):
            raise ValueError("x_shift * x_scale and y_shift * y_scale must be finite")
        self._num_threads, self._isa = arguments.threads(num_threads), arguments.isa(isa)
        self._sums = np.zeros((self._folds, 2, size))
        self._pending = np.empty((self._folds, self.BLOCK_ROWS, self._d + self._k + 1))
        self._rows = np.zeros(self._folds, np.int64)
        self._arrays = _kernels.GramArrays(
            self._d, self._k, self._folds, self._sums, self._pending, self._rows, scale, offset
        )
        self._lock = threading.Lock()

    @property
    def d(self) -> int:
        """Columns of X."""
        return self._d

    @property
    def k(self) -> int:
        """Columns of Y."""
        return self._k

    @property
    def folds(self) -> int:
        """Sets of sums."""
        return self._folds

    @property
    def rows(self) -> int:
        """Rows so far."""
        return int(self._rows.sum())

    @property
    def fold_rows(self) -> Array:
        """[folds]: rows so far in each."""
        return self._rows.copy()

    def update(
        self, x: Array, y: Array | None = None, *, sample_weight: Any = None, fold: Any = None
    ) -> GramState:
        """Appends rows.

        Nothing is copied, apart from the rows of a block that is not full yet. An exception that a
        signal's handler raises, such as Ctrl-C's, ends a long call with the first rows of the batch
        appended; `rows` tells how many.

        Args:
            x: [n, d], C-contiguous, of float16, bfloat16, float32 or float64.
            y: [n, k], or [n] where k = 1; likewise, and not necessarily of x's dtype nor of the
                dtype of the batch before. None if k = 0.
            sample_weight: [n] of any of these dtypes, of either sign; None for ones.
            fold: [n] integers in [0, folds): which sums a row belongs to. None if there is one.

        Returns:
            The state itself.
        """
        x = arguments.floats(x, "x")
        if x.ndim != 2 or x.shape[1] != self._d:
            raise ValueError(f"x must be [n, {self._d}], got shape {x.shape}")
        n = len(x)
        if self._k == 0:
            if y is not None:
                raise ValueError("y must be None, as the state has k = 0")
        elif y is None:
            raise ValueError(f"y must be [{n}, {self._k}], got None")
        else:
            y = arguments.floats(y, "y")
            if y.shape != (n, self._k) and (self._k > 1 or y.shape != (n,)):
                raise ValueError(
                    f"y must be [{n}, {self._k}] for x of shape {x.shape}, got shape {y.shape}"
                )
        if sample_weight is not None:
            sample_weight = arguments.floats(sample_weight, "sample_weight")
            if sample_weight.shape != (n,):
                raise ValueError(
                    f"sample_weight must be [{n}] for x of shape {x.shape}, "
                    f"got shape {sample_weight.shape}"
                )
        if fold is not None:
            fold = arguments.integers(fold, n)
        elif self._folds > 1:
            raise ValueError(f"fold must be [{n}], as the state has folds = {self._folds}")
        with self._alone():
            self._arrays.update(x, y, sample_weight, fold, self._num_threads, self._isa)
        return self

    def merge(self, other: GramState) -> GramState:
        """Adds the rows that `other` has taken, behind those here.

        `other` has the same d, k, folds, shifts and scales, and stays as it is. The result is that
        of one pass but for rounding; its bits depend on how the rows were dealt out.

        Returns:
            The state itself.
        """
        if not isinstance(other, GramState):
            raise TypeError(f"other must be a GramState, got {type(other).__name__}")
        for name in ("d", "k", "folds", "x_shift", "y_shift", "x_scale", "y_scale"):
            mine, others = getattr(self, name), getattr(other, name)
            if not np.array_equal(mine, others):
                raise ValueError(f"other must have the same {name}: {mine}, got {others}")
        if other is self:
            other = self.from_arrays(self.to_arrays())
        with self._alone(), other._alone():
            self._arrays.merge(other._arrays, self._num_threads, self._isa)
        return self

    def result(self, folds: int | Sequence[int] | None = None) -> Gram:
        """The sums over all rows so far, or over those of some folds. The state stays as it is.

        Args:
            folds: The number of a fold, or several of them, each added as often as it is named;
                None for all.
        """
        if folds is None:
            folds = range(self._folds)
        elif np.ndim(folds) == 0:
            folds = [folds]  # type: ignore[list-item]
        numbers = [arguments.size(fold, "folds") for fold in folds]  # type: ignore[union-attr]
        if any(number >= self._folds for number in numbers):
            raise ValueError(f"folds must be numbers below {self._folds}, got {numbers}")
        with self._alone():
            sums = self._arrays.sum(numbers, self._num_threads, self._isa)
            return Gram(*sums, int(self._rows[numbers].sum()))

    def to_arrays(self) -> dict[str, Array]:
        """All of the state, for `numpy.savez` and :meth:`from_arrays`: sums and waiting rows."""
        with self._alone():
            waiting = self._rows % self.BLOCK_ROWS
            parts = [rows[:count] for rows, count in zip(self._pending, waiting, strict=True)]
            return {
                "format": np.array(_FORMAT),
                "shape": np.array([self._d, self._k, self._folds]),
                "sums": self._sums.copy(),
                "pending": np.concatenate(parts),
                "rows": self._rows.copy(),
                "x_shift": self.x_shift.copy(),
                "y_shift": self.y_shift.copy(),
                "x_scale": self.x_scale.copy(),
                "y_scale": self.y_scale.copy(),
            }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Any], *, num_threads: int | None = None, isa: str | None = None
    ) -> GramState:
        """The state that :meth:`to_arrays` was called on: it goes on to the same bits."""
        columns = ("x_shift", "y_shift", "x_scale", "y_scale")
        expected = ("format", "shape", "sums", "pending", "rows", *columns)
        missing = [name for name in expected if name not in arrays]
        if missing:
            raise ValueError(f"arrays must be those of to_arrays(); missing: {', '.join(missing)}")
        found = np.asarray(arrays["format"])
        if not np.array_equal(found, _FORMAT):
            raise ValueError(f"arrays must be of format {_FORMAT}, got {found}")
        shape = np.asarray(arrays["shape"])
        if shape.shape != (3,) or shape.dtype.kind not in "iu":
            raise ValueError(f"arrays['shape'] must be the integers [d, k, folds], got {shape!r}")
        d, k, folds = shape.tolist()
        size = _kernels.gram_sums_size(d, k, folds)
        rows = arguments.stored(arrays, "rows", np.int64, (folds,))
        if np.any(rows < 0):
            raise ValueError("arrays['rows'] must not be negative")
        if rows.sum(dtype=np.float64) > 2.0**62:
            raise ValueError("arrays['rows'] must not be more than 2**62 together")
        waiting = rows % cls.BLOCK_ROWS
        pending = arguments.stored(arrays, "pending", np.float64, (int(waiting.sum()), d + k + 1))
        sums = arguments.stored(arrays, "sums", np.float64, (folds, 2, size))
        of_columns = {name: arrays[name] for name in columns}
        state = cls(d, k, folds=folds, **of_columns, num_threads=num_threads, isa=isa)
        state._sums[:], state._rows[:] = sums, rows
        begin = 0
        for to, count in zip(state._pending, waiting.tolist(), strict=True):
            to[:count] = pending[begin : begin + count]
            begin += count
        return state

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.to_arrays(), self._num_threads, self._isa)

    def __repr__(self) -> str:
        return f"GramState(d={self._d}, k={self._k}, folds={self._folds}, rows={self.rows})"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # Work without the GIL, or a signal's handler in the middle of it.
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("this GramState is at work in another call")
        try:
            yield
        finally:
            self._lock.release()


def gram(
    x: Array,
    y: Array | None = None,
    *,
    sample_weight: Any = None,
    x_shift: Any = None,
    y_shift: Any = None,
    x_scale: Any = None,
    y_scale: Any = None,
    num_threads: int | None = None,
    isa: str | None = None,
) -> Gram:
    """XᵀX, XᵀY and their company, in float64, from one read of x and y.

    What is summed, and how, says :class:`GramState`, which is for folds and for rows that come in
    batches: the bits are the same.

    Args:
        x: [n, d], C-contiguous, of float16, bfloat16, float32 or float64.
        y: [n, k] or [n], likewise; None for a Gram matrix alone.
        sample_weight: [n] of any of these dtypes; None for ones.
        x_shift: [d], what is subtracted from the rows of x; None for zeros.
        y_shift: [k], likewise.
        x_scale: [d], powers of two; None for ones.
        y_scale: [k], likewise.
        num_threads: None for as many as the process has processors.
        isa: An instruction set of `isas`, None for the best.

    >>> import numpy as np
    >>> gram(np.float32([[1, 2], [3, 4]])).xx
    array([[10., 14.],
           [14., 20.]])
    """
    x = arguments.floats(x, "x")
    if x.ndim != 2:
        raise ValueError(f"x must be [n, d], got shape {x.shape}")
    k = 0
    if y is not None:
        y = arguments.floats(y, "y")
        if y.ndim not in (1, 2):
            raise ValueError(f"y must be [n, k] or [n], got shape {y.shape}")
        k = 1 if y.ndim == 1 else y.shape[1]
        y = y if k else None
    state = GramState(
        x.shape[1],
        k,
        x_shift=x_shift,
        y_shift=y_shift,
        x_scale=x_scale,
        y_scale=y_scale,
        num_threads=num_threads,
        isa=isa,
    )
    return state.update(x, y, sample_weight=sample_weight).result()


def _restored(arrays: dict[str, Array], num_threads: int | None, isa: str | None) -> GramState:
    return GramState.from_arrays(arrays, num_threads=num_threads, isa=isa)
