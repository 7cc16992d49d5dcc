"""Errors against a wider type where float32 and float64 are hardest pressed; no times.

The truth is computed in long double. An error is given in units of the result's own rounding
(epsilon), and for the gradient per entry, against the terms that it sums:
|g_j - g*_j| / (|X|ᵀ|R|)_j, so that a badly scaled column counts for as much as any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .problem import Array, Problem, _parts, aligned
from .results import Error, Row

if TYPE_CHECKING:
    from .harness import Session


def suite(s: Session) -> Iterator[Row]:
    many = 100_000_000 if s.is_full else 2_000_000
    if s.mode.name == "smoke":
        many = 2_000
    for name, make in CASES.items():
        for dtype in (np.float32, np.float64):
            yield from _rows(s, name, make, dtype, many)


def extremes(s: Session) -> Iterator[Row]:
    """Numbers at the ends of the range, columns that nearly depend on others, very wide rows."""
    for name, make in EXTREMES.items():
        for dtype in (np.float32, np.float64):
            yield from _rows(s, name, make, dtype, 2_000)


def _rows(s: Session, name: str, make: Any, dtype: Any, many: int) -> Iterator[Row]:
    fewer = {"quick": 5, "smoke": 1}
    for n, d, seeds in SIZES[name]:
        n = many if n is None else min(n, many)
        worst: dict[str, list[Error]] = {}
        failures: dict[str, str] = {}
        for seed in range(min(seeds, fewer.get(s.mode.name, seeds))):
            problem = make(np.random.default_rng(seed), n, d, dtype)
            loss, grad, scale = _truth(problem)
            for peer in s.peers:
                if peer.costly:
                    continue
                try:
                    got_loss, got_grad = peer.fetch(peer.prepare(problem)())
                except Exception as failure:
                    failures[peer.name] = f"{type(failure).__name__}: {str(failure)[:160]}"
                    continue
                eps = float(np.finfo(dtype).eps)
                off = np.abs(np.asarray(got_grad, np.longdouble).ravel() - grad) / scale
                lost = abs(np.longdouble(got_loss) - loss) / loss
                worst.setdefault(peer.name, []).append(
                    Error(loss=float(lost) / eps, grad=float(off.max()) / eps)
                )
        yield Row(
            case={"n": n, "d": d, "k": 1, "dtype": np.dtype(dtype).name, "case": name},
            bytes=problem.bytes,
            x_bytes=problem.x.nbytes,
            read_bytes=0,
            flops=problem.flops,
            times={},
            errors={peer: _root_mean_square(errors) for peer, errors in worst.items()},
            failures=failures,
            extra={"unit": "epsilon", "seeds": len(next(iter(worst.values()), []))},
        )


def _root_mean_square(errors: list[Error]) -> Error:
    def rms(values: list[float]) -> float:
        return float(f"{np.sqrt(np.mean(np.square(values))):.3g}")

    return Error(rms([e.loss for e in errors]), rms([e.grad for e in errors]))


def _truth(p: Problem) -> tuple[Any, Array, Array]:
    """Loss, gradient, and the sums of its terms' magnitudes."""
    w = p.w.astype(np.longdouble)
    loss, grad, scale = np.longdouble(0), np.zeros_like(w), np.zeros_like(w)
    for part in _parts(len(p.x), p.x.shape[1]):
        x = p.x[part].astype(np.longdouble)
        r = x @ w - p.y[part].astype(np.longdouble)
        loss += (r * r).sum() / 2
        grad += x.T @ r
        scale += np.abs(x).T @ np.abs(r)
    return loss, grad, scale


def _plain(rng: Any, n: int, d: int, dtype: Any) -> Problem:
    """A line through noise, with an offset in every column: sums that grow and do not cancel."""
    x = aligned(n * d, dtype).reshape(n, d)
    y = aligned(n, dtype)
    w = rng.standard_normal(d)
    for part in _parts(n, d):
        x[part] = rng.standard_normal(x[part].shape) + 1
        y[part] = x[part] @ w + rng.standard_normal(len(y[part]))
    return Problem(x, (w + 0.1).astype(dtype), y)


