"""Iterative refinement: a read of X gives the gradient afresh, a factor turns it into a step.

With an exact gradient each step shrinks the error by κ·ε for a factor from a QR and by κ²·ε for one
from a Gram matrix, so the factor decides how many reads there are and the gradient how many digits.

Sources: Björck, "Numerical methods for least squares problems", 1996, section 2.9 (iterative
refinement) and 6.6.5 (corrected seminormal equations).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .factor import AnyFactor
from .problem import EPS, Array, Problem


class Refined(NamedTuple):
    """w [size, k], its loss [k], and for which targets it is right [k]."""

    w: Array
    loss: Array
    converged: Array


def refine(
    problem: Problem,
    factor: AnyFactor,
    w: Array,
    *,
    tol: float,
    extended: bool,
    max_reads: int,
    keep: Callable[[Array, Array], None],
) -> Refined:
    """Corrects w until its error is rounding, or corrections no longer shrink.

    Converged, per target: the part of the residual within reach of the columns, ‖R⁻ᵀ gradient‖, is
    below `tol` of the residual, or rounding of what was added up. That bounds every coefficient's
    error at once, in its own unit: by `tol`·√(n - d) of its standard error.
    """
    # What rounding of the residual itself can leave: float64's, or 2⁻¹¹ of it in long double.
    unit = EPS * (2.0**-11 if extended else 1.0)
    w = w.astype(np.longdouble) if extended else w
    previous = np.full(w.shape[1], np.inf)
    best: tuple[Array, Array, Array] | None = None
    for read in range(max_reads):
        loss, grad = problem.at(w, extended=extended)
        half = factor.half(grad.astype(np.float64))
        size = np.linalg.norm(half, axis=0)
        if not np.all(np.isfinite(loss)) or not np.all(np.isfinite(size)):
            break
        if best is None:
            best = (w, loss, size)
        else:  # per target: a correction that made things worse is not taken
            worse = size > best[2]
            best = (
                np.where(worse, best[0], w),
                np.where(worse, best[1], loss),
                np.where(worse, best[2], size),
            )
        keep(best[0], best[1])
        floor = unit * added_up(problem, w)
        if np.all((size <= floor) | (size > 0.5 * previous)) or read == max_reads - 1:
            break
        step = factor.back(half)
        # In long double there are digits beyond float64's to be had; else one read less.
        enough = np.maximum(floor, 0.0 if extended else 1e-3 * tol * np.sqrt(2 * loss))
        expected = size * min(1.0, factor.condition**2 * factor.rank * EPS)
        w = w - step
        if not extended and np.all(expected <= enough):
            gained = 0.5 * np.square(size)
            if np.any(problem.penalty):  # the loss is without it, and not least where the sum is
                slopes = slice(int(problem.intercept), None)
                pull = problem.penalty * (w + 0.5 * step)[slopes]
                gained -= np.sum(pull * step[slopes], axis=0)
            loss = np.maximum(loss - gained, 0.0)
            best = (w, loss, expected)
            keep(w, loss)
            break
        previous = size
    if best is None:
        nothing = np.full(w.shape[1], np.inf)
        return Refined(w, nothing, np.zeros(w.shape[1], bool))
    w, loss, size = best
    limit = np.maximum(tol * np.sqrt(2 * loss), 64 * EPS * added_up(problem, w))
    return Refined(w, loss, np.asarray(size <= limit))


def added_up(problem: Problem, w: Array) -> Array:
    """‖|A||w| + |b|‖ of each target, about: what residuals are rounded from."""
    slopes = np.abs(w[int(problem.intercept) :]).astype(np.float64)
    # A block's columns have entries up to 1, and b too.
    constant = np.abs(w[0]).astype(np.float64) if problem.intercept else 0.0
    return np.asarray(np.sqrt(problem.n) * (slopes.sum(axis=0) + constant + 1.0))
