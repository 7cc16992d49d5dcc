"""Least squares by steps, each of them one fused pass over X in X's own type.

With Y = 0 the gradient that the kernel computes is the Hessian-vector product XᵀS·X·P, which is
what conjugate gradients need; gradient descent is one call for all of its steps.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import kernels
from ._least_squares import Rows
from .training import DivergenceError, descend_checked

Array: TypeAlias = npt.NDArray[Any]


class Descent:
    """A problem in the coordinates it is trained in.

    With `standardize`, those are centred columns of unit variance, a copy of X, and y centred and
    divided by a power of two; the intercept is taken care of by centring. Without, they are X's and
    y's own, and the kernel adds the column of ones. Row weights are multiplied by `rows.s_scale`,
    so rates are divided by it.
    """

    def __init__(self, rows: Rows, standardize: bool) -> None:
        self.rows, self.standardize, self.type = rows, standardize, rows.x.dtype
        self.implicit_ones = rows.intercept and not standardize
        self.s = None if rows.s is None else rows.s.astype(self.type)
        if standardize:
            self.y_scale = float(rows.y_scale.min(initial=1.0))
            self._measure()
            self.x, self.y = self._standardized()
        else:
            self.y_scale = 1.0
            self.x = np.ascontiguousarray(rows.x)
            with np.errstate(over="ignore"):
                self.y = np.ascontiguousarray(rows.y, self.type)
        self.w_shape = (rows.d + int(self.implicit_ones), rows.k)

    def _measure(self) -> None:
        """Mean and deviation of what `rows` gives; a constant column has deviation 1."""
        rows, p = self.rows, int(self.rows.intercept)
        total = float(rows.n if rows.s is None else rows.s.sum())
        self.mean, self.y_mean = np.zeros(rows.d), np.zeros(rows.k)
        self.constant = np.full(rows.d, bool(p))
        if p:
            for a, b in rows.blocks():
                self.mean += a[:, 0] @ a[:, 1:] / total
                self.y_mean += a[:, 0] @ b / total
                self.constant &= ~a[:, 1:].any(0)  # shifted by the first row that counts
        square = np.zeros(rows.d)
        for a, _ in rows.blocks():
            centred = a[:, 1:] - a[:, :1] * self.mean if p else a
            square += np.einsum("ij,ij->j", centred, centred)
        self.deviation = np.where(self.constant | (square == 0), 1.0, np.sqrt(square / total))

    def _standardized(self) -> tuple[Array, Array]:
        rows, p = self.rows, int(self.rows.intercept)
        x, y = np.empty((rows.n, rows.d), self.type), np.empty((rows.n, rows.k), self.type)
        end = 0
        for a, b in rows.blocks(weighted=False):
            start, end = end, end + len(a)
            x[start:end] = (a[:, p:] - self.mean) / self.deviation
            y[start:end] = (b - self.y_mean) * (self.y_scale / rows.y_scale)
        x[:, self.constant] = 0.0
        return x, y

    def original(self, w: Array) -> tuple[Array, Array]:
        """(intercept [k], coef [d, k]) for X and y as they are."""
        w = w.astype(np.float64)
        if not self.standardize:
            p = int(self.implicit_ones)
            return (w[0] if p else np.zeros(self.rows.k)), w[p:]
        slopes = w / self.deviation[:, None] * (self.rows.y_scale / self.y_scale)
        if self.rows.intercept:
            slopes = np.vstack([(self.y_mean - self.mean @ slopes)[None], slopes])
        return self.rows.original(slopes)

    def _in_units(self, losses: Array) -> Array:
        with np.errstate(over="ignore"):
            units = np.float64(self.y_scale) ** 2 * self.rows.s_scale
            return np.asarray(losses, np.float64) / units

    def _pass(self, w: Array, y: Array | None) -> tuple[Array, Array]:
        """One fused pass. The small vectors outside it are float64 whatever X is."""
        loss, grad = kernels.loss_and_grad(
            self.x,
            w.astype(self.type),
            y,
            intercept=self.implicit_ones,
            sample_weight=self.s,
            loss_per_target=True,
        )
        return loss.astype(np.float64), grad.astype(np.float64)

    def conjugate_gradients(self, num_steps: int, tol: float) -> tuple[Array, Array]:
        """One recurrence per target, all in the same pass over X.

        A target is done when its gradient, relative to ‖X‖·‖residual‖, is below tol or within
        rounding of zero. The gradient is carried by the recurrence. When that says done, one pass
        computes it afresh; if rounding had fooled the recurrence, it restarts from there.
        """
        w = np.zeros(self.w_shape)
        loss, grad = self._pass(w, self.y)
        start, losses = loss, [loss.sum()]
        eps = float(np.finfo(self.type).eps)
        norm_x = self._norm_x()
        direction = -grad
        squared = np.square(grad).sum(0)
        fresh = True
        while len(losses) <= num_steps:
            limit = max(tol, eps) * np.sqrt(2 * loss) + eps * np.sqrt(2 * start)
            if np.all(np.sqrt(squared) <= norm_x * limit):
                if fresh:
                    break
                loss, grad = self._pass(w, self.y)
                direction, squared, fresh = -grad, np.square(grad).sum(0), True
                continue
            image = self._pass(direction, None)[1]
            curvature = np.sum(direction * image, axis=0)
            step = np.divide(squared, curvature, out=np.zeros_like(squared), where=curvature > 0)
            w += step * direction
            grad += step * image
            loss = np.maximum(loss - 0.5 * step * squared, 0.0)
            losses.append(loss.sum())
            new = np.square(grad).sum(0)
            beta = np.divide(new, squared, out=np.zeros_like(new), where=squared > 0)
            direction = beta * direction - grad
            squared, fresh = new, False
        return w, self._in_units(np.array(losses))

    def _norm_x(self) -> float:
        """‖√S·X‖ of the coordinates trained in."""
        weight = np.ones(self.rows.n) if self.rows.s is None else self.rows.s
        square = weight.sum() * self.implicit_ones
        step = self.rows.rows_per_block
        for start in range(0, self.rows.n, step):
            block = self.x[start : start + step].astype(np.float64)
            square += np.einsum("i,ij,ij->", weight[start : start + step], block, block)
        return float(np.sqrt(square))

    def descend(self, rate: Any, num_steps: int, momentum: float) -> tuple[Array, Array]:
        """Exactly `num_steps` steps of gradient descent, and the loss at each iterate.

        Raises:
            DivergenceError: With the step and the last finite weights, for X and y as they are.
        """
        rates = np.asarray(rate, np.float64) / self.rows.s_scale

        def run(w: Array, first: int, steps: int) -> tuple[Array, Array]:
            return kernels.gradient_descent(
                self.x,
                w,
                self.y,
                float(rates) if rates.ndim == 0 else rates[first : first + steps],
                steps,
                intercept=self.implicit_ones,
                sample_weight=self.s,
                momentum=momentum,
            )

        if rates.ndim and rates.shape != (num_steps,):
            raise ValueError(
                f"learning_rate must be a number or have one for each of the {num_steps} steps, "
                f"got shape {list(rates.shape)}"
            )
        try:
            w, losses = descend_checked(run, np.zeros(self.w_shape, self.type), num_steps)
        except DivergenceError as error:
            intercept, coef = self.original(error.w)
            error.w = np.concatenate([intercept[None], coef]) if self.rows.intercept else coef
            error.losses = self._in_units(error.losses)
            raise
        return w, self._in_units(losses)

    def stable_rate(self, iterations: int = 100) -> float:
        """1 / λ, λ the largest eigenvalue of XᵀSX by power iteration.

        That finds λ from below, but 1 / λ is only half of the largest rate that is stable.
        """
        v = np.random.default_rng(0).standard_normal((self.w_shape[0], 1))
        estimate = 0.0
        for _ in range(iterations):
            v /= np.linalg.norm(v)
            image = self._pass(v, None)[1]
            previous, estimate = estimate, float(np.linalg.norm(image))
            if estimate == 0.0:
                return 1.0  # X is zero: any rate does
            if estimate - previous <= 1e-3 * estimate:
                break
            v = image
        return self.rows.s_scale / estimate
