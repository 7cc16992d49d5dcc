"""Keras 3: squared-error losses that read a batch once, and the model and layer that use them.

A linear layer that this module knows marks its output with the input and the weights it came from.
A loss of this module, given an output so marked, computes itself and its gradients from those by
`linreg_ops.linear_l2_loss`, in one pass; the product that Keras asked for on the way is dropped
from the graph where nothing else needs it. All else is Keras' own code: it calls the loss, and so
`loss_weights`, `sample_weight`, `class_weight`, masks, reductions, metrics, loss scaling and
strategies mean what they mean for `Dense`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf
from typing_extensions import override

from .ops import linear_l2_loss

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"linreg_ops.keras needs Keras on TensorFlow, and Keras is on {keras.backend.backend()!r}. "
        "Set KERAS_BACKEND=tensorflow before Keras is imported."
    )


class _Head(NamedTuple):
    """What a linear layer's output was computed from: x [..., d] and the layer's weights."""

    x: tf.Tensor
    layer: Any

    def l2_loss(self, y: Any, sample_weight: tf.Tensor | None) -> tf.Tensor:
        """½ Σ s (x·kernel + bias - y)², x in the compute dtype and the rest in the variables'.

        The last dimension is a row's: x [n, steps, d] has n·steps rows, as y [n, steps, units] has.
        """
        kernel, bias, units = self.layer.kernel, self.layer.bias, self.layer.units
        # In the variables' dtype, as Keras casts them within a layer's call alone.
        w = tf.convert_to_tensor(kernel)
        if bias is not None:
            w = tf.concat([tf.cast(bias.value, w.dtype)[None, :], w], axis=0)
        y = tf.cast(tf.convert_to_tensor(y), w.dtype)
        leading = self.x.shape[:-1]
        if units == 1 and y.shape.rank == leading.rank:
            y = y[..., None]
        if not y.shape.is_compatible_with([*leading, units]):
            shape = ", ".join(["n", *map(str, leading[1:])])
            raise ValueError(
                f"y must have shape [{shape}, units] = [{shape}, {units}], got {y.shape}"
            )
        if sample_weight is not None:
            s = tf.broadcast_to(tf.cast(sample_weight, w.dtype), tf.shape(y)[:-1])
            sample_weight = tf.reshape(s, [-1])
        x, y = (tf.reshape(each, [-1, each.shape[-1]]) for each in (self.x, y))
        return linear_l2_loss(x, w, y, intercept=bias is not None, sample_weight=sample_weight)


def _marked(outputs: Any, x: Any, layer: Any) -> Any:
    # A symbolic output (KerasTensor) has no value yet: the layer is called again with one.
    if isinstance(outputs, tf.Tensor):
        outputs._linreg_head = _Head(x, layer)
    return outputs


@keras.saving.register_keras_serializable(package="linreg_ops")
class MeanSquaredError(keras.losses.MeanSquaredError):  # type: ignore[misc]
    """`keras.losses.MeanSquaredError`, fused with the product of a `LinearOutput` below it.

    The same arguments and values. Of any other prediction it is the stock loss.

    Args:
        reduction: As in Keras, except `None`: a fused loss is a sum over the rows, or their mean.
        name, dtype: As in Keras.

    Raises:
        ValueError: `reduction=None`; y, sample_weight or x of a shape that does not fit.

    >>> import numpy as np
    >>> float(MeanSquaredError()(np.float32([[1.0], [2.0]]), np.float32([[2.0], [4.0]])))
    2.5
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "mean_squared_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        if self.reduction in (None, "none"):
            raise ValueError(
                "reduction must be 'sum_over_batch_size', 'mean', 'mean_with_sample_weight' or "
                f"'sum', got {reduction!r}: the fused loss never has a value per row"
            )

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dtype": self.dtype}  # which Keras forgets

    # The loss of one row is this times ½ Σ over the targets, over the number of targets or not.
    _per_row, _mean_over_targets = 2.0, True

    @override
    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        head = getattr(y_pred, "_linreg_head", None)
        if head is None:
            return super().__call__(y_true, y_pred, sample_weight)
        with tf.name_scope(self.name):
            if head.x.shape.rank is None:
                raise ValueError(f"x must have shape [n, d] with d known, got {head.x.shape}")
            mask = getattr(y_pred, "_keras_mask", None)
            s, divisor = self._weights(y_pred[..., 0], sample_weight, mask)
            loss = self._per_row * head.l2_loss(y_true, s)
            if self._mean_over_targets:
                divisor = divisor * head.layer.units
            return tf.cast(tf.math.divide_no_nan(loss, tf.cast(divisor, loss.dtype)), self.dtype)

    def _weights(self, rows: Any, s: Any, mask: Any) -> tuple[tf.Tensor | None, tf.Tensor]:
        """The factor of each row, and what the sum is divided by: Keras' reductions.

        `rows` has their shape: [n], or [n, steps] where x is [n, steps, d].
        """
        mean = self.reduction != "sum"
        count = tf.cast(tf.size(rows), tf.float64)
        if s is not None:
            s = tf.cast(tf.convert_to_tensor(s), tf.float64)
            if s.shape.rank == rows.shape.rank + 1 and s.shape[-1] == 1:
                s = s[..., 0]
            self._check_weights(s.shape, rows.shape)
        if mask is not None:
            kept = tf.cast(mask, tf.float64)
            s = kept if s is None else s * kept
            if mean:  # of the rows that the mask keeps
                count = tf.reduce_sum(kept)
        if self.reduction == "mean_with_sample_weight" and s is not None:
            count = tf.reduce_sum(s)
        # the mean over a strategy's whole batch: the replicas' means, averaged
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return s, count * replicas if mean else tf.ones([], tf.float64)

    @staticmethod
    def _check_weights(given: Any, rows: Any) -> None:
        """Keras would stretch a [steps] along the rows of [n, steps]: here it is refused."""
        fits = given.rank in (None, 0) or (
            given.rank == rows.rank
            and all(s in (None, 1) or n in (None, s) for s, n in zip(given, rows, strict=True))
        )
        if not fits:
            each = ", ".join(["n", *map(str, rows[1:])])
            one = ", ".join([each, "1"] if rows.rank == 1 else ["n", *["1"] * (rows.rank - 1)])
            raise ValueError(f"sample_weight must have shape [{each}] or [{one}], got {given}")


