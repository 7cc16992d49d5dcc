"""Standard errors and what follows: against NIST's certified values, statsmodels, and the data."""

import warnings

import nist
import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.stats

from linreg_ops import GramState, LinearRegression, Ridge, RidgeCV

sm = pytest.importorskip("statsmodels.api")


@pytest.mark.parametrize("name", sorted(nist.EXACT))
@pytest.mark.parametrize("read_again", [False, True])
def test_nists_standard_errors(name, read_again):
    x, y, intercept, _ = nist.load(name)
    model = LinearRegression(fit_intercept=intercept).fit(x, y)
    summary = model.summary(x, y) if read_again else model.summary()
    exact = nist.EXACT[name]
    error = np.array(exact["standard_errors"])
    digits = 7 if name == "filip" else 12
    if exact["residual_deviation"] == 0:  # y is the polynomial itself
        assert np.all(summary.standard_errors < 1e-9 * np.abs(summary.coef))
    else:
        np.testing.assert_allclose(summary.standard_errors, error, rtol=10.0**-digits)
        assert summary.sigma == pytest.approx(exact["residual_deviation"], rel=10.0**-digits)
    assert summary.r2 == pytest.approx(exact["r_squared"], rel=1e-11)
    assert summary.df_residual == len(y) - len(error)


def fitted(rng, *, intercept, weighted, n=120, d=4):
    x = rng.normal(size=(n, d)) * [1, 10, 0.1, 3] + [0, 5, 100, -2]
    y = x @ [1.0, 0.2, 3.0, 0.0] + rng.normal(size=n) * (1 + x[:, 0] ** 2)
    s = rng.uniform(0.1, 3, size=n) if weighted else None
    model = LinearRegression(fit_intercept=intercept).fit(x, y, s)
    design = sm.add_constant(x) if intercept else x
    return x, y, s, model, sm.WLS(y, design, np.ones(n) if s is None else s)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("covariance", ["nonrobust", "HC0", "HC1", "HC2", "HC3"])
