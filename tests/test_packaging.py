"""Installing, importing and running the package, and what it says when that cannot work."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import linreg_ops

PACKAGE = Path(linreg_ops.__file__).parent
KERNELS = next(PACKAGE.glob("_kernels*.so"))
OPS = PACKAGE / "_ops.so"


def run(*command, cwd=None, **environment):
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def run_python(code, **options):
    return run(sys.executable, "-c", code, **options)


@pytest.fixture
def source_folder(repository, tmp_path):
    """The repository without compiled libraries: a clone that nobody has built."""
    shutil.copytree(
        repository / "linreg_ops", tmp_path / "linreg_ops", ignore=shutil.ignore_patterns("*.so")
    )
    return tmp_path


def test_requires_the_minor_version_built_against():
    info = linreg_ops.build_info()
    minor = ".".join(info["tensorflow_version"].split(".")[:2])
    required = [r for r in metadata.requires("linreg_ops") if re.match(r"tensorflow\b", r)]
    assert required == [f"{info['tensorflow_distribution']}=={minor}.*"]
    assert metadata.version("linreg_ops") == linreg_ops.__version__ == info["version"]


@pytest.mark.parametrize(
    "imports", ["linreg_ops, tensorflow as tf", "tensorflow as tf, linreg_ops"]
)
def test_ops_are_registered_in_either_order_of_imports(imports):
    done = run_python(
        f"import {imports}\n"
        "from tensorflow.python.framework import op_def_registry\n"
        "assert op_def_registry.get('Linreg>L2LossGrad') is not None\n"
        "from linreg_ops import _library\n"
        "assert _library.load() is _library.load()\n"
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_alone_leaves_tensorflow_out():
    done = run_python("import sys, linreg_ops; print('tensorflow' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'linear_l1_loss'"):
        linreg_ops.linear_l1_loss  # noqa: B018
    assert "linear_l2_loss" in dir(linreg_ops)


@pytest.mark.parametrize("arguments", [["-m", "linreg_ops"], ["-c", "import linreg_ops"]])
def test_unbuilt_source_folder_says_what_to_do(source_folder, arguments):
    done = run(sys.executable, *arguments, cwd=source_folder)
    assert done.returncode != 0
    assert "pip install -e ." in done.stderr.splitlines()[-1]
    assert str(source_folder) in done.stderr.splitlines()[-1]


def test_pytest_from_an_unbuilt_source_folder_tests_the_installed_package(
    repository, source_folder
):
    shutil.copytree(repository / "tests", source_folder / "tests")
    shutil.copy(repository / "pyproject.toml", source_folder)
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_kernels.py", "-k", "bad_input"]
    done = run(*command, cwd=source_folder, PYTHONPATH=str(PACKAGE.parent))
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_symbol_of_ours_is_exported():
    for library in (KERNELS, OPS):
        listed = run("nm", "-DC", "--defined-only", library).stdout.splitlines()
        ours = [line for line in listed if " linreg_ops::" in line]
        assert listed
        assert ours == []


def test_hardened():
    for library in (KERNELS, OPS):
        headers = run("readelf", "-Wdl", library).stdout
        assert re.search(r"FLAGS.*NOW", headers), library
        assert "GNU_RELRO" in headers
        assert re.search(r"GNU_STACK.* RW ", headers)
        assert not re.search(r"R(UN)?PATH", headers)
        assert "__stack_chk_fail" in run("nm", "-D", library).stdout


def build(repository, tmp_path, **environment):
    """`setup.py build_ext` as pip runs it, into a folder of its own."""
    return run(
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        "--build-temp",
        tmp_path / "temp",
        "--build-lib",
        tmp_path / "lib",
        cwd=repository,
        LINREG_OPS_CUDA="off",
        **environment,
    )


def test_no_cmake(repository, tmp_path):
    done = build(repository, tmp_path, PATH=str(tmp_path))
    assert done.returncode != 0
    assert "needs CMake and Ninja: pip install cmake ninja" in done.stderr


def test_no_compiler(repository, tmp_path):
    done = build(repository, tmp_path, CXX=str(tmp_path / "no-such-g++"))
    assert done.returncode != 0
    assert "no-such-g++" in done.stderr
    assert "needs a C++ compiler" in done.stderr


def test_no_tensorflow(repository, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'tensorflow' else find(name, *a)\n"
    )
    done = build(repository, tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "TensorFlow is not installed" in done.stderr


def test_no_tensorflow_headers(repository, tmp_path):
    site = tmp_path / "site"
    (site / "tensorflow").mkdir(parents=True)
    (site / "tensorflow" / "__init__.py").touch()
    done = build(repository, tmp_path, PYTHONPATH=str(site))
    assert done.returncode != 0
    assert "without its C++ headers" in done.stderr
    assert "pip install --force-reinstall" in done.stderr
