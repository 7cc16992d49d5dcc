"""Every argument of Keras' compile, fit, evaluate and losses: honoured as `Dense` does, or refused.

The tables below name each argument. One that a newer Keras adds and no row walks fails a test.
"""

import inspect

import keras
import numpy as np
import pytest

import linreg_ops as lo
import linreg_ops.keras as lk

# Keras' own, on saving with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

N, D = 48, 4
MSE = keras.losses.MeanSquaredError
MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


@pytest.fixture(autouse=True)
def _float32_policy():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def data(rng):
    x = rng.normal(size=(N, D)).astype(np.float32)
    y = (x @ rng.normal(size=(D, 2)) + 0.1 * rng.normal(size=(N, 2))).astype(np.float32)
    return x, y, rng.uniform(0.5, 2, size=N).astype(np.float32)


def of_the_package():
    return lk.LinearRegression(2, kernel_initializer="ones")


def of_stock():
    return keras.Sequential([keras.layers.Dense(2, kernel_initializer="ones")])


def patched():
    return lo.patch(of_stock())


def train(model, data, compile=None, fit=None, evaluate=None):
    """What the options make of one training: histories, evaluations, weights."""
    x, y, s = data
    options = {"optimizer": "sgd", "loss": "mse"} | (compile or {})
    # A fresh optimizer for each model: an optimizer serves one.
    options["optimizer"] = keras.optimizers.deserialize(
        keras.optimizers.serialize(keras.optimizers.get(options["optimizer"]))
    )
    model.compile(**options)
    fit = {"x": x, "y": y, "batch_size": 20, "sample_weight": s, "shuffle": False, **(fit or {})}
    history = model.fit(verbose=0, **fit)
    evaluate = {"x": x, "y": y, "sample_weight": s, "batch_size": 20, **(evaluate or {})}
    scores = model.evaluate(verbose=0, **evaluate)
    scores = list(scores.values()) if isinstance(scores, dict) else np.ravel(scores)
    return history.epoch, history.history, scores, model.get_weights()


def assert_alike(ours, stock, rtol=2e-5):
    assert ours[0] == stock[0]
    assert ours[1].keys() == stock[1].keys()
    for name, values in ours[1].items():
        np.testing.assert_allclose(values, stock[1][name], rtol=rtol, err_msg=name)
    np.testing.assert_allclose(ours[2], stock[2], rtol=rtol)
    for a, b in zip(ours[3], stock[3], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


def sum_of_squares(y_true, y_pred):
    return keras.ops.sum(keras.ops.square(y_true - y_pred), axis=-1)


LOSSES = {
    **{f"reduction-{each}": lambda each=each: MSE(reduction=each) for each in (*MEANS, "sum")},
    "dtype": lambda: MSE(dtype="float64"),
    "name": lambda: MSE(name="error"),
    "string": lambda: "mse",
    "upper-case": lambda: "MSE",
    "long-string": lambda: "mean_squared_error",
    "function": lambda: keras.losses.mean_squared_error,
    "list": lambda: ["mse"],
    **{f"l2-{each}": lambda each=each: lk.L2Loss(reduction=each) for each in (*MEANS, "sum")},
}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss, data):
    def options():
        return {"loss": LOSSES[loss](), "optimizer": keras.optimizers.SGD(1e-3)}

    # Step by step: a graph of stock's takes a second to compile.
    stock = train(of_stock(), data, options() | {"run_eagerly": True})
    for make in (of_the_package, patched):
        assert_alike(train(make(), data, options()), stock)


@pytest.mark.parametrize("reduction", [*MEANS, "sum"])
@pytest.mark.parametrize("loss", [lk.MeanSquaredError, lk.L2Loss])
def test_fused_value_is_the_unfused(loss, reduction, data):
    """Directly: with weights of every shape that Keras takes, and with a mask."""
    x, y, s = data
    layer = lk.LinearOutput(2)
    for weights in (None, s, s[:, None], 2.0, np.zeros_like(s)):
        for mask in (None, np.arange(N) % 3 > 0, np.zeros(N, bool)):
            y_pred = layer(x)
            fused, plain = loss(reduction=reduction), loss(reduction=reduction)
            unmarked = keras.ops.convert_to_tensor(y_pred.numpy())
            if mask is not None:
                y_pred._keras_mask = unmarked._keras_mask = keras.ops.convert_to_tensor(mask)
            np.testing.assert_allclose(
                fused(y, y_pred, weights), plain(y, unmarked, weights), rtol=1e-5
            )


STEPS = 5
SEQUENCES = {
    "none": lambda s: None,
    "each": lambda s: s,
    "each, a column": lambda s: s[..., None],
    "a row": lambda s: s[:, :1],
    "one": lambda s: 2.0,
}


@pytest.fixture
def sequences(rng):
    """x [n, steps, d], y [n, steps, 2], s [n, steps]."""
    x = rng.normal(size=(N, STEPS, D)).astype(np.float32)
    y = (x @ rng.normal(size=(D, 2)) + 0.1 * rng.normal(size=(N, STEPS, 2))).astype(np.float32)
    return x, y, rng.uniform(0.5, 2, size=(N, STEPS)).astype(np.float32)


