"""Gradient descent that says when it diverges, and where it is on the way.

The loop returns the loss of every iterate, so divergence costs nothing to detect: this module
looks at the losses, and repeats the (deterministic) steps up to the last finite one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .ops import Descent

Array: TypeAlias = npt.NDArray[Any]


class DivergenceError(ArithmeticError):
    """The loss stopped being a finite number.

    Attributes:
        step: The first t at which the loss of w_t is not finite; 0 if the start's is not.
        w: The last weights with a finite loss, those of `step - 1` (for step 0 the start itself).
        losses: The losses of w_0 ... w_step; the last one is the infinity or NaN.
    """

    def __init__(self, step: int, w: Array, losses: Array) -> None:
        super().__init__(step, w, losses)
        self.step = step
        self.w = w
        self.losses = losses

    def __str__(self) -> str:
        what = f"gradient descent diverged: the loss is {self.losses[-1]} at step {self.step}"
        if self.step == 0:
            return f"{what}, the start: look for huge, infinite or NaN values in the data"
        growing = self.step
        while growing > 1 and self.losses[growing - 1] > self.losses[growing - 2]:
            growing -= 1
        return (
            f"{what}, and grew from step {growing} on. The learning rate is too large: "
            "a stable one is below 2 / (the largest eigenvalue of XᵀX)"
        )


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during a descent: what was finished is not lost.

    Attributes:
        step: Steps finished.
        w: The weights after them.
        losses: The losses before each of them: of w_0 ... w_{step - 1}.
    """

    def __init__(self, step: int, w: Array, losses: Array) -> None:
        super().__init__(step, w, losses)
        self.step = step
        self.w = w
        self.losses = losses

    def __str__(self) -> str:
        return f"interrupted; {self.step} steps are finished, their weights are in this exception"


def train(
    x: Any,
    w: Any,
    y: Any,
    learning_rate: Any,
    num_steps: int,
    *,
    intercept: bool = False,
    sample_weight: Any = None,
    momentum: float = 0.0,
    steps_per_call: int | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> Descent:
    """`linreg_ops.gradient_descent`, with divergence raised instead of returned as NaNs.

    The unfused form, without the checks::

        for t in range(num_steps):
            r = tf.matmul(x, w) - y
            losses[t] = tf.nn.l2_loss(r)             # ½ Σ r²: a sum, not a mean
            w = w - learning_rate * tf.matmul(x, r, transpose_a=True)
        losses[num_steps] = tf.nn.l2_loss(tf.matmul(x, w) - y)

    For eager use: it looks at the losses.

    Args:
        x: `[n, d]`, as for `linreg_ops.gradient_descent`.
        w: The weights to start from.
        y: `[n]` or `[n, k]`.
        learning_rate: A scalar, or a vector of `num_steps` rates. It applies to the sum of squares,
            not their mean: a stable one is below 2 / (the largest eigenvalue of XᵀX).
        num_steps: Not negative.
        intercept: Gives x an implicit leading column of ones, whose weight is `w[0]`.
        sample_weight: `[n]`.
        momentum: 0 is plain gradient descent.
        steps_per_call: Runs the loop in ops of so many steps, to report progress between them and
            to stop early when it diverges. Same result. Only without momentum, whose velocity lives
            inside the op.
        on_progress: Called after each op with the number of steps done and the loss there.

    Returns:
        `Descent(w, losses)`, as `linreg_ops.gradient_descent`.

    Raises:
        DivergenceError: A loss is not finite. Carries its step, the last weights with a finite loss
            and the losses so far.
        TrainingInterrupted: Ctrl-C. Carries the weights and losses of the steps that are finished
            (on a GPU, of the ops).
        ValueError: `steps_per_call` below 1, or together with momentum; a schedule that does not
            have `num_steps` rates.
        Exception: What `linreg_ops.gradient_descent` raises for arguments that do not fit.

    >>> from linreg_ops.training import train
    >>> x, w, y = [[1.0], [2.0]], [0.0], [2.0, 4.0]
    >>> train(x, w, y, learning_rate=0.1, num_steps=2).losses.numpy().tolist()
    [10.0, 2.5, 0.625]
    >>> train(x, w, y, learning_rate=1e30, num_steps=2)
    Traceback (most recent call last):
    linreg_ops.training.DivergenceError: gradient descent diverged: the loss is inf at step 1, ...
    """
    import tensorflow as tf

    from .ops import Descent, gradient_descent

    if steps_per_call is not None and steps_per_call < 1:
        raise ValueError(f"steps_per_call must be at least 1, got {steps_per_call}")
    if steps_per_call is not None and momentum:
        raise ValueError("steps_per_call needs momentum=0: the velocity lives inside the op")
    x = tf.convert_to_tensor(x)
    y = tf.convert_to_tensor(y, x.dtype) if isinstance(y, list) else tf.convert_to_tensor(y)
    rates = np.asarray(learning_rate)
    if rates.ndim and rates.shape != (num_steps,):
        raise ValueError(
            "learning_rate must be a scalar or have shape [num_steps] = "
            f"[{num_steps}], got shape {list(rates.shape)}"
        )

    def descend(start: Any, first: int, steps: int) -> tuple[Any, Any]:
        # Fewer steps than there are rates too, when a descent that diverged is repeated.
        rate = rates[first : first + steps] if rates.ndim else rates
        return gradient_descent(
            x,
            start,
            y,
            rate,
            steps,
            intercept=intercept,
            sample_weight=sample_weight,
            momentum=momentum,
        )

    w, losses = descend_checked(descend, w, num_steps, steps_per_call, on_progress)
    return Descent(tf.convert_to_tensor(w), tf.convert_to_tensor(losses))


def descend_checked(
    descend: Callable[[Any, int, int], tuple[Any, Any]],
    w: Any,
    num_steps: int,
    steps_per_call: int | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> tuple[Any, Array]:
    """Calls `descend(w, first_step, steps) -> (w, losses)` until done, and looks at the losses."""
    history: list[Array] = []  # each call's losses but the last, which is the first of the next
    done = 0
    try:
        while True:
            steps = min(steps_per_call or num_steps, num_steps - done)
            new_w, losses = descend(w, done, steps)
            losses = np.asarray(losses)
            finite = np.isfinite(losses)
            if not finite.all():
                bad = int(np.argmin(finite))
                # Same steps, same bits: this is where the descent stood one step earlier.
                last, _ = descend(w, done, max(bad - 1, 0))
                raise DivergenceError(
                    done + bad, np.asarray(last), np.concatenate([*history, losses[: bad + 1]])
                )
            w, done = new_w, done + steps
            history.append(losses[:-1])
            if on_progress is not None:
                on_progress(done, float(losses[-1]))
            if done >= num_steps:
                return w, np.concatenate([*history, losses[-1:]])
    except TrainingInterrupted as within:
        losses = np.concatenate([*history, within.losses])
        raise TrainingInterrupted(done + within.step, within.w, losses) from None
    except KeyboardInterrupt:
        losses = np.concatenate(history) if history else np.empty(0)
        raise TrainingInterrupted(done, np.asarray(w), losses) from None
