"""LinearRegression keeps scikit-learn's promises, and finds the least squares."""

import inspect
import pickle
import subprocess
import sys
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import sklearn.linear_model
import tensorflow as tf
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from linreg_ops import LinearRegression, Ridge, RidgeCV, kernels, reference
from linreg_ops._arguments import INSTEAD
from linreg_ops.training import DivergenceError

NEVER_CONVERGED = "ignore::sklearn.exceptions.ConvergenceWarning"
BEGINS_ANEW = "ignore:fit keeps no sums:UserWarning"


CHECKS = parametrize_with_checks(
    [
        LinearRegression(),
        LinearRegression(standardize=False),
        LinearRegression(fit_intercept=False),
        LinearRegression(solver="gram"),
        LinearRegression(solver="cg"),
        LinearRegression(learning_rate="auto"),
        LinearRegression(learning_rate="auto", momentum=0.9, standardize=False),
    ]
)


@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.SkipTestWarning", NEVER_CONVERGED, BEGINS_ANEW
)
# A list: scikit-learn 1.7, the last for Python 3.10, gives a generator, of which pytest 9 warns.
@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("targets", [None, 1, 3])
def test_finds_the_least_squares(dtype, standardize, fit_intercept, weighted, targets, rng):
    x = rng.normal(size=(200, 6)).astype(dtype)
    y = rng.normal(size=200 if targets is None else (200, targets)).astype(dtype)
    s = rng.uniform(size=200).astype(dtype) if weighted else None
    model = LinearRegression(standardize=standardize, fit_intercept=fit_intercept)
    model.fit(x, y, sample_weight=s)
    w = reference.least_squares(x, y, intercept=fit_intercept, sample_weight=s)
    coef = w[1:] if fit_intercept else w
    np.testing.assert_allclose(model.coef_, coef.T, rtol=0, atol=1e-13)
    assert model.coef_.dtype == np.float64
    assert model.coef_.shape == ((6,) if targets is None else (targets, 6))
    if fit_intercept:
        np.testing.assert_allclose(model.intercept_, w[0], rtol=0, atol=1e-13)
        assert np.shape(model.intercept_) == (() if targets is None else (targets,))
    else:
        assert model.intercept_ == 0.0
    assert model.n_features_in_ == 6


def test_diabetes_as_scikit_learn_fits_it():
    x, y = load_diabetes(return_X_y=True, scaled=False)
    ours = LinearRegression().fit(x, y)
    theirs = sklearn.linear_model.LinearRegression().fit(x, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-8)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, rel=1e-8)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), rel=1e-12)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-9)


def test_standardizing_makes_scales_harmless(rng):
    scales = np.logspace(-6, 6, 5)
    x = rng.normal(size=(300, 5)) * scales + 100 * scales
    coef = np.array([1.0, -2.0, 3.0, -4.0, 5.0]) / scales
    model = LinearRegression().fit(x, x @ coef + 7.0)
    np.testing.assert_allclose(model.coef_, coef, rtol=1e-7)
    assert model.intercept_ == pytest.approx(7.0, abs=1e-5)
    assert model.n_iter_ <= 10


def test_constant_and_repeated_columns_get_the_least_norm(rng):
    a, b = rng.normal(size=(2, 50))
    x = np.column_stack([a, np.full(50, 3.7), b, b])
    y = 2.0 * a + 4.0 * b + 1.0
    model = LinearRegression().fit(x, y)
    np.testing.assert_allclose(model.coef_, [2.0, 0.0, 2.0, 2.0], rtol=0, atol=1e-9)
    assert model.intercept_ == pytest.approx(1.0)


def test_more_columns_than_rows(rng):
    x, y = rng.normal(size=(10, 30)), rng.normal(size=10)
    model = LinearRegression(fit_intercept=False, standardize=False).fit(x, y)
    np.testing.assert_allclose(model.coef_, np.linalg.pinv(x) @ y, rtol=0, atol=1e-9)


def test_zero_weights_remove_rows(rng):
    x, y = rng.normal(size=(50, 3)), rng.normal(size=50)
    s = np.repeat([1.0, 0.0], 25)
    removed = LinearRegression().fit(x[:25], y[:25])
    for value in (1e6, 1e300):
        y[25:] = value
        weighted = LinearRegression().fit(x, y, sample_weight=s)
        np.testing.assert_allclose(weighted.coef_, removed.coef_, rtol=1e-8)
        assert weighted.loss_ == pytest.approx(removed.loss_, rel=1e-12)


@pytest.mark.parametrize("solver", ["exact", "gram", "cg"])
def test_x_is_never_copied(solver, rng):
    x, y = rng.normal(size=(1_000_000, 16)).astype(np.float32), np.ones(1_000_000, np.float32)
    for order in "CF":
        x = np.asarray(x, order=order)
        tracemalloc.start()
        LinearRegression(solver=solver).fit(x, y)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # y in float64 a time or two, and blocks of a few MiB.
        assert peak < 0.5 * x.nbytes


