"""Installing, importing and running the package, and what it says when that cannot work."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import fresh
import pytest
import tensorflow as tf

import linreg_ops
from linreg_ops import _library

PACKAGE = Path(linreg_ops.__file__).parent
MODULE = next(PACKAGE.glob("_kernels*.so"))
KERNELS = PACKAGE / "liblinreg_ops_kernels.so"
SHARED = sorted(PACKAGE.glob("liblinreg_ops_*.so"))  # and that of CUDA, where it is compiled
(OPS,) = PACKAGE.glob(f"_ops_tf{'.'.join(tf.__version__.split('.')[:2])}.*.so")


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


def test_requires_the_minor_versions_built_against():
    minors = [version.rsplit(".", 1)[0] for version in _library.libraries()]
    (required,) = (r for r in metadata.requires("linreg_ops") if re.match(r"(tensorflow|tf)\b", r))
    if len(minors) == 1:
        assert required.endswith(f"=={minors[0]}.*")
    else:
        last = int(minors[-1].split(".")[1])
        # Metadata may list the two bounds in either order.
        assert set(re.findall(r"[<>]=?[\d.]+", required)) == {f">={minors[0]}", f"<2.{last + 1}"}


def test_versions_agree():
    info = linreg_ops.build_info()
    assert metadata.version("linreg_ops") == linreg_ops.__version__ == info["version"]
    assert info["tensorflow_versions"] == list(_library.libraries())


@pytest.mark.parametrize(
    "imports", ["linreg_ops, tensorflow as tf", "tensorflow as tf, linreg_ops"]
)
def test_ops_are_registered_in_either_order_of_imports(imports):
    fresh.run(
        f"import {imports}\n"
        "from tensorflow.python.framework import op_def_registry\n"
        "assert op_def_registry.get('Linreg>L2LossGrad') is not None\n"
        "from linreg_ops import _library\n"
        "assert _library.load() is _library.load()\n"
    )


def test_importing_the_package_alone_leaves_tensorflow_out():
    done = run_python("import sys, linreg_ops; print('tensorflow' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'linear_l1_loss'"):
        linreg_ops.linear_l1_loss  # noqa: B018
    assert "linear_l2_loss" in dir(linreg_ops)


@pytest.mark.parametrize("arguments", [["-m", "linreg_ops"], ["-c", "import linreg_ops"]])
def test_unbuilt_source_folder_without_an_installed_copy_says_what_to_do(source_folder, arguments):
    (source_folder / "site").mkdir()
    (source_folder / "site" / "sitecustomize.py").write_text(
        "import importlib.machinery as m\n"
        "find = m.PathFinder.find_spec\n"
        f"ours = {str(source_folder)!r}\n"
        "m.PathFinder.find_spec = classmethod(lambda cls, name, path=None, target=None:\n"
        "    None if name == 'linreg_ops' and path is not None and ours not in path\n"
        "    else find(name, path, target))\n"
    )
    path = str(source_folder / "site")
    done = run(sys.executable, *arguments, cwd=source_folder, PYTHONPATH=path)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert f"run `pip install .` in {source_folder}" in last


@pytest.mark.parametrize(
    "arguments", [["-m", "linreg_ops", "--help"], ["-c", "import linreg_ops.ops"]]
)
def test_python_started_in_a_clone_uses_the_installed_copy(source_folder, arguments):
    done = run(sys.executable, *arguments, cwd=source_folder, PYTHONPATH=str(PACKAGE.parent))
    assert done.returncode == 0, done.stderr


def test_pytest_from_an_unbuilt_source_folder_tests_the_installed_package(
    repository, source_folder
):
    shutil.copytree(repository / "tests", source_folder / "tests")
    shutil.copy(repository / "pyproject.toml", source_folder)
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_kernels.py", "-k", "bad_input"]
    done = run(*command, cwd=source_folder, PYTHONPATH=str(PACKAGE.parent))
    assert done.returncode == 0, done.stdout + done.stderr


def exported(library):
    listed = run("nm", "-DC", "--defined-only", library).stdout.splitlines()
    assert listed
    return [line.split(" ", 2)[2] for line in listed]


def test_the_kernels_export_what_is_ours_and_the_others_nothing_of_it():
    for library in SHARED:
        assert [name for name in exported(library) if not name.startswith("linreg_ops::")] == []
    for library in (MODULE, OPS):
        assert [name for name in exported(library) if "linreg_ops::" in name] == []


def test_the_kernels_are_linked_once():
    for library in (MODULE, OPS):
        assert f"[{KERNELS.name}]" in run("readelf", "-Wd", library).stdout
        assert "linreg_ops::cpu::Call::Make" in run("nm", "-DCu", library).stdout


def test_hardened():
    for library in (*SHARED, MODULE, OPS):
        headers = run("readelf", "-Wdl", library).stdout
        assert re.search(r"FLAGS.*NOW", headers), library
        assert "GNU_RELRO" in headers
        assert re.search(r"GNU_STACK.* RW ", headers)
        # Beside itself is the only place that a library is looked for.
        paths = re.findall(r"R(?:UN)?PATH.*\[(.*)\]", headers)
        assert paths == ([] if library == KERNELS else ["$ORIGIN"]), library
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


def test_a_folder_of_any_name_builds(repository, tmp_path):
    """Its name is quoted in every command of the build: by CMake, and by others' CMake files."""
    if shutil.which("cmake") is None or shutil.which("ninja") is None:
        pytest.skip("needs cmake and ninja")
    pybind11 = pytest.importorskip("pybind11")
    folder = tmp_path / "linreg ops (copy)"
    for name in ("cmake", "csrc"):
        shutil.copytree(repository / name, folder / name)
    shutil.copy(repository / "CMakeLists.txt", folder)
    configured = run(
        "cmake",
        "-GNinja",
        f"-S{folder}",
        f"-B{folder / 'build'}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={folder / 'linreg_ops'}",
        "-DLINREG_OPS_CUDA=off",
    )
    assert configured.returncode == 0, configured.stderr
    commands = run("ninja", "-C", folder / "build", "-t", "commands").stdout
    assert "_kernels" in commands
    done = subprocess.run(["sh", "-n"], input=commands, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
        "from importlib.machinery import PathFinder as p\n"
        "find = p.find_spec\n"
        "p.find_spec = classmethod(\n"
        "    lambda cls, name, *a: None if name == 'tensorflow' else find(name, *a))\n"
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


def test_no_tensorflow_in_a_named_folder(repository, tmp_path):
    done = build(repository, tmp_path, LINREG_OPS_TENSORFLOWS=str(tmp_path))
    assert done.returncode != 0
    assert f"LINREG_OPS_TENSORFLOWS: there is no TensorFlow in {tmp_path}" in done.stderr


def hooks(repository, tmp_path, code, **environment):
    """The build backend as pip starts it, in the folder of the source."""
    path = os.pathsep.join([str(repository / "cmake"), str(tmp_path)])
    return run_python(f"import backend\n{code}", cwd=tmp_path, PYTHONPATH=path, **environment)


def test_backend_looks_for_a_compiler_before_anything_is_downloaded(repository, tmp_path):
    ask = "print(backend.requirements([]))"
    done = hooks(repository, tmp_path, ask, CXX="no-such-g++")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: linreg_ops needs a C++ compiler: g++ 11 or newer (apt install g++). "
        "CXX names 'no-such-g++', which is not there."
    ]
    old = tmp_path / "g++"
    old.write_text("#!/bin/sh\necho 'g++ (Debian 10.2.1-6) 10.2.1 20210110'\n")
    old.chmod(0o755)
    done = hooks(repository, tmp_path, ask, CXX=str(old))
    assert done.returncode == 1
    assert "needs g++ 11 or newer, got (Debian 10.2.1-6) 10.2" in done.stderr


def test_backend_does_not_download_a_tensorflow_that_is_installed(repository, tmp_path):
    ask = "print(backend.requirements([])[-1])"
    there = "backend.find_tensorflow.installed_around = lambda: [{!r}]\n"
    site = str(Path(tf.__file__).parent.parent)
    done = hooks(repository, tmp_path, there.format(site) + ask)
    assert done.stdout.splitlines()[-1] == "pybind11>=2.13", done.stderr
    done = hooks(repository, tmp_path, there.format(str(tmp_path)) + ask)
    assert done.stdout.splitlines()[-1].startswith("tensorflow>=2.19,<2."), done.stderr
