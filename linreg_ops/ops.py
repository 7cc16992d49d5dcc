"""The ops: argument handling here, the maths in the kernels, the derivatives in _gradients."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from . import _gradients, _interruptible, _library, _pfor, _statistics, stock

# What tf.convert_to_tensor takes: tensors, variables, NumPy arrays, nested lists.
TensorLike = Any

_ops = _library.load()
_gradients.register()
_pfor.register()
_statistics.register()

_FLOATS = (tf.float32, tf.float64, tf.float16, tf.bfloat16)


class LossAndGrad(NamedTuple):
    """Loss, and gradient with respect to w."""

    loss: tf.Tensor
    grad: tf.Tensor


class Descent(NamedTuple):
    """Weights after the last step, and the loss at every iterate (`num_steps + 1` of them)."""

    w: tf.Tensor
    losses: tf.Tensor


def linear_l2_loss(
    x: TensorLike,
    w: TensorLike,
    y: TensorLike,
    *,
    intercept: bool = False,
    sample_weight: TensorLike | None = None,
    name: str | None = None,
) -> tf.Tensor:
    """L2 loss of a linear model; its gradient costs no second pass over x.

    Drop-in for the unfused::

        tf.nn.l2_loss(tf.matmul(x, w) - y)  # = ½ Σ (xw - y)²: a sum, not a mean

    The forward pass computes the gradient with respect to w as well, and differentiation returns
    it. Differentiable to any order in x, w, y and sample_weight; second derivatives in w are one
    fused pass, xᵀ(xv).

    Args:
        x: `[n, d]`, or `[..., n, d]` for a batch of problems whose losses are summed. float32,
            float64, float16 or bfloat16.
        w: `[d, k]`, or `[d]` for one target (then y is `[n]`). One more row, the first, with
            `intercept`. x's dtype, or float32 when x's has 16 bits.
        y: `[n, k]` or `[n]`, of w's dtype.
        intercept: Gives x an implicit leading column of ones, whose weight is `w[0]`.
        sample_weight: `[n]`, of w's dtype: the factor s of each row's squared residual,
            `½ Σ s (xw - y)²`.
        name: A name for the operation.

    Returns:
        A scalar of w's dtype. Sums are kept in float32 or wider, the loss in float64; the bits do
        not depend on the number of threads.

    Raises:
        TypeError: A dtype has no kernel, or w, y and sample_weight do not share one.
        ValueError: Shapes that do not fit, known while tracing.
        tf.errors.InvalidArgumentError: Shapes that do not fit, known when running.

    >>> import tensorflow as tf, linreg_ops as lo
    >>> x, w, y = tf.constant([[1., 2.], [3., 4.]]), tf.constant([1., 1.]), tf.constant([0., 0.])
    >>> float(lo.linear_l2_loss(x, w, y))
    29.0
    """
    x, w, y, weights = _convert(x, w, y, sample_weight)
    if stock.active():
        loss, _ = stock.loss_and_grad(x, w, y, weights, intercept)
    else:
        loss, _ = _ops.linreg_l2_loss_grad(x, w, y, weights, intercept=intercept, name=name)
    return _total(loss, x)


def linear_l2_loss_and_grad(
    x: TensorLike,
    w: TensorLike,
    y: TensorLike,
    *,
    intercept: bool = False,
    sample_weight: TensorLike | None = None,
    name: str | None = None,
) -> LossAndGrad:
    """L2 loss of a linear model and its gradient in w, in one pass over x and without a tape.

    The unfused form reads x twice and stores the residual::

        r = tf.matmul(x, w) - y
        loss = tf.nn.l2_loss(r)                      # ½ Σ r²: a sum, not a mean
        grad = tf.matmul(x, r, transpose_a=True)

    Both results are differentiable to any order in x, w, y and sample_weight.

    Args:
        x: `[n, d]`, or `[..., n, d]` for a batch of problems.
        w: `[d, k]`, or `[d]` for one target (then y is `[n]`). One more row, the first, with
            `intercept`. x's dtype, or float32 when x's has 16 bits.
        y: `[n, k]` or `[n]`, of w's dtype.
        intercept: Gives x an implicit leading column of ones, whose weight is `w[0]`.
        sample_weight: `[n]`, of w's dtype: the factor s of each row's squared residual.
        name: A name for the operation.

    Returns:
        `LossAndGrad(loss, grad)`: the loss, a scalar (summed over a batch), and the gradient, of
        w's shape and dtype. The bits do not depend on the number of threads.

    Raises:
        TypeError: A dtype has no kernel, or w, y and sample_weight do not share one.
        ValueError: Shapes that do not fit, known while tracing.
        tf.errors.InvalidArgumentError: Shapes that do not fit, known when running.

    >>> import tensorflow as tf, linreg_ops as lo
    >>> x, w, y = tf.constant([[1., 2.], [3., 4.]]), tf.constant([1., 1.]), tf.constant([0., 0.])
    >>> loss, grad = lo.linear_l2_loss_and_grad(x, w, y)
    >>> grad.numpy().tolist()
    [24.0, 34.0]
    """
    x, w, y, weights = _convert(x, w, y, sample_weight)
    if stock.active():
        loss, grad = stock.loss_and_grad(x, w, y, weights, intercept)
        return LossAndGrad(_total(loss, x), grad)
    loss, grad = _ops.linreg_l2_loss_grad(x, w, y, weights, intercept=intercept, name=name)
    grad = _gradients.saved_gradient(x, grad, w, y, weights, intercept)
    return LossAndGrad(_total(loss, x), grad)


def gradient_descent(
    x: TensorLike,
    w: TensorLike,
    y: TensorLike,
    learning_rate: TensorLike,
    num_steps: TensorLike,
    *,
    intercept: bool = False,
    sample_weight: TensorLike | None = None,
    momentum: TensorLike = 0.0,
    name: str | None = None,
) -> Descent:
    """Full-batch gradient descent on the L2 loss of a linear model, every step inside one op.

    The unfused form::

        v = tf.zeros_like(w)
        for t in range(num_steps):
            r = tf.matmul(x, w) - y
            losses[t] = tf.nn.l2_loss(r)             # ½ Σ r²: a sum, not a mean
            v = momentum * v - learning_rate * tf.matmul(x, r, transpose_a=True)
            w = w + v
        losses[num_steps] = tf.nn.l2_loss(tf.matmul(x, w) - y)

    Not differentiable: asking for a gradient through it raises LookupError.

    Args:
        x: `[n, d]`, or `[..., n, d]` for a batch of problems.
        w: The weights to start from, `[d, k]` or `[d]`; one more row, the first, with `intercept`.
        y: `[n, k]` or `[n]`, of w's dtype.
        learning_rate: A scalar, or a vector of `num_steps` rates: a schedule.
        num_steps: A scalar, not negative.
        intercept: Gives x an implicit leading column of ones, whose weight is `w[0]`.
        sample_weight: `[n]`, of w's dtype: the factor s of each row's squared residual.
        momentum: A scalar; 0 is plain gradient descent.
        name: A name for the operation.

    Returns:
        `Descent(w, losses)`: the weights after the last step, and the `num_steps + 1` losses of
        every iterate, `losses[t]` before step t. 16-bit weights are kept in float32 between the
        steps. A rate that is too high makes the losses grow to infinity, as the unfused form does.

    Raises:
        TypeError: A dtype has no kernel, or w, y and sample_weight do not share one.
        ValueError: Arguments that do not fit, known while tracing.
        tf.errors.InvalidArgumentError: Arguments that do not fit, known when running.
        tf.errors.CancelledError: The step was cancelled.
        KeyboardInterrupt: Ctrl-C, in eager execution within a second; the steps so far are lost.

    >>> import tensorflow as tf, linreg_ops as lo
    >>> x, w, y = tf.constant([[1.], [2.]]), tf.constant([0.]), tf.constant([2., 4.])
    >>> w, losses = lo.gradient_descent(x, w, y, learning_rate=0.1, num_steps=2)
    >>> w.numpy().tolist(), losses.numpy().tolist()
    ([1.5], [10.0, 2.5, 0.625])
    """
    x, w, y, weights = _convert(x, w, y, sample_weight)
    rate, momentum = _float64(learning_rate, "learning_rate"), _float64(momentum, "momentum")
    steps = _int64(num_steps, "num_steps")
    if stock.active():
        return Descent(*stock.gradient_descent(x, w, y, rate, steps, momentum, weights, intercept))
    if _interruptible.wanted(_products(x, w, steps)):
        types = ("Tx", x.dtype.as_datatype_enum, "Tw", w.dtype.as_datatype_enum)
        attributes = (*types, "num_sample_weights", len(weights), "intercept", bool(intercept))
        rate, momentum = (tf.convert_to_tensor(value, tf.float64) for value in (rate, momentum))
        inputs = [x, w, y, rate, tf.convert_to_tensor(steps, tf.int64), momentum, *weights]
        return Descent(*_interruptible.run("Linreg>GradientDescent", inputs, attributes, 2))
    return Descent(
        *_ops.linreg_gradient_descent(
            x, w, y, rate, steps, momentum, weights, intercept=intercept, name=name
        )
    )


def _products(x: tf.Tensor, w: tf.Tensor, steps: tf.Tensor | int) -> int:
    """About the multiplications of a descent, with what a step costs beside them; 0 in a graph."""
    if not (isinstance(x, tf.__internal__.EagerTensor) and tf.executing_eagerly()):
        return 0
    if not isinstance(steps, int):
        steps = int(steps) if steps.shape.rank == 0 else 0
    shape, weights = x._shape_tuple(), w._shape_tuple()
    targets = weights[-1] if len(weights) > 1 else 1
    return steps * (math.prod(shape) * targets + 300)


def _total(loss: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """One loss, of the losses of a batch."""
    # A new tensor takes 1 µs to tell its shape; x has told it before, if it is used twice.
    return loss if x.shape.rank == 2 or loss.shape.rank == 0 else tf.reduce_sum(loss)


def _convert(
    x: TensorLike, w: TensorLike, y: TensorLike, sample_weight: TensorLike | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """The arguments as tensors of dtypes that have a kernel.

    The generated wrappers would cast NumPy arrays to another argument's dtype without a word.
    """
    if not isinstance(x, tf.Tensor):
        # The hint is for lists of integers; given to a float64 array it would round it.
        hint = None if hasattr(x, "dtype") else tf.float32
        x = tf.convert_to_tensor(x, name="x", dtype_hint=hint)
    # `is`: an eager call of a small problem takes 8 µs, and comparing two DTypes half of one.
    dtype = x.dtype
    if not (dtype is tf.float32 or dtype is tf.float64) and dtype not in _FLOATS:
        raise TypeError(
            f"x must be float32, float64, float16 or bfloat16, got {dtype.name}; "
            "convert it with tf.cast"
        )
    w = _as_tensor(w, "w", dtype)
    w_dtype = w.dtype
    if w_dtype is not dtype and not (w_dtype == tf.float32 and dtype.size == 2):
        allowed = f"{dtype.name} or float32" if dtype.size == 2 else dtype.name
        raise TypeError(
            f"w must have x's dtype, {allowed}, got {w_dtype.name}; convert it with tf.cast"
        )
    y = _as_tensor(y, "y", w_dtype)
    if y.dtype is not w_dtype:
        raise _mismatch("y", y, w_dtype)
    if sample_weight is None:
        return x, w, y, []
    s = _as_tensor(sample_weight, "sample_weight", w_dtype)
    if s.dtype is not w_dtype:
        raise _mismatch("sample_weight", s, w_dtype)
    return x, w, y, [s]


def _mismatch(argument: str, got: tf.Tensor, dtype: tf.DType) -> TypeError:
    return TypeError(
        f"{argument} must have w's dtype, {dtype.name}, got {got.dtype.name}; "
        "convert it with tf.cast"
    )


def _as_tensor(value: TensorLike, name: str, dtype: tf.DType) -> tf.Tensor:
    """`value` as a tensor: what carries a dtype keeps it, Python numbers take `dtype`."""
    if isinstance(value, tf.Tensor):
        return value
    if hasattr(value, "dtype"):
        return tf.convert_to_tensor(value, name=name)
    return tf.convert_to_tensor(value, dtype=dtype, name=name)


def _float64(value: TensorLike, name: str) -> tf.Tensor:
    if isinstance(value, float):
        return value  # the generated wrapper converts it faster
    value = tf.convert_to_tensor(value, name=name)
    if not (value.dtype.is_floating or value.dtype.is_integer):
        raise TypeError(f"{name} must be a real number, got {value.dtype.name}")
    return tf.cast(value, tf.float64)


def _int64(value: TensorLike, name: str) -> tf.Tensor:
    if type(value) is int:
        return value
    value = tf.convert_to_tensor(value, name=name)
    if not value.dtype.is_integer:
        raise TypeError(f"{name} must be an integer, got {value.dtype.name}")
    return tf.cast(value, tf.int64)
