"""What TensorFlow's tools show of the ops: their cost, their names and their documentation."""

import pydoc

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops as framework_ops
from tensorflow.tsl.profiler.protobuf import xplane_pb2

import linreg_ops as lo
from linreg_ops import _library

pytestmark = [
    pytest.mark.composes("Profiler, grappler, numeric checks, determinism"),
    pytest.mark.usefixtures("no_tensorflow_warnings"),
]

N, D, K = 50, 7, 3
OPTIONS = {**tf.compat.v1.profiler.ProfileOptionBuilder.float_operation(), "output": "none"}


def flops_of(function, *shapes):
    """What tf.compat.v1.profiler counts in a traced function."""
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    graph = tf.function(function).get_concrete_function(*specs).graph
    return tf.compat.v1.profiler.profile(graph, options=OPTIONS).total_float_ops


def ones_flops(n, d, k, weighted=False):
    """The operations of the unfused form, counted one by one."""
    xw = n * k * (d + d)  # d products and d sums, the first one to zero
    xr = d * k * (n + n)
    residual, squares, their_sum = n * k, n * k, n * k
    return xw + xr + residual + squares + their_sum + (n * k if weighted else 0)


def test_the_profiler_counts_the_flops_of_the_fused_op():
    loss = lo.linear_l2_loss
    assert flops_of(loss, (N, D), (D, K), (N, K)) == ones_flops(N, D, K)
    assert flops_of(loss, (N, D), (D,), (N,)) == ones_flops(N, D, 1)
    assert flops_of(loss, (0, D), (D,), (0,)) == 0
    with_intercept = flops_of(
        lambda x, w, y: loss(x, w, y, intercept=True), (N, D), (D + 1, K), (N, K)
    )
    assert with_intercept == ones_flops(N, D + 1, K)
    weighted = flops_of(
        lambda x, w, y, s: loss(x, w, y, sample_weight=s), (N, D), (D, K), (N, K), (N,)
    )
    assert weighted == ones_flops(N, D, K, weighted=True)


def test_the_profiler_counts_the_flops_of_second_derivatives_and_descents():
    def product(x, w, y):
        with tf.GradientTape() as tape:
            tape.watch(w)
            grad = lo.linear_l2_loss_and_grad(x, w, y).grad
        return tape.gradient(grad, w)

    both = ones_flops(N, D, K) + 4 * N * D * K
    assert flops_of(product, (N, D), (D, K), (N, K)) == both

    steps = 5
    descent = flops_of(
        lambda x, w, y: lo.gradient_descent(x, w, y, 0.1, steps).w, (N, D), (D, K), (N, K)
    )
    last_loss = 2 * N * D * K + 3 * N * K
    assert descent == steps * (ones_flops(N, D, K) + 4 * D * K) + last_loss


def test_unknown_shapes_have_no_flops_and_do_not_stop_the_profiler():
    assert flops_of(lo.linear_l2_loss, (None, D), (D, K), (None, K)) == 0


def test_the_bytes_are_one_pass():
    specs = [tf.TensorSpec(shape, tf.float64) for shape in ((N, D), (D, K), (N, K))]
    graph = tf.function(lo.linear_l2_loss).get_concrete_function(*specs).graph
    (node,) = (op.node_def for op in graph.get_operations() if op.type == "Linreg>L2LossGrad")
    stats = framework_ops.get_stats_for_node_def(graph, node, "bytes")
    assert stats.value == 8 * (N * D + D * K + N * K + 1 + D * K)


def tensors():
    return tf.ones([N, D]), tf.ones([D, K]), tf.ones([N, K])


def test_a_profiler_trace_names_the_op(tmp_path):
    function = tf.function(lo.linear_l2_loss)
    function(*tensors())
    with tf.profiler.experimental.Profile(str(tmp_path)):
        function(*tensors())
    (trace,) = tmp_path.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(trace.read_bytes())
    names = {
        metadata.display_name or metadata.name
        for plane in space.planes
        for metadata in plane.event_metadata.values()
    }
    ours = {name for name in names if "Linreg>L2LossGrad" in name}
    assert ours, sorted(names)


def test_step_stats_name_the_op():
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [N, D])
        loss = lo.linear_l2_loss(x, np.ones((D, K), np.float32), np.ones((N, K), np.float32))
        options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
        metadata = tf.compat.v1.RunMetadata()
        session.run(loss, {x: np.ones((N, D))}, options=options, run_metadata=metadata)
    labels = [
        node.timeline_label
        for device in metadata.step_stats.dev_stats
        for node in device.node_stats
    ]
    assert any("Linreg>L2LossGrad" in label for label in labels), labels


@pytest.mark.parametrize(
    "name", ["linear_l2_loss", "linear_l2_loss_and_grad", "gradient_descent", "stock_ops"]
)
def test_help_shows_what_a_function_computes(name):
    text = pydoc.render_doc(getattr(lo, name), renderer=pydoc.plaintext)
    assert f"{name}(" in text
    assert "tf." in text  # the unfused code
    assert ">>>" in text


@pytest.mark.parametrize(
    ("op", "words"),
    [
        ("linreg_l2_loss_grad", ["in one pass over x", "sample_weight", "loss_per_target"]),
        ("linreg_hessian_vector_product", ["applied to v", "in one pass over x"]),
        ("linreg_saved_gradient", ["unchanged"]),
        ("linreg_gradient_descent", ["momentum", "num_steps", "losses"]),
    ],
)
def test_help_shows_the_documentation_of_the_ops(op, words):
    text = pydoc.render_doc(getattr(_library.load(), op), renderer=pydoc.plaintext)
    for word in words:
        assert word in text
