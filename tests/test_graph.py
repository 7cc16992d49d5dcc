"""The ops inside tf.function, control flow, tf.data, v1 graphs, and TensorFlow's tools."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from launches import graph_kernels
from oracles import problem

import linreg_ops as lo

pytestmark = pytest.mark.usefixtures("no_tensorflow_warnings")
FORWARD = "Linreg>L2LossGrad"


@pytest.fixture
def data(rng):
    """x, w, y in float64, and the loss and gradient that the eager op gives."""
    x, w, y = map(tf.constant, problem(rng, 20, 3, 2, dtype=np.float64)[:3])
    return x, w, y, lo.linear_l2_loss_and_grad(x, w, y)


def assert_same(ours, expected):
    for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_retraces_on_dtype_and_rank_only(rng):
    traces = []

    @tf.function(reduce_retracing=True)
    def loss(x, w, y):
        traces.append((x.dtype, w.shape.rank))
        return lo.linear_l2_loss(x, w, y)

    for dtype in (np.float32, np.float64):
        for k in (None, 2):
            for n in range(5, 17):
                x, w, y, _ = map(tf.constant, (*problem(rng, n, 3, k, dtype=dtype)[:3], 0))
                np.testing.assert_array_equal(loss(x, w, y), lo.linear_l2_loss(x, w, y))
    # One trace with the first shape and one that is relaxed, for each dtype and rank.
    assert len(set(traces)) == 4
    assert len(traces) <= 8


def test_control_flow(data):
    x, w, y, expected = data

    @tf.function
    def everything():
        def step(i, v):
            return i + 1, v - 0.01 * lo.linear_l2_loss_and_grad(x, v, y).grad

        _, looped = tf.while_loop(lambda i, _: i < 5, step, (0, w))
        chosen = tf.cond(
            tf.reduce_sum(w) < 1e9,
            lambda: lo.linear_l2_loss_and_grad(x, w, y),
            lambda: lo.LossAndGrad(tf.constant(0.0, tf.float64), w),
        )
        mapped = tf.map_fn(lambda v: lo.linear_l2_loss(x, v, y), tf.stack([w, 2.0 * w]))
        scanned = tf.scan(
            lambda v, rate: v - rate * lo.linear_l2_loss_and_grad(x, v, y).grad,
            tf.constant([0.01] * 5, tf.float64),
            initializer=w,
        )
        return looped, chosen, mapped, scanned

    looped, chosen, mapped, scanned = everything()
    np.testing.assert_allclose(looped, lo.gradient_descent(x, w, y, 0.01, 5).w, rtol=1e-12)
    assert_same(chosen, expected)
    assert_same(mapped, tf.stack([expected.loss, lo.linear_l2_loss(x, 2.0 * w, y)]))
    assert_same(scanned[-1], looped)


def test_gradient_through_a_while_loop(data):
    x, w, y, _ = data

    def trained(w, grad_of):
        for _ in tf.range(3):
            w -= 0.01 * grad_of(w)
        return tf.reduce_sum(tf.sin(w))

    def gradient(grad_of):
        @tf.function
        def compute(w):
            with tf.GradientTape() as tape:
                tape.watch(w)
                value = trained(w, grad_of)
            return tape.gradient(value, w)

        return compute(w)

    np.testing.assert_allclose(
        gradient(lambda v: lo.linear_l2_loss_and_grad(x, v, y).grad),
        gradient(lambda v: tf.matmul(x, tf.matmul(x, v) - y, transpose_a=True)),
        rtol=1e-10,
    )


def test_custom_gradient_recompute_grad_and_py_function(data):
    x, w, y, expected = data

    @tf.custom_gradient
    def clipped(w):
        loss, grad = lo.linear_l2_loss_and_grad(x, w, y)
        return loss, lambda ct: ct * tf.clip_by_value(grad, -1.0, 1.0)

    recomputed = tf.recompute_grad(lambda w: lo.linear_l2_loss(x, w, y))

    def inside_python(w):
        return tf.py_function(lambda v: lo.linear_l2_loss(x, v, y), [w], tf.float64)

    def with_gradient(function):
        def both(w):
            with tf.GradientTape() as tape:
                tape.watch(w)
                loss = function(w)
            return loss, tape.gradient(loss, w)

        return both

    for function, gradient in (
        (clipped, tf.clip_by_value(expected.grad, -1.0, 1.0)),
        (recomputed, expected.grad),
        (inside_python, expected.grad),
    ):
        both = with_gradient(function)
        for run in (both, tf.function(both, autograph=False)):
            loss, grad = run(w)
            np.testing.assert_array_equal(loss, expected.loss)
            np.testing.assert_allclose(grad, gradient, rtol=1e-15)


def test_parallel_data_pipeline(data):
    x, w, y, _ = data
    scales = np.arange(1.0, 33.0)
    pipeline = tf.data.Dataset.from_tensor_slices(scales).map(
        lambda scale: lo.linear_l2_loss_and_grad(x, scale * w, y), num_parallel_calls=4
    )
    for scale, result in zip(scales, pipeline, strict=True):
        assert_same(tuple(result), lo.linear_l2_loss_and_grad(x, scale * w, y))


def test_v1_session_import_and_metagraph(data):
    x, w, y, expected = data
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        px, pw, py = (
            tf.compat.v1.placeholder(tf.float64, [None] * 2, name=name) for name in ("x", "w", "y")
        )
        loss, grad = lo.linear_l2_loss_and_grad(px, pw, py, name="fused")
        tf.identity(loss, name="loss")
        tf.identity(tf.gradients(loss, pw)[0], name="grad")
        feeds = {px: x.numpy(), pw: w.numpy(), py: y.numpy()}
        assert_same(session.run([loss, grad], feeds), expected)
        # Fed in the middle, fetched at the end.
        assert session.run("loss:0", {loss: 3.0}) == 3.0
        meta = tf.compat.v1.train.export_meta_graph(graph=graph)
    assert any(op.name == FORWARD for op in meta.meta_info_def.stripped_op_list.op)
    feeds = {"x:0": x.numpy(), "w:0": w.numpy(), "y:0": y.numpy()}

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph.as_graph_def(), name="")
        assert_same(session.run(["loss:0", "grad:0"], feeds), expected)
    with tf.Graph().as_default() as imported, tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(meta)
        assert_same(session.run(["loss:0", "grad:0"], feeds), expected)
        # The gradient is TensorFlow's to build, of an op that it only read from a file.
        get = imported.get_tensor_by_name
        again = tf.gradients(get("loss:0"), get("w:0"))[0]
        assert_same(session.run(again, feeds), expected.grad)


def test_grappler_folds_constants_and_merges_duplicates(data):
    x, w, y, expected = data

    def constants():
        return lo.linear_l2_loss(tf.constant(x.numpy()), tf.constant(w.numpy()), y.numpy())

    assert graph_kernels(constants)[FORWARD] == 0
    np.testing.assert_array_equal(tf.function(constants)(), expected.loss)

    def twice(x, w, y):
        return lo.linear_l2_loss(x, w, y), lo.linear_l2_loss_and_grad(x, w, y).grad

    assert graph_kernels(twice, x, w, y)[FORWARD] == 1

    def unused(x, w, y):
        lo.linear_l2_loss(x, w, y)
        return w

    assert graph_kernels(unused, x, w, y)[FORWARD] == 0


def run_python(program):
    """In a process of its own: these switches cannot be turned back."""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


SWITCHES = """
import numpy as np
import tensorflow as tf
import linreg_ops as lo

x, w, y = np.ones((5, 3)), np.ones((3, 2)), np.ones((5, 2))
tf.config.experimental.enable_op_determinism()
before = lo.linear_l2_loss_and_grad(x, w, y)
jitted = tf.function(lo.linear_l2_loss_and_grad)(x, w, y)
np.testing.assert_array_equal(before.grad, jitted.grad)

tf.debugging.enable_check_numerics()
after = lo.linear_l2_loss_and_grad(x, w, y)
np.testing.assert_array_equal(before.grad, after.grad)
x[0, 0] = np.nan
for function in (lo.linear_l2_loss, tf.function(lo.linear_l2_loss)):
    try:
        function(x, w, y)
    except tf.errors.InvalidArgumentError as error:
        assert "Linreg>L2LossGrad" in str(error), error
    else:
        raise AssertionError("a NaN went by")
"""


def test_determinism_and_check_numerics():
    run_python(SWITCHES)
