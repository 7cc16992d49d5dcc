"""A file of 10 GB: rows and bytes a second, memory beside the file's cache, killed and resumed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .measure import timing
from .results import OURS, Row

if TYPE_CHECKING:
    from .harness import Session

TARGETS = 8
# What a user would write. Each run is a process of its own, as one that is killed has to be.
FIT = """
import hashlib, json, os, sys, time
import numpy as np, linreg_ops as lo
start = time.perf_counter()
model = lo.RidgeCV(np.logspace(-2, 5, 20), cv=5, alpha_per_target=True)
model.fit_dataset("x.npy", "y.npy", checkpoint=sys.argv[1] or None, checkpoint_seconds=5.0)
seconds = time.perf_counter() - start
bits = hashlib.sha256(model.coef_.tobytes() + model.scores_.tobytes()).hexdigest()
print(json.dumps({"seconds": seconds, "bits": bits, "rows": model.state_.n_rows}))
"""


def suite(s: Session) -> Iterator[Row]:
    """RidgeCV by 5 folds from an .npy file of float16, as far as the disk has room."""
    size = {"full": 10e9, "quick": 1e9}.get(s.mode.name, 1e6)
    d = 256
    n = int(size / (2 * d))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 2 * size:
            raise RuntimeError(f"{folder} needs {2 * size / 1e9:.0f} GB free")
        _write(folder, n, d)
        with s.turn.case():
            yield _row(folder, n, d)


def _write(folder: Path, n: int, d: int) -> None:
    rng = np.random.default_rng(5)
    w = rng.standard_normal((d, TARGETS), np.float32)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float16, (n, d))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.float32, (n, TARGETS))
    for rows in (slice(i, i + 2**16) for i in range(0, n, 2**16)):
        part = rng.standard_normal((len(x[rows]), d), np.float32)
        x[rows] = part
        y[rows] = part @ w + rng.standard_normal((len(part), TARGETS), np.float32)
    x.flush()
    y.flush()


def _row(folder: Path, n: int, d: int) -> Row:
    whole, grown = _run(folder)
    killed_after = _kill(folder, 0.5 * whole["seconds"])
    resumed, _ = _run(folder, "state.npz")
    x_bytes = 2 * n * d
    return Row(
        case={"n": n, "d": d, "k": TARGETS, "dtype": "float16", "what": "a file"},
        bytes=x_bytes + 4 * n * TARGETS,
        x_bytes=x_bytes,
        read_bytes=x_bytes,
        flops=float(n) * d * (d + 1 + 2 * TARGETS),
        times={
            f"{OURS} RidgeCV.fit_dataset": timing([whole["seconds"]]),
            f"{OURS} the rest, after SIGKILL": timing([resumed["seconds"]]),
        },
        extra={
            "anonymous_bytes": grown,
            "killed_after_seconds": killed_after,
            "same_bits": whole["bits"] == resumed["bits"] and whole["rows"] == n,
        },
    )


def _run(folder: Path, checkpoint: str = "") -> tuple[dict[str, Any], int]:
    """What a run prints, and the most memory it had that is not a file's."""
    most = 0
    with _start(folder, checkpoint) as process:
        while process.poll() is None:
            most = max(most, _anonymous(process.pid))
            time.sleep(0.05)
        assert process.stdout
        printed = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"the run ended with {process.returncode}")
    found: dict[str, Any] = json.loads(printed)
    return found, most


def _kill(folder: Path, seconds: float) -> float | None:
    """After so long, and the first checkpoint; None if the run was faster."""
    start = time.perf_counter()
    with _start(folder, "state.npz") as process:
        while time.perf_counter() < start + seconds or not (folder / "state.npz").exists():
            if process.poll() is not None:
                return None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    return round(time.perf_counter() - start, 1)


def _start(folder: Path, checkpoint: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FIT, checkpoint]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def _anonymous(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
