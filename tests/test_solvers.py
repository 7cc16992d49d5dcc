"""No wrong number without a word: data that have broken solvers, against exact arithmetic."""

import itertools
import os
import signal
import threading
import warnings
from fractions import Fraction

import nist
import numpy as np
import pytest
import scipy.sparse
import sklearn.linear_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from linreg_ops import LinearRegression, reference
from linreg_ops.solvers import gram
from linreg_ops.solvers.problem import Problem
from linreg_ops.solvers.refine import refine

DIRECT = ["exact", "gram"]
DTYPES = [np.float32, np.float64]
EPS = np.finfo(np.float64).eps


def exact_line(x, y):
    """(slope, intercept) of the numbers as they are, in rational arithmetic."""
    x, y = ([Fraction(float(v)) for v in a] for a in (x, y))
    n = len(x)
    mx, my = sum(x) / n, sum(y) / n
    slope = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum(
        (a - mx) ** 2 for a in x
    )
    return float(slope), float(my - slope * mx)


def r_squared(x, y, s, intercept, coef):
    """In long double, of the coefficients as they are."""
    x, y, s = (np.asarray(a).astype(np.longdouble) for a in (x, y, s))
    r = x @ coef.astype(np.longdouble) + intercept - y
    centred = y - (s @ y) / s.sum()
    return float(1 - (s @ r**2) / (s @ centred**2))


# Columns that vary little around a large value.
OFFSETS = {
    "barometer in Pa": (np.round(101_300 + np.linspace(-0.05, 0.05, 53), 2), np.float32),
    "longitudes": (-122.4 + 1e-5 * (np.arange(500) * 37 % 73), np.float32),
    "Kelvin": (293.15 + 1e-4 * np.sin(np.arange(300)), np.float32),
    "Unix seconds within 20 minutes": (1.7e9 + np.arange(1200.0), np.float32),
    "Unix seconds within 20 µs": (1.7e9 + np.linspace(-1e-5, 1e-5, 400), np.float64),
}


@pytest.mark.parametrize("solver", DIRECT)
@pytest.mark.parametrize("name", OFFSETS)
def test_a_small_spread_around_a_large_value(name, solver, rng):
    values, dtype = OFFSETS[name]
    x = values.astype(dtype)
    spread = np.ptp(x.astype(np.float64))
    assert spread > 0
    y = (3 * (x.astype(np.float64) - values.mean()) / spread + rng.normal(size=len(x))).astype(
        dtype
    )
    with warnings.catch_warnings():
        # Where the spread is in the last bits of the offset, that predictions round is said too.
        warnings.simplefilter("ignore" if spread < 1e-12 * abs(values[0]) else "error")
        model = LinearRegression(solver=solver).fit(x[:, None], y)
    slope, _ = exact_line(x, y)
    assert model.coef_[0] == pytest.approx(slope, rel=1e-10)


