"""Whole solutions: least squares and ridge, for time, error and memory, beside who is used for it.

Truth is refined in long double from a QR of columns centred and scaled, or certified by NIST.
"""

from __future__ import annotations

import gc
import importlib
import json
import random
import re
import resource
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from threadpoolctl import threadpool_limits

import linreg_ops as lo

from .harness import observed
from .measure import settle, timing
from .problem import Array
from .results import Error, Row, Timing

if TYPE_CHECKING:
    from .harness import Session

Call = Callable[[], Any]
OURS = "linreg_ops"
# Seconds from which a call is made once only.
LONG = 20.0
NIST = Path(__file__).parent.parent / "tests" / "data" / "nist"


def suite(s: Session) -> Iterator[Row]:
    """Coefficients with their errors."""
    with warnings.catch_warnings(), threadpool_limits(s.threads):
        warnings.simplefilter("ignore")  # peers warn of what their errors show
        yield from _nist(s)
        for dtype in (np.float32, np.float64):
            for condition in (1e0, 1e4, 1e8):
                yield _conditioned(s, dtype, condition)


def penalties(s: Session) -> Iterator[Row]:
    """A linear probe: penalties, and where the rows come from."""
    with warnings.catch_warnings(), threadpool_limits(s.threads):
        warnings.simplefilter("ignore")
        for probe in _probes(s):
            yield _penalties(s, probe)
        yield _sources(s, _probes(s)[-1])


def _scale(s: Session) -> float:
    return {"full": 1.0, "quick": 0.1}.get(s.mode.name, 0.001)


def _calls(
    s: Session, calls: dict[str, Call], true: Array | None
) -> tuple[dict[str, Timing], dict[str, Error], dict[str, str], dict[str, int]]:
    """Times, errors, failures and extra memory: everyone in turn, in an order that is shuffled.

    The first call of each is not timed, unless it takes so long that it is the only one.
    """
    errors, failures, grown = {}, {}, {}
    samples: dict[str, list[float]] = {}
    order, shuffle = list(calls), random.Random(0).shuffle
    gc.collect()
    gc.freeze()  # TensorFlow's objects: a collection before each call takes 0.2 s with them
    for name in list(order):
        gc.collect()
        try:
            found, seconds, grown[name] = observed(calls[name])
        except Exception as failure:
            failures[name] = f"{type(failure).__name__}: {str(failure)[:160]}"
            order.remove(name)
            continue
        if true is not None:
            errors[name] = _error(found, true)
        del found
        samples[name] = [seconds]
    again = [name for name in order if samples[name][0] < LONG]
    for name in again:
        samples[name].clear()
    for _ in range(s.mode.rounds):
        shuffle(again)
        for name in again:
            gc.collect()
            if s.threads > 1:
                settle()
            _, seconds, grown[name] = observed(calls[name])
            samples[name].append(seconds)
    gc.unfreeze()
    return {name: timing(found) for name, found in samples.items()}, errors, failures, grown


def _row(
    s: Session,
    case: dict[str, Any],
    x: Array,
    calls: dict[str, Call],
    true: Array | None,
    *,
    memory: bool = False,
) -> Row:
    """A row of calls that give coefficients [d] or [k, d], or anything if there is no truth."""
    with s.turn.case():
        times, errors, failures, grown = _calls(s, calls, true)
    n, d = x.shape
    return Row(
        case={"n": n, "d": d, "k": 1, "dtype": x.dtype.name, **case},
        bytes=x.nbytes,
        x_bytes=x.nbytes,
        read_bytes=x.nbytes,
        flops=2.0 * n * d * d,
        times=times,
        errors=errors,
        failures=failures,
        extra={"unit": "digits"} | ({"grown_bytes": grown} if memory else {}),
    )


def _error(found: Any, true: Array) -> Error:
    """The worst coefficient's, relative to itself."""
    with np.errstate(all="ignore"):
        worst = np.max(np.abs(np.asarray(found) - true) / np.abs(true))
    return Error(loss=0.0, grad=float(f"{worst:.2e}"))


