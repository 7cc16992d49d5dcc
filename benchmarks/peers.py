"""Everyone who can compute loss and gradient, on the same arrays, as its users would write it.

A peer computes `r = x w - y`, `½ Σ s r²` and `xᵀ s r` with its own library's best calls: no tape,
no column of ones, and for NumPy no allocation either. What is not installed is left out.

The gradient is written (rᵀ x)ᵀ, which is never slower: one target in JAX takes 7 ms rather than 84
(d = 1000), four in PyTorch 23 rather than 107, in TensorFlow 8.4 rather than 11.3 (d = 256).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from .problem import Array, Problem
from .results import EAGER, GRAPH, KERNELS, XLA

Call = Callable[[], Any]


class Peer(NamedTuple):
    """`prepare` makes a call that takes nothing and waits until its results are there."""

    name: str
    prepare: Callable[[Problem], Call]
    costly: bool = False  # seconds of compilation for each new shape
    fetch: Callable[[Any], tuple[Any, Array]] = lambda out: (
        np.asarray(out[0]),
        np.asarray(out[1]),
    )


def limit_threads(threads: int) -> None:
    """The same threads for everyone. Frameworks go by the environment that they are imported in."""
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    if len(cpus) < threads:
        raise SystemExit(f"error: {threads} threads asked for, {len(cpus)} processors available")
    os.sched_setaffinity(0, cpus)
    for variable in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ):
        os.environ[variable] = str(threads)
    threadpool_limits(threads)  # NumPy is imported already
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def installed(only: list[str] | None = None) -> list[Peer]:
    """Ours and every peer whose library is here; `only`: libraries, by the first word."""
    found = []
    for library, peers in _LIBRARIES.items():
        if only is None or library in only:
            try:
                importlib.import_module(library)
            except ImportError:
                continue
            found += list(peers())
    return found


def _ours() -> Iterator[Peer]:
    from linreg_ops import kernels

    def prepare(p: Problem) -> Call:
        extra: dict[str, Any] = {"intercept": p.intercept}
        if p.sample_weight is not None:
            extra["sample_weight"] = p.sample_weight
        extra = {key: value for key, value in extra.items() if value is not False}
        return partial(kernels.loss_and_grad, p.x, p.w, p.y, **extra)

    yield Peer(KERNELS, prepare)
    yield from _ours_in_tensorflow()


def _ours_in_tensorflow() -> Iterator[Peer]:
    try:
        import tensorflow as tf
    except ImportError:
        return
    import linreg_ops as lo

    def eager(p: Problem) -> Call:
        x, w, y, s = map(tensor, (p.x, p.w, p.y, p.sample_weight))
        extra: dict[str, Any] = {"intercept": True} if p.intercept else {}
        if s is not None:
            extra["sample_weight"] = s
        return partial(lo.linear_l2_loss_and_grad, x, w, y, **extra)

    def graph(p: Problem, jit_compile: bool = False) -> Call:
        x, w, y, s = map(tensor, (p.x, p.w, p.y, p.sample_weight))

        def step(x: Any, w: Any, y: Any, s: Any) -> Any:
            return lo.linear_l2_loss_and_grad(x, w, y, intercept=p.intercept, sample_weight=s)

        return partial(tf.function(step, jit_compile=jit_compile), x, w, y, s)

    yield Peer(EAGER, eager, fetch=fetch_tensors)
    yield Peer(GRAPH, graph, fetch=fetch_tensors)
    yield Peer(XLA, partial(graph, jit_compile=True), fetch=fetch_tensors)


def tensor(array: Array | None) -> Any:
    """A TensorFlow tensor in NumPy's own memory."""
    import tensorflow as tf

    if array is None:
        return None
    if array.dtype.name == "bfloat16":  # which NumPy does not export
        return tf.bitcast(tensor(array.view(np.uint16)), tf.bfloat16)
    if array.size == 0 or array.ctypes.data % 64:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def fetch_tensors(out: Any) -> tuple[Any, Array]:
    return out[0].numpy(), out[1].numpy()


