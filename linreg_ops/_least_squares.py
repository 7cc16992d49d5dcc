"""Direct least squares in float64 from one or a few reads of X, a block of rows at a time.

`Rows` gives the data shifted by its first row, which leaves the digits that a large offset hides,
and scaled by powers of two, which rounds nothing. `factorize_qr` reduces it to a triangle,
`factorize_gram` to cross products; either gives a `Factor`, which solves, refines a solution by the
gradient at it, and tells how far from the least loss any other weights are. X is not copied whole.

Sources: Golub, "Numerical methods for solving linear least squares problems", 1965 (QR); Björck,
"Stability analysis of the method of seminormal equations for linear least squares problems", 1987
(refinement by the gradient); Demmel, Grigori, Hoemmen and Langou, "Communication-optimal parallel
and sequential QR and LU factorizations", 2012 (QR by blocks of rows).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

EPS = float(np.finfo(np.float64).eps)
BLOCK = 1 << 18  # elements: a block and its float64 copy stay in the caches
# Refinement takes residuals in extended precision up to here, where that is a matter of 0.1 s.
EXTENDED = 3_000_000


def power_of_two(value: Any) -> Array:
    """2^-e with value·2^-e in [½, 1), as far as both are normal numbers; 1 for zeros."""
    _, exponent = np.frexp(np.asarray(value, np.float64))
    return np.asarray(np.ldexp(1.0, -np.clip(exponent, -1000, 1000)))


class Rows:
    """The weighted rows √s·[1, (x - x₀)·a, (y - y₀)·b] of a problem, in float64.

    x: [n, d], float32 or float64. y: [n, k]. s: [n] or None. x₀ and y₀ are the first row that has
    weight, and zero without an intercept; the column of ones is there with one. a, b are powers of
    two, and so is what the weights are divided by.
    """

    def __init__(self, x: Array, y: Array, s: Array | None, intercept: bool) -> None:
        self.x, self.y, self.intercept = x, y, intercept
        self.n, self.d, self.k = len(x), x.shape[1], y.shape[1]
        self.columns = self.d + int(intercept)
        self.s, self.s_scale = None, 1.0
        first = 0
        if s is not None:
            self.s_scale = float(power_of_two(s.max()))
            self.s = s.astype(np.float64) * self.s_scale
            first = int(np.flatnonzero(self.s)[0])
        self.rows_per_block = max(BLOCK // max(self.columns + self.k, 1), 1)
        largest = np.zeros(self.d)
        for i in self._starts():
            block = x[i : i + self.rows_per_block]
            if block.size:
                np.maximum(largest, np.maximum(block.max(0), -block.min(0)), out=largest)
        # Only where products could overflow or underflow: the multiplication costs a pass.
        extreme = (largest > 2.0**300) | ((largest < 2.0**-300) & (largest > 0))
        self.x_scale = np.where(extreme, power_of_two(largest), 1.0)
        self.y_scale = power_of_two(np.abs(y).max(0, initial=0.0))
        self.x_zero = x[first].astype(np.float64) * self.x_scale * intercept
        self.y_zero = y[first].astype(np.float64) * self.y_scale * intercept

    def _starts(self) -> range:
        return range(0, self.n, self.rows_per_block)

    def blocks(
        self, dtype: Any = np.float64, weighted: bool = True
    ) -> Iterator[tuple[Array, Array]]:
        """([m, columns], [m, k]) of the next rows."""
        for i in self._starts():
            j = min(i + self.rows_per_block, self.n)
            a = np.ones((j - i, self.columns), dtype)
            features = a[:, int(self.intercept) :]
            features[:] = self.x[i:j]
            if np.any(self.x_scale != 1.0):
                features *= self.x_scale
            if self.intercept:
                features -= self.x_zero
            b = self.y[i:j].astype(dtype) * self.y_scale - self.y_zero
            if self.s is not None and weighted:
                root = np.sqrt(self.s[i:j].astype(dtype))[:, None]
                a *= root
                b *= root
            yield a, b

    def loss_and_gradient(self, w: Array) -> tuple[Array, Array]:
        """½ Σ s r² of each target, [k], and -Xᵀ s r, [columns, k], at w in these coordinates."""
        loss, gradient = np.zeros(self.k, w.dtype), np.zeros((self.columns, self.k), w.dtype)
        for a, b in self.blocks(w.dtype):
            r = b - a @ w
            loss += 0.5 * np.einsum("ij,ij->j", r, r)
            gradient += a.T @ r
        return loss, gradient

    def original(self, w: Array) -> tuple[Array, Array]:
        """(intercept [k], coef [d, k]) in float64 of weights in these coordinates."""
        wide = w.astype(np.longdouble)
        slopes = wide[int(self.intercept) :]
        coef = slopes * (self.x_scale[:, None] / self.y_scale.astype(np.longdouble))
        intercept = np.zeros(self.k, np.longdouble)
        if self.intercept:
            intercept = (self.y_zero + wide[0] - self.x_zero @ slopes) / self.y_scale
        with np.errstate(over="ignore"):
            return intercept.astype(np.float64), coef.astype(np.float64)

    def inner(self, intercept: Array, coef: Array) -> Array:
        """Weights in these coordinates of ([k], [d, k]) in the original ones."""
        slopes = coef.astype(np.longdouble) / self.x_scale[:, None] * self.y_scale
        if not self.intercept:
            return slopes.astype(np.float64)
        first = intercept * self.y_scale.astype(np.longdouble) - self.y_zero + self.x_zero @ slopes
        return np.vstack([first[None], slopes]).astype(np.float64)

    def original_loss(self, loss: Array) -> float:
        """A loss in the caller's units, of the losses per target in these."""
        with np.errstate(over="ignore"):
            return float((loss / np.square(self.y_scale) / self.s_scale).sum())


