"""Ridge against scikit-learn, and against least squares with the penalty written out as rows."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn.linear_model
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import parametrize_with_checks

from linreg_ops import GramState, LinearRegression, Ridge, reference

SOLVERS = ["exact", "gram", "cg"]
CHECKS = parametrize_with_checks(
    [Ridge(), Ridge(solver="gram"), Ridge(alpha=0.1, solver="cg", fit_intercept=False)]
)


@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.SkipTestWarning", "ignore:fit keeps no sums:UserWarning"
)
@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("penalty", [None, [1e-4, 0.0, 1.0, 0.0, 1e4]])
def test_the_penalty_is_rows_of_data(penalty, alpha, weighted, intercept, dtype, solver, rng):
    x = (rng.normal(size=(80, 5)) * [1e-3, 1, 1, 1, 1e3] + 100).astype(dtype)
    y = rng.normal(size=80)
    s = rng.uniform(size=80) * 1e-20 if weighted else None
    alpha = alpha * (1e-20 if weighted else 1)
    model = Ridge(alpha, penalty=penalty, fit_intercept=intercept, solver=solver).fit(x, y, s)
    weight = np.ones(80) if s is None else s
    options = {"penalty": penalty, "intercept": intercept, "sample_weight": s}
    true = reference.ridge(x, y, alpha, **options)
    coef = true[int(intercept) :]
    np.testing.assert_allclose(model.coef_, coef, rtol=1e-8, atol=1e-10 * np.abs(coef).max())
    assert model.intercept_ == pytest.approx(true[0] if intercept else 0.0, rel=1e-8, abs=1e-9)
    r = x.astype(np.longdouble) @ model.coef_ + model.intercept_ - y
    assert model.loss_ == pytest.approx(float(0.5 * weight @ r**2), rel=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_penalty_for_each_target(solver, rng):
    x, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 5))
    alpha = np.array([0.0, 10.0, 1e-3, 10.0, 1e3])
    model = Ridge(alpha, solver=solver).fit(x, y)
    for t in range(5):
        alone = sklearn.linear_model.Ridge(alpha[t]).fit(x, y[:, t])
        np.testing.assert_allclose(model.coef_[t], alone.coef_, rtol=1e-8)
        assert model.intercept_[t] == pytest.approx(alone.intercept_, rel=1e-8)


def test_a_penalty_for_each_target_takes_no_more_reads(rng):
    x, y = rng.normal(size=(100_000, 4)), rng.normal(size=(100_000, 3))
    one = Ridge(1.0, solver="gram").fit(x, y).n_reads_
    assert Ridge([1.0, 2.0, 3.0], solver="gram").fit(x, y).n_reads_ == one == 2


@pytest.mark.parametrize("solver", SOLVERS)
def test_more_columns_than_rows(solver, rng):
    x, y = rng.normal(size=(20, 50)), rng.normal(size=20)
    model = Ridge(0.5, solver=solver).fit(x, y)
    other = sklearn.linear_model.Ridge(0.5, solver="cholesky").fit(x, y)
    np.testing.assert_allclose(model.coef_, other.coef_, rtol=1e-8)


@st.composite
def problems(draw):
    """Columns of all scales and offsets, and penalties in their units, of which some are zero."""
    n, d, k = draw(st.integers(8, 60)), draw(st.integers(1, 8)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** rng.integers(-3, 4, size=d)
    x = (rng.normal(size=(n, d)) + rng.choice([0.0, 1.0, 100.0], size=d)) * scale
    y = x / scale @ rng.normal(size=(d, k)) + rng.normal(size=(n, k))
    weight = draw(st.sampled_from([0.0, 1e-3, 1.0, 1e3, 1e12]))
    penalty = rng.choice([0.0, weight, 1.0], size=d) * scale**2
    s = rng.uniform(0.1, 2.0, size=n) if draw(st.booleans()) else None
    alpha = rng.choice([0.1, 1.0, 30.0], size=k) * n
    return x, y, s, alpha, penalty, scale


@settings(max_examples=200, deadline=None, derandomize=True)
@given(problem=problems(), intercept=st.booleans(), how=st.sampled_from([*SOLVERS, "sums"]))
def test_a_penalty_for_each_column(problem, intercept, how):
    x, y, s, alpha, penalty, scale = problem
    if how == "cg":
        penalty = np.clip(
            penalty, 0, 1e3 * scale**2
        )  # beyond that it says that it has not converged
    model = Ridge(alpha, penalty=penalty, fit_intercept=intercept)
    if how == "sums":
        model.fit_state(GramState().update(x, y, s))
    else:
        model.set_params(solver=how).fit(x, y, s)
    true = reference.ridge(x, y, alpha, penalty=penalty, intercept=intercept, sample_weight=s)
    constant = np.broadcast_to(model.intercept_, (1, y.shape[1]))
    found = np.vstack([constant, model.coef_.T])[int(not intercept) :]
    unit = np.append(np.ones(int(intercept)), scale)[:, None]
    np.testing.assert_allclose(found * unit, true * unit, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("solver", SOLVERS)
def test_columns_without_a_penalty_are_as_if_fitted_alone(solver, rng):
    """As the others' penalty grows; among them two that depend on each other: the least norm."""
    x, y = rng.normal(size=(60, 5)), rng.normal(size=60)
    alone = LinearRegression().fit(x[:, :2], y)
    ridge = Ridge(1.0, penalty=[0.0, 0.0, 1e12, 1e12, 1e12], solver=solver).fit(x, y)
    np.testing.assert_allclose(ridge.coef_[:2], alone.coef_, rtol=1e-9)
    np.testing.assert_allclose(ridge.coef_[2:], 0.0, atol=1e-10)
    if solver == "cg":
        return
    twice = np.column_stack([x, x[:, 0]])
    both = Ridge(1.0, penalty=[0.0, 0.0, 1.0, 1.0, 1.0, 0.0], solver=solver).fit(twice, y)
    once = Ridge(1.0, penalty=[0.0, 0.0, 1.0, 1.0, 1.0], solver=solver).fit(x, y)
    expected = once.coef_ * [0.5, 1, 1, 1, 1]
    np.testing.assert_allclose(both.coef_, np.append(expected, expected[0]), rtol=1e-9)
    assert both.rank_ == 5