@pytest.mark.parametrize("solver", DIRECT)
def test_a_million_timestamps_within_a_millisecond(solver):
    n = 1_000_000
    x = 1.7e9 + np.linspace(0, 1e-3, n)
    y = np.sin(np.arange(n)) + 1000 * (x - 1.7e9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # predictions round, and that is said
        model = LinearRegression(solver=solver).fit(x[:, None], y)
    away = (x - 1.7e9).astype(np.longdouble)
    away -= away.mean()
    assert model.coef_[0] == pytest.approx(float(away @ y / (away @ away)), rel=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", [*DIRECT, "cg", "gd"])
@pytest.mark.parametrize(("value", "n"), [(0.1, 1000), (14.62, 100_000), (0.1, 3_000_000)])
def test_a_constant_column_has_coefficient_zero(value, n, solver, dtype, rng):
    x = np.column_stack([np.full(n, value), rng.normal(size=n)]).astype(dtype)
    y = x[:, 1].astype(np.float64) + 1.0
    rate = {"learning_rate": 1 / n, "num_steps": 60} if solver == "gd" else {}
    model = LinearRegression(solver=solver, **rate).fit(x, y)
    assert model.coef_[0] == 0.0
    assert model.coef_[1] == pytest.approx(1.0, rel=1e-6)
    assert model.intercept_ == pytest.approx(1.0, rel=1e-6)


def test_all_but_one_value_equal_is_no_constant():
    x = np.full((1000, 1), 101_300.0, np.float32)
    x[700] += 0.0078125
    y = np.zeros(1000)
    y[700] = 1.0
    assert LinearRegression().fit(x, y).coef_[0] == pytest.approx(128.0, rel=1e-9)


@pytest.mark.parametrize("solver", [*DIRECT, "cg"])
def test_a_column_that_varies_in_rows_of_tiny_weight_is_no_constant(solver):
    x, y = np.array([[0.0], [0.0], [0.0], [1.0]]), [1.0, 1.0, 1.0, 3.0]
    model = LinearRegression(solver=solver).fit(x, y, [1.0, 1.0, 1.0, 1e-30])
    assert [model.coef_[0], model.intercept_] == pytest.approx([2.0, 1.0], rel=1e-12)


@pytest.mark.parametrize("solver", [*DIRECT, "cg"])
def test_a_target_that_is_done_does_not_stop_the_others(solver, rng):
    x = rng.normal(size=(50, 4))
    y = np.column_stack([np.zeros(50), x @ [1.0, 2.0, 3.0, 4.0], np.ones(50)])
    model = LinearRegression(solver=solver).fit(x, y)
    np.testing.assert_allclose(model.coef_, [[0] * 4, [1, 2, 3, 4], [0] * 4], atol=1e-12)


def test_what_a_correction_gains_does_not_make_the_loss_negative(rng):
    x = rng.normal(size=(50, 3))
    problem = Problem(x, x @ [[1.0], [2.0], [3.0]], None, intercept=False)
    factor, w = gram.factorize(problem)
    at = problem.at

    def rounded_down(*arguments, **options):
        fit = at(*arguments, **options)
        return fit._replace(loss=fit.loss * (1 - 1e-9))

    problem.at = rounded_down
    found = refine(
        problem, factor, 0 * w, tol=1e-10, extended=False, max_reads=8, keep=lambda *_: None
    )
    assert found.loss == [0.0]


@pytest.mark.parametrize("solver", DIRECT)
def test_a_column_constant_in_the_first_block_only(solver, rng):
    n = 200_000
    x = np.column_stack([np.zeros(n), rng.normal(size=n)])
    x[-1000:, 0] = 1e-200 * rng.normal(size=1000)
    y = 1e200 * x[:, 0] + x[:, 1]
    model = LinearRegression(solver=solver).fit(x, y)
    np.testing.assert_allclose(model.coef_, [1e200, 1.0], rtol=1e-9)


@pytest.mark.parametrize("solver", ["auto", *DIRECT])
def test_many_rows_of_float32_with_condition_840(solver, rng):
    n = 600_000
    z = rng.normal(size=(n, 2))
    x = np.column_stack([z[:, 0], z[:, 0] + z[:, 1] / 420]).astype(np.float32)
    y = (x.astype(np.float64) @ [1.0, -1.0] + rng.normal(size=n)).astype(np.float32)
    model = LinearRegression(solver=solver).fit(x, y)
    wide = x.astype(np.longdouble)
    wide -= wide.mean(axis=0)
    gram = np.array([[a @ b for a in wide.T] for b in wide.T])
    cross = np.array([a @ y for a in wide.T])
    true = [
        gram[1, 1] * cross[0] - gram[0, 1] * cross[1],
        gram[0, 0] * cross[1] - gram[0, 1] * cross[0],
    ]
    true = np.array(true) / (gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2)
    np.testing.assert_allclose(model.coef_, true.astype(float), rtol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", DIRECT)
def test_without_standardizing_scales_are_harmless_too(solver, dtype, rng):
    scales = np.array([1e-6, 1e-3, 1.0, 1e3, 1e6])
    x = (rng.normal(size=(300, 5)) * scales + [0, 0, 0, 0, 1.7e9]).astype(dtype)
    y = (x / scales) @ [1.0, -2.0, 3.0, -4.0, 5.0] + rng.normal(size=300) + 1e6
    model = LinearRegression(solver=solver, standardize=False).fit(x, y)
    wide = x.astype(np.longdouble)
    w = reference.least_squares((wide - wide.mean(0)).astype(float), y - y.mean())
    np.testing.assert_allclose(model.coef_, w, rtol=1e-9)


@pytest.mark.parametrize("noise", [1e-5, 1e-9])
@pytest.mark.parametrize("solver", [*DIRECT, "cg"])
def test_the_loss_of_a_nearly_perfect_fit(noise, solver, rng):
    x = rng.normal(size=(200, 3))
    y = 1000 + x @ [1.0, 2.0, 3.0] + noise * rng.normal(size=200)
    model = LinearRegression(solver=solver).fit(x, y)
    r = x.astype(np.longdouble) @ model.coef_ + np.longdouble(model.intercept_) - y
    assert model.loss_ == pytest.approx(float(0.5 * r @ r), rel=1e-6)
    assert model.loss_curve_[-1] == model.loss_
    least = sklearn.linear_model.LinearRegression().fit(x, y)
    r = x.astype(np.longdouble) @ least.coef_ + np.longdouble(least.intercept_) - y
    # What rounding an intercept of 1000 does to the loss is in both.
    assert model.loss_ <= 0.5 * r @ r * (1 + 1e-6)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(np.float32, 3e17), (np.float32, 1e37), (np.float32, 1e-30), (np.float64, 1e153),
     (np.float64, 1e300), (np.float64, 1e-200), (np.float64, 1e-300)],
)  # fmt: skip
@pytest.mark.parametrize("solver", [*DIRECT, "cg", "gd"])
def test_targets_of_extreme_size(dtype, scale, solver, rng):
    x = rng.normal(size=(100, 3)).astype(dtype)
    y = x.astype(np.float64) @ [1.0, 2.0, 3.0] + rng.normal(size=100)
    rate = {"learning_rate": "auto"} if solver == "gd" else {}
    with warnings.catch_warnings():
        if scale >= 1e153:
            warnings.filterwarnings("ignore", "The loss", RuntimeWarning)
        model = LinearRegression(solver=solver, **rate).fit(x, (y * scale).astype(dtype))
    w = reference.least_squares(x, y, intercept=True)
    tolerance = 1e-5 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(model.coef_ / scale, w[1:], rtol=tolerance)
    assert model.intercept_ / scale == pytest.approx(w[0], rel=10 * tolerance)


@pytest.mark.parametrize("scale", [1e-150, 1e150, 1e-300])
@pytest.mark.parametrize("solver", DIRECT)
def test_columns_of_extreme_size(scale, solver, rng):
    x = rng.normal(size=(100, 3))
    y = x @ [1.0, 2.0, 3.0] + rng.normal(size=100)
    w = reference.least_squares(x, y, intercept=True)
    model = LinearRegression(solver=solver).fit(x * [scale, 1.0, 1 / scale], y)
    np.testing.assert_allclose(model.coef_ * [scale, 1.0, 1 / scale], w[1:], rtol=1e-9)


def test_coefficients_beyond_float64_are_refused():
    with pytest.raises(ValueError, match="beyond float64"):
        LinearRegression().fit([[1e-200], [2e-200], [4e-200]], [1e200, 2e200, 3e200])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1e-36, 1e20, 1e35, 1e-150, 1e150, 1e-307])
