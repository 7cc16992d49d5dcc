"""Ridge against scikit-learn, and against least squares with the penalty written out as rows."""

import numpy as np
import pytest
import scipy.sparse
import sklearn.linear_model
from sklearn.utils.estimator_checks import parametrize_with_checks

from linreg_ops import LinearRegression, Ridge, reference

SOLVERS = ["exact", "gram", "cg"]
CHECKS = parametrize_with_checks(
    [Ridge(), Ridge(solver="gram"), Ridge(alpha=0.1, solver="cg", fit_intercept=False)]
)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def written_out(x, y, s, alpha, intercept):
    """The penalty as rows of data, in long double up to the factorisation."""
    x, y = x.astype(np.longdouble), y.astype(np.longdouble)
    mean = (s @ x) / s.sum() if intercept else np.zeros(x.shape[1])
    mean_y = (s @ y) / s.sum() if intercept else 0.0
    root = np.sqrt(s.astype(np.longdouble))
    rows = np.vstack([root[:, None] * (x - mean), np.sqrt(alpha) * np.eye(x.shape[1])])
    targets = np.concatenate([root * (y - mean_y), np.zeros(x.shape[1])])
    coef = reference.least_squares(rows.astype(float), targets.astype(float))
    return coef, float(mean_y - mean @ coef)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1e-6, 1.0, 1e6])
def test_the_penalty_is_rows_of_data(alpha, weighted, intercept, dtype, solver, rng):
    x = (rng.normal(size=(80, 5)) * [1e-3, 1, 1, 1, 1e3] + 100).astype(dtype)
    y = rng.normal(size=80)
    s = rng.uniform(size=80) * 1e-20 if weighted else None
    alpha = alpha * (1e-20 if weighted else 1)
    model = Ridge(alpha, fit_intercept=intercept, solver=solver).fit(x, y, s)
    weight = np.ones(80) if s is None else s
    coef, constant = written_out(x, y, weight, alpha, intercept)
    np.testing.assert_allclose(model.coef_, coef, rtol=1e-8, atol=1e-10 * np.abs(coef).max())
    assert model.intercept_ == pytest.approx(constant, rel=1e-8, abs=1e-9)
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
        ({"solver": "gd"}, "solver='gd' has no penalty"),
    ],
)
def test_arguments(parameters, message):
    with pytest.raises(ValueError, match=message):
        Ridge(**parameters).fit([[1.0], [2.0]], [1.0, 2.0])
