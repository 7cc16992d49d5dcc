"""The demo's four ways are what their names say, and agree."""

import numpy as np
import pytest

from linreg_ops import demo, reference
from linreg_ops.training import DivergenceError

EPS = np.finfo(np.float32).eps


def test_line_is_the_notebooks():
    data = demo.noisy_line(points=20_000, seed=3)
    assert data.x.shape == (20_000, 1)
    assert data.y.shape == (20_000,)
    noise_x = data.x[:, 0] - np.linspace(-2, 4, 20_000)
    noise_y = data.y - np.linspace(-6, 6, 20_000)
    for noise in (noise_x, noise_y):
        assert abs(noise.mean()) < 0.03
        assert abs(noise.std() - 1) < 0.03
    assert abs(np.corrcoef(noise_x, noise_y)[0, 1]) < 0.03


def test_seed_decides_the_data_and_the_start():
    np.testing.assert_array_equal(demo.noisy_line(seed=1).x, demo.noisy_line(seed=1).x)
    assert not np.array_equal(demo.noisy_line(seed=1).x, demo.noisy_line(seed=2).x)
    start = demo.start(10_000, seed=1)
    assert start.shape == (10_001,)
    assert abs(start.std() - 0.1) < 0.005


@pytest.mark.parametrize(
    ("data", "rate", "steps"),
    [(demo.noisy_line(), 0.002, 50), (demo.diabetes(), 0.0005, 500)],
    ids=["line", "diabetes"],
)
def test_every_way_agrees_with_float64_to_rounding(data, rate, steps):
    w = demo.start(data.x.shape[1])
    exact = reference.gradient_descent(data.x, w, data.y, rate, steps, intercept=True)
    results = list(demo.train_every_way(data, w, rate, steps, runs=1))
    assert [result.name for result in results] == list(demo.WAYS)
    # Each step multiplies earlier rounding by less than one and adds its own: far fewer than
    # `steps` of them last.
    tolerance = 16 * EPS
    for result in results:
        assert result.losses.shape == (steps + 1,)
        np.testing.assert_allclose(result.losses, exact.losses, rtol=tolerance)
        np.testing.assert_allclose(
            result.w, exact.w, rtol=0, atol=tolerance * np.abs(exact.w).max()
        )
        assert demo.difference(result.losses, results[0].losses) < tolerance
        assert result.seconds > 0


@pytest.mark.parametrize("name", demo.WAYS)
def test_runs_start_afresh(name):
    data = demo.noisy_line()
    run = demo.WAYS[name](data.x, demo.start(1), data.y, 0.002, 10)
    first, second = run(), run()
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_diabetes_defaults_train():
    """Within 0.001 of the R² of least squares."""
    data = demo.diabetes()
    np.testing.assert_allclose(data.x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.x.std(0), 1, atol=1e-5)
    w, losses = demo.one_op(data.x, demo.start(10), data.y, 0.0005, 500)()
    best = reference.linear_l2_loss(
        data.x, reference.least_squares(data.x, data.y, intercept=True), data.y, intercept=True
    )
    total = 0.5 * np.sum((data.y - data.y.mean()) ** 2)
    assert (losses[-1] - best) / total < 0.001
    assert w.shape == (11,)


def test_divergence_is_an_error():
    data = demo.noisy_line()
    with pytest.raises(DivergenceError):
        list(demo.train_every_way(data, demo.start(1), 1.0, 50))


def test_difference_sees_a_corrupted_curve():
    losses = np.linspace(10, 1, 5, dtype=np.float32)
    corrupted = losses.copy()
    corrupted[3] *= 1.01
    assert demo.difference(losses, losses) == 0
    assert demo.difference(corrupted, losses) == pytest.approx(0.01, rel=1e-4)
