"""Every example in the README, the documentation and a docstring runs and prints what it says."""

import contextlib
import doctest
import importlib
import io
import re
import runpy
import shlex
import types
from pathlib import Path

import matplotlib.pyplot
import pytest
from mutants_native import NATIVE
from mutants_python import PYTHON
from typer.testing import CliRunner

import linreg_ops
from linreg_ops import cli

ROOT = Path(__file__).resolve().parent.parent
MODULES = [
    "linreg_ops",
    "linreg_ops._gram",
    "linreg_ops._gram_op",
    "linreg_ops._library",
    "linreg_ops._linear_model",
    "linreg_ops._patch",
    "linreg_ops._sums_model",
    "linreg_ops.cli.terminal",
    "linreg_ops.demo",
    "linreg_ops.estimator",
    "linreg_ops.inference",
    "linreg_ops.keras",
    "linreg_ops.kernels",
    "linreg_ops.ops",
    "linreg_ops.plotting",
    "linreg_ops.reference",
    "linreg_ops.penalised",
    "linreg_ops.solutions",
    "linreg_ops.solvers",
    "linreg_ops.solvers.state",
    "linreg_ops.stock",
    "linreg_ops.training",
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


@pytest.mark.parametrize(
    "name", [n for n in linreg_ops.__all__ if callable(getattr(linreg_ops, n))]
)
def test_public_names_are_documented(name):
    assert len(getattr(linreg_ops, name).__doc__.split()) > 5


PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
# What README.md's first two lines, before and after, are given.
GIVEN = """
import numpy as np, tensorflow as tf, linreg_ops as lo
x, w, y = np.ones((4, 3)), np.ones((3, 2)), np.zeros((4, 2))
"""
BLOCK = re.compile(
    r"^```(python|sh)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
# Commands that something else runs, and what.
RUN_ELSEWHERE = {
    'pip install ".[demo]" && linreg-ops demo': ".ci/run",
    'pip install ".[demo]"': ".ci/run",
    'pip install ".[test]" && pytest': ".ci/run",
    'pip install cmake ninja pybind11 "setuptools>=77" && pip install --no-build-isolation .': (
        ".ci/matrix.py"
    ),
    'pip install ".[benchmark]"': "benchmarks/gpu_host.sh",
    "python -m benchmarks --quick": "tests/test_benchmarks.py",
    "linreg-ops --install-completion": "tests/test_cli.py",
    "python examples/multi_worker.py": "tests/test_distribution.py",
}


def printed_by_python(code: str, page: str, names: dict[str, object]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page, "exec"), names)
    return printed.getvalue()


def printed_by_commands(code: str) -> str:
    """What the commands of this package print, one by one, in this process."""
    text = ""
    for line in code.splitlines():
        if line in RUN_ELSEWHERE:
            assert (ROOT / RUN_ELSEWHERE[line]).exists()
            continue
        command, *arguments = shlex.split(line)
        assert command == "linreg-ops", f"nothing runs {line}"
        done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        assert (done.exit_code == 0) == (not done.output.startswith("Error:")), done.output
        text += "".join(f"{line.rstrip()}\n" for line in done.output.splitlines())
    return text


@pytest.fixture
def quick_commands(monkeypatch):
    """On a terminal of a hundred columns; what takes many rows has fewer."""
    monkeypatch.setattr(cli.console, "_width", 100)
    monkeypatch.setattr(cli.demo, "_MANY", 5000)
    monkeypatch.setattr(cli.bench, "_SECONDS", 0.0)
    monkeypatch.setattr(cli.bench, "_SHAPES", cli.bench._SHAPES[-1:])


@pytest.mark.parametrize("page", PAGES)
def test_examples_print_what_the_page_says(repository, page, tmp_path, monkeypatch, quick_commands):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(GIVEN if page == "README.md" else "", names)
    for language, code, output in BLOCK.findall((repository / page).read_text()):
        if language == "python":
            assert printed_by_python(code, page, names) == output, code
        else:
            # Commands may print times, and then the page does not quote them.
            assert printed_by_commands(code) == output or not output, code


def test_both_lines_of_the_readme_give_the_same(repository):
    [(_, block, _), *_] = BLOCK.findall((repository / "README.md").read_text())
    names: dict[str, object] = {}
    exec(GIVEN, names)
    losses = []
    for line in block.splitlines():
        exec(line, names)
        losses.append(float(names["loss"]))
    assert losses == [36.0, 36.0]


def test_the_readme_is_short(repository):
    assert len((repository / "README.md").read_text().split()) <= 1000


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(repository, page):
    text = re.sub(r"^```.*?^```", "", (repository / page).read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((repository / page).parent / target).exists(), target


def test_troubleshooting_quotes_messages_that_exist(repository):
    """The quotes in its headings stand in the sources, where literals may be cut into lines."""
    files = [*(repository / "linreg_ops").rglob("*.py"), repository / "setup.py"]
    files += [*(repository / "cmake").iterdir(), repository / "CMakeLists.txt"]
    files += list((repository / "csrc").rglob("*.cc"))
    sources = "\n".join(path.read_text() for path in files if path.is_file())
    sources = re.sub(r"[\"']\s*\n?\s*f?[\"']", "", sources).replace("\\", "")
    headings = re.findall(r"^### (.*)$", (repository / "docs/troubleshooting.md").read_text(), re.M)
    quotes = [quote for heading in headings for quote in re.findall(r"`([^`]+)`", heading)]
    quotes.remove("Op type not registered 'Linreg>L2LossGrad'")  # TensorFlow's
    assert len(quotes) > 12
    assert [quote for quote in quotes if quote not in sources] == []


def test_no_hint_names_a_package_that_no_index_has(repository):
    """This one is on none: `pip install linreg_ops` would find nothing, or a stranger's."""
    endings = {".py", ".md", ".ipynb", ".cc", ".h", ".cmake", ".txt", ".toml", ".cu"}
    tops = [
        repository / name for name in ("linreg_ops", "csrc", "cmake", "docs", "examples", ".ci")
    ]
    files = [path for top in tops for path in top.rglob("*") if path.suffix in endings]
    files += [path for path in repository.iterdir() if path.suffix in endings]
    assert len(files) > 100
    hints = [
        (f, found) for f in files for found in re.findall(r"pip install[^`\n&]*", f.read_text())
    ]
    assert len(hints) > 12
    assert [each for each in hints if re.search(r"[\s\"']linreg[_-]ops\b", each[1])] == []


def test_import_of_everything_rebinds_no_module():
    names = {}
    exec("from linreg_ops import *", names)
    brought = {name: value for name, value in names.items() if not name.startswith("__")}
    assert set(brought) == set(linreg_ops.__all__)
    assert not [name for name, value in brought.items() if isinstance(value, types.ModuleType)]


def test_everything_public_is_listed():
    """What the modules show to users without an underscore, as far as users are told of it."""
    for name in dir(linreg_ops):
        assert getattr(linreg_ops, name) is not None
    assert {*linreg_ops.__all__, "keras", "kernels", "plotting", "reference", "training"} <= {
        *dir(linreg_ops)
    }


GALLERY = sorted((ROOT / "docs" / "gallery").glob("*.py"))


@pytest.mark.parametrize("script", GALLERY, ids=lambda script: script.stem)
def test_gallery_scripts_draw_their_pictures(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))
    matplotlib.pyplot.close("all")
    assert "<svg" in (tmp_path / f"{script.stem}.svg").read_text()
    page = (ROOT / "docs" / "gallery.md").read_text()
    assert f'"docs/gallery/{script.name}"' in page
    assert f"(images/{script.stem}.svg)" in page
    assert (ROOT / "docs" / "images" / f"{script.stem}.svg").exists()


def test_every_mutant_is_of_a_line_that_is_there():
    """Code moves, and a row whose line has gone tests nothing."""
    rows = NATIVE + PYTHON
    missing = [(row[0], row[1]) for row in rows if (ROOT / row[1]).read_text().count(row[2]) != 1]
    assert missing == []
    assert len({row[0] for row in rows}) == len(rows)
    assert f"breaks the code in {len(rows)} small ways" in (ROOT / "CONTRIBUTING.md").read_text()
