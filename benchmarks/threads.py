"""The same bits for any number of threads and on every instruction set; the speed of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from .measure import interleave
from .results import Row

if TYPE_CHECKING:
    from .harness import Session

DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
SHAPES = ((1_000_003, 1), (500_001, 3), (200_001, 17), (30_001, 100), (4_001, 1000), (77, 40_000))
TARGETS = (1, 3, 8, 32)


def suite(s: Session) -> Iterator[Row]:
    """One row a shape and dtype: every ISA with one thread and with all, and their digests."""
    from linreg_ops import kernels

    isas = [name for name, supported in kernels.isas().items() if supported]
    counts = sorted({1, 2, s.threads})
    for dtype in DTYPES if s.is_full else (np.float32,):
        for n, d in SHAPES if s.is_full else ((50_001, 17),):
            for k in TARGETS if s.is_full else (1, 3):
                shrunk = max(1, n // (1 if k == 1 else k))
                problem = s.arena.problem(shrunk, d, k, dtype, intercept=k == 3)
                calls, digests = {}, {}
                failures: dict[str, str] = {}
                for isa in isas:
                    for count in counts:
                        call = partial(
                            kernels.loss_and_grad,
                            problem.x,
                            problem.w,
                            problem.y,
                            intercept=problem.intercept,
                            num_threads=count,
                            isa=isa,
                        )
                        name = f"linreg_ops {isa}, {count} thread{'s' * (count > 1)}"
                        try:
                            digests[name] = _digest(call())
                        except RuntimeError as failure:
                            failures[name] = str(failure)
                            continue
                        calls[name] = call
                if not calls:
                    continue
                with s.turn.case():
                    times = interleave(
                        calls,
                        s.clocks(problem),
                        seconds=s.mode.seconds / 10,
                        rounds=s.mode.rounds,
                    )
                yield Row(
                    case={"n": shrunk, "d": d, "k": k, "dtype": np.dtype(dtype).name},
                    bytes=problem.bytes,
                    x_bytes=problem.x.nbytes,
                    read_bytes=problem.span.nbytes,
                    flops=problem.flops,
                    times=times,
                    failures=failures,
                    extra={"digests": digests},
                )


def _digest(out: tuple[Any, Any]) -> str:
    raw = b"".join(np.ascontiguousarray(part).tobytes() for part in out)
    return hashlib.sha256(raw).hexdigest()[:16]
