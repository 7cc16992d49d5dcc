"""Least squares from one read: the Gram matrix of the centred columns, refined to QR's accuracy.

A Gram matrix squares the condition number: by itself it gives half the digits. As a preconditioner
it gives all of them. Directions in which it has none left (below √ε of the largest) are measured
again by multiplying A with them, in one more read, which does not square.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from .. import kernels
from .factor import AnyFactor, Factor, by_penalty
from .problem import EPS, Array, Problem
from .sums import Centred


def factorize(problem: Problem) -> tuple[AnyFactor, Array]:
    """The factor, penalty included, and the solution as it gives it, before refinement."""
    while True:
        weight, sums, gram, cross = accumulate(problem)
        if problem.intercept:
            mean = sums / weight
            gram = gram - weight * np.outer(mean, mean)
        else:
            mean = np.zeros(problem.d)
        # Where rounding of the centring is all that is left, it may be below zero.
        diagonal = np.diag(gram)
        np.fill_diagonal(gram, np.where(diagonal < 0, np.finfo(np.float64).tiny, diagonal))
        if problem.settled(mean, np.sqrt(np.diag(gram) / weight)):
            break

    root = float(np.sqrt(weight)) if problem.intercept else None

    def solve(targets: Array) -> tuple[Factor, Array]:
        penalty = problem.penalty_of(targets)
        factor = Factor.from_gram(root, mean * np.sqrt(weight), gram + np.diag(penalty))
        if not factor.full:
            _measure_again(problem, factor, penalty)
        w = factor.back(factor.half(cross[:, targets]))
        return factor, factor.least_norm(w, problem.x_scale)

    return by_penalty(problem.alpha, problem.size, solve)


def from_sums(sums: Centred, alpha: Array, column_penalty: Array) -> tuple[AnyFactor, Array]:
    """The factor of centred columns and the coefficients [d, k], from sums alone.

    The penalty is alpha [k] times column_penalty [d].
    There is no gradient to refine by: the squared condition number is what digits are lost by.
    """
    d = len(sums.gram)

    def solve(targets: Array) -> tuple[Factor, Array]:
        penalty = (alpha[targets[0]] if len(targets) else 0.0) * column_penalty
        factor = Factor.from_gram(None, np.zeros(d), sums.gram + np.diag(penalty))
        w = factor.back(factor.half(sums.cross[:, targets]))
        return factor, factor.least_norm(w, np.ones(d))

    return by_penalty(alpha, d, solve)


def accumulate(problem: Problem) -> tuple[float, Array, Array, Array]:
    """Σs, AᵀS1 [d], AᵀSA [d, d] and [1 A]ᵀSB [size, k], in one read and float64."""
    problem.reads += 1
    state = kernels.GramState(
        problem.d,
        problem.k,
        x_shift=problem.x_shift,
        y_shift=problem.y_shift,
        x_scale=problem.x_scale,
        y_scale=problem.y_scale,
    )
    for x, y, s in problem.raw_blocks(whole=True):
        weights = None if s is None else s * problem.s_scale
        targets = np.ascontiguousarray(y) if problem.k else None
        state.update(np.ascontiguousarray(x), targets, sample_weight=weights)
    sums = state.result()
    cross = np.vstack([sums.y_sum, sums.xy]) if problem.intercept else sums.xy
    return sums.weight, sums.x_sum, sums.xx, cross


def _measure_again(problem: Problem, factor: Factor, penalty: Array) -> None:
    """The directions that the Gram matrix lost in rounding, by a read of their own.

    A times unit vectors that it nearly annihilates is small and rounds by ε, not by √ε. They have
    errors of ε / s² along what is kept at a singular value of s, which show as ε / s: where that is
    more than this rounding, they are made perpendicular, as A maps them, by the same read.
    """
    lost = factor.lost()
    rounding = 10 * problem.d + np.sqrt(problem.n)
    weak = factor.weaker_than(1.0 / rounding)
    product = problem.images(factor.centred(np.hstack([weak, lost])), penalty)
    r = weak.shape[1]
    along = np.linalg.solve(product[:r, :r], product[:r, r:])
    values, turn = scipy.linalg.eigh(product[r:, r:] - product[r:, :r] @ along)
    order = np.argsort(values)[::-1]
    sigma = np.sqrt(np.maximum(values[order], 0.0))
    factor.extend(sigma, (lost - weak @ along) @ turn[:, order], EPS * rounding)