@dataclass
class Factor:
    """XᵀSX = Rᵀ R in a form that solves with it, deficient rank included.

    The column of ones comes first: `corner`, `edge` are its row of R. The rest, with each column
    divided by its length, is a matrix of singular values `singular` [rank] with the right vectors
    `right` [d, rank]: what is below rounding has been left out.
    """

    corner: float
    edge: Array
    length: Array
    singular: Array
    right: Array
    intercept: bool
    live: int  # columns that are not constant

    @property
    def condition(self) -> float:
        """Of the centred columns of unit length; infinite where they depend on each other."""
        if len(self.singular) < self.live:
            return np.inf
        return float(self.singular[0] / self.singular[-1]) if len(self.singular) else 1.0

    def _reduce(self, gradient: Array) -> tuple[Array | None, Array]:
        """R⁻ᵀ·gradient: of the column of ones, and of the rest in singular coordinates."""
        gradient = gradient.astype(np.float64)
        if not self.intercept:
            first, rest = None, gradient
        else:
            first = gradient[0] / self.corner
            rest = gradient[1:] - np.outer(self.edge, first)
        rest = self.right.T @ (rest / self.length[:, None])
        return first, rest / self.singular[:, None]

    def expand(self, first: Array | None, rest: Array) -> Array:
        """R⁻¹ of what `_reduce` gives."""
        slopes = (self.right @ (rest / self.singular[:, None])) / self.length[:, None]
        if first is None:
            return slopes
        return np.vstack([(first - self.edge @ slopes)[None] / self.corner, slopes])

    def solve(self, gradient: Array) -> Array:
        """(XᵀSX)⁺·gradient: the step from a gradient to the least loss."""
        return self.expand(*self._reduce(gradient))

    def gap(self, gradient: Array) -> Array:
        """How far the loss of each target is above the least, where it has this gradient: [k]."""
        first, rest = self._reduce(gradient)
        square = np.square(rest).sum(0)
        return np.asarray(0.5 * (square if first is None else square + np.square(first)))


