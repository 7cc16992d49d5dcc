"""The same functions out of TensorFlow's own ops: what to export where this package is not.

A SavedModel holds `Linreg>...` ops, and what loads it must have imported linreg_ops. Traced inside
`stock_ops()`, it holds MatMul, L2Loss and their like instead, and any TensorFlow can load it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import tensorflow as tf

_active = ContextVar("linreg_ops.stock_ops", default=False)


@contextmanager
def stock_ops() -> Iterator[None]:
    """Within it, this package's functions emit stock TensorFlow ops instead of the fused ones.

    For exporting to a server that does not have this package::

        with lo.stock_ops():
            tf.saved_model.save(module, path)  # or keras_model.export(path)

    Saving traces a `tf.function` anew, so that it may have been called with the fused ops before.
    But TensorFlow keeps what it traced for saving: a `tf.function` object that was already saved
    with the fused ops is saved with them again. Make it anew then.

    Values and derivatives are the same to rounding, at the speed of the stock ops: x is read twice
    and the residual is stored. Holds for this thread, in eager execution too.

    >>> import tensorflow as tf, linreg_ops as lo
    >>> x, w, y = tf.constant([[1., 2.], [3., 4.]]), tf.constant([1., 1.]), tf.constant([0., 0.])
    >>> with lo.stock_ops():
    ...     float(lo.linear_l2_loss(x, w, y))
    29.0
    """
    token = _active.set(True)
    try:
        yield
    finally:
        _active.reset(token)


def active() -> bool:
    """Whether the caller is inside `stock_ops()`."""
    return _active.get()


class _Problem:
    """One linear model with its data, in the precision in which the fused kernels accumulate."""

    def __init__(
        self, x: tf.Tensor, w: tf.Tensor, y: tf.Tensor, s: list[tf.Tensor], intercept: bool
    ):
        rank = y.shape.rank if w.shape.rank is None else w.shape.rank
        if rank is None:
            raise ValueError(
                "stock_ops() needs the rank of w or y while tracing; give the tf.function an "
                "input_signature with shapes, as in tf.TensorSpec([None, None])"
            )
        self._rank_1 = rank == 1
        self._intercept = intercept
        # MatMul would stretch a batch of one problem over the other argument's.
        batch = tf.shape(x)[:-2]
        inner = 1 if self._rank_1 else 2
        for name, value, own in (
            ("w", w, inner),
            ("y", y, inner),
            *(("sample_weight", v, 1) for v in s),
        ):
            _check(
                _same_shape(tf.shape(value)[:-own], batch),
                f"{name} must have x's batch dimensions, got {name} of shape {value.shape} "
                f"for x of shape {x.shape}",
            )
        self._dtype = w.dtype
        wide = tf.float32 if w.dtype.size == 2 else w.dtype
        self._x = tf.cast(x, wide)
        self.w = self._matrix(tf.cast(w, wide))
        self._y = self._matrix(tf.cast(y, wide))
        self._s = [tf.cast(value, wide) for value in s]

    def _matrix(self, value: tf.Tensor) -> tf.Tensor:
        return value[..., tf.newaxis] if self._rank_1 else value

    def loss_and_grad(self, w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """½ Σ s r² of each problem of the batch, and Xᵀ(s r)."""
        if self._intercept:
            xw = tf.matmul(self._x, w[..., 1:, :]) + w[..., :1, :]
        else:
            xw = tf.matmul(self._x, w)
        # AddN, unlike an operator, refuses to stretch a y or a sample_weight of the wrong size.
        r = sr = tf.add_n([xw, -self._y])
        for s in self._s:
            sr = r * tf.add_n([s, tf.zeros(tf.shape(r)[:-1], s.dtype)])[..., tf.newaxis]
        loss = 0.5 * tf.reduce_sum(r * sr, axis=[-2, -1])
        grad = tf.matmul(self._x, sr, transpose_a=True)
        if self._intercept:
            grad = tf.concat([tf.reduce_sum(sr, axis=-2, keepdims=True), grad], axis=-2)
        return loss, grad

    def narrow(self, value: tf.Tensor) -> tf.Tensor:
        """A loss in the caller's dtype."""
        return tf.cast(value, self._dtype)

    def narrow_like_w(self, value: tf.Tensor) -> tf.Tensor:
        """Weights or their gradient in the caller's dtype and rank."""
        return self.narrow(value[..., 0] if self._rank_1 else value)


