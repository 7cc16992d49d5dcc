"""Divergence is reported at the step where it happens, with the last finite weights."""

import pickle

import numpy as np
import pytest

from linreg_ops import gradient_descent, reference
from linreg_ops.training import DivergenceError, train

RNG = np.random.default_rng(7)
X = RNG.normal(size=(40, 3))
Y = RNG.normal(size=(40, 2))
START = RNG.normal(size=(3, 2))


@pytest.mark.parametrize("rate", [0.01, np.linspace(0.02, 0.001, 10)])
@pytest.mark.parametrize("steps_per_call", [None, 1, 3, 10, 1000])
def test_is_the_op(rate, steps_per_call):
    w, losses = train(X, START, Y, rate, 10, steps_per_call=steps_per_call)
    expected = gradient_descent(X, START, Y, rate, 10)
    np.testing.assert_array_equal(w, expected.w)
    np.testing.assert_array_equal(losses, expected.losses)


def test_options_reach_the_op():
    s = RNG.uniform(size=40)
    start = RNG.normal(size=(4, 2))
    options = {"intercept": True, "sample_weight": s, "momentum": 0.9}
    w, losses = train(X, start, Y, 0.001, 20, **options)
    expected = reference.gradient_descent(X, start, Y, 0.001, 20, **options)
    np.testing.assert_allclose(w, expected.w, rtol=1e-12)
    np.testing.assert_allclose(losses, expected.losses, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("steps_per_call", [None, 1, 7])
def test_divergence_names_the_step(dtype, steps_per_call):
    x, start, y = (a.astype(dtype) for a in (X, START, Y))
    rate = 3.0
    losses = gradient_descent(x, start, y, rate, 400).losses.numpy()
    step = int(np.argmin(np.isfinite(losses)))
    assert 0 < step < 400
    with pytest.raises(DivergenceError) as caught:
        train(x, start, y, rate, 400, steps_per_call=steps_per_call)
    error = caught.value
    assert error.step == step
    np.testing.assert_array_equal(error.losses, losses[: step + 1])
    np.testing.assert_array_equal(error.w, gradient_descent(x, start, y, rate, step - 1).w)
    assert np.isfinite(error.w).all()
    assert f"at step {step}, and grew from step 1 on" in str(error)


def test_divergence_of_the_start():
    with pytest.raises(DivergenceError, match=r"nan at step 0, the start: look for") as caught:
        train(np.full((2, 1), np.nan), [[1.0]], [[1.0], [1.0]], 0.1, 3)
    assert caught.value.step == 0
    np.testing.assert_array_equal(caught.value.w, [[1.0]])


def test_divergence_with_momentum():
    with pytest.raises(DivergenceError) as caught:
        train(X, START, Y, 3.0, 400, momentum=0.5)
    expected = gradient_descent(X, START, Y, 3.0, caught.value.step - 1, momentum=0.5).w
    np.testing.assert_array_equal(caught.value.w, expected)


def test_divergence_survives_a_process_boundary():
    with pytest.raises(DivergenceError) as caught:
        train(X, START, Y, 3.0, 400)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.step == caught.value.step


def test_progress():
    seen = []
    losses = train(
        X, START, Y, 0.01, 10, steps_per_call=4, on_progress=lambda *a: seen.append(a)
    ).losses.numpy()
    assert seen == [(4, losses[4]), (8, losses[8]), (10, losses[10])]


def test_no_steps():
    w, losses = train(X, START, Y, 0.01, 0)
    np.testing.assert_array_equal(w, START)
    assert losses.shape == (1,)


def test_arguments():
    with pytest.raises(ValueError, match="steps_per_call must be at least 1, got 0"):
        train(X, START, Y, 0.1, 3, steps_per_call=0)
    with pytest.raises(ValueError, match="steps_per_call needs momentum=0"):
        train(X, START, Y, 0.1, 3, steps_per_call=2, momentum=0.5)


def test_ctrl_c_keeps_what_is_finished(monkeypatch):
    from linreg_ops import ops
    from linreg_ops.training import TrainingInterrupted

    x, y = np.array([[1.0], [2.0]]), np.array([2.0, 4.0])
    whole = train(x, np.zeros(1), y, 0.1, 6)
    descend, calls = ops.gradient_descent, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return descend(*arguments, **options)

    monkeypatch.setattr(ops, "gradient_descent", interrupted)
    with pytest.raises(TrainingInterrupted, match="4 steps are finished") as caught:
        train(x, np.zeros(1), y, 0.1, 6, steps_per_call=2)
    assert caught.value.step == 4
    np.testing.assert_array_equal(caught.value.losses, whole.losses[:4])
    np.testing.assert_array_equal(caught.value.w, train(x, np.zeros(1), y, 0.1, 4).w)
    assert caught.value.losses.dtype == whole.losses.dtype

    def interrupted_within(*arguments, **options):
        if len(calls) == 1:
            x, w, y, rate, _ = arguments
            part = descend(x, w, y, rate, 1, **options)
            raise TrainingInterrupted(1, part.w.numpy(), part.losses.numpy()[:1])
        return interrupted(*arguments, **options)

    calls.clear()
    monkeypatch.setattr(ops, "gradient_descent", interrupted_within)
    with pytest.raises(TrainingInterrupted) as caught:
        train(x, np.zeros(1), y, 0.1, 6, steps_per_call=2)
    assert caught.value.step == 3
    np.testing.assert_array_equal(caught.value.losses, whole.losses[:3])
    monkeypatch.setattr(ops, "gradient_descent", interrupted)
    calls.clear()
    np.testing.assert_array_equal(caught.value.w, train(x, np.zeros(1), y, 0.1, 3).w)
    calls[:] = [(), ()]
    with pytest.raises(KeyboardInterrupt) as at_once:
        train(x, np.zeros(1), y, 0.1, 6)
    assert (at_once.value.step, at_once.value.w.tolist(), len(at_once.value.losses)) == (
        0,
        [0.0],
        0,
    )


@pytest.mark.parametrize("batch", [(), (2,)])
def test_ctrl_c_as_an_op_comes_to_its_end(batch, monkeypatch):
    """It was cancelled too late: all its steps are there, not one more."""
    from linreg_ops import _interruptible, gradient_descent
    from linreg_ops.training import TrainingInterrupted

    x, w, y = np.ones((*batch, 2, 1)), np.zeros((*batch, 1, 1)), np.ones((*batch, 2, 1))
    whole = gradient_descent(x, w, y, 0.1, 3)

    def run(*_):
        raise _interruptible.Interrupted(list(whole))

    monkeypatch.setattr(_interruptible, "wanted", lambda _: True)
    monkeypatch.setattr(_interruptible, "run", run)
    with pytest.raises(TrainingInterrupted, match="3 steps are finished") as caught:
        gradient_descent(x, w, y, 0.1, 3)
    np.testing.assert_array_equal(caught.value.w, whole.w)
    np.testing.assert_array_equal(caught.value.losses, whole.losses[..., :3])
