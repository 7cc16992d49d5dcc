"""Sizes of 0 and of 2**60, and step counts: an answer that costs nothing, or an error.

Each case runs in a process of its own, with limits on time and memory: what is tested for is a
process that dies, hangs or takes all memory.
"""

import pytest
from fresh import run
from fuzz import MODES, fuzz

PRELUDE = """
    import resource
    import numpy as np
    np.seterr(all="ignore")
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

    def refused(call, *errors, match=""):
        try:
            result = call()
        except errors as error:
            assert match in str(error), error
        else:
            raise AssertionError(f"answered {result}")
"""
TENSORFLOW = (
    PRELUDE
    + """
    import tensorflow as tf
    import linreg_ops as lo
    from linreg_ops.ops import _ops
    tf.get_logger().setLevel("ERROR")  # it counts tracings
    from tensorflow.errors import InvalidArgumentError, ResourceExhaustedError

    def modes(function, *arrays):
        "The ways to call a function of tensors."
        tensors = [tf.constant(a) for a in arrays]
        yield lambda: function(*tensors)
        yield lambda: tf.function(lambda: function(*tensors))()
        unknown = [tf.TensorSpec(None, t.dtype) for t in tensors]
        yield lambda: tf.function(function, input_signature=unknown)(*tensors)
        yield lambda: tf.function(function, jit_compile=True)(*tensors)

    FUNCTIONS = {
        "loss": lo.linear_l2_loss,
        "loss_and_grad": lo.linear_l2_loss_and_grad,
        "descent": lambda x, w, y: lo.gradient_descent(x, w, y, 0.1, 2),
    }
"""
)


def kernels(program, **options):
    return run(PRELUDE + "    from linreg_ops import kernels\n" + program, **options)


