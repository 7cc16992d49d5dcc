"""least_squares and ridge on TensorFlow: the estimators' solutions, and derivatives of them."""

import numpy as np
import pytest
import tensorflow as tf
from threadpoolctl import threadpool_limits

import linreg_ops as lo
from linreg_ops import reference


@pytest.fixture(autouse=True)
def _one_blas_thread():
    """Beside other programs, hundreds of small factorisations wait for threads."""
    with threadpool_limits(1, user_api="blas"):
        yield


def arrays(rng, *, k=2, weighted=True, n=6, d=3, dtype=np.float64):
    x = rng.normal(size=(n, d)) + np.array([0, 3, -1])
    y = rng.normal(size=n if k is None else (n, k))
    s = rng.uniform(0.2, 2, size=n) if weighted else None
    return x.astype(dtype), y.astype(dtype), None if s is None else s.astype(dtype)


@pytest.mark.parametrize("k", [None, 1, 3])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("graph", [True, False])
def test_least_squares_are_the_reference(k, intercept, weighted, graph, rng):
    x, y, s = arrays(rng, k=k, weighted=weighted)
    solve = tf.function(lo.least_squares) if graph else lo.least_squares
    w = solve(x, y, intercept=intercept, sample_weight=s)
    expected = reference.least_squares(x, y, intercept=intercept, sample_weight=s)
    assert w.shape == expected.shape
    np.testing.assert_allclose(w, expected, rtol=1e-11)


@pytest.mark.parametrize("alpha", [0.5, [0.0, 2.0, 2.0]])
@pytest.mark.parametrize("penalty", [None, [0.0, 1.0, 5.0]])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("graph", [True, False])
def test_ridge_is_the_reference(alpha, penalty, intercept, graph, rng):
    x, y, s = arrays(rng, k=3)
    solve = tf.function(lo.ridge) if graph else lo.ridge
    options = {"penalty": penalty, "intercept": intercept, "sample_weight": s}
    w = solve(x, y, alpha, **options)
    np.testing.assert_allclose(w, reference.ridge(x, y, alpha, **options), rtol=1e-11)


def check_gradients(function, inputs, tolerance=1e-6):
    """Against central differences, of a sum in which every entry counts differently."""

    def scalar(*values):
        w = function(*values)
        return tf.reduce_sum(w * tf.cast(tf.reshape(tf.range(1, tf.size(w) + 1), w.shape), w.dtype))

    values = [tf.constant(v) for v in inputs]
    by_hand, numeric = tf.test.compute_gradient(scalar, values, delta=1e-5)
    for mine, other in zip(by_hand, numeric, strict=True):
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)
        assert np.any(np.abs(mine) > 1e-3)


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_gradients_of_least_squares(k, intercept, weighted, rng):
    x, y, s = arrays(rng, k=k, weighted=weighted)
    if not weighted:
        check_gradients(lambda x, y: lo.least_squares(x, y, intercept=intercept), [x, y])
        return
    check_gradients(
        lambda x, y, s: lo.least_squares(x, y, intercept=intercept, sample_weight=s), [x, y, s]
    )


@pytest.mark.parametrize("alpha", [0.7, np.array([0.3, 0.3]), np.array([0.3, 5.0])])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("graph", [True, False])
def test_gradients_of_ridge(alpha, intercept, graph, rng):
    x, y, s = arrays(rng)

    def solve(x, y, alpha, penalty, s):
        return lo.ridge(x, y, alpha, penalty=penalty, intercept=intercept, sample_weight=s)

    inputs = [x, y, np.array(alpha), np.array([0.5, 1.0, 3.0]), s]
    check_gradients(tf.function(solve) if graph else solve, inputs)


@pytest.mark.parametrize("alpha", [0.7, np.array([0.3])])
def test_second_derivatives(alpha, rng):
    x, y, s = arrays(rng, n=5, k=1)

    def gradients(*values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            x, y, alpha, penalty, s = values
            w = lo.ridge(x, y, alpha, penalty=penalty, intercept=True, sample_weight=s)
            loss = tf.reduce_sum(tf.sin(w))
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(loss, values)], 0)

    inputs = [x, y, np.array(alpha), np.array([0.5, 1.0, 3.0]), s]
    check_gradients(tf.function(gradients), inputs, 1e-5)


