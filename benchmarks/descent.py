"""Whole trainings: full-batch gradient descent by every peer's own way of looping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .measure import interleave
from .peers import tensor, torch_tensor
from .problem import Array, Problem
from .results import EAGER, GRAPH, KERNELS, XLA, Error, Row

if TYPE_CHECKING:
    from .harness import Session

Call = Callable[[], Any]
Loop = Callable[[Problem, int, float], Call]

# (n, d, steps): the three, then X in L2 and in L3, and one beyond the caches.
CASES = (
    (50, 2, 50),
    (1000, 10, 200),
    (20_000, 50, 50),
    (2_000, 100, 100),
    (60_000, 100, 50),
    (400_000, 100, 10),
)


def suite(s: Session) -> Iterator[Row]:
    """Microseconds a training, and the bandwidth that its reading of X amounts to."""
    for n, d, steps in CASES if s.is_full else CASES[:2]:
        problem = s.arena.problem(n, d)
        rate = 1.0 / (2.0 * n)  # the Hessian is about n · I
        yield _row(s, problem, steps, rate, momentum=0.0)
    n, d, steps = CASES[1]
    for momentum in (0.9,):
        yield _row(s, s.arena.problem(n, d), steps, 0.2 / n, momentum)


def _row(s: Session, p: Problem, steps: int, rate: float, momentum: float) -> Row:
    libraries = {peer.name.split()[0] for peer in s.peers}
    loops = {name: loop for name, loop in LOOPS.items() if name.split()[0] in libraries}
    if momentum:
        loops = {name: loop for name, loop in loops.items() if name in _WITH_MOMENTUM}
    true = _truth(p, steps, rate, momentum)
    calls: dict[str, Call] = {}
    errors, failures = {}, {}
    with s.turn.case():
        for name, loop in loops.items():
            try:
                extra = {"momentum": momentum} if momentum else {}
                call = loop(p, steps, rate, **extra)
                w, losses = (np.asarray(a, np.float64) for a in call())
            except Exception as failure:
                failures[name] = f"{type(failure).__name__}: {str(failure)[:160]}"
                continue
            calls[name] = call
            errors[name] = _error(w, losses, *true)
        clocks = {
            f"read {name}": clock
            for name, clock in s.peaks.readers(p.span, passes=max(1, 2**24 // p.bytes)).items()
        }
        times = interleave(calls, clocks, seconds=2 * s.mode.seconds, rounds=s.mode.rounds)
    n, d = p.x.shape
    return Row(
        case={
            "n": n,
            "d": d,
            "k": 1,
            "dtype": p.x.dtype.name,
            "steps": steps,
            "momentum": momentum,
        },
        bytes=p.bytes * (steps + 1),  # the last pass is for the last loss
        x_bytes=p.x.nbytes,
        read_bytes=p.span.nbytes,
        flops=p.flops * (steps + 0.5),
        times=times,
        errors=errors,
        failures=failures,
    )


def _truth(p: Problem, steps: int, rate: float, momentum: float) -> tuple[Array, Array]:
    x, w, y = (a.astype(np.float64) for a in (p.x, p.w, p.y))
    v, losses = np.zeros_like(w), np.empty(steps + 1)
    for t in range(steps + 1):
        r = x @ w - y
        losses[t] = 0.5 * (r @ r)
        if t < steps:
            v = momentum * v - rate * (x.T @ r)
            w = w + v
    return w, losses


def _error(w: Array, losses: Array, true_w: Array, true_losses: Array) -> Error:
    """The errors of the last weights (under `grad`), and the largest of any iterate's loss."""
    return Error(
        loss=float(f"{np.max(np.abs(losses - true_losses) / true_losses):.2e}"),
        grad=float(f"{np.linalg.norm(w - true_w) / np.linalg.norm(true_w):.2e}"),
    )


def _ours_eager(p: Problem, steps: int, rate: float, **extra: Any) -> Call:
    import linreg_ops as lo

    x, w, y = map(tensor, (p.x, p.w, p.y))
    return partial(lo.gradient_descent, x, w, y, rate, steps, **extra)


def _ours_graph(
    p: Problem, steps: int, rate: float, jit_compile: bool = False, **extra: Any
) -> Call:
    import tensorflow as tf

    import linreg_ops as lo

    def train(x: Any, w: Any, y: Any) -> Any:
        return lo.gradient_descent(x, w, y, rate, steps, **extra)

    return partial(tf.function(train, jit_compile=jit_compile), *map(tensor, (p.x, p.w, p.y)))