@pytest.mark.parametrize("solver", [*DIRECT, "cg"])
def test_a_common_factor_of_the_weights_cancels(dtype, factor, solver, rng):
    x, s = rng.normal(size=(60, 3)).astype(dtype), rng.uniform(0.5, 2.0, size=60)
    y = rng.normal(size=60)
    model = LinearRegression(solver=solver).fit(x, y, sample_weight=s * factor)
    w = reference.least_squares(x, y, intercept=True, sample_weight=s)
    np.testing.assert_allclose(np.append(model.intercept_, model.coef_), w, rtol=1e-8)


@pytest.mark.parametrize("solver", [None, "exact", "gram"])
def test_forty_columns_of_condition_2e7(solver, rng):
    u, _ = np.linalg.qr(rng.normal(size=(2000, 40)))
    v, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    x = u * np.logspace(0, -7.4, 40) @ v.T
    y = x @ rng.normal(size=40) + 1e-3 * rng.normal(size=2000)
    model = LinearRegression(solver=solver or "auto").fit(x, y)
    w = reference.least_squares(x, y, intercept=True)
    np.testing.assert_allclose(model.coef_, w[1:], rtol=0, atol=10 * 2.5e7 * EPS * np.abs(w).max())
    assert 1e7 < model.condition_ < 1e9


