"""The benchmark measures, saves and reports; its figures are nobody's business here."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
# Last: `import linreg_ops` still finds the installed package first.
sys.path[len(sys.path) :] = [str(ROOT), str(ROOT / "docs")]

import generate  # noqa: E402

from benchmarks import builds, goals, gpu, gpu_tables, tables  # noqa: E402
from benchmarks.harness import Mode, Session  # noqa: E402
from benchmarks.machine import Peaks, describe  # noqa: E402
from benchmarks.measure import interleave  # noqa: E402
from benchmarks.peers import installed  # noqa: E402
from benchmarks.problem import Arena, error, truth  # noqa: E402
from benchmarks.results import EAGER, KERNELS, Results, Row, Timing, load_all  # noqa: E402
from benchmarks.suites import SUITES  # noqa: E402
from linreg_ops import _kernels  # noqa: E402

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def session() -> Session:
    found = installed(["linreg_ops", "tensorflow", "numpy"])
    return Session(Mode.smoke(), [p for p in found if "XLA" not in p.name], threads=1)


# The others differ from these in shapes only.
SMOKED = set(SUITES) - {"few_targets", "grid", "over_rows"}


@needs_compiler
@pytest.mark.parametrize("name", sorted(SMOKED))
def test_suite_measures_and_survives_json(session: Session, name: str, tmp_path: Path) -> None:
    rows = list(SUITES[name](session))
    results = Results(name, "smoke", describe(1), rows)
    path = results.save(tmp_path)
    assert Results.load(path) == results
    assert rows
    for row in rows:
        # Wrong results would make the times worthless. float16 sums to three digits.
        for who, wrong in row.errors.items():
            # How wrong peers are is what some suites show.
            if row.extra.get("unit") == "digits" and not who.startswith("linreg_ops"):
                continue
            if row.extra.get("unit") != "epsilon":
                assert wrong.grad < (0.02 if row.case.get("w_dtype") else 1e-4), (row.label, who)
        assert all(t.q1 <= t.median <= t.q3 for t in row.times.values())
        assert name in ("accuracy", "extremes") or any(
            n.startswith("linreg_ops") for n in row.times
        )
    assert all(isinstance(v.met, bool) for v in goals.verdicts({name: results}))
    assert "| problem |" in tables.suite(results)


def test_a_file_with_other_keys_is_refused(tmp_path: Path) -> None:
    row = Row({"n": 1}, 4, 4, 4, 4.0, {EAGER: Timing(1.0, 1.0, 1.0, 3)})
    path = Results("grid", "smoke", {}, [row]).save(tmp_path)
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"schema": 99}))
    with pytest.raises(ValueError, match="schema 99"):
        Results.load(path)
    data["rows"][0]["surprise"] = 1
    path.write_text(json.dumps(data))
    with pytest.raises(TypeError, match="surprise"):
        Results.load(path)


def test_derived_figures() -> None:
    def timing(seconds: float) -> Timing:
        return Timing(seconds, seconds, seconds, 3)

    times = {EAGER: 2e-3, KERNELS: 1.5e-3, "NumPy": 5e-3, "JAX": 4e-3, "read a": 2e-3}
    times |= {"read b": 1e-3, "fma float32": 1e-11}
    row = Row(
        {"n": 1000, "d": 1000, "k": 1, "dtype": "float32", "intercept": True},
        bytes=5_000_000,
        x_bytes=4_000_000,
        read_bytes=4_000_000,
        flops=4e6,
        times={name: timing(seconds) for name, seconds in times.items()},
    )
    assert row.label == "n=1000 d=1000 k=1 float32 intercept"
    assert row.peers() == ["NumPy", "JAX"]
    assert row.best() == "JAX"
    assert row.best("TensorFlow") is None
    assert row.bandwidth() == pytest.approx(4e9)
    assert row.floor() == pytest.approx(1.25e-3)  # reading all inputs; the arithmetic takes 0.04 ms
    assert row.fraction(EAGER) == pytest.approx(0.625)
    assert row.ratio("JAX") == pytest.approx(2.0)
    assert row.gigabytes_per_second(EAGER) == pytest.approx(2.0)


def test_a_wrong_result_shows_in_the_error() -> None:
    problem = Arena().problem(100, 3, 2, np.float64, intercept=True, sample_weight=True)
    true = truth(problem)
    assert true is not None
    loss, grad = float(true[0]), true[1].astype(np.float64)
    assert error((loss, grad), true).grad < 1e-15
    grad[0, 1] *= 1.01
    wrong = error((loss * 1.5, grad), true)
    assert wrong.loss == pytest.approx(0.5)
    assert 1e-4 < wrong.grad < 1e-2


def test_interleave_times_everyone() -> None:
    """The quick more often than the slow."""
    times = interleave({"a": lambda: None}, {"b": lambda: 2.0}, seconds=0, rounds=3)
    assert times["b"] == Timing(2.0, 2.0, 2.0, 3)
    assert 0 < times["a"].median < 1
    assert times["a"].samples == 12


@needs_compiler
def test_peaks() -> None:
    peaks = Peaks(threads=1)
    x = np.ones(1 << 20, np.uint8)
    assert len(peaks.best_readers(x)) == 3
    assert all(read() > 0 for read in peaks.readers(x, passes=2).values())
    for dtype in (np.float32, np.float64):
        assert 0 < peaks.multiply_add(np.dtype(dtype))() < 1e-8


def test_a_place_is_filled_with_its_block() -> None:
    text = "head\n<!-- generated: goals -->\nold\n<!-- end -->\ntail\n"
    filled = "head\n<!-- generated: goals -->\n\nnew\n\n<!-- end -->\ntail\n"
    assert generate.fill(text, {"goals": lambda: "new"}) == filled
    with pytest.raises(ValueError, match="no block 'goals'; there are losses"):
        generate.fill(text, {"losses": lambda: "new"})
    with pytest.raises(ValueError, match="lacks its <!-- end -->"):
        generate.fill(text.replace("<!-- end -->", ""), {"goals": lambda: "new"})


def test_pages_and_pictures_show_the_committed_results() -> None:
    outputs = dict(generate.outputs())
    stale = [
        path.name
        for path, content in outputs.items()
        if path.suffix == ".md" and path.read_bytes() != content
    ]
    assert stale == []
    pages = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    for path in outputs:
        assert path.exists()
        assert path.suffix == ".md" or f"images/{path.name}" in pages


def test_gpu_rows_are_rows_as_any_other(tmp_path: Path) -> None:
    case = {"n": 10, "d": 2, "k": 3, "dtype": "bfloat16", "unaligned": False, "route": "chunks"}
    slow, fast = (Timing(t, t, t, 5) for t in (2.0, 1.0))
    row = gpu.row(case, {KERNELS: fast, "PyTorch": slow, "read by sum": fast})
    assert row.bytes == 10 * (2 + 3) * 2  # y's too
    assert row.ratio("PyTorch", KERNELS) == 2
    assert row.fraction(KERNELS) == pytest.approx(row.bytes / gpu.GIB)
    results = Results("gpu_passes", "quick", {"gpu": "none"}, [row])
    assert Results.load(results.save(tmp_path)) == results
    assert "| d = 2, k = 3, bfloat16 | chunks | 1,000,000 |" in gpu_tables.passes(results)


def test_every_card_is_judged() -> None:
    cards = [load_all(card) for card in gpu_tables.CARDS.iterdir()]
    assert cards
    for suites in cards:
        assert suites.keys() <= gpu.SUITES.keys()
        judged = " ".join(v.goal for v in goals.verdicts(suites))
        assert all(f"GPU, {what}" in judged for what in ("one target", "2-4 targets", "a step"))


def test_a_case_that_fails_on_the_gpu_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(d: int) -> Row:
        if d == 1:
            raise RuntimeError("out of memory")
        return gpu.row({"n": 1, "d": d, "k": 1, "dtype": "float32"}, {})

    assert [row.case["d"] for row in gpu.measured(measure, [(0,), (1,), (2,)])] == [0, 2]
    assert "(1,): RuntimeError('out of memory')" in capsys.readouterr().err


def test_the_headline_has_six_rows_and_shows_a_loss() -> None:
    rows = tables.headline(load_all()).splitlines()[2:]
    assert len(rows) == 6
    assert "**" in rows[-1]


def test_a_build_runs_its_own_kernels(tmp_path):
    """Where the library of another build is loaded, it would serve this one too."""
    for library in Path(_kernels.__file__).parent.glob("*.so"):
        if not library.name.startswith("_ops"):
            shutil.copy(library, tmp_path)
    with closing(builds.Build(tmp_path)) as build:
        assert build.ask(n=50, d=2, k=1, dtype="float32", threads=1) > 0
    with pytest.raises(RuntimeError, match=r"liblinreg_ops_\w+.so is loaded, which is not of"):
        builds.load(tmp_path)


def test_a_folder_without_a_build_is_said(tmp_path, capfd):
    with pytest.raises(RuntimeError, match="process ended with 1"):
        builds.Build(tmp_path).ask(n=50, d=2, k=1, dtype="float32", threads=1)
    assert "no linreg_ops/_kernels*.so in" in capfd.readouterr().err
