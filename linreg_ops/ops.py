"""The ops: argument handling here, the maths in the kernels, the derivatives in _gradients."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import tensorflow as tf

from . import _gradients, _gram_op, _interruptible, _library, _pfor, _statistics, stock
from ._gram_op import Gram as Gram
from ._gram_op import gram as gram
from .training import TrainingInterrupted

# What tf.convert_to_tensor takes: tensors, variables, NumPy arrays, nested lists.
TensorLike = Any

_ops = _library.load()
_gradients.register()
_gram_op.register()
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
    x, w, y, weights = _convert(x, w, y, sample_weight, intercept)
    if stock.active():
        loss, _ = stock.loss_and_grad(x, w, y, weights, intercept)
        return _total(loss, x)
    try:
        loss, _ = _ops.linreg_l2_loss_grad(x, w, y, weights, intercept=intercept, name=name)
    except _REFUSALS as error:
        raise _explained(error, x, w, y, intercept) from None
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
    x, w, y, weights = _convert(x, w, y, sample_weight, intercept)
    if stock.active():
        loss, grad = stock.loss_and_grad(x, w, y, weights, intercept)
        return LossAndGrad(_total(loss, x), grad)
    try:
        loss, grad = _ops.linreg_l2_loss_grad(x, w, y, weights, intercept=intercept, name=name)
    except _REFUSALS as error:
        raise _explained(error, x, w, y, intercept) from None
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
        KeyboardInterrupt: Ctrl-C, in eager execution within a second. On a CPU, and not for a
            batch, it is a `linreg_ops.training.TrainingInterrupted`, which carries the weights and
            losses of the steps that are finished.

    >>> import tensorflow as tf, linreg_ops as lo
    >>> x, w, y = tf.constant([[1.], [2.]]), tf.constant([0.]), tf.constant([2., 4.])
    >>> w, losses = lo.gradient_descent(x, w, y, learning_rate=0.1, num_steps=2)
    >>> w.numpy().tolist(), losses.numpy().tolist()
    ([1.5], [10.0, 2.5, 0.625])
    """
    x, w, y, weights = _convert(x, w, y, sample_weight, intercept)
    rate, momentum = _float64(learning_rate, "learning_rate"), _float64(momentum, "momentum")
    steps = _int64(num_steps, "num_steps")
    if stock.active():
        return Descent(*stock.gradient_descent(x, w, y, rate, steps, momentum, weights, intercept))
    try:
        if _interruptible.wanted(_products(x, w, steps)):
            types = ("Tx", x.dtype.as_datatype_enum, "Tw", w.dtype.as_datatype_enum)
            options = ("intercept", bool(intercept), "keep_steps", True)
            attributes = (*types, "num_sample_weights", len(weights), *options)
            rate, momentum = (tf.convert_to_tensor(value, tf.float64) for value in (rate, momentum))
            inputs = [x, w, y, rate, tf.convert_to_tensor(steps, tf.int64), momentum, *weights]
            try:
                return Descent(*_interruptible.run("Linreg>GradientDescent", inputs, attributes, 2))
            except _interruptible.Interrupted as interrupt:
                new_w, losses = (result.numpy() for result in interrupt.results)
                done = min(losses.shape[-1], int(steps))  # all, if it ended just then
                raise TrainingInterrupted(done, new_w, losses[..., :done]) from None
        return Descent(
            *_ops.linreg_gradient_descent(
                x, w, y, rate, steps, momentum, weights, intercept=intercept, name=name
            )
        )
    except _REFUSALS as error:
        raise _explained(error, x, w, y, intercept) from None


def _products(x: tf.Tensor, w: tf.Tensor, steps: tf.Tensor | int) -> int:
    """About the multiplications of a descent, with what a step costs beside them; 0 in a graph."""
    if not (isinstance(x, tf.__internal__.EagerTensor) and tf.executing_eagerly()):
        return 0
    if not isinstance(steps, int):
        steps = int(steps) if steps.shape.rank == 0 else 0
    shape, weights = x._shape_tuple(), w._shape_tuple()
    targets = weights[-1] if len(weights) > 1 else 1
    return int(steps * (math.prod(shape) * targets + 300))