def _check(good: tf.Tensor, message: str) -> None:
    """InvalidArgumentError, at once or when the graph runs, unless `good`.

    Not tf.debugging.Assert: its branch stays in the exported graph, where TensorFlow warns of it.
    """
    known = tf.get_static_value(good)
    if known is None:
        tf.raw_ops.Assert(condition=good, data=[message])
    elif not known:
        raise tf.errors.InvalidArgumentError(None, None, message)


def _same_shape(got: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    return tf.logical_and(
        tf.equal(tf.size(got), tf.size(wanted)),
        tf.reduce_all(
            tf.equal(
                tf.concat([got, tf.zeros_like(wanted)], 0),
                tf.concat([wanted, tf.zeros_like(got)], 0),
            )
        ),
    )


def loss_and_grad(
    x: tf.Tensor, w: tf.Tensor, y: tf.Tensor, s: list[tf.Tensor], intercept: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """What Linreg>L2LossGrad computes, differentiable in both outputs."""
    problem = _Problem(x, w, y, s, intercept)
    loss, grad = problem.loss_and_grad(problem.w)
    return problem.narrow(loss), problem.narrow_like_w(grad)


def gradient_descent(
    x: tf.Tensor,
    w: tf.Tensor,
    y: tf.Tensor,
    learning_rate: tf.Tensor | float,
    num_steps: tf.Tensor | int,
    momentum: tf.Tensor | float,
    s: list[tf.Tensor],
    intercept: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """What Linreg>GradientDescent computes."""
    problem = _Problem(x, w, y, s, intercept)
    dtype = problem.w.dtype
    # Through int64 and float64: TensorFlow makes Python numbers int32 and float32.
    num_steps = tf.convert_to_tensor(num_steps, tf.int64)
    momentum = tf.convert_to_tensor(momentum, tf.float64)
    rates = tf.convert_to_tensor(learning_rate, tf.float64)
    for name, value in (("num_steps", num_steps), ("momentum", momentum)):
        _check(tf.equal(tf.rank(value), 0), f"{name} must be a scalar, got shape {value.shape}")
    _check(
        tf.reduce_all((num_steps >= 0) & (num_steps < 2**31 - 1)),
        "num_steps must be from 0 to 2^31 - 2, which is what a TensorArray holds",
    )
    _check(
        tf.equal(tf.rank(rates), 0)
        | (
            tf.equal(tf.rank(rates), 1)
            & tf.reduce_all(tf.equal(tf.size(rates, tf.int64), num_steps))
        ),
        f"learning_rate must be a scalar or have num_steps entries, got shape {rates.shape}",
    )
    num_steps = tf.cast(num_steps, tf.int32)
    momentum = tf.cast(momentum, dtype)
    rates = tf.broadcast_to(tf.cast(rates, dtype), [num_steps])

    def step(
        t: tf.Tensor, w: tf.Tensor, v: tf.Tensor, losses: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
        loss, grad = problem.loss_and_grad(w)
        v = momentum * v - rates[t] * grad
        return t + 1, w + v, v, losses.write(t, loss)

    _, w, _, losses = tf.while_loop(
        lambda t, *_: t < num_steps,
        step,
        (0, problem.w, tf.zeros_like(problem.w), tf.TensorArray(dtype, size=num_steps + 1)),
    )
    last, _ = problem.loss_and_grad(w)
    curve = losses.write(num_steps, last).stack()
    time_last = tf.roll(tf.range(tf.rank(curve)), -1, axis=0)
    return problem.narrow_like_w(w), problem.narrow(tf.transpose(curve, time_last))