def test_what_has_not_converged_says_so(rng):
    u, _ = np.linalg.qr(rng.normal(size=(200, 10)))
    v, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    x = u * np.logspace(0, -6, 10) @ v.T
    y = rng.normal(size=200)
    with pytest.warns(ConvergenceWarning, match="use solver='exact'"):
        LinearRegression(solver="cg", num_steps=5).fit(x, y)
    with pytest.warns(ConvergenceWarning, match="leave the learning rate out"):
        LinearRegression(learning_rate="auto", num_steps=50).fit(x, y)


def test_what_conjugate_gradients_believe_is_checked(rng):
    """Two columns nearly cancel in y's direction: their lengths show it none of the gradient."""
    u, _ = np.linalg.qr(rng.normal(size=(200, 2)))
    x = u * [1.0, 1e-9] @ [[1.0, 1.0], [-1.0, 1.0]]
    model = LinearRegression(solver="cg", fit_intercept=False, tol=1e-4)
    with pytest.warns(ConvergenceWarning, match="Not converged to tol"):
        model.fit(x, u[:, 1])
    assert model.loss_ > 0.4  # where 0 is right


# The best of NumPy's lstsq and scikit-learn has 12.3, 6.2, 15.9, 15.3, none, 13.8, 9.3, 10.2, 9.6,
# 7.9 and 5.9 digits. filip's exact powers are not float64's: 7.6 digits are what those have.
NIST_DIGITS = {
    "norris": 13, "pontius": 12.5, "noint1": 15.3, "noint2": 15.3, "filip": 7.3, "longley": 13.8,
    "wampler1": 13, "wampler2": 13, "wampler3": 12.5, "wampler4": 11, "wampler5": 9,
}  # fmt: skip


@pytest.mark.parametrize("name", NIST_DIGITS)
def test_nist_digits(name):
    problem = nist.load(name)
    x, y, intercept, _ = problem
    model = LinearRegression(fit_intercept=intercept).fit(x, y)
    found = np.append(model.intercept_, model.coef_) if intercept else model.coef_
    digits = problem.digits(found)
    assert digits >= NIST_DIGITS[name]
    columns = np.hstack([np.ones((len(x), 1)), x]) if intercept else x
    peers = [np.linalg.lstsq(columns, y)[0]]
    other = sklearn.linear_model.LinearRegression(fit_intercept=intercept).fit(x, y)
    peers.append(np.append(other.intercept_, other.coef_) if intercept else other.coef_)
    assert digits >= max(problem.digits(peer) for peer in peers)


@pytest.mark.parametrize(("name", "digits"), [("pontius", 10), ("longley", 13), ("wampler5", 6.5)])
def test_nist_digits_of_the_gram_matrix_refined(name, digits):
    x, y, _, _ = problem = nist.load(name)
    model = LinearRegression(solver="gram").fit(x, y)
    assert problem.digits(np.append(model.intercept_, model.coef_)) >= digits


@pytest.mark.parametrize(
    ("solver", "power"),
    [("exact", p) for p in (0, 2, 4, 6, 8, 10, 12)] + [("gram", p) for p in (0, 2, 4, 6, 8, 10)],
)
def test_any_condition_number(power, solver, rng):
    """As backward stable as a QR, for a Gram matrix too: normal equations alone end at 10⁸."""
    u, _ = np.linalg.qr(rng.normal(size=(500, 8)))
    v, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    x = u * np.logspace(0, -power, 8) @ v.T + 1000
    true = rng.normal(size=8)
    y = x @ true
    model = LinearRegression(solver=solver).fit(x, y)
    # What rounding y and x (at 1000) itself does to the coefficients.
    bound = 100 * np.finfo(float).eps * 1e4 * 10.0**power
    assert np.max(np.abs(model.coef_ - true)) < bound * 10
    r = x @ model.coef_ + model.intercept_ - y
    assert np.linalg.norm(r) <= 1e-9 * np.linalg.norm(y - y.mean())