def tensorflow(program, **options):
    # Level 3: it logs the errors that are asked for here. Without oneDNN, the default on CPUs with
    # AVX-512's VNNI: its allocator waits ten seconds for memory that there is not.
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    return run(TENSORFLOW + program, **environment, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_targets_that_overflow_in_the_kernels(dtype):
    kernels(f"""
    x, made = np.zeros((0, 0), np.{dtype}), 0
    for k in (2**57 + 8, 2**58, 2**60, 2**62):
        try:
            w, y = np.zeros((0, k), np.{dtype}), np.zeros((0, k), np.{dtype})
        except ValueError:
            continue  # NumPy has no such array
        made += 1
        for target in (y, None):
            for call in (
                lambda: kernels.loss_and_grad(x, w, target),
                lambda: kernels.gradient_descent(x, w, target, 0.1, 3),
            ):
                refused(call, ValueError, match="sizes overflow")
    assert made
    """)


def test_sizes_that_overflow_in_tensorflow():
    tensorflow("""
    errors = InvalidArgumentError, ResourceExhaustedError, ValueError
    for shapes in (
        ([0, 0], [0, 2**60], [0, 2**60]),
        ([2**40, 0], [0, 2**40], [0, 0]),
        ([2**40, 0], [0, 2**40], [2**40, 0]),
        ([2**31, 0], [0, 2**31], [0, 2**31]),
    ):
        for dtype in (tf.float32, tf.float64):
            arrays = [tf.zeros(shape, dtype) for shape in shapes]
            for function in FUNCTIONS.values():
                for call in modes(function, *arrays):
                    refused(call, *errors)
    x, v = tf.zeros([2**40, 0]), tf.zeros([0, 2**40])
    for call in modes(lambda x, v: _ops.linreg_hessian_vector_product(x, v, []), x, v):
        refused(call, *errors)
    """)


@pytest.mark.parametrize("xla", ["", "hlo"])
def test_step_counts_have_one_limit_and_memory_another(xla):
    tensorflow(
        """
    from linreg_ops import kernels
    x, w, y = (np.zeros(s, np.float32) for s in ((4, 3), (3,), (4,)))
    for steps in (2**40 + 1, 2**56, 2**61, 2**62, 2**63 - 1, 2**33, 2**40):
        too_many = steps > 2**40
        message = "num_steps must be at most 2^40" if too_many else ""
        kernel = lambda: kernels.gradient_descent(x, w, y, 0.1, steps)
        refused(kernel, ValueError if too_many else MemoryError, match=message)
        errors = (InvalidArgumentError, ValueError) if too_many else (ResourceExhaustedError,)
        for call in modes(lambda x, w, y: lo.gradient_descent(x, w, y, 0.1, steps), x, w, y):
            refused(call, *errors, match=message)
    """,
        LINREG_OPS_XLA=xla,
    )


def test_num_steps_whose_rank_is_known_once_constants_are_folded():
    tensorflow("""
    x, w, y = (np.zeros(s, np.float32) for s in ((4, 3), (3,), (4,)))
    for value in ([3, 4], [3], [], [[5]]):
        text = tf.io.serialize_tensor(tf.constant(value, tf.int64)).numpy()

        @tf.function
        def descend():
            return lo.gradient_descent(x, w, y, 0.1, tf.io.parse_tensor(text, tf.int64))

        refused(descend, ValueError, match="num_steps must be a scalar")
    """)


# --------------------------------------------------------------------- empty sums cost nothing


def test_empty_sums_of_the_kernels():
    kernels(
        """
    for dtype in (np.float32, np.float64, np.float16):
        # X of no columns, however many the rows.
        x = np.zeros((2**55, 0), dtype)
        loss, grad = kernels.loss_and_grad(x, np.zeros(0, dtype))
        assert loss == 0 and grad.shape == (0,)
        # With an intercept each row is the same: n w² / 2 and n w.
        w = np.array([3], dtype)
        n = 2**40
        loss, grad = kernels.loss_and_grad(np.zeros((n, 0), dtype), w, intercept=True)
        exact = np.array([4.5 * n, 3.0 * n]).astype(dtype)
        assert loss == exact[0] and (grad == exact[1:]).all(), (loss, grad)
        # ... until w overflows: 3, 3 (1 - n r) = -3/2, 3/4.
        w, losses = kernels.gradient_descent(
            np.zeros((n, 0), dtype), w, None, 1.5 / n, 2, intercept=True
        )
        assert w == [0.75] and losses.dtype == dtype
        assert (losses == (4.5 * n * np.array([1, 0.25, 0.0625])).astype(dtype)).all()

    # No rows: the weights stay, and every loss is 0.
    x, w, y = (np.zeros(s, np.float32) for s in ((0, 100_000), (100_000,), (0,)))
    w[:] = np.arange(100_000)
    new_w, losses = kernels.gradient_descent(x, w, y, 0.1, 10**7, momentum=0.9)
    assert (new_w == w).all() and losses.shape == (10**7 + 1,) and not losses.any()
    # No weights: every loss is the first.
    x, w, y = (np.zeros(s, np.float32) for s in ((1000, 0), (0,), (1000,)))
    _, losses = kernels.gradient_descent(x, w, y + 2, 0.1, 10**7)
    assert (losses == 2000).all()
    """,
        timeout=30,
    )


@pytest.mark.parametrize("momentum", [0.0, 0.5, float("inf"), float("nan")])
@pytest.mark.parametrize("rate", [0.1, float("inf"), float("nan"), 1e300, [0.1, float("nan")]])
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_descent_without_rows_as_step_by_step(momentum, rate, steps, dtype):
    import numpy as np

    from linreg_ops import kernels

    x, y = np.zeros((0, 3), dtype), np.zeros(0, dtype)
    w = np.array([1.0, -2.0, 0.5], dtype)
    rates = np.broadcast_to(np.asarray(rate, dtype if np.ndim(rate) else None), 2)[:steps]
    expected, v = w.copy(), np.zeros(3, dtype)
    with np.errstate(all="ignore"):
        for r in rates.astype(dtype):
            v = np.asarray(momentum, dtype) * v - r * np.zeros(3, dtype)
            expected = expected + v
    given = rate if np.ndim(rate) == 0 else np.asarray(rate)[:steps]
    new_w, losses = kernels.gradient_descent(x, w, y, given, steps, momentum=momentum)
    np.testing.assert_array_equal(new_w, expected)
    assert losses.tolist() == [0.0] * (steps + 1)


def test_empty_sums_of_the_ops():
    tensorflow(
        """
    def product(x, v):
        return _ops.linreg_hessian_vector_product(x, v, [])

    for x, v in (([2**55, 0], [0]), ([2**40, 0, 0], [2**40, 0, 1]), ([2**40, 0, 5], [2**40, 5, 0])):
        for call in modes(product, tf.zeros(x), tf.zeros(v)):
            assert call().shape == v
    n = 2**40
    ones = lambda x, v: _ops.linreg_hessian_vector_product(x, v, [], intercept=True)
    assert ones(tf.zeros([n, 0]), tf.constant([3.0])).numpy() == [3.0 * n]
    # Millions of empty problems are one to write zeros to.
    loss, grad = _ops.linreg_l2_loss_grad(
        tf.zeros([10**8, 0, 0]), tf.zeros([10**8, 0]+[1]), tf.zeros([10**8, 0, 1]), []
    )
    assert loss.shape == [10**8] and not np.any(loss)
    x, w, y = tf.zeros([0, 100_000]), tf.ones([100_000]), tf.zeros([0])
    new_w, losses = lo.gradient_descent(x, w, y, 0.1, 10**7)
    assert np.all(new_w == 1) and not np.any(losses) and losses.shape == [10**7 + 1]
    # A batch whose losses fit in no memory.
    b = 2**40
    arrays = tf.zeros([b, 0, 0]), tf.zeros([b, 0, 1]), tf.zeros([b, 0, 1])
    for function in FUNCTIONS.values():
        for call in modes(function, *arrays):
            refused(call, ResourceExhaustedError)
    """,
        timeout=60,
    )


# ---------------------------------------------------------------------------------------- types


def test_pairs_of_types_without_a_kernel():
    tensorflow("""
    calls = (
        lambda x, w, y: _ops.linreg_l2_loss_grad(x, w, y, []),
        lambda x, w, y: _ops.linreg_hessian_vector_product(x, w, []),
        lambda x, w, y: _ops.linreg_saved_gradient(x, w, w, y, []),
        lambda x, w, y: _ops.linreg_gradient_descent(x, w, y, 0.1, 3, 0.0, []),
    )
    for x, w, message in (
        ("float64", "float32", "w must have x's dtype, float64, got float32"),
        ("float16", "bfloat16", "w must have x's dtype, float16 or float32, got bfloat16"),
        ("float32", "float16", "w must have x's dtype, float32, got float16"),
    ):
        arrays = tf.zeros([4, 3], x), tf.zeros([3], w), tf.zeros([4], w)
        for function in calls:
            for call in modes(function, *arrays):
                refused(call, InvalidArgumentError, ValueError, match=message)
    """)


def test_a_saved_gradient_has_the_shape_of_w():
    tensorflow("""
    x, w, y = tf.zeros([4, 3]), tf.zeros([3, 2]), tf.zeros([4, 2])
    saved = lambda x, grad, w, y: _ops.linreg_saved_gradient(x, grad, w, y, [])
    for shape in ([2, 3], [3], [], [1, 3, 2], [0, 2]):
        for call in modes(saved, x, tf.zeros(shape), w, y):
            refused(call, InvalidArgumentError, ValueError, match="grad must have w's shape")
        trace = tf.function(lambda: saved(x, tf.zeros(shape), w, y)).get_concrete_function
        refused(trace, ValueError, match="grad must have w's shape")
    for call in modes(saved, x, w + 5, w, y):
        assert np.all(call() == 5)
    for call in modes(saved, x, w, w, tf.zeros([5, 2])):
        refused(call, InvalidArgumentError, ValueError, match="y must be")
    """)


def test_sample_weight_is_one_tensor_or_none():
    tensorflow("""
    tensors = tf.zeros([4, 3]), tf.zeros([3, 2]), tf.zeros([4, 2]), tf.ones([4])
    for function in (
        lambda x, w, y, s: _ops.linreg_l2_loss_grad(x, w, y, [s, s]),
        lambda x, w, y, s: _ops.linreg_hessian_vector_product(x, w, [s, s]),
        lambda x, w, y, s: _ops.linreg_saved_gradient(x, w, w, y, [s, s]),
        lambda x, w, y, s: _ops.linreg_gradient_descent(x, w, y, 0.1, 3, 0.0, [s, s]),
    ):
        for call in modes(function, *tensors):
            message = "sample_weight must be one tensor or none, got 2"
            refused(call, InvalidArgumentError, ValueError, match=message)
    """)


# ----------------------------------------------------------------------------------------- fuzz


# How many calls of modes that share a process, of which most time is TensorFlow's import.
SLICES = {
    "kernels,estimator": 3300,
    "eager": 1500,
    "folded,known,unknown": 400,
    "fed,jit,saved": 110,
}


def test_every_mode_has_a_slice():
    assert set(",".join(SLICES).split(",")) == set(MODES)


@pytest.mark.parametrize(("modes", "calls"), SLICES.items())
def test_fuzz(modes, calls):
    """A slice of `python tests/fuzz.py --calls 1000000`."""
    seen, faults = fuzz(calls, seed=0, modes=modes)
    assert not faults, "\n".join(faults)
    assert sum(seen.values()) == calls
    for mode in (names := modes.split(",")):
        share = MODES[mode] / sum(MODES[name] for name in names)
        assert seen[f"answered {mode}"] > 0.1 * share * calls, mode
