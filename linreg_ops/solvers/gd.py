"""Gradient descent on the raw kernel: for who asks for it by giving a learning rate.

Trains on centred columns of unit variance (a copy of X in its own type), or on X itself. Targets
and weights are scaled by powers of two, which changes no bit of the descent but keeps its squares
finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import kernels
from ..training import DivergenceError, descend_checked
from .cg import moments
from .problem import Array, Problem, power_of_two

# Multiplications in one call of the kernel, between which Ctrl-C finds what was computed.
_WORK = 2e8


class Descent:
    """The problem in the coordinates that it is trained in."""

    def __init__(self, problem: Problem, standardize: bool) -> None:
        self.problem, self.standardize = problem, standardize
        self.type = problem.x.dtype
        self.implicit_ones = problem.intercept and not standardize
        # One scale for all targets, whose losses the kernel adds up.
        if standardize:
            self.y_scale = float(problem.y_scale.min())
            problem.y_scale = np.full(problem.k, self.y_scale)
            self._standardized()
        else:
            self.y_scale = float(power_of_two(np.max(np.abs(problem.y))))
            self.x = np.ascontiguousarray(problem.x)
            self.y = np.multiply(problem.y, self.y_scale).astype(self.type)
            self.s = problem.s
        if self.s is not None:
            self.s = (self.s * problem.s_scale).astype(self.type)
        self.w_shape = (problem.d + int(self.implicit_ones), problem.k)

    def _standardized(self) -> None:
        problem = self.problem
        self.mean, left, weight = moments(problem)
        deviation = np.sqrt(left / weight)
        self.deviation = np.where(deviation > 0, deviation, 1.0)
        rows = problem.n if problem.s is None else int(np.count_nonzero(problem.s))
        self.x = np.empty((rows, problem.d), self.type)
        self.y = np.empty((rows, problem.k), self.type)
        self.s = None if problem.s is None else problem.s[problem.s > 0]
        self.mean_y = np.zeros(problem.k)
        if problem.intercept:
            weights = None if self.s is None else self.s * problem.s_scale
            self.mean_y = np.average(self._targets(), axis=0, weights=weights)
        begin = 0
        for a, b_rows, _ in problem.blocks():
            end = begin + len(a)
            self.x[begin:end] = (a - self.mean) / self.deviation
            self.y[begin:end] = b_rows - self.mean_y
            begin = end

    def _targets(self) -> Array:
        problem = self.problem
        y = problem.y if problem.s is None else problem.y[problem.s > 0]
        return np.asarray(y * problem.y_scale - problem.y_shift * problem.y_scale)

    def to_problem(self, w: Array) -> Array:
        """W [size, k] in the problem's coordinates."""
        problem = self.problem
        w = w.astype(np.longdouble)
        if not self.standardize:
            w = w / self.y_scale
            intercept = w[0] if self.implicit_ones else np.zeros(problem.k)
            return problem.from_original(intercept, w[int(self.implicit_ones) :])
        slopes = w / self.deviation[:, None]
        if not problem.intercept:
            return np.asarray(slopes)
        return np.vstack([self.mean_y - self.mean @ slopes, slopes])

    def descend(
        self,
        rate: Any,
        num_steps: int,
        momentum: float,
        keep: Callable[[Array, Array], None],
    ) -> tuple[Array, Array]:
        """W after all steps, and the loss [num_steps + 1] before the first and after each."""
        # The rate is for the weights as given.
        rates = np.asarray(rate, np.float64) / self.problem.s_scale
        work = max(self.x.size * self.problem.k, 1)
        steps_per_call = max(1, int(_WORK / work))
        velocity = None
        if momentum > 0 and num_steps > 10 * steps_per_call:
            velocity = _Velocity(self, momentum)
        elif momentum > 0:
            steps_per_call = max(num_steps, 1)  # the velocity lives inside the call

        def run(w: Array, first: int, steps: int) -> tuple[Array, Array]:
            part = rates if rates.ndim == 0 else rates[first : first + steps]
            if velocity is not None:
                w, losses = velocity.run(w, part, first, steps)
            else:
                w, losses = kernels.gradient_descent(
                    self.x, w, self.y, part, steps,
                    intercept=self.implicit_ones, sample_weight=self.s, momentum=momentum,
                )  # fmt: skip
            if np.all(np.isfinite(losses)):
                keep(self.to_problem(w), self._original(losses[1:]))
            return w, losses

        if rates.ndim and rates.shape != (num_steps,):
            raise ValueError(
                f"learning_rate must be a number or have shape [num_steps] = [{num_steps}], "
                f"got shape {list(rates.shape)}"
            )
        start = np.zeros(self.w_shape, self.type)
        try:
            w, losses = descend_checked(run, start, num_steps, steps_per_call)
        except DivergenceError as error:
            intercept, coef = self.problem.to_original(self.to_problem(error.w))
            error.w = np.concatenate([intercept[None], coef]) if self.problem.intercept else coef
            error.w = error.w.astype(self.type)
            error.losses = self._original(error.losses)
            raise
        return w, self._original(losses)

    def _original(self, losses: Array) -> Array:
        """Losses in the data's units."""
        with np.errstate(over="ignore", under="ignore"):
            losses = np.asarray(losses, np.float64) / self.y_scale / self.y_scale
            return np.asarray(losses / self.problem.s_scale)

    def loss_and_grad(self, w: Array) -> tuple[float, Array]:
        """One fused pass."""
        loss, grad = kernels.loss_and_grad(
            self.x, w, self.y, intercept=self.implicit_ones, sample_weight=self.s
        )
        return float(loss), grad

    def largest_eigenvalue(self, iterations: int = 100) -> float:
        """XᵀSX's, by power iteration: from below, but 1 / λ is only half of the stable maximum."""
        v = np.random.default_rng(0).standard_normal((self.w_shape[0], 1))
        estimate = 0.0
        for _ in range(iterations):
            v /= np.linalg.norm(v)
            image = kernels.loss_and_grad(
                self.x, v.astype(self.type), None,
                intercept=self.implicit_ones, sample_weight=self.s,
            )[1].astype(np.float64)  # fmt: skip
            previous, estimate = estimate, float(np.linalg.norm(image))
            if estimate == 0.0:
                return 1.0  # X is zero: any rate does
            if not np.isfinite(estimate):
                raise ValueError(
                    f"X is too large for {self.type}: its squares overflow; scale it down, or use "
                    "standardize=True"
                )
            if estimate - previous <= 1e-3 * estimate:
                break
            v = image
        return estimate / self.problem.s_scale


class _Velocity:
    """Heavy-ball steps one by one, where all in one call of the kernel would not be waited for."""

    def __init__(self, descent: Descent, momentum: float) -> None:
        self._descent, self._momentum = descent, momentum
        self._at: dict[int, Array] = {0: np.zeros(descent.w_shape)}

    def run(self, w: Array, rate: Array, first: int, steps: int) -> tuple[Array, Array]:
        """Steps `first` and on; a second time too, from where the first time began."""
        velocity = self._at[first]
        loss, grad = self._descent.loss_and_grad(w)
        losses = [loss]
        for t in range(steps):
            velocity = self._momentum * velocity - float(rate if rate.ndim == 0 else rate[t]) * grad
            w = w + velocity.astype(w.dtype)
            loss, grad = self._descent.loss_and_grad(w)
            losses.append(loss)
        self._at = {first: self._at[first], first + steps: velocity}
        return w, np.array(losses)
