"""The Keras model and layer give stock Keras' numbers, in one pass, wherever Keras takes them."""

import importlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from fresh import run
from tensorflow.python.eager import context

import linreg_ops.keras as lk

# Keras' own, on saving with NumPy 2.
pytestmark = [
    pytest.mark.composes("Keras 3: layers, mixed precision, symbolic inputs"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

N, D = 96, 5


@pytest.fixture(autouse=True)
def _float32_policy():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def data(rng):
    x = rng.normal(size=(N, D)).astype(np.float32)
    y = (x @ rng.normal(size=(D, 2)) + 0.1 * rng.normal(size=(N, 2))).astype(np.float32)
    return x, y, rng.uniform(size=N).astype(np.float32)


def stock_twin(model, **options):
    """A Dense layer with the model's weights."""
    twin = keras.Sequential([keras.layers.Dense(model.units, use_bias=model.use_bias, **options)])
    twin.build((None, D))
    twin.set_weights(model.get_weights())
    return twin


def assert_same_training(model, twin, x, y, *, rtol=2e-6, **fit):
    ours = model.fit(x, y, shuffle=False, verbose=0, **fit).history
    stock = twin.fit(x, y, shuffle=False, verbose=0, **fit).history
    assert ours.keys() == stock.keys()
    for name, values in ours.items():
        np.testing.assert_allclose(values, stock[name], rtol=rtol, err_msg=name)
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_trains_as_dense_with_mse(dtype, use_bias, weighted, data):
    keras.config.set_dtype_policy(dtype)
    x, y, s = data
    model = lk.LinearRegression(2, use_bias)
    model.build((None, D))
    twin = stock_twin(model)
    for each in (model, twin):
        each.compile(keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    assert_same_training(
        model,
        twin,
        x,
        y,
        epochs=3,
        batch_size=36,  # not a divisor: the last batch is smaller
        sample_weight=s if weighted else None,
        validation_data=(x, y, s) if weighted else (x, y),
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy, data):
    keras.config.set_dtype_policy(policy)
    x, y, s = data
    model = lk.LinearRegression(2)
    model.build((None, D))
    twin = stock_twin(model)
    for each in (model, twin):
        each.compile(keras.optimizers.SGD(0.1), loss="mse")
    x = tf.cast(tf.cast(x, model.compute_dtype), tf.float32).numpy()
    # Stock Keras rounds the weights and the products to 16 bits, and ours rounds neither: ours is
    # float32 training on 16-bit data, and stock is near.
    keras.config.set_dtype_policy("float32")
    exact = stock_twin(model)
    exact.compile(keras.optimizers.SGD(0.1), loss="mse")
    fit = {"epochs": 3, "batch_size": 36, "shuffle": False, "verbose": 0, "sample_weight": s}
    ours, stock, truth = (m.fit(x, y, **fit).history["loss"] for m in (model, twin, exact))
    np.testing.assert_allclose(ours, truth, rtol=1e-5)
    assert np.abs(np.subtract(ours, truth)).max() <= np.abs(np.subtract(stock, truth)).max()
    assert model.kernel.dtype == "float32"
    assert model.predict(x, verbose=0).dtype == model.compute_dtype


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_jit_compile(policy, data):
    keras.config.set_dtype_policy(policy)
    x, y, s = data
    models = [lk.LinearRegression(2) for _ in range(2)]
    for jit, model in enumerate(models):
        assert model.supports_jit
        model.build((None, D))
        model.set_weights(models[0].get_weights())
        model.compile(keras.optimizers.SGD(0.1), jit_compile=bool(jit))
    assert_same_training(
        *models, x, y, sample_weight=s, epochs=2, batch_size=36, validation_data=(x, y)
    )


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", keras.optimizers.SGD(0.01, 0.9)])
def test_any_optimizer(optimizer, data):
    x, y, _ = data
    model = lk.LinearRegression(2)
    model.build((None, D))
    twin = stock_twin(model)
    config = keras.optimizers.serialize(keras.optimizers.get(optimizer))
    for each in (model, twin):
        each.compile(keras.optimizers.deserialize(config), loss="mse")
    assert_same_training(model, twin, x, y, epochs=3, rtol=1e-4)


def test_regularizer(data):
    x, y, _ = data
    model = lk.LinearRegression(2, kernel_regularizer=keras.regularizers.L2(0.1))
    model.build((None, D))
    twin = stock_twin(model, kernel_regularizer=keras.regularizers.L2(0.1))
    for each in (model, twin):
        each.compile(keras.optimizers.SGD(0.1), loss="mse")
    assert_same_training(model, twin, x, y, epochs=3)


def test_l2_is_half_the_sum(data):
    x, y, s = data
    model = lk.LinearRegression(2)
    model.build((None, D))
    twin = stock_twin(model)
    model.compile(keras.optimizers.SGD(0.001), loss="l2")
    twin.compile(keras.optimizers.SGD(0.001), loss=lk.L2Loss())
    kernel, bias = model.get_weights()
    loss = 0.5 * np.sum(s[:, None] * (x @ kernel + bias - y) ** 2)
    assert model.evaluate(x, y, sample_weight=s, batch_size=N, verbose=0) == pytest.approx(
        loss, rel=1e-5
    )
    assert_same_training(model, twin, x, y, epochs=3, sample_weight=s)
    # The documented relation between the learning rates of the two losses.
    mse = lk.LinearRegression(2)
    mse.build((None, D))
    mse.set_weights([kernel, bias])
    mse.compile(keras.optimizers.SGD(0.1))
    mse.train_on_batch(x, y)
    model.set_weights([kernel, bias])
    model.optimizer.learning_rate = 0.1 * 2 / (N * 2)
    model.train_on_batch(x, y)
    np.testing.assert_allclose(model.kernel, mse.kernel, rtol=1e-5)


def test_one_target_without_its_axis(data):
    x, y, s = data
    a, b = lk.LinearRegression(), lk.LinearRegression()
    for model in (a, b):
        model.build((None, D))
        model.compile(keras.optimizers.SGD(0.1))
    b.set_weights(a.get_weights())
    a.fit(x, y[:, 0], sample_weight=s, shuffle=False, verbose=0)
    b.fit(x, y[:, :1], sample_weight=s[:, None], shuffle=False, verbose=0)
    np.testing.assert_array_equal(a.kernel, b.kernel)


@pytest.mark.parametrize("metrics", [[], ["mae"]])
def test_one_pass_over_the_batch(metrics, data):
    """The graph that ran has the fused op, and a matrix product for metrics alone."""
    x, y, _ = data
    model = lk.LinearRegression(2)
    model.compile("sgd", metrics=metrics, jit_compile=False)
    context.context().enable_run_metadata()
    context.context().export_run_metadata()  # what ran before this test
    model.train_on_batch(x, y)
    record = context.context().export_run_metadata()
    context.context().disable_run_metadata()
    graphs = [graph for function in record.function_graphs for graph in function.partition_graphs]
    ran = {node.name: node.op for graph in graphs for node in graph.node}
    assert list(ran.values()).count("Linreg>L2LossGrad") == 1
    assert any("MatMul" in op for op in ran.values()) == bool(metrics)


@pytest.mark.parametrize("loss", ["mse", "l2"])
def test_save_and_load(loss, data, tmp_path):
    x, y, _ = data
    model = lk.LinearRegression(2, kernel_regularizer="l2")
    model.compile(keras.optimizers.Adam(0.01), loss=loss, metrics=["mae"])
    model.fit(x, y, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert isinstance(loaded, lk.LinearRegression)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    # The optimizer's state came along: training goes on as if nothing had happened.
    assert_same_training(loaded, model, x, y, rtol=0)


@pytest.mark.parametrize("order", ["linreg_ops, keras", "keras, linreg_ops"])
def test_loads_where_only_the_package_is_imported(order, data, tmp_path):
    x, y, _ = data
    model = lk.LinearRegression(2)
    model.compile("sgd")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "predicted.npy", model.predict(x[:3], verbose=0))
    np.save(tmp_path / "x.npy", x[:3])
    run(
        f"""
        import {order}
        import numpy as np
        model = keras.models.load_model({str(tmp_path / "model.keras")!r})
        x, predicted = (np.load({str(tmp_path)!r} + n) for n in ("/x.npy", "/predicted.npy"))
        np.testing.assert_array_equal(model.predict(x, verbose=0), predicted)
        """
    )


def test_keras_on_another_backend_is_left_alone():
    run(
        """
        import keras, sys
        keras.config.backend = lambda: "jax"
        import linreg_ops
        assert "linreg_ops.keras" not in sys.modules
        """
    )


def test_summary_shows_the_parameters(capsys):
    model = lk.LinearRegression(2)
    model.build((None, D))
    model.summary(print_fn=print)
    printed = capsys.readouterr().out
    assert re.search(r"linear \(LinearOutput\) *│ \(None, 2\) *│ *12 ", printed)


def test_wrong_width_is_explained_as_dense_does(data):
    x, y, _ = data
    model = lk.LinearRegression(2)
    model.compile("sgd")
    model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"expected axis -1 of input shape to have value 5, but"):
        model.predict(x[:, :3], verbose=0)


def test_initializers_are_saved():
    model = lk.LinearRegression(2, kernel_initializer="ones", bias_initializer="ones")
    again = lk.LinearRegression.from_config(model.get_config())
    again.build((None, D))
    assert [w.numpy().min() for w in again.weights] == [1.0, 1.0]


@pytest.mark.parametrize("loss", [lk.MeanSquaredError(), lk.L2Loss()])
def test_the_loss_of_an_empty_batch_is_zero(loss):
    layer = lk.LinearOutput(2)
    outputs = layer(tf.zeros([0, D]))
    assert loss(tf.zeros([0, 2]), outputs).numpy() == 0.0


def test_l2_loss_of_targets_without_their_axis():
    """[n] against [n, 1] is n pairs, not n² of them."""
    y = np.float32([1.0, 2.0, 4.0])
    assert float(lk.L2Loss()(y, y[:, None])) == 0.0


def test_two_heads_of_one_network(data):
    """Losses by output, with weights: as stock Keras, and the layers below get both gradients."""
    x, y, s = data

    def made(layer, loss):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((D,))
        hidden = keras.layers.Dense(3, "tanh")(inputs)
        outputs = {name: layer(1, name=name)(hidden) for name in ("a", "b")}
        model = keras.Model(inputs, outputs)
        model.compile(
            keras.optimizers.SGD(0.1),
            loss={"a": loss(), "b": loss(reduction="sum")},
            loss_weights={"a": 2.0, "b": 0.01},
        )
        return model

    ours = made(lk.LinearOutput, lk.MeanSquaredError)
    stock = made(keras.layers.Dense, keras.losses.MeanSquaredError)
    targets = {"a": y[:, :1], "b": y[:, 1:]}
    weights = {"a": s, "b": s**2}
    fit = {"epochs": 2, "shuffle": False, "verbose": 0, "sample_weight": weights}
    ours_history = ours.fit(x, targets, **fit).history
    stock_history = stock.fit(x, targets, **fit).history
    assert set(ours_history) == {"loss", "a_loss", "b_loss"}
    for name, values in ours_history.items():
        np.testing.assert_allclose(values, stock_history[name], rtol=2e-5)
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_datasets_callbacks_and_steps_per_execution(data):
    x, y, s = data
    model = lk.LinearRegression(2)
    model.compile(keras.optimizers.SGD(0.1), steps_per_execution=2)
    batches = tf.data.Dataset.from_tensor_slices((x, y, s)).batch(24)
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=0)
    assert (
        len(
            model.fit(batches, epochs=5, verbose=0, shuffle=False, callbacks=[stop]).history["loss"]
        )
        == 2
    )


def test_eagerly_and_in_a_graph_alike(data):
    x, y, s = data
    models = [lk.LinearRegression(2) for _ in range(2)]
    for eager, model in enumerate(models):
        model.build((None, D))
        model.set_weights(models[0].get_weights())
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=bool(eager))
    assert_same_training(*models, x, y, sample_weight=s, epochs=2)


