"""The truth about a call of fuzz.py: its results in float64, and how far they may be off.

A sum may be off by a part of what is added in it, in absolute value. Where the composite in the
type that the kernels compute in is not finite either, a result need not be: an order of additions
that differs, or a product that overflows on the way, makes NaN of what float64 can hold. A number
where both say that there is none is wrong, and so is none where one of them has it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

RELATIVE = {8: 1e-11, 4: 1e-3, 2: 0.03}  # by the size of an element


class Sums(NamedTuple):
    """A result in float64, the sum of what is added in it, and the same in the kernels' type."""

    value: np.ndarray
    added: np.ndarray
    narrow: np.ndarray


def wrong(call: Any, results: list[Any]) -> str | None:
    """What is wrong with an answer, where it can be told."""
    a = call.arrays
    x, w, y, s = a["x"], a["w"], a["y"], a.get("sample_weight")
    if call.function == "fit":
        return fit_differs(call, results)
    taken = {"gram": [x, y, s], "raw_product": [x, w, s]}.get(call.function, [x, w, y, s])
    if any(array is not None and array.dtype.kind not in "fV" for array in taken):
        return "an answer for elements that are not floating-point numbers"
    if call.function == "raw_saved":
        same = np.array_equal(*(np.asarray(g, np.float64) for g in (results[0], a["grad"])), True)
        return None if same else "the gradient is another"
    if call.function == "gram":
        return differs(results, gram(x, y, s), np.dtype(np.float64))
    if "descent" in call.function:
        return descent_differs(call, results)
    product = call.function == "raw_product"
    loss, grad = composite(x, w, None if product else y, s, call.options["intercept"])
    want = {
        "loss": {0: loss},
        "gradients": {0: loss, 2: grad},
        "loss_and_grad": {0: loss, 1: grad},
        "raw_loss_grad": {1: grad},
        "raw_product": {0: grad},
    }[call.function]
    return differs(results, want, w.dtype)


def differs(results: list[Any], want: dict[int, Sums], dtype: np.dtype) -> str | None:
    smallest = float(ml_dtypes.finfo(dtype).tiny)
    for i, exact in want.items():
        got = np.asarray(results[i])
        if got.shape != exact.value.shape:
            return f"result {i} has shape {got.shape}, not {exact.value.shape}"
        if got.size > 10**6:  # zeros of a huge size
            continue
        got = got.astype(np.float64)
        value, narrow = (a.astype(dtype).astype(np.float64) for a in (exact.value, exact.narrow))
        bound = RELATIVE[dtype.itemsize] * np.where(np.isfinite(exact.added), exact.added, 0)
        right = got == value
        right |= np.abs(got - value) <= bound + smallest
        right |= ~np.isfinite(got) & ~np.isfinite(narrow)
        # At the edge of the type's range rounding decides.
        right |= ~np.isfinite(value) & (np.abs(got) > 0.9 * float(ml_dtypes.finfo(dtype).max))
        if not right.all():
            at = np.unravel_index(np.argmin(right), right.shape)
            return f"result {i} is {got[at]}, not {value[at]} within {bound[at]}, at {at}"
    return None


# ------------------------------------------------------------------------------------ composites


def widened(*arrays: Any) -> list[Any]:
    return [None if a is None else a.astype(np.float64) for a in arrays]


def absolute(*arrays: Any) -> list[Any]:
    return [None if a is None else np.abs(a) for a in arrays]


def narrowed(w: np.ndarray, *arrays: Any) -> list[Any]:
    """In the type that the kernels compute in."""
    dtype = np.float64 if w.dtype.itemsize == 8 else np.float32
    return [None if a is None else a.astype(dtype) for a in arrays]


def composite(
    x: np.ndarray, w: np.ndarray, y: np.ndarray | None, s: Any, intercept: bool
) -> tuple[Sums, Sums]:
    """The loss of all problems, and their gradients; where no array has elements, zeros."""
    *batch, n, d = x.shape
    k = w.shape[-1] if w.ndim > 1 else 1
    if 0 in (n, k, *batch):
        return Sums(*3 * [np.zeros(())]), Sums(*3 * [zeros(w.shape)])
    arrays = widened(x, w, y, s)
    loss, grad = evaluated(*arrays, intercept)
    # A residual that is flushed to zero is off by the smallest number, and its products too.
    flushed = float(ml_dtypes.finfo(w.dtype).tiny) / RELATIVE[w.dtype.itemsize] * (d + 1)
    added = evaluated(*absolute(*arrays), intercept, added=flushed)
    with np.errstate(all="ignore"):
        narrow = evaluated(*narrowed(w, x, w, y, s), intercept)
    return Sums(loss, added[0], narrow[0]), Sums(grad, added[1], narrow[1])