def test_the_derivative_in_the_penalty_is_of_the_validation_error(rng):
    """What it is for: alpha by descent on rows that w was not fitted to."""
    x, noise, _ = arrays(rng, n=12, k=None)
    xv, noise_v, _ = arrays(rng, n=500, k=None)
    y, yv = x @ [1.0, 0.5, -0.5] + noise, xv @ [0.5, 0.5, -0.5] + noise_v  # it has to shrink

    def error_and_slope(log_alpha):
        log_alpha = tf.constant(log_alpha, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(log_alpha)
            error = lo.linear_l2_loss(xv, lo.ridge(x, y, tf.exp(log_alpha)), yv)
        return float(error), float(tape.gradient(error, log_alpha))

    grid = np.linspace(-4, 12, 33)
    errors, slopes = np.array([error_and_slope(v) for v in grid]).T
    best = errors.argmin()
    assert 0 < best < 32
    assert slopes[best - 1] < 0 < slopes[best + 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_narrow_types_are_solved_in_float64(dtype, rng):
    """Condition 10⁴: in float32 the unfused form has no digit left."""
    x = rng.normal(size=(300, 3))
    x[:, 2] = x[:, 0] + (1e-4 if dtype == np.float32 else 1e-2) * x[:, 2]
    x = x.astype(dtype)
    y = (x.astype(np.float64) @ [1.0, 2.0, 3.0]).astype(np.float32)
    w = lo.least_squares(x, y)
    assert w.dtype == tf.float32
    np.testing.assert_allclose(w, reference.least_squares(x, y), rtol=1e-6)
    with tf.GradientTape() as tape:
        variable = tf.Variable(y)
        loss = tf.reduce_sum(lo.least_squares(x, variable))
    expected = np.linalg.pinv(x.astype(np.float64)).sum(axis=0)
    found = tape.gradient(loss, variable)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("graph", [True, False])
def test_what_has_no_solution_of_its_own_is_refused(graph, rng):
    x, y, s = arrays(rng)
    solve = tf.function(lo.ridge) if graph else lo.ridge
    twice = np.hstack([x, x[:, :1]])
    refused = tf.errors.InvalidArgumentError
    with pytest.raises(refused, match="4 columns of rank 3: w is not unique"):
        solve(twice, y, 0.0)
    assert solve(twice, y, 1e-3).shape == (4, 2)
    with pytest.raises(refused, match="y must not hold NaN"):
        solve(x, y * np.nan, 1.0)
    with pytest.raises(refused, match="alpha must not be negative"):
        solve(x, y, -1.0)
    with pytest.raises(refused, match="penalty must not be negative"):
        solve(x, y, 1.0, penalty=[1.0, -1.0, 0.0])
    with pytest.raises(refused, match="product beyond"):
        solve(x, y, 1e200, penalty=[1e200, 1.0, 0.0])
    with pytest.raises(ValueError, match=r"one entry per column of x, shape \(3,\), got \(2,\)"):
        solve(x, y, 1.0, penalty=[1.0, 2.0])
    with pytest.raises(refused, match="must not be negative"):
        solve(x, y, 1.0, sample_weight=-s)
    known = ValueError if graph else refused  # while tracing
    with pytest.raises(known, match=r"with n the rows of x|must have 6 rows as x, got 5"):
        solve(x, y[:-1], 1.0)
    with pytest.raises(ValueError, match=r"alpha must be a scalar or have shape \[2\], got \[3\]"):
        solve(x, y, [1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="x must be float32"):
        lo.least_squares(tf.constant([[1, 2]]), y)
    with pytest.raises(ValueError, match=r"x must have shape \[n, d\]"):
        lo.least_squares(x[0], y)