def _peers(x: Array, y: Array, intercept: bool) -> dict[str, Call]:
    """Each as its users would call it; the coefficients of the columns [d]."""

    def with_ones() -> Array:
        return np.hstack([np.ones((len(x), 1), x.dtype), x]) if intercept else x

    def lstsq() -> Array:
        found = np.linalg.lstsq(with_ones(), y, rcond=None)[0]
        return np.asarray(found[int(intercept) :])

    def lsmr() -> Array:
        found = scipy.sparse.linalg.lsmr(with_ones(), y, atol=1e-12, btol=1e-12, conlim=0)[0]
        return np.asarray(found[int(intercept) :])

    def of(make: Callable[..., Any], *arguments: Any) -> Call:
        return lambda: make(*arguments, fit_intercept=intercept).fit(x, y).coef_

    linear = importlib.import_module("sklearn.linear_model")
    return {
        f"{OURS} LinearRegression": of(lo.LinearRegression),
        "NumPy lstsq": lstsq,
        "SciPy lsmr": lsmr,
        "scikit-learn LinearRegression": of(linear.LinearRegression),
        "scikit-learn Ridge(1e-12)": of(linear.Ridge, 1e-12),
    }


def _nist(s: Session) -> Iterator[Row]:
    """The eleven linear sets, whose coefficients are certified."""
    certified = json.loads((NIST / "exact.json").read_text())
    degrees = {"pontius": 2, "filip": 10, **{f"wampler{i}": 5 for i in range(1, 6)}}
    for name in sorted(certified):
        table = np.loadtxt(NIST / f"{name}.csv", delimiter=",", skiprows=1)
        y, x = table[:, 0], np.ascontiguousarray(table[:, 1:])
        x = x ** np.arange(1, degrees[name] + 1) if name in degrees else x
        intercept = not name.startswith("noint")
        true = np.array(certified[name]["coefficients"])[int(intercept) :]
        calls = _peers(x, y, intercept)
        yield _row(s, {"set": f"NIST {name}"}, x, calls, true)


def _conditioned(s: Session, dtype: Any, condition: float) -> Row:
    """Columns of a given condition number about offsets of 1000 of their deviations."""
    n, d = int(1_000_000 * _scale(s)), 100
    rng = np.random.default_rng(1)
    v, _ = np.linalg.qr(rng.standard_normal((d, d)))
    turn = np.logspace(0, -np.log10(condition), d)[:, None] * v
    offset, w = 1e3 * np.linalg.norm(turn, axis=0), rng.standard_normal(d)
    x, y = np.empty((n, d), dtype), np.empty(n, dtype)
    for rows in (slice(i, i + 2**14) for i in range(0, n, 2**14)):
        u = rng.standard_normal((len(y[rows]), d))
        x[rows] = u @ turn + offset
        y[rows] = x[rows].astype(np.float64) @ w
    y += rng.standard_normal(n).astype(dtype) * dtype(np.std(y) * 1e-2)
    case = {"condition": f"κ={condition:.0e}", "offset": "offsets 1000"}
    return _row(s, case, x, _peers(x, y, True), _truth(x, y), memory=True)


def _truth(x: Array, y: Array) -> Array:
    """Solves for centred columns of unit length: QR, refined in long double, by blocks."""
    wide, target = x.astype(np.float64), y.astype(np.longdouble)
    mean = np.zeros(x.shape[1], np.longdouble)
    parts = [slice(i, i + 2**14) for i in range(0, len(x), 2**14)]
    for rows in parts:
        mean += wide[rows].astype(np.longdouble).sum(axis=0)
    mean /= len(x)
    target = target - target.mean()
    centred = wide - mean.astype(np.float64)
    length = np.linalg.norm(centred, axis=0)
    r = scipy.linalg.qr(centred / length, mode="r", overwrite_a=True)[0][: x.shape[1]]
    w = np.zeros(x.shape[1], np.longdouble)
    for _ in range(3):
        gradient = np.zeros_like(w)
        for rows in parts:
            a = (wide[rows] - mean) / length
            gradient += a.T @ (target[rows] - a @ w)
        half = scipy.linalg.solve_triangular(r, gradient.astype(np.float64), trans=1)
        w = w + scipy.linalg.solve_triangular(r, half)
    return np.asarray(w / length, np.float64)


def _probes(s: Session) -> tuple[tuple[int, int, int], ...]:
    """Rows, features and targets: what scikit-learn gets done in minutes, then the whole task."""
    if s.is_full:
        return (60_000, 768, 200), (300_000, 768, 1000)
    return ((8000, 256, 60),) if s.mode.name == "quick" else ((400, 64, 10),)


def _probe(n: int, d: int, k: int) -> tuple[Array, Array]:
    """Frozen features in half precision, and many targets, some of them noise."""
    rng = np.random.default_rng(2)
    w = rng.standard_normal((d, k), np.float32) * np.logspace(-3, 0, k, dtype=np.float32)
    x, y = np.empty((n, d), np.float16), np.empty((n, k), np.float32)
    for rows in (slice(i, i + 2**14) for i in range(0, n, 2**14)):
        x[rows] = rng.standard_normal((len(x[rows]), d), np.float32)
        y[rows] = x[rows].astype(np.float32) @ w
        y[rows] += rng.standard_normal(y[rows].shape, np.float32)
    return x, y


