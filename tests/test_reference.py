"""The definition of truth against exact rational arithmetic and NIST's certified solutions."""

import pydoc
from fractions import Fraction

import nist
import numpy as np
import pytest

from linreg_ops import reference

RNG = np.random.default_rng(20240501)


def exact(x, w, y, s):
    """Loss and gradient in rational arithmetic, straight from the formula."""
    x, w, y = ([[Fraction(v) for v in row] for row in a.tolist()] for a in (x, w, y))
    s = [Fraction(v) for v in s.tolist()]
    n, d, k = len(x), len(w), len(y[0])
    r = [[sum(x[i][j] * w[j][t] for j in range(d)) - y[i][t] for t in range(k)] for i in range(n)]
    loss = sum(s[i] * r[i][t] ** 2 for i in range(n) for t in range(k)) / 2
    grad = [[sum(x[i][j] * s[i] * r[i][t] for i in range(n)) for t in range(k)] for j in range(d)]
    return float(loss), np.array(grad, np.float64).reshape(d, k)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradient_are_the_formula(intercept, weighted):
    x, w, y = RNG.normal(size=(7, 3)), RNG.normal(size=(3 + intercept, 2)), RNG.normal(size=(7, 2))
    s = RNG.uniform(size=7)
    loss, grad = reference.linear_l2_loss_and_grad(
        x, w, y, intercept=intercept, sample_weight=s if weighted else None
    )
    written_out = np.hstack([np.ones((7, 1)), x]) if intercept else x
    true_loss, true_grad = exact(written_out, w, y, s if weighted else np.ones(7))
    np.testing.assert_allclose(loss, true_loss, rtol=1e-14)
    np.testing.assert_allclose(grad, true_grad, rtol=0, atol=1e-13)
    alone = reference.linear_l2_loss(
        x, w, y, intercept=intercept, sample_weight=s if weighted else None
    )
    assert alone == loss


def test_one_target_may_drop_its_axis():
    x, w, y = RNG.normal(size=(5, 2)), RNG.normal(size=2), RNG.normal(size=5)
    loss, grad = reference.linear_l2_loss_and_grad(x, w, y)
    wide = reference.linear_l2_loss_and_grad(x, w[:, None], y[:, None])
    assert loss == pytest.approx(wide.loss, rel=1e-15)
    np.testing.assert_allclose(grad, wide.grad[:, 0], rtol=1e-14)


@pytest.mark.parametrize(("n", "d", "k"), [(0, 3, 2), (4, 0, 2), (4, 3, 0), (0, 0, 0)])
def test_empty_sums_are_zero(n, d, k):
    y = np.full((n, k), 2.0)
    loss, grad = reference.linear_l2_loss_and_grad(np.ones((n, d)), np.zeros((d, k)), y)
    assert loss == 2.0 * n * k
    np.testing.assert_array_equal(grad, np.full((d, k), -2.0 * n))


def test_descent_is_its_recurrence():
    x, y = RNG.normal(size=(9, 2)), RNG.normal(size=9)
    rates = [0.02, 0.05, 0.01]
    w, losses = reference.gradient_descent(x, np.zeros(2), y, rates, 3, momentum=0.5)
    expected, v = np.zeros(2), np.zeros(2)
    for t, rate in enumerate(rates):
        assert losses[t] == pytest.approx(0.5 * np.sum((x @ expected - y) ** 2), rel=1e-14)
        v = 0.5 * v - rate * x.T @ (x @ expected - y)
        expected = expected + v
    np.testing.assert_allclose(w, expected, rtol=1e-13)
    assert losses.shape == (4,)


def test_descent_of_no_steps_and_without_momentum():
    x, y = RNG.normal(size=(9, 2)), RNG.normal(size=9)
    w, losses = reference.gradient_descent(x, np.ones(2), y, 0.1, 0)
    np.testing.assert_array_equal(w, np.ones(2))
    assert losses.tolist() == [reference.linear_l2_loss(x, np.ones(2), y)]
    plain = reference.gradient_descent(x, np.ones(2), y, [0.1, 0.1], 2)
    named = reference.gradient_descent(x, np.ones(2), y, 0.1, 2, momentum=0.0)
    np.testing.assert_array_equal(plain.w, named.w)


def test_descent_does_not_write_to_its_start():
    start = np.ones(1)
    reference.gradient_descent([[1.0]], start, [0.0], 0.1, 3)
    assert start == 1.0


@pytest.mark.parametrize("name", sorted(nist.EXACT))
def test_nist_solution_is_where_the_gradient_vanishes(name):
    x, y, intercept, w = nist.load(name)
    loss, grad = reference.linear_l2_loss_and_grad(x, w, y, intercept=intercept)
    columns = np.hstack([np.ones((len(x), 1)), x]) if intercept else x
    # What rounding the coefficients to float64 and computing in it can leave of a zero.
    rounding = np.abs(columns).T @ (np.abs(columns) @ np.abs(w) + np.abs(y))
    assert np.all(np.abs(grad) <= 8 * np.finfo(np.float64).eps * rounding)
    for j in range(len(w)):
        elsewhere = w.copy()
        # Far enough for the loss to show it: wampler5's is 4e15.
        elsewhere[j] += 1e-3 * abs(w[j]) + 1e-6 * np.sqrt(loss) / np.linalg.norm(columns[:, j])
        assert reference.linear_l2_loss(x, elsewhere, y, intercept=intercept) > loss


