"""GramState: the sums are the sums, whatever the batches; and models fitted to them."""

import copy
import hashlib
import itertools
import pickle

import ml_dtypes
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from linreg_ops import GramState, LinearRegression, Ridge
from linreg_ops.solvers.state import Centred

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def wide(*arrays):
    return [np.asarray(a).astype(np.longdouble) for a in arrays]


def truth(x, y, s, intercept):
    """Means, XᵀSX and XᵀSY about them, Σ s y², in long double."""
    x, y, s = wide(x, y, s)
    zeros = np.zeros(x.shape[1]), np.zeros(y.shape[1])
    x_mean, y_mean = (s @ x / s.sum(), s @ y / s.sum()) if intercept else zeros
    a, b = x - x_mean, y - y_mean
    return x_mean, y_mean, a.T @ (s[:, None] * a), a.T @ (s[:, None] * b), s @ b**2


def digest(state, fold=None):
    sums = state.centred(fold=fold)
    parts = (sums.x_mean, sums.y_mean, sums.gram, sums.cross, sums.squares, sums.weight)
    return hashlib.sha256(b"".join(np.asarray(p).tobytes() for p in parts)).hexdigest()


def data(rng, n=3000, d=5, k=2, offset=1000.0):
    x = rng.normal(size=(n, d)) * [1e-2, 1, 1, 10, 1e3] + offset
    return x, x @ rng.normal(size=(d, k)) + rng.normal(size=(n, k))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_sums_are_those_of_the_numbers_given(dtype, intercept, weighted, rng):
    x = (rng.normal(size=(2500, 5)) + np.array([0, 1, 10, 100, 0])).astype(dtype)
    y = rng.normal(size=(2500, 2)) + 50
    s = rng.uniform(size=2500) if weighted else np.ones(2500)
    sums = GramState().update(x, y, s if weighted else None).centred(intercept=intercept)
    x_mean, y_mean, gram, cross, squares = truth(x, y, s, intercept)
    np.testing.assert_allclose(sums.x_mean, x_mean.astype(float), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(sums.y_mean, y_mean.astype(float), rtol=1e-13)
    size = np.sqrt(np.diag(gram)).astype(float)
    np.testing.assert_allclose(sums.gram / np.outer(size, size), gram / np.outer(size, size),
                               rtol=0, atol=1e-13)  # fmt: skip
    root = np.sqrt(squares)
    np.testing.assert_allclose(sums.cross / np.outer(size, root), cross / np.outer(size, root),
                               rtol=0, atol=1e-13)  # fmt: skip
    np.testing.assert_allclose(sums.squares, squares.astype(float), rtol=1e-12)
    assert sums.weight == pytest.approx(float(s.sum()), rel=1e-14)


@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("weighted", [True, False])
def test_batches_of_any_size_give_the_same_bits(folds, weighted, rng):
    x, y = data(rng)
    s = np.where(rng.random(3000) < 0.1, 0.0, rng.uniform(size=3000)) if weighted else None
    found = set()
    for size in (1, 7, 1000, 1024, 3000):
        state = GramState(folds, fold_rows=100)
        for i in range(0, 3000, size):
            rows = slice(i, i + size)
            state.update(x[rows], y[rows], None if s is None else s[rows])
        found.add((*tuple(digest(state, fold) for fold in range(folds)), state.log_weight))
    assert len(found) == 1


@pytest.mark.parametrize("layout", ["C", "F", "sparse", "strided"])
def test_any_layout_gives_the_same_bits(layout, rng):
    x, y = data(rng)
    given = {
        "C": x,
        "F": np.asfortranarray(x),
        "sparse": scipy.sparse.csr_matrix(x),
        "strided": np.repeat(x, 2, axis=0)[::2],
    }[layout]
    assert digest(GramState().update(given, y)) == digest(GramState().update(x, y))


@pytest.mark.parametrize("at", [0, 10, 1024, 1500, 2999])
def test_saved_and_loaded_it_goes_on_to_the_same_bits(at, rng, tmp_path):
    x, y = data(rng)
    s = rng.uniform(size=3000)
    whole = GramState(2).update(x, y, s)
    state = GramState(2)
    if at:
        state.update(x[:at], y[:at], s[:at])
    state.save(tmp_path / "state.npz")
    state = GramState.load(tmp_path / "state.npz")
    assert state.n_seen == at
    state.update(x[at:], y[at:], s[at:])
    assert [digest(state, f) for f in (0, 1)] == [digest(whole, f) for f in (0, 1)]
    assert state.log_weight == whole.log_weight == pytest.approx(np.log(s).sum(), rel=1e-9)
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_types_that_files_do_not_know_are_saved_too(dtype, rng, tmp_path):
    x, y = rng.normal(size=(30, 2)).astype(dtype), rng.normal(size=30)
    GramState().update(x[:9], y[:9]).save(tmp_path / "state.npz")
    state = GramState.load(tmp_path / "state.npz").update(x[9:], y[9:])
    assert digest(state) == digest(GramState().update(x, y))


def test_copies_and_pickles(rng):
    x, y = data(rng)
    state = GramState().update(x[:2000], y[:2000])
    for other in (copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert digest(other.update(x[2000:], y[2000:])) == digest(GramState().update(x, y))
    assert state.n_rows == 2000


@pytest.mark.parametrize("cut", [1, 500, 2500])
def test_merging_is_having_seen_both(cut, rng):
    x, y = data(rng)
    s = rng.uniform(size=3000)
    first = GramState(2).update(x[:cut], y[:cut], s[:cut])
    second = GramState(2).update(x[cut:] , y[cut:], s[cut:])  # fmt: skip
    before = digest(second)
    for merged in (copy.deepcopy(first).merge(second), GramState(2).merge(first).merge(second)):
        assert merged.n_rows == merged.n_seen == 3000
        sums = merged.centred()
        x_mean, _, gram, cross, squares = truth(x, y, s, True)
        np.testing.assert_allclose(sums.x_mean, x_mean.astype(float), rtol=1e-13)
        size = np.sqrt(np.diag(gram)).astype(float)
        off = (sums.gram - gram) / np.outer(size, size)
        assert np.abs(off).max() < 1e-9  # offsets of 10⁵ deviations, about another's shift
        off = (sums.cross - cross) / np.outer(size, np.sqrt(squares))
        assert np.abs(off).max() < 1e-9
    assert digest(second) == before
    assert GramState(2).merge(GramState(2)).n_rows == 0
    more = merged.update(x[:100], y[:100])
    assert more.n_rows == 3100


def test_folds_add_up(rng):
    x, y = data(rng, n=2000)
    which = rng.integers(0, 4, 2000)
    named = GramState(4).update(x, y, fold=which)
    by_hand = GramState(4)
    for fold in range(4):
        by_hand.update(x[which == fold], y[which == fold], fold=fold)
    for fold in range(4):
        own = truth(x[which == fold], y[which == fold], np.ones((which == fold).sum()), True)
        rest = truth(x[which != fold], y[which != fold], np.ones((which != fold).sum()), True)
        for state in (named, by_hand):
            for sums, true in (
                (state.centred(fold=fold), own),
                (state.centred(without=fold), rest),
            ):
                np.testing.assert_allclose(sums.x_mean, true[0].astype(float), rtol=1e-13)
                size = np.sqrt(np.diag(true[2])).astype(float)
                assert np.abs((sums.gram - true[2]) / np.outer(size, size)).max() < 1e-9
    dealt = GramState(3, fold_rows=2).update(x[:12], y[:12])
    expected = GramState(3).update(x[:12], y[:12], fold=np.arange(12) // 2 % 3)
    assert [digest(dealt, f) for f in range(3)] == [digest(expected, f) for f in range(3)]


def test_what_does_not_fit_is_refused_and_changes_nothing(rng):
    x, y = data(rng, n=10)
    state = GramState(2).update(x, y)
    before = digest(state)
    bad = [
        ({"x": x[:, :3], "y": y}, "5 columns of x and 2 of y so far, got 3 and 2"),
        ({"x": x, "y": y[:, 0]}, "5 columns of x and 2 of y so far, got 5 and 1"),
        ({"x": x[0], "y": y}, r"x must have shape \[m, d\], got \[5\]"),
        ({"x": x, "y": y[:5]}, r"y must have shape \[10\] or \[10, k\] as x, got \[5, 2\]"),
        ({"x": np.where(x > x[4, 2], np.nan, x), "y": y}, "x must not hold NaN or infinite values"),
        ({"x": x, "y": y + np.inf}, "y must not hold NaN or infinite values"),
        ({"x": x, "y": y, "sample_weight": -np.ones(10)}, "sample_weight must not be negative"),
        ({"x": x, "y": y, "sample_weight": np.ones(9)}, r"sample_weight must have shape \[10\]"),
        ({"x": x, "y": y, "fold": 2}, "fold must be from 0 to 1, got 2"),
        ({"x": x, "y": y, "fold": 0.5}, "fold must be an integer"),
        (
            {"x": x.astype(complex), "y": y},
            "x must be of floating type or integers, got complex128",
        ),
    ]
    for arguments, message in bad:
        with pytest.raises(ValueError, match=message):
            state.update(**arguments)
        assert digest(state) == before
        assert state.n_seen == 10
    with pytest.raises(ValueError, match="merge needs 2 folds as here, got 1"):
        state.merge(GramState(1))
    with pytest.raises(ValueError, match="folds must be an integer >= 1, got 0"):
        GramState(0)
    with pytest.raises(ValueError, match="the state has seen no rows"):
        GramState().centred()


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", None])
def test_a_file_of_something_else_is_refused(content, tmp_path):
    path = tmp_path / "state.npz"
    if content is None:
        np.savez(path, a=1)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"state.npz holds no GramState"):
        GramState.load(path)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("model", [LinearRegression(), Ridge([3.0, 0.0])])
def test_a_model_of_batches_is_that_of_all_rows(model, intercept, weighted, rng):
    x, y = rng.normal(size=(2000, 4)) + 10, rng.normal(size=(2000, 2))
    s = rng.uniform(size=2000) if weighted else None
    model = model.set_params(fit_intercept=intercept)
    whole = copy.deepcopy(model).fit(x, y, s)
    parts, state = copy.deepcopy(model), GramState()
    for rows in (slice(0, 3), slice(3, 1500), slice(1500, 2000)):
        parts.partial_fit(x[rows], y[rows], None if s is None else s[rows])
        state.update(x[rows], y[rows], None if s is None else s[rows])
    assert parts.solver_ == "gram"
    assert parts.n_reads_ == 1
    for found in (parts, copy.deepcopy(model).fit_state(state)):
        np.testing.assert_allclose(found.coef_, whole.coef_, rtol=1e-11)
        np.testing.assert_allclose(found.intercept_, whole.intercept_, rtol=1e-11)
        assert found.loss_ == pytest.approx(whole.loss_, rel=1e-11)
        np.testing.assert_allclose(found.loss_curve_[0], whole.loss_curve_[0], rtol=1e-12)
    np.testing.assert_array_equal(parts.coef_, copy.deepcopy(model).fit_state(state).coef_)


def test_models_merge(rng):
    x, y = rng.normal(size=(200, 4)), rng.normal(size=200)
    left = LinearRegression().partial_fit(x[:90], y[:90])
    right = LinearRegression().partial_fit(x[90:], y[90:])
    whole = LinearRegression().fit(x, y)
    np.testing.assert_allclose(left.merge(right).coef_, whole.coef_, rtol=1e-12)
    with pytest.raises(ValueError, match="merge needs models of partial_fit or fit_state"):
        left.merge(whole)


def test_after_fit_a_model_of_batches_begins_anew_and_says_so(rng):
    x, y = rng.normal(size=(200, 4)), rng.normal(size=200)
    model = LinearRegression().fit(x[:100], y[:100])
    with pytest.warns(UserWarning, match="partial_fit begins anew"):
        model.partial_fit(x[100:], y[100:])
    np.testing.assert_allclose(model.coef_, LinearRegression().fit(x[100:], y[100:]).coef_)
    model.fit(x, y)
    assert not hasattr(model, "state_")


def test_what_rounding_takes_from_squares_does_not_make_them_negative():
    one = np.ones((1, 1))
    squares = np.array([np.nextafter(1.0, 0.0)])
    sums = Centred(2, 2.0, np.zeros(1), np.zeros(1), one, one, squares, 1.0)
    assert sums.residual_squares(one) == [0.0]


def test_sums_alone_say_what_they_cannot_tell(rng):
    x = rng.normal(size=(2000, 3))
    y = x @ [1.0, 2.0, 3.0]
    near = np.column_stack([x, x[:, 0] + 1e-9 * rng.normal(size=2000)])
    with pytest.warns(scipy.linalg.LinAlgWarning, match="columns depend on others"):
        LinearRegression().partial_fit(near, y)
    near = np.column_stack([x, x[:, 0] + 1e-6 * rng.normal(size=2000)])
    with pytest.warns(scipy.linalg.LinAlgWarning, match="coefficients are right to about"):
        LinearRegression().partial_fit(near, y)
    # The first block is no guide to the rest: 10⁶ deviations off.
    far = np.concatenate([x, 1e7 + x])
    with pytest.warns(scipy.linalg.LinAlgWarning, match="coefficients are right to about"):
        LinearRegression().partial_fit(far, np.concatenate([y, y]))


@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_solvers_that_need_all_rows_say_so(solver, rng):
    state = GramState().update(rng.normal(size=(20, 2)), rng.normal(size=20))
    with pytest.raises(ValueError, match=f"solver='{solver}' needs all of X"):
        LinearRegression(solver=solver).fit_state(state)
    assert not hasattr(LinearRegression(solver=solver), "partial_fit")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    d=st.integers(1, 6),
    folds=st.integers(1, 3),
)
def test_any_cuts_give_the_same_bits(seed, cuts, d, folds):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(400, d)) + 10.0 ** rng.integers(-3, 4, d), rng.normal(size=400)
    whole, parts = GramState(folds, fold_rows=64).update(x, y), GramState(folds, fold_rows=64)
    edges = [0, *sorted(cuts), 400]
    for i, j in itertools.pairwise(edges):
        parts.update(x[i:j], y[i:j])
    assert digest(parts) == digest(whole)
