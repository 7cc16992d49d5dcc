"""Builds the wheel against every TensorFlow, on every Python, and runs the tests with it.

    python .ci/matrix.py                              every cell, README.md's table rewritten
    python .ci/matrix.py 2.19/3.10 2.21/3.13          these cells only
    python .ci/matrix.py 2.19/3.10 -- tests/test_ops.py    these tests only, the table left alone

Each cell gets a virtual environment, where the wheel is built without isolation, so against the
TensorFlow of that cell. Interpreters are found on PATH, or among pyenv's. A cell takes about two
gigabytes of disk, given back at its end, and the time of a TensorFlow download, a build (shorter
with ccache) and the tests. Needs git, and Python 3.11 to run itself.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import tomllib

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

TENSORFLOWS = ("2.19", "2.20", "2.21")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# TensorFlow publishes no wheel for these pairs.
NO_WHEEL = {("2.19", "3.13")}
CELLS = [f"{tf}/{py}" for tf in TENSORFLOWS for py in PYTHONS if (tf, py) not in NO_WHEEL]

BEGIN, END = "<!-- matrix: .ci/matrix.py writes this table -->\n", "<!-- end of matrix -->"


def interpreter(version: str) -> str | None:
    """The first pythonX.Y that runs, on PATH (where pyenv's shim may not) or in pyenv's folders."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = os.environ["PATH"].split(os.pathsep)
    folders += [str(folder) for folder in sorted(pyenv.glob(f"versions/{version}.*/bin"))]
    for folder in folders:
        found = shutil.which(f"python{version}", path=folder)
        if found and not subprocess.run([found, "--version"], capture_output=True).returncode:
            return found
    return None


def build_requirements() -> list[str]:
    """What the build needs beside TensorFlow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [r for r in project["build-system"]["requires"] if not r.startswith("tensorflow")]


def copy_sources(target: Path) -> None:
    """The files git tracks or would: each cell builds in a folder of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def run_cell(cell: str, folder: Path, pytest_arguments: list[str]) -> dict[str, object]:
    """Builds, installs and tests one cell; what went wrong is in the result."""
    tensorflow, python = cell.split("/")
    venv, source, wheels = folder / "venv", folder / "source", folder / "wheels"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{environment['PATH']}"
    if shutil.which("ccache"):
        # The kernels know neither TensorFlow nor Python: they compile once for all cells.
        for language in ("C", "CXX"):
            environment[f"CMAKE_{language}_COMPILER_LAUNCHER"] = "ccache"
        environment.update(CCACHE_BASEDIR=str(source), CCACHE_NOHASHDIR="1")

    def run(step: str, *command: str | Path, check: bool = True) -> str:
        print(f"[{cell}] {step}", flush=True)
        done = subprocess.run(
            [str(part) for part in command],
            cwd=source,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if check and done.returncode:
            print(done.stdout, flush=True)
            raise RuntimeError(step)
        return done.stdout

    python_found = interpreter(python)
    if python_found is None:
        return {"stopped": f"no python{python}"}
    copy_sources(source)
    pip = [venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    result: dict[str, object] = {}
    start = time.monotonic()
    try:
        run("virtual environment", python_found, "-m", "venv", venv)
        run("TensorFlow", *pip, "install", f"tensorflow=={tensorflow}.*", *build_requirements())
        result["tensorflow"] = run(
            "version",
            venv / "bin" / "python",
            "-c",
            "from importlib.metadata import version; print(version('tensorflow'))",
        ).strip()
        run("wheel", *pip, "wheel", "--no-build-isolation", "--no-deps", "-w", wheels, ".")
        (wheel,) = wheels.glob("*.whl")
        run("install", *pip, "install", f"{wheel}[test]")
        report = folder / "report.xml"
        output = run(
            "tests",
            venv / "bin" / "pytest",
            f"--junit-xml={report}",
            *pytest_arguments,
            check=False,
        )
        if not report.exists():
            print(output, flush=True)
            raise RuntimeError("tests")
        suite = ElementTree.parse(report).getroot().find("testsuite")
        assert suite is not None
        counts = {key: int(suite.attrib[key]) for key in ("tests", "errors", "failures", "skipped")}
        result["failed"] = counts["errors"] + counts["failures"]
        result["skipped"] = counts["skipped"]
        result["passed"] = counts["tests"] - int(result["failed"]) - counts["skipped"]
        if result["failed"] or not result["passed"]:
            print(output, flush=True)
    except RuntimeError as error:
        result["stopped"] = str(error)
    result["minutes"] = round((time.monotonic() - start) / 60, 1)
    return result


def good(result: dict[str, object]) -> bool:
    """Whether tests ran, and passed."""
    return bool(result.get("passed")) and not result.get("failed")


def table(results: dict[str, dict[str, object]]) -> str:
    """The results as markdown."""
    lines = [
        "| TensorFlow | " + " | ".join(f"Python {python}" for python in PYTHONS) + " |",
        "|---|" + "---|" * len(PYTHONS),
    ]
    for tensorflow in TENSORFLOWS:
        exact = {
            str(results[cell]["tensorflow"])
            for cell in results
            if cell.startswith(f"{tensorflow}/") and "tensorflow" in results[cell]
        }
        row = [", ".join(sorted(exact)) or tensorflow]
        for python in PYTHONS:
            result = results.get(f"{tensorflow}/{python}")
            if (tensorflow, python) in NO_WHEEL:
                row.append("no wheel")
            elif result is None:
                row.append("not run")
            elif good(result):
                row.append(f"✓ {result['passed']} passed")
            else:
                row.append(f"✗ {result.get('stopped') or str(result['failed']) + ' failed'}")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def write_readme(results: dict[str, dict[str, object]]) -> None:
    """Puts the table where README.md has its place."""
    text = README.read_text()
    if BEGIN not in text or END not in text:
        sys.exit(f"error: README.md has no place for the table: {BEGIN.strip()}")
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    README.write_text(
        re.sub(pattern, lambda _: BEGIN + "\n" + table(results) + END, text, flags=re.S)
    )


def main() -> int:
    """Runs the cells that the command line names; 0 if all are good."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cells", nargs="*", help=f"of {', '.join(CELLS)}")
    parser.add_argument("--keep", action="store_true", help="leave the folders of the cells")
    arguments = sys.argv[1:]
    parser.add_argument(
        "--if-available", action="store_true", help="leave out cells whose Python is not installed"
    )
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, pytest_arguments = parser.parse_args(arguments[:split]), arguments[split + 1 :]
    unknown = set(options.cells) - set(CELLS)
    if unknown:
        parser.error(f"no such cell: {', '.join(sorted(unknown))}; there are {', '.join(CELLS)}")

    cells = options.cells or CELLS
    if options.if_available:
        cells = [cell for cell in cells if interpreter(cell.split("/")[1])]
    results: dict[str, dict[str, object]] = {}
    for cell in cells:
        folder = Path(tempfile.mkdtemp(prefix="linreg_ops-matrix-"))
        try:
            results[cell] = run_cell(cell, folder, pytest_arguments)
        finally:
            if not options.keep:
                shutil.rmtree(folder)
        print(f"[{cell}] {results[cell]}", flush=True)
    print("\n" + table(results))
    if not options.cells and not pytest_arguments:
        write_readme(results)
    return 0 if all(map(good, results.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
