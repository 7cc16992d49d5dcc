"""The float64 NumPy definition of every op: short enough to check by eye, slow enough to trust.

Tests compare the ops with this module, and it is what the documentation means by "equivalent".
Everything is computed in float64 whatever the type of the inputs, unfused, with the intercept's
column of ones written out.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]


class LossAndGrad(NamedTuple):
    """What `linear_l2_loss_and_grad` returns."""

    loss: float
    grad: Array


class Descent(NamedTuple):
    """What `gradient_descent` returns."""

    w: Array
    losses: Array


def linear_l2_loss(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    intercept: bool = False,
    sample_weight: npt.ArrayLike | None = None,
) -> float:
    """The loss ½ Σᵢ sᵢ ‖xᵢ·w - yᵢ‖²: a sum, not a mean.

    Args:
        x: [n, d].
        w: [d] or [d, k]; one row more, the intercept's, first, with `intercept`.
        y: [n] or [n, k], of the same rank as w.
        intercept: X has an implicit leading column of ones.
        sample_weight: [n]; ones if absent.

    Raises:
        ValueError: Shapes that do not fit together; the message names them.

    >>> linear_l2_loss([[1.0], [2.0]], [3.0], [2.0, 4.0])
    2.5
    >>> linear_l2_loss([[1.0], [2.0]], [0.0, 2.0], [2.0, 5.0], intercept=True)
    0.5
    """
    x, w, y, s = _arrays(x, w, y, intercept, sample_weight)
    r = x @ w - y
    return float(0.5 * np.sum(s * np.square(r).T))


def linear_l2_loss_and_grad(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    intercept: bool = False,
    sample_weight: npt.ArrayLike | None = None,
) -> LossAndGrad:
    """The loss and its gradient Xᵀ·diag(s)·(X·w - y), of w's shape.

    Arguments and errors as for `linear_l2_loss`.

    >>> linear_l2_loss_and_grad([[1.0], [2.0]], [3.0], [2.0, 4.0])
    LossAndGrad(loss=2.5, grad=array([5.]))
    """
    x, w, y, s = _arrays(x, w, y, intercept, sample_weight)
    r = x @ w - y
    return LossAndGrad(float(0.5 * np.sum(s * np.square(r).T)), x.T @ (s * r.T).T)


def gradient_descent(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    y: npt.ArrayLike,
    learning_rate: npt.ArrayLike,
    num_steps: int,
    *,
    intercept: bool = False,
    sample_weight: npt.ArrayLike | None = None,
    momentum: float = 0.0,
) -> Descent:
    """Full-batch gradient descent: v ← momentum·v - rateₜ·∇w(wₜ), wₜ₊₁ = wₜ + v, from v = 0.

    `learning_rate` is a scalar or one rate per step. `losses` has num_steps + 1 entries:
    losses[t] is the loss at wₜ, losses[0] the one before any step.

    Raises:
        ValueError: A negative number of steps, a schedule of another length than num_steps,
            and what `linear_l2_loss` raises.

    >>> gradient_descent([[1.0], [2.0]], [3.0], [2.0, 4.0], 0.1, 2)
    Descent(w=array([2.25]), losses=array([2.5    , 0.625  , 0.15625]))
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must be >= 0, got {num_steps}")
    rates = np.asarray(learning_rate, np.float64)
    if rates.ndim != 0 and rates.shape != (num_steps,):
        raise ValueError(
            f"learning_rate must be a scalar or have shape [num_steps] = [{num_steps}], "
            f"got shape {list(rates.shape)}"
        )
    weights = np.array(w, np.float64)
    velocity = np.zeros_like(weights)
    losses = []
    for rate in np.broadcast_to(rates, num_steps):
        loss, grad = linear_l2_loss_and_grad(
            x, weights, y, intercept=intercept, sample_weight=sample_weight
        )
        losses.append(loss)
        velocity = momentum * velocity - rate * grad
        weights += velocity
    losses.append(linear_l2_loss(x, weights, y, intercept=intercept, sample_weight=sample_weight))
    return Descent(weights, np.array(losses))