@keras.saving.register_keras_serializable(package="linreg_ops")
class L2Loss(MeanSquaredError):  # noqa: N818
    """½ Σ (y_pred - y_true)², summed over batch and targets: `tf.nn.l2_loss` as a Keras loss.

    Equivalent: `tf.nn.l2_loss(y_pred - y_true)`, fused with the product of a `LinearOutput` below
    it. Its gradient grows with the batch: the learning rate must shrink by 2/(n·k) for the same
    steps as with the mean squared error.

    Args:
        name, dtype: As in Keras.
        reduction: What is made of the rows' ½ Σ over targets; as for `MeanSquaredError`.

    >>> import numpy as np
    >>> float(L2Loss()(np.float32([[1.0], [2.0]]), np.float32([[2.0], [4.0]])))
    2.5
    """

    _per_row, _mean_over_targets = 1.0, False

    def __init__(self, name: str = "l2_loss", reduction: str = "sum", dtype: Any = None) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)

    @override
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return super().call(y_true, y_pred) * (0.5 * y_pred.shape[-1])


def _fused_loss(loss: Any) -> MeanSquaredError:
    """The loss of this module for what a user of Keras may give for it."""
    if isinstance(loss, MeanSquaredError):
        return loss
    if isinstance(loss, str) and loss in ("l2", "l2_loss"):
        return L2Loss()
    try:
        stock = keras.losses.get(loss)
    except ValueError:
        stock = None
    if isinstance(stock, MeanSquaredError):  # of a configuration
        return stock
    if stock is keras.losses.mean_squared_error:
        return MeanSquaredError()
    if type(stock) is keras.losses.MeanSquaredError:  # a subclass may compute something else
        return MeanSquaredError(stock.reduction, stock.name, stock.dtype)
    raise ValueError(
        f"loss must be 'mse' (mean over the batch) or 'l2' (½ Σ over the batch), got {loss!r}: "
        "the training step is the fused squared error"
    )


