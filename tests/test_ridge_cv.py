"""RidgeCV against a refit for every fold and penalty, and against scikit-learn."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse
import sklearn.linear_model
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit
from sklearn.utils.estimator_checks import parametrize_with_checks

from linreg_ops import GramState, Ridge, RidgeCV

CHECKS = parametrize_with_checks(
    [
        RidgeCV(),
        RidgeCV(cv=3),
        RidgeCV(cv="gcv", alpha_per_target=True, fit_intercept=False),
        RidgeCV([0.0, 1.0, 100.0], cv=2, alpha_per_target=True, scoring="r2"),
    ]
)


@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.SkipTestWarning", "ignore:fit keeps no sums:UserWarning"
)
@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


ALPHAS = np.array([1e-3, 0.1, 3.0, 30.0, 1e3])


def data(rng, n=90, d=6, k=3):
    x = rng.normal(size=(n, d)) * [0.1, 1, 1, 2, 3, 10] + 20
    return x, x @ rng.normal(size=(d, k)) * [1.0, 0.1, 0.0] + rng.normal(size=(n, k))


# Two of the six columns of `data` are not shrunk.
PENALTY = np.array([0.01, 1.0, 0.0, 4.0, 0.0, 100.0])
PENALTIES = pytest.mark.parametrize("penalty", [None, PENALTY], ids=["", "by column"])


def refitted(x, y, s, alpha, train, test, intercept, penalty=None):
    """Squared errors [rows of test, k] of a fit to the rows of train, by LAPACK."""
    s_train = s[train]
    x_mean = s_train @ x[train] / s_train.sum() if intercept else np.zeros(x.shape[1])
    y_mean = s_train @ y[train] / s_train.sum() if intercept else np.zeros(y.shape[1])
    a, b = x[train] - x_mean, y[train] - y_mean
    own = np.ones(x.shape[1]) if penalty is None else penalty
    gram = a.T @ (s_train[:, None] * a) + alpha * np.diag(own)
    w = np.linalg.solve(gram, a.T @ (s_train[:, None] * b))
    return np.square((x[test] - x_mean) @ w - (y[test] - y_mean))


def by_refits(x, y, s, folds, *options):
    """The mean over folds of the weighted mean squared error: [penalties, k]."""
    errors = []
    for test in folds:
        train = np.setdiff1d(np.arange(len(x)), test)
        errors.append(
            [
                np.average(refitted(x, y, s, a, train, test, *options), axis=0, weights=s[test])
                for a in ALPHAS
            ]
        )
    return np.mean(errors, axis=0)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("cv", [5, KFold(4, shuffle=True, random_state=1)])
@PENALTIES
def test_folds_are_refits(penalty, cv, weighted, intercept, rng):
    x, y = data(rng)
    s = rng.uniform(size=90) if weighted else None
    options = {"penalty": penalty, "fit_intercept": intercept}
    model = RidgeCV(ALPHAS, cv=cv, alpha_per_target=True, **options).fit(x, y, s)
    splitter = KFold(5) if cv == 5 else cv
    folds = [test for _, test in splitter.split(x)]
    expected = by_refits(x, y, np.ones(90) if s is None else s, folds, intercept, penalty)
    np.testing.assert_allclose(-model.scores_, expected, rtol=1e-10)
    best = expected.argmin(axis=0)
    assert len(set(best)) > 1
    np.testing.assert_array_equal(model.alpha_, ALPHAS[best])
    np.testing.assert_allclose(model.best_score_, -expected.min(axis=0), rtol=1e-10)
    assert model.n_reads_ == 1
    final = Ridge(model.alpha_, **options).fit(x, y, s)
    np.testing.assert_allclose(model.coef_, final.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.intercept_, final.intercept_, rtol=1e-9)
    assert model.loss_ == pytest.approx(final.loss_, rel=1e-9)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@PENALTIES
def test_leave_one_out_is_refits(penalty, weighted, intercept, rng):
    x, y = data(rng, n=40)
    s = rng.uniform(0.5, 2, size=40) if weighted else np.ones(40)
    given = s if weighted else None
    options = {"penalty": penalty, "fit_intercept": intercept}
    model = RidgeCV(ALPHAS, alpha_per_target=True, **options).fit(x, y, given)
    squares = np.empty((40, len(ALPHAS), 3))
    for i in range(40):
        train = np.delete(np.arange(40), i)
        for j, alpha in enumerate(ALPHAS):
            squares[i, j] = refitted(x, y, s, alpha, train, [i], intercept, penalty)[0]
    expected = np.average(squares, axis=0, weights=s)
    np.testing.assert_allclose(-model.scores_, expected, rtol=1e-9)
    np.testing.assert_array_equal(model.alpha_, ALPHAS[expected.argmin(axis=0)])
    assert model.n_reads_ == 2


@PENALTIES
def test_generalised_cross_validation_is_its_formula(penalty, rng):
    x, y = data(rng)
    model = RidgeCV(ALPHAS, penalty=penalty, cv="gcv").fit(x, y)
    own = np.ones(6) if penalty is None else penalty
    a = x - x.mean(0)
    for score, alpha in zip(model.scores_, ALPHAS, strict=True):
        hat = a @ np.linalg.solve(a.T @ a + alpha * np.diag(own), a.T) + 1 / 90
        r = y - hat @ y
        expected = np.mean(r**2, axis=0) / (1 - np.trace(hat) / 90) ** 2
        np.testing.assert_allclose(-score, expected, rtol=1e-10)
    assert isinstance(model.alpha_, float)
    assert model.best_score_ == pytest.approx(model.scores_.mean(axis=1).max())


@pytest.mark.parametrize("scoring", ["neg_mean_squared_error", "r2"])
def test_as_a_grid_search_of_scikit_learn_chooses(scoring, rng):
    x, y = data(rng)
    theirs = GridSearchCV(
        sklearn.linear_model.Ridge(), {"alpha": ALPHAS}, cv=5, scoring=scoring
    ).fit(x, y)
    ours = RidgeCV(ALPHAS, cv=5, scoring=scoring).fit(x, y)
    expected = theirs.cv_results_["mean_test_score"]
    np.testing.assert_allclose(ours.scores_.mean(axis=1), expected, rtol=1e-9, atol=1e-12)
    assert ours.alpha_ == theirs.best_params_["alpha"]
    np.testing.assert_allclose(ours.coef_, theirs.best_estimator_.coef_, rtol=1e-9)


@pytest.mark.parametrize("per_target", [True, False])
def test_as_scikit_learns_ridge_cv(per_target, rng):
    x, y = data(rng)
    theirs = sklearn.linear_model.RidgeCV(ALPHAS, alpha_per_target=per_target).fit(x, y)
    ours = RidgeCV(ALPHAS, alpha_per_target=per_target).fit(x, y)
    np.testing.assert_array_equal(ours.alpha_, theirs.alpha_)
    np.testing.assert_allclose(ours.best_score_, theirs.best_score_, rtol=1e-10)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-9)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-9)


def test_one_target_gives_one_penalty(rng):
    x, y = data(rng)
    model = RidgeCV(ALPHAS, alpha_per_target=True, cv=5).fit(x, y[:, 0])
    assert isinstance(model.alpha_, float)
    assert model.scores_.shape == (5,)
    assert model.coef_.shape == (6,)


def test_penalties_below_an_eigendecompositions_rounding(rng):
    """Columns from 10⁻⁶ to 10⁶: beside the largest, the smallest is rounding of eigenvalues."""
    x = rng.normal(size=(80, 4)) * [1e-6, 1, 1e3, 1e6]
    y = (x / [1e-6, 1, 1e3, 1e6]).sum(axis=1, keepdims=True) + 0.1 * rng.normal(size=(80, 1))
    alphas = np.array([0.0, 1e-13, 1e-9, 1e-3, 1e12])
    folds = [test for _, test in KFold(4).split(x)]
    expected = []
    for alpha in alphas:
        errors = []
        for test in folds:
            train = np.setdiff1d(np.arange(80), test)
            a, mean = x[train] - x[train].mean(0), y[train].mean(0)
            # Scaled columns, so that LAPACK sees no extremes.
            scale = np.array([1e-6, 1, 1e3, 1e6])
            gram = (a / scale).T @ (a / scale) + alpha * np.diag(scale**-2.0)
            w = np.linalg.solve(gram, (a / scale).T @ (y[train] - mean)) / scale[:, None]
            r = (x[test] - x[train].mean(0)) @ w - (y[test] - mean)
            errors.append(np.mean(r**2))
        expected.append(np.mean(errors))
    model = RidgeCV(alphas, cv=4).fit(x, y[:, 0])
    np.testing.assert_allclose(-model.scores_, expected, rtol=1e-9)
    assert model.alpha_ in (0.0, 1e-13)
    np.testing.assert_allclose(model.coef_ * [1e-6, 1, 1e3, 1e6], 1.0, atol=0.1)


@pytest.mark.parametrize("cv", [4, "gcv", None])
def test_a_penalty_of_columns_is_one_of_scaled_columns(cv, rng):
    """And those of penalty 0 may depend on each other, or be all there are."""
    x, y = data(rng)
    alphas = np.append(ALPHAS, [1e-14, 1e14])  # of which one is below the decomposition's rounding
    scale = np.array([1e-3, 1.0, 1e3, 1.0, 10.0, 0.1])
    options = {"cv": cv, "alpha_per_target": True}
    plain = RidgeCV(alphas, **options).fit(x, y)
    scaled = RidgeCV(alphas, penalty=scale**2, **options).fit(x * scale, y)
    np.testing.assert_allclose(scaled.scores_, plain.scores_, rtol=1e-9)
    np.testing.assert_allclose(scaled.coef_ * scale, plain.coef_, rtol=1e-8)

    penalty = [0.0, 0.0, *np.ones(5)]
    once = RidgeCV(alphas, penalty=penalty[1:], **options).fit(x, y)
    twice = RidgeCV(alphas, penalty=penalty, **options).fit(np.column_stack([x[:, 0], x]), y)
    np.testing.assert_allclose(twice.scores_, once.scores_, rtol=1e-8)
    np.testing.assert_allclose(twice.coef_[:, 1] * 2, once.coef_[:, 0], rtol=1e-7)

    none = RidgeCV(alphas, penalty=np.zeros(6), **options).fit(x, y)
    alone = RidgeCV([0.0], **options).fit(x, y)
    np.testing.assert_allclose(none.scores_, np.tile(alone.scores_, (7, 1)), rtol=1e-9)
    np.testing.assert_allclose(none.coef_, alone.coef_, rtol=1e-9)


def test_penalties_of_columns_beyond_what_a_decomposition_holds(rng):
    x, y = data(rng)
    extreme = RidgeCV([1.0, 10.0], penalty=[1e-320, 1.0, 1.0, 1.0, 1.0, 1e300], cv=3).fit(x, y)
    as_good = RidgeCV([1.0, 10.0], penalty=[0.0, 1.0, 1.0, 1.0, 1.0, 1e18], cv=3).fit(x, y)
    np.testing.assert_allclose(extreme.scores_, as_good.scores_, rtol=1e-9)
    np.testing.assert_allclose(extreme.coef_, as_good.coef_, atol=1e-9)


@pytest.mark.parametrize("cv", [5, None])
def test_more_columns_than_rows(cv, rng):
    x, y = rng.normal(size=(30, 60)), rng.normal(size=30)
    theirs = sklearn.linear_model.RidgeCV([1e-2, 1.0, 10.0], cv=cv).fit(x, y)
    ours = RidgeCV([1e-2, 1.0, 10.0], cv=cv).fit(x, y)
    np.testing.assert_allclose(
        ours.coef_, sklearn.linear_model.Ridge(ours.alpha_).fit(x, y).coef_, rtol=1e-8, atol=1e-12
    )
    if cv is None:
        assert ours.alpha_ == theirs.alpha_
        assert ours.best_score_ == pytest.approx(theirs.best_score_, rel=1e-8)


def test_half_precision_and_sparse_rows(rng):
    x = (rng.normal(size=(300, 6)) * (rng.random((300, 6)) < 0.3)).astype(np.float16)
    y = rng.normal(size=300)
    wide = RidgeCV(ALPHAS, cv=3).fit(x.astype(np.float64), y)
    np.testing.assert_array_equal(RidgeCV(ALPHAS, cv=3).fit(x, y).coef_, wide.coef_)
    sparse = RidgeCV(ALPHAS, cv=3).fit(scipy.sparse.csr_matrix(x.astype(np.float64)), y)
    np.testing.assert_array_equal(sparse.coef_, wide.coef_)


@pytest.mark.parametrize("order", ["C", "F"])
def test_x_is_not_copied(order, rng):
    x = np.asarray(rng.normal(size=(250_000, 128)).astype(np.float16), order=order)
    y = rng.normal(size=250_000).astype(np.float32)
    tracemalloc.start()
    RidgeCV(ALPHAS, cv=5).fit(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * x.nbytes


@pytest.mark.parametrize("cv", [3, "gcv"])
def test_batches(cv, rng):
    x, y = data(rng, n=900)
    whole = RidgeCV(ALPHAS, cv=cv, alpha_per_target=True)
    whole.fit_state(GramState(3 if cv == 3 else 1).update(x, y))
    parts = RidgeCV(ALPHAS, cv=cv, alpha_per_target=True)
    for rows in (slice(0, 650), slice(650, 900)):
        parts.partial_fit(x[rows], y[rows])
    np.testing.assert_array_equal(parts.coef_, whole.coef_)
    np.testing.assert_array_equal(parts.scores_, whole.scores_)
    with pytest.raises(ValueError, match=r"cv=None needs X itself, by fit"):
        RidgeCV().fit_state(whole.state_)
    with pytest.raises(ValueError, match=r"cv=4 needs a state of as many folds"):
        RidgeCV(cv=4).fit_state(whole.state_)
    assert not hasattr(RidgeCV(), "partial_fit")


def test_folds_that_are_not_one_for_each_row(rng):
    x, y = data(rng)
    with pytest.raises(ValueError, match="cv must hold each row in one test set"):
        RidgeCV(cv=ShuffleSplit(3)).fit(x, y)
    with pytest.raises(ValueError, match="cv=91 folds need as many rows, got n_samples = 90"):
        RidgeCV(cv=91).fit(x, y)
    with pytest.raises(ValueError, match="no penalty in alphas has a finite error"):
        RidgeCV([0.0], cv="gcv").fit(x[:5], y[:5])
    groups = np.repeat(np.arange(9), 10)
    model = RidgeCV(ALPHAS, cv=list(GroupKFold(3).split(x, y, groups))).fit(x, y)
    assert model.alpha_ in ALPHAS


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alphas": [-1.0]}, "alphas must not be negative, infinite or NaN"),
        ({"alphas": []}, "alphas must be a list of penalties"),
        ({"penalty": [-1.0]}, "penalty must not be negative, infinite or NaN, got -1.0"),
        ({"penalty": [1.0, 2.0], "cv": 3}, r"shape \[1\], got shape \[2\]"),
        ({"alphas": [1.0, 1e200], "penalty": [1e200]}, "alpha times penalty must be a float64"),
        ({"alphas": 1.0}, "alphas must be a list of penalties"),
        ({"cv": 1}, "cv must be an integer >= 2, got 1"),
        ({"cv": 2.5}, "cv must be an integer >= 2, got 2.5"),
        ({"cv": "loo"}, "cv must be None, 'gcv', an integer or a splitter, got 'loo'"),
        ({"scoring": "accuracy"}, "scoring must be one of"),
    ],
)
def test_arguments(parameters, message):
    with pytest.raises(ValueError, match=message):
        RidgeCV(**parameters).fit([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0])
