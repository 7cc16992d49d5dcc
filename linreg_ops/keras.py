"""Keras 3: a linear regression model, and a last layer, whose training step is the fused op.

Both compute the loss with `linreg_ops.linear_l2_loss`, whose registered gradient was
already computed in the same pass over X: Keras' own training step then reads X once, and drops
the prediction from the graph where nothing asks for it.
"""

from typing import Any

import keras
import tensorflow as tf
from typing_extensions import override

from .ops import linear_l2_loss

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"linreg_ops.keras needs Keras on TensorFlow, and Keras is on {keras.backend.backend()!r}. "
        "Set KERAS_BACKEND=tensorflow before Keras is imported."
    )


@keras.saving.register_keras_serializable(package="linreg_ops")
class L2Loss(keras.losses.Loss):  # type: ignore[misc]
    """½ Σ (y_pred - y_true)², summed over batch and targets: `tf.nn.l2_loss` as a Keras loss.

    Equivalent: `tf.nn.l2_loss(y_pred - y_true)`. This is the unfused form; it gives a model
    compiled with it the same numbers as `loss="l2"` gives `LinearRegression`.

    >>> import numpy as np
    >>> float(L2Loss()(np.float32([[1.0], [2.0]]), np.float32([[2.0], [4.0]])))
    2.5
    """

    def __init__(self, name: str = "l2_loss", reduction: str = "sum", dtype: Any = None) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    @override
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return 0.5 * tf.reduce_sum(tf.square(y_pred - tf.cast(y_true, y_pred.dtype)), axis=-1)


