"""The kernels beside those of another build, on the same arrays in the same rounds.

`python -m benchmarks --against PATH`, where PATH is the folder of another checkout that was built
in place, or of another environment's site-packages: what holds linreg_ops/_kernels*.so. A ratio
above 1 says that this build is faster. Medians are what users feel; on a machine that others use
too, the ratio of the lower quartiles is steadier.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from linreg_ops import _kernels, kernels

from .measure import SAMPLE, interleave

# (d, k): every route, and both sides of every limit between routes and unrolls.
SHAPES = [(d, 1) for d in (1, 2, 3, 5, 8, 13, 16, 17, 31, 64, 100, 300, 1000, 4096)]
SHAPES += [(d, k) for k in (2, 3, 4, 8) for d in (2, 5, 8, 16, 64, 300, 1000, 4096)]
SHAPES += [(d, k) for k in (16, 64, 256) for d in (16, 64, 300, 1000)]
DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
CACHED = 600 << 10  # bytes of X that most L2 caches hold
LIMIT = 0.97


def load(folder: Path) -> ModuleType:
    """The extension module of a build."""
    found = [*folder.glob("linreg_ops/_kernels*.so"), *folder.glob("_kernels*.so")]
    if not found:
        raise FileNotFoundError(f"no linreg_ops/_kernels*.so in {folder}")
    loader = importlib.machinery.ExtensionFileLoader("_kernels", str(found[0]))
    spec = importlib.util.spec_from_loader("_kernels", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Build:
    """The kernels of one build, in a process of their own: two builds of a library share a name."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.against", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> float:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a build's process ended with {self.process.wait()}")
        return float(answer)

    def close(self) -> None:
        self.process.communicate()


def serve(module: ModuleType) -> None:
    """Answers each request, a problem or nothing for the one before, with a call's seconds."""
    call: Callable[[], Any] = int
    inner = 1
    for line in sys.stdin:
        if request := json.loads(line):
            n, d, k, threads = (request[name] for name in ("n", "d", "k", "threads"))
            rng = np.random.default_rng(d + k)
            x, w, y = (
                rng.standard_normal(shape).astype(request["dtype"])
                for shape in ((n, d), (d, k) if k > 1 else d, (n, k) if k > 1 else n)
            )
            call = partial(module.loss_and_grad, x, w, y, num_threads=threads)
            inner = max(1, round(SAMPLE / min(sample(call, 1) for _ in range(4))))
        if inner > 1:
            sample(call, inner)  # code comes back into the caches
        print(sample(call, inner), flush=True)


def sample(call: Callable[[], Any], inner: int) -> float:
    """Seconds a call."""
    start = time.perf_counter()
    for _ in repeat(None, inner):
        call()
    return (time.perf_counter() - start) / inner


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


if __name__ == "__main__":
    serve(load(Path(sys.argv[1])))
