"""SavedModels: with this package, without it, and exported so that nobody needs it.

The data are small integers and the rates powers of two: every product and sum is exact, so results
are compared bit by bit.
"""

import numpy as np
import pytest
import tensorflow as tf
from fresh import run
from oracles import integers

import linreg_ops as lo

pytestmark = pytest.mark.composes("SavedModel, with and without this package")

N, D, K = 7, 3, 2


X, W, Y = integers(N, D), integers(D, K, seed=2), integers(N, K, seed=3)
R = X @ W - Y
LOSS, GRAD, GRAD_X = 0.5 * np.sum(R * R), X.T @ R, R @ W.T
SIGNATURE = [tf.TensorSpec([None, D], tf.float64), tf.TensorSpec([None, K], tf.float64)]


class Model(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(W)

    @tf.function(input_signature=SIGNATURE)
    def loss(self, x, y):
        return lo.linear_l2_loss(x, self.w, y)

    @tf.function(input_signature=SIGNATURE)
    def loss_and_grad(self, x, y):
        return lo.linear_l2_loss_and_grad(x, self.w, y)

    @tf.function(input_signature=SIGNATURE)
    def descent(self, x, y):
        return lo.gradient_descent(x, self.w, y, 2.0**-6, 2)


@pytest.fixture
def data(tmp_path):
    np.savez(
        tmp_path / "data.npz",
        x=X,
        y=Y,
        loss=LOSS,
        grad=GRAD,
        grad_x=GRAD_X,
        w1=W - 2.0**-6 * GRAD,
    )
    return tmp_path / "data.npz"


# Loads the model and uses it: the functions saved, and gradients that were never traced before.
USE = """
import sys
import numpy as np
{imports}
path, data = sys.argv[1], np.load(sys.argv[2])
x, y = tf.constant(data["x"]), tf.constant(data["y"])
model = tf.saved_model.load(path)
with tf.GradientTape() as tape:
    tape.watch(x)
    loss = model.loss(x, y)
d_x, d_w = tape.gradient(loss, [x, model.w])
np.testing.assert_array_equal(loss, data["loss"])
np.testing.assert_array_equal(d_w, data["grad"])
np.testing.assert_array_equal(d_x, data["grad_x"])
with tf.GradientTape() as tape:
    loss, grad = model.loss_and_grad(x, y)
np.testing.assert_array_equal(loss, data["loss"])
np.testing.assert_array_equal(grad, data["grad"])
hessian_ones = tape.gradient(grad, model.w)
np.testing.assert_array_equal(hessian_ones, x.numpy().T @ x.numpy() @ np.ones_like(grad))
w, losses = model.descent(x, y)
np.testing.assert_array_equal(losses[0], data["loss"])
r = x.numpy() @ data["w1"] - y.numpy()
np.testing.assert_array_equal(losses[1], 0.5 * np.sum(r * r))
np.testing.assert_array_equal(w, data["w1"] - 2.0**-6 * x.numpy().T @ r)
"""


@pytest.mark.parametrize("first", ["tensorflow as tf", "linreg_ops"])
def test_a_fresh_process_loads_and_differentiates(tmp_path, data, first):
    tf.saved_model.save(Model(), tmp_path / "model")
    second = {"tensorflow as tf": "linreg_ops", "linreg_ops": "tensorflow as tf"}[first]
    run(USE.format(imports=f"import {first}\nimport {second}"), tmp_path / "model", data)


def test_without_the_package_the_error_names_the_op_and_the_documentation_the_import(
    tmp_path, repository
):
    tf.saved_model.save(Model(), tmp_path / "model")
    done = run(
        "import sys, tensorflow as tf; tf.saved_model.load(sys.argv[1])",
        tmp_path / "model",
        fails=True,
    )
    assert "Op type not registered 'Linreg>" in done.stderr
    page = (repository / "docs" / "troubleshooting.md").read_text()
    assert "Op type not registered 'Linreg>" in page
    assert "import linreg_ops" in " ".join(page.split())


def test_exported_in_stock_ops_it_loads_without_the_package(tmp_path, data):
    model = Model()
    # Traced with the fused ops; saving must not write those.
    model.loss(X, Y)
    model.descent(X, Y)
    with lo.stock_ops():
        tf.saved_model.save(model, tmp_path / "model")
    assert b"Linreg>" not in (tmp_path / "model" / "saved_model.pb").read_bytes()
    blocked = "sys.modules['linreg_ops'] = None\nimport tensorflow as tf"
    run(USE.format(imports=blocked), tmp_path / "model", data)
    # In this process nothing has changed.
    assert "Linreg>L2LossGrad" in op_types(lambda: model.loss(X, Y))


@pytest.mark.parametrize("saved_before", [False, True])
def test_a_function_is_saved_again_as_it_was_saved_first(tmp_path, saved_before):
    """The limit that stock_ops states: TensorFlow caches what it traced for saving."""
    module = tf.Module()
    module.loss = tf.function(lo.linear_l2_loss)
    module.loss(X, W, Y)
    if saved_before:
        tf.saved_model.save(module, tmp_path / "fused")
    with lo.stock_ops():
        tf.saved_model.save(module, tmp_path / "stock")
    saved = (tmp_path / "stock" / "saved_model.pb").read_bytes()
    assert (b"Linreg>" in saved) == saved_before


def op_types(function):
    graph = tf.function(function).get_concrete_function().graph.as_graph_def()
    functions = (node for f in graph.library.function for node in f.node_def)
    return {node.op for node in (*graph.node, *functions)}


def test_stock_ops_end_with_the_block_also_after_an_error():
    def loss():
        return lo.linear_l2_loss(X, W, Y)

    with lo.stock_ops():
        assert not any(">" in op for op in op_types(loss))
    assert "Linreg>L2LossGrad" in op_types(loss)
    with pytest.raises(KeyError), lo.stock_ops():
        raise KeyError
    assert "Linreg>L2LossGrad" in op_types(loss)


def test_an_inner_block_of_stock_ops_does_not_end_the_outer_one():
    with lo.stock_ops():
        with lo.stock_ops():
            pass
        assert not any(">" in op for op in op_types(lambda: lo.linear_l2_loss(X, W, Y)))


def test_stock_sums_of_16_bits_are_kept_in_32():
    x, w, y = (np.ones(s, np.float16) for s in ((1, 2049), (2049,), (1,)))
    with lo.stock_ops():
        assert lo.linear_l2_loss(x, w, 2048 * y).numpy() == 0.5  # 2049 has no place in 16 bits


def test_stock_ops_take_the_rank_from_y():
    unknown = [tf.TensorSpec(None, tf.float64)] * 2 + [tf.TensorSpec([None], tf.float64)]
    function = tf.function(lo.linear_l2_loss, input_signature=unknown)
    expected = lo.linear_l2_loss(X, W[:, 0], Y[:, 0])
    with lo.stock_ops():
        np.testing.assert_allclose(function(X, W[:, 0], Y[:, 0]), expected, rtol=1e-14)


BFLOAT16 = tf.bfloat16.as_numpy_dtype


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("layout", ["vector", "matrix", "batch", "no rows", "no targets"])
@pytest.mark.parametrize(
    "dtypes",
    [(np.float32, np.float32), (np.float64, np.float64), (BFLOAT16, np.float32), (np.float16,) * 2],
    ids=lambda dtypes: "-".join(np.dtype(t).name for t in dtypes),
)
def test_stock_ops_give_the_fused_values_and_derivatives(dtypes, layout, weights, intercept):
    batch = (2,) if layout == "batch" else ()
    n = 0 if layout == "no rows" else 5
    k = {"vector": (), "no targets": (0,)}.get(layout, (2,))
    x_type, w_type = dtypes
    x = tf.constant(integers(*batch, n, D).astype(x_type))
    w = tf.constant(integers(*batch, D + intercept, *k, seed=2).astype(w_type))
    y = tf.constant(integers(*batch, n, *k, seed=3).astype(w_type))
    s = tf.constant(np.abs(integers(*batch, n, seed=4)).astype(w_type)) if weights else None
    options = {"intercept": intercept, "sample_weight": s}

    def results():
        with tf.GradientTape() as outer:
            outer.watch(w)
            with tf.GradientTape() as tape:
                tape.watch([w, y])
                loss = lo.linear_l2_loss(x, w, y, **options)
            d_w, d_y = tape.gradient(loss, [w, y])
            again, grad = lo.linear_l2_loss_and_grad(x, w, y, **options)
        curvature = outer.gradient(grad, w)
        descent = lo.gradient_descent(x, w, y, [0.0625, 0.125], 2, momentum=0.5, **options)
        return [loss, d_w, d_y, again, grad, curvature, *descent]

    fused = results()
    with lo.stock_ops():
        stock = results()
    for ours, theirs in zip(fused[:6], stock[:6], strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        assert ours.dtype == theirs.dtype
    for ours, theirs in zip(fused[6:], stock[6:], strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if w_type == np.float64:  # the others run out of bits in the second step
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize(("steps", "momentum", "rtol"), [(1, 0.0, 1e-15), (3, 0.1, 1e-12)])
def test_stock_gradient_descent_keeps_rate_and_momentum_in_float64(steps, momentum, rtol):
    fused = lo.gradient_descent(X[:, :1], W[:1], Y, 0.1, steps, momentum=momentum)
    with lo.stock_ops():
        stock = lo.gradient_descent(X[:, :1], W[:1], Y, 0.1, steps, momentum=momentum)
    # One product and one sum of each: half an ulp apiece, where a float32 rate would be 1e-9 off.
    np.testing.assert_allclose(stock.w, fused.w, rtol=rtol)


@pytest.mark.parametrize(
    ("y", "s"), [(Y[:1], None), (Y[:, :1], None), (Y, np.ones(1))], ids=["row", "column", "weight"]
)
def test_stock_ops_refuse_to_broadcast(y, s):
    with lo.stock_ops(), pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        lo.linear_l2_loss(X, W, y, sample_weight=s)


def test_stock_ops_say_that_they_need_a_rank():
    unknown = tf.TensorSpec(None, tf.float64)
    function = tf.function(lo.linear_l2_loss, input_signature=[unknown] * 3)
    with lo.stock_ops(), pytest.raises(ValueError, match="rank of w or y"):
        function.get_concrete_function()