def _penalties(s: Session, probe: tuple[int, int, int]) -> Row:
    """A penalty for each target out of 20, over 5 folds where the peer can: no common truth.

    Ours reads float16 from a file, peers float32 in memory: they would convert it. The largest
    probe is for those only who choose a penalty for each target.
    """
    x, y = _probe(*probe)
    alphas = np.logspace(-2, 5, 20)
    options: dict[str, Any] = {"alpha_per_target": True}
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", x)
        mapped = np.load(f"{folder}/x.npy", mmap_mode="r")
        calls = {
            f"{OURS} RidgeCV, a penalty a target, 5 folds": lambda: lo.RidgeCV(
                alphas, cv=5, **options
            ).fit(mapped, y),
            f"{OURS} RidgeCV, a penalty a target, GCV": lambda: lo.RidgeCV(
                alphas, cv="gcv", **options
            ).fit(mapped, y),
            **_penalty_peers(x, y, alphas, small=probe == _probes(s)[0]),
        }
        case = {"k": y.shape[1], "what": "20 penalties"}
        return _row(s, case, x, calls, None, memory=True)


@contextmanager
def _no_more_memory_than_there_is() -> Iterator[None]:
    """An allocation beyond it is a MemoryError, not the end of the process."""
    status = Path("/proc/self/status").read_text()
    free = Path("/proc/meminfo").read_text()
    held = int(re.findall(r"VmSize:\s+(\d+) kB", status)[0])
    available = int(re.findall(r"MemAvailable:\s+(\d+) kB", free)[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, ((held + available * 9 // 10) << 10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _penalty_peers(x: Array, y: Array, alphas: Array, small: bool) -> dict[str, Call]:
    linear = importlib.import_module("sklearn.linear_model")
    wide = x.astype(np.float32)
    calls = {}
    try:
        ridge = importlib.import_module("himalaya.ridge")
    except ImportError:
        pass
    else:
        # It has an array of [penalties, rows held out, rows fitted], 43 GiB for the smaller probe.
        def himalaya() -> Any:
            with _no_more_memory_than_there_is():
                return ridge.RidgeCV(alphas, fit_intercept=True, cv=5).fit(wide, y)

        calls["himalaya RidgeCV, a penalty a target, 5 folds"] = himalaya
    if small:
        calls |= {
            "scikit-learn RidgeCV, a penalty a target, leave-one-out": lambda: linear.RidgeCV(
                alphas, alpha_per_target=True
            ).fit(wide, y),
            "scikit-learn RidgeCV, one penalty, 5 folds": lambda: linear.RidgeCV(alphas, cv=5).fit(
                wide, y
            ),
        }
    return calls


def _sources(s: Session, probe: tuple[int, int, int]) -> Row:
    """The sums of the same rows from memory, a memmap, Parquet and tf.data.

    Beside them what the reader takes that hands out the same batches, and does nothing with them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import tensorflow as tf

    x, y = _probe(*probe)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", x)
        np.save(f"{folder}/y.npy", y)
        lists = {
            name: pa.FixedSizeListArray.from_arrays(a.reshape(-1), a.shape[1])
            for name, a in (("x", x), ("y", y))
        }
        pq.write_table(pa.table(lists), f"{folder}/rows.parquet", row_group_size=2**14)
        del lists
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4096)
        read = lo.GramState.from_dataset
        options: dict[str, Any] = {"target": ["y"], "columns": ["x"]}
        calls = {
            f"{OURS} memory": lambda: read(x, y),
            f"{OURS} memmap": lambda: read(f"{folder}/x.npy", f"{folder}/y.npy"),
            f"{OURS} Parquet": lambda: read(f"{folder}/rows.parquet", **options),
            f"{OURS} tf.data": lambda: read(dataset),
            "pyarrow reads Parquet": lambda: _exhaust(
                pq.ParquetFile(f"{folder}/rows.parquet").iter_batches()
            ),
            "tf.data reads": lambda: _exhaust(dataset.as_numpy_iterator()),
        }
        return _row(s, {"k": y.shape[1], "what": "sources"}, x, calls, None, memory=True)


def _exhaust(batches: Iterable[Any]) -> None:
    for _ in batches:
        pass
