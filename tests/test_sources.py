"""Rows from arrays, files, datasets, iterators: the same state, read once; stopped and resumed."""

import hashlib
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import tensorflow as tf

from linreg_ops import GramState, LinearRegression, RidgeCV


def digest(state):
    parts = []
    for fold in range(state.folds):
        sums = state.centred(fold=fold)
        parts += [sums.x_mean, sums.y_mean, sums.gram, sums.cross, sums.squares]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


@pytest.fixture
def rows(rng):
    x = rng.normal(size=(5000, 6)).astype(np.float32) + 3
    y = (x @ rng.normal(size=(6, 2)) + rng.normal(size=(5000, 2))).astype(np.float32)
    return x, y, rng.uniform(0.1, 1, size=5000)


def in_batches(*arrays, size=700):
    for i in range(0, len(arrays[0]), size):
        yield tuple(array[i : i + size] for array in arrays)


def parquet(path, x, y, s, **options):
    names = [f"x{j}" for j in range(x.shape[1])]
    columns = {n: pa.array(x[:, j]) for j, n in enumerate(names)}
    columns |= {f"y{j}": pa.array(y[:, j]) for j in range(y.shape[1])}
    pq.write_table(pa.table(columns | {"s": pa.array(s)}), path, row_group_size=900, **options)
    return names