def _total(loss: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """One loss, of the losses of a batch."""
    # A new tensor takes 1 µs to tell its shape; x has told it before, if it is used twice.
    return loss if x.shape.rank == 2 or loss.shape.rank == 0 else tf.reduce_sum(loss)


def _convert(
    x: TensorLike,
    w: TensorLike,
    y: TensorLike,
    sample_weight: TensorLike | None,
    intercept: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """The arguments as tensors of dtypes that have a kernel and, in eager mode, shapes that fit.

    The generated wrappers would cast NumPy arrays to another argument's dtype without a word.
    """
    if not isinstance(x, tf.Tensor):
        x = _as_tensor(x, "x", _dtype_beside(w, y, sample_weight) if _has_no_dtype(x) else None)
    # `is`: an eager call of a small problem takes 8 µs, and comparing two DTypes half of one.
    dtype = x.dtype
    if not (dtype is tf.float32 or dtype is tf.float64) and dtype not in _FLOATS:
        how = "drop or encode its text" if dtype == tf.string else "convert it with tf.cast"
        raise TypeError(f"x must be float32, float64, float16 or bfloat16, got {dtype.name}; {how}")
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
    weights = []
    if sample_weight is not None:
        weights = [_as_tensor(sample_weight, "sample_weight", w_dtype)]
        if weights[0].dtype is not w_dtype:
            raise _mismatch("sample_weight", weights[0], w_dtype)
    # What the op refuses TensorFlow logs, twice. So the commonest mistake, y [n, 1] with w [d], is
    # found before: a rank takes 0.16 µs, and a whole shape twice that.
    if w._rank() != y._rank() and tf.executing_eagerly():
        _check_shapes(x, w, y, weights, intercept)
    return x, w, y, weights


def _mismatch(argument: str, got: tf.Tensor, dtype: tf.DType) -> TypeError:
    return TypeError(
        f"{argument} must have w's dtype, {dtype.name}, got {got.dtype.name}; "
        "convert it with tf.cast"
    )


def _as_tensor(value: TensorLike, name: str, dtype: tf.DType | None) -> tf.Tensor:
    """`value` as a tensor: what carries a dtype keeps it, Python numbers take `dtype`."""
    if isinstance(value, tf.Tensor):
        return value
    if isinstance(value, (tf.SparseTensor, tf.RaggedTensor, tf.IndexedSlices)):
        how = {tf.SparseTensor: "tf.sparse.to_dense", tf.RaggedTensor: "its to_tensor()"}
        how_to = how.get(type(value), "tf.convert_to_tensor")
        raise TypeError(f"{name} must be dense, got {type(value).__name__}; convert it by {how_to}")
    if hasattr(value, "nnz") and hasattr(value, "toarray"):  # SciPy's and CuPy's
        raise TypeError(
            f"{name} must be dense, got {type(value).__name__}; convert it by its toarray()"
        )
    try:
        return tf.convert_to_tensor(value, dtype if _has_no_dtype(value) else None, name=name)
    except (TypeError, ValueError) as error:
        line = str(error).partition("\n")[0]
        raise type(error)(f"{name} cannot be made a tensor: {line}") from None


def _has_no_dtype(value: TensorLike) -> bool:
    """Whether it is a Python number, or nested lists of them: by the first, as TensorFlow does."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return type(value) in (int, float, bool, list, tuple)


def _dtype_beside(*others: TensorLike) -> tf.DType:
    """The dtype that Python numbers take beside the other arguments."""
    for other in others:
        if other is not None and not _has_no_dtype(other):
            dtype = _as_tensor(other, "", None).dtype
            if dtype in _FLOATS:
                return dtype
    return tf.float32


def _check_shapes(
    x: tf.Tensor, w: tf.Tensor, y: tf.Tensor, weights: list[tf.Tensor], intercept: bool
) -> None:
    """Asks the op's shape function, in a graph of no use but that.

    Raises:
        tf.errors.InvalidArgumentError: The shapes do not fit.
    """
    with tf.Graph().as_default():
        x, w, y, *weights = (
            tf.compat.v1.placeholder(t.dtype, t.shape) for t in (x, w, y, *weights)
        )
        try:
            _ops.linreg_l2_loss_grad(x, w, y, weights, intercept=intercept)
        except ValueError as error:
            message = str(_explained(error, x, w, y, intercept))
        else:
            return
    raise tf.errors.InvalidArgumentError(None, None, message)


# What TensorFlow raises when the shape function, or the op, refuses its arguments.
_REFUSALS = (ValueError, tf.errors.InvalidArgumentError)
# Its dress: where it was, and for the shape function all attributes and shapes of the node.
_DRESS = re.compile(r"^(?:\{\{.*?\}\} ?)+|(?: for '\{\{node .*| \[Op:.*)$", re.DOTALL)
_OURS = re.compile(r"(x|w|y|sample_weight|learning_rate|num_steps|momentum) must ")


def _explained(
    error: Exception, x: tf.Tensor, w: tf.Tensor, y: tf.Tensor, intercept: bool
) -> Exception:
    """The refusal in its own words, with what to do in the commonest cases."""
    explained: Exception
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    message = _DRESS.sub("", text)
    if not _OURS.match(message):
        return error
    message += _remedy(x.shape, w.shape, y.shape, intercept)
    if isinstance(error, tf.errors.OpError):
        explained = tf.errors.InvalidArgumentError(None, None, message)
    else:
        explained = ValueError(message)
    return explained


def _remedy(x: tf.TensorShape, w: tf.TensorShape, y: tf.TensorShape, intercept: bool) -> str:
    if None in (x.rank, w.rank, y.rank) or x.rank < 2:
        return ""
    rows = "..." if x.rank > 2 else ":"
    if w.rank == x.rank - 1 and y.rank == x.rank and y[-1] == 1:
        return f"; for one target take y[{rows}, 0], or w[{rows}, None]"
    if y.rank == x.rank - 1 and w.rank == x.rank and w[-1] == 1:
        return f"; for one target take y[{rows}, None], or w[{rows}, 0]"
    row = x.rank - 2
    if not intercept and w.rank > row and None not in (w[row], x[-1]) and w[row] == x[-1] + 1:
        return "; w has one row more than x has columns: if the first is an intercept, say so"
    return ""


def _float64(value: TensorLike, name: str) -> tf.Tensor:
    if isinstance(value, float):
        return value  # the generated wrapper converts it faster
    # The hint is for lists of Python numbers, which would be rounded to float32 on the way.
    value = tf.convert_to_tensor(value, name=name, dtype_hint=tf.float64)
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