def test_descent_copies_x_to_standardize_it_only(rng):
    x, y = rng.normal(size=(1_000_000, 16)).astype(np.float32), np.ones(1_000_000, np.float32)
    for standardize, copies in ((True, 1), (False, 0)):
        model = LinearRegression(standardize=standardize, learning_rate=1e-7, num_steps=3)
        tracemalloc.start()
        with pytest.warns(ConvergenceWarning):
            model.fit(x, y + x[:, 0])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (copies + 0.5) * x.nbytes


def test_loss_curve_is_the_loss(rng):
    x, y = rng.normal(size=(60, 4)), rng.normal(size=60)
    model = LinearRegression(standardize=False).fit(x, y)
    assert len(model.loss_curve_) == model.n_iter_ + 1
    assert model.loss_curve_[0] == pytest.approx(0.5 * y @ y)
    w = np.append(model.intercept_, model.coef_)
    loss = reference.linear_l2_loss(x, w, y, intercept=True)
    assert model.loss_curve_[-1] == pytest.approx(loss, rel=1e-12)
    assert np.all(np.diff(model.loss_curve_) <= 0)


@pytest.mark.filterwarnings(NEVER_CONVERGED)
@pytest.mark.parametrize("rate", [0.001, np.linspace(0.002, 0.001, 30)])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_a_learning_rate_means_gradient_descent(rate, momentum, rng):
    x, y = rng.normal(size=(60, 4)), rng.normal(size=60)
    model = LinearRegression(
        learning_rate=rate, num_steps=30, momentum=momentum, standardize=False
    ).fit(x, y)
    w, losses = reference.gradient_descent(
        x, np.zeros(5), y, rate, 30, intercept=True, momentum=momentum
    )
    np.testing.assert_allclose(np.append(model.intercept_, model.coef_), w, rtol=1e-12)
    np.testing.assert_allclose(model.loss_curve_, losses, rtol=1e-12)
    assert model.n_iter_ == 30


def test_automatic_rate_converges(rng):
    x = rng.normal(size=(500, 5))
    y = x @ np.arange(5.0) + 0.1 * rng.normal(size=500) + 3.0
    model = LinearRegression(learning_rate="auto").fit(x, y)
    largest = np.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)) / x.var(0)).max()
    assert 0.9 < model.learning_rate_ * largest < 1.1
    w = reference.least_squares(x, y, intercept=True)
    np.testing.assert_allclose(model.coef_, w[1:], rtol=0, atol=1e-9)


def test_too_few_steps_warn(rng):
    x, y = rng.normal(size=(60, 4)), rng.normal(size=60)
    with pytest.warns(ConvergenceWarning, match=r"after 2 steps of 'cg'. Increase num_steps"):
        model = LinearRegression(solver="cg", num_steps=2).fit(x, y)
    assert model.n_iter_ == 2


def test_divergence_names_the_step_and_keeps_the_weights(rng):
    x, y = rng.normal(size=(60, 4)) + 5.0, rng.normal(size=60)
    with pytest.raises(DivergenceError, match="The learning rate is too large") as caught:
        LinearRegression(learning_rate=1.0, standardize=False).fit(x, y)
    error = caught.value
    expected, losses = kernels.gradient_descent(
        x, np.zeros((5, 1)), y[:, None], 1.0, error.step - 1, intercept=True
    )
    np.testing.assert_array_equal(error.w, expected)
    assert np.isfinite(losses).all()


def test_divergence_on_standardized_columns_keeps_weights_of_the_data(rng):
    # In float32 it diverges long before the loss in the data's units is too large for a float64.
    x, y = (3.0 * rng.normal(size=(60, 2)) + 50.0).astype("f4"), rng.normal(size=60).astype("f4")
    with pytest.raises(DivergenceError) as caught:
        LinearRegression(learning_rate=1.0).fit(x, y)
    error = caught.value
    w = error.w.astype(np.longdouble)
    loss = np.sum((w[0] + x @ w[1:] - y[:, None]) ** 2) / 2
    assert float(loss / error.losses[-2]) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_steps": -1}, "num_steps must be an integer >= 0, got -1"),
        ({"num_steps": 2.5}, "num_steps must be an integer >= 0, got 2.5"),
        ({"momentum": 1.0, "learning_rate": 0.1}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": 0.5}, "momentum needs a learning_rate"),
        ({"tol": -1e-3}, "tol must be >= 0, got -0.001"),
        ({"tol": float("nan")}, "tol must be >= 0, got nan"),
        ({"learning_rate": "fast"}, "learning_rate must be None, 'auto' or numbers, got 'fast'"),
        ({"learning_rate": -0.1}, "learning_rate must be positive, got -0.1"),
        ({"solver": "svd"}, "solver must be one of auto, exact, gram, cg, gd, got 'svd'"),
        ({"solver": "gram", "learning_rate": 0.1}, "learning_rate is of solver='gd', not 'gram'"),
        ({"learning_rate": [0.1, 0.1], "num_steps": 3}, "learning_rate"),
    ],
)
def test_parameters_out_of_range(parameters, message):
    with pytest.raises(ValueError, match=message):
        LinearRegression(**parameters).fit([[1.0], [2.0]], [1.0, 2.0])


