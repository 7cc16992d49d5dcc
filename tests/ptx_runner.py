"""Builds tests/cpp/ptx_runner/: the CUDA kernels as nvcc compiles them, run on the CPU."""

import fcntl
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
RUNNER = ROOT / "tests/cpp/ptx_runner"
KERNELS = sorted((ROOT / "csrc/kernels/cuda").glob("*.cu"))
HOST = [
    ROOT / "csrc/host/gpu_memory.cc",
    ROOT / "csrc/kernels/cuda/plan.cc",
    ROOT / "csrc/kernels/l2_loss_grad.cc",
    *(f for f in sorted(RUNNER.glob("*.cc")) if f.name != "module.cc"),
]
MODULE = [
    ROOT / "csrc/python/borrowed_array.cc",
    ROOT / "csrc/python/cuda_arrays.cc",
    ROOT / "csrc/python/without_gil.cc",
    RUNNER / "module.cc",
]
PROGRAMS = ["cuda_random_test", "cuda_calls_test"]
# The oldest and the newest that is shipped. What differs is whether copies are asynchronous, and
# how a number becomes bfloat16: of float16, whose translation takes the longest, the newest one's
# code stands for both.
ARCHITECTURES = (75, 90)
NEWEST_ONLY = {"fused_float16"}


class Device(NamedTuple):
    """A GPU's figures, and the architecture of the code that it runs."""

    name: str
    compute_capability: int
    architecture: int
    multiprocessors: int
    shared_per_block: int
    shared_per_multiprocessor: int


# Few multiprocessors: several rounds of rows a block from small arrays. An H100 has 132.
DEVICES = {
    d.name: d
    for d in (
        Device("sm_90", 90, 90, 3, 232448, 233472),
        Device("sm_90 of 5", 90, 90, 5, 232448, 233472),
        Device("sm_90 of 132", 90, 90, 132, 232448, 233472),
        Device("sm_86", 86, 75, 5, 101376, 102400),
        Device("sm_80", 80, 75, 5, 166912, 167936),
        Device("sm_75", 75, 75, 5, 65536, 65536),
    )
}


class Built(NamedTuple):
    """The Python module, and a folder with the test programs and, by architecture, PTX."""

    module: Path
    folder: Path

    def ptx(self, architecture: int) -> Path:
        return self.folder / f"ptx_{architecture}"


def digest_of_sources() -> str:
    digest = hashlib.sha256(sysconfig.get_path("include").encode())
    folders = ["csrc/host", "csrc/kernels", "csrc/python", "tests/cpp"]
    for source in sorted(f for folder in folders for f in (ROOT / folder).rglob("*.*")):
        if "kernels/cpu" not in source.as_posix():
            digest.update(source.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:16]


def build(cache: Path) -> Built:
    """The runner, from `cache` if the sources are the same; built by one process, others wait."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    with open(cache.parent / f"{cache.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(cache)


def _build(cache: Path) -> Built:
    nvcc = shutil.which("nvcc")
    if nvcc is None or shutil.which("g++") is None or importlib.util.find_spec("pybind11") is None:
        pytest.skip("running the compiled CUDA kernels needs nvcc, g++ and pybind11")
    import pybind11

    folder = cache / digest_of_sources()
    result = Built(folder / f"_ptx_runner{sysconfig.get_config_var('EXT_SUFFIX')}", folder)
    if (folder / "complete").exists():
        return result
    shutil.rmtree(cache, ignore_errors=True)
    for architecture in ARCHITECTURES:
        result.ptx(architecture).mkdir(parents=True)
    flags = [
        "-std=c++17",
        "-O2",
        "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra",
        f"-I{ROOT}/csrc",
        f"-I{RUNNER}",
        f"-isystem={pybind11.get_include()}",
        f"-isystem={sysconfig.get_path('include')}",
    ]

    def run(*command: str | Path) -> None:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    def compiled(source: Path) -> Path:
        output = folder / f"{source.name}.o"
        # The binding is Python's wrapping of a few calls; the runner is what takes the time.
        level = ["-Xcompiler=-O0"] if source in MODULE else []
        run(nvcc, *flags, *level, "-c", source, "-o", output)
        return output

    def translated(source: Path) -> Path:
        """The host's half, and PTX on the way; no machine code, which would not be run."""
        output, kept = folder / f"{source.name}.o", folder / f"kept_{source.stem}"
        kept.mkdir()
        architectures = ARCHITECTURES[-1:] if source.stem in NEWEST_ONLY else ARCHITECTURES
        kinds = [f"-gencode=arch=compute_{a},code=compute_{a}" for a in architectures]
        keep = ["--keep", f"--keep-dir={kept}"]
        # The host's half only launches: to optimise it takes longer than it runs.
        run(nvcc, *flags, "-Xcompiler=-O0", "-DNDEBUG", *kinds, *keep, "-c", source, "-o", output)
        for architecture in architectures:
            name = (
                f"{source.stem}.compute_{architecture}" if len(architectures) > 1 else source.stem
            )
            (kept / f"{name}.ptx").rename(result.ptx(architecture) / f"{source.stem}.ptx")
        for architecture in set(ARCHITECTURES) - set(architectures):
            newest = result.ptx(ARCHITECTURES[-1]) / f"{source.stem}.ptx"
            shutil.copy(newest, result.ptx(architecture))
        shutil.rmtree(kept)
        return output

    mains = [ROOT / f"tests/cpp/{name}.cc" for name in PROGRAMS]
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(translated, source) for source in KERNELS]
        host, binding, programs = (
            list(pool.map(compiled, group)) for group in (HOST, MODULE, mains)
        )
        kernels = [each.result() for each in slow]
    for name, program in zip(PROGRAMS, programs, strict=True):
        run("g++", *kernels, *host, program, "-o", folder / name)
    # TensorFlow exports a CUDA runtime too, which answers every call with an error here.
    own = "-Wl,-Bsymbolic"
    run("g++", "-shared", own, *kernels, *host, *binding, "-o", result.module)
    (folder / "complete").touch()
    return result


@functools.cache
def load(module: Path) -> ModuleType:
    """The runner's Python module."""
    spec = importlib.util.spec_from_file_location("_ptx_runner", module)
    assert spec is not None
    assert spec.loader is not None
    result = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(result)
    return result


def become(module: ModuleType, built: Built, device: Device, seed: int = 0) -> None:
    """Makes the machine this device, with its threads in the order of `seed`."""
    machine = module.machine()
    machine.ordinal = list(DEVICES.values()).index(device)
    machine.compute_capability = device.compute_capability
    machine.multiprocessors = device.multiprocessors
    machine.shared_per_block = device.shared_per_block
    machine.shared_per_multiprocessor = device.shared_per_multiprocessor
    machine.ptx_folder = str(built.ptx(device.architecture))
    machine.seed = seed
