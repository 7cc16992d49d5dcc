"""The kernels beside those of another build, on the same arrays in the same rounds.

`python -m benchmarks --against PATH`, where PATH is the folder of another checkout that was built
in place, or of another environment's site-packages: what holds linreg_ops/_kernels*.so. A ratio
above 1 says that this build is faster. Medians are what users feel; on a machine that others use
too, the ratio of the lower quartiles is steadier.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from linreg_ops import _kernels, kernels

from .builds import Build
from .measure import interleave

# (d, k): every route, and both sides of every limit between routes and unrolls.
SHAPES = [(d, 1) for d in (1, 2, 3, 5, 8, 13, 16, 17, 31, 64, 100, 300, 1000, 4096)]
SHAPES += [(d, k) for k in (2, 3, 4, 8) for d in (2, 5, 8, 16, 64, 300, 1000, 4096)]
SHAPES += [(d, k) for k in (16, 64, 256) for d in (16, 64, 300, 1000)]
DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
CACHED = 600 << 10  # bytes of X that most L2 caches hold
LIMIT = 0.97


def compare(
    builds: dict[str, Build], dtype: Any, d: int, k: int, x_bytes: int, threads: int, seconds: float
) -> tuple[str, float, float, float]:
    """The route, this build's median in seconds, and the other's times over this one's."""
    name = np.dtype(dtype).name
    n = max(1, x_bytes // (d * np.dtype(dtype).itemsize))
    for build in builds.values():
        build.ask(n=n, d=d, k=k, dtype=name, threads=threads)
    clocks = {which: build.ask for which, build in builds.items()}
    times = interleave({}, clocks, seconds=seconds, rounds=5)
    this, before = times["this"], times["other"]
    route = kernels.plan(n, d, k, dtype, num_threads=threads).route
    assert this.q1 is not None
    assert before.q1 is not None
    return route, this.median, before.median / this.median, before.q1 / this.q1


def run(folder: Path, *, seconds: float, large: int, threads: int) -> list[str]:
    """Prints a line for each row, and returns the rows that are slower than LIMIT."""
    here = Path(_kernels.__file__).parent
    builds, slower = {"this": Build(here), "other": Build(folder)}, []
    print(f"{'dtype':9} {'d':>5} {'k':>4} {'MB':>6}  {'route':18} {'us':>9}  median  quartile")
    for x_bytes in (CACHED, large):
        for dtype in DTYPES:
            for d, k in SHAPES:
                row = f"{np.dtype(dtype).name:9} {d:5} {k:4} {x_bytes / 1e6:6.1f}"
                route, time, median, quartile = compare(
                    builds, dtype, d, k, x_bytes, threads, seconds
                )
                row += f"  {route:18} {time * 1e6:9.1f}  {median:6.2f}  {quartile:8.2f}"
                slow = max(median, quartile) < LIMIT
                print(row + ("  slower" if slow else ""), flush=True)
                if slow:
                    slower.append(row)
    for build in builds.values():
        build.close()
    print(f"{len(slower)} rows below {LIMIT}")
    return slower
