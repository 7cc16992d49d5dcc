"""The Gram op: XᵀX, XᵀY and their company in float64, and its derivative."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.framework import ops

from . import _interruptible, _library, stock

_OP = "Linreg>Gram"
_FLOATS = (tf.float32, tf.float64, tf.float16, tf.bfloat16)


class Gram(NamedTuple):
    """Sums over rows of weight s, float64 tensors."""

    xx: tf.Tensor  # [d, d]: Σ s x xᵀ, symmetric
    xy: tf.Tensor  # [d, k]: Σ s x yᵀ
    yy: tf.Tensor  # [k]: Σ s y²
    x_sum: tf.Tensor  # [d]: Σ s x
    y_sum: tf.Tensor  # [k]: Σ s y
    weight: tf.Tensor  # []: Σ s


def gram(x: Any, y: Any = None, *, sample_weight: Any = None, name: str | None = None) -> Gram:
    """XᵀX, XᵀY, Σ y² and sums, in float64, from one read of x and y.

    The products of float32 or narrower numbers are exact, and sums are kept in float64 with the
    rounding errors of blocks beside (see :class:`linreg_ops.kernels.GramState`, which also takes
    rows in batches and by folds). The unfused form has copies in float64 of all of x and y::

        x, y = tf.cast(x, tf.float64), tf.cast(y, tf.float64)
        tf.matmul(x, x, transpose_a=True), tf.matmul(x, y, transpose_a=True)

    Differentiable to any order in x, y and sample_weight: the derivatives are TensorFlow's own
    products, in float64. The op has no kernel for GPUs and none for XLA; where it must run there,
    `with lo.stock_ops():` takes the unfused form.

    Args:
        x: `[n, d]`, float32, float64, float16 or bfloat16.
        y: `[n, k]`, or `[n]` for `[n, 1]`, of any of these dtypes; None for k = 0.
        sample_weight: `[n]`, of any of these dtypes: each row's factor s.
        name: A name for the operation.

    Returns:
        `Gram(xx, xy, yy, x_sum, y_sum, weight)`, all float64. The bits do not depend on the number
        of threads.

    Raises:
        TypeError: A dtype is not one of these.
        ValueError: Shapes that do not fit, known while tracing.
        tf.errors.InvalidArgumentError: Shapes that do not fit, known when running.

    >>> import tensorflow as tf, linreg_ops as lo
    >>> lo.gram(tf.constant([[1.0, 2.0], [3.0, 4.0]])).xx.numpy().tolist()
    [[10.0, 14.0], [14.0, 20.0]]
    """
    x = _floats(x, "x")
    if y is None:
        # A slice and not zeros: its rows are x's where nobody knows their number.
        y = x[:, :0] if x.shape.rank in (None, 2) else x
    else:
        y = _floats(y, "y")
        if y.shape.rank == 1:
            y = y[:, None]
    weights = [] if sample_weight is None else [_floats(sample_weight, "sample_weight")]
    if stock.active():
        return _stock(x, y, weights)
    try:
        if _interruptible.wanted(_products(x, y)):
            types = ("Tx", x.dtype.as_datatype_enum, "Ty", y.dtype.as_datatype_enum)
            w_type = (weights[0].dtype if weights else tf.float64).as_datatype_enum
            attributes = (*types, "Tw", w_type, "num_sample_weights", len(weights))
            return Gram(*_interruptible.run(_OP, [x, y, *weights], attributes, 6))
        return Gram(*_library.load().linreg_gram(x, y, weights, name=name))
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise _explained(error) from None


def register() -> None:
    """Registers the gradient with TensorFlow, in place of that of an earlier import."""
    ops.gradient_registry._registry.pop(_OP, None)
    tf.RegisterGradient(_OP)(_gradient)


def _stock(x: tf.Tensor, y: tf.Tensor, weights: list[tf.Tensor]) -> Gram:
    x, y = tf.cast(x, tf.float64), tf.cast(y, tf.float64)
    s = tf.cast(weights[0], tf.float64) if weights else tf.ones([tf.shape(x)[0]], tf.float64)
    sx, sy = s[:, None] * x, s[:, None] * y
    return Gram(
        tf.matmul(sx, x, transpose_a=True),
        tf.matmul(sx, y, transpose_a=True),
        tf.reduce_sum(sy * y, 0),
        tf.reduce_sum(sx, 0),
        tf.reduce_sum(sy, 0),
        tf.reduce_sum(s),
    )


def _gradient(op: tf.Operation, *grads: tf.Tensor) -> list[tf.Tensor | None]:
    xx, xy, yy, x_sum, y_sum, weight = grads
    x, y, *weights = op.inputs
    wide_x, wide_y = tf.cast(x, tf.float64), tf.cast(y, tf.float64)
    skipped = getattr(op, "skip_input_indices", None) or ()
    s = tf.cast(weights[0], tf.float64)[:, None] if weights else 1.0
    results: list[tf.Tensor | None] = [None] * len(op.inputs)
    if 0 not in skipped:
        of_x = tf.matmul(wide_x, xx + tf.transpose(xx)) + tf.matmul(wide_y, xy, transpose_b=True)
        results[0] = tf.cast(s * (of_x + x_sum), x.dtype)
    if 1 not in skipped:
        of_y = tf.matmul(wide_x, xy) + 2.0 * yy * wide_y
        results[1] = tf.cast(s * (of_y + y_sum), y.dtype)
    if weights and 2 not in skipped:
        of_x = wide_x * (tf.matmul(wide_x, xx) + x_sum)
        of_y = wide_y * (tf.matmul(wide_x, xy) + yy * wide_y + y_sum)
        of_s = tf.reduce_sum(of_x, 1) + tf.reduce_sum(of_y, 1) + weight
        results[2] = tf.cast(of_s, weights[0].dtype)
    return results


def _floats(value: Any, name: str) -> tf.Tensor:
    tensor = tf.convert_to_tensor(value)
    if tensor.dtype not in _FLOATS:
        raise TypeError(
            f"{name} must be float32, float64, float16 or bfloat16, got {tensor.dtype.name}"
        )
    return tensor


def _products(x: tf.Tensor, y: tf.Tensor) -> int:
    """About the multiplications; 0 in a graph."""
    if not (isinstance(x, tf.__internal__.EagerTensor) and tf.executing_eagerly()):
        return 0
    if x.shape.rank != 2 or y.shape.rank != 2:
        return 0
    return int(math.prod(x.shape) * (x.shape[1] // 2 + y.shape[1] + 1))


def _explained(error: Exception) -> Exception:
    """The refusal in its own words, without the node and its attributes."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    found = re.search(r"(?:x|y|sample_weight|d \+ k) must be .*?(?= for '\{\{node | \[Op:|$)", text)
    if found is None:
        return error
    explained: Exception = ValueError(found.group())
    if isinstance(error, tf.errors.OpError):
        explained = tf.errors.InvalidArgumentError(None, None, found.group())
    return explained