@keras.saving.register_keras_serializable(package="linreg_ops")
class LinearOutput(keras.layers.Dense):  # type: ignore[misc]
    """The last layer of a regression network, whose product is fused with the loss over it.

    A `keras.layers.Dense` without an activation: the same arguments, weights and outputs. Under a
    loss of this module, loss and gradients of kernel and bias come from one pass over the
    layer's input; the gradient of that input is computed for the layers below.

    Equivalent: `Dense(units)`, compiled with the stock loss.

    Args:
        units, use_bias: As in `keras.layers.Dense`.
        loss: `"mse"`, `"l2"`, or a loss of this module: what `layer(x, targets, sample_weight)`
            adds to the model's losses. Such a model is compiled without a loss, and takes its
            targets as an input. Under a mixed precision policy x alone is in 16 bits.
        **kwargs: Every other argument of `keras.layers.Dense`.

    Raises:
        ValueError: Units < 1; an activation; another loss; shapes that do not fit.

    >>> import numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> x = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
    >>> y = np.abs(x).sum(axis=1)
    >>> model = keras.Sequential([keras.layers.Dense(32, "relu"), LinearOutput(1)])
    >>> model.compile(keras.optimizers.Adam(0.01), loss=MeanSquaredError())
    >>> history = model.fit(x, y, epochs=60, verbose=0).history
    >>> history["loss"][-1] < 0.05 < 1 < history["loss"][0]
    True
    >>> model.predict(np.float32([[1.0, -2.0, 0.5]]), verbose=0).shape
    (1, 1)
    """

    def __init__(
        self, units: int = 1, use_bias: bool = True, *, loss: Any = "mse", **kwargs: Any
    ) -> None:
        if not isinstance(units, int) or units < 1:
            raise ValueError(f"units must be a positive integer, got {units!r}")
        activation = kwargs.pop("activation", None)
        if keras.activations.get(activation) is not keras.activations.linear:
            raise ValueError(
                f"activation must be None, got {activation!r}: the squared error of an activation "
                "is not fused"
            )
        # Keras is to cast nothing on the way into the layer, neither targets nor weights: `call`
        # casts what the product takes.
        self._casts = kwargs.pop("autocast", True)
        super().__init__(units, use_bias=use_bias, autocast=False, **kwargs)
        self._given_loss, self.loss = loss, _fused_loss(loss)

    @override
    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        return super().add_weight(*args, **{"autocast": False, **kwargs})

    @override
    def build(
        self, x_shape: Any, targets_shape: Any = None, sample_weight_shape: Any = None
    ) -> None:
        if len(x_shape) < 2 or x_shape[-1] is None:
            raise ValueError(f"x must have shape [n, d] with d known, got {list(x_shape)}")
        super().build(x_shape)

    @override
    def call(self, x: Any, targets: Any = None, sample_weight: Any = None) -> Any:
        kernel, bias, mask = self.kernel, self.bias, getattr(x, "_keras_mask", None)
        if self._casts:
            x, kernel, bias = (self._cast(each) for each in (x, kernel, bias))
        outputs = keras.ops.matmul(x, kernel)
        if bias is not None:
            outputs = keras.ops.add(outputs, bias)
        outputs = _marked(outputs, x, self)
        if targets is not None:
            if mask is not None:  # which Keras itself would hand on after the call
                outputs._keras_mask = mask
            self.add_loss(self.loss(targets, outputs, sample_weight))
        return outputs

    def _cast(self, each: Any) -> Any:
        """A float in the compute dtype; another type, or None, as it is."""
        is_float = each is not None and keras.backend.is_float_dtype(each.dtype)
        return keras.ops.cast(each, self.compute_dtype) if is_float else each

    @override
    def compute_output_shape(
        self, x_shape: Any, targets_shape: Any = None, sample_weight_shape: Any = None
    ) -> tuple[Any, ...]:
        return (*x_shape[:-1], self.units)

    @override
    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["activation"]
        return {**config, "loss": keras.saving.serialize_keras_object(self._given_loss)}


