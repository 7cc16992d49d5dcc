"""XLA: the fused pass inside compiled programs, and plain HLO where it cannot be."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from launches import needs_custom_calls
from oracles import assert_within, problem, truth

import linreg_ops as lo

pytestmark = pytest.mark.composes("XLA, and auto-clustering")

CASES = [
    pytest.param(*case, id="-".join(str(part) for part in case))
    for case in [
        ((), 1, None, False, False),
        ((), 50, None, True, True),
        ((), 50, 3, False, False),
        ((), 301, 3, True, True),
        ((), 33, 17, False, True),
        ((4,), 50, 3, True, True),
        ((2, 3), 7, 1, False, False),
        ((), 0, 2, True, False),
        ((3,), 5, 0, False, False),
    ]
]
CALL = 'custom_call_target="linreg_'


def batched_problem(rng, batch, n, d, k, dtype, intercept, weights):
    """x, w, y of a batch of problems, and the options of a call."""
    count = int(np.prod(batch))
    parts = [
        problem(rng, n, d, k, dtype=dtype, intercept=intercept, weights=weights)
        for _ in range(count)
    ]
    x, w, y = (
        tf.constant(np.stack([p[i] for p in parts]).reshape(*batch, *parts[0][i].shape))
        for i in range(3)
    )
    options = {"intercept": intercept}
    if weights:
        options["sample_weight"] = tf.constant(np.stack([p[3] for p in parts]).reshape(*batch, n))
    return x, w, y, options


def compiled(function, *args):
    """The function's results under XLA, and the program that gave them."""
    jitted = tf.function(function, jit_compile=True)
    # Called by way of its trace: TensorFlow warns of functions that are made again and again.
    results = jitted.get_concrete_function(*args)(*args)
    return results, jitted.experimental_get_compiler_ir(*args)(stage="optimized_hlo")


def assert_same_bits(ours, theirs):
    for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def assert_close(ours, theirs):
    """Plain HLO against the kernels: the same sums in another order."""
    for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        assert one.dtype == other.dtype
        tolerance = 1e-4 if one.dtype == tf.float32 else 1e-12
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=[pytest.param("custom_call", marks=needs_custom_calls), "hlo"])
def assert_same(request, monkeypatch):
    """With each lowering, what it owes to the op: the same bits, or the same within rounding."""
    monkeypatch.setenv("LINREG_OPS_XLA", request.param)
    return assert_close if request.param == "hlo" else assert_same_bits


@needs_custom_calls
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("batch", "n", "k", "intercept", "weights"), CASES)
def test_same_bits_as_the_op(rng, dtype, batch, n, k, intercept, weights):
    x, w, y, options = batched_problem(rng, batch, n, 5, k, dtype, intercept, weights)
    for function in (
        lambda x, w, y: lo.linear_l2_loss_and_grad(x, w, y, **options).grad,
        lambda x, w, y: lo.gradient_descent(
            x, w, y, learning_rate=0.01, num_steps=7, momentum=0.5, **options
        ),
        # One problem has one loss; the sum of a batch of them is TensorFlow's or XLA's.
        *([] if batch else [lambda x, w, y: lo.linear_l2_loss(x, w, y, **options)]),
    ):
        results, program = compiled(function, x, w, y)
        assert_same_bits(results, function(x, w, y))
        if x.shape.num_elements() and w.shape.num_elements():
            assert program.count(CALL) == 1
            assert " dot(" not in program


@needs_custom_calls
def test_mixed_16_bit_types(rng):
    for dtype in (tf.float16, tf.bfloat16):
        x, w, y, _ = problem(rng, 40, 3, 2)
        for w_type in (dtype, tf.float32):
            args = tf.cast(x, dtype), tf.cast(w, w_type), tf.cast(y, w_type)
            # By its trace, a function with defaults would have to be given them.
            results, program = compiled(lambda x, w, y: lo.linear_l2_loss_and_grad(x, w, y), *args)
            assert_same_bits(results, lo.linear_l2_loss_and_grad(*args))
            assert program.count(CALL) == 1


@needs_custom_calls
def test_layouts_are_row_major(rng):
    x, w, y = map(tf.constant, problem(rng, 40, 3, 2)[:3])

    def transposed(xt, wt, yt):
        return lo.linear_l2_loss_and_grad(*map(tf.transpose, (xt, wt, yt)))

    results, program = compiled(transposed, *map(tf.transpose, (x, w, y)))
    assert_same_bits(results, lo.linear_l2_loss_and_grad(x, w, y))
    assert program.count(CALL) == 1


