"""Whole solutions: least squares and ridge, for time, error and memory, beside who is used for it.

Truth is refined in long double from a QR of columns centred and scaled, or certified by NIST.
"""

from __future__ import annotations

import gc
import importlib
import json
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from threadpoolctl import threadpool_limits

import linreg_ops as lo
from linreg_ops import kernels

from .harness import resident_growth
from .measure import settle, timing
from .problem import Array
from .results import Error, Row, Timing

if TYPE_CHECKING:
    from .harness import Session

Call = Callable[[], Any]
OURS = "linreg_ops"
NIST = Path(__file__).parent.parent / "tests" / "data" / "nist"


def suite(s: Session) -> Iterator[Row]:
    """Coefficients with their errors; penalties; sources; and the Gram kernel by itself."""
    with warnings.catch_warnings(), threadpool_limits(s.threads):
        warnings.simplefilter("ignore")  # peers warn of what their errors show
        yield from _nist(s)
        for dtype in (np.float32, np.float64):
            for condition in (1e0, 1e4, 1e8):
                yield _conditioned(s, dtype, condition)
        yield _penalties(s)
        yield _sources(s)
        for d in (16, 256, 768):
            yield _gram(s, d)


def _scale(s: Session) -> float:
    return {"full": 1.0, "quick": 0.1}.get(s.mode.name, 0.005)


def _times(s: Session, calls: dict[str, Call]) -> dict[str, Timing]:
    """Everyone in turn, in an order that is shuffled: these calls take long, and are warm."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    gc.collect()
    gc.disable()
    try:
        for _ in range(s.mode.rounds):
            shuffle(order)
            for name in order:
                if s.threads > 1:
                    settle()
                start = time.perf_counter()
                calls[name]()
                samples[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return {name: timing(found) for name, found in samples.items()}


def _row(
    s: Session,
    case: dict[str, Any],
    x: Array,
    calls: dict[str, Call],
    true: Array | None,
    *,
    memory: bool = False,
    clocks: dict[str, Timing] | None = None,
    flops: float = 0.0,
) -> Row:
    """A row of calls that give coefficients [d] or [k, d], or anything if there is no truth."""
    errors, failures = {}, {}
    extra: dict[str, Any] = {"unit": "digits"}
    done: dict[str, Call] = {}
    with s.turn.case():
        for name, call in calls.items():
            try:
                found = call()
            except Exception as failure:
                failures[name] = f"{type(failure).__name__}: {str(failure)[:160]}"
                continue
            done[name] = call
            if true is not None:
                errors[name] = _error(found, true)
        times = _times(s, done) | (clocks or {})
        if memory:
            grown = {name: resident_growth(call) for name, call in done.items()}
            extra["grown_bytes"] = grown
    n, d = x.shape
    return Row(
        case={"n": n, "d": d, "k": 1, "dtype": x.dtype.name, **case},
        bytes=x.nbytes,
        x_bytes=x.nbytes,
        read_bytes=x.nbytes,
        flops=flops or 2.0 * n * d * d,
        times=times,
        errors=errors,
        failures=failures,
        extra=extra,
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
    n, d = int(200_000 * _scale(s)), 100
    rng = np.random.default_rng(1)
    u = rng.standard_normal((n, d), np.float32).astype(np.float64)
    v, _ = np.linalg.qr(rng.standard_normal((d, d)))
    x = u * np.logspace(0, -np.log10(condition), d) @ v
    x += 1e3 * x.std(axis=0)
    x = x.astype(dtype)
    y = (x.astype(np.float64) @ rng.standard_normal(d)).astype(dtype)
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


def _probe(s: Session) -> tuple[Array, Array, Array]:
    """Frozen features in half precision, many targets, some of them noise: X, Y and penalties."""
    scale = _scale(s)
    n, d, k = int(40_000 * scale), int(256 * scale**0.25), int(200 * scale**0.5)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((n, d), np.float32)
    w = rng.standard_normal((d, k), np.float32) * np.logspace(-3, 0, k, dtype=np.float32)
    y = x @ w + rng.standard_normal((n, k), np.float32)
    return x.astype(np.float16), y, np.logspace(-2, 5, 20)


def _penalties(s: Session) -> Row:
    """A penalty for each target out of 20, over 5 folds where the peer can: no common truth."""
    x, y, alphas = _probe(s)
    linear = importlib.import_module("sklearn.linear_model")
    wide = x.astype(np.float32)  # what scikit-learn would copy to float64 otherwise
    calls = {
        f"{OURS} RidgeCV, a penalty a target, 5 folds": lambda: lo.RidgeCV(
            alphas, alpha_per_target=True, cv=5
        ).fit(x, y),
        f"{OURS} RidgeCV, a penalty a target, GCV": lambda: lo.RidgeCV(
            alphas, alpha_per_target=True, cv="gcv"
        ).fit(x, y),
        "scikit-learn RidgeCV, a penalty a target, leave-one-out": lambda: linear.RidgeCV(
            alphas, alpha_per_target=True
        ).fit(wide, y),
        "scikit-learn RidgeCV, one penalty, 5 folds": lambda: linear.RidgeCV(alphas, cv=5).fit(
            wide, y
        ),
    }
    case = {"k": y.shape[1], "what": "20 penalties"}
    return _row(s, case, x, calls, None, memory=True)


def _sources(s: Session) -> Row:
    """The sums of the same rows from memory, a memmap, Parquet and tf.data."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import tensorflow as tf

    x, y, _ = _probe(s)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", x)
        np.save(f"{folder}/y.npy", y)
        lists = {
            name: pa.FixedSizeListArray.from_arrays(a.reshape(-1), a.shape[1])
            for name, a in (("x", x), ("y", y))
        }
        pq.write_table(pa.table(lists), f"{folder}/rows.parquet", row_group_size=2**14)
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4096)
        read = lo.GramState.from_dataset
        calls = {
            f"{OURS} memory": lambda: read(x, y),
            f"{OURS} memmap": lambda: read(f"{folder}/x.npy", f"{folder}/y.npy"),
            f"{OURS} Parquet": lambda: read(f"{folder}/rows.parquet", target=["y"], columns=["x"]),
            f"{OURS} tf.data": lambda: read(dataset),
        }
        return _row(s, {"k": y.shape[1], "what": "sources"}, x, calls, None)


def _gram(s: Session, d: int) -> Row:
    """XᵀX alone: every pair of products is 2 operations, and half of the matrix is enough."""
    n = int(min(400_000, 1.5e10 / d**2) * _scale(s))
    x = np.random.default_rng(3).standard_normal((n, d), np.float32)
    wide = x.astype(np.float64)
    calls = {
        f"{OURS} kernels.gram": lambda: kernels.gram(x),
        f"{OURS} kernels.gram of float64": lambda: kernels.gram(wide),
        "NumPy float64 XᵀX": lambda: wide.T @ wide,
        "NumPy float64 XᵀX of a copy": lambda: (c := x.astype(np.float64)).T @ c,
    }
    peak = s.peaks.multiply_add(np.dtype(np.float64))
    clocks = {"fma float64": timing([peak() for _ in range(s.mode.rounds)])}
    case = {"what": "Gram matrix alone"}
    return _row(s, case, x, calls, None, clocks=clocks, flops=float(n) * d * (d + 1))
