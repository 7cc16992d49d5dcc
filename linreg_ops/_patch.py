"""Swaps the squared-error head of a stock Keras model for the fused one, and back.

Only the model's own attributes change: its output layer's `call` marks what it returns, its
`compile` takes the fused twin of the loss, and what it saves names the stock loss. No class of
Keras is touched, and no other model.
"""

from __future__ import annotations

from typing import Any

import keras

from .keras import LinearOutput, _fused_loss, _marked


def patch(model: Any) -> Any:
    """Trains a Keras model's mean squared error by the fused op, from now on.

    For a `Sequential` or functional model whose one output is a `Dense` layer without activation::

        lo.patch(model)      # model.fit, evaluate, predict, save: as before
        lo.unpatch(model)    # stock again

    Weights, losses, metrics, callbacks and what `model.save` writes stay the same to rounding;
    each training step reads the output layer's input once for loss and gradients. What is gained
    is gained in that layer: it pays where the output layer's input is large, as in a linear
    probe, and little in a deep network.

    A model that is compiled is compiled again with the same arguments and the same optimizer,
    whose state is kept; metrics start anew. One that is not yet is patched for when it is.

    Args:
        model: Compiled or not.

    Returns:
        The model.

    Raises:
        ValueError: The model has several outputs, or its output is not that of a `Dense` layer
            without activation; or its loss is not the mean squared error (or `"l2"`).

    >>> import keras, numpy as np, linreg_ops as lo
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", loss="mse")
    >>> _ = lo.patch(model).fit(np.ones((8, 3)), np.ones(8), verbose=0)
    >>> lo.unpatch(model).loss
    'mse'
    """
    if _patched(model):
        return model
    layer = _output_layer(model)
    given = model.loss
    if model.compiled:
        _fused_loss(given)  # refuses before anything changes
    stock_call, stock_compile, stock_config = layer.call, model.compile, model.get_compile_config

    def call(*args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else next(iter(kwargs.values()))
        return _marked(stock_call(*args, **kwargs), x, layer)

    def compile(optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any) -> None:
        nonlocal given
        fused = keras.tree.map_structure(_fused_loss, loss)
        stock_compile(optimizer, fused, *args, **kwargs)
        given = loss

    def get_compile_config() -> Any:
        config = stock_config()
        return config and {**config, "loss": keras.saving.serialize_keras_object(given)}

    if not isinstance(layer, LinearOutput):  # which marks its outputs itself
        layer.call = call
    model.compile, model.get_compile_config = compile, get_compile_config
    if model.compiled:
        _compile_again(model, given)
    return model


def unpatch(model: Any) -> Any:
    """Takes back what `patch` did: the model is a stock Keras model again.

    Args:
        model: One that was patched; any other is left as it is.

    Returns:
        The model.
    """
    if not _patched(model):
        return model
    layer = _output_layer(model)
    given = model.get_compile_config()
    if "call" in vars(layer):
        del layer.call
    del model.compile, model.get_compile_config
    if model.compiled:
        _compile_again(model, keras.saving.deserialize_keras_object(given)["loss"])
    return model


def _patched(model: Any) -> bool:
    return "compile" in vars(model)


def _output_layer(model: Any) -> Any:
    if not isinstance(model, keras.Sequential) and not getattr(model, "output_names", None):
        raise ValueError(
            f"model must be Sequential or functional, got {type(model).__name__}: give a model of "
            "your own class a linreg_ops.keras.LinearOutput, and a loss of linreg_ops.keras"
        )
    layer: Any = None
    if isinstance(model, keras.Sequential):
        layer = model.layers[-1] if model.layers else None
    elif len(model.output_names) == 1:
        layer = model.get_layer(model.output_names[0])
    else:
        raise ValueError(f"model must have one output, got {len(model.output_names)}")
    if type(layer) not in (keras.layers.Dense, LinearOutput):
        what = "no layer" if layer is None else f"{layer.name} ({type(layer).__name__})"
        raise ValueError(f"the model's last layer must be Dense, got {what}")
    if layer.activation is not keras.activations.linear:
        raise ValueError(
            f"the model's last layer, {layer.name}, must have no activation, got "
            f"{layer.activation.__name__}"
        )
    return layer


def _compile_again(model: Any, loss: Any) -> None:
    """With the same arguments, and the optimizer itself, which holds its state."""
    options = keras.saving.deserialize_keras_object(model.get_compile_config())
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    options.update(optimizer=model.optimizer, loss=loss, auto_scale_loss=scaled)
    model.compile(**options)
