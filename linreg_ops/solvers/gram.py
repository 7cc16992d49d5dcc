"""Least squares from one read: the Gram matrix of the centred columns, refined to QR's accuracy.

A Gram matrix squares the condition number: by itself it gives half the digits. As a preconditioner
it gives all of them. Directions in which it has none left (below √ε of the largest) are measured
again by multiplying A with them, in one more read, which does not square.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from .factor import AnyFactor, Factor, by_penalty
from .problem import EPS, Array, Problem, one_blas_thread


def factorize(problem: Problem) -> tuple[AnyFactor, Array]:
    """The factor, penalty included, and the solution as it gives it, before refinement."""
    while True:
        with one_blas_thread(problem):
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

    def solve(penalty: Array, targets: Array) -> tuple[Factor, Array]:
        root = float(np.sqrt(weight)) if problem.intercept else None
        factor = Factor.from_gram(root, mean * np.sqrt(weight), gram + np.diag(penalty))
        if not factor.full:
            _measure_again(problem, factor, penalty)
        w = factor.back(factor.half(cross[:, targets]))
        return factor, factor.least_norm(w, problem.x_scale)

    return by_penalty(problem, solve)


def accumulate(problem: Problem) -> tuple[float, Array, Array, Array]:
    """Σs, AᵀS1 [d], AᵀSA [d, d] and [1 A]ᵀSB [size, k], in one read and float64."""
    first = int(problem.intercept)
    weight, sums = 0.0, np.zeros(problem.d)
    gram, cross = np.zeros((problem.d, problem.d)), np.zeros((problem.size, problem.k))
    with np.errstate(over="ignore", invalid="ignore"):
        for a, b, s in problem.blocks():
            ones = np.ones(len(a)) if s is None else s
            weight += float(ones.sum())
            sums += ones @ a
            if problem.intercept:
                cross[0] += ones @ b
            if s is not None:
                root = np.sqrt(s)[:, None]
                a *= root
                b = b * root
            gram += a.T @ a  # NumPy computes one half of it
            cross[first:] += a.T @ b
    return weight, sums, gram, cross


def _measure_again(problem: Problem, factor: Factor, penalty: Array) -> None:
    """The directions that the Gram matrix lost in rounding, by a read of their own.

    A times unit vectors that it nearly annihilates is small and rounds by ε, not by √ε.
    """
    lost = factor.lost()
    product = problem.images(factor.centred(lost), penalty)
    values, turn = scipy.linalg.eigh(product)
    order = np.argsort(values)[::-1]
    sigma = np.sqrt(np.maximum(values[order], 0.0))
    noise = EPS * (10 * problem.d + np.sqrt(problem.n))
    factor.extend(sigma, turn[:, order], noise)
