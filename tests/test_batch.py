"""Batches of problems, as tf.matmul takes them: every problem's result. Small integers: exact."""

import numpy as np
import pytest
import tensorflow as tf
from oracles import integers

import linreg_ops as lo

pytestmark = pytest.mark.composes("Batches of problems")


def run_eager(function, *args):
    return function(*args)


def run_function(function, *args):
    return tf.function(function).get_concrete_function(*args)(*args)


def run_unknown_shapes(function, *args):
    unknown = [tf.TensorSpec(None, a.dtype) for a in args]
    return tf.function(function).get_concrete_function(*unknown)(*args)


def run_xla(function, *args):
    return tf.function(function, jit_compile=True).get_concrete_function(*args)(*args)


MODES = [run_eager, run_function, run_unknown_shapes, run_xla]


def swapped(a):
    return np.swapaxes(a, -1, -2)


@pytest.mark.parametrize("batch", [(4,), (2, 3), (0,)])
@pytest.mark.parametrize("mode", MODES)
def test_a_batch_is_its_problems(mode, batch):
    x, w, y = (integers(*batch, *shape, seed=i) for i, shape in enumerate([(7, 3), (4, 2), (7, 2)]))
    s = np.abs(integers(*batch, 7, seed=5))

    def everything(x, w, y, s):
        options = {"intercept": True, "sample_weight": s}
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = lo.linear_l2_loss(x, w, y, **options)
        descent = lo.gradient_descent(x, w, y, 0.0625, 1, **options)
        return loss, tape.gradient(loss, w), *descent

    xs = np.concatenate([np.ones((*batch, 7, 1)), x], axis=-1)

    def losses(w):
        return 0.5 * np.sum(s[..., None] * (xs @ w - y) ** 2, axis=(-2, -1))

    grad = swapped(xs) @ (s[..., None] * (xs @ w - y))
    new_w = w - 0.0625 * grad
    expected = losses(w).sum(), grad, new_w, np.stack([losses(w), losses(new_w)], -1)
    results = mode(everything, *map(tf.constant, (x, w, y, s)))
    for ours, truth in zip(results, expected, strict=True):
        np.testing.assert_array_equal(ours, truth)


@pytest.mark.parametrize(
    ("b", "n", "d", "k"), [(0, 5, 3, 2), (4, 0, 3, 2), (4, 5, 0, 2), (4, 5, 3, 0), (0, 0, 0, 0)]
)
@pytest.mark.parametrize("mode", MODES)
def test_empty_batches_problems_and_sides_are_stocks(mode, b, n, d, k):
    def stock(x, w, y):
        return tf.nn.l2_loss(tf.matmul(x, w) - y)

    def everything(function):
        def compute(x, w, y):
            with tf.GradientTape() as outer:
                outer.watch([x, w, y])
                with tf.GradientTape() as inner:
                    inner.watch([x, w, y])
                    loss = function(x, w, y)
                first = inner.gradient(loss, [x, w, y])
                value = tf.add_n([tf.reduce_sum(g * g) for g in first])
            return loss, *first, *outer.gradient(value, [x, w, y])

        return compute

    inputs = [
        tf.constant(integers(*shape, seed=i))
        for i, shape in enumerate([(b, n, d), (b, d, k), (b, n, k)])
    ]
    theirs = everything(stock)(*inputs)
    ours = mode(everything(lo.linear_l2_loss), *inputs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    # Each problem of the batch takes its steps: none where there is nothing to fit.
    start = inputs[1]
    w, losses = mode(lambda *inputs: lo.gradient_descent(*inputs, 0.5, 3), *inputs)
    np.testing.assert_array_equal(w, start)
    each = [[float(stock(inputs[0][i], start[i], inputs[2][i]))] * 4 for i in range(b)]
    np.testing.assert_array_equal(losses, np.reshape(each, (b, 4)))


def test_batches_that_do_not_fit():
    x, w, y = integers(4, 7, 3), integers(5, 3, 2), integers(4, 7, 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"leading dimensions"):
        lo.linear_l2_loss(x, w, y)
    with pytest.raises(ValueError, match=r"leading dimensions"):
        tf.function(lo.linear_l2_loss).get_concrete_function(*map(tf.constant, (x, w, y)))