# NumPy's lstsq has 12.3, 6.2, 15.9, 15.3, none, 10.9, 9.3, 10.2, 9.6, 7.9 and 5.9 of them.
@pytest.mark.parametrize(
    ("name", "digits"),
    [("norris", 14), ("pontius", 12.5), ("noint1", 15.5), ("noint2", 15.5), ("filip", 7),
     ("longley", 11), ("wampler1", 10), ("wampler2", 12.5), ("wampler3", 10), ("wampler4", 9),
     ("wampler5", 7)],
)  # fmt: skip
def test_least_squares_reaches_nist_solution(name, digits):
    x, y, intercept, _ = problem = nist.load(name)
    found = problem.digits(reference.least_squares(x, y, intercept=intercept))
    assert found >= digits
    columns = np.hstack([np.ones((len(x), 1)), x]) if intercept else x
    assert found >= problem.digits(np.linalg.lstsq(columns, y)[0])


def test_least_squares_weights_count_rows():
    x, y = RNG.normal(size=(8, 2)), RNG.normal(size=(8, 3))
    counts = np.array([0, 1, 2, 3, 1, 1, 0, 2])
    repeated = reference.least_squares(x.repeat(counts, 0), y.repeat(counts, 0), intercept=True)
    weighted = reference.least_squares(x, y, intercept=True, sample_weight=counts)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-12)


def test_least_squares_is_that_of_least_norm():
    """Of two columns that are the same each gets half; one of zeros gets none."""
    column = RNG.normal(size=6)
    x = np.column_stack([column, np.zeros(6), column])
    np.testing.assert_allclose(reference.least_squares(x, 3 * column), [1.5, 0, 1.5], atol=1e-14)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_is_where_its_gradient_vanishes(intercept, weighted):
    """As many rows as neither columns nor targets, and no two penalties alike."""
    x, y = RNG.normal(size=(9, 3)), RNG.normal(size=(9, 2))
    alpha, penalty = np.array([0.7, 4.0]), np.array([1.0, 0.0, 2.5])
    s = RNG.uniform(size=9) if weighted else None
    options = {"intercept": intercept, "sample_weight": s}
    w = reference.ridge(x, y, alpha, penalty=penalty, **options)
    assert w.shape == (3 + intercept, 2)
    grad = reference.linear_l2_loss_and_grad(x, w, y, **options).grad
    grad[int(intercept) :] += alpha * penalty[:, None] * w[int(intercept) :]
    np.testing.assert_allclose(grad, 0, atol=1e-13)
    one = reference.ridge(x, y[:, 1], 4.0, penalty=penalty, **options)
    np.testing.assert_allclose(one, w[:, 1], rtol=1e-14)
    same = reference.ridge(x, y, 2.0, **options)
    np.testing.assert_array_equal(
        same, reference.ridge(x, y, [2.0, 2.0], penalty=np.ones(3), **options)
    )


def test_intercepts_are_asked_for():
    x, y = RNG.normal(size=(9, 3)), RNG.normal(size=9)
    assert reference.least_squares(x, y).shape == (3,)
    assert reference.ridge(x, y, 1.0).shape == (3,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.ones((2, 2, 2))}, r"x must have shape \[n, d\], got \[2, 2, 2\]"),
        ({"x": np.ones((5, 2))}, r"y must have shape \[5\], got \[4\]"),
        ({"w": np.ones((2, 3))}, r"y must have shape \[4, 3\], got \[4\]"),
        ({"sample_weight": np.ones(5)}, r"sample_weight must have shape \[4\], got \[5\]"),
        ({"x": np.ones(3)}, r"x must have shape \[n, d\], got \[3\]"),
        ({"w": np.ones(3)}, r"w must have shape \[2\] or \[2, k\] for x of 2 columns, got \[3\]"),
        ({"w": np.ones((2, 1, 1))}, r"w must have shape .*, got \[2, 1, 1\]"),
        ({"w": np.ones(2), "intercept": True}, r"3 columns with its intercept, got \[2\]"),
        ({"y": np.ones((4, 1))}, r"y must have shape \[4\], got \[4, 1\]"),
        ({"sample_weight": np.ones(3)}, r"sample_weight must have shape \[4\], got \[3\]"),
    ],
)
def test_shapes_that_do_not_fit(arguments, message):
    arguments = {"x": np.ones((4, 2)), "w": np.ones(2), "y": np.ones(4), **arguments}
    with pytest.raises(ValueError, match=message):
        reference.linear_l2_loss(**arguments)


def test_descent_arguments():
    with pytest.raises(ValueError, match="num_steps must be >= 0, got -1"):
        reference.gradient_descent([[1.0]], [1.0], [1.0], 0.1, -1)
    with pytest.raises(ValueError, match=r"\[num_steps\] = \[3\], got shape \[2\]"):
        reference.gradient_descent([[1.0]], [1.0], [1.0], [0.1, 0.2], 3)
    with pytest.raises(ValueError, match=r"\[num_steps\] = \[1\], got shape \[2\]"):
        reference.gradient_descent([[1.0]], [1.0], [1.0], [0.1, 0.2], 1)


def test_help_can_be_read():
    """Types are shown by name: NumPy's ArrayLike, written out, is five lines for each argument."""
    text = pydoc.plain(pydoc.render_doc(reference))
    assert "npt.ArrayLike" in text
    assert max(map(len, text.splitlines())) < 300
