"""Truth, and how far from it a result may be.

Truth is computed in extended precision, row by row, unlike any kernel. A result may be off by the
stock composite's own error on the same input plus a bound derived from the arithmetic:

    r = xw - y is a sum of d + 2 terms in precision u, so |δr| ≤ (d + 2) u (|x||w| + |y|)
    g = Σ x s r adds m terms before they are merged in float64: |δg| ≤ Σ|x| s |δr| + m u Σ|x s r|
    L = ½ Σ s r²: |δL| ≤ Σ s |r| |δr| + 4 u L, as the squares are summed in float64

with u the unit roundoff of the accumulators, plus one rounding to the result's own type.
"""

from dataclasses import dataclass

import numpy as np


def integers(*shape, seed=1):
    """Small integers in float64: their sums and products are exact, to be compared bit by bit."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float64)


# The longest chain of additions in the accumulators' own precision.
CHAIN = 512


def as_exact(a):
    return None if a is None else np.asarray(a).astype(np.longdouble)


@dataclass
class Truth:
    loss: np.ndarray  # per target
    grad: np.ndarray
    loss_bound: np.ndarray
    grad_bound: np.ndarray


def unit_roundoff(dtype) -> float:
    """Half the distance from 1 to the next number; of bfloat16 too, which NumPy does not know."""
    name = np.dtype(dtype).name
    return {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}[
        name
    ]


def truth(x, w, y, *, intercept=False, sample_weight=None) -> Truth:
    """Loss and gradient of ½ Σ s (xw - y)², with the bounds above for w's dtype."""
    out_type = np.asarray(w).dtype
    u_out = unit_roundoff(out_type)
    # float16's smallest steps are not so small: half of 2^-24, where other types have 1e-45.
    step = 2.0**-25 if out_type.name == "float16" else 0.0
    u = min(u_out, unit_roundoff(np.float32))
    x, w, y, s = map(as_exact, (x, w, y, sample_weight))
    n, d = x.shape
    rank_1 = w.ndim == 1
    w = w[:, None] if rank_1 else w
    k = w.shape[1]
    y = np.zeros((n, k), np.longdouble) if y is None else y.reshape(n, k)
    s = np.ones(n, np.longdouble) if s is None else s
    if intercept:
        x = np.concatenate([np.ones((n, 1), np.longdouble), x], axis=1)
    r = np.stack([row @ w for row in x]) - y if n else np.zeros((0, k), np.longdouble)
    size = np.abs(x) @ np.abs(w) + np.abs(y)
    dr = (d + 2) * u * size
    sr, sdr = s[:, None] * r, s[:, None] * dr
    loss = 0.5 * np.sum(sr * r, axis=0)
    grad = x.T @ sr
    loss_bound = np.sum(np.abs(sr) * dr + sdr * dr, axis=0) + (4 * u + u_out) * loss + step
    grad_bound = (
        np.abs(x).T @ sdr
        + min(n, CHAIN) * u * (np.abs(x).T @ np.abs(sr))
        + u_out * np.abs(grad)
        + step
    )
    if rank_1:
        return Truth(loss[0], grad[:, 0], loss_bound[0], grad_bound[:, 0])
    return Truth(loss, grad, loss_bound, grad_bound)


def assert_within(result, exact, bound, *, stock=None, what="result"):
    """`|result - exact| ≤ |stock - exact| + bound` for every element; the worst one is named."""
    result, exact, bound = as_exact(result), as_exact(exact), as_exact(bound)
    assert result.shape == exact.shape, f"{what}: shape {result.shape}, needs {exact.shape}"
    # The smallest normal number of the narrowest type: below it, relative bounds mean nothing.
    allowed = bound + 1e-37
    if stock is not None:
        allowed = allowed + np.abs(as_exact(stock) - exact)
    error = np.abs(result - exact)
    bad = ~(error <= allowed)
    if np.any(bad):
        with np.errstate(divide="ignore", invalid="ignore"):
            worst = np.unravel_index(np.argmax(np.where(bad, error / allowed, -1)), error.shape)
        raise AssertionError(
            f"{what}{list(worst)} = {result[worst]!s}, truth {exact[worst]!s}, error "
            f"{error[worst]!s} > {allowed[worst]!s}; {bad.sum()} of {bad.size} elements are off"
        )


def problem(rng, n, d, k=None, *, dtype=np.float32, w_dtype=None, intercept=False, weights=False):
    """Random x, w, y and sample_weight; k None for one target of rank 1."""
    w_dtype = w_dtype or dtype
    rows = d + intercept
    x = rng.standard_normal((n, d)).astype(dtype)
    w = rng.standard_normal((rows,) if k is None else (rows, k)).astype(w_dtype)
    y = rng.standard_normal((n,) if k is None else (n, k)).astype(w_dtype)
    s = rng.uniform(0.1, 2.0, n).astype(w_dtype) if weights else None
    return x, w, y, s
