"""Solvers of linear least squares on NumPy arrays: who chooses, and what each is for.

    problem.py  the data as every solver reads them: blocks of float64, shifted and scaled
    factor.py   R with RᵀR = AᵀSA: solves, preconditions, tells rank and condition
    refine.py   corrects a solution by the gradient, read afresh
    exact.py    QR                                   any condition; 2nd² operations
    gram.py     one read for AᵀSA, then refinement   half the operations, and matrix products
    cg.py       conjugate gradients                  no d·d matrix; a read of X a step
    gd.py       gradient descent                     for who gives a learning rate

    rows.py       rows of a batch, checked
    sums.py       sums of rows: they add, move, and are centred
    state.py      sums of all rows so far, by folds; batches, files, merging
    penalties.py  errors at many penalties, by folds, out of such sums

Dependencies point up these lists. None imports scikit-learn or TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import cg, exact, gram
from .factor import AnyFactor
from .problem import EPS, Array, Problem, power_of_two
from .refine import Refined, added_up, refine

__all__ = [
    "CHECK_WORK",
    "SOLVERS",
    "Progress",
    "Solution",
    "choose",
    "evaluate",
    "least",
    "solve",
    "zero_loss",
]

SOLVERS = ("auto", "exact", "gram", "cg", "gd")

# 2nd² up to which a QR is a matter of 0.2 s: it makes 5 to 8 Gflop/s on a core, where the products
# of a Gram matrix make 40. Of more columns than rows no Gram matrix is wanted: seconds more, then.
QR_WORK, WIDE_QR_WORK = 1e9, 1e11
# 2nd² up to which a QR only to check what was found is not too much.
CHECK_WORK = 1e10
# Columns up to which a matrix of d by d is welcome.
GRAM_COLUMNS = 4096
# n·d·k up to which residuals are taken in long double: a read of them takes 0.05 s.
EXTENDED = 1_000_000


class Progress:
    """What is there when Ctrl-C comes: w [size, k] in the problem's coordinates, and the losses."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._losses = [np.array([zero_loss(problem)])]
        self.w: Array | None = None

    def keep(self, w: Array, loss: Array) -> None:
        """A step's w and the loss there [k], in the problem's coordinates."""
        self.keep_many(w, np.array([self._problem.original_loss(loss).sum()]))

    def keep_many(self, w: Array, losses: Array) -> None:
        """The w after some steps, and the loss after each of them, in the data's units."""
        self.w = w
        self._losses.append(losses)

    def curve(self) -> Array:
        """The loss at zero, and after each step."""
        return np.concatenate(self._losses)


@dataclass
class Solution:
    """The coefficients in the data's own units, and how they came about."""

    intercept: Array  # [k]
    coef: Array  # [d, k]
    loss: float
    solver: str
    reason: str
    converged: bool
    rank: int | None
    condition: float
    factor: AnyFactor | None = None  # of "exact" and "gram"
    squares: Array | None = None  # Σ s r² of each target, with it


def choose(problem: Problem) -> tuple[str, str]:
    """The solver for a problem without a learning rate, and why."""
    small, large = sorted((problem.n, problem.d))
    work = 2.0 * large * small * small
    wide = problem.n < 2 * problem.d
    if work <= (WIDE_QR_WORK if wide else QR_WORK):
        return "exact", f"QR takes {work:.1g} operations"
    if not wide and problem.d <= GRAM_COLUMNS:
        return "gram", f"one read of {problem.n} rows, where QR would take {work:.1g} operations"
    return "cg", f"{problem.n} rows of {problem.d} columns are too many for matrices of columns"


def solve(
    problem: Problem, solver: str, *, tol: float, num_steps: int, progress: Progress
) -> Solution:
    """By "exact", "gram" or "cg"; "auto" chooses, and goes on to what does not fail."""
    chosen, reason = choose(problem) if solver == "auto" else (solver, "asked for")
    keep = progress.keep
    factor: AnyFactor
    if chosen == "gram":
        factor, w = gram.factorize(problem)
        found = refine(problem, factor, w, tol=tol, extended=False, max_reads=8, keep=keep)
        if solver == "auto" and not np.all(found.converged):
            chosen = "exact"
            reason += f"; that did not converge (condition {factor.condition:.1g})"
    if chosen == "exact":
        factor, w = exact.factorize(problem)
        extended = problem.n * max(problem.d, 1) * problem.k <= EXTENDED
        found = refine(problem, factor, w, tol=tol, extended=extended, max_reads=12, keep=keep)
    elif chosen == "cg":
        factor = cg.factorize(problem)
        w = np.zeros((problem.size, problem.k))
        found = cg.solve(problem, factor, w, tol=tol, num_steps=num_steps, keep=keep)
        found = found._replace(converged=found.converged & least(problem, found.w, tol, EPS))
    rank = None if chosen == "cg" else factor.rank
    intercept, coef, losses = evaluate(problem, found)
    converged, loss = bool(np.all(found.converged)), float(losses.sum())
    solution = Solution(intercept, coef, loss, chosen, reason, converged, rank, factor.condition)
    if chosen != "cg":
        solution.factor, solution.squares = factor, 2 * losses
    return solution


def evaluate(problem: Problem, found: Refined) -> tuple[Array, Array, Array]:
    """(intercept, coef, losses [k]), those of the coefficients as they are returned: rounded."""
    intercept, coef = problem.to_original(found.w)
    loss = found.loss
    w = problem.from_original(intercept, coef)
    extended = problem.n * max(problem.d, 1) * problem.k <= EXTENDED
    # Where the residual is far above what rounding w adds to it, there is nothing to see.
    if extended or np.any(np.sqrt(loss) < 1e4 * EPS * added_up(problem, found.w)):
        loss = problem.at(w, extended=extended).loss
    return intercept, coef, problem.original_loss(loss)


def least(problem: Problem, w: Array, tol: float, eps: float) -> Array:
    """Whether w is where the loss is least, as far as `tol` and rounding by `eps` go: [k].

    By the part of the residual within reach of the columns, from a QR where that is affordable;
    else from the columns' lengths alone, which do not show a direction that they nearly cancel in.
    """
    small, large = sorted((problem.n, problem.d))
    if 2.0 * large * small * small <= CHECK_WORK:
        factor: AnyFactor = exact.factorize(problem)[0]
    else:
        factor = cg.factorize(problem)
    loss, grad = problem.at(w)
    size = np.linalg.norm(factor.half(grad.astype(np.float64)), axis=0)
    limit = max(tol, eps) * np.sqrt(2 * loss) + 16 * eps * added_up(problem, w)
    return np.asarray(size <= limit)


def zero_loss(problem: Problem) -> float:
    """The loss where all coefficients and the intercept are zero."""
    scale = power_of_two(np.max(np.abs(problem.y), axis=0, initial=0.0).astype(np.float64))
    squares = np.square(problem.y * scale)
    if problem.s is not None:
        squares *= (problem.s * problem.s_scale)[:, None]
    with np.errstate(over="ignore", under="ignore"):
        loss = 0.5 * squares.sum(axis=0) / scale / scale / problem.s_scale
    return float(loss.sum())