@needs_custom_calls
def test_gradient_is_the_saved_one(rng):
    x, w, y = map(tf.constant, problem(rng, 50, 4, 3)[:3])

    def gradient(x, w, y):
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = lo.linear_l2_loss(x, w, y)
        return tape.gradient(loss, w)

    result, program = compiled(gradient, x, w, y)
    assert_same_bits(result, lo.linear_l2_loss_and_grad(x, w, y).grad)
    assert program.count(CALL) == 1
    assert " dot(" not in program


@pytest.mark.parametrize("lowering", [pytest.param("custom_call", marks=needs_custom_calls), "hlo"])
def test_second_order(rng, lowering, monkeypatch):
    monkeypatch.setenv("LINREG_OPS_XLA", lowering)
    x, w, y, options = batched_problem(rng, (), 20, 4, 2, np.float64, True, True)

    def hessian_vector_product(x, w, y, v):
        with tf.GradientTape() as outer:
            outer.watch(w)
            with tf.GradientTape() as inner:
                inner.watch(w)
                loss = tf.sin(lo.linear_l2_loss(x, w, y, **options) / 100.0)
            gradient = inner.gradient(loss, w)
        return outer.gradient(gradient, w, output_gradients=v)

    def everything(x, w, y, v):
        with tf.GradientTape() as outer:
            outer.watch([x, w, y])
            value = tf.reduce_sum(hessian_vector_product(x, w, y, v))
        return outer.gradient(value, [x, w, y])

    v = tf.constant(rng.standard_normal(w.shape))
    for function in (hessian_vector_product, everything):
        results, program = compiled(function, x, w, y, v)
        for ours, theirs in zip(
            tf.nest.flatten(results), tf.nest.flatten(function(x, w, y, v)), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)
        assert (CALL in program) == (lowering == "custom_call")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("batch", "n", "k", "intercept", "weights"), CASES)
def test_plain_hlo(rng, monkeypatch, dtype, batch, n, k, intercept, weights):
    """What devices without a custom call run, compiled for the host."""
    monkeypatch.setenv("LINREG_OPS_XLA", "hlo")
    x, w, y, options = batched_problem(rng, batch, n, 5, k, dtype, intercept, weights)

    def everything(x, w, y):
        rates = [0.01, 0.02, 0.005]
        return (
            lo.linear_l2_loss_and_grad(x, w, y, **options),
            lo.gradient_descent(x, w, y, rates, num_steps=3, momentum=0.5, **options),
            lo.gradient_descent(x, w, y, 0.01, num_steps=2, **options),
        )

    ((loss, grad), *descents), program = compiled(everything, x, w, y)
    assert CALL not in program
    exact = [
        truth(
            x[i],
            w[i],
            y[i],
            intercept=intercept,
            sample_weight=options["sample_weight"][i] if weights else None,
        )
        for i in np.ndindex(*batch)
    ]
    # XLA may add all rows one after the other, which the bounds allow the kernels for 512 at most.
    assert n <= 512
    assert_within(
        loss, sum(np.sum(e.loss) for e in exact), sum(np.sum(e.loss_bound) for e in exact)
    )
    assert_within(
        grad,
        np.reshape([e.grad for e in exact], w.shape),
        np.reshape([e.grad_bound for e in exact], w.shape),
    )
    assert_close(descents, list(everything(x, w, y)[1:]))


def test_batch_sizes_recompile_without_retracing(rng, assert_same):
    traces = []

    @tf.function(
        jit_compile=True,
        input_signature=[
            tf.TensorSpec([None, 3], tf.float64),
            tf.TensorSpec([3], tf.float64),
            tf.TensorSpec([None], tf.float64),
        ],
    )
    def loss_and_grad(x, w, y):
        traces.append(1)
        return lo.linear_l2_loss_and_grad(x, w, y)

    for n in (1, 7, 64, 7):
        x, w, y, _ = problem(rng, n, 3, dtype=np.float64)
        assert_same(loss_and_grad(x, w, y), lo.linear_l2_loss_and_grad(x, w, y))
    assert len(traces) == 1


