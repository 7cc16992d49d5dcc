"""The raw kernels without TensorFlow: every instruction set, dtype, awkward shape and bad input."""

import os
import subprocess
import sys

import dtype_pairs
import ml_dtypes
import numpy as np
import pytest
import routes
from oracles import assert_within, problem, truth

from linreg_ops import kernels

ISAS = [isa for isa, supported in kernels.isas().items() if supported]
WITH_FMA = [isa for isa in ISAS if isa != "scalar"]
BFLOAT16 = ml_dtypes.bfloat16
# Around the vector widths and their unrolls, and the limits between kernels.
ROWS = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 129, 257, 1000]
FEATURES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 129, 300, 1025]
TARGETS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 100]


def check(x, w, y, s=None, *, intercept=False, **options):
    exact = truth(x, w, y, intercept=intercept, sample_weight=s)
    loss, grad = kernels.loss_and_grad(
        x, w, y, intercept=intercept, sample_weight=s, loss_per_target=True, **options
    )
    assert_within(loss, exact.loss, exact.loss_bound, what="loss")
    assert_within(grad, exact.grad, exact.grad_bound, what="grad")
    total, again = kernels.loss_and_grad(x, w, y, intercept=intercept, sample_weight=s, **options)
    assert_within(total, np.sum(exact.loss), np.sum(exact.loss_bound), what="total loss")
    np.testing.assert_array_equal(again, grad)
    assert grad.dtype == w.dtype
    assert np.asarray(total).dtype == w.dtype


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("x_type", "w_type"), dtype_pairs.PARAMS)
@pytest.mark.parametrize("weights", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("intercept", [False, True], ids=["", "intercept"])
def test_shapes(rng, isa, x_type, w_type, intercept, weights):
    shapes = [(n, d, None) for n in (1, 17, 40) for d in FEATURES]
    shapes += [(n, d, None) for n in ROWS for d in (1, 3, 16, 33)]
    shapes += [(n, d, k) for n in (0, 1, 19) for d in (0, 1, 5, 33) for k in TARGETS]
    for n, d, k in shapes:
        x, w, y, s = problem(
            rng, n, d, k, dtype=x_type, w_dtype=w_type, intercept=intercept, weights=weights
        )
        try:
            check(x, w, y, s, intercept=intercept, isa=isa)
        except AssertionError as error:
            raise AssertionError(f"n={n}, d={d}, k={k}: {error}") from error


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("k", [None, 3, 20])
def test_unaligned_slices(rng, isa, dtype, k):
    x, w, y, s = problem(rng, 70, 13, k, dtype=dtype, weights=True)
    for skip in (1, 3):
        check(x[skip:], w, y[skip:], s[skip:], isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
@pytest.mark.parametrize("d", [3, 8])
def test_every_finite_16_bit_value_is_read_exactly(isa, dtype, d):
    values = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    values = values[np.isfinite(values.astype(np.float32))]
    w, y = np.zeros(d, np.float32), -np.ones(1, np.float32)
    for row in values[: len(values) // d * d].reshape(-1, 1, d):
        _, grad = kernels.loss_and_grad(row, w, y, isa=isa)
        assert (grad == row[0].astype(np.float32)).all()


def test_zeros_in_place_of_y(rng):
    x, v, _, s = problem(rng, 100, 7, 3, weights=True)
    exact = truth(x, v, None, sample_weight=s)
    _, product = kernels.loss_and_grad(x, v, sample_weight=s)
    assert_within(product, exact.grad, exact.grad_bound)


@pytest.mark.parametrize(("x_type", "w_type"), dtype_pairs.PARAMS)
@pytest.mark.parametrize(
    ("n", "d", "k"),
    [
        (100_003, 1, None),
        (100_003, 3, None),
        (50_001, 17, None),
        (3001, 300, None),
        (97, 20_011, None),
        (3, 40_000, None),
        (50_001, 5, 4),
        (20_001, 33, 8),
        (5003, 40, 17),
        (2001, 130, 100),
    ],
)
def test_same_bits_for_any_threads_and_isa(rng, x_type, w_type, n, d, k):
    x, w, y, s = problem(rng, n, d, k, dtype=x_type, w_dtype=w_type, weights=True)
    for isas in (WITH_FMA, ["scalar"]):
        results = [
            kernels.loss_and_grad(x, w, y, sample_weight=s, num_threads=threads, isa=isa)
            for isa in isas
            for threads in (1, 2, 3, 7)
        ]
        for loss, grad in results[1:]:
            assert np.asarray(loss).tobytes() == np.asarray(results[0][0]).tobytes()
            assert grad.tobytes() == results[0][1].tobytes()


def test_not_finite_as_the_composite_has_it(rng):
    x, w, y, s = problem(rng, 40, 9, weights=True)
    x[5, 3] = np.nan
    x[6, 4] = np.inf
    w[4] = 0.0  # inf · 0 is nan, and a weight of zero hides nothing
    s[5] = 0.0
    loss, grad = kernels.loss_and_grad(x, w, y, sample_weight=s)
    assert np.isnan(loss)
    assert np.isnan(grad).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("x_type", "w_type"), dtype_pairs.PARAMS)
def test_nan_stays_nan_in_every_type(isa, x_type, w_type):
    x, w = np.full((9, 3), np.nan).astype(x_type), np.ones(3, w_type)
    loss, grad = kernels.loss_and_grad(x, w, isa=isa)
    assert np.isnan([loss, *grad]).all()


@pytest.mark.parametrize(
    "call",
    [kernels.loss_and_grad, lambda *a, **k: kernels.gradient_descent(*a, 0.1, 3, **k)],
    ids=["loss_and_grad", "gradient_descent"],
)
@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"x": np.zeros(3, np.float32)}, ValueError, r"x must be \[n, d\], got shape \[3\]"),
        ({"x": np.zeros((4, 3), np.int32)}, TypeError, "x must be float32, .* got int32"),
        ({"x": np.zeros((4, 3), ">f4")}, TypeError, "native byte order"),
        ({"x": np.zeros((3, 4), np.float32).T}, ValueError, "x must be C-contiguous"),
        ({"w": np.zeros(2, np.float32)}, ValueError, r"w must be .* got w of shape \[2\]"),
        ({"w": np.zeros((3, 1, 1), np.float32)}, ValueError, r"w must be \[d, k\] or \[d\], with"),
        ({"w": np.zeros((), np.float32)}, ValueError, r"w must be \[d, k\] or \[d\], with"),
        ({"w": np.zeros(3)}, TypeError, "w must have x's dtype, float32, got float64"),
        ({"y": np.zeros(4)}, TypeError, "y must have w's dtype float32, got float64"),
        ({"y": np.zeros((4, 1), np.float32)}, ValueError, r"y must be \[n\]"),
        ({"y": np.zeros(5, np.float32)}, ValueError, r"y must be \[n\] .* got y of shape \[5\]"),
        ({"sample_weight": np.zeros((4, 1), np.float32)}, ValueError, "sample_weight must be"),
        ({"num_threads": 0}, ValueError, "num_threads must be between 1 and 4096, got 0"),
        ({"num_threads": 4097}, ValueError, "num_threads must be between 1 and 4096, got 4097"),
        ({"isa": "sse9"}, (ValueError, RuntimeError), "sse9"),
        ({"x": [[1.0]]}, TypeError, "incompatible function arguments"),
    ],
)
def test_bad_input(call, change, error, match):
    arguments = {
        "x": np.zeros((4, 3), np.float32),
        "w": np.zeros(3, np.float32),
        "y": np.zeros(4, np.float32),
        **change,
    }
    positional = [arguments.pop(name) for name in ("x", "w", "y")]
    with pytest.raises(error, match=match):
        call(*positional, **arguments)


