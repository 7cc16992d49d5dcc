"""A least-squares problem, read in blocks of float64 rows, shifted and scaled: extremes cancel.

Whoever solves it sees, for rows of positive weight,

    A = 2^p (X - c),   B = 2^q (Y - c'),   weights 2^r s

The scales are powers of two and cost no digit; the shift, a number of few bits near each column's
mean, is exact wherever the difference can be written down at all. So offsets of a barometer, units
of 10^±200 and weights of 10^±150 are no matter to any solver. X is never copied whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from .. import kernels

Array: TypeAlias = npt.NDArray[Any]
EPS = float(np.finfo(np.float64).eps)

# Numbers of a block: 1 MiB of float64, for the second-level cache. Blocks are cut at fixed row
# numbers, by d alone.
_BLOCK = 2**17


class Block(NamedTuple):
    """Some rows: a [m, d], b [m, k], and s [m] unless all weights are one."""

    a: Array
    b: Array
    s: Array | None


class Fit(NamedTuple):
    """Loss [k] and gradient [p, k] at some w, in the coordinates of the blocks."""

    loss: Array
    grad: Array


class Problem:
    """½ Σ sᵢ ‖xᵢ·coef + intercept - yᵢ‖² + ½ Σ alpha·column·coef², with X, Y and s as given.

    Args:
        x: [n, d], float32 or float64, or a SciPy CSR matrix.
        y: [n, k], floating.
        s: [n] weights, not negative, not all zero; None for ones.
        intercept: Whether there is a constant term. It is not penalised.
        alpha: The ridge's penalty, one for all targets or [k].
        column_penalty: [d], by which alpha is multiplied for each column; None for ones.
    """

    def __init__(
        self,
        x: Any,
        y: Array,
        s: Array | None,
        *,
        intercept: bool,
        alpha: Any = 0.0,
        column_penalty: Array | None = None,
    ) -> None:
        self.x, self.y, self.s = x, y, s
        self.n, self.d = x.shape
        self.k = y.shape[1]
        self.intercept = intercept
        self.size = self.d + int(intercept)
        self.reads = 0
        self._looked_again = self._moved = False
        power = max(5, (_BLOCK // max(self.d, 1)).bit_length() - 1)
        self.rows_per_block = 2 ** min(power, 16)

        self.s_scale = 1.0 if s is None else power_of_two(float(np.max(s)))
        self.alpha = np.broadcast_to(np.asarray(alpha, np.float64), (self.k,))
        self._column_penalty = np.ones(self.d) if column_penalty is None else column_penalty
        self._set_y()
        self._set_x(*self._look_at(next(self.raw_blocks())[0]))

    # The coordinates.

    def _set_y(self) -> None:
        """The shift and the scale of Y, which is small, from all of it."""
        y = self.y if self.s is None else self.y[self.s > 0]
        self.y_shift, spread = shift_and_spread(y, self.intercept)
        self.y_scale = power_of_two(spread)

    def _look_at(self, x: Array) -> tuple[Array, Array]:
        return shift_and_spread(x, self.intercept)

    def _set_x(self, shift: Array, spread: Array) -> None:
        # The penalty adds to the columns' squares: beside it, a much smaller column is as large.
        own = np.sqrt(self._column_penalty) * np.sqrt(self.s_scale)
        root = np.sqrt(self.alpha)
        least = own * (root.min() if self.k else 0.0)
        self.x_shift, self._spread = shift, spread
        self.x_scale = power_of_two(np.maximum(spread, least / np.sqrt(max(self.n, 1))))
        # [d, k]: ½ Σ penalty w² is the ridge's in the blocks' coordinates, coef = x_scale · w.
        self.penalty = np.square(root * (own * self.x_scale)[:, None])

    def penalty_of(self, targets: Array) -> Array:
        """The penalty [d] of targets that share one; zeros of no targets."""
        return np.asarray(self.penalty[:, targets[0]] if len(targets) else np.zeros(self.d))

    def look_again(self) -> None:
        """The shift and scale of X from all rows, as the first block was no guide to the rest."""
        low = np.full(self.d, np.inf)
        high = -low
        total, weight = np.zeros(self.d), 0.0
        first = None
        self.reads += 1
        for x, _, s in self.raw_blocks():
            if len(x) == 0:
                continue
            first = np.array(x[0], np.float64) if first is None else first
            low, high = np.minimum(low, x.min(axis=0)), np.maximum(high, x.max(axis=0))
            weights = np.ones(len(x)) if s is None else s * self.s_scale
            weight += float(weights.sum())
            with np.errstate(over="ignore", invalid="ignore"):
                total += weights @ (x - first)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.asarray(first) + total / weight
        self._set_x(*_few_bits(mean, low, high, self.intercept))

    def settled(self, mean: Array, deviation: Array) -> bool:
        """Whether the coordinates suit all rows, of this mean and deviation; else takes new ones.

        They were chosen by the first block and without weights. They do unless what a column is off
        by would cost digits, its squares overflow, or it was constant only there.
        """
        with np.errstate(invalid="ignore"):
            finite = bool(np.all(np.isfinite(deviation)) and np.all(np.isfinite(mean)))
        if not finite or any(not self.constant(int(j)) for j in np.flatnonzero(deviation == 0)):
            if self._looked_again:
                raise FloatingPointError("X holds values whose squares have no place in float64")
            self._looked_again = True
            self.look_again()
            return False
        off = (np.abs(mean) > 16 * deviation) & (deviation > 0)
        if not self.intercept or not np.any(off) or self._moved:
            return True
        self._moved = True
        middle = self.x_shift + mean / self.x_scale
        reach = deviation / self.x_scale
        shift, _ = _few_bits(middle, middle - 4 * reach, middle + 4 * reach, True)
        self._set_x(np.where(off, shift, self.x_shift), np.where(off, 4 * reach, self._spread))
        return False

    def to_original(self, w: Array) -> tuple[Array, Array]:
        """(intercept [k], coef [d, k]) in float64, for X and Y as given."""
        scale = self.x_scale.astype(np.longdouble)[:, None] / self.y_scale
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            coef = w[int(self.intercept) :] * scale
            if not self.intercept:
                return np.zeros(self.k), np.asarray(coef, np.float64)
            at_shift = w[0].astype(np.longdouble) / self.y_scale + self.y_shift
            intercept = at_shift - self.x_shift @ coef
        return np.asarray(intercept, np.float64), np.asarray(coef, np.float64)

    def from_original(self, intercept: Array, coef: Array) -> Array:
        """The inverse of `to_original`."""
        slopes = coef.astype(np.longdouble) * self.y_scale / self.x_scale[:, None]
        if not self.intercept:
            return np.asarray(slopes)
        at_shift = intercept + self.x_shift @ coef.astype(np.longdouble)
        return np.vstack([(at_shift - self.y_shift) * self.y_scale, slopes])

    def directions(self, w: Array) -> Array:
        """Changes of w [size, q] as changes of (intercept, coef) for X as given, in Y's scale."""
        slopes: Array = self.x_scale[:, None] * w[int(self.intercept) :]
        if not self.intercept:
            return slopes
        return np.vstack([w[:1] - self.x_shift @ slopes, slopes])

    def original_loss(self, loss: Array) -> Array:
        """A loss per target in the data's own units; inf where that is beyond float64."""
        with np.errstate(over="ignore", under="ignore"):
            loss = np.asarray(loss, np.float64) / self.y_scale / self.y_scale
            return np.asarray(loss / self.s_scale)

    # The rows.

    def raw_blocks(self, whole: bool = False) -> Iterator[tuple[Array, Array, Array | None]]:
        """Rows of X as given, dense, with their Y and s; those of weight 0 are left out.

        All in one block with `whole`, where X can be had so without a copy.
        """
        no_copy = isinstance(self.x, np.ndarray) and self.x.flags.c_contiguous
        if whole and no_copy and (self.s is None or np.all(self.s)):
            yield self.x, self.y, self.s
            return
        for begin in range(0, max(self.n, 1), self.rows_per_block):
            rows = slice(begin, min(begin + self.rows_per_block, self.n))
            x, y = self.x[rows], self.y[rows]
            if not isinstance(x, np.ndarray):
                x = x.toarray()
            s = None
            if self.s is not None:
                s = self.s[rows]
                if not np.all(s):
                    kept = s > 0
                    x, y, s = x[kept], y[kept], s[kept]
            yield x, y, s

    def blocks(self, dtype: Any = np.float64) -> Iterator[Block]:
        """One read of the rows, in the coordinates of the solver.

        A block's array is used again for the next one.
        """
        self.reads += 1
        buffer = np.empty((min(self.rows_per_block, self.n), self.d), dtype)
        x_scale, x_shift = self.x_scale.astype(dtype), (self.x_shift * self.x_scale).astype(dtype)
        y_scale, y_shift = self.y_scale.astype(dtype), (self.y_shift * self.y_scale).astype(dtype)
        shifted = bool(np.any(x_shift))
        for x, y, s in self.raw_blocks():
            a = buffer[: len(x)]
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                np.multiply(x, x_scale, out=a, casting="same_kind")
                if shifted:
                    a -= x_shift
                b = np.multiply(y, y_scale, dtype=dtype)
                b -= y_shift
            yield Block(a, b, None if s is None else np.multiply(s, self.s_scale, dtype=dtype))

    def at(self, w: Array, *, targets: bool = True, extended: bool = False) -> Fit:
        """Loss and gradient at w [size, k] in one read; Y counts as zero without `targets`.

        With `extended` in long double: residuals to 64 bits, where the platform has them.
        """
        dtype = np.longdouble if extended else np.float64
        w = w.astype(dtype)
        k = w.shape[1]
        loss: Array = np.zeros(k, dtype)
        grad: Array = np.zeros((self.size, k), dtype)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for a, b, s in self.blocks(dtype):
                if k == 1 and not extended:
                    # One target: the fused kernel, which reads the block once.
                    part, block_grad = kernels.loss_and_grad(
                        a, w, b if targets else None, intercept=self.intercept, sample_weight=s
                    )
                    loss += part
                    grad += block_grad
                    continue
                r = a @ w[int(self.intercept) :]
                if self.intercept:
                    r += w[0]
                if targets:
                    r -= b
                weighted = r if s is None else r * s[:, None]
                loss += 0.5 * np.einsum("ij,ij->j", weighted, r)
                grad[int(self.intercept) :] += a.T @ weighted
                if self.intercept:
                    grad[0] += weighted.sum(axis=0)
            if np.any(self.penalty):
                grad[int(self.intercept) :] += self.penalty * w[int(self.intercept) :]
        return Fit(loss, grad)

    def images(self, w: Array, penalty: Array) -> Array:
        """(A w)ᵀ S (A w) + the penalty's [d] for w [size, q]: [q, q], in one read."""
        total = np.zeros((w.shape[1], w.shape[1]))
        for a, _, s in self.blocks():
            image = a @ w[int(self.intercept) :]
            if self.intercept:
                image += w[0]
            if s is not None:
                image *= np.sqrt(s)[:, None]
            total += image.T @ image
        slopes = np.sqrt(penalty)[:, None] * w[int(self.intercept) :]
        return np.asarray(total + slopes.T @ slopes)

    def constant(self, column: int) -> bool:
        """Whether all values of a column (of positive weight) are the shift."""
        x = self.x[:, [column]]
        values = (x if isinstance(x, np.ndarray) else x.toarray())[:, 0]
        if self.s is not None:
            values = values[self.s > 0]
        return bool(np.all(values == self.x_shift[column]))


