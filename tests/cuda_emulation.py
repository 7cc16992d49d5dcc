"""Builds tests/cpp/cuda_emulation/: the CUDA kernels compiled as plain C++, once per change."""

import functools
import hashlib
import importlib.util
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
KERNELS = [
    *sorted((ROOT / "csrc/kernels/cuda").glob("*.cu")),
    ROOT / "csrc/kernels/cuda/plan.cc",
    ROOT / "csrc/kernels/l2_loss_grad.cc",
    ROOT / "tests/cpp/cuda_emulation/emulation.cc",
]
MODULE = [
    ROOT / "csrc/python/borrowed_array.cc",
    ROOT / "csrc/python/cuda_arrays.cc",
    ROOT / "tests/cpp/cuda_emulation/module.cc",
]
PROGRAMS = ["cuda_emulated_test", "cuda_calls_test"]


class Emulation(NamedTuple):
    """The Python module, and the folder of the stand-alone test programs."""

    module: Path
    programs: Path


def build(cache: Path) -> Emulation:
    """The emulation, from `cache` if the sources are the same."""
    compiler = shutil.which("g++")
    pybind11 = importlib.util.find_spec("pybind11")
    if compiler is None or pybind11 is None:
        pytest.skip("the emulation of the CUDA kernels needs g++ and pybind11 to be built")
    import pybind11

    digest = hashlib.sha256(
        " ".join([pybind11.__version__, sysconfig.get_path("include")]).encode()
    )
    folders = ["csrc/kernels", "csrc/python", "tests/cpp"]
    for source in sorted(f for folder in folders for f in (ROOT / folder).rglob("*.*")):
        digest.update(source.read_bytes())
    folder = cache / digest.hexdigest()[:16]
    module = folder / f"_cuda_emulated{sysconfig.get_config_var('EXT_SUFFIX')}"
    result = Emulation(module, folder)
    if module.exists() and all((folder / name).exists() for name in PROGRAMS):
        return result
    folder.mkdir(parents=True, exist_ok=True)
    flags = [
        "-std=c++17",
        "-O1",
        "-fPIC",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unknown-pragmas",  # unroll
        "-Wno-sign-compare",  # blockIdx and its like are unsigned
        f"-I{ROOT}/tests/cpp/cuda_emulation",  # first: it replaces headers of the next
        f"-I{ROOT}/csrc",
        f"-isystem{pybind11.get_include()}",
        f"-isystem{sysconfig.get_path('include')}",
    ]

    def run(*command: str | Path) -> None:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]

    def compiled(source: Path) -> Path:
        result = folder / f"{source.name}.o"
        run(compiler, *flags, "-x", "c++", "-c", source, "-o", result)
        return result

    with ThreadPoolExecutor(2) as pool:
        mains = [ROOT / f"tests/cpp/{name}.cc" for name in PROGRAMS]
        kernels, binding, programs = (
            list(objects)
            for objects in [pool.map(compiled, group) for group in (KERNELS, MODULE, mains)]
        )
    for name, program in zip(PROGRAMS, programs, strict=True):
        run(compiler, *kernels, program, "-o", folder / name)
    run(compiler, "-shared", *kernels, *binding, "-o", module)
    return result


@functools.cache
def load(module: Path) -> ModuleType:
    """The emulation's Python module."""
    spec = importlib.util.spec_from_file_location("_cuda_emulated", module)
    assert spec is not None
    assert spec.loader is not None
    result = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(result)
    return result