def factorize_qr(rows: Rows) -> tuple[Factor, Array]:
    """(Factor, weights of least loss), by QR of the rows, block by block, and SVD of its triangle.

    Of all minimisers, the one of least norm where every column has variance one.
    """
    c, k = rows.columns, rows.k
    # At least as many rows as columns, or the triangle is factorized again and again.
    rows.rows_per_block = max(rows.rows_per_block, 4 * (c + k))
    r = np.zeros((0, c + k))
    for a, b in rows.blocks():
        r = np.asarray(np.linalg.qr(np.vstack([r, np.hstack([a, b])]), mode="r"))
    p = int(rows.intercept)
    triangle, target = r[p : max(c, p), p:c], r[p : max(c, p), c:]
    length = np.linalg.norm(triangle, axis=0)
    live = int(np.count_nonzero(length))
    length[length == 0] = 1.0
    left, singular, right = np.linalg.svd(triangle / length, full_matrices=False)
    keep = singular > singular.max(initial=0.0) * EPS * max(64, 8 * rows.d)
    factor = Factor(
        float(r[0, 0]) if p else 1.0,
        r[0, p:c] if p else np.zeros(rows.d),
        length,
        singular[keep],
        np.ascontiguousarray(right[keep].T),
        rows.intercept,
        live,
    )
    w = factor.expand(r[0, c:] if p else None, left[:, keep].T @ target)
    return factor, w


def factorize_gram(rows: Rows) -> tuple[Factor, Array] | None:
    """(Factor, weights near the least loss), by XᵀX; None where that has lost too many digits."""
    c, k, p = rows.columns, rows.k, int(rows.intercept)
    gram, cross = np.zeros((c, c)), np.zeros((c, k))
    for a, b in rows.blocks():
        gram += a.T @ a
        cross += a.T @ b
    corner = float(np.sqrt(gram[0, 0])) if p else 1.0
    edge = gram[0, 1:] / corner if p else np.zeros(rows.d)
    centred = gram[p:, p:] - np.outer(edge, edge)
    # What cancelled against the mean is lost: shifted by a row, a column keeps its digits only
    # while its spread is not far below its distance from that row.
    diagonal = np.diag(centred).copy()
    lost = diagonal < 1e-6 * np.diag(gram[p:, p:])
    if lost.any():
        return None
    live = int(np.count_nonzero(diagonal > 0))
    diagonal[diagonal <= 0] = 1.0
    length = np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(centred / np.outer(length, length))
    keep = values > 1e-12 * values.max(initial=0.0)
    if np.count_nonzero(keep) < live:
        return None
    factor = Factor(
        corner,
        edge,
        length,
        np.sqrt(values[keep][::-1]),
        np.ascontiguousarray(vectors[:, keep][:, ::-1]),
        rows.intercept,
        live,
    )
    return factor, factor.solve(cross)


@dataclass
class Refined:
    """Weights, and the loss and its gradient at just these."""

    w: Array
    loss: Array
    gradient: Array
    converged: bool
    reads: int


def refine(rows: Rows, factor: Factor, w: Array, most: int = 8) -> Refined:
    """Newton's step from the gradient at w, until it is below rounding or gets no smaller."""
    extended = rows.n * rows.columns * rows.k <= EXTENDED
    w = w.astype(np.longdouble if extended else np.float64)
    scale = np.concatenate([[factor.corner] if rows.intercept else [], factor.length])[:, None]
    before, best = np.inf, None
    for read in range(1, most + 1):
        loss, gradient = rows.loss_and_gradient(w)
        step = factor.solve(gradient)
        size = float(np.linalg.norm(scale * step))
        here = float(np.linalg.norm(scale * w.astype(np.float64)))
        if best is not None and not size < before:
            return Refined(*best, before <= 1e-9 * max(here, 1e-300), read)
        best = (w, loss, gradient)
        if size <= 0.5 * EPS * here:
            return Refined(w, loss, gradient, True, read)
        before, w = size, w + step
    assert best is not None
    return Refined(*best, before <= 1e-9 * max(here, 1e-300), most)


def least_norm(factor: Factor, slopes: Array) -> Array:
    """Of the weights that fit as well as these [d, k], those of least norm where they are."""
    if len(factor.singular) == len(factor.length):
        return slopes
    # What no row sees: orthogonal to the kept right vectors in the scaled coordinates.
    full, _ = np.linalg.qr(factor.right, mode="complete")
    blind = full[:, len(factor.singular) :] / factor.length[:, None]
    basis, _ = np.linalg.qr(blind)
    return np.asarray(slopes - basis @ (basis.T @ slopes))
