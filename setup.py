"""Drives CMake; everything else about the package is in pyproject.toml."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "cmake"))
import find_tensorflow  # noqa: E402


def tensorflow_requirement():
    """The TensorFlow to run with: the minor versions that op libraries are built for."""
    try:
        return find_tensorflow.requirement(find_tensorflow.find_all())
    except LookupError as error:
        # An sdist compiles nothing, and installs nowhere without a build.
        if {"sdist", "egg_info", "dist_info"} & set(sys.argv):
            return find_tensorflow.SUPPORTED
        sys.exit(f"error: {error}")


class CMakeBuild(build_ext):
    """One CMake build makes every library."""

    def run(self):
        ninja = shutil.which("ninja")
        if ninja is None or shutil.which("cmake") is None:
            sys.exit("error: building linreg_ops needs CMake and Ninja: pip install cmake ninja")
        build = Path(self.build_temp).resolve()
        if self.editable_mode:  # pip's folder is gone the next time; this one makes it incremental
            build = ROOT / "build" / "editable"
        arguments = [
            f"-S{ROOT}",
            f"-B{build}",
            "-GNinja",
            # An isolated build's Ninja is gone the next time; the cache would remember it.
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DLINREG_OPS_VERSION={self.distribution.get_version()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={self.package_folder()}",
            f"-Dpybind11_DIR={self.pybind11_dir()}",
            *self.cuda_options(),
            *os.environ.get("CMAKE_ARGS", "").split(),
        ]
        # An earlier build's may be for a TensorFlow that is no longer meant, or have CUDA.
        for name in ("_ops*.so", "liblinreg_ops_cuda.so"):
            for library in self.package_folder().glob(name):
                library.unlink()
        self.cmake(arguments)
        self.cmake(["--build", str(build)])

    @staticmethod
    def cuda_options():
        names = ("LINREG_OPS_CUDA", "LINREG_OPS_CUDA_ARCHITECTURES")
        # A default too: CMake's cache would remember an earlier build's choice.
        defaults = {"LINREG_OPS_CUDA": "auto"}
        values = {name: os.environ.get(name, defaults.get(name)) for name in names}
        return [f"-D{name}={value}" for name, value in values.items() if value]

    @staticmethod
    def pybind11_dir():
        try:
            import pybind11
        except ImportError:
            sys.exit("error: building linreg_ops needs pybind11: pip install pybind11")
        return pybind11.get_cmake_dir()

    @staticmethod
    def cmake(arguments):
        try:
            subprocess.run(["cmake", *arguments], check=True)
        except subprocess.CalledProcessError as error:
            sys.exit(f"error: CMake stopped with code {error.returncode}; its message is above")

    def package_folder(self):
        return Path(self.get_ext_fullpath("linreg_ops._kernels")).resolve().parent

    def get_outputs(self):
        names = ("liblinreg_ops_*.so", "_ops_tf*.so")
        libraries = [str(path) for name in names for path in self.package_folder().glob(name)]
        return [self.get_ext_fullpath("linreg_ops._kernels"), *sorted(libraries)]


if platform.system() != "Linux":
    sys.exit("error: linreg_ops supports Linux only (TensorFlow ships its op headers there)")

setup(
    ext_modules=[Extension("linreg_ops._kernels", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
    install_requires=[tensorflow_requirement(), "numpy>=1.26", "wrapt>=1.14"],
)