@st.composite
def problems(draw):
    """Small problems with everything that has gone wrong: scales, offsets, copies, weights."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(1, 59)), draw(st.integers(1, 19))
    dtype = draw(st.sampled_from(DTYPES))
    x = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-3, 3, d)
    x += rng.choice([0.0, 1.0, 1e3, -1e6], d)
    if draw(st.booleans()):
        x[:, rng.integers(d)] = rng.choice([1.0, 2.0, 0.1]) * x[:, rng.integers(d)]
    if draw(st.booleans()):
        x[:, rng.integers(d)] = rng.choice([0.0, 0.1, 14.62])
    x = x.astype(dtype)
    y = x @ rng.normal(size=d) * 10.0 ** rng.uniform(-3, 3) + rng.choice([0.0, 1e6])
    y = (y + rng.normal(size=n) * 10.0 ** rng.uniform(-6, 3)).astype(dtype)
    s = rng.uniform(size=n) * 10.0 ** rng.uniform(-30, 30) if draw(st.booleans()) else None
    if s is not None and draw(st.booleans()):
        s[1:][rng.random(n - 1) < 0.3] = 0.0
    return x, y, s, draw(st.sampled_from(["auto", "exact", "gram", "cg"])), draw(st.booleans())


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(problems())
def test_no_fit_is_worse_than_the_best_without_a_warning(problem):
    x, y, s, solver, standardize = problem
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LinearRegression(solver=solver, standardize=standardize).fit(x, y, s)
    weight = np.ones(len(y)) if s is None else s / s.max()
    x, y = x.astype(np.float64), y.astype(np.float64)
    if np.ptp(y[weight > 0]) == 0 or caught:
        return
    intercept, coef = best(x, y, weight)
    lost = r_squared(x, y, weight, intercept, coef) - r_squared(
        x, y, weight, model.intercept_, model.coef_
    )
    assert lost <= 1e-4


@pytest.mark.parametrize("seed", [14, 23, 168, 192, 405])
def test_a_copy_is_found_beside_columns_that_nearly_depend(seed):
    """Of 11 rows 10 columns are all that there is: with an eleventh, coefficients were 10¹²."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(11, 11)) * 10.0 ** rng.uniform(-3, 3, 11)
    x = (x + rng.choice([0.0, 1.0, 1e3, -1e6], 11)).astype(np.float32).astype(float)
    x[:, 8] = 0.5 * x[:, 0]
    y = x @ rng.normal(size=11) + rng.normal(size=11)
    exact, gram = (LinearRegression(solver=solver).fit(x, y) for solver in ("exact", "gram"))
    assert exact.rank_ == gram.rank_ == 10
    assert gram.score(x, y) > 1 - 1e-9
    assert np.max(np.abs(gram.coef_)) < 2 * np.max(np.abs(exact.coef_))


@pytest.mark.parametrize("near", [1e-3, 1e-6])
@pytest.mark.parametrize("nearer", [1e-8, 1e-10, 1e-12])
def test_a_direction_beside_one_that_nearly_vanishes_is_no_rounding(near, nearer, rng):
    """Both are too small for a Gram matrix, or nearly; all of y is along the smaller."""
    x = rng.normal(size=(400, 7))
    x[:, 5] = x[:, 0] + near * x[:, 5]
    x[:, 6] = x[:, 1] + nearer * x[:, 6]
    y = x[:, 0] + (x[:, 6] - x[:, 1]) / nearer
    model = LinearRegression(solver="gram").fit(x, y)
    assert model.rank_ == 7
    assert model.score(x, y) > 1 - 1e-6


