"""The ops inside TensorFlow's programs: functions, control flow, datasets, v1 graphs, grappler.

The data are small integers, so every sum is exact and results are compared bit by bit.
"""

import numpy as np
import pytest
import tensorflow as tf
from fresh import run

import linreg_ops as lo

pytestmark = pytest.mark.usefixtures("no_tensorflow_warnings")

FUNCTION = pytest.mark.composes("`tf.function`, control flow, `tf.data`")
V1 = pytest.mark.composes("v1 graphs and sessions")
BATCH = pytest.mark.composes("Batches of problems")
TOOLING = pytest.mark.composes("Profiler, grappler, numeric checks, determinism")


def integers(*shape, seed=1):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float64)


X, W, Y = integers(7, 3), integers(3, 2, seed=2), integers(7, 2, seed=3)
R = X @ W - Y
LOSS, GRAD = 0.5 * np.sum(R * R), X.T @ R


def assert_loss_and_grad(result, loss=LOSS, grad=GRAD):
    np.testing.assert_array_equal(result[0], loss)
    np.testing.assert_array_equal(result[1], grad)


def loss_of(w):
    return 0.5 * np.sum((X @ w - Y) ** 2)


@FUNCTION
def test_only_dtypes_and_ranks_retrace():
    traces = []

    @tf.function(reduce_retracing=True)
    def function(x, w, y):
        traces.append((x.shape, w.dtype))
        return lo.linear_l2_loss_and_grad(x, w, y)

    for n in (7, 6, 5, 4):
        part = X[:n] @ W - Y[:n]
        x, w, y = (tf.constant(a) for a in (X[:n], W, Y[:n]))
        assert_loss_and_grad(function(x, w, y), 0.5 * np.sum(part * part), X[:n].T @ part)
    assert len(traces) == 2  # 7 rows, then any number of them
    function(*(tf.constant(a, tf.float32) for a in (X, W, Y)))
    assert len(traces) == 3


@FUNCTION
def test_unknown_ranks():
    unknown = [tf.TensorSpec(None, tf.float64)] * 3
    function = tf.function(lo.linear_l2_loss_and_grad, input_signature=unknown)
    assert_loss_and_grad(function(X, W, Y))
    assert_loss_and_grad(function(X, W[:, 0], Y[:, 0]), 0.5 * np.sum(R[:, 0] ** 2), GRAD[:, 0])


@FUNCTION
def test_control_flow():
    @tf.function
    def descend(steps):
        w = tf.zeros_like(W)
        for _ in tf.range(steps):
            w -= 0.0625 * lo.linear_l2_loss_and_grad(X, w, Y).grad
        return w

    descent = lo.gradient_descent(X, np.zeros_like(W), Y, 0.0625, 3)
    np.testing.assert_array_equal(descend(tf.constant(3)), descent.w)

    ws = tf.stack([W, 2 * W])
    losses = [loss_of(W), loss_of(2 * W)]

    @tf.function
    def branches(flag):
        with tf.GradientTape() as tape:
            w = tf.constant(W)
            tape.watch(w)
            loss = tf.cond(
                flag, lambda: lo.linear_l2_loss(X, w, Y), lambda: tf.constant(0.0, tf.float64)
            )
        return loss, tape.gradient(loss, w)

    assert_loss_and_grad(branches(tf.constant(True)))
    assert_loss_and_grad(branches(tf.constant(False)), 0.0, np.zeros_like(W))

    @tf.function
    def loops(ws):
        mapped = tf.map_fn(lambda w: lo.linear_l2_loss(X, w, Y), ws, fn_output_signature=tf.float64)
        scanned = tf.scan(
            lambda total, w: total + lo.linear_l2_loss(X, w, Y), ws, tf.constant(0.0, tf.float64)
        )
        return mapped, scanned

    mapped, scanned = loops(ws)
    np.testing.assert_array_equal(mapped, losses)
    np.testing.assert_array_equal(scanned, np.cumsum(losses))


@FUNCTION
def test_datasets_in_parallel():
    rows = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    parts = rows.map(
        lambda x, y: lo.linear_l2_loss_and_grad(x, W, y), num_parallel_calls=2, deterministic=True
    )
    parts = list(parts.as_numpy_iterator())
    assert len(parts) == 4
    assert_loss_and_grad([sum(part[i] for part in parts) for i in (0, 1)])


@FUNCTION
def test_functions_that_rewrite_gradients():
    @tf.custom_gradient
    def doubled(w):
        loss, grad = lo.linear_l2_loss_and_grad(X, w, Y)
        return loss, lambda upstream: 2 * upstream * grad

    def in_python(w):
        return tf.py_function(lambda w: lo.linear_l2_loss(X, w, Y), [w], tf.float64)

    recomputed = tf.recompute_grad(lambda w: lo.linear_l2_loss(X, w, Y))
    for function, factor in ((doubled, 2), (recomputed, 1), (in_python, 1)):
        for call in (function, tf.function(function)):
            w = tf.constant(W)
            with tf.GradientTape() as tape:
                tape.watch(w)
                loss = call(w)
            assert_loss_and_grad((loss, tape.gradient(loss, w)), LOSS, factor * GRAD)


