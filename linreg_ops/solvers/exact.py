"""Least squares by QR: as many digits as float64 data hold, for any condition and rank.

The QR decomposition of [1 A | B] is taken block of rows by block (the triangle so far on top of
the next rows), so that memory is O(d²) whatever n is; then refined. Where n·d is small the
refinement is in long double, and the coefficients are those of the exact solution, rounded.

Sources: Golub, "Numerical methods for solving linear least squares problems", 1965; Demmel,
Grigori, Hoemmen and Langou, "Communication-optimal parallel and sequential QR", 2012 (by blocks).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from .factor import AnyFactor, Factor, by_penalty
from .problem import EPS, Array, Problem, one_blas_thread


class Triangle(NamedTuple):
    """r [≤ size, size] with rᵀr = [1 A]ᵀS[1 A], and c, the same rotation of B."""

    r: Array
    c: Array


def factorize(problem: Problem) -> tuple[AnyFactor, Array]:
    """The factor, penalty included, and the solution as it gives it, before refinement."""
    while True:
        triangle = compress(problem)
        if problem.settled(*_moments(problem, triangle.r)):
            break
    return by_penalty(problem, lambda penalty, targets: _solve(problem, triangle, penalty, targets))


def _solve(
    problem: Problem, triangle: Triangle, penalty: Array, targets: Array
) -> tuple[Factor, Array]:
    first = int(problem.intercept)
    r, c = triangle.r, triangle.c[:, targets]
    inner, turned = r[first:, first:], c[first:]
    if np.any(penalty):
        below = np.zeros((problem.d, c.shape[1]))
        stack = np.vstack([inner, np.diag(np.sqrt(penalty))])
        inner, turned = _qr(stack, np.vstack([turned, below]))
    noise = EPS * (10 * problem.d + np.sqrt(problem.n))
    rho, m = (float(r[0, 0]), r[0, 1:]) if first else (None, np.zeros(problem.d))
    factor = Factor(rho, m, inner, noise)
    if factor.full:
        return factor, factor.back(np.vstack([c[:first], turned[: problem.d]]))
    # With deficient rank, by the gradient at zero: refinement takes away what rounding that adds.
    w = factor.back(factor.half(r.T @ c))
    return factor, factor.least_norm(w, problem.x_scale)


def compress(problem: Problem) -> Triangle:
    """[1 A | B] as a triangle, in one read."""
    with one_blas_thread(problem):
        return _compress(problem)


def _compress(problem: Problem) -> Triangle:
    p, k = problem.size, problem.k
    r, c = np.zeros((0, p)), np.zeros((0, k))
    waiting: list[tuple[Array, Array]] = []
    for a, b, s in problem.blocks():
        rows = np.empty((len(a), p))
        rows[:, int(problem.intercept) :] = a
        if problem.intercept:
            rows[:, 0] = 1.0
        if s is not None:
            root = np.sqrt(s)[:, None]
            rows *= root
            b = b * root
        waiting.append((rows, b))
        # At least twice as many new rows as the triangle has: else most of the work is on it.
        if sum(len(rows) for rows, _ in waiting) >= 2 * p:
            r, c = _absorb(r, c, waiting)
            waiting = []
    if waiting:
        r, c = _absorb(r, c, waiting)
    return Triangle(r, c)


def _absorb(r: Array, c: Array, waiting: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    stack = np.concatenate([r, *(rows for rows, _ in waiting)])
    if not np.all(np.isfinite(stack)):
        return np.full((1, r.shape[1]), np.nan), np.zeros((1, c.shape[1]))
    r, turned = _qr(stack, np.concatenate([c, *(b for _, b in waiting)]))
    return r, turned[: len(r)]


def _qr(rows: Array, b: Array) -> tuple[Array, Array]:
    """R, and Qᵀ b without Q being formed."""
    if rows.shape[1] == 0 or rows.shape[0] == 0:
        return rows[:0], b
    (packed, tau), r = scipy.linalg.qr(rows, mode="raw", overwrite_a=True, check_finite=False)
    packed = packed[:, : len(tau)]
    work: Any = lapack.dormqr("L", "T", packed, tau, b, -1)[1]
    turned, _, _ = lapack.dormqr("L", "T", packed, tau, np.asfortranarray(b), int(work[0]))
    return np.asarray(r[: min(rows.shape)]), np.asarray(turned)


def _moments(problem: Problem, r: Array) -> tuple[Array, Array]:
    """Mean and deviation of A's columns, out of the triangle."""
    if not problem.intercept:
        size = np.linalg.norm(r, axis=0)
        return np.zeros(problem.d), size
    weight = abs(r[0, 0])
    return np.abs(r[0, 1:]) * np.sign(r[0, 1:] * r[0, 0]) / weight, np.linalg.norm(
        r[1:, 1:], axis=0
    ) / weight
