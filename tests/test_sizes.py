"""Sizes out of the ordinary: what a call may allocate, rows wider than caches, beyond 2**31."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from oracles import assert_within, problem, truth

from linreg_ops import kernels

# ------------------------------------------------------------------------------------- memory


def peak_growth(call, setup):
    """Bytes that the process grew by at the most during a call, in a process of its own."""
    program = """
        import re
        from pathlib import Path
        import numpy as np
        {setup}

        def resident(field):
            status = Path("/proc/self/status").read_text()
            return 1024 * int(re.search(rf"^{{field}}:\\s*(\\d+) kB", status, re.M)[1])

        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
        before = resident("VmRSS")
        {call}
        print(resident("VmHWM") - before)
    """
    program = textwrap.dedent(program).format(setup=setup, call=call)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


# Arrays of zeros that nobody wrote take no memory, and reading them gives them none.
SETUP = (
    "from linreg_ops import kernels; "
    "x, w, y = (np.zeros(s, np.float32) for s in (({n}, {d}), ({d}, {k}), ({n}, {k})))"
)


@pytest.mark.parametrize(
    ("n", "d", "k"), [(1_000_000, 8, 16), (400_000, 16, 64), (100_000, 100, 256), (60_000, 8, 1024)]
)
def test_raw_kernels_allocate_no_array_of_n_by_k(n, d, k):
    setup = SETUP.format(n=n, d=d, k=k)
    # Two threads; the partial gradients of eight to 64 slots, at most 4 MiB or eight of them, and
    # the residuals of a round take O(d k + a constant).
    allowed = (24 << 20) + 16 * 8 * d * k
    assert allowed < 4 * n * k / 2
    assert peak_growth("kernels.loss_and_grad(x, w, y, num_threads=2)", setup) < allowed


def test_the_measure_of_memory_sees_an_array_of_n_by_k():
    n, d, k = 400_000, 16, 64
    assert peak_growth("r = x @ w - y; x.T @ r", SETUP.format(n=n, d=d, k=k)) >= 4 * n * k


def allocated(function, *arrays):
    """The peak of TensorFlow's allocator in each kernel of a function, by the node's name."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        feeds = [tf.compat.v1.placeholder(a.dtype, a.shape) for a in arrays]
        fetches = function(*feeds)
        options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
        metadata = tf.compat.v1.RunMetadata()
        feed = dict(zip(feeds, arrays, strict=True))
        session.run(fetches, feed, options=options, run_metadata=metadata)
    return {
        node.node_name: sum(memory.peak_bytes for memory in node.memory)
        for device in metadata.step_stats.dev_stats
        for node in device.node_stats
    }


@pytest.mark.parametrize(("d", "k"), [(8, 16), (16, 64), (8, 1024)])
def test_ops_allocate_no_array_of_n_by_k(d, k):
    """For n rows and for 4 n: the same, as the composite's r = x w - y is not."""
    import tensorflow as tf

    import linreg_ops as lo

    def stock(x, w, y):
        r = tf.matmul(x, w) - y
        return tf.nn.l2_loss(r), tf.matmul(x, r, transpose_a=True)

    peaks = {}
    for name, function in {"ours": lo.linear_l2_loss_and_grad, "stock": stock}.items():
        for n in (30_000, 120_000):
            x, w, y = (np.zeros(s, np.float32) for s in ((n, d), (d, k), (n, k)))
            peaks[name, n] = max(allocated(function, x, w, y).values())
    n = 120_000
    assert peaks["stock", n] >= 4 * n * k  # the measure sees what it should
    assert 0 < peaks["ours", n] < (24 << 20) + 16 * 8 * d * k
    assert peaks["ours", n] < 4 * n * k
    assert peaks["ours", n] <= 1.5 * peaks["ours", 30_000]