def refuse_overflow(alpha: Array, column_penalty: Array) -> None:
    """Raises ValueError if what alpha and column_penalty are multiplied to is no float64."""
    with np.errstate(over="ignore"):
        largest = alpha.max(initial=0.0) * column_penalty.max(initial=0.0)
    if not np.isfinite(largest):
        raise ValueError("alpha times penalty must be a float64, got a product beyond 1.8e308")


def one_blas_thread(problem: Problem) -> AbstractContextManager[Any]:
    """For products and QRs of one block after the other, each of them too small for threads.

    Where other programs run, BLAS's threads wait for each other at every one: 0.4 s were seen for
    a QR that takes 4 ms. Not for a problem of one block, where the switch would take longer.
    """
    if problem.n <= problem.rows_per_block:
        return nullcontext()
    return threadpool_limits(1, user_api="blas")  # type: ignore[no-any-return]


def power_of_two(size: Any) -> Any:
    """1 / size, to the power of two that brings it to [½, 1); 1 for zero.

    Kept within 2^±1000, so that it is a normal number; what is left of the extremes beyond that is
    within float64's squares.
    """
    with np.errstate(invalid="ignore"):
        exponent = np.where(np.asarray(size) > 0, -np.frexp(size)[1], 0)
    return np.ldexp(1.0, np.clip(exponent, -1000, 1000))


