"""Least squares by conjugate gradients: for so many columns that no d·d matrix is wanted.

One read of X a step, in columns centred and scaled to unit length. Every target has its own
recurrence, in the same reads.

Sources: Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", 1952
(their variant for least squares); Strakoš and Tichý, "On error estimation in the conjugate gradient
method", 2002: what some steps together took off the loss bounds what was missing before them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .factor import Factor
from .problem import EPS, Array, Problem
from .refine import Refined, added_up

# Steps that an estimate of the error looks ahead.
_DELAY = 8


def moments(problem: Problem) -> tuple[Array, Array, float]:
    """The means of A's columns (0 without intercept), sums of squared deviations; Σs: one read."""
    while True:
        weight, sums, squares = 0.0, np.zeros(problem.d), np.zeros(problem.d)
        with np.errstate(over="ignore", invalid="ignore"):
            for a, _, s in problem.blocks():
                ones = np.ones(len(a)) if s is None else s
                weight += float(ones.sum())
                sums += ones @ a
                squares += np.einsum("i,ij,ij->j", ones, a, a)
            mean = sums / weight if problem.intercept else np.zeros(problem.d)
            left = np.maximum(squares - weight * mean * mean, EPS * squares)
        if problem.settled(mean, np.sqrt(left / weight)):
            return mean, left, weight


def factorize(problem: Problem) -> Factor:
    """Columns centred and scaled to unit length: what a triangle of the diagonal only does."""
    mean, left, weight = moments(problem)
    root = float(np.sqrt(weight)) if problem.intercept else None
    penalty = problem.penalty.mean(axis=1) if problem.k else np.zeros(problem.d)
    return Factor.diagonal(root, mean * np.sqrt(weight), np.sqrt(left + penalty))


def solve(
    problem: Problem,
    factor: Factor,
    w: Array,
    *,
    tol: float,
    num_steps: int,
    keep: Callable[[Array, Array], None],
) -> Refined:
    """Descends from w; converged when what the last steps took off is `tol`² of the loss.

    Then the gradient is computed afresh, and the descent begun again from there, until that gains
    nothing any more: what the recurrence believes is not what is so.
    """
    best: tuple[Array, Array, Array] | None = None
    left = num_steps
    while True:
        loss, grad = problem.at(w)
        half = factor.half(grad)
        size = np.linalg.norm(half, axis=0)
        floor = 8 * EPS * added_up(problem, w)
        if best is None:
            length, gained = np.sqrt(2 * loss), np.ones(problem.k, bool)
            best = w, loss, size
        else:
            gained = size < 0.5 * best[2]
            better = size < best[2]
            best = (
                np.where(better, w, best[0]),
                np.where(better, loss, best[1]),
                np.where(better, size, best[2]),
            )
        if left <= 0 or np.all((size <= floor) | ~gained):
            # Rounding is an excuse as long as what rounds is not itself the trouble.
            excused = np.minimum(64 * EPS * added_up(problem, best[0]), 1e-6 * length)
            limit = np.maximum(tol * np.sqrt(2 * best[1]), excused)
            return Refined(best[0], best[1], np.asarray(best[2] <= limit))
        w, loss, _ = best
        half = factor.half(grad) if np.all(size == best[2]) else factor.half(problem.at(w).grad)
        steps_from = Refined(w, loss, size <= floor)
        w, steps = _descend(problem, factor, steps_from, half, tol, left, keep)
        left -= steps


def _descend(
    problem: Problem,
    factor: Factor,
    start: Refined,
    half: Array,
    tol: float,
    num_steps: int,
    keep: Callable[[Array, Array], None],
) -> tuple[Array, int]:
    """One recurrence, until its error estimate says enough: w and the steps taken."""
    w, loss = start.w, start.loss
    floor = 8 * EPS * added_up(problem, w)
    direction, squared = -half, np.sum(np.square(half), axis=0)
    taken: list[Array] = []
    for _ in range(num_steps):
        image = factor.half(problem.at(factor.back(direction), targets=False).grad)
        curvature = np.sum(direction * image, axis=0)
        # Along what A annihilates there is only rounding to go by, and of the gradient in the end.
        seen = curvature > 64 * EPS * np.sum(np.square(direction), axis=0)
        seen &= np.sqrt(squared) > floor
        step = np.divide(squared, curvature, out=np.zeros_like(squared), where=seen)
        w = w + factor.back(step * direction)
        half = half + step * image
        taken.append(0.5 * step * squared)
        loss = np.maximum(loss - taken[-1], 0.0)
        keep(w, loss)
        missing = np.sqrt(2 * np.sum(taken[-_DELAY:], axis=0))
        enough = np.maximum(tol * np.sqrt(2 * loss), floor)
        if (len(taken) >= _DELAY and np.all(missing <= enough)) or not np.any(step):
            break
        new = np.sum(np.square(half), axis=0)
        beta = np.divide(new, squared, out=np.zeros_like(new), where=squared > 0)
        direction, squared = beta * direction - half, new
    return w, len(taken)
