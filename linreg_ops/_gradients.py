"""The registered gradients.

With R = XW - Y, S = diag(s) and L = ½ Σ s R²: the forward pass has computed G = ∂L/∂W = XᵀSR, so
the gradient of the loss reads x no second time. G itself is differentiated by Linreg>SavedGradient,
and Linreg>HessianVectorProduct computes XᵀSXV, its derivative in W, in one fused pass.

What has the size of x or y (their own gradients) cannot be fused away; it is computed with
TensorFlow's ops, and only when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import tensorflow as tf
from tensorflow.python.eager import record

from . import _library

Gradient: TypeAlias = tf.Tensor | None


@cache
def register() -> None:
    """Registers the gradients with TensorFlow, once per process."""
    tf.RegisterGradient("Linreg>L2LossGrad")(_l2_loss_grad)
    tf.RegisterGradient("Linreg>SavedGradient")(_saved_gradient)
    tf.RegisterGradient("Linreg>HessianVectorProduct")(_hessian_vector_product)
    tf.RegisterGradient("Linreg>GradientDescent")(_gradient_descent)


def saved_gradient(
    x: tf.Tensor, grad: tf.Tensor, w: tf.Tensor, y: tf.Tensor, s: list[tf.Tensor], intercept: bool
) -> tf.Tensor:
    """`grad` as a function of x, w and y, unless nobody could differentiate it."""
    if tf.executing_eagerly() and not record.could_possibly_record():
        return grad
    return _library.load().linreg_saved_gradient(x, grad, w, y, s, intercept=intercept)


class _Model:
    """The linear model of one op call: X with its implicit column of ones, and the row weights."""

    def __init__(self, op: tf.Operation, x: tf.Tensor, weight_like: tf.Tensor, s: list[tf.Tensor]):
        self._op = op
        self.x = x
        self._weights = s
        self.intercept = op.get_attr("intercept")
        self.rank_1 = weight_like.shape.rank == 1
        self.dtype = weight_like.dtype

    def wanted(self, index: int) -> bool:
        """Whether the gradient of input `index` is asked for. Where nobody knows, yes."""
        skipped = getattr(self._op, "skip_input_indices", None)
        return skipped is None or index not in skipped

    def matrix(self, value: tf.Tensor) -> tf.Tensor:
        """W or Y as a matrix, also where there is one target of rank 1."""
        return tf.expand_dims(value, -1) if self.rank_1 else value

    def unmatrix(self, value: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(value, -1) if self.rank_1 else value

    def times(self, v: tf.Tensor) -> tf.Tensor:
        """X V: [..., n, k]."""
        v = self.matrix(v)
        x = tf.cast(self.x, self.dtype)
        if not self.intercept:
            return tf.matmul(x, v)
        return tf.matmul(x, v[..., 1:, :]) + v[..., :1, :]

    def weighted(self, r: tf.Tensor) -> tf.Tensor:
        """S R."""
        return r * tf.expand_dims(self._weights[0], -1) if self._weights else r

    def outer(self, r: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        """R Vᵀ without the row of the intercept: what a gradient of x is made of."""
        v = self.matrix(v)
        if self.intercept:
            v = v[..., 1:, :]
        return tf.cast(tf.matmul(r, v, transpose_b=True), self.x.dtype)

    def hessian_vector_product(self, v: tf.Tensor) -> tf.Tensor:
        return _library.load().linreg_hessian_vector_product(
            self.x, v, self._weights, intercept=self.intercept
        )


def _row_sums(r: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(r, axis=-1)


def _l2_loss_grad(op: tf.Operation, d_loss: tf.Tensor, _: Gradient) -> list[Gradient]:
    # Nothing differentiates the second output directly: Linreg>SavedGradient stands in front of it.
    x, w, y, *s = op.inputs
    model = _Model(op, x, w, s)
    ct = d_loss
    if not model.rank_1 and d_loss.shape.rank != 0:
        # [..., 1, k] for one loss per target, else [..., 1, 1]: to multiply matrices by.
        ct = tf.expand_dims(ct, -2 if op.get_attr("loss_per_target") else -1)
        if not op.get_attr("loss_per_target"):
            ct = tf.expand_dims(ct, -1)
    d_x = d_w = d_y = None
    d_s: list[Gradient] = [None] * len(s)
    if model.wanted(1):
        # The raw op: operators cost twice as much where a whole eager step takes 100 µs.
        d_w = tf.raw_ops.Mul(x=ct, y=saved_gradient(x, op.outputs[1], w, y, s, model.intercept))
    if any(model.wanted(i) for i in (0, *range(2, len(op.inputs)))):
        r = model.times(w) - model.matrix(y)
        scaled = r * ct
        if model.wanted(0):
            d_x = model.outer(model.weighted(scaled), w)
        if model.wanted(2):
            d_y = -model.unmatrix(model.weighted(scaled))
        if s and model.wanted(3):
            d_s = [0.5 * _row_sums(scaled * r)]
    return [d_x, d_w, d_y, *d_s]


def _saved_gradient(op: tf.Operation, ct: tf.Tensor) -> list[Gradient]:
    x, _, w, y, *s = op.inputs
    model = _Model(op, x, w, s)
    d_x = d_w = d_y = None
    d_s: list[Gradient] = [None] * len(s)
    if model.wanted(2):
        d_w = model.hessian_vector_product(ct)
    if any(model.wanted(i) for i in (0, *range(3, len(op.inputs)))):
        xc = model.times(ct)
        if model.wanted(3):
            d_y = -model.unmatrix(model.weighted(xc))
        if model.wanted(0) or (s and model.wanted(4)):
            r = model.times(w) - model.matrix(y)
            if model.wanted(0):
                d_x = model.outer(model.weighted(r), ct) + model.outer(model.weighted(xc), w)
            if s and model.wanted(4):
                d_s = [_row_sums(r * xc)]
    return [d_x, None, d_w, d_y, *d_s]


def _hessian_vector_product(op: tf.Operation, ct: tf.Tensor) -> list[Gradient]:
    x, v, *s = op.inputs
    model = _Model(op, x, v, s)
    d_x = d_v = None
    d_s: list[Gradient] = [None] * len(s)
    if model.wanted(1):
        d_v = model.hessian_vector_product(ct)
    if any(model.wanted(i) for i in (0, *range(2, len(op.inputs)))):
        xv, xc = model.times(v), model.times(ct)
        if model.wanted(0):
            d_x = model.outer(model.weighted(xv), ct) + model.outer(model.weighted(xc), v)
        if s and model.wanted(2):
            d_s = [_row_sums(xv * xc)]
    return [d_x, d_v, *d_s]


def _gradient_descent(op: tf.Operation, *_: Gradient) -> Callable[..., Any]:
    raise LookupError(
        "linreg_ops.gradient_descent is not differentiable: it runs all its steps inside one op "
        "and keeps no iterate. Differentiate linear_l2_loss, or unroll the steps with "
        "linear_l2_loss_and_grad."
    )
