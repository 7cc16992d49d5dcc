"""The main job: one small regression, trained in four ways that must agree.

Stock TensorFlow with a tape and an optimizer, its gradient written out by hand, the fused op step
by step, and the whole loop as one op: the same data, start, rate and number of steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from .ops import gradient_descent, linear_l2_loss, linear_l2_loss_and_grad
from .training import train

Array: TypeAlias = npt.NDArray[np.float32]
Trained: TypeAlias = tuple[Array, Array]  # weights, intercept first; the losses of every iterate
Run: TypeAlias = Callable[[], Trained]

RUNS = 7  # timed ones


class Data(NamedTuple):
    """x `[n, d]`, y `[n]`, and what a picture calls them."""

    x: Array
    y: Array
    features: list[str]
    target: str


class Result(NamedTuple):
    """One way's outcome; `seconds` is the median time of a whole training after a warm-up."""

    name: str
    w: Array
    losses: Array
    seconds: float


def noisy_line(points: int = 50, seed: int = 0) -> Data:
    """Points on y = 2x - 2 for x from -2 to 4, both coordinates with unit Gaussian noise.

    >>> from linreg_ops.demo import noisy_line
    >>> noisy_line(points=5).x.shape
    (5, 1)
    """
    rng = np.random.default_rng(seed)
    x = np.linspace(-2.0, 4.0, points) + rng.standard_normal(points)
    y = np.linspace(-6.0, 6.0, points) + rng.standard_normal(points)
    return Data(x.astype(np.float32)[:, None], y.astype(np.float32), ["x"], "y")


def diabetes() -> Data:
    """442 patients, 10 standardised measurements; y is the disease's progression in a year."""
    try:
        from sklearn.datasets import load_diabetes
    except ImportError as error:
        raise ImportError(
            "the diabetes data come with scikit-learn. Install it with: pip install scikit-learn"
        ) from error
    bunch = load_diabetes(scaled=False)
    x = (bunch.data - bunch.data.mean(0)) / bunch.data.std(0)
    return Data(
        x.astype(np.float32), bunch.target.astype(np.float32), list(bunch.feature_names),
        "disease progression",
    )  # fmt: skip


def resampled(data: Data, points: int, seed: int = 0) -> Data:
    """So many points like the data's: rows drawn with replacement, each column's noise added.

    A tenth of a column's spread: no two rows are equal, and the line through them is the same.
    """
    rng = np.random.default_rng([seed, 2])
    rows = rng.integers(len(data.y), size=points)
    noise = rng.standard_normal((points, data.x.shape[1]), np.float32)
    x = data.x[rows] + 0.1 * data.x.std(0) * noise
    return Data(x, data.y[rows], data.features, data.target)


def rate_for(points: int) -> float:
    """The line's learning rate: of a sum of squares, so it shrinks with the points.

    >>> from linreg_ops.demo import rate_for
    >>> rate_for(50)
    0.002
    """
    return 0.1 / points


def stable_rate(x: Array) -> float:
    """2 / (the largest eigenvalue of XᵀX), the ones included: from there on descent diverges."""
    wide = with_ones(x).astype(np.float64)
    return 2.0 / float(np.linalg.eigvalsh(wide.T @ wide)[-1])


def start(features: int, seed: int = 0) -> Array:
    """Weights from N(0, 0.1), the intercept first."""
    rng = np.random.default_rng([seed, 1])  # not the stream that made the data
    return (0.1 * rng.standard_normal(features + 1)).astype(np.float32)


def with_ones(x: Array) -> Array:
    """The intercept's column of ones, which stock TensorFlow must be given and the op need not."""
    return np.hstack([np.ones((len(x), 1), x.dtype), x])


def stock(x: Array, w: Array, y: Array, rate: float, steps: int) -> Run:
    """GradientTape, tf.nn.l2_loss and the SGD optimizer; a step is a tf.function."""
    x, y = tf.constant(with_ones(x)), tf.constant(y[:, None])
    variable = tf.Variable(w[:, None])
    optimizer = keras.optimizers.SGD(rate)
    optimizer.build([variable])

    def loss() -> tf.Tensor:
        return tf.nn.l2_loss(tf.matmul(x, variable) - y)

    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.nn.l2_loss(tf.matmul(x, variable) - y)
        optimizer.apply_gradients([(tape.gradient(loss, variable), variable)])
        return loss

    return _loop(variable, step, loss, steps)


