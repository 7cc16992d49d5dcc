"""v1 graphs and sessions: placeholders, feeds and fetches, graphs that come from a file."""

import numpy as np
import pytest
import tensorflow as tf
from launches import session_kernels
from oracles import integers

import linreg_ops as lo

pytestmark = pytest.mark.composes("v1 graphs and sessions")
FORWARD = "Linreg>L2LossGrad"

X, W, Y = integers(7, 3), integers(3, 2, seed=2), integers(7, 2, seed=3)
R = X @ W - Y
LOSS, GRAD = 0.5 * np.sum(R * R), X.T @ R
FEEDS = {"x:0": X, "w:0": W, "y:0": Y}


def assert_same(results, expected):
    for one, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def program():
    """A graph with x, w, y of unknown sizes, their loss, and its gradient by tf.gradients."""
    with tf.Graph().as_default() as graph:
        unknown = [None, None]
        x, w, y = (tf.compat.v1.placeholder(tf.float64, unknown, name) for name in ("x", "w", "y"))
        both = lo.linear_l2_loss_and_grad(x, w, y)
        tf.identity(both.loss, name="loss")
        tf.identity(both.grad, name="fused_grad")
        tf.identity(tf.gradients(both.loss, w)[0], name="grad")
    return graph


def test_feed_and_fetch(program):
    with tf.compat.v1.Session(graph=program) as session:
        results = session.run(["loss:0", "grad:0", "fused_grad:0"], FEEDS)
        assert_same(results, [LOSS, GRAD, GRAD])
        # Fed in the middle: nothing before it runs.
        assert session.run("loss:0", {"loss:0": 3.0}) == 3.0


def as_graph_def(graph):
    definition = graph.as_graph_def()
    return lambda: tf.import_graph_def(definition, name="")


def as_meta_graph(graph):
    with graph.as_default():
        meta = tf.compat.v1.train.export_meta_graph()
    assert FORWARD in {op.name for op in meta.meta_info_def.stripped_op_list.op}
    return lambda: tf.compat.v1.train.import_meta_graph(meta)


@pytest.mark.parametrize("exported", [as_graph_def, as_meta_graph])
def test_imports(program, exported):
    import_graph = exported(program)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        import_graph()
        assert_same(session.run(["loss:0", "grad:0"], FEEDS), [LOSS, GRAD])
        # Gradients of ops that were only read: the one it had, and one of the second order.
        loss, grad, w = map(graph.get_tensor_by_name, ("loss:0", "grad:0", "w:0"))
        again = [tf.gradients(loss, w)[0], tf.gradients(grad, w)[0]]
        assert_same(session.run(again, FEEDS), [GRAD, X.T @ X @ np.ones_like(W)])


def test_a_session_folds_constants_and_merges_duplicates():
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        w = tf.compat.v1.placeholder(tf.float64, W.shape)
        twice = lo.linear_l2_loss(X, w, Y) + lo.linear_l2_loss(X, w, Y)
        value, kernels = session_kernels(session, twice, {w: W})
        assert (value, kernels[FORWARD]) == (2 * LOSS, 1)
        value, kernels = session_kernels(session, lo.linear_l2_loss(X, W, Y) * 1.0, {})
        assert (value, kernels[FORWARD]) == (LOSS, 0)
