"""A library built against another TensorFlow says which, which one is running, and what to do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from fresh import run

import linreg_ops

PACKAGE = Path(linreg_ops.__file__).parent
VERSION = linreg_ops.build_info()["tensorflow_version"]
# Another minor version, spelt with as many characters.
OTHER = re.sub(r"\d(?=\.\d+$)", lambda digit: str((int(digit[0]) + 1) % 10), VERSION)
REMEDY = "pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation . "


@pytest.fixture
def site(tmp_path):
    """A folder for the path with a copy of the installed package in it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "linreg_ops", ignore=ignored)
    return tmp_path


def assert_says(done, built):
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: linreg_ops was built against TensorFlow"), done.stderr
    assert f"built against TensorFlow {built}, but TensorFlow {tf.__version__} is run" in message
    assert REMEDY in message


@pytest.mark.parametrize("imports", ["linreg_ops, tensorflow", "tensorflow, linreg_ops"])
def test_another_minor_version(site, imports):
    """The version is a string in the module: here a build against another is one byte away."""
    (module,) = (site / "linreg_ops").glob("_kernels*.so")
    before = module.read_bytes()
    assert before.count(VERSION.encode() + b"\0") == 1
    module.write_bytes(before.replace(VERSION.encode() + b"\0", OTHER.encode() + b"\0"))
    # What would happen without the check must not: the library is not even opened.
    (site / "linreg_ops" / "_ops.so").write_bytes(b"not a library")
    assert_says(run(f"import {imports}", PYTHONPATH=str(site), fails=True), OTHER)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ to make a library with")
def test_a_symbol_that_this_tensorflow_does_not_have(site, tmp_path):
    """The versions agree, the libraries do not: a nightly, or a TensorFlow that was patched."""
    source = tmp_path / "stub.cc"
    source.write_text(
        "namespace absl { inline namespace lts_19990101 { void Missing(); } }\n"
        "void (*used)() = absl::Missing;\n"
    )
    library = site / "linreg_ops" / "_ops.so"
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", library], check=True)
    done = run("import tensorflow, linreg_ops", PYTHONPATH=str(site), fails=True)
    assert_says(done, VERSION)
    assert "undefined symbol: _ZN4absl12lts_19990101" in done.stderr


def test_a_library_that_is_no_library_is_not_a_mismatch(site):
    (site / "linreg_ops" / "_ops.so").write_bytes(b"not a library")
    done = run("import tensorflow, linreg_ops", PYTHONPATH=str(site), fails=True)
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: the op library ")
    assert "built against" not in message


@pytest.mark.slow
def test_a_build_against_a_doctored_tensorflow(site, repository, tmp_path):
    """The metadata of another version, first on the path: the whole way from it to the error."""
    doctored = tmp_path / "doctored" / "tensorflow-2.18.7.dist-info"
    doctored.mkdir(parents=True)
    (doctored / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.18.7\n")
    script = (
        "import pybind11, subprocess, sys\n"
        "source, build, out = sys.argv[1:]\n"
        "subprocess.run(['cmake', '-GNinja', f'-S{source}', f'-B{build}',\n"
        "    f'-DPython_EXECUTABLE={sys.executable}', f'-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={out}',\n"
        "    f'-Dpybind11_DIR={pybind11.get_cmake_dir()}'], check=True)\n"
        "subprocess.run(['cmake', '--build', build, '--target', '_kernels'], check=True)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, repository, tmp_path / "build", site / "linreg_ops"],
        check=True,
        env={**os.environ, "PYTHONPATH": str(doctored.parent)},
    )
    done = run("import tensorflow, linreg_ops", PYTHONPATH=str(site), fails=True)
    assert_says(done, "2.18.7")
