"""The machine: what it is, and what it can do at best, measured by straight-line C++."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "tensorflow", "keras", "numpy", "scipy", "scikit-learn", "himalaya", "torch", "jax", "jaxlib",
)  # fmt: skip


def threads_available() -> int:
    return len(os.sched_getaffinity(0))


def describe(threads: int) -> dict[str, Any]:
    """What the figures depend on. Every value is plain JSON."""
    from threadpoolctl import threadpool_info

    from linreg_ops import _kernels

    config = _kernels.build_config()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        **commit(),
        "threads": threads,
        "cpu": _cpu_name(),
        "cores": threads_available(),
        "load": round(os.getloadavg()[1], 1),
        "caches": _caches(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release().split("-")[0],
        "transparent_hugepage": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "pools": sorted(
            f"{p['internal_api']} {p['version']}, {p['num_threads']} threads"
            for p in threadpool_info()
        ),
        "isa": _kernels.active_isa(),
        "compiler": config["compiler"],
        "versions": {"python": platform.python_version(), "linreg_ops": config["version"]}
        | {name: v for name in PACKAGES if (v := version(name))},
    }


class Peaks:
    """Read bandwidth and multiply-add rate, by the functions of native/peaks.cc."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._native = _load()
        names = [self._native.read_variant_name(i) for i in range(self._native.read_variants())]
        self.variants = {name.decode(): i for i, name in enumerate(names)}

    def readers(self, x: np.ndarray, passes: int = 1, only: list[str] | None = None) -> Any:
        """Calls that each read all of x once, `passes` times over, and return seconds a pass."""

        def read(variant: int) -> float:
            return float(
                self._native.read_seconds(x.ctypes.data, x.nbytes, passes, self.threads, variant)
                / passes
            )

        return {name: partial(read, self.variants[name]) for name in only or self.variants}

    def best_readers(self, x: np.ndarray, count: int = 3) -> list[str]:
        """The fastest ways of walking memory here, each by the median of seven reads of x."""
        median = {n: np.median([read() for _ in range(7)]) for n, read in self.readers(x).items()}
        return sorted(median, key=lambda name: float(median[name]))[:count]

    def multiply_add(self, dtype: np.dtype[Any]) -> Any:
        """A call that returns seconds a flop, from about two milliseconds of multiply-adds."""
        is_double = int(dtype == np.float64)
        flops = 2 * self.threads * self._native.multiply_adds_per_round(is_double)
        rounds = 250_000

        def run() -> float:
            seconds = self._native.multiply_add_seconds(is_double, rounds, self.threads)
            return float(seconds / (rounds * flops))

        return run


def _load() -> ctypes.CDLL:
    """Compiles native/peaks.cc for this very machine, once per source and compiler."""
    source = Path(__file__).parent / "native" / "peaks.cc"
    compiler = os.environ.get("CXX") or shutil.which("c++") or "g++"
    flags = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
    key = hashlib.sha256(source.read_bytes() + repr((compiler, flags, _cpu_name())).encode())
    library = ROOT / "build" / "benchmarks" / f"peaks-{key.hexdigest()[:12]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, *flags, "-pthread", source, "-o", library], check=True)
    native = ctypes.CDLL(str(library))
    native.read_variant_name.restype = ctypes.c_char_p
    native.read_seconds.restype = native.multiply_add_seconds.restype = ctypes.c_double
    native.read_seconds.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
    ]
    native.multiply_add_seconds.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int]
    return native


def commit() -> dict[str, Any]:
    """The last commit that changed what is measured, and whether the code differs from it."""
    measured = ("csrc", "linreg_ops", "CMakeLists.txt")

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", ROOT, *arguments, "--", *measured],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        last = git("log", "-1", "--format=%h", "--abbrev=10")
        return {"commit": last, "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": True}


def _cpu_name() -> str:
    fields = {}
    for line in _read("/proc/cpuinfo").split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    name = fields.get("model name", platform.machine())
    return f"{name}, family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"


def _caches() -> dict[str, str]:
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if _read(index / "type") != "Instruction":
            sizes[f"L{_read(index / 'level')}"] = _read(index / "size")
    return sizes


def last_level_cache_bytes() -> int:
    size = list(_caches().values() or ["32768K"])[-1]
    return int(size[:-1]) * {"K": 1024, "M": 1024**2, "G": 1024**3}[size[-1]]


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
