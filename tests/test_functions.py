"""The ops inside tf.function, control flow and tf.data. The data are small integers: exact."""

import numpy as np
import pytest
import tensorflow as tf
from fresh import run
from launches import needs_custom_calls
from oracles import integers

import linreg_ops as lo

pytestmark = pytest.mark.composes("`tf.function`, control flow, `tf.data`")

X, W, Y = integers(7, 3), integers(3, 2, seed=2), integers(7, 2, seed=3)
RATE, STEPS = 2.0**-4, 3


def loss_of(w, x=X, y=Y):
    return 0.5 * np.sum((x @ w - y) ** 2)


def grad_of(w, x=X, y=Y):
    return x.T @ (x @ w - y)


LOSS, GRAD = loss_of(W), grad_of(W)


def assert_loss_and_grad(result, loss=LOSS, grad=GRAD):
    np.testing.assert_array_equal(result[0], loss)
    np.testing.assert_array_equal(result[1], grad)


def descended(steps):
    """W after so many steps of gradient descent."""
    w = W
    for _ in range(steps):
        w = w - RATE * grad_of(w)
    return w


def with_gradient(function):
    def both(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = function(w)
        return loss, tape.gradient(loss, w)

    return both


def test_dtypes_and_ranks_alone_retrace():
    traces = []

    @tf.function(reduce_retracing=True)
    def function(x, w, y):
        traces.append(w.dtype)
        return lo.linear_l2_loss_and_grad(x, w, y)

    x, y = integers(16, 3), integers(16, 2, seed=3)

    def call_with_every_number_of_rows():
        for dtype in (tf.float32, tf.float64):
            for of in (np.s_[:, :], np.s_[:, 0]):
                for n in range(16, 4, -1):
                    w, part = W[of], (x[:n], y[:n][of])
                    result = function(*(tf.constant(a, dtype) for a in (part[0], w, part[1])))
                    assert_loss_and_grad(result, loss_of(w, *part), grad_of(w, *part))

    call_with_every_number_of_rows()
    # At most one trace for 16 rows and one for any number of them, of each dtype and rank.
    assert set(traces) == {tf.float32, tf.float64}
    assert len(traces) <= 8
    traces.clear()
    call_with_every_number_of_rows()
    assert not traces


def test_unknown_ranks():
    unknown = [tf.TensorSpec(None, tf.float64)] * 3
    function = tf.function(lo.linear_l2_loss_and_grad, input_signature=unknown)
    assert_loss_and_grad(function(X, W, Y))
    w, y = W[:, 0], Y[:, 0]
    assert_loss_and_grad(function(X, w, y), loss_of(w, X, y), grad_of(w, X, y))


def test_loops():
    @tf.function
    def loops(w, steps):
        def step(i, v):
            return i + 1, v - RATE * lo.linear_l2_loss_and_grad(X, v, Y).grad

        _, looped = tf.while_loop(lambda i, _: i < steps, step, (0, w))
        by_hand = w
        for _ in tf.range(steps):
            by_hand -= RATE * lo.linear_l2_loss_and_grad(X, by_hand, Y).grad
        return looped, by_hand

    for w in loops(W, tf.constant(STEPS)):
        np.testing.assert_array_equal(w, descended(STEPS))
    np.testing.assert_array_equal(lo.gradient_descent(X, W, Y, RATE, STEPS).w, descended(STEPS))


def test_gradient_through_a_loop():
    def gradient(grad):
        @tf.function
        def compute(w):
            with tf.GradientTape() as tape:
                tape.watch(w)
                v = w
                for _ in tf.range(STEPS):
                    v -= RATE * grad(v)
                value = tf.reduce_sum(v * v)
            return tape.gradient(value, w)

        return compute(tf.constant(W))

    np.testing.assert_array_equal(
        gradient(lambda v: lo.linear_l2_loss_and_grad(X, v, Y).grad),
        gradient(lambda v: tf.matmul(X, tf.matmul(X, v) - Y, transpose_a=True)),
    )


def test_branches():
    @tf.function
    def branch(flag, w):
        return tf.cond(
            flag,
            lambda: lo.linear_l2_loss_and_grad(X, w, Y),
            lambda: lo.LossAndGrad(tf.constant(0.0, tf.float64), tf.zeros_like(w)),
        )

    def gradient(flag):
        both, w = with_gradient(lambda w: branch(flag, w).loss), tf.constant(W)
        return tf.function(both).get_concrete_function(w)(w)

    for flag, expected in ((True, (loss_of(W), grad_of(W))), (False, (0.0, np.zeros_like(W)))):
        assert_loss_and_grad(branch(tf.constant(flag), W), *expected)
        assert_loss_and_grad(gradient(tf.constant(flag)), *expected)


def test_map_and_scan():
    @tf.function
    def loops(ws):
        mapped = tf.map_fn(lambda w: lo.linear_l2_loss(X, w, Y), ws)
        scanned = tf.scan(
            lambda w, _: w - RATE * lo.linear_l2_loss_and_grad(X, w, Y).grad,
            tf.range(STEPS),
            initializer=ws[0],
        )
        return mapped, scanned

    mapped, scanned = loops(np.stack([W, 2 * W]))
    np.testing.assert_array_equal(mapped, [loss_of(W), loss_of(2 * W)])
    np.testing.assert_array_equal(scanned, [descended(t + 1) for t in range(STEPS)])


def test_custom_gradient_recompute_grad_and_py_function():
    @tf.custom_gradient
    def clipped(w):
        loss, grad = lo.linear_l2_loss_and_grad(X, w, Y)
        return loss, lambda upstream: upstream * tf.clip_by_value(grad, -1.0, 1.0)

    recomputed = tf.recompute_grad(lambda w: lo.linear_l2_loss(X, w, Y))

    def in_python(w):
        return tf.py_function(lambda v: lo.linear_l2_loss(X, v, Y), [w], tf.float64)

    for function, gradient in (
        (clipped, np.clip(grad_of(W), -1.0, 1.0)),
        (recomputed, grad_of(W)),
        (in_python, grad_of(W)),
    ):
        both, w = with_gradient(function), tf.constant(W)
        for call in (both, tf.function(both, autograph=False).get_concrete_function(w)):
            assert_loss_and_grad(call(w), loss_of(W), gradient)


def test_datasets_in_parallel():
    rows = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).repeat(8)
    parts = rows.map(lambda x, y: lo.linear_l2_loss_and_grad(x, W, y), num_parallel_calls=4)
    parts = list(parts.as_numpy_iterator())
    assert len(parts) == 32
    for i, (loss, grad) in enumerate(parts):
        x, y = (a[2 * (i % 4) : 2 * (i % 4) + 2] for a in (X, Y))
        assert_loss_and_grad((loss, grad), loss_of(W, x, y), grad_of(W, x, y))