@keras.saving.register_keras_serializable(package="linreg_ops")
class LinearRegression(keras.Model):  # type: ignore[misc]
    """Linear regression as a Keras model: y ≈ X·kernel + bias.

    The same weights, predictions and losses as
    `keras.Sequential([keras.layers.Dense(units)])` compiled with the same squared error, but each
    training step reads the batch once: loss and gradient come from one pass of the fused op, and
    the prediction that Keras asks for on the way is dropped from the graph unless a metric needs
    it. Everything of Keras' `fit` works: optimizers, `sample_weight`, `validation_data`,
    metrics, callbacks, mixed precision, strategies, saving to `.keras`.

    Args:
        units: Number of targets, k.
        use_bias: Fit a constant term too.
        kernel_initializer, bias_initializer, kernel_regularizer, ...: Every argument of
            `keras.layers.Dense` but `activation`.
        name, dtype, trainable: The model's own.

    The loss is chosen in `compile`. For a batch of n rows:

    * `loss="mse"`, the default, Keras' convention: Σ sᵢ (prediction - y)² / (n·k). A
      `keras.losses.MeanSquaredError` keeps its reduction, dtype and name.
    * `loss="l2"`, TensorFlow's `tf.nn.l2_loss`: ½ Σ sᵢ (prediction - y)². Its gradient grows
      with the batch, so the learning rate must shrink: by 2/(n·k) for the same steps as "mse".

    Shapes: X [n, d]; y [n, units], or [n] for one target; sample_weight [n]. More dimensions, as
    in X [n, steps, d], are more rows: y [n, steps, units], sample_weight [n, steps]. Weights are
    `kernel` [d, units] and `bias` [units]. Under `mixed_bfloat16` or `mixed_float16` the
    loss reads X in 16 bits; weights and targets stay float32, and no product is rounded to 16
    bits.

    Deterministic: equal batches give equal bits, whatever the number of threads.

    Raises:
        ValueError: Units < 1; another loss in `compile`; shapes that do not fit.

    >>> import numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> X = np.linspace(-1.0, 1.0, 64, dtype=np.float32)[:, None]
    >>> model = LinearRegression()
    >>> model.compile(keras.optimizers.SGD(0.5))
    >>> _ = model.fit(X, 3.0 * X + 1.0, epochs=50, verbose=0)
    >>> model.predict(np.float32([[0.5]]), verbose=0).round(3)
    array([[2.5]], dtype=float32)
    """

    def __init__(
        self,
        units: int = 1,
        use_bias: bool = True,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        **dense: Any,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.output_layer = LinearOutput(
            units, use_bias, name="linear", dtype=self.dtype_policy, **dense
        )

    @property
    def units(self) -> int:
        """Number of targets."""
        return int(self.output_layer.units)

    @property
    def use_bias(self) -> bool:
        """Whether there is a constant term."""
        return bool(self.output_layer.use_bias)

    @property
    def kernel(self) -> Any:
        """The variable [d, units]."""
        return self.output_layer.kernel

    @property
    def bias(self) -> Any:
        """The variable [units], or None."""
        return self.output_layer.bias

    @override
    def build(self, input_shape: Any) -> None:
        self.output_layer.build(input_shape)

    @override
    def call(self, inputs: Any) -> Any:
        return self.output_layer(inputs)

    @override
    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.units)

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = "mse", *args: Any, **kwargs: Any
    ) -> None:
        """As `keras.Model.compile`; `loss` is a mean squared error, or `"l2"` (see the class)."""
        super().compile(optimizer, keras.tree.map_structure(_fused_loss, loss), *args, **kwargs)

    @override
    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras does not call an overridden compile on loading; this one takes the same arguments.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @override
    def get_config(self) -> dict[str, Any]:
        layer = self.output_layer.get_config()
        own = {"name": self.name, "trainable": self.trainable, "dtype": layer["dtype"]}
        return {**{k: v for k, v in layer.items() if k != "loss"}, **own}
