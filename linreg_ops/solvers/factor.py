"""AᵀSA + penalty = RᵀR, from a QR or a Gram matrix: solves, preconditions, tells the rank.

The constant term is eliminated first, which centres the other columns exactly:

    R = [q  m]    q = √Σs,  m = the columns' weighted sums / q
        [0  T]    T: the factor of the centred columns and the penalty, [d, d]

T is held as a triangle where it has full rank, else by its singular vectors, of which those below
rounding are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from .problem import EPS, Array


class Factor:
    """Solves with the factor R of the normal equations.

    Attributes:
        rank: Of T.
        condition: An estimate of T's condition number, columns scaled to unit length; of the part
            that is kept where the rank is not full.
    """

    def __init__(self, rho: float | None, m: Array, triangle: Array, noise: float) -> None:
        """`noise`: singular values below it, relative to the largest, are rounding."""
        self.rho, self.m = rho, m
        self._vectors: Array | None = None
        length = np.linalg.norm(triangle, axis=0)
        # To the power of two, so that scaling rounds nothing.
        self._scale = np.ldexp(1.0, np.where(length > 0, -np.frexp(length)[1], 0))
        self._varies = length > 0
        self._triangle: Array | None = triangle * self._scale
        d = len(length)
        self.rank, self.condition = d, 1.0
        if d == 0:
            return
        square = triangle.shape[0] == d and bool(np.all(length > 0))
        inverse_condition = lapack.dtrcon(self._triangle)[0] if square else 0.0
        if inverse_condition > 100 * d * noise:
            self.condition = 1.0 / inverse_condition
            return
        self._set_spectrum(*_svd(self._triangle), noise)

    @classmethod
    def from_gram(cls, rho: float | None, m: Array, gram: Array) -> Factor:
        """From the Gram matrix of the centred columns (and the penalty), which it squares.

        Where Cholesky's method finds it singular to rounding, from its eigenvectors.
        """
        self = cls.__new__(cls)
        self.rho, self.m = rho, m
        diagonal = np.diag(gram)
        root = np.sqrt(diagonal)
        self._scale = np.ldexp(1.0, np.where(root > 0, -np.frexp(root)[1], 0))
        self._varies = root > 0
        scaled = gram * self._scale * self._scale[:, None]
        d = len(diagonal)
        self.rank, self.condition, self._triangle = d, 1.0, None
        if d == 0:
            self._triangle = scaled
            return self
        triangle, failed = lapack.dpotrf(scaled, clean=1)
        if not failed:
            condition = 1.0 / max(lapack.dtrcon(triangle)[0], EPS)
            if condition < 1e7:
                self._triangle, self.condition = triangle, condition
                return self
        values, vectors = scipy.linalg.eigh(scaled)
        order = np.argsort(values)[::-1]
        sigma = np.sqrt(np.maximum(values[order], 0.0))
        self._set_spectrum(sigma, vectors[:, order], np.sqrt(8 * d * EPS))
        return self

    def _set_spectrum(self, sigma: Array, vectors: Array, noise: float) -> None:
        largest = sigma[0] if len(sigma) else 0.0
        self.rank = int(np.sum(sigma > noise * largest)) if largest > 0 else 0
        self.condition = float(largest / sigma[self.rank - 1]) if self.rank else 1.0
        if self.rank < len(self._scale) or self._triangle is None:
            self._triangle = None
            # Rounding mixes a little of a column of zeros into vectors; its coefficient is 0.
            vectors = vectors * self._varies[:, None]
            self._sigma, self._vectors = sigma[: self.rank], vectors[:, : self.rank]
            self._lost = vectors[:, self.rank :]

    @classmethod
    def diagonal(cls, rho: float | None, m: Array, length: Array) -> Factor:
        """Only each column's own length: a preconditioner, which says nothing of the rank."""
        self = cls.__new__(cls)
        self.rho, self.m = rho, m
        self._scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
        self._triangle, self._sigma, self._vectors = None, np.ones(len(length)), None
        self.rank, self.condition = len(length), float("nan")
        return self

    @property
    def full(self) -> bool:
        """Whether no direction was dropped."""
        return self.rank == len(self._scale)

    def _kept(self) -> Array:
        assert self._vectors is not None
        return self._vectors

    def lost(self) -> Array:
        """The unit vectors that were dropped, [d, q], of columns scaled to unit length."""
        return self._lost

    def centred(self, vectors: Array) -> Array:
        """Vectors for T's columns as w for A, with the constant that centres the image."""
        slopes = self._scale[:, None] * vectors
        if self.rho is None:
            return slopes
        return np.vstack([-(self.m @ slopes)[None] / self.rho, slopes])

    def weaker_than(self, part: float) -> Array:
        """Kept vectors of singular values below that part of the largest, divided by them."""
        weak = self._sigma < part * self._sigma[0] if self.rank else np.zeros(0, bool)
        return np.asarray(self._kept()[:, weak] / self._sigma[weak])

    def extend(self, sigma: Array, vectors: Array, noise: float) -> None:
        """Takes dropped directions back whose singular value, measured anew, is above rounding.

        `vectors`: the dropped ones, measured anew too, in sigma's order.
        """
        largest = self._sigma[0] if self.rank else (sigma[0] if len(sigma) else 0.0)
        good = sigma > noise * largest
        self._vectors = np.hstack([self._kept(), vectors[:, good]])
        self._sigma = np.concatenate([self._sigma, sigma[good]])
        self._lost = vectors[:, ~good]
        self.rank = len(self._sigma)
        self.condition = float(largest / self._sigma[-1]) if self.rank else 1.0

    def root(self) -> Array:
        """Z with Z Zᵀ = (RᵀR)⁻¹, of the part that is kept: [size, size or less]."""
        own: Array
        if self._triangle is not None:
            own = lapack.dtrtri(self._triangle)[0] if self.rank else self._triangle
        else:
            own = self._kept() / self._sigma
        own = self._scale[:, None] * own
        if self.rho is None:
            return own
        first = -(self.m @ own) / self.rho
        top = np.append(1.0 / self.rho, first)
        return np.vstack([top, np.hstack([np.zeros((len(own), 1)), own])])

    def parts(self, targets: int) -> tuple[list[Factor], Array]:
        """The factors there are, and which of them is each target's."""
        return [self], np.zeros(targets, np.int64)

    def estimable(self) -> Array:
        """For which columns the rows tell a coefficient: [d], False where others make up for it."""
        if self.full:
            return np.ones(len(self._scale), bool)
        return np.asarray(self._varies & np.all(np.abs(self._lost) < 1e-6, axis=1))

    def half(self, g: Array) -> Array:
        """R⁻ᵀ g. Of a gradient: the residual's part within reach of A, ½‖·‖² what it costs."""
        if self.rho is None:
            return self._half(g)
        first = g[:1] / self.rho
        return np.vstack([first, self._half(g[1:] - self.m[:, None] * first)])

    def back(self, h: Array) -> Array:
        """R⁻¹ h: the step of w that takes the half `h` away."""
        if self.rho is None:
            return self._back(h)
        slopes = self._back(h[1:])
        return np.vstack([(h[:1] - self.m @ slopes) / self.rho, slopes])

    def _half(self, g: Array) -> Array:
        g = self._scale[:, None] * g
        if self._triangle is None:
            own = g if self._vectors is None else self._vectors.T @ g
            return np.asarray(own / self._sigma[:, None])
        return np.asarray(_solve_triangular(self._triangle, g, transposed=True))

    def _back(self, h: Array) -> Array:
        if self._triangle is None:
            step = h / self._sigma[:, None]
            step = step if self._vectors is None else self._vectors @ step
        else:
            step = _solve_triangular(self._triangle, h, transposed=False)
        return np.asarray(self._scale[:, None] * step)

    def least_norm(self, w: Array, column_scale: Array) -> Array:
        """The one of all w that fit equally well whose coefficients `column_scale · w` are least.

        The vectors of the row space, V, fix Vᵀw; the least u = D w with (Vᵀ D⁻¹) u = Vᵀ w is found
        by a QR decomposition of D⁻¹V.
        """
        if self.full or self._vectors is None or self.rank == 0:
            return w
        slopes = w if self.rho is None else w[1:]
        inverse = 1.0 / (self._scale * column_scale)
        inverse = inverse / inverse.max()
        fixed = self._vectors.T @ (slopes.astype(np.float64) / self._scale[:, None])
        q, r = scipy.linalg.qr(inverse[:, None] * self._vectors, mode="economic")
        least = inverse[:, None] * (q @ _solve_triangular(r, fixed, transposed=True))
        least = (self._scale * self._varies)[:, None] * least
        if self.rho is None:
            return np.asarray(least)
        constant = w[:1] + (self.m @ (slopes - least)) / self.rho
        return np.vstack([constant, least])


