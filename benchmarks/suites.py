"""What is measured: each suite is a generator of rows, and answers one question."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from . import accuracy, descent, gram, keras_fit, on_disk, solvers, threads
from .harness import Session, resident_growth
from .problem import Problem
from .results import EAGER, KERNELS, Row

Suite = Callable[[Session], Iterator[Row]]

FEATURES = (1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 64, 100, 256, 1000, 4096, 16384, 40000)
FEW_FEATURES = (2, 16, 256)


def one_target(s: Session) -> Iterator[Row]:
    """How near to the machine's bandwidth one pass over a large X is, for every width of row."""
    plain: dict[str, Any] = {"intercept": False, "sample_weight": False}
    for dtype in (np.float32, np.float64) if s.is_full else (np.float32,):
        for d in FEATURES if s.is_full else FEW_FEATURES:
            n = s.rows_for(d, 1, np.dtype(dtype).itemsize)
            problem = s.arena.problem(n, d, dtype=dtype)
            yield s.row(problem, plain, costly=s.is_full and d in (2, 16, 256))
    widths = (1, 2, 5, 16, 100, 1000) if s.is_full else (16,)
    for d, name in itertools.product(widths, plain):
        options = {**plain, name: True}
        n = s.rows_for(d, 1 + options["sample_weight"], 4)
        yield s.row(s.arena.problem(n, d, **options), options)


def few_targets(s: Session) -> Iterator[Row]:
    """A handful of targets: still bound by reading X, or just not any more."""
    widths = (2, 5, 16, 64, 256, 1000, 4096) if s.is_full else FEW_FEATURES
    targets = (2, 3, 4, 8) if s.is_full else (2, 8)
    for d, k in itertools.product(widths, targets):
        problem = s.arena.problem(s.rows_for(d, k, 4), d, k)
        yield s.row(problem, {}, multiply_add=True)
    for d, k in itertools.product((4, 64), (2, 8)) if s.is_full else ():
        problem = s.arena.problem(s.rows_for(d, k, 8), d, k, np.float64)
        yield s.row(problem, {}, multiply_add=True)


def many_targets(s: Session) -> Iterator[Row]:
    """Two matrix products in one pass: against their arithmetic, and without an n x k array."""
    targets = (16, 32, 64, 128, 256, 512, 1024) if s.is_full else (16, 128)
    widths = (64, 256, 1000) if s.is_full else (256,)
    cases: list[tuple[int, int, Any]] = [(d, k, np.float32) for d in widths for k in targets]
    if s.is_full:
        cases += [(256, k, np.float64) for k in (16, 64, 256)]
    for d, k, dtype in cases:
        itemsize = np.dtype(dtype).itemsize
        # 16 GFLOP at most: the slowest peer then takes a quarter of a second.
        n = max(64, min(s.mode.large // 2 // (itemsize * d), int(4e9 / (d * k))))
        problem = s.arena.problem(n, d, k, dtype)
        row = s.row(problem, {}, multiply_add=True, seconds=s.mode.seconds)
        row.extra["grown_bytes"] = _grown(s, problem)
        row.extra["nk_bytes"] = n * k * itemsize
        yield row


def _grown(s: Session, problem: Problem) -> dict[str, int]:
    """Measured on the raw kernels, which hand everything back; TensorFlow keeps what it had."""
    return {p.name: resident_growth(p.prepare(problem)) for p in s.peers if p.name == KERNELS}


def grid(s: Session) -> Iterator[Row]:
    """In cache and tiny: a log grid of shapes, where the cost of a call counts as well."""
    rows = [round(10 ** (e / 2)) for e in range(0, 12)] if s.is_full else [1, 30, 1000]
    widths = (1, 3, 10, 32, 100, 1000) if s.is_full else (1, 10, 100)
    targets = (1, 4, 16, 64) if s.is_full else (1, 4)
    for n, d, k in itertools.product(rows, widths, targets):
        if n * d <= 4e6 and n * d * k <= 6e7 and n * k <= 4e6:
            seconds = 0.15 if s.is_full else 0.03
            yield s.row(s.arena.problem(n, d, k), {}, read=False, seconds=seconds)


def eager_call(s: Session) -> Iterator[Row]:
    """What a call costs at 50 x 2, beside one tf.matmul."""
    from .measure import interleave
    from .peers import tensor

    problem = s.arena.problem(50, 2)
    row = s.row(problem, {}, read=False)
    yield row
    import tensorflow as tf

    import linreg_ops as lo

    w, y, _ = map(tensor, problem.columns())
    x, w1, y1 = tensor(problem.x), tensor(problem.w), tensor(problem.y)

    def tape() -> Any:
        with tf.GradientTape() as t:
            t.watch(w)
            loss = tf.nn.l2_loss(tf.matmul(x, w) - y)
        return loss, t.gradient(loss, w)

    with s.turn.case():
        times = interleave(
            {
                EAGER: lambda: lo.linear_l2_loss_and_grad(x, w1, y1),
                "tf.matmul alone": lambda: tf.matmul(x, w),
                "TensorFlow tape": tape,
            },
            seconds=s.mode.seconds,
            rounds=s.mode.rounds,
        )
    case = {**row.case, "beside": "tf.matmul"}
    yield dataclasses.replace(row, case=case, times=times, errors={}, failures={})


def half(s: Session) -> Iterator[Row]:
    """16-bit X: as many bytes a second as float32, so twice the rows."""
    widths = (2, 16, 100, 1000) if s.is_full else (16,)
    for d in widths:
        for x_dtype in (np.float16, ml_dtypes.bfloat16):
            for w_dtype in (x_dtype, np.float32):
                name = np.dtype(w_dtype).name
                # Half as large as elsewhere: some peers take half a second for it.
                n = s.mode.large // 2 // (2 * d + np.dtype(w_dtype).itemsize)
                problem = s.arena.problem(n, d, 1, x_dtype, w_dtype)
                yield s.row(problem, {"w_dtype": name})
        n = s.rows_for(d, 1, 4)
        yield s.row(s.arena.problem(n, d), {"w_dtype": "float32"}, only=_ours_only(s))


def _ours_only(s: Session) -> list[str]:
    return [p.name for p in s.peers if p.name.startswith("linreg_ops")]


def over_rows(s: Session) -> Iterator[Row]:
    """Time over n at a fixed width, from one row to far beyond the caches."""
    for d in (2, 10, 100):
        largest = math.log10(s.mode.large / 2 / (4 * d))
        steps = 12 if s.is_full else 4
        for n in (round(10 ** (largest * i / steps)) for i in range(steps + 1)):
            yield s.row(s.arena.problem(n, d), {}, seconds=s.mode.seconds / 3)


SUITES: dict[str, Suite] = {
    "one_target": one_target,
    "few_targets": few_targets,
    "many_targets": many_targets,
    "over_rows": over_rows,
    "grid": grid,
    "eager_call": eager_call,
    "descent": descent.suite,
    "gram": gram.suite,
    "half": half,
    "keras": keras_fit.suite,
    "threads": threads.suite,
    "accuracy": accuracy.suite,
    "extremes": accuracy.extremes,
    "solvers": solvers.suite,
    "penalties": solvers.penalties,
    "on_disk": on_disk.suite,
}
