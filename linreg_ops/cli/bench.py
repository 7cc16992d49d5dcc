"""`linreg-ops bench`: one loss and gradient on this machine, beside TensorFlow and NumPy.

A glance, in seconds. The tables of the documentation come from `benchmarks`, in the repository.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from .terminal import console, duration, fail, note, say, show_columns, without_tensorflow_logs

_SECONDS = 1.0  # for each way on each problem, about; three rounds at least
_ROUNDS = 15
_SHORTEST = 1e-3  # what is shorter is timed in a row

Run = Callable[[], Any]


class Type(str, Enum):
    """What the numbers are."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Shape(NamedTuple):
    """X is [rows, features], Y [rows, targets]."""

    rows: int
    features: int
    targets: int

    def bytes(self, dtype: Type) -> int:
        """Those of X; or of Y, where it has more."""
        return self.rows * max(self.features, self.targets) * np.dtype(dtype.value).itemsize


# Few columns, the usual, many of everything, and one where only the call counts.
_SHAPES = [Shape(2_000_000, 5, 1), Shape(200_000, 100, 1), Shape(20_000, 1000, 8), Shape(50, 2, 1)]


def bench(
    rows: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, help="Rows of X; instead of 4 problems.")
    ] = None,
    features: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, show_default="100", help="With --rows.")
    ] = None,
    targets: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, show_default="1", help="With --rows.")
    ] = None,
    dtype: Annotated[Type, typer.Option(help="The type of the numbers.")] = Type.FLOAT32,
) -> None:
    """Time one loss and gradient here, beside TensorFlow and NumPy."""
    if rows is None and (features or targets):
        option = "--features" if features else "--targets"
        raise typer.BadParameter("it is for --rows.", param_hint=f"'{option}'")
    shapes = _SHAPES if rows is None else [Shape(rows, features or 100, targets or 1)]
    for shape in shapes:
        # X, TensorFlow's copies of it, and the float64 one that the error is taken from.
        need, room = 6 * shape.bytes(Type.FLOAT64), _available_memory()
        if need > room:
            fail(
                f"--rows {shape.rows} --features {shape.features} --targets {shape.targets} needs "
                f"{need / 1e9:.3g} GB of memory, and {room / 1e9:.3g} are available."
            )
    processors, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    if load > processors:
        note(f"other programs are at work (load {load:.0f}): the times may mean little.")
    with console.status("Starting TensorFlow"), without_tensorflow_logs():
        import tensorflow as tf

        from .. import _library
    for shape in shapes:
        with console.status(f"Timing {_name(shape)}"):
            columns = _measured(shape, dtype)
        say(f"{_name(shape)}, {dtype.value}")
        show_columns("", list(_WAYS), columns)
    isa = _library.build_info()["isa"]
    say(
        f"One loss, ½ Σ (xw - y)², and its gradient: median of {_ROUNDS} rounds, or of a second's. "
        f"{processors} processors, {isa}, TensorFlow {tf.__version__}, NumPy {np.__version__}. "
        "Error: the gradient's largest difference from NumPy's in float64, relative."
    )


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split(":")
        if name == "MemAvailable":
            return 1024 * int(value.split()[0])
    return sys.maxsize


def _name(shape: Shape) -> str:
    targets = f"{shape.targets} target{'s' if shape.targets > 1 else ''}"
    return f"{shape.rows:,} rows of {shape.features:,}, {targets}"


def _measured(shape: Shape, dtype: Type) -> list[tuple[str, list[str]]]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((shape.rows, shape.features), np.dtype(dtype.value))
    w = rng.standard_normal((shape.features, shape.targets)).astype(x.dtype)
    y = rng.standard_normal((shape.rows, shape.targets)).astype(x.dtype)
    runs = [way(x, w, y) for way in _WAYS.values()]
    truth = x.T.astype(np.float64) @ (x.astype(np.float64) @ w - y)
    errors = [np.abs(np.asarray(run()[1]) - truth).max() / np.abs(truth).max() for run in runs]
    seconds = _times(runs)
    return [
        ("time", [duration(s) for s in seconds]),
        ("times ours", [f"{s / seconds[0]:.2f}" for s in seconds]),
        ("of X", [f"{x.nbytes / s / 1e9:.3g} GB/s" for s in seconds]),
        ("error", [f"{error:.0e}" for error in errors]),
    ]


def _times(runs: list[Run]) -> list[float]:
    """Medians over rounds in which each runs in turn: what disturbs one disturbs all."""
    repeats = []
    for run in runs:
        took = _time(run, 1)
        repeats.append(max(1, round(_SHORTEST / max(took, 1e-7))))
    slowest = max(_time(run, n) * n for run, n in zip(runs, repeats, strict=True))
    rounds = max(3, min(_ROUNDS, int(_SECONDS / slowest)))
    measured = [
        [_time(run, n) for run, n in zip(runs, repeats, strict=True)] for _ in range(rounds)
    ]
    return [statistics.median(each) for each in zip(*measured, strict=True)]


def _time(run: Run, times: int) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - begin) / times


def _op(x: Any, w: Any, y: Any) -> Run:
    import tensorflow as tf

    from ..ops import linear_l2_loss_and_grad

    x, w, y = map(tf.constant, (x, w, y))
    return lambda: linear_l2_loss_and_grad(x, w, y)


def _kernel(x: Any, w: Any, y: Any) -> Run:
    from .. import kernels

    return lambda: kernels.loss_and_grad(x, w, y)


def _tape(x: Any, w: Any, y: Any) -> Run:
    import tensorflow as tf

    x, w, y = map(tf.constant, (x, w, y))

    def run(w: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = tf.nn.l2_loss(tf.matmul(x, w) - y)
        return loss, tape.gradient(loss, w)

    graph = tf.function(run)
    return lambda: graph(w)


def _stock(x: Any, w: Any, y: Any) -> Run:
    import tensorflow as tf

    x, w, y = map(tf.constant, (x, w, y))

    def run(w: Any) -> Any:
        r = tf.matmul(x, w) - y
        return tf.nn.l2_loss(r), tf.transpose(tf.matmul(r, x, transpose_a=True))

    graph = tf.function(run)
    return lambda: graph(w)


def _numpy(x: Any, w: Any, y: Any) -> Run:
    def run() -> Any:
        r = x @ w - y
        return 0.5 * np.vdot(r, r), (r.T @ x).T

    return run


_WAYS: dict[str, Callable[[Any, Any, Any], Run]] = {
    "linreg_ops": _op,
    "linreg_ops.kernels": _kernel,
    "TensorFlow": _stock,
    "TensorFlow, tape": _tape,
    "NumPy": _numpy,
}