def by_hand(x: Array, w: Array, y: Array, rate: float, steps: int) -> Run:
    """The gradient Xᵀ(Xw - y) written out with stock ops; a step is a tf.function."""
    x, y = tf.constant(with_ones(x)), tf.constant(y[:, None])
    variable = tf.Variable(w[:, None])

    def loss() -> tf.Tensor:
        return tf.nn.l2_loss(tf.matmul(x, variable) - y)

    def step() -> tf.Tensor:
        residual = tf.matmul(x, variable) - y
        variable.assign_sub(rate * tf.matmul(x, residual, transpose_a=True))
        return tf.nn.l2_loss(residual)

    return _loop(variable, step, loss, steps)


def fused(x: Array, w: Array, y: Array, rate: float, steps: int) -> Run:
    """Loss and gradient from the fused op; a step is a tf.function."""
    x, y = tf.constant(x), tf.constant(y)
    variable = tf.Variable(w)

    def loss() -> tf.Tensor:
        return linear_l2_loss(x, variable, y, intercept=True)

    def step() -> tf.Tensor:
        loss, grad = linear_l2_loss_and_grad(x, variable, y, intercept=True)
        variable.assign_sub(rate * grad)
        return loss

    return _loop(variable, step, loss, steps)


def one_op(x: Array, w: Array, y: Array, rate: float, steps: int) -> Run:
    """All steps inside the op."""
    x, y, w = tf.constant(x), tf.constant(y), tf.constant(w)

    def run() -> Trained:
        trained = gradient_descent(x, w, y, rate, steps, intercept=True)
        return trained.w.numpy(), trained.losses.numpy()

    return run


def _loop(
    variable: tf.Variable,
    step: Callable[[], tf.Tensor],
    loss: Callable[[], tf.Tensor],
    steps: int,
) -> Run:
    """A training of `steps` from where the variable now is, over and over."""
    step, loss = tf.function(step), tf.function(loss)
    start = variable.numpy()

    def run() -> Trained:
        variable.assign(start)
        losses = [step() for _ in range(steps)]
        losses.append(loss())
        return variable.numpy().ravel(), np.array(losses, np.float32)

    return run


WAYS: dict[str, Callable[[Array, Array, Array, float, int], Run]] = {
    "stock TensorFlow": stock,
    "gradient by hand": by_hand,
    "fused op, stepwise": fused,
    "one op, all steps": one_op,
}


def train_every_way(
    data: Data, w: Array, rate: float, steps: int, *, runs: int = RUNS
) -> Iterator[Result]:
    """Trains in each of the ways: once to warm up, then `runs` times against the clock.

    Yields:
        Each way's result as soon as it is there.

    Raises:
        DivergenceError: The learning rate is too large for the data.

    >>> from linreg_ops.demo import noisy_line, start, train_every_way
    >>> results = list(train_every_way(noisy_line(), start(1), rate=0.002, steps=50, runs=1))
    >>> [result.name for result in results]
    ['stock TensorFlow', 'gradient by hand', 'fused op, stepwise', 'one op, all steps']
    >>> [round(float(result.w[1]), 2) == round(float(results[0].w[1]), 2) for result in results]
    [True, True, True, True]
    """
    # Tells divergence. Many steps on much data in several calls: Ctrl-C is heard between them.
    per_call = max(1, 10**8 // max(data.x.size, 1))
    train(data.x, w, data.y, rate, steps, intercept=True, steps_per_call=per_call)
    for name, way in WAYS.items():
        run = way(data.x, w, data.y, rate, steps)
        weights, losses = run()
        seconds = []
        for _ in range(runs):
            begin = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begin)
        yield Result(name, weights, losses, statistics.median(seconds))


def difference(losses: Array, stock_losses: Array) -> float:
    """The largest difference between two loss curves, relative to the second.

    >>> from linreg_ops.demo import difference
    >>> difference(np.float32([1.0, 2.0]), np.float32([1.0, 1.0]))
    1.0
    """
    scale = np.maximum(np.abs(stock_losses), np.finfo(np.float32).tiny)
    return float(np.max(np.abs(losses.astype(np.float64) - stock_losses) / scale))