# Integer data and powers of two: exact, so that the order of the replicas' sums leaves no trace.
MIRRORED = """
import keras
import numpy as np
import tensorflow as tf
import linreg_ops.keras as lk

cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
keras.config.set_dtype_policy("float64")
rng = np.random.default_rng(1)
x, y = (rng.integers(-3, 4, shape).astype(np.float64) for shape in ((32, 3), (32, 2)))
s = rng.integers(0, 3, 32).astype(np.float64)

def trained():
    model = lk.LinearRegression(2, kernel_initializer="ones")
    model.build((None, 3))
    model.compile(keras.optimizers.SGD(2.0**-4), metrics=["mae"])
    history = model.fit(x, y, sample_weight=s, batch_size=8, epochs=1, shuffle=False, verbose=0)
    return model, history.history

on_one, history = trained()
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    mirrored, mirrored_history = trained()
assert [v.device[-5:] for v in mirrored.kernel.value.values] == ["CPU:0", "CPU:1"]
assert history == mirrored_history, (history, mirrored_history)
for ours, theirs in zip(mirrored.get_weights(), on_one.get_weights(), strict=True):
    np.testing.assert_array_equal(ours, theirs)
assert np.all(on_one.kernel != 1.0)
"""


@pytest.mark.composes("Strategies: mirrored, multi-worker, parameter server")
def test_two_mirrored_devices_equal_one():
    run(MIRRORED)