class Factors:
    """One factor for each penalty that there is among the targets."""

    def __init__(self, shape: tuple[int, int], parts: list[tuple[Array, Factor]]) -> None:
        """`shape` is that of w; each part the targets it is for, and their factor."""
        self._parts, self._shape = parts, shape
        self.rank = min(factor.rank for _, factor in parts)
        self.condition = max(factor.condition for _, factor in parts)

    def parts(self, targets: int) -> tuple[list[Factor], Array]:
        """The factors there are, and which of them is each target's."""
        which = np.zeros(targets, np.int64)
        for number, (own, _) in enumerate(self._parts):
            which[own] = number
        return [factor for _, factor in self._parts], which

    def half(self, g: Array) -> Array:
        """As of a factor; zeros below where its rank is lower."""
        out = np.zeros(self._shape)
        for targets, factor in self._parts:
            h = factor.half(g[:, targets])
            out[: len(h), targets] = h
        return out

    def back(self, h: Array) -> Array:
        """As of a factor."""
        out = np.zeros(self._shape)
        for targets, factor in self._parts:
            rows = factor.rank + int(factor.rho is not None)
            out[:, targets] = factor.back(h[:rows, targets])
        return out


AnyFactor: TypeAlias = Factor | Factors


def by_penalty(
    alpha: Array, size: int, solve: Callable[[Array], tuple[Factor, Array]]
) -> tuple[AnyFactor, Array]:
    """`solve(targets)` -> (factor, w [size, targets]) for each penalty in alpha [k], together."""
    alphas, which = np.unique(alpha, return_inverse=True)
    if len(alphas) <= 1:
        return solve(np.arange(len(alpha)))
    w = np.zeros((size, len(alpha)))
    parts = []
    for i in range(len(alphas)):
        targets = np.flatnonzero(which == i)
        factor, w[:, targets] = solve(targets)
        parts.append((targets, factor))
    return Factors(w.shape, parts), w


def _solve_triangular(r: Array, b: Array, *, transposed: bool) -> Any:
    return scipy.linalg.solve_triangular(r, b, trans=int(transposed), check_finite=False)


def _svd(triangle: Array) -> tuple[Array, Array]:
    if len(triangle) == 0:
        return np.zeros(0), np.zeros((triangle.shape[1], 0))
    _, sigma, vectors = scipy.linalg.svd(triangle, full_matrices=False, check_finite=False)
    return sigma, vectors.T
