"""The command line: what it prints, what it writes, and how it refuses."""

import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import termios
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pandas
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

import linreg_ops
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


@pytest.fixture
def small_million(monkeypatch):
    monkeypatch.setattr(cli.demo, "_MANY", 5000)


def test_demo(run, tmp_path, small_million):
    done = run("demo")
    assert done.exit_code == 0
    first, second = done.stdout.split("5000 points, 10 steps")
    table = rows(first)
    ways = ["stock TensorFlow", "gradient by hand", "fused op, stepwise", "one op, all steps"]
    assert [name for name in table if name in ways] == ways
    for name in ways:
        intercept, slope, loss, difference, time = table[name]
        assert [intercept, slope, loss] == table["stock TensorFlow"][:3]
        assert float(difference) < 1e-6
        assert re.fullmatch(r"[\d.]+ (µs|ms|s)", time)
    assert "median of 7 after a warm-up" in done.stdout
    # The loss is the last one: 50 steps end near np.polyfit's.
    assert float(table["stock TensorFlow"][2]) < 1.05 * float(table["np.polyfit"][2])
    # np.polyfit's own line, and its loss below every descent's.
    from linreg_ops import demo

    data = demo.noisy_line(50, 0)
    slope, intercept = np.polyfit(data.x[:, 0].astype(float), data.y.astype(float), 1)
    assert table["np.polyfit"][:2] == [f"{intercept:.5f}", f"{slope:.5f}"]
    assert float(table["np.polyfit"][2]) < float(table["stock TensorFlow"][2])
    assert imread(tmp_path / "linreg_demo.png").shape[:2] == (880, 2240)
    assert "Picture: linreg_demo.png" in done.stdout
    # Where a pass over the data counts.
    assert second.startswith(" of gradient descent at learning rate 2e-05")
    assert [name for name in rows(second) if name in ways] == ways
    assert all(rows(second)[name][2].endswith("times as fast") for name in ways)


def test_demo_diabetes(run, tmp_path):
    done = run("demo", "--data", "diabetes", "--steps", 100, "--no-million")
    assert done.exit_code == 0
    assert "442 points, 100 steps" in done.stdout
    table = rows(done.stdout)
    assert float(table["one op, all steps"][3]) > 0
    assert 0.5 < float(table["one op, all steps"][2]) < float(table["np.linalg.lstsq"][2])
    assert (tmp_path / "linreg_diabetes.png").stat().st_size > 1000


def test_demo_options(run):
    options = ["--steps", 7, "--learning-rate", 0.001, "--points", 30, "--no-million", "--seed"]
    first = run("demo", *options, 5, "-o", "picture.svg")
    assert "30 points, 7 steps of gradient descent at learning rate 0.001" in first.stdout
    again, other = run("demo", *options, 5), run("demo", *options, 6)
    weights = [rows(each.stdout)["stock TensorFlow"][:3] for each in (first, again, other)]
    assert weights[0] == weights[1] != weights[2]


def test_demo_scales_its_rate_with_the_points(run):
    """For a sum of squares: the same line is reached, where a fixed rate diverges."""
    done = run("demo", "--points", 10_000, "--no-million")
    assert done.exit_code == 0
    assert "10000 points, 50 steps of gradient descent at learning rate 1e-05" in done.stdout
    line = rows(done.stdout)
    found, exact = (np.float64(line[n][:2]) for n in ("one op, all steps", "np.polyfit"))
    np.testing.assert_allclose(found, exact, rtol=0.05)


def test_demo_that_diverges_names_a_stable_rate(run, tmp_path):
    done = run("demo", "--learning-rate", 1, "--no-million")
    assert done.exit_code == 1
    assert re.search(r"diverged: the loss is inf at step \d+", done.stderr)
    said = re.search(
        r"Try a smaller --learning-rate than 1: for these points a stable one is below (.+)\.\n",
        done.stderr,
    )
    assert not (tmp_path / "linreg_demo.png").exists()
    limit = float(said[1])
    assert run("demo", "--learning-rate", 0.98 * limit, "--no-million").exit_code == 0
    assert run("demo", "--learning-rate", 1.1 * limit, "--steps", 2000).exit_code == 1


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
        (["--output", "link.png"], "whose folder does not exist"),
    ],
)
def test_demo_refuses(run, tmp_path, arguments, message):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere" / "picture.png")
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


