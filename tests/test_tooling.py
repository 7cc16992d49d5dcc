"""TensorFlow's tools on the ops: profiler, grappler, numeric checks, determinism, help."""

import pydoc

import numpy as np
import pytest
import tensorflow as tf
from fresh import run
from launches import graph_kernels, profiled
from oracles import integers
from tensorflow.python.framework import ops as framework_ops

import linreg_ops as lo
from linreg_ops import _library

pytestmark = pytest.mark.composes("Profiler, grappler, numeric checks, determinism")

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


def test_a_profiler_trace_names_the_op():
    function = tf.function(lo.linear_l2_loss)
    function(*tensors())
    names = {name for line in profiled(function, *tensors()) for name, *_ in line}
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


X, W, Y = integers(7, 3), integers(3, 2, seed=2), integers(7, 2, seed=3)


def both_ways(x, w, y):
    return lo.linear_l2_loss(x, w, y), lo.linear_l2_loss_and_grad(x, w, y).grad


def hessian_times_ones(x, w, y):
    with tf.GradientTape() as tape:
        tape.watch(w)
        grad = lo.linear_l2_loss_and_grad(x, w, y).grad
    return tape.gradient(grad, w)


def descend(x, w, y):
    return lo.gradient_descent(x, w, y, 0.0625, 3)


@pytest.mark.parametrize(
    ("op", "compute"),
    [
        ("Linreg>L2LossGrad", both_ways),
        ("Linreg>HessianVectorProduct", hessian_times_ones),
        ("Linreg>GradientDescent", descend),
    ],
)
def test_grappler_folds_constants_merges_duplicates_and_prunes(op, compute):
    def constants():
        return compute(*map(tf.constant, (X, W, Y)))

    def twice(x, w, y):
        return compute(x, w, y), compute(x, w, y)

    def unused(x, w, y):
        compute(x, w, y)
        return w

    arguments = [tf.constant(a) for a in (X, W, Y)]
    assert graph_kernels(constants)[op] == 0
    assert graph_kernels(twice, *arguments)[op] == 1
    assert graph_kernels(unused, *arguments)[op] == 0
    truth = tf.nest.flatten(compute(*arguments))
    results = tf.nest.flatten([tf.function(constants)(), tf.function(twice)(*arguments)])
    for one, other in zip(results, 3 * truth, strict=True):
        np.testing.assert_array_equal(one, other)


def test_numeric_checks_name_the_op():
    bad = np.where(np.arange(7) == 3, np.nan, 1.0)[:, None] * X
    tf.debugging.enable_check_numerics()
    try:
        for function in (lo.linear_l2_loss, tf.function(lo.linear_l2_loss)):
            assert float(function(X, W, Y)) == 0.5 * np.sum((X @ W - Y) ** 2)
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"Linreg>L2LossGrad"):
                function(bad, W, Y)
    finally:
        tf.debugging.disable_check_numerics()


def test_op_determinism_changes_nothing():
    """In a process of its own: it cannot be turned off again."""
    run(
        """
        import numpy as np, tensorflow as tf, linreg_ops as lo
        x, y = np.random.default_rng(1).standard_normal((2, 100_003, 1))
        before = lo.linear_l2_loss_and_grad(x, np.ones((1, 1)), y)
        tf.config.experimental.enable_op_determinism()
        for function in (lo.linear_l2_loss_and_grad, tf.function(lo.linear_l2_loss_and_grad)):
            after = function(x, np.ones((1, 1)), y)
            np.testing.assert_array_equal(before.loss, after.loss)
            np.testing.assert_array_equal(before.grad, after.grad)
        """
    )