class _FusedLinear:
    """Kernel and bias as Keras users know them, and the loss as the op computes it."""

    def _init_config(
        self,
        units: int,
        use_bias: bool,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
    ) -> None:
        if not isinstance(units, int) or units < 1:
            raise ValueError(f"units must be a positive integer, got {units!r}")
        self.units = units
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def _config(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    def _add_kernel_and_bias(self: Any, x_shape: Any) -> None:
        if len(x_shape) != 2 or x_shape[-1] is None:
            raise ValueError(f"x must have shape [n, d] with d known, got {list(x_shape)}")
        self.kernel = self.add_weight(
            name="kernel",
            shape=(x_shape[-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer=self.bias_initializer
            )
        self.built = True

    def _predict(self: Any, x: Any) -> Any:
        outputs = keras.ops.matmul(x, self.kernel)
        return outputs if self.bias is None else keras.ops.add(outputs, self.bias)

    def _fused_loss(self: Any, x: Any, y: Any, sample_weight: Any, kind: str) -> Any:
        """One pass over X, which is in the compute dtype; the rest stays in the variables'."""
        x = tf.cast(tf.convert_to_tensor(x), self.compute_dtype)
        # .value, not the variable itself, which Keras would cast to the compute dtype
        w = tf.convert_to_tensor(self.kernel.value)
        if self.bias is not None:
            w = tf.concat([tf.convert_to_tensor(self.bias.value)[None, :], w], axis=0)
        y = _one_column_per_target(tf.cast(tf.convert_to_tensor(y), w.dtype), self.units)
        if sample_weight is not None:
            sample_weight = tf.cast(tf.convert_to_tensor(sample_weight), w.dtype)
            sample_weight = _one_weight_per_row(sample_weight)
        loss = linear_l2_loss(x, w, y, intercept=self.bias is not None, sample_weight=sample_weight)
        if kind == "l2":
            return loss
        mean = tf.math.divide_no_nan(2.0 * loss, tf.cast(tf.shape(y)[0] * self.units, loss.dtype))
        # the mean over a strategy's whole batch: the replicas' means, averaged
        return mean / tf.distribute.get_strategy().num_replicas_in_sync


def _loss_kind(loss: Any) -> str:
    if isinstance(loss, L2Loss) or loss in ("l2", "l2_loss"):
        return "l2"
    if isinstance(loss, keras.losses.MeanSquaredError) or loss in ("mse", "mean_squared_error"):
        return "mse"
    raise ValueError(
        f"loss must be 'mse' (mean over the batch) or 'l2' (½ Σ over the batch), got {loss!r}: "
        "the training step is the fused squared error"
    )


def _one_column_per_target(y: tf.Tensor, units: int) -> tf.Tensor:
    if y.shape.rank == 1 and units == 1:
        y = y[:, None]
    if not y.shape.is_compatible_with([None, units]):
        raise ValueError(f"y must have shape [n, units] = [n, {units}], got {y.shape}")
    return y


def _one_weight_per_row(s: tf.Tensor) -> tf.Tensor:
    if s.shape.rank == 2 and s.shape[1] == 1:
        s = s[:, 0]
    if not s.shape.is_compatible_with([None]):
        raise ValueError(f"sample_weight must have shape [n] or [n, 1], got {s.shape}")
    return s


@keras.saving.register_keras_serializable(package="linreg_ops")
class LinearRegression(_FusedLinear, keras.Model):  # type: ignore[misc]
    """Linear regression as a Keras model: y ≈ X·kernel + bias.

    The same weights, predictions and losses as
    `keras.Sequential([keras.layers.Dense(units)])` compiled with `loss="mse"`, but each
    training step reads the batch once: loss and gradient come from one pass of the fused op, and
    the prediction that Keras asks for on the way is dropped from the graph unless a metric needs
    it. Everything of Keras' `fit` works: optimizers, `sample_weight`, `validation_data`,
    metrics, callbacks, mixed precision, strategies, saving to `.keras`.

    Args:
        units: Number of targets, k.
        use_bias: Fit a constant term too.
        kernel_initializer, bias_initializer, kernel_regularizer: As in `keras.layers.Dense`.

    The loss is chosen in `compile`. For a batch of n rows:

    * `loss="mse"`, the default, Keras' convention: Σ sᵢ (prediction - y)² / (n·k).
    * `loss="l2"`, TensorFlow's `tf.nn.l2_loss`: ½ Σ sᵢ (prediction - y)². Its gradient grows
      with the batch, so the learning rate must shrink: by 2/(n·k) for the same steps as "mse".

    Shapes: X [n, d]; y [n, units], or [n] for one target; sample_weight [n]. Weights are
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
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._init_config(units, use_bias, kernel_initializer, bias_initializer, kernel_regularizer)
        self._kind = "mse"

    @override
    def build(self, input_shape: Any) -> None:
        self._add_kernel_and_bias(input_shape)

    @override
    def call(self, inputs: Any) -> Any:
        return self._predict(inputs)

    @override
    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int]:
        return (input_shape[0], self.units)

    def compile(self, optimizer: Any = "rmsprop", loss: Any = "mse", **kwargs: Any) -> None:
        """As `keras.Model.compile`; `loss` is `"mse"` or `"l2"` (see the class)."""
        self._kind = _loss_kind(loss)
        loss = L2Loss() if self._kind == "l2" else keras.losses.MeanSquaredError()
        super().compile(optimizer, loss=loss, **kwargs)

    @override
    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras does not call an overridden compile on loading; this one takes the same arguments.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The fused loss of a batch, plus the regularizer's. Does not look at `y_pred`."""
        del y_pred, training
        loss = self._fused_loss(x, y, sample_weight, self._kind)
        for penalty in self.losses:
            loss += tf.cast(self._aggregate_additional_loss(penalty), loss.dtype)
        return loss

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._config()}


@keras.saving.register_keras_serializable(package="linreg_ops")
class LinearOutput(_FusedLinear, keras.layers.Layer):  # type: ignore[misc]
    """The last layer of a regression network, its squared-error loss fused with its product.

    `layer(x)` is `keras.layers.Dense(units)(x)`. `layer(x, targets)` returns the same and
    adds the loss to the model's: compile the model without one. The op then computes the loss
    and the gradients of kernel and bias in one pass over x; gradients flow to x and targets too.
    Inputs may be symbolic (`KerasTensor`).

    Equivalent: `Dense(units)(x)` followed by `self.add_loss(mean((prediction - targets)²))`,
    or `½ Σ` of it with `loss="l2"`.

    Args:
        units, use_bias, kernel_initializer, bias_initializer, kernel_regularizer: As in
            `keras.layers.Dense`.
        loss: `"mse"` or `"l2"`, as in `LinearRegression`.

    Raises:
        ValueError: Units < 1; another loss; shapes that do not fit.

    >>> import numpy as np
    >>> layer = LinearOutput(loss="l2", kernel_initializer="ones")
    >>> layer(np.float32([[1.0], [2.0]]), np.float32([[2.0], [4.0]])).numpy()
    array([[1.],
           [2.]], dtype=float32)
    >>> float(layer.losses[0])
    2.5
    """

    def __init__(
        self,
        units: int = 1,
        use_bias: bool = True,
        *,
        loss: str = "mse",
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._init_config(units, use_bias, kernel_initializer, bias_initializer, kernel_regularizer)
        self.loss = _loss_kind(loss)

    @override
    def build(
        self, x_shape: Any, targets_shape: Any = None, sample_weight_shape: Any = None
    ) -> None:
        self._add_kernel_and_bias(x_shape)

    @override
    def call(self, x: Any, targets: Any = None, sample_weight: Any = None) -> Any:
        if targets is not None:
            self.add_loss(self._fused_loss(x, targets, sample_weight, self.loss))
        return self._predict(x)

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "loss": self.loss, **self._config()}