def evaluated(
    x: np.ndarray, w: np.ndarray, y: Any, s: Any, intercept: bool, added: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient in the type of the arrays; of absolute values: what is added in them."""
    n, d = x.shape[-2:]
    half = w.dtype.type(0.5)
    if y is None and d == 0:  # of any size: a column of ones at most
        total = np.full(x.shape[:-2], w.dtype.type(n)) if s is None else s.sum(-1)
        total = total[..., None, None] if w.ndim > 1 else total[..., None]
        return half * (total * w * w).sum(), w * total
    if intercept:
        x = np.concatenate([np.ones_like(x, shape=(*x.shape[:-1], 1)), x], -1)
    vector = w.ndim == 1
    w = w[:, None] if vector else w
    r = x @ w
    if y is not None:
        y = y[:, None] if vector else y
        r = r - y if added is None else r + y
    if added is not None:
        r = r + added
    weighted = r if s is None else r * s[..., None]
    if added is not None:
        weighted = weighted + added
    grad = np.swapaxes(x, -1, -2) @ weighted
    return half * (r * weighted).sum(), grad[..., 0] if vector else grad


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Has any shape: one zero that is repeated takes no memory."""
    return np.broadcast_to(np.zeros(()), shape)


def gram(x: np.ndarray, y: np.ndarray | None, s: np.ndarray | None) -> dict[int, Sums]:
    n, d = x.shape
    k = 0 if y is None else y.shape[1] if y.ndim == 2 else 1
    if n == 0:
        shapes = [(d, d), (d, k), (k,), (d,), (k,), ()]
        return {i: Sums(*3 * [zeros(shape)]) for i, shape in enumerate(shapes)}
    x, y, s = widened(x, np.zeros((n, 0)) if y is None else y.reshape(n, k), s)
    s = np.ones(n) if s is None else s

    def sums(x: np.ndarray, y: np.ndarray, s: np.ndarray) -> list[np.ndarray]:
        sx, sy = x * s[:, None], y * s[:, None]
        return [sx.T @ x, sx.T @ y, (sy * y).sum(0), sx.sum(0), sy.sum(0), s.sum()]

    pairs = zip(sums(x, y, s), sums(*absolute(x, y, s)), strict=True)
    return {i: Sums(value, added, value) for i, (value, added) in enumerate(pairs)}


# -------------------------------------------------------------------------------------- estimators


def fit_differs(call: Any, results: list[Any]) -> str | None:
    """The gradient at least squares is 0, but for a part of what is added in it."""
    x, y, s = widened(*(call.arrays.get(name) for name in ("x", "y", "sample_weight")))
    coefficients, constant = (np.asarray(a, np.float64) for a in results)
    if not (np.isfinite(coefficients).all() and np.isfinite(constant).all()):
        return f"coefficients {coefficients}, {constant}"
    y = y.reshape(len(x), -1)
    w = coefficients.reshape(y.shape[1], -1).T
    if call.options["intercept"]:
        w = np.vstack([np.broadcast_to(constant, (1, y.shape[1])), w])
    intercept = call.options["intercept"]
    _, grad = evaluated(x, w, y, s, intercept)
    _, added = evaluated(*absolute(x, w, y, s), intercept, added=float(np.finfo(np.float64).tiny))
    wrong = np.isfinite(added) & (np.abs(grad) > 1e-6 * added)
    if not wrong.any():
        return None
    at = np.unravel_index(np.argmax(wrong), wrong.shape)
    return f"the gradient is {grad[at]} of {added[at]}, at {at}"


# --------------------------------------------------------------------------------------- descents


def descent_differs(call: Any, results: list[Any]) -> str | None:
    """Against the steps in float64, where they are few and small, on numbers that are not huge."""
    a = call.arrays
    x, w, y, s = a["x"], a["w"], a["y"], a.get("sample_weight")
    rate, momentum, steps = a["learning_rate"], a["momentum"], int(a["num_steps"])
    finite = np.isfinite(rate).all() and np.isfinite(momentum) and np.abs(rate).max(initial=0) < 1
    if not (x.ndim == 2 and finite) or steps > 100 or w.dtype.itemsize == 2:
        return None
    if not all(tame(array) for array in (x, w, y, s)):
        return None
    rates = np.broadcast_to(rate, steps)
    wide, weights = widened(x, w, y, s), w.astype(np.float64)
    v, losses = np.zeros_like(weights), []
    for t in range(steps + 1):
        loss, grad = composite(wide[0], weights, wide[2], wide[3], call.options["intercept"])
        losses.append(loss.value)
        if t < steps:
            v = momentum * v - rates[t] * grad.value
            weights = weights + v
    for i, exact in enumerate((weights, np.array(losses))):
        got = np.asarray(results[i]).astype(np.float64)
        if got.shape != exact.shape:
            return f"result {i} has shape {got.shape}, not {exact.shape}"
        scale = np.max(np.abs(exact), initial=1.0)
        if scale < 1e30 and not np.allclose(got, exact, rtol=0.05, atol=1e-3 * scale):
            return f"result {i} is wrong"
    return None


def tame(a: np.ndarray | None) -> bool:
    return a is None or a.size == 0 or bool(np.abs(a.astype(np.float64)).max() < 1e3)
