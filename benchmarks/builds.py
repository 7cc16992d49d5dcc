"""The kernels of one build, in a process of their own: `python -m benchmarks.builds FOLDER` serves.

That process must import nothing of linreg_ops: its library of kernels would serve every build.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import repeat
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .measure import SAMPLE
from .problem import Arena

RESERVE = 256 << 20  # bytes: for X and Y of every row


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
    _check_libraries(folder)
    return module


def _check_libraries(folder: Path) -> None:
    """A library that is loaded already serves a second build that names it, without a word."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.split(maxsplit=5)[-1])
        if path.name.startswith("liblinreg_ops") and not path.is_relative_to(folder.resolve()):
            raise RuntimeError(f"{path} is loaded, which is not of {folder}")


class Build:
    """The kernels of one build, in a process of their own: two builds of a library share a name."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.builds", str(folder.resolve())],
            cwd=Path(__file__).resolve().parent.parent,  # where `benchmarks` is found
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> float:
        assert self.process.stdin
        assert self.process.stdout
        with suppress(BrokenPipeError):  # it has ended, and said why
            print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            self.close()
            raise RuntimeError(f"a build's process ended with {self.process.returncode}")
        return float(answer)

    def close(self) -> None:
        self.process.communicate()


def serve(module: ModuleType) -> None:
    """Answers each request, a problem or nothing for the one before, with a call's seconds."""
    arena = Arena(reserve=RESERVE)
    call: Callable[[], Any] = int
    inner = 1
    for line in sys.stdin:
        if request := json.loads(line):
            n, d, k, dtype = (request[name] for name in ("n", "d", "k", "dtype"))
            # Cut from one buffer: pages of their own fall on other sets of the caches in each
            # process, and the same kernels take 0.7 to 1.4 times as long.
            p = arena.problem(n, d, k, np.dtype(dtype))
            call = partial(module.loss_and_grad, p.x, p.w, p.y, num_threads=request["threads"])
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


if __name__ == "__main__":
    serve(load(Path(sys.argv[1])))