# 32 MiB of X: worth waking every thread for. Nothing is computed before the pass: where XLA runs a
# kernel on several threads, what follows runs on the one that ended it, which knows no budget.
THREAD_BUDGET = """
import sys
import time
import tensorflow as tf
import linreg_ops as lo
from launches import closures_scheduled

def most_closures(function, *args):
    # Threads that have stayed since another pass need no closure.
    counts = []
    for _ in range(5):
        time.sleep(0.01)
        counts += closures_scheduled(function, *args)
    assert len(counts) == 5, counts
    return max(counts)

tf.config.threading.set_intra_op_parallelism_threads(4)
x, w, y = tf.ones([2**18, 32]), tf.ones([32]), tf.ones([2**18])
loss = tf.function(lambda w: lo.linear_l2_loss(x, w, y), jit_compile=sys.argv[1] == "xla")
loss(w)
assert most_closures(loss, w) == 3
for budget, closures in ((1, 0), (2, 1), (3, 2), (4, 3), (8, 3), (None, 0)):
    options = tf.data.Options()
    if budget is not None:  # if nothing is said, tf.data gives its calls one thread each
        options.threading.max_intra_op_parallelism = budget
    pipeline = tf.data.Dataset.from_tensors(w).map(loss, num_parallel_calls=2)
    most = most_closures(lambda: list(pipeline.with_options(options)))
    assert most == closures, (budget, most)
"""


def run_thread_budget(repository, how):
    run(THREAD_BUDGET, how, PYTHONPATH=str(repository / "tests"))


def test_a_dataset_bounds_the_threads_of_its_calls(repository):
    """Beside the caller, a pass that finds no thread awake has as many as it hands closures to."""
    run_thread_budget(repository, "op")


@needs_custom_calls
def test_a_dataset_bounds_the_threads_of_its_compiled_calls(repository):
    run_thread_budget(repository, "xla")
