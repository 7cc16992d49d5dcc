"""Converters for `tf.vectorized_map`, `tape.jacobian` and whatever else is built on pfor.

A loop of b calls becomes

- columns: b problems that share X and the row weights are one problem of b·k targets, and X is read
  once for all of them. Its columns are all that is copied: many y are transposed to [n, b·k], once,
  and what the problems share is repeated in that shape, one y for many w too. X is not copied.
- a batch: where X differs, or is stacked already, b is one more batch dimension of one op.
- a loop of single ops (tf.map_fn) for the rest, which would need b copies of X: row weights that
  differ over one X, gradient descents over one X (their losses are sums over targets), and
  descents whose rates differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.ops.parallel_for import pfor

from . import _library


class _Op(NamedTuple):
    wrapper: str
    targets: int  # inputs after x that hold one column per target
    others: int  # scalars and rates behind them; what is left are the row weights


_OPS = {
    "Linreg>L2LossGrad": _Op("linreg_l2_loss_grad", 2, 0),
    "Linreg>SavedGradient": _Op("linreg_saved_gradient", 3, 0),
    "Linreg>HessianVectorProduct": _Op("linreg_hessian_vector_product", 1, 0),
    "Linreg>GradientDescent": _Op("linreg_gradient_descent", 2, 3),
}


def register() -> None:
    """Registers the converters with TensorFlow, in place of those of an earlier import."""
    for name in _OPS:
        pfor._pfor_converter_registry.pop(name, None)
        pfor.RegisterPFor(name)(_convert)


def _convert(pfor_input: Any) -> list[Any]:
    call = _Call(pfor_input)
    if call.rank is None or call.any_stacked(call.others):
        outputs = call.loop()
    elif call.stacked[0]:
        outputs = call.batch()
    elif call.others or call.any_stacked(call.weights):
        outputs = call.loop()
    else:
        outputs = call.columns()
    return [pfor.wrap(output, True) for output in outputs]


class _Call:
    """One op of the loop's body and its inputs outside of it; `stacked` ones have b in front."""

    def __init__(self, pfor_input: Any):
        op = pfor_input.op
        self.wrapper, targets, others = _OPS[op.type]
        self.b = pfor_input.pfor.loop_len_vector[0]
        self.inputs = [pfor_input.input(i).t for i in range(pfor_input.num_inputs)]
        self.stacked = [pfor_input.input(i).is_stacked for i in range(pfor_input.num_inputs)]
        self.targets = range(1, 1 + targets)
        self.others = range(1 + targets, 1 + targets + others)
        self.weights = range(1 + targets + others, len(self.inputs))
        self.attributes = {"intercept": op.get_attr("intercept")}
        self.has_loss = op.type == "Linreg>L2LossGrad"
        self.loss_per_target = self.has_loss and op.get_attr("loss_per_target")
        # In the body, of a matrix of weights: a w of rank 1 is one, as far as XW goes. The tensors
        # outside may know less of their shapes.
        rank = op.inputs[1].shape.rank
        self.rank_1 = rank == 1
        self.rank = 2 if self.rank_1 else rank

    def any_stacked(self, indices: Sequence[int]) -> bool:
        return any(self.stacked[i] for i in indices)

    def run(self, inputs: Sequence[tf.Tensor], **attributes: Any) -> list[tf.Tensor]:
        """The op on other inputs."""
        first, weights = inputs[: self.weights.start], list(inputs[self.weights.start :])
        wrapper = getattr(_library.load(), self.wrapper)
        outputs = wrapper(*first, weights, **self.attributes, **attributes)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]

    def columns(self) -> list[tf.Tensor]:
        """One pass over the X that all problems share."""
        inputs = list(self.inputs)
        for i in self.targets:
            inputs[i] = self._to_columns(inputs[i], self.stacked[i])
        if not self.has_loss:
            (product,) = self.run(inputs)
            return [self._from_columns(product)]
        loss, grad = self.run(inputs, loss_per_target=True)
        lead = self.rank - 2
        loss = tf.reshape(loss, tf.concat([tf.shape(loss)[:-1], [self.b, self._k()]], 0))
        loss = tf.transpose(loss, [lead, *range(lead), lead + 1])
        if self.rank_1 or not self.loss_per_target:
            loss = tf.reduce_sum(loss, axis=-1)
        return [loss, self._from_columns(grad)]

    def _k(self) -> tf.Tensor | int:
        return 1 if self.rank_1 else tf.shape(self.inputs[1])[-1]

    def _to_columns(self, value: tf.Tensor, stacked: bool) -> tf.Tensor:
        """[b, ..., m, k] or, for all problems, [..., m, k] to [..., m, b k]."""
        if self.rank_1:
            value = tf.expand_dims(value, -1)
        if not stacked:
            return tf.tile(value, [*[1] * (self.rank - 1), self.b])
        value = tf.transpose(value, [*range(1, self.rank), 0, self.rank])
        shape = tf.shape(value)
        return tf.reshape(value, tf.concat([shape[:-2], [shape[-2] * shape[-1]]], 0))

    def _from_columns(self, value: tf.Tensor) -> tf.Tensor:
        """[..., m, b k] to [b, ..., m, k]."""
        value = tf.reshape(value, tf.concat([tf.shape(value)[:-1], [self.b, self._k()]], 0))
        value = tf.transpose(value, [self.rank - 1, *range(self.rank - 1), self.rank])
        return tf.squeeze(value, -1) if self.rank_1 else value

    def batch(self) -> list[tf.Tensor]:
        """One op, of a batch that has one more dimension."""
        inputs = list(self.inputs)
        for i in (*self.targets, *self.weights):
            if self.rank_1 and i in self.targets:
                inputs[i] = tf.expand_dims(inputs[i], -1)
            if not self.stacked[i]:
                rank = self.rank if i in self.targets else self.rank - 1
                inputs[i] = tf.tile(tf.expand_dims(inputs[i], 0), [self.b, *[1] * rank])
        attributes = {"loss_per_target": self.loss_per_target and not self.rank_1}
        outputs = self.run(inputs, **attributes if self.has_loss else {})
        if self.rank_1:
            # The results of w's shape: the second of (loss, grad), the first of the others.
            i = 1 if self.has_loss else 0
            outputs[i] = tf.squeeze(outputs[i], -1)
        return outputs

    def loop(self) -> list[tf.Tensor]:
        """One op after the other."""
        varying = [i for i, stacked in enumerate(self.stacked) if stacked]
        attributes = {"loss_per_target": self.loss_per_target} if self.has_loss else {}

        def body(values: list[tf.Tensor]) -> list[tf.Tensor]:
            inputs = list(self.inputs)
            for i, value in zip(varying, values, strict=True):
                inputs[i] = value
            return self.run(inputs, **attributes)

        dtype = self.inputs[1].dtype
        outputs = 2 if self.has_loss or self.others else 1
        return list(
            tf.map_fn(
                body, [self.inputs[i] for i in varying], fn_output_signature=[dtype] * outputs
            )
        )