def _badly_scaled(rng: Any, n: int, d: int, dtype: Any) -> Problem:
    """Columns of 1e-6 ... 1e6, and weights that give each as much to say."""
    scale = np.logspace(-6, 6, d)
    x = aligned(n * d, dtype).reshape(n, d)
    x[:] = rng.standard_normal((n, d)) * scale
    w = rng.standard_normal(d) / scale
    y = aligned(n, dtype)
    y[:] = x @ w + rng.standard_normal(n)
    return Problem(x, (w * 1.1).astype(dtype), y)


def _cancelling(rng: Any, n: int, d: int, dtype: Any) -> Problem:
    """Residuals near zero: y is x w to a few roundings, so that almost every digit cancels."""
    x = aligned(n * d, dtype).reshape(n, d)
    x[:] = rng.standard_normal((n, d))
    w = rng.standard_normal(d).astype(dtype)
    y = aligned(n, dtype)
    exact = x.astype(np.longdouble) @ w.astype(np.longdouble)
    y[:] = exact * (1 + 64 * np.finfo(dtype).eps * rng.standard_normal(n))
    return Problem(x, w, y)


def _ill_conditioned(rng: Any, n: int, d: int, dtype: Any) -> Problem:
    """Singular values of 1 ... 1e-12, near the minimum: the gradient cancels."""
    left, _ = np.linalg.qr(rng.standard_normal((n, d)))
    right, _ = np.linalg.qr(rng.standard_normal((d, d)))
    x = aligned(n * d, dtype).reshape(n, d)
    x[:] = (left * np.logspace(0, -12, d)) @ right.T
    w = rng.standard_normal(d).astype(dtype)
    y = aligned(n, dtype)
    y[:] = x @ w + 1e-3 * rng.standard_normal(n)
    return Problem(x, w, y)


def _subnormal(rng: Any, n: int, d: int, dtype: Any) -> Problem:
    """X below the smallest normal number, and y so large that the gradient is an ordinary one."""
    tiny = float(np.finfo(dtype).tiny) / 100
    x = aligned(n * d, dtype).reshape(n, d)
    x[:] = rng.standard_normal((n, d)) * tiny
    y = aligned(n, dtype)
    y[:] = (1 + rng.random(n)) * float(np.finfo(dtype).max) ** 0.45
    return Problem(x, np.ones(d, dtype), y)


def _near_overflow(rng: Any, n: int, d: int, dtype: Any) -> Problem:
    """The loss and the gradient are within a thousandth of the largest number there is."""
    size = np.sqrt(float(np.finfo(dtype).max) / (1000 * n * d))
    x = aligned(n * d, dtype).reshape(n, d)
    x[:] = rng.standard_normal((n, d)) * size
    y = aligned(n, dtype)
    y[:] = rng.standard_normal(n) * size
    return Problem(x, np.ones(d, dtype), y)


CASES = {"plain": _plain, "badly scaled": _badly_scaled, "cancelling": _cancelling}
EXTREMES = {
    "wide": _plain,
    "condition 1e12": _ill_conditioned,
    "subnormal": _subnormal,
    "near overflow": _near_overflow,
}
# A root mean square over s seeds is itself known to 1/√(2s): few do where errors differ by factors.
SIZES: dict[str, list[tuple[int | None, int, int]]] = {  # n (None: 1e8), d, seeds
    "plain": [(None, 1, 1), (None, 2, 1), (1_000_000, 2, 5), (100_000, 16, 5), (1_000, 1_000, 5)],
    "badly scaled": [(1_000, 13, 20), (100_000, 13, 5)],
    "cancelling": [(1_000, 3, 50), (100_000, 16, 50), (2_000, 1_000, 5)],
    "wide": [(200, 10_000, 5)],
    "condition 1e12": [(2_000, 100, 10)],
    "subnormal": [(1_000, 20, 10)],
    "near overflow": [(1_000, 20, 10)],
}