def test_as_statsmodels(covariance, weighted, intercept, rng):
    x, y, s, model, theirs = fitted(rng, intercept=intercept, weighted=weighted)
    theirs = theirs.fit(cov_type=covariance, use_t=True)
    found = [model.summary(x, y, s, covariance=covariance)]
    if covariance == "nonrobust":
        found.append(model.summary())
        found.append(
            LinearRegression(fit_intercept=intercept)
            .fit_state(GramState().update(x[:50], y[:50], None if s is None else s[:50])
                       .update(x[50:], y[50:], None if s is None else s[50:]))
            .summary()
        )  # fmt: skip
    for ours in found:
        for mine, other in (
            ("coef", "params"),
            ("standard_errors", "bse"),
            ("t", "tvalues"),
            ("p_values", "pvalues"),
            ("r2", "rsquared"),
            ("adjusted_r2", "rsquared_adj"),
            ("f", "fvalue"),
            ("f_p_value", "f_pvalue"),
            ("log_likelihood", "llf"),
            ("aic", "aic"),
            ("bic", "bic"),
            ("df_model", "df_model"),
            ("df_residual", "df_resid"),
            ("sigma2", "scale"),
        ):
            np.testing.assert_allclose(
                getattr(ours, mine), getattr(theirs, other), rtol=1e-8, atol=1e-300, err_msg=mine
            )
        np.testing.assert_allclose(ours.intervals, theirs.conf_int(), rtol=1e-8)
    np.testing.assert_allclose(found[0].covariance, theirs.cov_params(), rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize("covariance", ["nonrobust", "HC3"])
def test_each_target_is_as_if_alone(covariance, rng):
    x, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    both = LinearRegression().fit(x, y).summary(x, y, covariance=covariance)
    assert both.coef.shape == both.standard_errors.shape == (4, 2)
    assert both.intervals.shape == (4, 2, 2)
    assert both.covariance.shape == (2, 4, 4)
    for t in range(2):
        one = LinearRegression().fit(x, y[:, t]).summary(x, y[:, t], covariance=covariance)
        for name in ("standard_errors", "p_values", "f", "aic"):
            np.testing.assert_allclose(
                getattr(both, name)[..., t], getattr(one, name), rtol=1e-9, err_msg=name
            )
    assert list(both.to_frame().index[:2]) == [(0, "intercept"), (0, "x0")]
    assert str(both).count("Least squares, target") == 2


def test_intervals_hold_the_truth_as_often_as_they_say(rng):
    truth, held = np.array([2.0, 1.0, -1.0]), 0
    for _ in range(400):
        x = rng.normal(size=(12, 2))
        y = truth[0] + x @ truth[1:] + rng.normal(size=12)
        low, high = LinearRegression().fit(x, y).summary(level=0.8).intervals.T
        held += np.sum((low < truth) & (truth < high))
    # 1200 trials of 0.8, three at a time: four deviations.
    assert abs(held / 1200 - 0.8) < 4 * np.sqrt(0.16 / 400)


def test_names_are_those_of_the_frame(rng):
    x = pd.DataFrame(rng.normal(size=(30, 2)), columns=["age", "height"])
    y = x["age"] + rng.normal(size=30)
    summary = LinearRegression().fit(x, y).summary(level=0.9)
    frame = summary.to_frame()
    assert list(frame.index) == ["intercept", "age", "height"]
    assert list(frame.columns) == ["coef", "std err", "t", "P>|t|", "[0.05", "0.95]"]
    np.testing.assert_array_equal(frame["std err"], summary.standard_errors)
    lines = str(summary).splitlines()
    rule = max(lines, key=lambda line: line.count("-"))
    header, *rows = lines[lines.index(rule) + 1 : -1]
    assert header.split() == ["coef", "std", "err", "t", "P>|t|", "[0.05", "0.95]"]
    assert [row.split()[0] for row in rows[1:]] == ["intercept", "age", "height"]
    assert {len(line) for line in (header, *rows)} == {len(rule)}  # one below the other
    assert f"{summary.r2:.6g}" in str(summary)


def test_what_the_rows_do_not_tell_has_no_standard_error(rng):
    a = rng.normal(size=(50, 2))
    x = np.column_stack([a, a[:, 0], np.full(50, 3.0)])
    y = a @ [1.0, 2.0] + rng.normal(size=50)
    for summary in (
        LinearRegression().fit(x, y).summary(),
        LinearRegression().fit(x, y).summary(x, y, covariance="HC1"),
    ):
        known = np.isfinite(summary.standard_errors)
        assert known.tolist() == [True, False, True, False, False]
        assert (summary.df_model, summary.df_residual) == (2, 47)
    alone = LinearRegression().fit(a, y).summary()
    assert summary.r2 == pytest.approx(alone.r2, rel=1e-10)
    ours = LinearRegression().fit(x, y).summary()
    np.testing.assert_allclose(ours.standard_errors[2], alone.standard_errors[2], rtol=1e-9)
    assert ours.f == pytest.approx(alone.f, rel=1e-9)


def test_rows_of_no_weight_do_not_count(rng):
    x, y = rng.normal(size=(40, 2)), rng.normal(size=40)
    s = np.repeat([1.0, 0.0], 20)
    weighted = LinearRegression().fit(x, y, s)
    alone = LinearRegression().fit(x[:20], y[:20]).summary()
    for summary in (weighted.summary(), weighted.summary(x, y, s, covariance="nonrobust")):
        np.testing.assert_allclose(summary.standard_errors, alone.standard_errors, rtol=1e-10)
        assert summary.rows == 20
        assert summary.aic == pytest.approx(alone.aic)


def test_as_many_coefficients_as_rows_leave_no_error_to_see(rng):
    summary = LinearRegression().fit(rng.normal(size=(3, 2)), rng.normal(size=3)).summary()
    assert summary.df_residual == 0
    assert np.all(np.isnan(summary.standard_errors))
    assert np.isnan(summary.sigma2)
    assert "nan" in str(summary)


def test_one_degree_of_freedom_left(rng):
    """Student's t with one is Cauchy's distribution: an interval of 95% is 12.7 errors wide."""
    x, y = rng.normal(size=(4, 2)), rng.normal(size=4)
    ours = LinearRegression().fit(x, y).summary()
    theirs = sm.OLS(y, sm.add_constant(x)).fit()
    assert ours.df_residual == 1
    for mine, other in (("p_values", "pvalues"), ("f_p_value", "f_pvalue")):
        np.testing.assert_allclose(getattr(ours, mine), getattr(theirs, other), rtol=1e-8)
    np.testing.assert_allclose(ours.intervals, theirs.conf_int(), rtol=1e-8)


@pytest.mark.parametrize("covariance", ["HC2", "HC3"])
def test_a_row_that_its_own_coefficient_fits_has_no_say(covariance, rng):
    """Its residual is rounding, and what it is divided by too."""
    x, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    x[:, 0] = 0.0
    x[7, 0] = 3.0  # leverage 1
    found = LinearRegression().fit(x, y).summary(x, y, covariance=covariance)
    others = np.arange(30) != 7
    design = np.column_stack([np.ones(30), x])
    inverse = np.linalg.inv(design.T @ design)
    a = design[others]
    free = 1.0 - np.einsum("ij,jk,ik->i", a, inverse, a)
    r = y[others] - a @ found.coef
    meat = (a.T * (r**2 / free ** {"HC2": 1, "HC3": 2}[covariance])) @ a
    np.testing.assert_allclose(found.covariance, inverse @ meat @ inverse, rtol=1e-8, atol=1e-12)


def near(rng, n, gap):
    x = rng.normal(size=(n, 6))
    x[:, 5] = x[:, 0] + gap * x[:, 5]
    return x, x @ np.arange(6.0) + rng.normal(size=n)


@pytest.mark.parametrize("solver", ["exact", "gram"])
def test_near_dependence_costs_standard_errors_few_digits(solver, rng):
    """Condition 10⁶, of which a Gram matrix keeps 4 digits; read again it has QR's."""
    x, y = near(rng, 4000, 1e-6)
    wide = np.column_stack([np.ones(4000), x]).astype(np.longdouble)
    # Columns (x0, gap · z): an exact change of variables takes the condition away.
    change = np.eye(7)
    change[1, 6] = -1.0
    gram = (wide @ change).T @ (wide @ change)
    scale = 1 / np.sqrt(np.diag(gram)).astype(float)
    inverse = np.linalg.inv((gram * np.outer(scale, scale)).astype(float))
    inverse = change @ (inverse * np.outer(scale, scale)) @ change.T
    model = LinearRegression(solver=solver).fit(x, y)
    residual = y - x @ model.coef_ - model.intercept_
    expected = np.sqrt(np.diag(inverse) * (residual @ residual) / (4000 - 7))
    np.testing.assert_allclose(model.summary(x, y).standard_errors, expected, rtol=1e-8)
    if solver == "gram":
        with pytest.warns(scipy.linalg.LinAlgWarning, match=r"summary\(X, y\) has as many digits"):
            kept = model.summary()
        np.testing.assert_allclose(kept.standard_errors, expected, rtol=1e-3)
    else:
        np.testing.assert_allclose(model.summary().standard_errors, expected, rtol=1e-8)


def test_sums_say_how_few_digits_they_have(rng):
    x, y = near(rng, 4000, 1e-6)
    with pytest.warns(scipy.linalg.LinAlgWarning, match="are right to about .e-0[34] "):
        model = LinearRegression().fit_state(GramState().update(x, y))
    with pytest.warns(scipy.linalg.LinAlgWarning, match="errors are right to .e-0[34] "):
        kept = model.summary()
    exact = LinearRegression().fit(x, y).summary(x, y)
    np.testing.assert_allclose(kept.standard_errors, exact.standard_errors, rtol=1e-2)


def test_a_gram_matrix_read_again_is_as_good_as_qr(rng, monkeypatch):
    from linreg_ops import inference

    x, y = near(rng, 4000, 1e-6)
    model = LinearRegression().fit(x, y)
    by_qr = model.summary(x, y, covariance="HC3")
    monkeypatch.setattr(inference, "CHECK_WORK", 0.0)
    again = model.summary(x, y, covariance="HC3")
    np.testing.assert_allclose(again.standard_errors, by_qr.standard_errors, rtol=1e-8)
    np.testing.assert_allclose(again.f, by_qr.f, rtol=1e-6)


def test_solvers_that_keep_nothing_read_again(rng):
    x, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    model = LinearRegression(solver="cg").fit(x, y)
    with pytest.raises(ValueError, match=r"solver 'cg' keeps nothing .* summary\(X, y\) reads X"):
        model.summary()
    expected = LinearRegression().fit(x, y).summary().standard_errors
    np.testing.assert_allclose(model.summary(x, y).standard_errors, expected, rtol=1e-9)


def test_other_rows_than_were_fitted_are_refused(rng):
    x, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    model = LinearRegression().fit(x, y)
    with pytest.raises(ValueError, match="are not those that the model was fitted to"):
        model.summary(x[:50], y[:50])
    with pytest.raises(ValueError, match="y must have the 1 targets that were fitted to, got 2"):
        model.summary(x, np.column_stack([y, y]))
    with pytest.raises(ValueError, match="needs y too"):
        model.summary(x)
    with pytest.raises(ValueError, match="covariance must be one of nonrobust, HC0"):
        model.summary(covariance="HC9")
    with pytest.raises(ValueError, match=r"covariance='HC0' needs the rows"):
        model.summary(covariance="HC0")
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        model.summary(level=95)


def test_penalised_coefficients_have_none(rng):
    x, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    for model in (Ridge(1.0), RidgeCV()):
        with pytest.raises(ValueError, match="penalised coefficients are biased"):
            model.fit(x, y).summary()
    np.testing.assert_allclose(
        Ridge(0.0).fit(x, y).summary().standard_errors,
        LinearRegression().fit(x, y).summary().standard_errors,
        rtol=1e-9,
    )


def test_extremes_of_scale_cancel(rng):
    x, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    expected = LinearRegression().fit(x, y).summary()
    for factor in (1e-90, 1e90):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours = LinearRegression().fit(x * factor, y).summary()
        np.testing.assert_allclose(ours.t, expected.t, rtol=1e-8)
        assert ours.r2 == pytest.approx(expected.r2)
