"""lo.patch: a stock Keras model trained by the fused op, its numbers and its files as before."""

import zipfile

import keras
import numpy as np
import pytest
from fresh import run
from tensorflow.python.eager import context

import linreg_ops as lo
import linreg_ops.keras as lk

N, D = 48, 4


@pytest.fixture
def data(rng):
    x = rng.normal(size=(N, D)).astype(np.float32)
    return x, (x @ rng.normal(size=(D, 1))).astype(np.float32)


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((D,))
    hidden = keras.layers.Dense(8, "tanh")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(hidden))


def probe():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.layers.Dense(1)])


def fit(model, data, epochs=2):
    return model.fit(*data, epochs=epochs, shuffle=False, verbose=0).history


def ops_that_run(model, data):
    context.context().enable_run_metadata()
    context.context().export_run_metadata()  # what ran before
    model.train_on_batch(*data)
    record = context.context().export_run_metadata()
    context.context().disable_run_metadata()
    graphs = [graph for function in record.function_graphs for graph in function.partition_graphs]
    return [node.op for graph in graphs for node in graph.node]


@pytest.mark.parametrize("make", [network, probe])
@pytest.mark.parametrize("first", ["patch", "compile"])
def test_trains_as_the_stock_model_and_is_undone(make, first, data):
    model, stock = make(), make()
    stock.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    before = [lo.patch, lambda m: m.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])]
    for act in before if first == "patch" else reversed(before):
        act(model)
    fit(model, data)
    fit(stock, data)
    assert "Linreg>L2LossGrad" in ops_that_run(model, data)
    stock.train_on_batch(*data)
    # Undone in the middle of a training: the optimizer's state goes on.
    assert lo.unpatch(model) is model
    assert "Linreg>L2LossGrad" not in ops_that_run(model, data)
    stock.train_on_batch(*data)
    ours, theirs = fit(model, data), fit(stock, data)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5)
    for a, b in zip(model.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
    assert model.loss == "mse"
    assert int(model.optimizer.iterations) == int(stock.optimizer.iterations)


def test_twice_is_once(data):
    model = probe()
    model.compile("sgd", "mse")
    lo.patch(lo.patch(model))
    assert "Linreg>L2LossGrad" in ops_that_run(model, data)
    lo.unpatch(lo.unpatch(model))
    assert "Linreg>L2LossGrad" not in ops_that_run(model, data)


def test_unpatching_a_stock_model_changes_nothing():
    model = probe()
    model.compile("sgd", "mse")
    compiled = model._compile_loss
    assert lo.unpatch(model) is model
    assert model._compile_loss is compiled


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_saves_a_stock_model(tmp_path, data):
    model = network()
    model.compile("sgd", keras.losses.MeanSquaredError("sum"))
    fit(lo.patch(model), data)
    path = tmp_path / "model.keras"
    model.save(path)
    assert "linreg" not in zipfile.ZipFile(path).read("config.json").decode()
    run(
        f"""
        import keras, sys
        model = keras.models.load_model({str(path)!r})
        assert model.loss.reduction == "sum"
        assert "linreg_ops" not in sys.modules
        """
    )


def two_outputs():
    inputs = keras.Input((D,))
    return keras.Model(inputs, [keras.layers.Dense(1)(inputs), keras.layers.Dense(1)(inputs)])


class Own(keras.Model):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_outputs, "model must have one output, got 2"),
        (Own, "model must be Sequential or functional, got Own"),
        (keras.Sequential, "last layer must be Dense, got no layer"),
        (lambda: keras.Sequential([keras.layers.Dropout(0.5)]), r"must be Dense, got .*\(Dropout"),
        (lambda: keras.Sequential([keras.layers.Dense(1, "relu")]), "no activation, got relu"),
        (lk.LinearRegression, "model must be Sequential or functional, got LinearRegression"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        lo.patch(make())


def test_refuses_other_losses_and_changes_nothing():
    model = probe()
    model.compile("sgd", "mae")
    with pytest.raises(ValueError, match=r"loss must be 'mse' .* got 'mae'"):
        lo.patch(model)
    assert "compile" not in vars(model)
    model.compile("sgd", "mae")