@pytest.mark.parametrize("model", [LinearRegression, Ridge, RidgeCV])
def test_arguments_of_scikit_learn_that_are_absent(model, repository):
    """What its models take is taken here too, or refused with what to do, which a page lists."""
    theirs = inspect.signature(getattr(sklearn.linear_model, model.__name__)).parameters
    absent = set(theirs) - set(inspect.signature(model).parameters)
    assert {"copy_X", "positive"} & absent or model is RidgeCV
    page = (repository / "docs/which-solver.md").read_text()
    for name in absent | {"n_jobs", "warm_start"}:
        with pytest.raises(TypeError, match=f"{model.__name__} has no {name}: {INSTEAD[name]}"):
            model(**{name: 1})
        assert f"`{name}`" in page


def test_every_absent_argument_is_named_and_others_are_pythons():
    with pytest.raises(TypeError, match=r"no copy_X: [^;]*; no n_jobs: "):
        LinearRegression(copy_X=False, n_jobs=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_job'"):
        LinearRegression(n_job=2)


def test_x_is_not_written_to(rng):
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    x.flags.writeable = y.flags.writeable = False
    for model in (LinearRegression(), LinearRegression(learning_rate="auto"), Ridge(), RidgeCV()):
        model.fit(x, y)


def test_input_errors():
    with pytest.raises(ValueError, match="sample_weight must not be negative"):
        LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0], sample_weight=[1.0, -1.0])
    with pytest.raises(ValueError, match="zero"):
        LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0], sample_weight=[0.0, 0.0])
    with pytest.raises(ValueError, match="NaN"):
        LinearRegression().fit([[1.0], [np.nan]], [1.0, 2.0])
    with pytest.raises(NotFittedError):
        LinearRegression().predict([[1.0]])


@pytest.mark.parametrize("model", [LinearRegression(), Ridge(), RidgeCV([0.1, 1.0])])
@pytest.mark.parametrize("of_tensorflow", [False, True])
def test_x_y_and_weights_of_bfloat16_count_as_the_same_numbers(model, of_tensorflow, rng):
    """scikit-learn's checks do not know the type, and say so in words that name no argument."""
    arrays = [rng.integers(1, 9, size=shape) / 4 for shape in ((40, 3), 40, 40)]
    want = clone(model).fit(*(a.astype(np.float32) for a in arrays))
    made = [a.astype(ml_dtypes.bfloat16) for a in arrays]
    if of_tensorflow:
        made = [tf.constant(a) for a in made]
    got = clone(model).fit(*made)
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=1e-12)
    np.testing.assert_allclose(got.intercept_, want.intercept_, rtol=1e-12)


def test_unaligned_and_transposed_input(rng):
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    expected = LinearRegression(standardize=False).fit(x, y).coef_
    bytes_ = bytearray(8 * 40 * 3 + 1)
    shifted = np.frombuffer(bytes_, np.float64, offset=0, count=120).reshape(40, 3)
    shifted = np.ndarray((40, 3), np.float64, bytes_, offset=1)
    shifted[:] = x
    for other in (np.asfortranarray(x), shifted, np.repeat(x, 2, 0)[::2]):
        model = LinearRegression(standardize=False).fit(other, y)
        np.testing.assert_array_equal(model.coef_, expected)


def test_input_is_left_alone(rng):
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    x.flags.writeable = y.flags.writeable = False
    LinearRegression().fit(x, y)
    LinearRegression(standardize=False).fit(x, y)


def test_pandas_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [0.0, 1.0, 2.0], "b": [1.0, 0.0, 3.0]})
    model = LinearRegression().fit(frame, [1.0, 2.0, 3.0])
    assert model.feature_names_in_.tolist() == ["a", "b"]


def test_clone_pickle_and_grid_search(rng):
    x, y = rng.normal(size=(60, 4)), rng.normal(size=60)
    model = LinearRegression(tol=1e-8, fit_intercept=False)
    assert clone(model).get_params() == model.get_params()
    fitted = model.fit(x, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(x), fitted.predict(x))
    search = GridSearchCV(LinearRegression(), {"fit_intercept": [True, False]}, n_jobs=1)
    assert search.fit(x, y).best_estimator_.coef_.shape == (4,)


def test_needs_no_tensorflow():
    program = (
        "import sys; from linreg_ops import LinearRegression; "
        "LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0]); "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd="/")


@pytest.mark.parametrize("name", ["LinearRegression", "Ridge", "RidgeCV"])
def test_without_scikit_learn_says_what_to_install(name):
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        f"try: from linreg_ops import {name}\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, cwd="/", capture_output=True, text=True
    )
    assert "pip install 'scikit-learn>=1.6'" in done.stdout
