"""Inside `stock_ops()` the same arguments are refused as by the fused ops."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

import linreg_ops as lo
from linreg_ops.training import DivergenceError, train

REFUSED = (ValueError, tf.errors.InvalidArgumentError)
X, W, Y = np.ones((3, 2)), np.zeros(2), np.ones(3)
BATCHED = (np.ones((2, 3, 2)), np.zeros((2, 2, 1)), np.ones((2, 3, 1)))


def both():
    return pytest.mark.parametrize("stock", [False, True], ids=["fused", "stock"])


def active(stock):
    return lo.stock_ops() if stock else contextlib.nullcontext()


@both()
@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    ("rate", "steps", "momentum"),
    [
        ([0.1], 3, 0.0),
        ([0.1] * 4, 3, 0.0),
        (0.1, -1, 0.0),
        (0.1, 2, [0.5, 0.5]),
        ([[0.1]], 1, 0.0),
        (0.1, [2], 0.0),
    ],
)
def test_descent_arguments(stock, traced, rate, steps, momentum):
    def call():
        return lo.gradient_descent(X, W, Y, rate, steps, momentum=momentum)

    with active(stock), pytest.raises(REFUSED):
        (tf.function(call) if traced else call)()


def test_as_many_steps_as_were_asked_for():
    """2^32 + 2 went through int32 and became 2."""
    with lo.stock_ops(), pytest.raises(REFUSED, match="num_steps"):
        lo.gradient_descent(X, W, Y, 0.1, 2**32 + 2)


@both()
@pytest.mark.parametrize("one", [0, 1, 2])
@pytest.mark.parametrize("known", [True, False])
def test_a_batch_of_one_is_not_stretched(stock, one, known):
    arguments = [value[:1] if i == one else value for i, value in enumerate(BATCHED)]
    spec = [tf.TensorSpec(v.shape if known else [None] * 3, tf.float64) for v in arguments]
    loss = tf.function(lambda *a: lo.linear_l2_loss(*a), input_signature=spec)
    with active(stock), pytest.raises(REFUSED):
        loss(*arguments)
    with active(stock), pytest.raises(REFUSED):
        lo.linear_l2_loss_and_grad(*arguments)


@both()
def test_a_schedule_of_the_right_length(stock):
    with active(stock):
        w, losses = lo.gradient_descent(X, W, Y, [0.1, 0.2, 0.3], 3, momentum=0.5)
    expected = lo.reference.gradient_descent(X, W, Y, [0.1, 0.2, 0.3], 3, momentum=0.5)
    np.testing.assert_allclose(w, expected.w)
    np.testing.assert_allclose(losses, expected.losses)


def test_a_schedule_that_diverges():
    with pytest.raises(DivergenceError) as caught:
        train(X, W, Y, [1e30] * 5, 5)
    assert np.isfinite(caught.value.w).all()
    with pytest.raises(DivergenceError):
        train(X, W, Y, [1e30] * 5, 5, steps_per_call=2)


@pytest.mark.parametrize("steps_per_call", [None, 2])
def test_a_schedule_of_another_length(steps_per_call):
    with pytest.raises(ValueError, match=r"shape \[num_steps\] = \[5\], got shape \[7\]"):
        train(X, W, Y, [0.1] * 7, 5, steps_per_call=steps_per_call)
