"""Tables are taken for what they are: numbers are numbers, and all else is refused by name."""

import bz2
import gzip
import io
import json
import os
import subprocess
import sys

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from linreg_ops import cli

NUMBERS = "a,b,y\n1,2,3\n2,1,5\n3,5,1\n4,0,9\n"


@pytest.fixture
def fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.console, "_width", 120)

    def fit(content, *arguments, name="data.csv", target="y"):
        path = tmp_path / name
        if isinstance(content, pa.Table):
            pyarrow.parquet.write_table(content, path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            path.write_text(content)
        arguments = ["fit", name, "--target", target, *map(str, arguments)]
        return CliRunner().invoke(cli.app, arguments, catch_exceptions=False)

    return fit


def coefficients(done):
    assert done.exit_code == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return {line[0]: float(line[-1]) for line in lines if len(line) == 2 and line[0] != "column"}


def refusal(done):
    """What it says, on one line, with exit code 1 and nothing on stdout."""
    assert done.exit_code == 1, done.stdout
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("Error: ").rstrip("\n")


NOT_NUMBERS = [
    ("a,y\n2023_11,1\n321_04,2\n7,3\n", "a (text)"),
    ("a,y\n0x10,1\n1,2\n", "a (text)"),
    ("a,y\n1 000,1\n1,2\n", "a (text)"),
    ("a,y\n2024-01-01,1\n2024-02-01,2\n", "a (date)"),
    ("a,y\n2024-01-01 10:00,1\n,2\n", "a (date)"),
    ("a,y\n10:00,1\n11:30,2\n", "a (time of day)"),
    ("a,y\nred,1\n,2\n", "a (text)"),
    (pa.table({"a": ["01234", "05678"], "y": [1, 2]}), "a (text)"),
    (pa.table({"a": pa.array(["1", "2"], pa.large_string()), "y": [1, 2]}), "a (text)"),
    (pa.table({"a": pa.array(["1", "2"]).dictionary_encode(), "y": [1, 2]}), "a (text)"),
    (pa.table({"a": pa.array([b"1", b"2"]), "y": [1, 2]}), "a (binary)"),
    (pa.table({"a": pa.array([1, 2], pa.timestamp("ns")), "y": [1, 2]}), "a (date)"),
    (pa.table({"a": pa.array([1, None], pa.timestamp("ns", "UTC")), "y": [1, 2]}), "a (date)"),
    (pa.table({"a": pa.array([1, 2], pa.date32()), "y": [1, 2]}), "a (date)"),
    (pa.table({"a": pa.array([1, None], pa.duration("s")), "y": [1, 2]}), "a (duration)"),
    (pa.table({"a": pa.array([1, 2], pa.time32("s")), "y": [1, 2]}), "a (time of day)"),
    (pa.table({"a": [[1], [2]], "y": [1, 2]}), "a (list<element: int64>)"),
]


@pytest.mark.parametrize("as_target", [False, True])
@pytest.mark.parametrize(("content", "what"), NOT_NUMBERS)
def test_only_numbers_and_booleans_are_numbers(fit, content, what, as_target):
    name = "data.parquet" if isinstance(content, pa.Table) else "data.csv"
    said = refusal(fit(content, name=name, target="a" if as_target else "y"))
    assert said.startswith(f"1 column is not numeric: {what}. Leave out with --drop")


def test_all_that_are_not_numbers_are_named_at_once_with_what_to_do(fit):
    said = refusal(fit("a,b,c,d,y\nx,2024-01-01,p,1,1\ny,2024-01-02,q,2,2\n"))
    assert said == (
        "3 columns are not numeric: a, c (text); b (date). Leave out with --drop, encode text with "
        "--encode onehot, or take dates as days with --dates."
    )
    assert refusal(fit("a,y\nx,1\ny,2\n")).endswith(
        "Leave out with --drop, or encode text with --encode onehot."
    )


NUMERIC = [
    pa.array([0, 1, 2, 5], pa.int8()),
    pa.array([0, 1, 2, 5], pa.uint64()),
    pa.array([0, 1, 2, 5], pa.float32()),
    pa.array(np.float16([0, 1, 2, 5])),
    pa.array([0, 1, 2, 5]).cast(pa.decimal128(25, 3)),
    pa.array([0, 1, 2, 5]).dictionary_encode(),
    pa.array([False, True, False, True]),
]


@pytest.mark.parametrize("column", NUMERIC, ids=lambda c: str(c.type))
def test_every_numeric_type_is_a_number(fit, column):
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    x = np.float64([float(v) for v in plain.to_pylist()])
    done = fit(pa.table({"a": column, "y": 3 * x + 1}), name="data.parquet")
    assert coefficients(done) == pytest.approx({"(intercept)": 1.0, "a": 3.0})


def test_integers_that_float64_would_round_are_refused(fit):
    table = pa.table({"id": [2**53, 2**53 + 1, 7], "y": [1, 2, 3]})
    assert refusal(fit(table, name="data.parquet")) == (
        "column id has integers beyond 2^53, which float64 would round."
    )


def test_dates_and_levels_where_asked_for(fit):
    days = pa.array([0, 10, 20, 31, 5, 6], pa.date32())
    seconds = pa.array([0, 86400, 43200, 86400 * 3, 7, 0], pa.duration("s"))
    kinds = ["b", "a", "b", "c", "a", "c"]
    x = np.column_stack([
        [0, 10, 20, 31, 5, 6], np.float64(seconds.cast(pa.int64()).to_pylist()) / 86400,
        [k == "b" for k in kinds], [k == "c" for k in kinds],
    ])  # fmt: skip
    y = 4 + x @ [0.5, 2, -3, 7]
    table = pa.table({"day": days, "took": seconds, "kind": kinds, "y": y})
    done = fit(table, "--dates", "--encode", "onehot", name="data.parquet")
    expected = {"(intercept)": 4, "day": 0.5, "took": 2, "kind=b": -3, "kind=c": 7}
    assert coefficients(done) == pytest.approx(expected, rel=1e-6)


def test_missing_dates_and_levels_are_missing(fit):
    table = pa.table({
        "day": pa.array([0, None, 2, 3], pa.timestamp("us")), "kind": ["a", "b", None, "b"],
        "y": [1, 2, 3, 4],
    })  # fmt: skip
    said = refusal(fit(table, "--dates", "--encode", "onehot", name="data.parquet"))
    assert said == (
        "missing or infinite values: day has 1, the first in row 2; kind has 1, the first in row "
        "3. Fill them in, leave the rows out with --dropna, or the columns with --drop."
    )


def test_dropna_leaves_rows_out_and_says_so(fit):
    whole = fit("a,y\n1,3\n2,5.5\n4,9\n")
    done = fit("a,y\n1,3\n,7\n2,5.5\n3,inf\n4,9\n", "--dropna")
    assert coefficients(done) == coefficients(whole)
    assert "Note: 2 rows with missing values left out." in done.stderr
    assert refusal(fit("a,y\n,1\n2,\n", "--dropna")).endswith("every row has a missing value.")


ODD_ROWS = [
    ("a,b,y\n1,2,3,\n4,5,6,\n", "row 2 (the header is row 1) has 4 values for 3 columns: 1,2,3,"),
    ("a,b,y\n1,2,3\n4,5,6,7\n", "row 3 (the header is row 1) has 4 values for 3 columns: 4,5,6,7"),
    ("a,b,y\n1,2,3\n4,5\n", "row 3 (the header is row 1) has 2 values for 3 columns: 4,5"),
    ("a,b,y\n1,2,3,\n4,5,6\n", "row 2 (the header is row 1) has 4 values for 3 columns: 1,2,3,"),
]


@pytest.mark.parametrize(("content", "message"), ODD_ROWS)
def test_rows_of_another_length_are_refused_by_number(fit, content, message):
    assert refusal(fit(content)) == f"data.csv: {message}"


def test_types_are_guessed_from_every_row(fit):
    """Not from the first block: what is an integer for a million rows may end in a half."""
    rows = 300_000
    x = np.arange(rows)
    content = "a,y\n" + "".join(f"{v},{2 * v}\n" for v in x) + f"{rows}.5,{2 * rows + 1}\n"
    assert len(content) > 2**21
    assert coefficients(fit(content))["a"] == pytest.approx(2.0)
    assert "a (text)" in refusal(fit(content.replace(f"{rows}.5", "x")))


def test_escapes_in_names_are_shown_escaped(fit):
    content = "\x1b[31mred,b\u202e,y\n1,2,3\n2,1,5\n4,4,4\n9,7,9\n"
    done = fit(content, "-o", "picture.png")
    assert r"\x1b[31mred" in done.stdout
    assert r"b\u202e" in done.stdout
    for each in (done, fit(content, target="z"), fit(content, "--features", "\x1b[0m")):
        assert "\x1b" not in each.output
        assert "\u202e" not in each.output
    assert "\x1b" not in fit("a,y\n1,\x1b[31m\n1,2,3\n").output
    assert "\x1b" not in fit("a,y\n\x1b[31m,1,2\n").output


def test_features_may_be_given_again(fit):
    content = "a,b,c,y\n1,2,9,3\n2,1,7,5\n3,5,1,1\n4,0,2,9\n"
    both = coefficients(fit(content, "--features", "a,b"))
    assert set(both) == {"(intercept)", "a", "b"}
    assert coefficients(fit(content, "--features", "a", "--features", "b")) == both
    assert coefficients(fit(content, "--drop", "c")) == both
    assert refusal(fit(content, "--features", "a,a")) == "--features names a twice."
    assert (
        refusal(fit(content, "--features", "a", "--features", "a")) == "--features names a twice."
    )
    assert refusal(fit(content, "--features", "a,b", "--drop", "b")) == (
        "the column to drop b is among the features."
    )


def test_names_with_commas_can_be_named(fit):
    content = '"d,e",f,y\n1,2,3\n2,1,5\n3,5,1\n4,0,9\n'
    done = fit(content, "--features", "d,e", "--json")
    assert list(json.loads(done.stdout)["coefficients"]) == ["d,e"]
    done = fit(content, "--features", "d,e", "--features", "f", "--json")
    assert list(json.loads(done.stdout)["coefficients"]) == ["d,e", "f"]


def test_spaces_around_names_do_not_count(fit):
    spaced = fit("rooms, area, price\n1, 20, 3\n2, 25, 5\n3, 50, 1\n4, 0, 9\n", target="price")
    plain = fit("rooms,area,price\n1,20,3\n2,25,5\n3,50,1\n4,0,9\n", target="price")
    assert spaced.stdout == plain.stdout
    assert coefficients(fit("rooms, area, y\n1,2,3\n2,1,5\n4,4,9\n", "--features", "area"))
    assert refusal(fit("a, a,y\n1,2,3\n")) == "the table has more than one column a."


def test_names_are_shown_in_quotes_where_their_ends_would_not_be_seen(fit):
    assert refusal(fit('"a,b",,y\n1,2,3\n4,7,5\n', target=" z")) == (
        "no column z. The table has: 'a,b', '', y."
    )


def test_an_index_column_is_left_out_and_it_says_so(fit, tmp_path):
    frame = pandas.read_csv(io.StringIO(NUMBERS))
    frame.to_csv(tmp_path / "data.csv")
    done = fit(None)
    assert coefficients(done) == coefficients(fit(NUMBERS))
    assert "Note: the first column has no name and numbers the rows: left out." in done.stderr
    frame.set_index(pandas.Index([5, 1, 9, 7])).to_parquet(tmp_path / "data.parquet")
    assert coefficients(fit(None, name="data.parquet")) == coefficients(fit(NUMBERS))


@pytest.mark.parametrize("metadata", [b"", b"{", b"[]", b'{"index_columns": [7]}', b"\xff\xfe"])
def test_pandas_metadata_may_be_broken(fit, metadata):
    table = pa.table({"a": [1, 2, 4], "y": [1.0, 3.0, 7.0]})
    done = fit(table.replace_schema_metadata({b"pandas": metadata}), name="data.parquet")
    assert coefficients(done)["a"] == pytest.approx(2.0)


def test_other_ways_to_write_a_table(fit, monkeypatch):
    plain = coefficients(fit(NUMBERS))
    assert coefficients(fit(NUMBERS.replace(",", "\t"), name="data.tsv")) == plain
    semicolons = NUMBERS.replace(",", ";")
    assert coefficients(fit(semicolons, "--sep", ";")) == plain
    assert coefficients(fit(semicolons, "--sep", "semicolon")) == plain
    assert refusal(fit(semicolons)).endswith("Is the separator ';'? Say --sep ';'.")
    assert coefficients(fit(gzip.compress(NUMBERS.encode()), name="data.csv.gz")) == plain
    assert coefficients(fit(bz2.compress(NUMBERS.encode()), name="data.csv.bz2")) == plain
    assert coefficients(fit(NUMBERS.encode("utf-16"), name="data.csv")) == plain
    assert coefficients(fit(b"\xef\xbb\xbf" + NUMBERS.encode())) == plain
    assert coefficients(fit(NUMBERS.replace("\n", "\r\n").encode())) == plain
    for wrong in ("", ";;", '"', "é"):
        assert fit(NUMBERS, "--sep", wrong).exit_code == 2


def test_decimal_commas(fit):
    plain = coefficients(fit(NUMBERS))
    halves = "a;y\n0,5;1,5\n1;3,25\n-2e0;-4\n"
    exact = coefficients(fit("a,y\n0.5,1.5\n1,3.25\n-2e0,-4\n"))
    assert coefficients(fit(halves, "--sep", ";", "--decimal", ",")) == exact
    assert coefficients(fit(halves, "--sep", "semicolon", "--decimal", "comma")) == exact
    assert coefficients(fit(NUMBERS, "--decimal", "point")) == plain
    told = refusal(fit(halves, "--sep", ";"))
    assert "read 1,5 as a number with --decimal comma" in told
    assert "--decimal" not in refusal(fit("a,y\nred,1\nblue,2\nred,3\n"))
    for wrong in (",", ",,", "1", "-", ""):
        assert fit(NUMBERS, "--decimal", wrong).exit_code == 2
    assert "--sep ';'" in " ".join(fit(NUMBERS, "--decimal", ",").stderr.split())


def test_a_table_without_a_header(fit):
    done = fit("1,1\n2,3\n4,7\n", "--no-header", target="c2")
    assert coefficients(done)["c1"] == pytest.approx(2.0)
    told = refusal(fit("1,1\n2,3\n4,7,9\n", "--no-header", target="c2"))
    assert "row 3 has 3 values for 2 columns" in told
    frame = pandas.read_csv(io.StringIO(NUMBERS))
    table = pa.table({name: frame[name].to_numpy() for name in frame})
    for options in (["--no-header"], ["--sep", ";"], ["--decimal", ","]):
        assert "not Parquet" in refusal(fit(table, *options, name="data.parquet"))


def program(arguments, tmp_path, **options):
    return subprocess.run(
        [sys.executable, "-m", "linreg_ops", *arguments],
        cwd=tmp_path, capture_output=True, timeout=120, **options,
    )  # fmt: skip


def test_from_standard_input_to_an_ascii_pipe(fit, tmp_path):
    """R² and ½ Σ have no ASCII: replaced, not a traceback."""
    expected = coefficients(fit(NUMBERS))
    for encoding in ("ascii", "latin-1"):
        done = program(
            ["fit", "-", "--target", "y"], tmp_path, input=NUMBERS.encode(),
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode(encoding)
        assert "4 rows, R" in text
        lines = [line.replace("|", " ").split() for line in text.splitlines()]
        found = {line[0]: float(line[1]) for line in lines if line and line[0] in expected}
        assert found == pytest.approx(expected)


def test_refusals_survive_an_ascii_terminal(fit, tmp_path):
    (tmp_path / "data.csv").write_text("größe,y\nhoch,1\ntief,2\n")
    done = program(
        ["fit", "data.csv", "--target", "y"], tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.decode("ascii").startswith("Error: 1 column is not numeric: gr??e (text).")


REFUSED = [
    ("a,y\n1,2\n", "z", [], "no column z. The table has: a, y."),
    ("a,y\n1,2\n", "y", ["--features", "b,c"], "no column b, c. The table has: a, y."),
    ("a,y\n1,2\n", "y", ["--features", "y"], "the target y is among the features."),
    ("y\n1\n", "y", [], "the table has no column but the target y."),
    ("a,y\n", "y", [], "the table has no rows."),
    ("", "y", [], "data.csv cannot be read: Empty CSV file"),
    ("a,y\n1,2\n,3\n4,5\n", "y", [], "missing or infinite values: a has 1, the first in row 2. "),
    ("a,y\n1,2\n2,inf\n", "y", [], "missing or infinite values: y has 1, the first in row 2. "),
    ("a,y\n,2\n,3\n", "y", [], "missing or infinite values: a has 2, the first in row 1. "),
    ("a,w,y\n1,-1,2\n2,1,5\n", "y", ["--weights", "w"], "the weight w is negative in row 1."),
    ("a,w,y\n1,0,2\n2,0,5\n", "y", ["--weights", "w"], "every weight w is zero."),
    ("a,w,y\n1,0,2\n", "y", ["--weights", "y"], "the target y is named twice."),
    ("a,y\n1,2\n", "y", ["--test", "0.5"], "--test needs at least two rows."),
    ("a,y\nx,1\nx,2\n", "y", ["--encode", "onehot"], "no column is left to predict from: each "),
]  # fmt: skip


@pytest.mark.parametrize(("content", "target", "arguments", "message"), REFUSED)
def test_refuses(fit, content, target, arguments, message):
    assert refusal(fit(content, *arguments, target=target)).startswith(message)


def test_refuses_files_it_cannot_read(fit, tmp_path):
    assert fit(None, name="missing.csv").exit_code == 2
    assert "the name must end in .csv, .tsv, .txt" in refusal(fit("", name="data.xlsx"))
    assert "cannot be read" in refusal(fit(b"\xff\xfe\x00", name="data.csv"))
    assert "cannot be read" in refusal(fit(b"PAR1 but no more", name="data.parquet"))
    assert "cannot be read" in refusal(fit(b"no gzip", name="data.csv.gz"))


def test_pictures_through_links(fit, tmp_path):
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere" / "picture.png")
    done = fit(NUMBERS, "-o", "dangling.png")
    assert done.exit_code == 2
    assert "folder does not exist" in " ".join(done.stderr.replace("│", " ").split())
    (tmp_path / "link.png").symlink_to(tmp_path / "target.png")
    assert fit(NUMBERS, "-o", "link.png").exit_code == 0
    assert (tmp_path / "target.png").exists()


def test_a_picture_that_the_disk_refuses_is_a_line(fit, monkeypatch):
    from linreg_ops import plotting

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plotting, "save", full)
    done = fit(NUMBERS, "-o", "picture.png")
    assert done.exit_code == 1
    assert "Error: picture.png cannot be written: No space left on device." in done.stderr


def test_names_are_not_markup(fit):
    content = "[bold]a[/],y\n1,2\n2,3\n3,5\n"
    assert "[bold]a[/]" in fit(content).stdout
    assert "no column [red]z." in fit(content, target="[red]z").stderr
