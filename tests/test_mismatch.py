"""A library built against another TensorFlow says which, which one is running, and what to do."""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf
from fresh import run

import linreg_ops
from linreg_ops import _library

PACKAGE = Path(linreg_ops.__file__).parent
LIBRARY = _library._for(tf.__version__)
VERSION = LIBRARY.stem.removeprefix("_ops_tf")
# Another minor version.
OTHER = re.sub(r"\d(?=\.\d+(rc\d+)?$)", lambda digit: str((int(digit[0]) + 1) % 10), VERSION)
REMEDY = "pip install --force-reinstall --no-deps --no-cache-dir . in a checkout of linreg_ops"


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
    """The name of a library says what it was built for: here a build against another."""
    for library in (site / "linreg_ops").glob("_ops_tf*.so"):
        library.unlink()
    # What would happen without the check must not: the library is not even opened.
    (site / "linreg_ops" / f"_ops_tf{OTHER}.so").write_bytes(b"not a library")
    assert_says(run(f"import {imports}", PYTHONPATH=str(site), fails=True), OTHER)


def test_the_library_of_the_tensorflow_that_runs_is_chosen(site):
    (site / "linreg_ops" / f"_ops_tf{OTHER}.so").write_bytes(b"not a library")
    run("import tensorflow, linreg_ops.ops", PYTHONPATH=str(site))


def test_the_versions_named_are_those_that_a_build_takes(repository):
    names = runpy.run_path(str(repository / "cmake" / "find_tensorflow.py"))
    (major, oldest), (_, too_new) = names["OLDEST"], names["TOO_NEW"]
    assert f"{major}.{oldest} to {major}.{too_new - 1}" == _library.SUPPORTED
    assert str(_library._mismatch("2.18.0")).endswith(f"supports TensorFlow {_library.SUPPORTED}")


def test_a_patch_release_uses_the_library_of_its_minor_version(site):
    patched = re.sub(r"\d+$", "99", VERSION)
    (site / "linreg_ops" / LIBRARY.name).rename(site / "linreg_ops" / f"_ops_tf{patched}.so")
    run("import tensorflow, linreg_ops.ops", PYTHONPATH=str(site))


def test_no_library_at_all(site):
    for library in (site / "linreg_ops").glob("_ops_tf*.so"):
        library.unlink()
    done = run("import tensorflow, linreg_ops", PYTHONPATH=str(site), fails=True)
    assert "none (the op libraries are missing)" in done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ to make a library with")
def test_a_symbol_that_this_tensorflow_does_not_have(site, tmp_path):
    """The versions agree, the libraries do not: a nightly, or a TensorFlow that was patched."""
    source = tmp_path / "stub.cc"
    source.write_text(
        "namespace absl { inline namespace lts_19990101 { void Missing(); } }\n"
        "void (*used)() = absl::Missing;\n"
    )
    library = site / "linreg_ops" / LIBRARY.name
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", library], check=True)
    done = run("import tensorflow, linreg_ops", PYTHONPATH=str(site), fails=True)
    assert_says(done, ", ".join(_library.libraries()))
    assert "undefined symbol: _ZN4absl12lts_19990101" in done.stderr


def test_a_library_that_is_no_library_is_not_a_mismatch(site):
    (site / "linreg_ops" / LIBRARY.name).write_bytes(b"not a library")
    done = run("import tensorflow, linreg_ops", PYTHONPATH=str(site), fails=True)
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: the op library ")
    assert "built against" not in message
