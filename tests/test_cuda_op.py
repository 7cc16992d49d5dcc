"""The ops on a GPU: placed there, equal to truth and to the CPU's within rounding."""

import numpy as np
import pytest
from oracles import assert_within, problem, truth

import linreg_ops as lo
from linreg_ops import kernels

pytestmark = pytest.mark.skipif(
    not kernels.cuda.available(), reason="no NVIDIA GPU with a driver that is new enough"
)


@pytest.fixture(scope="module")
def tf():
    tensorflow = pytest.importorskip("tensorflow")
    if not tensorflow.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow has no GPU")
    return tensorflow


DTYPES = ["float32", "float64", "float16", "bfloat16"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [None, 3, 40])
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "function"])
def test_loss_and_grad(rng, tf, dtype, k, graph):
    x, w, y, s = problem(
        rng, 300, 17, k, dtype=tf.as_dtype(dtype).as_numpy_dtype, intercept=True, weights=True
    )
    call = lo.linear_l2_loss_and_grad
    if graph:
        call = tf.function(call)
    with tf.device("GPU:0"):
        loss, grad = call(x, w, y, intercept=True, sample_weight=s)
    assert "GPU" in grad.device
    exact = truth(x, w, y, intercept=True, sample_weight=s)
    # BLAS may use TF32 for many targets, as tf.matmul does; 16-bit residuals are rounded there.
    u = {"float64": 0.0, "float32": 2.0**-10}.get(dtype, 2.0**-7) if k == 40 else 0.0
    slack = u * np.max(np.abs(exact.grad)) * 20
    assert_within(grad.numpy(), exact.grad, exact.grad_bound + slack)
    total = np.sum(exact.loss)
    if dtype != "float16" or total < 6e4:
        assert_within(loss.numpy(), total, np.sum(exact.loss_bound) + u * total)


def test_same_bits_with_determinism_on(rng, tf):
    x, w, y, _ = problem(rng, 10_000, 33)
    with tf.device("GPU:0"):
        first = lo.linear_l2_loss_and_grad(x, w, y)
        second = lo.linear_l2_loss_and_grad(x, w, y)
    assert first.grad.numpy().tobytes() == second.grad.numpy().tobytes()


@pytest.mark.parametrize("k", [None, 2, 20])
def test_gradient_descent(rng, tf, k):
    x, w, y, _ = problem(rng, 200, 5, k, dtype=np.float64)
    rates = np.linspace(1e-3, 1e-4, 7)
    with tf.device("CPU:0"):
        want = lo.gradient_descent(x, w, y, rates, 7, momentum=0.5)
    with tf.device("GPU:0"):
        got = lo.gradient_descent(x, w, y, rates, 7, momentum=0.5)
    np.testing.assert_allclose(got.w, want.w, 1e-12, 1e-12)
    np.testing.assert_allclose(got.losses, want.losses, 1e-12)


def test_derivatives(rng, tf):
    x, w, y, _ = problem(rng, 50, 4, 2, dtype=np.float64)
    results = []
    for device in ("CPU:0", "GPU:0"):
        with tf.device(device), tf.GradientTape() as outer:
            variable = tf.Variable(w)
            outer.watch(variable)
            with tf.GradientTape() as inner:
                loss = lo.linear_l2_loss(tf.constant(x), variable, tf.constant(y))
            grad = inner.gradient(loss, variable)
        results.append((grad.numpy(), outer.jacobian(grad, variable).numpy()))
    for cpu, gpu in zip(*results, strict=True):
        np.testing.assert_allclose(gpu, cpu, 1e-10, 1e-10)


def test_batch(rng, tf):
    x, w, y = (rng.standard_normal(s) for s in ((3, 40, 5), (3, 5, 2), (3, 40, 2)))
    with tf.device("GPU:0"):
        loss, grad = lo.linear_l2_loss_and_grad(x, w, y)
    exact = [truth(x[i], w[i], y[i]) for i in range(3)]
    for i in range(3):
        assert_within(grad.numpy()[i], exact[i].grad, exact[i].grad_bound)
    total = sum(np.sum(e.loss) for e in exact)
    assert_within(loss.numpy(), total, sum(np.sum(e.loss_bound) for e in exact))


def test_errors_are_those_of_the_cpu(tf):
    with (
        tf.device("GPU:0"),
        pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="w must be"),
    ):
        lo.linear_l2_loss_and_grad(np.zeros((4, 3)), np.zeros(2), np.zeros(4))