def test_a_penalty_with_names_has_those_of_the_columns(rng):
    x = pd.DataFrame(rng.normal(size=(20, 3)), columns=["a", "b", "c"])
    y, values = rng.normal(size=20), [0.0, 1.0, 100.0]
    named = Ridge(penalty=pd.Series(values, index=x.columns)).fit(x, y)
    plain = Ridge(penalty=pd.Series(values)).fit(x, y)
    np.testing.assert_array_equal(named.coef_, plain.coef_)
    with pytest.raises(ValueError, match=r"order of X's columns, \['a', 'b', 'c'\], got \['c'"):
        Ridge(penalty=pd.Series(values, index=["c", "b", "a"])).fit(x, y)


def test_a_penalty_of_zeros_is_none(rng):
    x, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    ridge, plain = Ridge(5.0, penalty=np.zeros(3)).fit(x, y), LinearRegression().fit(x, y)
    np.testing.assert_array_equal(ridge.coef_, plain.coef_)
    assert str(ridge.summary()) == str(plain.summary())


@pytest.mark.parametrize("solver", ["exact", "gram"])  # "cg" warns that it stopped early
def test_goes_to_the_least_norm(solver, rng):
    """As the penalty vanishes, so does the difference to what LinearRegression calls least norm."""
    a = rng.normal(size=(60, 3))
    x = np.column_stack([a, 10 * a[:, 0]])
    y = a @ [101.0, 2.0, 3.0]
    coef = Ridge(1e-6, solver=solver).fit(x, y).coef_
    np.testing.assert_allclose(coef, LinearRegression().fit(x, y).coef_, rtol=1e-6)


def test_sparse_rows(rng):
    x = rng.normal(size=(200, 6)) * (rng.random((200, 6)) < 0.3)
    y = rng.normal(size=200)
    np.testing.assert_array_equal(
        Ridge(2.0).fit(scipy.sparse.csr_matrix(x), y).coef_, Ridge(2.0).fit(x, y).coef_
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": -1.0}, r"alpha must not be negative, infinite or NaN, got -1.0"),
        ({"alpha": np.nan}, r"alpha must not be negative, infinite or NaN, got nan"),
        ({"alpha": [1.0, 2.0]}, r"one entry per target, shape \[1\], got shape \[2\]"),
        ({"penalty": [1.0, 2.0]}, r"one entry per column of X, shape \[1\], got shape \[2\]"),
        ({"penalty": 1.0}, r"one entry per column of X, shape \[1\], got shape \[\]"),
        ({"penalty": [-1.0]}, "penalty must not be negative, infinite or NaN, got -1.0 for column"),
        ({"penalty": [np.nan]}, "penalty must not be negative, infinite or NaN, got nan"),
        ({"penalty": [np.inf]}, "penalty must not be negative, infinite or NaN, got inf"),
        ({"alpha": 1e200, "penalty": [1e200]}, "alpha times penalty must be a float64"),
        ({"solver": "gd"}, "solver='gd' has no penalty"),
    ],
)
def test_arguments(parameters, message):
    with pytest.raises(ValueError, match=message):
        Ridge(**parameters).fit([[1.0], [2.0]], [1.0, 2.0])
