"""The command line: what it prints, what it writes, and how it refuses."""

import os
import re
import subprocess
import sys

import numpy as np
import pandas
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from linreg_ops import build_info, cli, reference


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.console, "_width", 120)

    def run(*arguments):
        return CliRunner().invoke(cli.app, [str(a) for a in arguments], catch_exceptions=False)

    return run


def rows(output):
    """The table's rows: the name, then its cells."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]
    return {name: values for name, *values in cells if values}


def test_demo(run, tmp_path):
    done = run("demo")
    assert done.exit_code == 0
    table = rows(done.stdout)
    ways = ["stock TensorFlow", "gradient by hand", "fused op, stepwise", "one op, all steps"]
    assert [name for name in table if name in ways] == ways
    for name in ways:
        intercept, slope, loss, difference, time = table[name]
        assert [intercept, slope, loss] == table["stock TensorFlow"][:3]
        assert float(difference) < 1e-6
        assert re.fullmatch(r"[\d.]+ (µs|ms)", time)
    assert "median of 7 after a warm-up" in done.stdout
    # np.polyfit's own line, and its loss below every descent's.
    from linreg_ops import demo

    data = demo.noisy_line(50, 0)
    slope, intercept = np.polyfit(data.x[:, 0].astype(float), data.y.astype(float), 1)
    assert table["np.polyfit"][:2] == [f"{intercept:.5f}", f"{slope:.5f}"]
    assert float(table["np.polyfit"][2]) < float(table["stock TensorFlow"][2])
    assert imread(tmp_path / "linreg_demo.png").shape[:2] == (880, 2240)
    assert "Picture: linreg_demo.png" in done.stdout


def test_demo_diabetes(run, tmp_path):
    done = run("demo", "--data", "diabetes", "--steps", 100, "-o", "picture.svg")
    assert done.exit_code == 0
    assert "442 points, 100 steps" in done.stdout
    table = rows(done.stdout)
    assert float(table["one op, all steps"][3]) > 0
    assert 0.5 < float(table["one op, all steps"][2]) < float(table["np.linalg.lstsq"][2])
    assert (tmp_path / "picture.svg").stat().st_size > 1000


def test_demo_options(run):
    first = run("demo", "--steps", 7, "--learning-rate", 0.001, "--seed", 5, "--points", 30)
    assert "30 points, 7 steps of gradient descent at learning rate 0.001" in first.stdout
    again = run("demo", "--steps", 7, "--learning-rate", 0.001, "--seed", 5, "--points", 30)
    other = run("demo", "--steps", 7, "--learning-rate", 0.001, "--seed", 6, "--points", 30)
    weights = [rows(each.stdout)["stock TensorFlow"][:3] for each in (first, again, other)]
    assert weights[0] == weights[1] != weights[2]


def test_demo_that_diverges(run, tmp_path):
    done = run("demo", "--learning-rate", 1)
    assert done.exit_code == 1
    assert re.search(r"diverged: the loss is inf at step \d+", done.stderr)
    assert "Try a smaller --learning-rate than 1." in done.stderr
    assert not (tmp_path / "linreg_demo.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps"),
        (["--steps", "many"], "--steps"),
        (["--learning-rate", "0"], "0.0 is not a positive number"),
        (["--learning-rate", "nan"], "nan is not a positive number"),
        (["--learning-rate", "inf"], "inf is not a positive number"),
        (["--points", "1"], "--points"),
        (["--seed", "-1"], "--seed"),
        (["--data", "iris"], "'iris' is not one of 'line', 'diabetes'"),
        (["--data", "diabetes", "--points", "9"], "the diabetes data have 442 points"),
        (["--output", "picture.bmp"], "must end in one of .png, .pdf, .svg"),
        (["--output", "nowhere/picture.png"], "folder 'nowhere' does not exist"),
        (["--output", "folder.png"], "'folder.png' cannot be written"),
    ],
)
def test_demo_refuses(run, tmp_path, arguments, message):
    (tmp_path / "folder.png").mkdir()
    done = run("demo", *arguments)
    assert done.exit_code == 2
    assert message in re.sub(r"[\s│]+", " ", done.stderr)


@pytest.fixture
def table(tmp_path, rng):
    frame = pandas.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "c"])
    frame["price"] = 2 * frame.a - 3 * frame.b + 0.5 * frame.c + 1 + 0.1 * rng.normal(size=40)
    frame.to_csv(tmp_path / "data.csv", index=False)
    return frame


@pytest.mark.parametrize("intercept", [True, False])
def test_fit(run, table, tmp_path, intercept):
    options = [] if intercept else ["--no-intercept"]
    done = run("fit", "data.csv", "--target", "price", "-o", "fit.png", *options)
    assert done.exit_code == 0
    w = reference.least_squares(table[["a", "b", "c"]], table.price, intercept=intercept)
    names = (["(intercept)"] if intercept else []) + ["a", "b", "c"]
    found = rows(done.stdout)
    assert ("(intercept)" in found) == intercept
    np.testing.assert_allclose([float(found[name][0]) for name in names], w, rtol=1e-6)
    assert "40 rows, R² = 0.9" in done.stdout
    assert imread(tmp_path / "fit.png").shape[:2] == (880, 2240)


def test_fit_one_feature_draws_its_line(run, table):
    done = run("fit", "data.csv", "--target", "price", "--features", "b", "-o", "fit.pdf")
    assert done.exit_code == 0
    assert list(rows(done.stdout)).count("a") == 0


def test_fit_parquet(run, table, tmp_path):
    pytest.importorskip("pyarrow")
    table.to_parquet(tmp_path / "data.parquet")
    assert run("fit", "data.parquet", "--target", "price").exit_code == 0


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("a,y\n1,2\n", ["--target", "z"], "no column z. The table has: a, y."),
        ("a,y\n1,2\n", ["--target", "y", "--features", "b,c"], "no column b, c."),
        ("a,y\n1,2\n", ["--target", "y", "--features", "y"], "the target y is among the features"),
        ("y\n1\n", ["--target", "y"], "the table has no column but the target y"),
        ("a,y\n", ["--target", "y"], "the table has no rows"),
        ("", ["--target", "y"], "data.csv cannot be read"),
        ("a,y\nred,1\n", ["--target", "y"], "column a is not numeric"),
        ("a,y\n1,2\n,3\n4,5\n", ["--target", "y"], "column a has 1 missing or infinite values, "
         "the first in row 2"),
        ("a,y\n1,2\n2,inf\n", ["--target", "y"], "column y has 1 missing or infinite"),
    ],
)  # fmt: skip
def test_fit_refuses(run, tmp_path, content, arguments, message):
    (tmp_path / "data.csv").write_text(content)
    done = run("fit", "data.csv", *arguments)
    assert done.exit_code == 1
    assert message in " ".join(done.stderr.split())


def test_fit_refuses_files_it_cannot_read(run, tmp_path):
    assert run("fit", "missing.csv", "--target", "y").exit_code == 2
    (tmp_path / "data.xlsx").write_text("")
    done = run("fit", "data.xlsx", "--target", "y")
    assert done.exit_code == 1
    assert "must end in .csv or .parquet" in done.stderr
    (tmp_path / "data.csv").write_bytes(b"\xff\xfe\x00")
    assert run("fit", "data.csv", "--target", "y").exit_code == 1


def test_names_are_not_markup(run, tmp_path):
    (tmp_path / "data.csv").write_text("[bold]a[/],y\n1,2\n2,3\n3,5\n")
    assert "[bold]a[/]" in run("fit", "data.csv", "--target", "y").stdout
    assert "no column [red]z." in run("fit", "data.csv", "--target", "[red]z").stderr


def test_info(run):
    output = run("info").stdout
    for key, value in build_info().items():
        assert key in output
        if isinstance(value, str):
            assert value in output


def test_as_a_program_the_terminal_stays_clean(tmp_path):
    """No line of TensorFlow's, which a fresh process logs before any setting can stop it."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "linreg_ops", "demo", "--steps", "5"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "np.polyfit" in done.stdout
    assert (tmp_path / "linreg_demo.png").exists()


def test_help_and_no_arguments(run):
    assert run("--help").exit_code == 0
    assert "fit" in run("--help").stdout
    assert "Usage" in run().output


def test_without_typer_says_what_to_install():
    program = (
        "import sys; sys.modules['typer'] = None; sys.argv = ['linreg-ops', 'demo']\n"
        "from linreg_ops.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd="/", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "the command line needs typer, which is not installed. Install all it needs with: "
        'pip install "linreg_ops[demo]"'
    )