def test_descent_same_bits_as_step_by_step(rng):
    for dtype, n, d, k in [
        (np.float32, 50, 2, None),
        (np.float64, 300, 10, 3),
        (np.float32, 5001, 40, None),
    ]:
        x, w, y, _ = problem(rng, n, d, k, dtype=dtype)
        rate = 0.1 / n
        new_w, losses = kernels.gradient_descent(x, w, y, rate, 5)
        for step in range(6):
            loss, grad = kernels.loss_and_grad(x, w, y)
            assert losses[step] == loss
            if step < 5:
                w = w - dtype(rate) * grad
        np.testing.assert_allclose(new_w, w, rtol=4 * np.finfo(dtype).eps)


def test_descent_same_bits_for_any_threads(rng):
    x, w, y, s = problem(rng, 20_000, 50, weights=True)
    results = [
        kernels.gradient_descent(x, w, y, 1e-5, 5, sample_weight=s, momentum=0.5, num_threads=t)
        for t in (1, 2, 5)
    ]
    for new_w, losses in results[1:]:
        assert new_w.tobytes() == results[0][0].tobytes()
        assert losses.tobytes() == results[0][1].tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_descent_without_momentum_multiplies_no_infinite_velocity(dtype):
    """Weights that overflowed stay as they are under a rate of the other sign; 0·∞ would be NaN."""
    x, w, y = (np.asarray(a, dtype) for a in ([[2]], [1], [0]))
    rates = [0.9 * float(np.finfo(dtype).max), -1.0]
    new_w, losses = kernels.gradient_descent(x, w, y, rates, 2)
    np.testing.assert_array_equal(new_w, [-np.inf])
    np.testing.assert_array_equal(losses, [2, np.inf, np.inf])