@pytest.mark.parametrize("weights", SEQUENCES)
@pytest.mark.parametrize("loss", sorted({*LOSSES} - {"list"}))
def test_fused_value_over_sequences(loss, weights, sequences):
    """A step is a row, as for Dense; with weights of every shape that Keras takes, and a mask."""
    x, y, s = sequences
    y_pred = lk.LinearOutput(2)(x)
    assert y_pred.shape == (N, STEPS, 2)
    unmarked = keras.ops.convert_to_tensor(y_pred.numpy())
    fused, stock = lk._fused_loss(LOSSES[loss]()), lk._fused_loss(LOSSES[loss]())
    for mask in (None, s > 1, np.zeros_like(s, bool)):
        if mask is not None:
            y_pred._keras_mask = unmarked._keras_mask = keras.ops.convert_to_tensor(mask)
        ours = fused(y, y_pred, SEQUENCES[weights](s))
        np.testing.assert_allclose(ours, stock(y, unmarked, SEQUENCES[weights](s)), rtol=1e-5)


@pytest.mark.parametrize("make", [of_the_package, patched])
def test_training_on_sequences(make, sequences):
    stock = train(of_stock(), sequences)
    assert_alike(train(make(), sequences), stock)


def test_what_does_not_fit_a_sequence_is_refused(sequences):
    x, y, s = sequences
    for units, target, weights, message in (
        (2, y[:, 0], None, r"y must have shape \[n, 5, units\] = \[n, 5, 2\], got \(48, 2\)"),
        (2, y, s[0], r"sample_weight must have shape \[n, 5\] or \[n, 1\], got \(5,\)"),
        (2, y, s[:, :2], r"sample_weight must have shape \[n, 5\] or \[n, 1\], got \(48, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            lk.MeanSquaredError()(target, lk.LinearOutput(units)(x), weights)
    one = lk.LinearOutput(1)(x)
    assert float(lk.MeanSquaredError()(y[..., 0], one)) == float(
        lk.MeanSquaredError()(y[..., :1], one)
    )


COMPILE = {
    "optimizer": [
        keras.optimizers.Adam(0.01, clipnorm=0.1),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01)),
        keras.optimizers.SGD(0.01, use_ema=True, gradient_accumulation_steps=2),
    ],
    "loss": list(LOSSES),  # by test_losses
    "loss_weights": [0.25, [3.0]],
    "metrics": [["mae", "mse"], [[keras.metrics.RootMeanSquaredError]]],
    "weighted_metrics": [["mae"]],
    "run_eagerly": [True],
    "steps_per_execution": [2],
    "jit_compile": [True, False],
    "auto_scale_loss": [True, False],
}  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "index"),
    [(a, i) for a, values in COMPILE.items() for i in range(len(values)) if a != "loss"],
)
def test_compile(argument, index, data):
    value = COMPILE[argument][index]
    if argument == "auto_scale_loss":
        keras.config.set_dtype_policy("mixed_float16")
        # Stock's scaled gradients are float16, overflow at 65504, and such a step is skipped.
        data = [array / 16 for array in data]

    def options():
        made = value
        if argument == "metrics":  # a metric object serves one model
            made = [m[0]() if isinstance(m, list) else m for m in value]
        return {argument: made}

    # In float16 stock rounds the products that ours does not.
    rtol = 5e-3 if argument == "auto_scale_loss" else 2e-5
    ours, stock = of_the_package(), of_stock()
    assert_alike(train(ours, data, options()), train(stock, data, options()), rtol)
    assert type(ours.optimizer) is type(stock.optimizer)