def _ours_kernels(p: Problem, steps: int, rate: float, **extra: Any) -> Call:
    from linreg_ops import kernels

    return partial(kernels.gradient_descent, p.x, p.w, p.y, rate, steps, **extra)


def _tensorflow(p: Problem, steps: int, rate: float, how: str) -> Call:
    import tensorflow as tf

    w, y, _ = p.columns()
    arrays = tuple(map(tensor, (p.x, w, y)))

    def step(x: Any, w: Any, y: Any) -> tuple[Any, Any]:
        r = tf.matmul(x, w) - y
        return w - rate * tf.matmul(x, r, transpose_a=True), tf.nn.l2_loss(r)

    def eager(x: Any, w: Any, y: Any) -> tuple[Any, Any]:
        losses = []
        for _ in range(steps):
            w, loss = step(x, w, y)
            losses.append(loss)
        losses.append(tf.nn.l2_loss(tf.matmul(x, w) - y))
        return tf.squeeze(w, 1), tf.stack(losses)

    def loop(x: Any, w: Any, y: Any) -> tuple[Any, Any]:
        losses = tf.TensorArray(w.dtype, steps + 1)
        for t in tf.range(steps):
            w, loss = step(x, w, y)
            losses = losses.write(t, loss)
        losses = losses.write(steps, tf.nn.l2_loss(tf.matmul(x, w) - y))
        return tf.squeeze(w, 1), losses.stack()

    if how == "eager":
        return partial(eager, *arrays)
    return partial(tf.function(loop, jit_compile=how == "XLA"), *arrays)


def _numpy(p: Problem, steps: int, rate: float) -> Call:
    x, y = p.x, p.y
    r, grad, losses = np.empty_like(y), np.empty_like(p.w), np.empty(steps + 1, p.w.dtype)
    step_size = p.w.dtype.type(rate)

    def train() -> tuple[Array, Array]:
        w = p.w.copy()
        for t in range(steps + 1):
            np.matmul(x, w, out=r)
            np.subtract(r, y, out=r)
            losses[t] = 0.5 * np.vdot(r, r)
            if t < steps:
                np.matmul(x.T, r, out=grad)
                w -= step_size * grad
        return w, losses

    return train


def _torch(p: Problem, steps: int, rate: float) -> Call:
    import torch

    x, start, y = map(torch_tensor, (p.x, p.w, p.y))

    def train() -> tuple[Any, Any]:
        w, losses = start, []
        for _ in range(steps):
            r = torch.mv(x, w) - y
            losses.append(0.5 * torch.dot(r, r))
            w = torch.add(w, torch.mv(x.T, r), alpha=-rate)
        r = torch.mv(x, w) - y
        losses.append(0.5 * torch.dot(r, r))
        return w, torch.stack(losses)

    return train


def _jax(p: Problem, steps: int, rate: float) -> Call:
    import jax
    import jax.numpy as jnp

    arrays = tuple(map(jax.device_put, (p.x, p.w, p.y)))

    def train(x: Any, w: Any, y: Any) -> tuple[Any, Any]:
        def step(w: Any, _: None) -> tuple[Any, Any]:
            r = x @ w - y
            return w - jnp.asarray(rate, w.dtype) * (r @ x), 0.5 * jnp.vdot(r, r)

        w, losses = jax.lax.scan(step, w, None, length=steps)
        r = x @ w - y
        return w, jnp.append(losses, 0.5 * jnp.vdot(r, r))

    step = jax.jit(train)
    return lambda: jax.block_until_ready(step(*arrays))


LOOPS: dict[str, Callable[..., Call]] = {
    EAGER: _ours_eager,
    GRAPH: _ours_graph,
    XLA: partial(_ours_graph, jit_compile=True),
    KERNELS: _ours_kernels,
    "TensorFlow eager loop": partial(_tensorflow, how="eager"),
    "TensorFlow tf.function loop": partial(_tensorflow, how="loop"),
    "TensorFlow XLA loop": partial(_tensorflow, how="XLA"),
    "NumPy loop": _numpy,
    "PyTorch loop": _torch,
    "JAX lax.scan": _jax,
}
_WITH_MOMENTUM = (EAGER, GRAPH, XLA, KERNELS)