def test_layer_in_a_network(data):
    """A hidden layer below, symbolic inputs, gradients through both: as a stock network."""
    x, y, _ = data
    inputs, targets = keras.Input((D,)), keras.Input((2,))
    hidden = keras.layers.Dense(3, activation="tanh")
    outputs = lk.LinearOutput(2)(hidden(inputs), targets)
    assert outputs.shape == (None, 2)
    model = keras.Model([inputs, targets], outputs)
    model.compile(keras.optimizers.SGD(0.1))
    twin = keras.Sequential(
        [keras.Input((D,)), keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(2)]
    )
    twin.set_weights(model.get_weights())
    twin.compile(keras.optimizers.SGD(0.1), loss="mse")
    fit = {"epochs": 3, "shuffle": False, "verbose": 0}
    ours, stock = model.fit([x, y], **fit), twin.fit(x, y, **fit)
    np.testing.assert_allclose(ours.history["loss"], stock.history["loss"], rtol=1e-5)
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_layer_predicts_without_targets_and_saves(data, tmp_path):
    x, y, _ = data
    layer = lk.LinearOutput(2, loss="l2")
    inputs = keras.Input((D,))
    model = keras.Model(inputs, layer(inputs))
    assert model.losses == []
    np.testing.assert_allclose(
        model.predict(x, verbose=0), x @ layer.kernel + layer.bias, rtol=1e-5, atol=1e-6
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    assert loaded.get_config()["loss"] == "l2"
    kernel, bias = layer.get_weights()
    layer(x, y)
    half_sum = 0.5 * np.sum((x @ kernel + bias - y) ** 2)
    assert float(layer.losses[0]) == pytest.approx(half_sum, rel=1e-5)


@pytest.mark.parametrize("called", ["in a model", "by itself"])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_layer_keeps_targets_and_weights_of_its_loss_in_float32(policy, called, data):
    """As under a loss of the model's: x alone is rounded."""
    keras.config.set_dtype_policy(policy)
    x, y, s = data
    y += 1000  # which 16 bits round to whole numbers
    layer = lk.LinearOutput(2)
    inputs = keras.Input((D,)), keras.Input((2,)), keras.Input(())
    outputs = layer(*inputs)
    assert outputs.dtype == layer.compute_dtype
    layer.set_weights([layer.kernel.numpy(), np.float32([1001, 1002])])
    kernel, bias = (v.astype(np.float64) for v in layer.get_weights())
    residual = tf.cast(tf.cast(x, layer.compute_dtype), tf.float64) @ kernel + bias - y
    truth = np.mean(s[:, None] * residual**2)
    if called == "in a model":
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(0.0))
        loss = model.evaluate([x, y, s], batch_size=N, verbose=0)
    else:
        assert layer(x, y, s).dtype == layer.compute_dtype
        loss = float(layer.losses[0])
    assert loss == pytest.approx(truth, rel=1e-4)