def test_fit_says_what_it_fitted_and_how_well(run, table):
    done = run("fit", "data.csv", "--target", "price")
    assert "data.csv: price from 3 columns" in done.stdout
    w = reference.least_squares(table[["a", "b", "c"]], table.price, intercept=True)
    residual = table.price - w[0] - table[["a", "b", "c"]].to_numpy() @ w[1:]
    assert f"RMSE = {np.sqrt(np.mean(residual**2)):.6g}" in done.stdout
    assert f"loss ½ Σ (xw - y)² = {np.sum(residual**2) / 2:.6g}" in done.stdout


def test_fit_weights_several_targets_and_held_out_rows(run, table, tmp_path):
    table["w"] = np.arange(len(table)) % 4 + 0.5
    table["other"] = table.a - table.price
    table.to_csv("data.csv", index=False)
    done = run(
        "fit", "data.csv", "--target", "price", "--target", "other", "--weights", "w",
        "--test", 0.25, "--seed", 3, "--json",
    )  # fmt: skip
    found = json.loads(done.stdout)
    held = np.sort(np.random.default_rng(3).permutation(40)[:10])
    kept = np.setdiff1d(np.arange(40), held)
    x, y = table[["a", "b", "c"]].to_numpy(), table[["price", "other"]].to_numpy()
    s = table.w.to_numpy()
    w = reference.least_squares(x[kept], y[kept], intercept=True, sample_weight=s[kept])
    np.testing.assert_allclose(list(found["intercept"].values()), w[0], rtol=1e-7)
    for name, row in zip("abc", w[1:], strict=True):
        values = found["coefficients"][name]
        assert list(values) == ["price", "other"]
        np.testing.assert_allclose(list(values.values()), row, rtol=1e-7, atol=1e-9)
    for part, which in (("fit", kept), ("held_out", held)):
        scores = found[part]
        assert scores["rows"] == len(which)
        r = w[0] + x[which] @ w[1:] - y[which]
        squares = s[which] @ r**2
        mean = s[which] @ y[which] / s[which].sum()
        r2 = 1 - squares / (s[which] @ (y[which] - mean) ** 2)
        rmse = np.sqrt(squares / s[which].sum())
        np.testing.assert_allclose(list(scores["r2"].values()), r2, rtol=1e-9)
        np.testing.assert_allclose(list(scores["rmse"].values()), rmse, rtol=1e-7)


def ridge(x, y, alpha):
    """The definition: centred normal equations with the penalty on the diagonal."""
    centred = x - x.mean(axis=0)
    gram = centred.T @ centred + alpha * np.eye(x.shape[1])
    return np.linalg.solve(gram, centred.T @ (y - y.mean()))


@pytest.mark.parametrize(
    "alpha", [["--alpha", "7"], ["--alpha", "7,7"], ["--alpha", 0.5, "--alpha", 90]]
)
@pytest.mark.parametrize("solver", ["auto", "exact", "gram", "cg"])
def test_fit_with_a_penalty_for_each_target(run, table, alpha, solver):
    table["other"] = table.a - table.price
    table.to_csv("data.csv", index=False)
    options = ["--target", "price,other", *alpha, "--solver", solver, "--save", "model.json"]
    done = run("fit", "data.csv", *options, "--json")
    found = json.loads(done.stdout)
    given = np.broadcast_to(np.float64(",".join(map(str, alpha[1::2])).split(",")), 2)
    assert list(found["alpha"].values()) == given.tolist()
    assert found["solver"] == ("exact" if solver == "auto" else solver)
    x, y = table[["a", "b", "c"]].to_numpy(), table[["price", "other"]]
    for target, penalty in zip(y, given, strict=True):
        w = ridge(x, y[target].to_numpy(), penalty)
        coef = [found["coefficients"][name][target] for name in "abc"]
        np.testing.assert_allclose(coef, w, rtol=1e-8)
    saved = json.loads(Path("model.json").read_text())
    assert (saved["alpha"], saved["solver"]) == (given.tolist(), found["solver"])
    predicted = pandas.read_csv(io.StringIO(run("predict", "model.json", "data.csv").stdout))
    np.testing.assert_allclose(predicted.mean(), y.mean(), rtol=1e-9)
    shown = run("fit", "data.csv", *options).stdout
    assert rows(shown)["other"][0] == f"{given[1]:g}"


