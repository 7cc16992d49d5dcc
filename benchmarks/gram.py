"""XᵀX and XᵀY in float64 from one read, beside OpenBLAS's products of the same arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from .measure import interleave
from .problem import Problem
from .results import KERNELS, Error, Row

if TYPE_CHECKING:
    from .harness import Session

# [d, k, dtype]: read-bound, between, and arithmetic-bound; the last is a linear probe's.
CASES: tuple[tuple[int, int, Any], ...] = (
    (1, 1, np.float64),
    (4, 1, np.float32),
    (8, 1, np.float64),
    (16, 1, np.float32),
    (32, 1, np.float64),
    (64, 1, np.float64),
    (128, 1, np.float32),
    (256, 1, np.float64),
    (256, 1, np.float32),
    (1000, 1, np.float64),
    (768, 1000, np.float16),
)


def suite(s: Session) -> Iterator[Row]:
    """How near to reading X and y once, or to the peak of float64 multiply-adds, the engine is.

    One half of XᵀX takes n·d·(d + 1) flops, and XᵀY 2·n·d·k; `Row.floor` is the slower of the two.
    """
    for d, k, dtype in CASES if s.is_full else CASES[2::5]:
        flops = d * (d + 1) + 2 * d * k
        n = max(1024, min(s.rows_for(d, k, np.dtype(dtype).itemsize), int(1.5e10 / flops)))
        yield _row(s, s.arena.problem(n, d, k, dtype), float(n * flops))


def _row(s: Session, p: Problem, flops: float) -> Row:
    y = p.y.reshape(len(p.y), -1)
    true = _numpy_float64(p.x, y)()
    calls = {KERNELS: _ours(p.x, y, s.threads), "NumPy float64": _numpy_float64(p.x, y)}
    errors = {name: _error(call(), true) for name, call in calls.items()}
    with s.turn.case(), threadpool_limits(s.threads, "blas"):
        clocks = s.clocks(p) | {"fma float64": s.peaks.multiply_add(np.dtype(np.float64))}
        times = interleave(calls, clocks, seconds=2 * s.mode.seconds, rounds=s.mode.rounds)
    n, d = p.x.shape
    return Row(
        case={"n": n, "d": d, "k": p.k, "dtype": p.x.dtype.name},
        bytes=p.bytes,
        x_bytes=p.x.nbytes,
        read_bytes=p.span.nbytes,
        flops=flops,
        times=times,
        errors=errors,
    )


def _ours(x: Any, y: Any, threads: int) -> Callable[[], Any]:
    from linreg_ops import kernels

    def call() -> Any:
        gram = kernels.gram(x, y, num_threads=threads)
        return gram.xx, gram.xy

    return call


def _numpy_float64(x: Any, y: Any) -> Callable[[], Any]:
    """OpenBLAS's dsyrk and dgemm; of narrower types, on copies of some rows after the other."""
    if x.dtype == np.float64:
        return lambda: (x.T @ x, x.T @ y)
    rows = max(256, 2**20 // x.shape[1])

    def call() -> Any:
        xx, xy = np.zeros((x.shape[1],) * 2), np.zeros((x.shape[1], y.shape[1]))
        for begin in range(0, len(x), rows):
            a = x[begin : begin + rows].astype(np.float64)
            xx += a.T @ a
            xy += a.T @ y[begin : begin + rows].astype(np.float64)
        return xx, xy

    return call


def _error(found: Any, true: Any) -> Error:
    """XᵀX in `loss` and XᵀY in `grad`, both against OpenBLAS's: a check, and no ranking."""
    xx, xy = (
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, true, strict=True)
    )
    return Error(xx, xy)
