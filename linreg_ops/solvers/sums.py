"""Sums of rows about a shift, and about the rows' own means: they add, and they move.

Source: Chan, Golub and LeVeque, "Algorithms for computing the sample variance: analysis and
recommendations", 1983 (shifted data, and how two shifted sums are merged).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .problem import EPS, Array


@dataclass
class Sums:
    """Sums of rows about a shift: a = x - x_shift, b = y - y_shift, weights s."""

    rows: int
    weight: float  # Σ s
    x: Array  # Σ s a, [d]
    y: Array  # Σ s b, [k]
    xx: Array  # Σ s a aᵀ, [d, d]
    xy: Array  # Σ s a bᵀ, [d, k]
    yy: Array  # Σ s b², [k]

    @classmethod
    def of(cls, gram: Any) -> Sums:
        """As the kernel gives them."""
        sums = (gram.x_sum, gram.y_sum, gram.xx, gram.xy, gram.yy)
        return cls(gram.rows, gram.weight, *sums)

    def plus(self, other: Sums) -> Sums:
        """The sums of both one's rows."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Sums(*(mine + theirs for mine, theirs in pairs))

    def moved(self, x_shift: Array, y_shift: Array) -> Sums:
        """About a shift that is larger by x_shift and y_shift."""
        if not (np.any(x_shift) or np.any(y_shift)):
            return self
        w = self.weight
        across = np.outer(self.x, x_shift)
        down = np.outer(x_shift, self.y)
        return Sums(
            self.rows,
            w,
            self.x - w * x_shift,
            self.y - w * y_shift,
            self.xx - across - across.T + w * np.outer(x_shift, x_shift),
            self.xy - np.outer(self.x, y_shift) - down + w * np.outer(x_shift, y_shift),
            self.yy - 2 * self.y * y_shift + w * np.square(y_shift),
        )


@dataclass
class Centred:
    """Sums about the rows' own means (about zero where there is no constant term)."""

    rows: int
    weight: float  # Σ s
    x_mean: Array  # [d], and
    y_mean: Array  # [k]: what A = X - x_mean and B = Y - y_mean are centred by; else zeros
    gram: Array  # AᵀSA, [d, d]
    cross: Array  # AᵀSB, [d, k]
    squares: Array  # Σ s B², [k]
    lost: float  # by what factor rounding grew in the squares when they were centred

    def residual_squares(self, coef: Array) -> Array:
        """Σ s r² [k] of coefficients [d, k] with the intercept that suits them best.

        Right to a rounding of `squares`; not below it, where nearly nothing is left.
        """
        left = self.squares - np.sum(coef * (2 * self.cross - self.gram @ coef), axis=0)
        return np.asarray(np.maximum(left, 0.0))


def add_up(parts: list[Sums]) -> Sums:
    """The sums of all parts' rows, of which there is one at least."""
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    return total


def centre(sums: Sums, x_shift: Array, y_shift: Array, intercept: bool) -> Centred:
    """Sums about a shift as sums about their rows' means, or about zero without an intercept."""
    if not sums.weight > 0:
        raise ValueError("there are no rows of positive weight")
    if not intercept:
        moved = sums.moved(-x_shift, -y_shift)
        zeros = np.zeros(len(x_shift)), np.zeros(len(y_shift))
        return Centred(sums.rows, sums.weight, *zeros, moved.xx, moved.xy, moved.yy, 1.0)
    x, y = sums.x / sums.weight, sums.y / sums.weight
    moved = sums.moved(x, y)
    before, after = np.diag(sums.xx), np.diag(moved.xx)
    # All that is left of a column may be rounding, and then below zero.
    after = np.where(before > 0, np.maximum(after, EPS * before), 0.0)
    gram = np.array(moved.xx)
    np.fill_diagonal(gram, after)
    grown = np.divide(before, after, out=np.ones_like(after), where=after > 0)
    means = x_shift + x, y_shift + y
    squares = np.maximum(moved.yy, 0.0)
    lost = float(grown.max(initial=1.0))
    return Centred(sums.rows, sums.weight, *means, gram, moved.xy, squares, lost)