def best(x, y, s):
    """Least squares by LAPACK's SVD of columns centred in long double."""
    # From one of the rows, where a constant column is zeros: the rounding of its mean fits noise.
    wide = x.astype(np.longdouble) - x[np.argmax(s)]
    mean, mean_y = (s @ wide) / s.sum(), (s @ y.astype(np.longdouble)) / s.sum()
    a = np.sqrt(s)[:, None] * (wide - mean)
    length = np.sqrt((a**2).sum(axis=0))
    length[length == 0] = 1
    b = (np.sqrt(s) * (y - mean_y)).astype(float)
    coef = np.linalg.lstsq((a / length).astype(float), b, rcond=1e-13)[0] / length
    return mean_y - (mean + x[np.argmax(s)]) @ coef, coef


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("solver", [*DIRECT, "cg"])
def test_sparse_rows_are_fitted_as_dense_ones(dtype, intercept, weighted, solver, rng):
    dense = rng.normal(size=(300, 6)) * (rng.random((300, 6)) < 0.3)
    dense = dense.astype(dtype)
    y = rng.normal(size=300)
    s = rng.integers(0, 3, size=300) if weighted else None
    model = LinearRegression(solver=solver, fit_intercept=intercept)
    expected = model.fit(dense, y, s).coef_
    for kind in (scipy.sparse.csr_matrix, scipy.sparse.csc_array):
        np.testing.assert_array_equal(model.fit(kind(dense), y, s).coef_, expected)
    np.testing.assert_allclose(model.predict(scipy.sparse.csr_array(dense)), model.predict(dense))


def test_one_hot_columns_depend_on_each_other(rng):
    kinds = rng.integers(0, 5, size=400)
    x = scipy.sparse.csr_matrix(np.eye(5)[kinds])
    y = np.array([1.0, 2.0, 3.0, 4.0, 5.0])[kinds]
    for solver in DIRECT:
        model = LinearRegression(solver=solver).fit(x, y)
        assert model.rank_ == 4
        # The least norm adds up to nothing.
        np.testing.assert_allclose(model.coef_, [-2.0, -1.0, 0.0, 1.0, 2.0], rtol=0, atol=1e-12)
        assert model.intercept_ == pytest.approx(3.0)


@pytest.mark.parametrize("solver", DIRECT)
def test_least_norm_is_that_of_the_coefficients_themselves(solver, rng):
    a, b = rng.normal(size=(2, 50))
    x = np.column_stack([a, b, 10 * b, np.full(50, 3.0)])
    model = LinearRegression(solver=solver).fit(x, 2 * a + 101 * b)
    np.testing.assert_allclose(model.coef_, [2.0, 1.0, 10.0, 0.0], rtol=1e-12, atol=1e-12)


def nearly_dependent(n, rng):
    """X of 30 columns with a condition of 10¹², and y that has nothing to do with them."""
    u, _ = np.linalg.qr(rng.normal(size=(n, 30)))
    v, _ = np.linalg.qr(rng.normal(size=(30, 30)))
    return u * np.logspace(0, -12, 30) @ v.T, rng.normal(size=n)


def check_what_was_computed(model):
    assert model.n_iter_ > 0
    assert np.all(np.isfinite(model.coef_))
    assert model.loss_curve_.shape == (model.n_iter_ + 1,)


def test_ctrl_c_keeps_the_steps_of_conjugate_gradients(rng, monkeypatch):
    reads, at = itertools.count(), Problem.at

    def interrupted_at(self, *args, **options):
        if next(reads) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return at(self, *args, **options)

    monkeypatch.setattr(Problem, "at", interrupted_at)
    model = LinearRegression(standardize=False, solver="cg", num_steps=10**9, tol=0.0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*nearly_dependent(1000, rng))
    check_what_was_computed(model)
    assert model.n_iter_ < 20


# They take minutes on any machine.
STEPS = [{"num_steps": 10**9}, {"num_steps": 10**8, "momentum": 0.5}]


@pytest.mark.parametrize("parameters", STEPS)
def test_ctrl_c_keeps_what_was_computed(parameters, rng):
    model = LinearRegression(standardize=False, learning_rate=1e-12, **parameters)
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(*nearly_dependent(1000, rng))
    finally:
        timer.cancel()
    check_what_was_computed(model)