@V1
def test_sessions_graph_defs_and_meta_graphs(tmp_path):
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        w = tf.compat.v1.placeholder(tf.float64, [3, None], name="w")
        loss = tf.identity(lo.linear_l2_loss(X, w, Y), name="loss")
        (grad,) = tf.gradients(loss, w)
        tf.identity(grad, name="grad")
        assert_loss_and_grad(session.run([loss, grad], {w: W}))
        # Fed in the middle of the graph: the loss can be replaced.
        assert session.run(loss, {loss: 3.0}) == 3.0
        definition = graph.as_graph_def()
        meta_graph = tf.compat.v1.train.export_meta_graph(graph=graph)
    imports = [
        lambda: tf.import_graph_def(definition, name=""),
        lambda: tf.compat.v1.train.import_meta_graph(meta_graph),
    ]
    for import_graph in imports:
        with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
            import_graph()
            assert_loss_and_grad(session.run(["loss:0", "grad:0"], {"w:0": W}))
            # A gradient that the exported graph did not have.
            w, grad = graph.get_tensor_by_name("w:0"), graph.get_tensor_by_name("grad:0")
            (ones,) = session.run(tf.gradients(grad, w), {w: W})
            np.testing.assert_array_equal(ones, X.T @ X @ np.ones_like(W))


@BATCH
@pytest.mark.parametrize("batch", [(4,), (2, 3), (0,)])
@pytest.mark.parametrize("traced", [False, True])
def test_a_batch_is_its_problems(batch, traced):
    x, w, y = (integers(*batch, *shape, seed=i) for i, shape in enumerate([(7, 3), (4, 2), (7, 2)]))
    s = np.abs(integers(*batch, 7, seed=5))

    def both(x, w, y, s):
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = lo.linear_l2_loss(x, w, y, intercept=True, sample_weight=s)
        return loss, tape.gradient(loss, w)

    xs = np.concatenate([np.ones((*batch, 7, 1)), x], axis=-1)
    r = xs @ w - y
    loss = 0.5 * np.sum(s[..., None] * r * r)
    grad = np.swapaxes(xs, -1, -2) @ (s[..., None] * r)
    inputs = [tf.constant(a) for a in (x, w, y, s)]
    assert_loss_and_grad((tf.function(both) if traced else both)(*inputs), loss, grad)
    losses = lo.gradient_descent(*inputs[:3], 0.0625, 1, intercept=True, sample_weight=s).losses
    assert losses.shape == (*batch, 2)
    np.testing.assert_array_equal(losses[..., 0], 0.5 * np.sum(s[..., None] * r * r, axis=(-2, -1)))


@BATCH
def test_batches_that_do_not_fit():
    x, w, y = integers(4, 7, 3), integers(5, 3, 2), integers(4, 7, 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"leading dimensions"):
        lo.linear_l2_loss(x, w, y)
    with pytest.raises(ValueError, match=r"leading dimensions"):
        tf.function(lo.linear_l2_loss).get_concrete_function(*map(tf.constant, (x, w, y)))


def op_counts(function, *arguments):
    """The ops that are left of a v1 graph when grappler is done with it."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        feeds = [tf.compat.v1.placeholder(tf.float64, a.shape) for a in arguments]
        fetched = function(*feeds)
        options = tf.compat.v1.RunOptions(output_partition_graphs=True)
        metadata = tf.compat.v1.RunMetadata()
        feed = dict(zip(feeds, arguments, strict=True))
        result = session.run(fetched, feed, options=options, run_metadata=metadata)
        nodes = [node.op for graph in metadata.partition_graphs for node in graph.node]
    return result, nodes.count("Linreg>L2LossGrad")


@TOOLING
def test_grappler_folds_constants_and_removes_duplicates():
    def twice(w):
        return lo.linear_l2_loss(X, w, Y) + lo.linear_l2_loss(X, w, Y)

    assert op_counts(twice, W) == (2 * LOSS, 1)
    assert op_counts(lambda: lo.linear_l2_loss(X, W, Y) * 1.0) == (LOSS, 0)


@TOOLING
def test_numeric_checks_name_the_op():
    tf.debugging.enable_check_numerics()
    try:
        assert float(lo.linear_l2_loss(X, W, Y)) == LOSS
        bad = np.where(np.arange(7) == 3, np.nan, 1.0)[:, None] * X
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"Linreg>L2LossGrad"):
            lo.linear_l2_loss(bad, W, Y)
    finally:
        tf.debugging.disable_check_numerics()


@TOOLING
def test_op_determinism_changes_nothing():
    """In a process of its own: it cannot be turned off again."""
    run(
        """
        import numpy as np, tensorflow as tf, linreg_ops as lo
        x, y = np.random.default_rng(1).standard_normal((2, 100_003, 1))
        before = lo.linear_l2_loss_and_grad(x, np.ones((1, 1)), y)
        tf.config.experimental.enable_op_determinism()
        for _ in range(3):
            after = lo.linear_l2_loss_and_grad(x, np.ones((1, 1)), y)
            np.testing.assert_array_equal(before.loss, after.loss)
            np.testing.assert_array_equal(before.grad, after.grad)
        """
    )