def _tensorflow() -> Iterator[Peer]:
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # a function a shape is what is wanted here

    def composite(x: Any, w: Any, y: Any, s: Any, intercept: bool) -> Any:
        x = x if x.dtype == w.dtype else tf.cast(x, w.dtype)
        r = tf.matmul(x, w[1:]) + w[:1] - y if intercept else tf.matmul(x, w) - y
        sr = r if s is None else s * r
        loss = tf.nn.l2_loss(r) if s is None else 0.5 * tf.reduce_sum(sr * r)
        grad = tf.transpose(tf.matmul(sr, x, transpose_a=True))
        if intercept:
            grad = tf.concat([tf.reduce_sum(sr, 0, keepdims=True), grad], 0)
        return loss, grad

    def prepare(wrap: Callable[[Any], Any], p: Problem) -> Call:
        w, y, s = p.columns()
        return partial(wrap(composite), *map(tensor, (p.x, w, y, s)), p.intercept)

    for how, wrap in {
        "eager": lambda f: f,
        "tf.function": tf.function,
        "XLA": partial(tf.function, jit_compile=True),
    }.items():
        yield Peer(f"TensorFlow {how}", partial(prepare, wrap), fetch=fetch_tensors)


def _numpy() -> Iterator[Peer]:
    def prepare(p: Problem) -> Call:
        if p.x.dtype.itemsize == 2:
            raise TypeError("NumPy has no fast product of 16-bit types")
        x, w, y, s, intercept = p.x, p.w, p.y, p.sample_weight, p.intercept
        column = s if s is None or y.ndim == 1 else s[:, None]
        r, sr, grad = np.empty_like(y), np.empty_like(y), np.empty_like(w)

        def run() -> tuple[Any, Array]:
            np.matmul(x, w[1:] if intercept else w, out=r)
            np.subtract(r, y, out=r)
            if intercept:
                np.add(r, w[0], out=r)
            scaled = r if column is None else np.multiply(column, r, out=sr)
            loss = 0.5 * np.vdot(scaled, r)
            np.matmul(x.T, scaled, out=grad[1:] if intercept else grad)
            if intercept:
                grad[0] = scaled.sum(0)
            return loss, grad

        return run

    yield Peer("NumPy", prepare)


def _torch() -> Iterator[Peer]:
    import torch

    torch.set_grad_enabled(False)

    def composite(x: Any, w: Any, y: Any, s: Any, intercept: bool) -> Any:
        x = x if x.dtype == w.dtype else x.to(w.dtype)
        r = x @ (w[1:] if intercept else w) - y
        if intercept:
            r = r + w[0]
        sr = r if s is None else s * r
        flat = r.reshape(-1)
        loss = 0.5 * torch.dot(flat, sr.reshape(-1))
        grad = sr @ x if sr.ndim == 1 else (sr.T @ x).T
        if intercept:
            grad = torch.cat([sr.sum(0, keepdim=True), grad])
        return loss, grad

    def arrays(p: Problem) -> tuple[Any, ...]:
        s = p.sample_weight
        s = s if s is None or p.y.ndim == 1 else s[:, None]
        return tuple(None if a is None else torch_tensor(a) for a in (p.x, p.w, p.y, s))

    def eager(p: Problem) -> Call:
        x, w, y, s = arrays(p)
        return partial(composite, x, w, y, s, p.intercept)

    def compiled(p: Problem) -> Call:
        torch._dynamo.reset()
        return partial(torch.compile(composite), *arrays(p), p.intercept)

    def fetch(out: Any) -> tuple[Any, Array]:
        return out[0].to(torch.float64).numpy(), out[1].to(torch.float64).numpy()

    yield Peer("PyTorch", eager, fetch=fetch)
    yield Peer("PyTorch compile", compiled, costly=True, fetch=fetch)


def torch_tensor(array: Array) -> Any:
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _jax() -> Iterator[Peer]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def composite(x: Any, w: Any, y: Any, s: Any, intercept: bool) -> Any:
        x = x if x.dtype == w.dtype else x.astype(w.dtype)
        r = x @ w[1:] + w[0] - y if intercept else x @ w - y
        sr = r if s is None else s * r
        loss = 0.5 * jnp.vdot(sr, r)
        grad = (sr.T @ x).T
        if intercept:
            grad = jnp.concatenate([sr.sum(0)[None], grad])
        return loss, grad

    def prepare(p: Problem) -> Call:
        s = p.sample_weight
        s = s if s is None or p.y.ndim == 1 else s[:, None]
        arrays = [None if a is None else jax.device_put(a) for a in (p.x, p.w, p.y, s)]
        step = jax.jit(composite, static_argnums=4)
        return lambda: jax.block_until_ready(step(*arrays, p.intercept))

    yield Peer("JAX", prepare)


_LIBRARIES: dict[str, Callable[[], Iterator[Peer]]] = {
    "linreg_ops": _ours,
    "tensorflow": _tensorflow,
    "numpy": _numpy,
    "torch": _torch,
    "jax": _jax,
}