@pytest.mark.parametrize(
    ("rate", "steps", "match"),
    [
        (0.1, -1, "num_steps must not be negative, got -1"),
        (np.ones(3), 2, r"num_steps=2 entries, got shape \[3\]"),
        (np.ones((2, 1)), 2, r"scalar or have num_steps=2 entries, got shape \[2,1\]"),
        (0.1, 2**60, "num_steps must be at most"),
    ],
)
def test_descent_bad_input(rate, steps, match):
    x, w, y = np.zeros((4, 3), np.float32), np.zeros(3, np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match=match):
        kernels.gradient_descent(x, w, y, rate, steps)


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_imports_no_tensorflow():
    done = run_python("import sys, linreg_ops.kernels; print('tensorflow' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("isa", ISAS)
def test_isa_from_the_environment(isa):
    done = run_python("import linreg_ops.kernels as k; print(k.active_isa())", LINREG_OPS_ISA=isa)
    assert done.stdout == f"{isa}\n", done.stderr


def test_unknown_isa_is_rejected_at_import():
    done = run_python("import linreg_ops.kernels", LINREG_OPS_ISA="sse9")
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "sse9" in done.stderr
    for isa in ISAS:
        assert isa in done.stderr


def test_forked_child_computes():
    done = run_python(
        """
import os, numpy as np
from linreg_ops import kernels
x, y = np.ones((100_000, 10), np.float32), np.zeros(100_000, np.float32)
w = np.ones(10, np.float32)
a = kernels.loss_and_grad(x, w, y, num_threads=2)
if (pid := os.fork()) == 0:
    b = kernels.loss_and_grad(x, w, y, num_threads=2)
    os._exit(0 if a[0] == b[0] and (a[1] == b[1]).all() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------------------------- routes


def test_every_route_has_shapes():
    assert list(kernels.routes()) == list(routes.SHAPES)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("x_type", "w_type"), dtype_pairs.PARAMS)
@pytest.mark.parametrize("route", routes.SHAPES)
def test_route(rng, isa, x_type, w_type, route):
    if (route == "plain") != (isa == "scalar"):
        pytest.skip("plain is the only route of this instruction set, or none of it")
    if route == "lane_per_row_packed" and np.dtype(x_type).itemsize == 2:
        pytest.skip("16-bit X is not packed")
    shapes = routes.takes(isa, route, x_type, w_type)
    assert shapes, f"{route} is reached by none of its shapes"
    for i, (n, d, k, descent) in enumerate(shapes):
        intercept, weights = i % 2 == 1, i % 3 == 1
        x, w, y, s = problem(
            rng, n, d, k, dtype=x_type, w_dtype=w_type, intercept=intercept, weights=weights
        )
        # Small residuals: a loss of float16 ends at 65504.
        w, y = w * w.dtype.type(0.05), y * y.dtype.type(0.05)
        check(x, w, y, s, intercept=intercept, isa=isa)
        if descent:
            steps = kernels.gradient_descent(
                x, w, y, 0.25 / n, 2, intercept=intercept, sample_weight=s, isa=isa
            )
            first, grad = kernels.loss_and_grad(
                x, w, y, intercept=intercept, sample_weight=s, isa=isa
            )
            second, _ = kernels.loss_and_grad(
                x,
                w - w.dtype.type(0.25 / n) * grad,
                y,
                intercept=intercept,
                sample_weight=s,
                isa=isa,
            )
            if w.dtype == x.dtype and w.dtype.itemsize > 2:
                np.testing.assert_array_equal(steps[1][:2], [first, second])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("x_type", "w_type"), dtype_pairs.PARAMS)
def test_an_infinity_stays_one_on_every_route(isa, x_type, w_type):
    """Vectors that end with the row hold columns a second time: 0 times infinity is not a number.

    Where a column of a row that is read twice is infinite, in rows amid a tile and at its end.
    """
    for route in routes.SHAPES:
        for n, d, k, descent in routes.takes(isa, route, x_type, w_type):
            if d == 0:
                continue
            x, w, y = np.ones((n, d), x_type), np.ones((d, k), w_type), np.zeros((n, k), w_type)
            rows = [0, n // 2, n - 1]
            columns = [d // 2, d - 1, max(d // 8 * 8 - 1, 0), max(d // 16 * 16 - 1, 0)]
            x[np.ix_(rows, columns)] = np.inf
            where = f"{route} of {n} x {d}, {k} targets"
            loss, grad = kernels.loss_and_grad(x, w, y, isa=isa, loss_per_target=True)
            assert (loss == np.inf).all(), where
            assert (grad == np.inf).all(), where
            if descent:
                _, losses = kernels.gradient_descent(x, w, y, 0.5, 1, isa=isa)
                assert losses[0] == np.inf, where


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("descent", [False, True])
def test_plans_keep_within_their_limits(isa, descent):
    """No more workers than threads, and no more tasks than the stages count, whatever the size."""
    for n in (1, 63, 10_000, 10**9):
        for d in (0, 1, 16, 300, 10**6):
            for k in (1, 5, 8, 9, 2000):
                plan = kernels.plan(n, d, k, descent=descent, num_threads=3, isa=isa)
                assert 1 <= plan.workers <= 3, plan
                limit = 2**16 - 1 if plan.route == "gemm_rounds" else 256
                assert 1 <= plan.tasks <= limit, plan


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "scalar"])
def test_routes_begin_where_the_table_says(isa):
    def route(n, d, k, dtype="float32"):
        return kernels.plan(n, d, k, dtype, isa=isa).route

    assert [route(100, d, 1) for d in (8, 16, 17)] == ["lane_per_row"] * 2 + ["lane_per_column"]
    assert [route(100, d, 1, "float64") for d in (8, 9)] == ["lane_per_row", "lane_per_column"]
    assert [route(100, d, 2) for d in (8, 9)] == ["lane_per_residual", "few_targets"]
    assert [route(100, 9, k) for k in (8, 9)] == ["few_targets", "gemm_rounds"]
    assert [route(n, 9, 9) for n in (2015, 2016)] == ["gemm_rounds", "gemm_slots"]


def test_plan_says_what_runs():
    plan = kernels.plan(100_000, 100, num_threads=2)
    assert plan.route == "lane_per_column" or plan.isa == "scalar"
    assert plan.workers == 2
    assert plan.tasks > 2
    assert plan.workspace_bytes > 0
    with pytest.raises(ValueError, match="sizes must not be negative, got n=-1"):
        kernels.plan(-1, 3)
    with pytest.raises(ValueError, match="w must have x's dtype"):
        kernels.plan(1, 3, dtype="float32", w_dtype="float64")
    with pytest.raises(TypeError, match=r"dtype must be float32, .* got int32"):
        kernels.plan(1, 3, dtype="int32")
    with pytest.raises(ValueError, match="sse9"):
        kernels.plan(1, 3, isa="sse9")