@pytest.mark.parametrize("cv", ["4", "loo"])
@pytest.mark.parametrize("alphas", ["0.1,3,40", None])
def test_fit_chooses_the_penalty_by_cross_validation(run, table, cv, alphas):
    """Each target's, the rows in the folds at random: as scikit-learn's search finds it.

    With one row left out at a time, as its RidgeCV does: the search takes 100 times as long.
    """
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.model_selection import GridSearchCV, KFold

    noise = np.random.default_rng(5).normal(size=40)
    table["noise"] = noise + 0.3 * table.a
    table.to_csv("data.csv", index=False)
    options = ["--target", "price,noise", "--cv", cv, "--seed", 7, "--save", "model.json"]
    options += ["--alpha", alphas] if alphas else []
    done = run("fit", "data.csv", *options, "--json")
    found = json.loads(done.stdout)
    x = table[["a", "b", "c"]].to_numpy()
    penalties = [0.1, 3, 40]
    if alphas is None:
        scale = np.mean(np.sum((x - x.mean(0)) ** 2, axis=0))
        penalties = [1e-12, *scale * np.logspace(-8, 2, 41)]
    folds = KFold(4, shuffle=True, random_state=7)
    for target in ("price", "noise"):
        if cv == "loo":
            search = best = RidgeCV(penalties).fit(x, table[target])
            alpha = best.alpha_
        else:
            search = GridSearchCV(
                Ridge(), {"alpha": penalties}, cv=folds, scoring="neg_mean_squared_error"
            ).fit(x, table[target])
            best, alpha = search.best_estimator_, search.best_params_["alpha"]
        assert found["alpha"][target] == pytest.approx(alpha, abs=1e-11)
        rmse = found["cross_validation"]["rmse"][target]
        assert rmse == pytest.approx(np.sqrt(-search.best_score_), rel=1e-9)
        coef = [found["coefficients"][name][target] for name in "abc"]
        np.testing.assert_allclose(coef, best.coef_, rtol=1e-7)
    assert found["cross_validation"]["penalties"] == len(penalties)
    assert json.loads(Path("model.json").read_text())["alpha"] == list(found["alpha"].values())
    shown = rows(run("fit", "data.csv", *options).stdout)
    assert shown["noise"][:2] == [f"{found['alpha']['noise']:.6g}", f"{rmse:.6g}"]


