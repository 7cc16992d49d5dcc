"""What the CUDA half leaves in the libraries, and what the build says when it cannot be had."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import linreg_ops
from linreg_ops import kernels

PACKAGE = Path(linreg_ops.__file__).parent
LIBRARIES = [next(PACKAGE.glob("_kernels*.so")), PACKAGE / "_ops.so"]
needs_cuda = pytest.mark.skipif(not kernels.cuda.compiled(), reason="a build without CUDA")


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.split(".")[0])
def test_no_cuda_symbol_crosses_the_library(library):
    """TensorFlow exports stubs of CUDA's names: an undefined one would silently bind to them, and
    a defined one could be replaced by them."""
    if shutil.which("nm") is None:
        pytest.skip("there is no nm")
    symbols = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True)
    assert symbols.stdout
    assert not [s for s in symbols.stdout.splitlines() if re.search(r" _*cu(da|[A-Z])", s)]
    needed = subprocess.run(["ldd", library], capture_output=True, text=True)
    assert "cudart" not in needed.stdout


@needs_cuda
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.split(".")[0])
def test_architectures(library):
    cuobjdump = shutil.which("cuobjdump")
    if cuobjdump is None:
        pytest.skip("there is no cuobjdump")
    if os.environ.get("LINREG_OPS_CUDA_ARCHITECTURES"):
        pytest.skip("built for other architectures than the default ones")

    def listed(option):
        done = subprocess.run([cuobjdump, option, library], capture_output=True, text=True)
        return set(re.findall(r"sm_(\d+)", done.stdout))

    assert listed("--list-elf") == {"75", "80", "90"}
    assert listed("--list-ptx") == {"90"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("on", "LINREG_OPS_CUDA=on, but there is no CUDA compiler. It needs nvcc"),
        ("perhaps", "LINREG_OPS_CUDA must be auto, on or off, got 'perhaps'"),
    ],
)
def test_configuring_without_a_compiler(tmp_path, repository, choice, message):
    if shutil.which("cmake") is None or shutil.which("ninja") is None:
        pytest.skip("needs cmake and ninja")
    pybind11 = pytest.importorskip("pybind11")
    done = subprocess.run(
        [
            "cmake",
            "-GNinja",
            f"-S{repository}",
            f"-B{tmp_path}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DLINREG_OPS_CUDA={choice}",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDACXX": "/nonexistent/nvcc"},
    )
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())
