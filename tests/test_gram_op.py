"""Linreg>Gram against TensorFlow's products in float64, and its derivatives."""

import numpy as np
import pytest
import tensorflow as tf
from fresh import run

import linreg_ops as lo
from linreg_ops import kernels

TYPES = [tf.float16, tf.bfloat16, tf.float32, tf.float64]
SHAPES = [(0, 3, 2), (1, 1, 1), (100, 5, 3), (3000, 20, 2), (1500, 260, 4), (7, 3, 0)]


def values(shape, dtype=tf.float32, seed=0):
    normal = np.random.default_rng(seed).standard_normal(shape)
    return tf.cast(tf.constant(normal), dtype)


def expected(x, y, s=None):
    x, y = tf.cast(x, tf.float64), tf.cast(y, tf.float64)
    s = tf.ones([x.shape[0]], tf.float64) if s is None else tf.cast(s, tf.float64)
    sx, sy = x * s[:, None], y * s[:, None]
    return lo.Gram(
        tf.matmul(sx, x, transpose_a=True),
        tf.matmul(sx, y, transpose_a=True),
        tf.reduce_sum(sy * y, 0),
        tf.reduce_sum(sx, 0),
        tf.reduce_sum(sy, 0),
        tf.reduce_sum(s),
    )


def assert_close(found, truth):
    for name, a, b in zip(lo.Gram._fields, found, truth, strict=True):
        assert a.dtype == tf.float64
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", TYPES)
def test_gram_is_the_products(dtype, shape):
    n, d, k = shape
    x, y, s = values((n, d), dtype), values((n, k), tf.float32, 1), values((n,), dtype, 2)
    for weights in (None, s):
        truth = expected(x, y, weights)
        assert_close(lo.gram(x, y, sample_weight=weights), truth)
        function = tf.function(lambda x, y, w: lo.gram(x, y, sample_weight=w))
        assert_close(function(x, y, weights), truth)
        with lo.stock_ops():
            assert_close(lo.gram(x, y, sample_weight=weights), truth)


def test_bits_are_those_of_the_kernel():
    x, y, s = (values(shape, seed=i) for i, shape in enumerate([(5000, 33), (5000, 2), (5000,)]))
    raw = kernels.gram(x.numpy(), y.numpy(), sample_weight=s.numpy())
    for a, b in zip(lo.gram(x, y, sample_weight=s), raw[:6], strict=True):
        assert np.array_equal(a, b)


def test_without_targets_and_with_a_vector_of_them():
    x, y = values((50, 4)), values((50,), seed=1)
    assert lo.gram(x).xy.shape == (4, 0)
    assert_close(lo.gram(x, y), expected(x, y[:, None]))


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_derivatives_are_those_of_the_products(dtype):
    shapes = [(40, 5), (40, 3), (40,)]
    x, y, s = (values(shape, dtype, seed) for seed, shape in enumerate(shapes))
    factors = [values(g.shape, tf.float64, 9) for g in expected(x, y, s)]

    def gradients(gram):
        with tf.GradientTape() as outer:
            outer.watch([x, y, s])
            with tf.GradientTape() as tape:
                tape.watch([x, y, s])
                total = tf.add_n(
                    [tf.reduce_sum(a * g * g) for a, g in zip(factors, gram(), strict=True)]
                )
            first = tape.gradient(total, [x, y, s])
            again = tf.add_n([tf.reduce_sum(tf.cast(g, tf.float64) ** 2) for g in first])
        return first + outer.gradient(again, [x, y, s])

    ours = gradients(lambda: lo.gram(x, y, sample_weight=s))
    theirs = gradients(lambda: expected(x, y, s))
    tolerance = 1e-4 if dtype == tf.float32 else 1e-10
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.max(np.abs(b)))


def test_the_derivative_without_targets():
    x = values((40, 5))
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(lo.gram(x).xx)
    sums = tf.reduce_sum(x, 1, keepdims=True)
    np.testing.assert_allclose(tape.gradient(total, x), 2 * np.repeat(sums, 5, 1), rtol=1e-5)


def test_shapes_are_known_while_tracing():
    @tf.function(input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec([None, 2])])
    def function(x, y):
        gram = lo.gram(x, y)
        shapes.extend(g.shape.as_list() for g in gram)
        return gram

    shapes = []
    x, y = values((30, 4)), values((30, 2), seed=1)
    assert_close(function(x, y), expected(x, y))
    assert shapes == [[4, 4], [4, 2], [2], [4], [2], []]


def test_unknown_ranks_are_checked_when_running():
    function = tf.function(lo.gram, input_signature=[tf.TensorSpec(None)] * 2)
    x, y = values((30, 4)), values((30, 2), seed=1)
    assert_close(function(x, y), expected(x, y))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"x must be \[n, d\]"):
        function(x[0], y)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"y must be \[n, k\]"):
        function(x, y[1:])


@pytest.mark.parametrize(
    ("error", "message", "x", "y", "weights"),
    [
        (TypeError, "x must be float32", tf.ones([4, 2], tf.int32), None, None),
        (TypeError, "y must be float32", tf.ones([4, 2]), tf.ones([4, 1], tf.int32), None),
        (TypeError, "sample_weight must be", tf.ones([4, 2]), None, tf.ones([4], tf.int64)),
        (None, r"^x must be \[n, d\], got shape", tf.ones([4]), None, None),
        (None, r"^x must be \[n, d\], got shape", tf.ones([2, 4, 2]), tf.ones([4, 1]), None),
        (None, r"^y must be \[n, k\] with n the rows", tf.ones([4, 2]), tf.ones([3, 1]), None),
        (None, r"^sample_weight must be \[n\]", tf.ones([4, 2]), None, tf.ones([3])),
        (None, r"^d \+ k must be at least 1", tf.ones([4, 0]), None, None),
    ],
)
def test_gram_refuses(error, message, x, y, weights):
    errors = error or (ValueError, tf.errors.InvalidArgumentError)
    with pytest.raises(errors, match=message):
        lo.gram(x, y, sample_weight=weights)


def test_signals_end_the_op():
    # Level 3: TensorFlow logs that a step is cancelled.
    program = """
    import signal
    import tensorflow as tf
    import linreg_ops as lo

    class Alarm(Exception):
        pass

    def alarm(*_):
        raise Alarm

    x = tf.ones([150_000, 1000])
    lo.gram(x[:3000])
    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        lo.gram(x)
    except Alarm:
        pass
    else:
        raise AssertionError("the op ended by itself")
    assert lo.gram(x[:10]).weight == 10
    """
    run(program, TF_CPP_MIN_LOG_LEVEL="3")
