"""The registered gradients.

With R = XW - Y, S = diag(s) and L = ½ Σ s R²: the forward pass has computed G = ∂L/∂W = XᵀSR, so
the gradient of the loss reads x no second time. G itself is differentiated by Linreg>SavedGradient,
and Linreg>HessianVectorProduct computes XᵀSXV, its derivative in W, in one fused pass.

What has the size of x or y (their own gradients) cannot be fused away; it is computed with
TensorFlow's ops, and only when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.framework import ops

from . import _library

Gradient: TypeAlias = tf.Tensor | None


def register() -> None:
    """Registers the gradients with TensorFlow, in place of those of an earlier import."""
    for op_type, gradient in {
        "Linreg>L2LossGrad": _l2_loss_grad,
        "Linreg>SavedGradient": _saved_gradient,
        "Linreg>HessianVectorProduct": _hessian_vector_product,
        "Linreg>GradientDescent": _gradient_descent,
    }.items():
        ops.gradient_registry._registry.pop(op_type, None)
        tf.RegisterGradient(op_type)(gradient)


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
        self._weight_like = weight_like
        self.intercept = op.get_attr("intercept")
        rank = weight_like.shape.rank
        if rank is None and x.shape.rank is not None and x.shape.rank > 2:
            rank = x.shape.rank
        # Whether W is one target of rank 1; None: only the run can tell.
        self.rank_1 = None if rank is None else rank == 1
        self.dtype = weight_like.dtype

    def wanted(self, index: int) -> bool:
        """Whether the gradient of input `index` is asked for. Where nobody knows, yes."""
        skipped = getattr(self._op, "skip_input_indices", None)
        return skipped is None or index not in skipped

    def matrix(self, value: tf.Tensor) -> tf.Tensor:
        """W or Y as a matrix, also where there is one target of rank 1."""
        if self.rank_1 is None:
            one = tf.ones([self._missing()], tf.int32)
            return tf.reshape(value, tf.concat([tf.shape(value), one], 0))
        return tf.expand_dims(value, -1) if self.rank_1 else value

    def unmatrix(self, value: tf.Tensor) -> tf.Tensor:
        if self.rank_1 is None:
            return tf.reshape(value, tf.shape(value)[: tf.rank(value) - self._missing()])
        return tf.squeeze(value, -1) if self.rank_1 else value

    def _missing(self) -> tf.Tensor:
        """The dimensions that W lacks to be a matrix: 0 or 1."""
        return tf.cast(tf.equal(tf.rank(self._weight_like), 1), tf.int32)

    def cotangent(self, ct: tf.Tensor, per_target: bool) -> tf.Tensor:
        """That of the loss, to multiply matrices by: [..., 1, k] for each target, or [..., 1, 1].

        A scalar stays one where W is known to be of rank 1, and W's gradient a vector.
        """
        if self.rank_1 or ct.shape.rank == 0:
            return ct
        if per_target:
            return tf.expand_dims(self.matrix(ct), -2)
        return tf.expand_dims(tf.expand_dims(ct, -1), -1)

    def scaled(self, ct: tf.Tensor, grad: tf.Tensor) -> tf.Tensor:
        """A gradient of W's shape by the loss's cotangent."""
        if self.rank_1 is None:
            return self.unmatrix(ct * self.matrix(grad))
        # The raw op: operators cost twice as much where a whole eager step takes 100 µs.
        return tf.raw_ops.Mul(x=ct, y=grad)

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
    ct = model.cotangent(d_loss, op.get_attr("loss_per_target"))
    d_x = d_w = d_y = None
    d_s: list[Gradient] = [None] * len(s)
    if model.wanted(1):
        d_w = model.scaled(ct, saved_gradient(x, op.outputs[1], w, y, s, model.intercept))
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