def test_gradient_descent_allocates_no_array_of_n_by_k():
    import linreg_ops as lo

    n, d, k = 120_000, 8, 64
    x, w, y = (np.zeros(s, np.float32) for s in ((n, d), (d, k), (n, k)))
    peaks = allocated(lambda *a: list(lo.gradient_descent(*a, 0.1, 3)), x, w, y)
    assert 0 < max(peaks.values()) < 4 * n * k / 2


# ------------------------------------------------------------ few rows, and rows wider than caches


@pytest.mark.parametrize("isa", [isa for isa, supported in kernels.isas().items() if supported])
@pytest.mark.parametrize(
    ("n", "d", "k"), [(1, 3_000_001, None), (3, 1_000_003, 2), (5, 300_007, 9)]
)
def test_rows_wider_than_caches_and_fewer_than_threads(rng, isa, n, d, k):
    x, w, y, s = problem(rng, n, d, k, intercept=True, weights=True)
    exact = truth(x, w, y, intercept=True, sample_weight=s)
    results = [
        kernels.loss_and_grad(x, w, y, intercept=True, sample_weight=s, isa=isa, num_threads=t)
        for t in (1, 64)
    ]
    for loss, grad in results:
        assert_within(loss, np.sum(exact.loss), np.sum(exact.loss_bound), what="loss")
        assert_within(grad, exact.grad, exact.grad_bound, what="grad")
    assert results[0][0] == results[1][0]
    assert results[0][1].tobytes() == results[1][1].tobytes()


# ------------------------------------------------------------------------- beyond 2**31 elements


def mostly_zeros(n, d, k, dtype):
    """A problem with rows that are not zero at both ends, and the rows that matter alone."""
    # Nobody writes most pages, so they take no memory: reads see the kernel's one page of zeros.
    x, y = np.zeros((n, d), dtype), np.zeros((n, k) if k else n, dtype)
    w = (np.arange(d * (k or 1)) % 7 - 3).reshape((d, k) if k else d).astype(dtype)
    rows = [0, 1, n // 2, n - 3, n - 2, n - 1]
    for i, row in enumerate(rows):  # small whole numbers: exact in every type and order
        x[row, : min(d, 8)] = np.arange(i, i + min(d, 8)) % 5 - 2
        x[row, -1] = 3 - i
        y[row] = i % 3 - 1
    return x, w, y, rows


BEYOND = [
    pytest.param(2**31 + 1000, 1, None, np.float16, id="rows"),
    pytest.param(2**27 + 100, 17, None, np.float16, id="17-features"),
    pytest.param(2**20 + 100, 2100, None, np.float16, id="2100-features"),
    pytest.param(2**25 + 100, 65, None, np.float32, id="float32"),
    pytest.param(2**28 + 100, 9, 3, np.float16, id="3-targets"),
    pytest.param(2**27 + 100, 1, 17, np.float16, id="17-targets"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d", "k", "dtype"), BEYOND)
def test_beyond_two_to_the_31_elements(n, d, k, dtype):
    x, w, y, rows = mostly_zeros(n, d, k, dtype)
    assert max(x.size, y.size) > 2**31
    exact = truth(x[rows], w, y[rows])
    loss, grad = kernels.loss_and_grad(x, w, y, num_threads=2)
    assert float(loss) == float(np.sum(exact.loss))
    np.testing.assert_array_equal(grad, exact.grad.astype(dtype))


@pytest.mark.slow
def test_the_op_beyond_two_to_the_31_elements():
    """The arrays are lent to TensorFlow, not copied."""
    import tensorflow as tf

    import linreg_ops as lo

    x, w, y, rows = mostly_zeros(2**27 + 100, 17, None, np.float16)
    exact = truth(x[rows], w, y[rows])
    lent = [tf.experimental.dlpack.from_dlpack(a.__dlpack__()) for a in (x, w, y)]
    loss, grad = lo.linear_l2_loss_and_grad(*lent)
    assert float(loss) == float(exact.loss)
    np.testing.assert_array_equal(grad, exact.grad.astype(np.float16))
