"""What the ops cost, for TensorFlow's profiler: floating-point operations and bytes of memory.

TensorFlow's profiler asks for "flops". No tool of TensorFlow's asks for "bytes" yet; the ratio of
the two is what says that the fused pass is bound by reading x.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tensorflow.python.framework import ops

Cost = Callable[[tf.Operation], int]


def register() -> None:
    """Registers the costs with TensorFlow, in place of those of an earlier import."""
    for op_type, flops in (
        ("Linreg>L2LossGrad", _loss_grad_flops),
        ("Linreg>HessianVectorProduct", _product_flops),
        ("Linreg>GradientDescent", _descent_flops),
    ):
        _register(op_type, "flops", flops)
        _register(op_type, "bytes", _bytes)


def _register(op_type: str, statistic: str, cost: Cost) -> None:
    ops._stats_registry._registry.pop(f"{op_type},{statistic}", None)
    ops.RegisterStatistics(op_type, statistic)(
        lambda graph, node: ops.OpStats(statistic, cost(graph.get_operation_by_name(node.name)))
    )


def _elements(shape: tf.TensorShape) -> int:
    count = shape.num_elements()
    if count is None:
        # The profiler catches it, and says how many ops it could not count.
        raise ValueError(f"the cost of an unknown shape {shape} is unknown")
    return int(count)


def _products(op: tf.Operation) -> tuple[int, int]:
    """The elements of XW, and the flops of all its dot products."""
    x, w = op.inputs[0].shape, op.inputs[1].shape
    rows = _elements(x[:-1])
    targets = 1 if w.rank == 1 else _elements(w[-1:])
    terms = _elements(x[-1:]) + op.get_attr("intercept")
    return rows * targets, 2 * rows * targets * terms


def _loss_flops(op: tf.Operation) -> int:
    # XW - Y; its squares, weighted, and their sum.
    elements, products = _products(op)
    weights: int = op.get_attr("num_sample_weights")
    return products + elements * (3 + weights)


def _loss_grad_flops(op: tf.Operation) -> int:
    # XᵀR is as many flops as XW.
    _, products = _products(op)
    return products + _loss_flops(op)


def _product_flops(op: tf.Operation) -> int:
    elements, products = _products(op)
    weights: int = op.get_attr("num_sample_weights")
    return 2 * products + elements * weights


def _descent_flops(op: tf.Operation) -> int:
    steps = tf.get_static_value(op.inputs[4])
    if steps is None:
        raise ValueError("the cost of an unknown number of steps is unknown")
    update = 4 * _elements(op.inputs[1].shape)  # v = momentum v - rate g; w = w + v
    return int(steps) * (_loss_grad_flops(op) + update) + _loss_flops(op)


def _bytes(op: tf.Operation) -> int:
    # Every input is read once and every output written once. Steps after a descent's first find x
    # in the cache, or not: only the run can tell.
    return sum(_elements(t.shape) * t.dtype.size for t in (*op.inputs, *op.outputs))