@pytest.mark.parametrize("weighted", [True, False])
def test_every_source_gives_the_same_bits(weighted, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y, s = rows
    weight = s if weighted else None
    expected = digest(GramState(3).update(x, y, weight))
    np.save("x.npy", x)
    np.save("y.npy", y)
    np.save("s.npy", s)
    arrays = (x, y, s) if weighted else (x, y)
    names = parquet(tmp_path / "all.parquet", *rows)
    os.mkdir("parts")
    parquet("parts/a.parquet", x[:1234], y[:1234], s[:1234])
    parquet("parts/b.parquet", x[1234:], y[1234:], s[1234:])
    frame = pa.table({"x": pa.FixedSizeListArray.from_arrays(x.reshape(-1), 6)})
    for j in range(2):
        frame = frame.append_column(f"y{j}", pa.array(y[:, j]))
    pq.write_table(frame.append_column("s", pa.array(s)), "lists.parquet", row_group_size=900)
    named = {"target": ["y0", "y1"], "weight": "s" if weighted else None}
    dataset = tf.data.Dataset.from_tensor_slices(arrays)
    shapes = {
        "arrays": GramState.from_dataset(x, y, weight=weight, folds=3),
        "memmaps": GramState.from_dataset(
            np.load("x.npy", mmap_mode="r"), np.load("y.npy", mmap_mode="r"), weight=weight, folds=3
        ),
        "npy": GramState.from_dataset("x.npy", "y.npy", weight="s.npy" if weighted else None,
                                      folds=3),
        "sparse": GramState.from_dataset(scipy.sparse.csr_matrix(x), y, weight=weight, folds=3),
        "iterator": GramState.from_dataset(in_batches(*arrays), folds=3),
        "dataset of rows": GramState.from_dataset(dataset, folds=3),
        "dataset of batches": GramState.from_dataset(dataset.batch(999), folds=3),
        "parquet": GramState.from_dataset("all.parquet", columns=names, folds=3, **named),
        "parquet files": GramState.from_dataset("parts", columns=names, folds=3, **named),
        "parquet lists": GramState.from_dataset("lists.parquet", columns=["x"], folds=3, **named),
    }  # fmt: skip
    assert {name for name, state in shapes.items() if digest(state) != expected} == set()


def test_models_fit_to_sources(rows, tmp_path):
    x, y, s = rows
    names = parquet(tmp_path / "rows.parquet", *rows)
    model = LinearRegression().fit_dataset(tmp_path / "rows.parquet", target="y1", columns=names)
    whole = LinearRegression().fit(x, y[:, 1])
    np.testing.assert_allclose(model.coef_, whole.coef_, rtol=1e-10)
    assert model.coef_.shape == (6,)
    assert model.feature_names_in_.tolist() == names
    assert [line.split()[0] for line in str(model.summary()).splitlines()[-3:-1]] == ["x4", "x5"]
    model = RidgeCV([0.1, 1e3], cv=3, alpha_per_target=True).fit_dataset(in_batches(x, y, s))
    state = GramState(3).update(x, y, s)
    again = RidgeCV([0.1, 1e3], cv=3, alpha_per_target=True).fit_state(state)
    np.testing.assert_array_equal(model.coef_, again.coef_)
    assert LinearRegression().fit_dataset(x, y).n_features_in_ == 6


@pytest.mark.parametrize("kind", ["arrays", "iterator", "dataset", "parquet"])
def test_interrupted_it_goes_on_to_the_same_bits(kind, rows, tmp_path, monkeypatch):
    x, y, _ = rows
    names = parquet(tmp_path / "rows.parquet", *rows)
    monkeypatch.setattr("linreg_ops.sources._BATCH", 1)  # 1024 rows

    def state(**options):
        source = {
            "arrays": (x, y),
            "iterator": (in_batches(x, y),),
            "dataset": (tf.data.Dataset.from_tensor_slices((x, y)).batch(700),),
            "parquet": (tmp_path / "rows.parquet",),
        }[kind]
        if kind == "parquet":
            options |= {"target": ["y0", "y1"], "columns": names}
        return GramState.from_dataset(*source, folds=2, **options)

    path = tmp_path / "checkpoint.npz"
    update, calls = GramState.update, []

    def interrupted(self, *arguments, **options):
        calls.append(self.n_seen)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return update(self, *arguments, **options)

    monkeypatch.setattr(GramState, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        state(checkpoint=path)
    kept = GramState.load(path).n_seen
    assert kept == calls[-1] > 0
    assert digest(state(checkpoint=path)) == digest(GramState(2).update(x, y))
    assert calls[3] == kept
    # And what is complete is not summed again.
    count = len(calls)
    assert digest(state(checkpoint=path)) == digest(GramState(2).update(x, y))
    assert len(calls) == count + 1  # the one of the line above


SLOW = """
import sys, time
import numpy as np
import linreg_ops as lo

x, y = np.load(sys.argv[1] + "/x.npy"), np.load(sys.argv[1] + "/y.npy")

def rows():
    for i in range(0, len(x), 100):
        print("rows", i, flush=True)
        yield x[i : i + 100], y[i : i + 100]
        time.sleep(float(sys.argv[2]))

path = sys.argv[1] + "/checkpoint.npz"
state = lo.GramState.from_dataset(rows(), folds=2, checkpoint=path, checkpoint_seconds=0.0)
print("seen", state.n_seen)
state.save(sys.argv[1] + "/end.npz")
"""


def test_killed_it_goes_on_to_the_same_bits(rows, tmp_path):
    x, y, _ = rows
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    command = [sys.executable, "-c", SLOW, str(tmp_path)]
    with subprocess.Popen([*command, "0.05"], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.split()[-1] == "2000":
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    kept = GramState.load(tmp_path / "checkpoint.npz").n_seen
    assert 0 < kept <= 2000
    assert not (tmp_path / "end.npz").exists()
    done = subprocess.run([*command, "0"], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "seen 5000"
    assert digest(GramState.load(tmp_path / "end.npz")) == digest(GramState(2).update(x, y))


def test_a_checkpoint_of_other_rows_is_refused(rows, tmp_path):
    x, y, _ = rows
    path = tmp_path / "checkpoint.npz"
    GramState.from_dataset(x, y, checkpoint=path)
    for source in ((x[1:], y[1:]), (in_batches(x[1:], y[1:]),)):
        with pytest.raises(ValueError, match=r"checkpoint.npz is of other rows"):
            GramState.from_dataset(*source, checkpoint=path)
    with pytest.raises(ValueError, match=r"has 1 folds of 1 rows in turn, not 3 of 1"):
        GramState.from_dataset(x, y, folds=3, checkpoint=path)


def test_progress_shows_rows_and_bytes(rows, capsys):
    x, y, _ = rows
    GramState.from_dataset(x, y, progress=True)
    shown = capsys.readouterr().err
    assert "5000/5000" in shown
    assert "rows/s" in shown
    assert "GB/s" in shown
    GramState.from_dataset(x, y)  # stderr is no terminal here
    assert capsys.readouterr().err == ""


def test_x_larger_than_memory_need_not_be_in_it(tmp_path):
    """400 MB of float16 on disk in a process that may take 250 MB beside what it has."""
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float16, (1_000_000, 200))
    x[::1000] = 1.0
    np.save(tmp_path / "y.npy", np.arange(1_000_000.0))
    x.flush()
    program = f"""
import numpy as np
import linreg_ops as lo
lo.GramState(); lo.LinearRegression
def anonymous():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1])
before = anonymous()
model = lo.LinearRegression().fit_dataset({str(tmp_path / "x.npy")!r}, {str(tmp_path / "y.npy")!r})
print((anonymous() - before) // 1024, model.n_reads_)
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    grown, reads = map(int, done.stdout.split())
    assert reads == 1
    assert grown < 250


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.ones((3, 2)),), {}, ValueError, "y must be given"),
        ((np.ones((3, 2)), np.ones(4)), {}, ValueError, r"got \[3, 2\] and \[4\]"),
        ((np.ones(3), np.ones(3)), {}, ValueError, r"X must have shape \[n, d\]"),
        ((np.ones((3, 2)), np.ones(3)), {"target": "y"}, ValueError, "names of a Parquet file's"),
        ((5,), {}, TypeError, "source must be an array, a path"),
        (([1, 2],), {}, ValueError, r"rows must come as \(x, y\)"),
        (([],), {}, ValueError, "the source has no rows"),
        (("nowhere.parquet",), {"target": "y"}, FileNotFoundError, "no file nowhere.parquet"),
        (("nowhere.npy", np.ones(3)), {}, FileNotFoundError, "nowhere.npy"),
        (("nowhere.parquet", np.ones(3)), {}, ValueError, "y is for arrays"),
    ],
)
def test_what_is_no_source_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        GramState.from_dataset(*arguments, **options)


def test_parquet_that_does_not_fit_is_refused(rows, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": [1.0, None], "b": [1.0, 2.0], "c": ["u", "v"]}), path)
    with pytest.raises(ValueError, match=r"has no columns \['z'\]; it has \['a', 'b', 'c'\]"):
        GramState.from_dataset(path, target="z")
    with pytest.raises(ValueError, match=r"columns \['a'\] have missing values"):
        GramState.from_dataset(path, target="b", columns=["a"])
    with pytest.raises(ValueError, match="target must name"):
        GramState.from_dataset(path)
    with pytest.raises(ValueError, match="could not convert string to float"):
        GramState.from_dataset(path, target="b", columns=["c"])
