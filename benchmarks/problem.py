"""The arrays that everyone gets, and the truth about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from .results import Error

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Problem:
    """L2 loss and gradient of x w - y; rank-1 w and y for one target."""

    x: Array
    w: Array
    y: Array
    sample_weight: Array | None = None
    intercept: bool = False

    @property
    def k(self) -> int:
        return 1 if self.w.ndim == 1 else self.w.shape[1]

    @property
    def bytes(self) -> int:
        s = self.sample_weight
        return int(self.x.nbytes + self.y.nbytes + (0 if s is None else s.nbytes))

    @property
    def span(self) -> Array:
        """Everything from x's first byte to the last array's end, where they lie side by side."""
        last = self.y if self.sample_weight is None else self.sample_weight
        start, end = self.x.ctypes.data, last.ctypes.data + last.nbytes
        if not 0 <= end - start - self.bytes <= 3 * 64:
            return self.x
        return np.lib.stride_tricks.as_strided(
            self.x.reshape(-1).view(np.uint8), (end - start,), (1,), writeable=False
        )

    @property
    def flops(self) -> float:
        return float(4 * self.x.shape[0] * self.w.shape[0] * self.k)

    def columns(self) -> tuple[Array, Array, Array | None]:
        """w [d, k], y [n, k] and the sample weights [n, 1]: views for those who want matrices."""
        s = self.sample_weight
        k = self.k
        return self.w.reshape(-1, k), self.y.reshape(-1, k), None if s is None else s[:, None]


class Arena:
    """Problems cut from the same pages: x, y and sample weights one after the other.

    So no row pays for memory that is touched first, and a straight-line read of `span` reads what
    the row's problem reads, in the same place. The pages are NumPy's: huge ones where the system
    allows it on request.
    """

    def __init__(self, reserve: int = 0, seed: int = 0) -> None:
        self._reserve = reserve  # bytes of the first buffer of a type: one that need not grow
        self._rng = np.random.default_rng(seed)
        self._buffers: dict[str, Array] = {}

    def problem(
        self,
        n: int,
        d: int,
        k: int = 1,
        dtype: Any = np.float32,
        w_dtype: Any = None,
        *,
        intercept: bool = False,
        sample_weight: bool = False,
    ) -> Problem:
        w_dtype = np.dtype(dtype if w_dtype is None else w_dtype)
        one = k == 1
        w = self._rng.standard_normal((d + intercept, k)) / np.sqrt(max(d, 1))
        sizes = [n * d] * (w_dtype == dtype) + [n * k] + [n] * sample_weight
        parts = self._cut(w_dtype, sizes)
        x = parts.pop(0) if w_dtype == dtype else self._cut(np.dtype(dtype), [n * d])[0]
        y = parts.pop(0)
        return Problem(
            x=x.reshape(n, d),
            w=(w[:, 0] if one else w).astype(w_dtype),
            y=y.reshape((n,) if one else (n, k)),
            sample_weight=np.abs(parts[0], out=parts[0]) if sample_weight else None,
            intercept=intercept,
        )

    def _cut(self, dtype: np.dtype[Any], sizes: list[int]) -> list[Array]:
        """Parts of those sizes, each at the start of a cache line: frameworks copy others."""
        line = 64 // dtype.itemsize
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // line) * line)
        buffer = self._buffers.get(dtype.name)
        if buffer is None or buffer.size < starts[-1]:
            self._buffers.pop(dtype.name, None)
            del buffer
            buffer = self._buffers[dtype.name] = aligned(
                max(starts[-1], self._reserve // dtype.itemsize), dtype
            )
            self._fill(buffer)
        return [buffer[start : start + size] for start, size in zip(starts, sizes, strict=False)]

    def _fill(self, buffer: Array) -> None:
        for part in _parts(len(buffer), 1):
            count = part.stop - part.start
            buffer[part] = self._rng.standard_normal(count, np.float32)
            if buffer.dtype == np.float64:  # the digits that a float32 lacks
                buffer[part] *= 1 + 1e-7 * self._rng.random(count)


def aligned(count: int, dtype: Any) -> Array:
    """An uninitialised array that starts at a cache line: frameworks copy one that does not."""
    size = count * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype)


def truth(problem: Problem) -> tuple[Any, Array] | None:
    """Loss and gradient in a wider type: float64 for up to float32, else long double.

    None where long double would take many seconds, or the result's type cannot hold the loss.
    """
    w, y, s = problem.columns()
    n, d = problem.x.shape
    double = problem.w.dtype == np.float64
    if double and n * d * problem.k > 5e8:
        return None
    wide = np.longdouble if double else np.float64
    w = w.astype(wide)
    b, w = (w[:1], w[1:]) if problem.intercept else (0, w)
    loss, grad, bias = wide(0), np.zeros_like(w), np.zeros((1, problem.k), wide)
    for part in _parts(n, d + problem.k):
        x = problem.x[part].astype(wide)
        r = x @ w + b - y[part].astype(wide)
        sr = r if s is None else s[part].astype(wide) * r
        loss += (sr * r).sum() / 2
        grad += x.T @ sr
        bias += sr.sum(0)
    largest = ml_dtypes.finfo(problem.w.dtype).max  # type: ignore[no-untyped-call]
    if float(loss) > float(largest):
        return None
    full = np.concatenate([bias, grad]) if problem.intercept else grad
    return loss, full.reshape(problem.w.shape)


def error(got: tuple[Any, Any], true: tuple[Any, Array]) -> Error:
    """Relative to the truth: |loss - loss*| / |loss*|, and the same in the gradient's 2-norm."""
    loss, grad = np.longdouble(got[0]), np.asarray(got[1]).astype(np.longdouble)
    scale = np.sqrt((true[1].astype(np.longdouble) ** 2).sum())
    off = np.sqrt(((grad.reshape(true[1].shape) - true[1]) ** 2).sum())
    return Error(
        loss=float(f"{abs(loss - true[0]) / max(abs(true[0]), 1e-300):.2e}"),
        grad=float(f"{off / max(scale, 1e-300):.2e}"),
    )


def _parts(n: int, width: int) -> Iterator[slice]:
    """Rows in parts of at most a million numbers."""
    step = max(1, (1 << 20) // max(width, 1))
    return (slice(i, min(i + step, n)) for i in range(0, n, step))