def test_layer_weighs_its_samples(data):
    x, y, s = data
    layer = lk.LinearOutput(2)
    layer(x, y, s)
    kernel, bias = layer.get_weights()
    mean = np.sum(s[:, None] * (x @ kernel + bias - y) ** 2) / (2 * N)
    assert float(layer.losses[0]) == pytest.approx(mean, rel=1e-5)


def test_layer_leaves_masked_rows_out_of_its_loss(data):
    x, y, _ = (np.stack([a[:48], a[48:]], axis=1) for a in data)  # two steps each
    x[:, 1] = 0.0
    inputs, targets = keras.Input((2, D)), keras.Input((2, 2))
    layer = lk.LinearOutput(2)
    model = keras.Model([inputs, targets], layer(keras.layers.Masking()(inputs), targets))
    model.compile("sgd")
    kernel, bias = layer.get_weights()
    mean = np.mean((x[:, 0] @ kernel + bias - y[:, 0]) ** 2)
    assert model.evaluate([x, y], batch_size=48, verbose=0) == pytest.approx(mean, rel=1e-5)


def test_errors(data):
    x, y, s = data
    for units in (0, -1, 2.0):
        with pytest.raises(ValueError, match="units must be a positive integer"):
            lk.LinearRegression(units)
    with pytest.raises(ValueError, match=r"loss must be 'mse' .* or 'l2' .*, got 'mae'"):
        lk.LinearRegression().compile("sgd", loss="mae")
    with pytest.raises(ValueError, match="loss must be"):
        lk.LinearOutput(loss="huber")
    with pytest.raises(ValueError, match="activation must be None, got 'relu'"):
        lk.LinearOutput(activation="relu")
    with pytest.raises(ValueError, match="activation must be None, got 'relu'"):
        lk.LinearRegression(activation="relu")
    model = lk.LinearRegression(3)
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"y must have shape \[n, units\] = \[n, 3\], got"):
        model.train_on_batch(x, y)
    model = lk.LinearRegression(2)
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"sample_weight must have shape \[n\] or \[n, 1\]"):
        model.train_on_batch(x, y, sample_weight=np.stack([s, s], 1))
    for shape in ((3,), (None, 3, None)):
        with pytest.raises(ValueError, match=r"x must have shape \[n, d\] with d known"):
            lk.LinearRegression().build(shape)


def test_another_backend_is_refused_clearly(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"Keras is on 'jax'\. Set KERAS_BACKEND=tensorflow"):
        importlib.reload(lk)
