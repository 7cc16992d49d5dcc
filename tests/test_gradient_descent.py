"""The whole training as one op, against the loop that a user would write."""

import numpy as np
import pytest
import tensorflow as tf
from oracles import problem

import linreg_ops as lo


def loop(x, w, y, rates, momentum, intercept, s):
    """Every step in extended precision."""
    x, w, y = (np.asarray(a, np.longdouble) for a in (x, w, y))
    if intercept:
        x = np.concatenate([np.ones((len(x), 1), np.longdouble), x], axis=1)
    s = np.ones(len(x), np.longdouble) if s is None else np.asarray(s, np.longdouble)
    s = s if w.ndim == 1 else s[:, None]
    v, losses = np.zeros_like(w), []
    for rate in rates:
        r = x @ w - y
        losses.append((s * r * r).sum() / 2)
        v = momentum * v - rate * (x.T @ (s * r))
        w = w + v
    r = x @ w - y
    return w, np.array([*losses, (s * r * r).sum() / 2])


@pytest.mark.parametrize("mode", ["eager", "function", "session"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("k", "intercept", "weights"), [(None, True, False), (3, False, True), (20, True, True)]
)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("schedule", [False, True], ids=["rate", "schedule"])
def test_equals_the_loop(rng, mode, dtype, k, intercept, weights, momentum, schedule):
    x, w, y, s = problem(rng, 60, 4, k, dtype=dtype, intercept=intercept, weights=weights)
    steps = 12
    rate = 0.002 / (1 + np.arange(steps)) if schedule else 0.002
    rates = np.broadcast_to(rate, steps)

    def train():
        return lo.gradient_descent(
            x, w, y, rate, steps, intercept=intercept, sample_weight=s, momentum=momentum
        )

    if mode == "eager":
        new_w, losses = train()
    elif mode == "function":
        new_w, losses = tf.function(train)()
    else:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            new_w, losses = session.run(train())
    exact_w, exact_losses = loop(x, w, y, rates, momentum, intercept, s)
    # The rate is below 2 / λmax, so no step amplifies an error; each adds the rounding of a sum
    # of 60 + 5 terms.
    tolerance = 65 * steps * np.finfo(dtype).eps
    np.testing.assert_allclose(losses, exact_losses, rtol=tolerance)
    np.testing.assert_allclose(new_w, exact_w, rtol=tolerance, atol=tolerance)
    assert losses[-1] < losses[0]


def test_no_steps(rng):
    x, w, y, _ = problem(rng, 10, 3)
    new_w, losses = lo.gradient_descent(x, w, y, 0.1, 0)
    np.testing.assert_array_equal(new_w, w)
    np.testing.assert_array_equal(losses, [lo.linear_l2_loss(x, w, y)])
    new_w, losses = lo.gradient_descent(x, w, y, [], 0)
    assert losses.shape == [1]


@pytest.mark.parametrize(("n", "d", "k"), [(0, 3, 2), (5, 0, 2), (5, 3, 0), (0, 0, 0)])
def test_empty(n, d, k):
    y = np.ones((n, k), np.float32)
    w = np.ones((d, k), np.float32)
    new_w, losses = lo.gradient_descent(np.ones((n, d), np.float32), w, y, 0.0, 4)
    np.testing.assert_array_equal(new_w, w)
    np.testing.assert_array_equal(losses, np.full(5, ((d - 1.0) ** 2 if d else 1.0) * n * k / 2))


def test_too_high_a_rate_diverges_as_the_loop_does(rng):
    x, w, y, _ = problem(rng, 50, 3)
    _, losses = lo.gradient_descent(x, w, y, 100.0, 60)
    assert not np.isfinite(losses[-1])
    assert np.isfinite(losses[0])


@pytest.mark.parametrize(
    ("rate", "steps", "momentum", "error"),
    [
        (0.1, -1, 0.0, "num_steps must not be negative, got -1"),
        ([0.1, 0.2], 3, 0.0, r"learning_rate must be a scalar or have num_steps=3 entries.*\[2\]"),
        ([[0.1]], 1, 0.0, r"learning_rate must be a scalar or .*\[1,1\]"),
        (0.1, [3], 0.0, "num_steps must be a scalar|rank 0"),
        (0.1, 3, [0.1], "momentum must be a scalar|rank 0"),
    ],
)
def test_errors(rng, rate, steps, momentum, error):
    x, w, y, _ = problem(rng, 10, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=error):
        lo.gradient_descent(x, w, y, rate, steps, momentum=momentum)
    with pytest.raises(ValueError, match=error):
        tf.function(
            lambda: lo.gradient_descent(x, w, y, rate, steps, momentum=momentum)
        ).get_concrete_function()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"learning_rate": "fast", "num_steps": 3}, "learning_rate must be a real number"),
        ({"learning_rate": 0.1, "num_steps": 3.5}, "num_steps must be an integer, got float32"),
        ({"learning_rate": 0.1j, "num_steps": 3}, "learning_rate must be a real number"),
    ],
)
def test_type_errors(rng, arguments, error):
    x, w, y, _ = problem(rng, 10, 3)
    with pytest.raises(TypeError, match=error):
        lo.gradient_descent(x, w, y, **arguments)


def test_not_differentiable(rng):
    x, w, y, _ = problem(rng, 10, 3)
    w = tf.constant(w)
    with tf.GradientTape() as tape:
        tape.watch(w)
        new_w, _ = lo.gradient_descent(x, w, y, 0.1, 3)
    with pytest.raises(LookupError, match="gradient_descent is not differentiable"):
        tape.gradient(new_w, w)


def test_static_shapes(rng):
    x, w, y, _ = problem(rng, 10, 3, 2)

    @tf.function(input_signature=[tf.TensorSpec([None, None]), tf.TensorSpec([], tf.int32)])
    def train(x, steps):
        known = lo.gradient_descent(x, w, y, 0.1, 7)
        assert known.w.shape == [3, 2]
        assert known.losses.shape == [8]
        unknown = lo.gradient_descent(x, w, y, 0.1, steps)
        assert unknown.losses.shape.as_list() == [None]
        return unknown.losses

    assert train(x, 4).shape == [5]


def test_cancelled_between_steps():
    """A session closed with a step under way ends it, rather than waiting for 10¹² steps."""
    x, w, y = (np.zeros(s, np.float32) for s in ((1000, 10), (10,), (1000,)))
    with tf.Graph().as_default():
        steps = tf.compat.v1.placeholder(tf.int64, [])
        options = tf.compat.v1.RunOptions(timeout_in_ms=500)
        losses = lo.gradient_descent(x, w, y, 0.1, steps).losses
        with tf.compat.v1.Session() as session:
            assert session.run(losses, {steps: 3}).shape == (4,)
            with pytest.raises((tf.errors.DeadlineExceededError, tf.errors.CancelledError)):
                session.run(losses, {steps: 10**9}, options=options)
            # The op has ended too, and left the session usable.
            assert session.run(losses, {steps: 3}).shape == (4,)


def test_batch(rng):
    x, w, y = (rng.standard_normal(s) for s in ((4, 30, 3), (4, 3, 2), (4, 30, 2)))
    new_w, losses = lo.gradient_descent(x, w, y, 0.01, 6)
    assert losses.shape == [4, 7]
    for i in range(4):
        one_w, one_losses = lo.gradient_descent(x[i], w[i], y[i], 0.01, 6)
        np.testing.assert_array_equal(new_w[i], one_w)
        np.testing.assert_array_equal(losses[i], one_losses)