def least_squares(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    intercept: bool = False,
    sample_weight: npt.ArrayLike | None = None,
) -> Array:
    """The weights of least loss, by LAPACK's SVD and refinement: where every descent should end.

    It is the minimiser of least norm of columns scaled to unit length: they are scaled for
    the factorisation, which is what makes polynomials of degree 10 come out right.

    >>> least_squares([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0], intercept=True).round(12)
    array([1., 2.])
    """
    y = np.asarray(y, np.float64)
    columns = np.shape(x)[-1] + int(intercept)
    x, _, y, s = _arrays(x, np.zeros((columns, *y.shape[1:])), y, intercept, sample_weight)
    root = np.sqrt(s)
    scaled = root[:, None] * x
    length = np.linalg.norm(scaled, axis=0)
    length[length == 0] = 1.0
    scaled = scaled / length
    target = (root * y.T).T
    # Refined by the gradient in extended precision: the bare factorisation leaves the last digits
    # of a hard problem to the build of LAPACK at hand.
    inverse = np.linalg.pinv(scaled, rcond=max(1, *scaled.shape) * np.finfo(np.float64).eps)
    w = inverse @ target
    exact_x, exact_y = scaled.astype(np.longdouble), target.astype(np.longdouble)
    w = w.astype(np.longdouble)
    for _ in range(5):
        gradient = exact_x.T @ (exact_y - exact_x @ w)
        w = w + inverse @ (inverse.T @ gradient.astype(np.float64))
    return np.asarray((w.T / length).T, np.float64)


def ridge(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    alpha: npt.ArrayLike,
    *,
    penalty: npt.ArrayLike | None = None,
    intercept: bool = False,
    sample_weight: npt.ArrayLike | None = None,
) -> Array:
    """The weights of least ½ Σᵢ sᵢ ‖xᵢ·w - yᵢ‖² + ½ Σₜ alphaₜ Σⱼ penaltyⱼ wⱼₜ².

    By `least_squares`, with each penalty a row of data: √(alpha·penaltyⱼ) in column j, and 0 for y.

    alpha is a scalar, or one for each target [k]; penalty is [d], ones if absent. The intercept has
    none. The other arguments are as for `linear_l2_loss`.

    >>> ridge([[-1.0], [1.0]], [-1.0, 1.0], 2.0).round(12)
    array([0.5])
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if y.ndim == 2:
        each = np.broadcast_to(np.asarray(alpha, np.float64), y.shape[1:])
        solve = partial(ridge, penalty=penalty, intercept=intercept, sample_weight=sample_weight)
        columns = [solve(x, y[:, t], each[t]) for t in range(y.shape[1])]
        return np.reshape(columns, (y.shape[1], x.shape[1] + int(intercept))).T
    d = x.shape[1]
    own = np.ones(d) if penalty is None else np.asarray(penalty, np.float64)
    x, _, y, s = _arrays(x, np.zeros(d + int(intercept)), y, intercept, sample_weight)
    rows = np.zeros((d, x.shape[1]))
    rows[:, int(intercept) :] = np.diag(np.sqrt(np.asarray(alpha, np.float64)) * np.sqrt(own))
    return least_squares(
        np.vstack([x, rows]),
        np.concatenate([y, np.zeros(d)]),
        sample_weight=np.concatenate([s, np.ones(d)]),
    )


def _arrays(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    y: npt.ArrayLike,
    intercept: bool,
    sample_weight: npt.ArrayLike | None,
) -> tuple[Array, Array, Array, Array]:
    """Everything as float64, the ones written out, shapes checked."""
    x, w, y = (np.asarray(a, np.float64) for a in (x, w, y))
    if x.ndim != 2:
        raise ValueError(f"x must have shape [n, d], got {list(x.shape)}")
    n = x.shape[0]
    if intercept:
        x = np.concatenate([np.ones((n, 1)), x], axis=1)
    if w.ndim not in (1, 2) or w.shape[0] != x.shape[1]:
        raise ValueError(
            f"w must have shape [{x.shape[1]}] or [{x.shape[1]}, k] "
            f"for x of {x.shape[1]} columns{' with its intercept' if intercept else ''}, "
            f"got {list(w.shape)}"
        )
    if y.shape != (n, *w.shape[1:]):
        raise ValueError(f"y must have shape {[n, *w.shape[1:]]}, got {list(y.shape)}")
    s = np.ones(n) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if s.shape != (n,):
        raise ValueError(f"sample_weight must have shape [{n}], got {list(s.shape)}")
    return x, w, y, s