def test_a_penalty_at_the_edge_of_those_named_is_said(run, table):
    done = run("fit", "data.csv", "--target", "price", "--cv", 5, "--alpha", "50,90")
    assert "Note: the penalty chosen is the smallest of all, 50: a better one" in done.stderr
    assert "alpha of 2 by 5-fold cross-validation, RMSE = " in done.stdout
    assert "from 3 columns, alpha = 50" in done.stdout


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (["--alpha", "-1"], "'--alpha': '-1' is not a number from 0 on.", 2),
        (["--alpha", "1,x"], "'--alpha': 'x' is not a number from 0 on.", 2),
        (["--alpha", "inf"], "'--alpha': 'inf' is not a number from 0 on.", 2),
        (["--alpha", "1,2"], "--alpha has 2 numbers for 1 target: give one, one for each, or", 1),
        (["--alpha", "2", "--summary"], "leave out --alpha and --cv.", 1),
        (["--cv", "5", "--summary"], "--summary is of coefficients without a penalty", 1),
        (["--cv", "1"], "'--cv': '1' is not a number of folds from 2 on, nor loo.", 2),
        (["--cv", "many"], "'--cv': 'many' is not a number of folds", 2),
        (["--cv", "41"], "--cv 41 needs more rows than the 40 that there are.", 1),
        (["--cv", "40", "--test", "0.1"], "--cv 40 needs more rows than the 36 that there are.", 1),
        (["--cv", "5", "--alpha", "3"], "--cv chooses among several --alpha, got one:", 1),
        (["--cv", "5", "--solver", "cg"], "in its own way: leave out --solver cg.", 1),
        (["--solver", "gd"], "'--solver': 'gd' is not one of 'auto', 'exact', 'gram', 'cg'.", 2),
    ],
)
def test_fit_refuses_in_one_line_that_names_the_option(run, table, options, message, code):
    done = run("fit", "data.csv", "--target", "price", *options)
    assert done.exit_code == code
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_a_warning_of_the_estimator_is_a_note(run, table):
    """Not a line of Python's with the source: the reader is at a terminal."""
    table["a"] += 1e15
    table.to_csv("data.csv", index=False)
    done = run("fit", "data.csv", "--target", "price")
    assert done.exit_code == 0
    assert re.search("^Note: Predictions round at", done.stderr, re.MULTILINE)
    assert "Warning" not in done.stderr


