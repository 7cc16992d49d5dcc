"""LinearRegression is right, or says that it is not: on data that break lesser solvers."""

import warnings
from fractions import Fraction

import nist
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from linreg_ops import LinearRegression


def exact_line(x, y):
    """Slope and intercept of the least squares, in rational arithmetic of the given numbers."""
    x, y = [Fraction(float(v)) for v in x], [Fraction(float(v)) for v in y]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    slope = above / sum((a - mean_x) ** 2 for a in x)
    return float(slope), float(mean_y - slope * mean_x)


def fit(x, y, **parameters):
    """Fitted without a warning."""
    weight = parameters.pop("sample_weight", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return LinearRegression(**parameters).fit(x, y, sample_weight=weight)


SMALL_SPREAD = {
    "pressure in Pa": np.float32(101_300) + np.arange(53, dtype=np.float32) / 8,
    "longitudes": np.linspace(-122.4005, -122.3995, 200).astype(np.float32),
    "Kelvin": np.linspace(293.14, 293.16, 100).astype(np.float32),
    "Unix seconds within 20 minutes": (1.7e9 + np.arange(0, 1200, 7.0)).astype(np.float32),
    "10 µs around 1.7e9": 1.7e9 + np.linspace(-1e-5, 1e-5, 100),
}


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("name", SMALL_SPREAD)
def test_a_column_that_varies_little_around_a_large_value(name, standardize, rng):
    x = SMALL_SPREAD[name]
    spread = np.ptp(x.astype(np.float64))
    assert spread > 0
    y = 3.0 + (x.astype(np.float64) - float(x[0])) / spread + 0.01 * rng.normal(size=len(x))
    slope, intercept = exact_line(x, y)
    if name.startswith("10 µs"):
        # slope · 1.7e9 rounds by a hundredth of y's spread: R² loses 10⁻⁴, and that is said.
        with pytest.warns(scipy.linalg.LinAlgWarning, match="Predictions round at"):
            model = LinearRegression(standardize=standardize).fit(x[:, None], y)
    else:
        model = fit(x[:, None], y, standardize=standardize)
    np.testing.assert_allclose(model.coef_, [slope], rtol=1e-9)
    np.testing.assert_allclose(model.intercept_, intercept, rtol=1e-9)
    assert model.score(x[:, None], y) > 0.99


@pytest.mark.parametrize("value", [0.1, 14.62, 1 / 3])
@pytest.mark.parametrize("n", [1_000, 300_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parameters", [{}, {"solver": "cg"}, {"learning_rate": "auto"}])
def test_a_constant_column_has_coefficient_zero(value, n, dtype, parameters, rng):
    a = rng.normal(size=n).astype(dtype)
    x = np.column_stack([a, np.full(n, value, dtype)])
    model = fit(x, 2.0 * a + 5.0, **parameters)
    assert model.coef_[1] == 0.0
    np.testing.assert_allclose([model.coef_[0], model.intercept_], [2.0, 5.0], rtol=1e-5)


@pytest.mark.parametrize("solver", ["exact", "gram"])
@pytest.mark.parametrize("standardize", [True, False])
def test_a_constant_beside_nearly_dependent_columns_has_coefficient_zero(solver, standardize, rng):
    """Coefficients of millions, whose rounding reached the constant's: 3e-5 where 0 is right."""
    a = rng.normal(size=(41, 8)) * [100, 300, 0.1, 0.04, 50, 30, 0.002, 250]
    constants = np.full(41, 0.1), np.full(41, -1e6)
    parts = [a[:, :3], constants[0], a[:, 3:], 0.1 * a[:, 7], constants[1], a[:, 1]]
    x = np.column_stack(parts).astype(np.float32)
    y = 1.2e5 + a @ rng.normal(size=8) + rng.normal(size=41) * 100
    s = rng.uniform(size=41) * 3e-8
    model = fit(x, y, solver=solver, standardize=standardize, sample_weight=s)
    assert model.coef_[[3, 10]].tolist() == [0.0, 0.0]
    assert np.abs(model.coef_).max() > 1e4


def test_float32_errors_average_over_many_rows(rng):
    """600,000 rows, condition 840: stopped early, a coefficient was off by 6 standard errors."""
    base = rng.normal(size=(600_000, 4))
    base[:, 3] = base[:, 0] + base[:, 3] / 840
    x = base.astype(np.float32)
    y = x @ np.array([1.0, -2.0, 3.0, 0.5]) + rng.normal(size=len(x))
    wide = x.astype(np.float64)
    truth = np.linalg.lstsq(wide - wide.mean(0), y - y.mean(), rcond=None)[0]
    np.testing.assert_allclose(fit(x, y).coef_, truth, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("parameters", [{}, {"solver": "cg"}])
def test_columns_of_all_scales_and_offsets(dtype, standardize, parameters, rng):
    n = 200
    time = 1.7e9 + np.arange(n) * 1000.0
    x = np.column_stack([time, rng.normal(size=(n, 4)) * [1e-6, 1e-3, 1.0, 1e6]]).astype(dtype)
    wide = x.astype(np.float64)
    coef = 1 / wide.std(0)
    y = 1e6 + (wide - wide.mean(0)) @ coef + 0.1 * rng.normal(size=n)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LinearRegression(standardize=standardize, **parameters).fit(x, y)
    if any(issubclass(w.category, ConvergenceWarning) for w in caught):
        assert parameters  # the default is right, always
        return
    tolerance = 0.02 if parameters else 1e-8
    scaled = (wide - wide.mean(0)) / wide.std(0)
    truth = np.linalg.lstsq(scaled, y - y.mean(), rcond=None)[0] / wide.std(0)
    np.testing.assert_allclose(model.coef_ * wide.std(0), truth * wide.std(0), atol=tolerance)


def test_the_loss_is_of_the_residuals_of_what_is_returned(rng):
    x = rng.normal(size=(500, 3))
    y = x @ [1.0, 2.0, 3.0] + 1e-5 * rng.normal(size=500)
    for parameters in ({}, {"solver": "cg"}, {"learning_rate": "auto"}):
        model = fit(x, y, **parameters)
        residual = x @ model.coef_ + model.intercept_ - y
        assert model.loss_curve_[-1] == pytest.approx(0.5 * residual @ residual, rel=1e-6)
        assert model.loss_curve_[-1] > 1e-9


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [(np.float32, 3e17), (np.float32, 1e25), (np.float64, 1e153), (np.float64, 1e-200)],
)
def test_huge_and_tiny_y(dtype, factor, rng):
    x = rng.normal(size=(100, 3)).astype(dtype)
    y = ((x @ np.array([1.0, 2.0, 3.0]) + 0.01 * rng.normal(size=100)) * factor).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The loss", RuntimeWarning)
        model = LinearRegression().fit(x, y)
    np.testing.assert_allclose(model.coef_ / factor, [1.0, 2.0, 3.0], rtol=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [1e-36, 1e20, 1e35, 1e-150, 1e150])
@pytest.mark.parametrize("parameters", [{}, {"solver": "cg"}, {"learning_rate": "auto"}])
def test_a_common_factor_of_the_weights_cancels(dtype, factor, parameters, rng):
    if dtype is np.float32 and abs(np.log10(factor)) > 38:
        pytest.skip("not a float32")
    x, y = rng.normal(size=(100, 3)).astype(dtype), rng.normal(size=100).astype(dtype)
    s = rng.uniform(0.5, 2.0, size=100).astype(dtype)
    expected = fit(x, y, sample_weight=s).coef_
    found = fit(x, y, sample_weight=(s * dtype(factor)).astype(dtype), **parameters).coef_
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_nearly_dependent_columns(rng):
    """2000 x 40 of condition 2.4e7: after 1000 steps, a39 was -265 where it is -687."""
    u, _ = np.linalg.qr(rng.normal(size=(2000, 40)))
    v, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    x = u * np.logspace(0, -np.log10(2.4e7), 40) @ v
    y = x @ rng.normal(size=40) + 1e-3 * rng.normal(size=2000)
    truth = np.linalg.lstsq(x - x.mean(0), y - y.mean(), rcond=1e-15)[0]
    np.testing.assert_allclose(fit(x, y).coef_, truth, rtol=0, atol=1e-6 * np.abs(truth).max())


@pytest.mark.parametrize("name", sorted(nist.EXACT))
def test_as_many_of_nists_digits_as_lapack(name):
    x, y, intercept, w = nist.load(name)
    model = fit(x, y, fit_intercept=intercept)
    found = np.append(model.intercept_, model.coef_) if intercept else model.coef_
    ones = np.ones((len(y), int(intercept)))
    lapack = np.linalg.lstsq(np.hstack([ones, x]), y, rcond=None)[0]
    ours, theirs = (np.abs((v - w) / w).max() for v in (found, lapack))
    assert ours <= max(theirs, 1e-13)


def test_a_million_timestamps_within_a_millisecond(rng):
    x = 1.7e9 + np.sort(rng.uniform(0, 1e-3, size=1_000_000))
    y = (x - 1.7e9) * 1e3
    wide = x - 1.7e9  # exact
    truth = np.polyfit(wide, y, 1)[0]
    assert fit(x[:, None], y).coef_[0] == pytest.approx(truth, rel=1e-9)


@st.composite
def problems(draw):
    """Small, at scales and offsets that differ by column, with repeated columns and weights."""
    seed = draw(st.integers(0, 2**32 - 1))
    n, d = draw(st.integers(2, 59)), draw(st.integers(1, 19))
    rng = np.random.default_rng(seed)
    scale = 10.0 ** draw(st.lists(st.integers(-3, 3), min_size=d, max_size=d).map(np.array))
    offset = np.array(draw(st.lists(st.sampled_from([0.0, 1.0, 1e3, 1e6]), min_size=d, max_size=d)))
    x = rng.normal(size=(n, d)) * scale + offset
    if d > 1 and draw(st.booleans()):
        x[:, draw(st.integers(1, d - 1))] = x[:, 0]
    y = x / scale @ rng.normal(size=d) + rng.normal(size=n) * 10.0 ** draw(st.integers(-6, 1))
    s = rng.uniform(0.1, 2.0, size=n) if draw(st.booleans()) else None
    return x, y, s


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    problem=problems(),
    dtype=st.sampled_from([np.float32, np.float64]),
    standardize=st.booleans(),
    parameters=st.sampled_from([{}, {"solver": "cg"}, {"learning_rate": "auto"}]),
)
def test_no_fit_loses_r2_without_a_warning(problem, dtype, standardize, parameters):
    x, y, s = problem
    x, y = x.astype(dtype), y.astype(dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LinearRegression(standardize=standardize, **parameters)
        model.fit(x, y, sample_weight=s)
    warned = any(issubclass(w.category, ConvergenceWarning) for w in caught)
    assert not (warned and not parameters)
    if warned:
        return
    weight = np.ones(len(y)) if s is None else s
    wide, target = x.astype(np.float64), y.astype(np.float64)
    root = np.sqrt(weight)[:, None]
    centred = (wide - np.average(wide, axis=0, weights=weight)) * root
    length = np.linalg.norm(centred, axis=0)
    length[length == 0] = 1.0
    rest = (target - np.average(target, weights=weight)) * root[:, 0]
    least = rest - centred / length @ np.linalg.lstsq(centred / length, rest, rcond=1e-12)[0]
    ours = (model.predict(x) - target) * root[:, 0]
    total = rest @ rest
    if total > 0:
        assert (ours @ ours - least @ least) / total < 1e-4
