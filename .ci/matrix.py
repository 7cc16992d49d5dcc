"""Builds the wheel against every TensorFlow, on every Python, and runs the tests with it.

    python .ci/matrix.py --write                 every cell, recorded in .ci/matrix.json
    python .ci/matrix.py 2.19/3.10 2.21/3.13     these cells
    python .ci/matrix.py oldest                  the first cell that has an interpreter here
    python .ci/matrix.py 2.19/3.10 -- tests/test_ops.py -x     these tests

What is tested is the last commit. Each cell gets a virtual environment, where the wheel is built
against the TensorFlow installed in it. Interpreters are found on PATH, or among
pyenv's. A cell takes about three gigabytes of disk, given back at its end, and the time of a
TensorFlow download, a build (shorter with ccache) and the tests. Needs git and Python 3.10.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / ".ci" / "matrix.json"  # docs/generate.py makes a table of it

TENSORFLOWS = ("2.19", "2.20", "2.21", "2.22")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PAIRS = [f"{tensorflow}/{python}" for tensorflow in TENSORFLOWS for python in PYTHONS]
# TensorFlow publishes no wheel for these.
NO_WHEEL = {"2.19/3.13"}
# Not final: what fails there is shown, and fails no run. pip takes one only where it is named.
CANDIDATES = {"2.22": "2.22.0rc0"}
CELLS = [pair for pair in PAIRS if pair not in NO_WHEEL]

COLUMNS = ("tensorflow", "python", "numpy", "keras", "tests", "commit")
VERSIONS = """
import platform
from importlib.metadata import packages_distributions, version
keras = packages_distributions()["keras"][0]  # a candidate brings one of another name
print(version("tensorflow"), platform.python_version(), version("numpy"), version(keras))
"""


def interpreter(python: str) -> str | None:
    """The first pythonX.Y that runs, on PATH (where pyenv's shim may not) or in pyenv's folders."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = os.environ["PATH"].split(os.pathsep)
    folders += [str(folder) for folder in sorted(pyenv.glob(f"versions/{python}.*/bin"))]
    for folder in folders:
        found = shutil.which(f"python{python}", path=folder)
        if found and not subprocess.run([found, "--version"], capture_output=True).returncode:
            return found
    return None


class StepError(Exception):
    """A step of a cell went wrong; its output has been printed."""


def run_cell(
    cell: str, python: str, folder: Path, pytest_arguments: list[str]
) -> tuple[bool, list[str]]:
    """Builds, installs and tests one cell: whether all is well, and the row of the table."""
    tensorflow = cell.split("/")[0]
    release = CANDIDATES.get(tensorflow, f"{tensorflow}.*")
    venv, source, wheels = folder / "venv", folder / "source", folder / "wheels"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{environment['PATH']}"
    if tensorflow in CANDIDATES:
        # The build is told where it is: by itself it takes a supported TensorFlow, and none other.
        packages = venv / "lib" / f"python{cell.split('/')[1]}" / "site-packages"
        environment["LINREG_OPS_TENSORFLOWS"] = str(packages)
    if shutil.which("ccache"):
        # The kernels know neither TensorFlow nor Python: they compile once for all cells.
        for language in ("C", "CXX"):
            environment[f"CMAKE_{language}_COMPILER_LAUNCHER"] = "ccache"
        environment.update(CCACHE_BASEDIR=str(source), CCACHE_NOHASHDIR="1")

    def run(step: str, *command: str | Path, show: bool = False) -> str:
        print(f"[{cell}] {step}", flush=True)
        done = subprocess.run(
            [str(part) for part in command],
            cwd=source if source.exists() else ROOT,
            env=environment,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            print(done.stdout or "", flush=True)
            raise StepError(step)
        return done.stdout or ""

    pip = [venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    report = folder / "report.xml"
    versions, commit = cell.split("/"), ""
    try:
        run("the last commit", "git", "clone", "--quiet", "--no-local", ROOT, source)
        commit = run("its name", "git", "rev-parse", "--short=7", "HEAD").strip()
        run("virtual environment", python, "-m", "venv", venv)
        run("TensorFlow", *pip, "install", f"tensorflow=={release}")
        run("wheel", *pip, "wheel", "--no-deps", "-w", wheels, ".")
        (wheel,) = wheels.glob("*.whl")
        run("install", *pip, "install", f"{wheel}[test]")
        versions = run("versions", venv / "bin" / "python", "-c", VERSIONS).split()
        if not versions[0].startswith(f"{tensorflow}."):
            raise StepError(f"TensorFlow {tensorflow} was replaced by {versions[0]}")
        arguments = ["-q", f"--junit-xml={report}", *pytest_arguments]
        run("tests", venv / "bin" / "pytest", *arguments, show=True)
    except StepError as error:
        if not report.exists():
            return False, [*versions, *[""] * (4 - len(versions)), f"✗ {error}", commit]
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    count = {key: int(suite.attrib[key]) for key in ("tests", "errors", "failures", "skipped")}
    failures = count["errors"] + count["failures"]
    passed = count["tests"] - failures - count["skipped"]
    good = passed > 0 and not failures
    tests = f"{'✓' if good else '✗'} {passed} passed, {failures} failed, {count['skipped']} skipped"
    return good, [*versions, tests, commit]


def record(new: dict[str, list[str]]) -> None:
    """Puts the rows among those of earlier runs."""
    before = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    rows = {pair: [*pair.split("/"), "", "", "not run", ""] for pair in PAIRS}
    rows |= {pair: list(before[pair].values()) for pair in PAIRS if pair in before}
    rows |= new | {pair: [*pair.split("/"), "", "", "no wheel", ""] for pair in NO_WHEEL}
    cells = {pair: dict(zip(COLUMNS, rows[pair], strict=True)) for pair in PAIRS}
    RECORD.write_text(json.dumps(cells, indent=1, ensure_ascii=False) + "\n")


def main() -> int:
    """Runs the cells that the command line names; 0 if any ran, and all of those are good."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cells", nargs="*", help=f"of {', '.join(CELLS)}, or oldest")
    parser.add_argument("--write", action="store_true", help="record the result in .ci/matrix.json")
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, pytest_arguments = parser.parse_args(arguments[:split]), arguments[split + 1 :]
    if options.write and pytest_arguments:
        parser.error("the table is of whole test runs: --write takes no tests")

    pythons = {python: interpreter(python) for python in PYTHONS}
    cells = options.cells or CELLS
    if cells == ["oldest"]:
        cells = [cell for cell in CELLS if pythons[cell.split("/")[1]]][:1]
    if not cells or not set(cells) <= set(CELLS):
        parser.error(f"no such cell; there are {', '.join(CELLS)}")

    all_well: list[bool] = []
    summary = []
    for cell in cells:
        python = pythons[cell.split("/")[1]]
        if python is None:
            summary.append(f"{cell}: not run, for want of a python{cell.split('/')[1]}")
            continue
        with tempfile.TemporaryDirectory(prefix="linreg_ops-matrix-") as folder:
            well, row = run_cell(cell, python, Path(folder), pytest_arguments)
        candidate = cell.split("/")[0] in CANDIDATES
        all_well.append(well or candidate)
        if candidate and not well:
            row[4] += " (a release candidate, allowed to)"
        summary.append(" | ".join(row))
        if options.write:
            record({cell: row})
    print("\nTensorFlow | Python | NumPy | Keras | tests | commit", *summary, sep="\n")
    return 0 if all_well and all(all_well) else 1


if __name__ == "__main__":
    sys.exit(main())