def test_a_narrow_terminal_gets_every_digit(run, table, monkeypatch):
    """Columns that do not fit side by side come under each other, none cut."""
    targets = [f"target {i}" for i in range(4)]
    for i, name in enumerate(targets):
        table[name] = table.price * (1 + i) + table.a
    table.to_csv("data.csv", index=False)
    options = ["fit", "data.csv", "--target", ",".join(targets), "--drop", "price", "--test", "0.2"]
    wide = run(*options).stdout
    monkeypatch.setattr(cli.console, "_width", 40)
    narrow = run(*options).stdout
    assert "…" not in narrow
    numbers = re.compile(r"-?\d+\.\d+")
    assert sorted(numbers.findall(narrow)) == sorted(numbers.findall(wide))
    # what is a table, not a sentence, which a terminal breaks
    assert all(len(line) <= 40 for line in narrow.splitlines() if line.startswith(" "))


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "R^2 = 0.9"),
        ("latin-1", "R² = 0.9"),
        ("utf-8", "½ Σ (xw - y)²"),
    ],
)
def test_a_terminal_without_the_characters_gets_their_names(table, tmp_path, encoding, shown):
    done = subprocess.run(
        [sys.executable, "-m", "linreg_ops", "fit", "data.csv", "--target", "price"],
        cwd=tmp_path, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    text = done.stdout.decode(encoding)
    assert shown in text
    assert "?" not in text


def test_fit_prints_no_coefficients_that_are_wrong(run, table, monkeypatch):
    """What has not converged is not printed as if it had, and the exit code says so."""
    from sklearn.exceptions import ConvergenceWarning

    from linreg_ops import estimator

    class Unconverged(estimator.LinearRegression):
        def fit(self, x, y, sample_weight=None):
            super().fit(x, y, sample_weight)
            warnings.warn("Not converged to tol=1e-10", ConvergenceWarning, stacklevel=2)
            return self

    monkeypatch.setattr(estimator, "LinearRegression", Unconverged)
    done = run("fit", "data.csv", "--target", "price")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "no coefficients, for they would be wrong: Not converged to tol=1e-10." in done.stderr


REMARKS = [
    ("a,b,y\n1,2,3\n2,5,1\n", "2 rows for 2 columns and an intercept: any target is fitted"),
    ("a,y\n1,2\n2,5\n", "2 rows for 1 column and an intercept: any target is fitted exactly"),
    ("a,b,y\n1,7,3\n2,7,1\n3,7,8\n", "constant: b: nothing can be learned from it"),
    ("a,b,c,y\n1,1,4,3\n2,2,1,1\n3,3,5,8\n9,9,9,9\n", "a, b are equal: they share one effect"),
    ("a,y\n1,3\n2,3\n3,3\n", "the target y is constant: R² is not defined"),
]


@pytest.mark.parametrize(("content", "remark"), REMARKS)
def test_fit_says_what_makes_its_numbers_arbitrary(run, tmp_path, content, remark):
    (tmp_path / "data.csv").write_text(content)
    done = run("fit", "data.csv", "--target", "y")
    assert done.exit_code == 0
    assert remark in done.stderr
    assert run("fit", "data.csv", "--target", "y", "--json").exit_code == 0


@pytest.mark.parametrize("options", [[], ["--no-intercept"], ["--weights", "w", "--solver", "cg"]])
def test_summary(run, table, options):
    """Against (XᵀSX)⁻¹ and Student's t; and the same from the saved model."""
    from scipy import stats

    table["w"] = np.arange(40) % 4 + 0.5
    table["other"] = table.a - table.price + np.arange(40) % 3
    table.to_csv("data.csv", index=False)
    options += [] if "--weights" in options else ["--drop", "w"]
    options += ["--target", "price,other", "--summary", "--save", "model.json"]
    done = run("fit", "data.csv", *options)
    assert done.exit_code == 0, done.stderr
    constant = "--no-intercept" not in options
    x = table[["a", "b", "c"]].to_numpy()
    x = np.column_stack([np.ones(40), x]) if constant else x
    s = table.w.to_numpy() if "--weights" in options else np.ones(40)
    y = table[["price", "other"]].to_numpy()
    inverse = np.linalg.inv(x.T @ (s[:, None] * x))
    w = inverse @ x.T @ (s[:, None] * y)
    df = 40 - x.shape[1]
    sigma = np.sqrt(s @ (y - x @ w) ** 2 / df)
    errors = np.sqrt(np.outer(np.diag(inverse), sigma**2))
    reach = stats.t.ppf(0.975, df) * errors
    expected = [w, errors, w / errors, 2 * stats.t.sf(np.abs(w / errors), df), w - reach, w + reach]
    names = [*(["(intercept)"] if constant else []), "a", "b", "c"]
    *tables, rest = re.split(r"residual std\. error", done.stdout)
    for t, text in enumerate([tables[0], tables[1]]):
        found = np.float64([rows(text)[name] for name in names])
        right = np.column_stack([part[:, t] for part in expected])
        np.testing.assert_allclose(found[:, [0, 1, 4, 5]], right[:, [0, 1, 4, 5]], rtol=1e-3)
        np.testing.assert_allclose(found[:, 2], right[:, 2], atol=1e-3)
        np.testing.assert_allclose(found[:, 3], right[:, 3], rtol=0.06, atol=1e-300)
    assert f" {sigma[0]:.6g} with {df} degrees of freedom" in tables[1]
    assert "40 rows, condition number" in rest
    assert ("adjusted R² about zero" in rest) != constant
    again = run("summary", "model.json").stdout
    assert again.splitlines()[1:] == done.stdout.splitlines()[1 : len(again.splitlines())]
    statistics = json.loads(run("fit", "data.csv", *options, "--json").stdout)["statistics"]
    assert statistics == json.loads(Path("model.json").read_text())["statistics"]
    np.testing.assert_allclose(statistics["errors"], errors, rtol=1e-7)


def test_summary_of_what_the_rows_do_not_tell(run, table):
    table["same"] = table.a
    table.to_csv("data.csv", index=False)
    done = run("fit", "data.csv", "--target", "price", "--summary", "--save", "model.json")
    assert rows(done.stdout)["same"][1:] == ["-"] * 5
    assert rows(done.stdout)["b"][1] != "-"
    assert rows(run("summary", "model.json").stdout)["same"][1:] == ["-"] * 5


def test_summary_of_a_penalised_model_says_that_it_has_no_errors(run, table):
    assert (
        run("fit", "data.csv", "--target", "price", "--alpha", 3, "--save", "m.json").exit_code == 0
    )
    done = run("summary", "m.json")
    assert done.exit_code == 0
    assert "m.json: price from 3 columns, alpha = 3" in done.stdout
    assert list(rows(done.stdout)) == ["column", "(intercept)", "a", "b", "c"]
    assert done.stderr == "Note: it was fitted with a penalty, and has no standard errors.\n"


def test_save_and_predict(run, table, tmp_path):
    table["day"] = pandas.date_range("2024-01-30", periods=40)
    table["kind"] = np.array(["red", "green", "blue"])[np.arange(40) % 3]
    table["price"] += table.kind.map({"red": 5.0, "green": -5.0, "blue": 0.0})
    table.to_csv("data.csv", index=False)
    options = ["--target", "price", "--encode", "onehot", "--dates", "--save", "model.json"]
    assert run("fit", "data.csv", *options).exit_code == 0
    wide = pandas.get_dummies(table.drop(columns="price"), drop_first=True, dtype=float)
    wide["day"] = (table.day - pandas.Timestamp(0)) / pandas.Timedelta(days=1)
    w = reference.least_squares(wide - wide.mean(), table.price, intercept=True)
    expected = w[0] + (wide - wide.mean()).to_numpy() @ w[1:]

    # Other rows, in another order, as Parquet.
    new = table.drop(columns="price").iloc[[7, 3, 30]]
    new.to_parquet("new.parquet", index=False)
    done = run("predict", "model.json", "new.parquet")
    assert done.exit_code == 0, done.stderr
    name, *values = done.stdout.splitlines()
    assert name == '"predicted price"'
    np.testing.assert_allclose(np.float64(values), expected[[7, 3, 30]], rtol=1e-6)

    new.loc[3, "a"] = np.nan
    new.to_csv("new.csv", index=False)
    assert "missing or infinite values: a has 1, the first in row 2" in (
        run("predict", "model.json", "new.csv").stderr
    )
    assert run("predict", "model.json", "new.csv", "--dropna", "-o", "out.csv").exit_code == 0
    written = pandas.read_csv("out.csv", skip_blank_lines=False)["predicted price"]
    np.testing.assert_allclose(written, [expected[7], np.nan, expected[30]], rtol=1e-6)

    for column, value, message in (
        ("kind", "pink", "kind has levels that the model was not fitted with: pink"),
        ("a", "x", "a is text, the model's is number"),
    ):
        new.astype({column: object}).assign(**{column: value}).to_csv("new.csv", index=False)
        done = run("predict", "model.json", "new.csv")
        assert done.exit_code == 1
        assert message in done.stderr
    new.drop(columns=["b", "day"]).to_csv("new.csv", index=False)
    assert "no column b, day. The table has: a, c, kind." in (
        run("predict", "model.json", "new.csv").stderr
    )


DAMAGED = {
    "": "is not a model that",
    "[]": "is not a model that",
    "{}": "is not a model that",
    '{"format": "linreg-ops model", "version": 3}': "is a model of version 3; this program reads",
    '{"format": "linreg-ops model", "version": 2}': "is damaged: KeyError",
    '{"format": "linreg-ops model", "version": 2, "targets": ["y"], "features": '
    '[{"column": "a", "kind": "number", "levels": []}], "intercept": [0], "coef": [[1], [2]], '
    '"alpha": [0], "solver": "exact", "fit_intercept": true, "statistics": null}':
        "is damaged: ValueError: coef must be [1, 1], got (2, 1)",
    '{"format": "linreg-ops model", "version": 2, "targets": ["y"], "features": '
    '[{"column": "a", "kind": "number", "levels": []}], "intercept": [NaN], "coef": [[1]], '
    '"alpha": [0], "solver": "exact", "fit_intercept": true, "statistics": null}':
        "a coefficient is not finite",
    "[" * 100_000: "is not a model that",
    "\x80": "is not a model that",
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("statistics", {"rows": 3}, "is damaged: TypeError"),
        ("statistics", [], "is damaged: TypeError"),
        ("errors", [[1.0]], "is damaged: ValueError: errors must be [4, 1], got [1, 1]"),
        ("rows", "many", "is damaged: TypeError: rows must be a number, got 'many'"),
        ("condition", [1.0], "is damaged: TypeError: condition must be a number"),
        ("sigma", 1.0, "is damaged: ValueError: sigma must be [1], got []"),
        ("alpha", [1.0, 2.0], "is damaged: ValueError: alpha must be [1], got (2,)"),
        ("solver", 3, "is damaged: TypeError"),
    ],
)
def test_summary_refuses_what_is_damaged(run, table, key, value, message):
    run("fit", "data.csv", "--target", "price", "--save", "model.json")
    content = json.loads(Path("model.json").read_text())
    (content if key in content else content["statistics"])[key] = value
    Path("model.json").write_text(json.dumps(content))
    done = run("summary", "model.json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert message in done.stderr


@pytest.mark.parametrize("content", DAMAGED)
def test_predict_refuses_what_is_no_model(run, tmp_path, content):
    (tmp_path / "model.json").write_bytes(content.encode("latin-1"))
    (tmp_path / "new.csv").write_text("a\n1\n2\n")
    done = run("predict", "model.json", "new.csv")
    assert done.exit_code == 1
    assert DAMAGED[content] in done.stderr
    assert done.stderr.count("\n") == 1


def unread(pipe):
    """Bytes in it that nobody has taken out."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("reads", [False, True], ids=["importing", "waiting for a table"])
def test_ctrl_c_is_a_word_and_exit_code_130(tmp_path, reads):
    program = (
        "import sys; from linreg_ops.__main__ import main\n"
        "sys.argv = ['linreg-ops', 'fit', '-', '--target', 'y']; print('begun', flush=True); main()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert running.stdout.readline() == "begun\n"
    time.sleep(0.2)
    if reads:
        print("a,y", file=running.stdin, flush=True)
        for _ in range(6000):
            if unread(running.stdin) == 0:
                break  # and it waits for more
            time.sleep(0.01)
        assert unread(running.stdin) == 0
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    # communicate would close its standard input, and so end the wait for a table
    assert running.wait(timeout=60) == 130
    assert running.stderr.read() == "Interrupted.\n"
    assert running.stdout.read() == ""
    for pipe in (running.stdin, running.stdout, running.stderr):
        pipe.close()


def test_bench(run, monkeypatch):
    monkeypatch.setattr(cli.bench, "_SECONDS", 0.0)
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    done = run("bench", "--rows", 300, "--features", 7, "--targets", 2, "--dtype", "float64")
    assert done.exit_code == 0
    assert "300 rows of 7, 2 targets, float64" in done.stdout
    assert "other programs are at work (load 1000)" in done.stderr
    ways = rows(done.stdout)
    for name in ("linreg_ops", "linreg_ops.kernels", "TensorFlow", "TensorFlow, tape", "NumPy"):
        time, times, speed, error = ways[name]
        assert re.fullmatch(r"[\d.]+ (µs|ms|s)", time)
        assert float(times) > 0
        assert re.fullmatch(r"[\d.e-]+ GB/s", speed)
        assert float(error) < 1e-13
    assert ways["linreg_ops"][1] == "1.00"


def test_bench_shows_an_error(run, monkeypatch):
    """The column can tell: a way that is off by a thousandth is."""
    monkeypatch.setattr(cli.bench, "_SECONDS", 0.0)
    right = cli.bench._numpy
    wrong = lambda x, w, y: lambda: (0.0, 1.001 * right(x, w, y)()[1])  # noqa: E731
    monkeypatch.setitem(cli.bench._WAYS, "NumPy", wrong)
    done = run("bench", "--rows", 300, "--dtype", "float64")
    assert rows(done.stdout)["NumPy"][-1] == "1e-03"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--rows", 0], 2, "'--rows'"),
        (["--features", 3], 2, "'--features': it is for --rows."),
        (["--rows", 10, "--targets", 0], 2, "'--targets'"),
        (["--dtype", "int8"], 2, "'int8' is not one of 'float32', 'float64'"),
        (["--rows", 10**12], 1, "--rows 1000000000000 --features 100 --targets 1 needs 4.8e+06 GB"),
        (["--rows", 10**12, "--features", 1, "--targets", 100], 1, "needs 4.8e+06 GB of memory"),
    ],
)
def test_bench_refuses(run, arguments, code, message):
    done = run("bench", *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, "linreg-ops "),
        (["fit", "nowhere.csv", "--target", "y"], 2, ""),
        (["fit", "text.csv", "--target", "y"], 1, ""),
    ],
)
def test_the_end_cannot_abort(tmp_path, arguments, code, said):
    """What threads of libraries do at exit changes no exit code, and loses nothing printed."""
    (tmp_path / "text.csv").write_text("a,y\nb,1\nc,2\n")
    program = (
        "import atexit, os, sys; atexit.register(os.abort); from linreg_ops.__main__ import main\n"
        f"sys.argv = ['linreg-ops', *{arguments}]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stdout.startswith(said)
    assert code == 0 or done.stderr.startswith("Error: ")


def test_version(run):
    assert run("--version").stdout == f"linreg-ops {linreg_ops.__version__}\n"


def test_completion(tmp_path):
    """As a shell asks for it: of a command, of an option, of an option's value."""
    (tmp_path / "data.csv").write_text("a,y\n1,2\n")

    def completed(line):
        environment = {
            "_LINREG_OPS_COMPLETE": "complete_bash", "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "linreg_ops"],
            cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert completed("linreg-ops su") == ["summary"]
    assert completed("linreg-ops fit data.csv --sol") == ["--solver"]
    assert completed("linreg-ops fit data.csv --solver e") == ["exact"]


def test_completion_is_installed_under_the_home_folder(tmp_path):
    # The variable lets the shell be named; else it is that of the process that called.
    environment = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "linreg_ops", "--install-completion", "bash"],
        env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    script = (tmp_path / ".bash_completions" / "linreg-ops.sh").read_text()
    assert "complete -o default -F _linreg_ops_completion linreg-ops" in script
    assert "linreg-ops.sh" in (tmp_path / ".bashrc").read_text()


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
        [sys.executable, "-m", "linreg_ops", "demo", "--steps", "5", "--no-million"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "np.polyfit" in done.stdout
    assert (tmp_path / "linreg_demo.png").exists()


def test_what_was_kept_off_the_terminal_is_shown_when_it_failed():
    program = """
    import os, sys, types
    from linreg_ops.cli.terminal import without_tensorflow_logs
    config = types.SimpleNamespace(list_logical_devices=lambda: os.write(2, b"no driver"))
    sys.modules["tensorflow"] = types.SimpleNamespace(config=config)
    with without_tensorflow_logs():
        os.write(2, b"no device")
        if sys.argv[1] == "fails":
            raise RuntimeError("no devices")
    """
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    said = {
        how: subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), how],
            env=environment, capture_output=True, text=True,
        ).stderr
        for how in ("fails", "works")
    }  # fmt: skip
    assert said["works"] == ""
    assert said["fails"].startswith("no driverno device")
    assert said["fails"].endswith("RuntimeError: no devices\n")


def test_help_and_no_arguments(run):
    assert run("--help").exit_code == 0
    assert "fit" in run("--help").stdout
    assert "..." not in run("--help").stdout.partition("Commands:")[2]  # no line is cut off
    assert "Usage" in run().output
    assert run("fit", "--help").stdout.count("--alpha NUMBER") == 1


def test_without_typer_says_what_to_install():
    program = (
        "import sys; sys.modules['typer'] = None; sys.argv = ['linreg-ops', 'demo']\n"
        "from linreg_ops.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd="/", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "the command line needs typer, which is not installed. Install it with: "
        "pip install typer rich"
    )