class Count(keras.callbacks.Callback):
    """The losses that a callback sees, batch by batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((batch, logs["loss"]))

    def on_test_batch_end(self, batch, logs=None):
        self.seen.append((batch, logs["loss"]))


def validation(data):
    x, y, s = data
    return {"validation_data": (x[:30], y[:30], s[:30])}


FIT = {
    "x": lambda data: {"x": data[0][:30], "y": data[1][:30], "sample_weight": None},
    "y": lambda data: {"y": np.round(data[1]).astype(np.int32)},
    "batch_size": lambda data: {"batch_size": 7},
    "epochs": lambda data: {"epochs": 3},
    "verbose": None,  # by every test
    "callbacks": lambda data: {"callbacks": [Count()]},
    "validation_split": lambda data: {"validation_split": 0.25},
    "validation_data": validation,
    "shuffle": None,  # draws a different order in each model: off in every test
    "class_weight": lambda data: {
        "class_weight": {0: 1.0, 1: 5.0}, "y": (data[1][:, :1] > 0).astype(np.int32),
        "sample_weight": None,
    },
    "sample_weight": lambda data: {"sample_weight": data[2][:, None] ** 2},
    "initial_epoch": lambda data: {"initial_epoch": 2, "epochs": 4},
    "steps_per_epoch": lambda data: {"steps_per_epoch": 2},
    "validation_steps": lambda data: {**validation(data), "validation_steps": 1},
    "validation_batch_size": lambda data: {**validation(data), "validation_batch_size": 4},
    "validation_freq": lambda data: {**validation(data), "validation_freq": 2, "epochs": 2},
}  # fmt: skip


@pytest.mark.parametrize("argument", [name for name, row in FIT.items() if row])
def test_fit(argument, data):
    ours_fit, stock_fit = FIT[argument](data), FIT[argument](data)
    ours, stock = of_the_package(), of_stock()
    if argument == "class_weight":  # of one target
        ours = lk.LinearRegression(1, kernel_initializer="ones")
        stock = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
        data = (data[0], data[1][:, :1], data[2])
    assert_alike(train(ours, data, fit=ours_fit), train(stock, data, fit=stock_fit))
    if argument == "callbacks":
        np.testing.assert_allclose(
            ours_fit["callbacks"][0].seen, stock_fit["callbacks"][0].seen, rtol=2e-5
        )


EVALUATE = {
    "x": lambda data: {"x": data[0][:30], "y": data[1][:30], "sample_weight": data[2][:30]},
    "y": lambda data: {"y": 2 * data[1]},
    "batch_size": lambda data: {"batch_size": 7},
    "verbose": None,  # by every test
    "sample_weight": lambda data: {"sample_weight": None},
    "steps": lambda data: {"steps": 1},
    "callbacks": lambda data: {"callbacks": [Count()]},
    "return_dict": lambda data: {"return_dict": True},
}


@pytest.mark.parametrize("argument", [name for name, row in EVALUATE.items() if row])
def test_evaluate(argument, data):
    ours, stock = (EVALUATE[argument](data) for _ in range(2))
    assert_alike(
        train(of_the_package(), data, evaluate=ours), train(of_stock(), data, evaluate=stock)
    )


@pytest.mark.parametrize(
    ("method", "walked"), [("compile", COMPILE), ("fit", FIT), ("evaluate", EVALUATE)]
)
def test_every_argument_is_walked(method, walked):
    arguments = set(inspect.signature(getattr(keras.Model, method)).parameters)
    assert arguments - {"self", "kwargs"} == set(walked)
    for argument in inspect.signature(MSE).parameters:
        assert any(argument in name for name in LOSSES)


LAYER = {
    "use_bias": False,
    "kernel_initializer": keras.initializers.GlorotUniform(seed=1),
    "bias_initializer": "ones",
    "kernel_regularizer": keras.regularizers.L2(0.1),
    "bias_regularizer": keras.regularizers.L1(0.1),
    "activity_regularizer": keras.regularizers.L2(0.01),
    "kernel_constraint": keras.constraints.NonNeg(),
    "bias_constraint": keras.constraints.NonNeg(),
    "lora_rank": 1,
    "dtype": "float64",
    "trainable": False,
    "name": "named",
}


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.parametrize("argument", LAYER)
def test_layer_arguments(argument, data):
    options = {argument: LAYER[argument]}
    if argument == "trainable":  # a Sequential's own: of the weights that stay
        stock = of_stock()
        stock.trainable = False
        ours = lk.LinearRegression(2, kernel_initializer="ones", trainable=False)
    else:
        stock = keras.Sequential([keras.layers.Dense(2, **options)])
        ours = lk.LinearRegression(2, **options)
    for model in (ours, stock):
        model.build((None, D))
    ours.set_weights(stock.get_weights())
    rtol = 1e-4 if argument == "lora_rank" else 2e-5
    assert_alike(train(ours, data), train(stock, data), rtol)


def test_the_layers_arguments_are_walked():
    arguments = set(inspect.signature(keras.layers.Dense).parameters)
    elsewhere = {"units", "activation", "kwargs", "lora_alpha", "quantization_config"}
    assert arguments - elsewhere <= set(LAYER)


class AbsoluteError(MSE):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (MSE(reduction=None), "reduction must be .* got None"),
        (MSE(reduction="none"), "reduction must be .* got 'none'"),
        (AbsoluteError(), "loss must be 'mse'"),
        (sum_of_squares, "loss must be 'mse'"),
        (None, "loss must be 'mse' .* got None"),
        ("nonsense", "loss must be 'mse' .* got 'nonsense'"),
        (["mse", "mae"], "loss must be 'mse' .* got 'mae'"),
    ],
)
def test_refused_losses(loss, message):
    for model in (of_the_package(), patched()):
        with pytest.raises(ValueError, match=message):
            model.compile("sgd", loss=loss)
        assert not model.compiled


def test_losses_are_saved_with_their_options(tmp_path, data):
    x, y, s = data
    model = of_the_package()
    model.compile("sgd", MSE("mean_with_sample_weight", "error", "float64"), loss_weights=3.0)
    model.fit(x, y, sample_weight=s, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (loaded.loss.reduction, loaded.loss.name, loaded.loss.dtype) == (
        "mean_with_sample_weight", "error", "float64",
    )  # fmt: skip
    assert loaded.evaluate(x, y, sample_weight=s, verbose=0) == model.evaluate(
        x, y, sample_weight=s, verbose=0
    )
