"""An epoch of Keras' `fit` of a linear probe: stock models beside the fused one, on the same rows.

An epoch is what a user waits for: Keras' own work is in it, which both have, batches cut from the
arrays and the optimizer's step. The first epoch of a `fit` is not timed: it compiles.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .measure import interleave
from .problem import Array, Problem
from .results import OURS, Error, Row

if TYPE_CHECKING:
    from .harness import Session

STOCK, PATCHED, MODEL = "TensorFlow Keras Dense", f"{OURS} patch", f"{OURS} LinearRegression"
Epoch = Callable[[], float]  # trains on, and returns the seconds that one epoch took


def suite(s: Session) -> Iterator[Row]:
    """Stochastic gradient descent with the mean squared error, by batches small and large."""
    n, d, batches = {
        "full": (20_000, 1024, (256, 4096)),
        "quick": (20_000, 1024, (4096,)),
    }.get(s.mode.name, (300, 16, (64,)))
    for k, batch in itertools.product((1, 10, 100), batches):
        yield _row(s, s.arena.problem(n, d, k), batch)


def _row(s: Session, p: Problem, batch: int) -> Row:
    rate = 0.05 * p.k  # Keras' mean is over the targets too
    true = _truth(p, batch, rate)
    epochs: dict[str, Epoch] = {}
    errors, failures = {}, {}
    with s.turn.case():
        for name, make in _contenders(s).items():
            try:
                model = make(p, rate)
                epochs[name], errors[name] = _prepare(model, p, batch, true)
            except Exception as failure:
                failures[name] = f"{type(failure).__name__}: {str(failure)[:160]}"
        times = interleave({}, epochs, seconds=2 * s.mode.seconds, rounds=s.mode.rounds)
    n, d = p.x.shape
    return Row(
        case={"n": n, "d": d, "k": p.k, "dtype": p.x.dtype.name, "batch": batch},
        bytes=p.bytes,
        x_bytes=p.x.nbytes,
        read_bytes=p.span.nbytes,
        flops=p.flops,
        times=times,
        errors=errors,
        failures=failures,
    )


def _contenders(s: Session) -> dict[str, Callable[..., Any]]:
    """Each with XLA and without, where the session has peers with XLA."""
    libraries = {peer.name.split()[0] for peer in s.peers}
    compiled = (False, True) if any("XLA" in peer.name for peer in s.peers) else (False,)
    return {
        f"{name}, XLA" if jit else name: partial(make, jit_compile=jit)
        for name, make in ((PATCHED, _patched), (MODEL, _model), (STOCK, _stock))
        for jit in compiled
        if name.split()[0] in libraries
    }


def _stock(p: Problem, rate: float, jit_compile: bool) -> Any:
    import keras

    model = keras.Sequential([keras.Input((p.x.shape[1],)), keras.layers.Dense(p.k)])
    model.compile(keras.optimizers.SGD(rate), loss="mse", jit_compile=jit_compile)
    return model


def _patched(p: Problem, rate: float, jit_compile: bool) -> Any:
    import linreg_ops as lo

    return lo.patch(_stock(p, rate, jit_compile))


def _model(p: Problem, rate: float, jit_compile: bool) -> Any:
    import keras

    import linreg_ops as lo

    model = lo.keras.LinearRegression(p.k)
    model.build((None, p.x.shape[1]))
    model.compile(keras.optimizers.SGD(rate), jit_compile=jit_compile)
    return model


def _prepare(model: Any, p: Problem, batch: int, true: tuple[float, Array]) -> tuple[Epoch, Error]:
    import keras

    w, y, _ = p.columns()
    fit = partial(model.fit, p.x, y, batch_size=batch, shuffle=False, verbose=0)
    model.set_weights([w, np.zeros(p.k, w.dtype)])
    loss = fit().history["loss"][0]
    kernel, bias = model.get_weights()
    found, (true_loss, true_w) = np.vstack([bias, kernel]), true
    error = Error(
        loss=float(f"{abs(loss - true_loss) / true_loss:.2e}"),
        grad=float(f"{np.linalg.norm(found - true_w) / np.linalg.norm(true_w):.2e}"),
    )

    def epoch() -> float:
        seen: list[float] = []

        def note(*_: Any) -> None:
            seen.append(time.perf_counter())

        clock = keras.callbacks.LambdaCallback(on_epoch_begin=note, on_epoch_end=note)
        fit(epochs=2, callbacks=[clock])
        return seen[3] - seen[2]

    return epoch, error


def _truth(p: Problem, batch: int, rate: float) -> tuple[float, Array]:
    """The first epoch in float64: the rows' mean loss as it went, and the last weights."""
    x = np.hstack([np.ones((len(p.x), 1)), p.x])
    w, y = (a.astype(np.float64) for a in p.columns()[:2])
    w, total = np.vstack([np.zeros(p.k), w]), 0.0
    for begin in range(0, len(x), batch):
        a, b = x[begin : begin + batch], y[begin : begin + batch]
        r = a @ w - b
        total += float(np.sum(r**2)) / p.k
        w -= rate * 2 / r.size * (a.T @ r)
    return total / len(x), w