def test_sizes_known_as_bounds_only(rng):
    """A boolean mask's buffers are as large as if all of it were true: not for the kernels."""
    x, w, y, _ = problem(rng, 40, 3, 2, dtype=np.float64)
    keep = rng.uniform(size=40) < 0.5

    @tf.function(jit_compile=True)
    def masked(x, w, y, keep):
        return lo.linear_l2_loss_and_grad(tf.boolean_mask(x, keep), w, tf.boolean_mask(y, keep))

    expected = lo.linear_l2_loss_and_grad(x[keep], w, y[keep])
    for ours, theirs in zip(masked(x, w, y, keep), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_descent_with_rates_known_at_run_time(rng, assert_same):
    x, w, y, _ = problem(rng, 40, 3, 2)

    @tf.function(jit_compile=True)
    def descend(x, w, y, rate, momentum):
        return lo.gradient_descent(x, w, y, rate, num_steps=4, momentum=momentum)

    for rate, momentum in ((0.001, 0.0), (0.002, 0.9), ([0.001, 0.0, 0.002, 0.001], 0.5)):
        rate = tf.constant(rate, tf.float64)
        assert_same(
            descend(x, w, y, rate, tf.constant(momentum, tf.float64)),
            lo.gradient_descent(x, w, y, rate, num_steps=4, momentum=momentum),
        )


@needs_custom_calls
def test_in_a_loop_on_the_device(rng):
    x, w, y, _ = problem(rng, 40, 3, 2, dtype=np.float64)

    def train(w):
        for _ in tf.range(20):
            w -= 0.01 * lo.linear_l2_loss_and_grad(x, w, y).grad
        return w

    ours, program = compiled(train, tf.constant(w))
    assert program.count(CALL) >= 1
    np.testing.assert_allclose(ours, lo.gradient_descent(x, w, y, 0.01, 20).w, rtol=1e-12)


def test_errors(rng):
    x, w, y = map(tf.constant, problem(rng, 4, 3, 2)[:3])

    def call(function, *args):
        return tf.function(function, jit_compile=True).get_concrete_function(*args)(*args)

    unknown = [tf.TensorSpec(None, tf.float32)] * 3
    late = tf.function(lo.linear_l2_loss, input_signature=unknown, jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"y of shape \[5,2\] for x of shape"):
        late(x, w, tf.zeros([5, 2]))
    steps = tf.random.uniform
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be a compile-time constant"):
        call(lambda: lo.gradient_descent(x, w, y, 0.1, steps([], maxval=5, dtype=tf.int64)))
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match="must not be negative"):
        call(lambda: lo.gradient_descent(x, w, y, 0.1, -1))
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match="num_steps=3 entries"):
        call(lambda: lo.gradient_descent(x, w, y, [0.1, 0.2], 3))


def test_number_of_steps_as_an_argument(rng, assert_same):
    """Compiled anew for each value: the number of losses is a shape."""
    x, w, y, _ = problem(rng, 40, 3, 2)
    descend = tf.function(
        lambda steps: lo.gradient_descent(x, w, y, 0.01, steps), jit_compile=True
    ).get_concrete_function(tf.TensorSpec([], tf.int64))
    for steps in (0, 3, 5):
        assert_same(
            descend(tf.constant(steps, tf.int64)), lo.gradient_descent(x, w, y, 0.01, steps)
        )


AUTO_CLUSTERING = """
import sys

import numpy as np
import tensorflow as tf
import linreg_ops as lo

rng = np.random.default_rng(0)
x, w, y = (tf.constant(rng.standard_normal(s)) for s in ((50, 3), (3, 2), (50, 2)))

@tf.function
def step(x, w, y):
    x = tf.sin(x) + tf.cos(x)
    with tf.GradientTape() as tape:
        tape.watch(w)
        loss = lo.linear_l2_loss(x, w, y)
    return loss, w - 0.01 * tape.gradient(loss, w), x

loss, new_w, features = step(x, w, y)
expected = lo.linear_l2_loss_and_grad(features, w, y)
np.testing.assert_allclose(loss, expected.loss, rtol=float(sys.argv[1]))
np.testing.assert_allclose(new_w, w - 0.01 * expected.grad, rtol=1e-14)
"""


@pytest.mark.parametrize(
    ("lowering", "tolerance"),
    [pytest.param("custom_call", 0.0, marks=needs_custom_calls), ("hlo", 3e-14)],
)
def test_auto_clustering(tmp_path, lowering, tolerance):
    """The kernels' loss, bit for bit; plain HLO adds its 100 squares in another order."""
    environment = {
        **os.environ,
        "LINREG_OPS_XLA": lowering,
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit --tf_xla_min_cluster_size=2 "
        "--tf_xla_clustering_debug",
        "TF_DUMP_GRAPH_PREFIX": str(tmp_path),
    }
    result = subprocess.run(
        [sys.executable, "-c", AUTO_CLUSTERING, str(tolerance)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    clusters = set()
    for dump in tmp_path.glob("mark_for_compilation_annotated*.pbtxt"):
        graph = text_format.Parse(dump.read_text(), tf.compat.v1.GraphDef())
        clusters |= {
            (node.op, "_XlaCluster" in node.attr)
            for nodes in (graph.node, *(f.node_def for f in graph.library.function))
            for node in nodes
            if node.op.startswith("Linreg>")
        }
    assert clusters >= {("Linreg>L2LossGrad", True), ("Linreg>SavedGradient", True)}