def shift_and_spread(values: Array, intercept: bool) -> tuple[Array, Array]:
    """For each column, a number of few bits near its mean (0 without intercept), and a spread."""
    if len(values) == 0:
        return np.zeros(values.shape[1]), np.ones(values.shape[1])
    low, high = values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64)
    first = values[0].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        # Differences to the first value: a sum of raw timestamps would round by milliseconds.
        mean = first + np.mean(values - first, axis=0, dtype=np.float64)
    return _few_bits(mean, low, high, intercept)


def _few_bits(mean: Array, low: Array, high: Array, intercept: bool) -> tuple[Array, Array]:
    size = np.maximum(np.abs(low), np.abs(high))
    if not intercept:
        return np.zeros_like(size), size
    with np.errstate(over="ignore"):
        spread = np.minimum(high - low, np.finfo(np.float64).max)
    # A multiple of a 64th of the spread: x - shift is exact unless x is much smaller than both.
    unit = np.ldexp(1.0, np.clip(np.frexp(spread)[1] - 6, -1070, 1020))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        shift = np.rint(mean / unit) * unit
    shift = np.where(np.isfinite(shift), shift, low)
    # Within the values: a constant column is shifted by its constant, to zeros.
    return np.clip(shift, low, high), np.where(spread > 0, spread, 0.0)
