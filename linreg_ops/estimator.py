"""Linear regression with scikit-learn's conventions, every step of it one fused pass over X.

Without a learning rate it runs conjugate gradients, whose steps need exactly what the kernel
computes: with Y = 0 the gradient is the Hessian-vector product XᵀS·X·P. With a learning rate it
runs gradient descent, the whole loop in one call. Both on the raw kernels: no TensorFlow.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

try:
    from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_array,
        check_is_fitted,
        validate_data,
    )
except ImportError as error:
    raise ImportError(
        "linreg_ops.LinearRegression needs scikit-learn 1.6 or later. Install it with:\n"
        '    pip install "linreg_ops[demo]"'
    ) from error

from . import kernels
from .training import DivergenceError, descend_checked

Array: TypeAlias = npt.NDArray[Any]


class LinearRegression(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Least squares by the fused kernel, as a scikit-learn regressor.

    Minimises ½ Σ sᵢ ‖xᵢ·coef + intercept - yᵢ‖² (the sum convention of `tf.nn.l2_loss`, not a
    mean), on the CPU and without TensorFlow: in float32 if X is float32, in float64 otherwise.
    The bits do not depend on the number of threads.

    Equivalent, unfused::

        coef, *_ = np.linalg.lstsq(X - X.mean(0), y - y.mean(0))
        intercept = y.mean(0) - X.mean(0) @ coef

    Args:
        fit_intercept: Fit a constant term too.
        learning_rate: `None`: conjugate gradients, which need none. A float, or one per step:
            gradient descent with it. `"auto"`: gradient descent with 1 / λ, λ the largest
            eigenvalue of the Hessian (by power iteration). Rates apply to the *sum* of squares, so
            a stable one is below 2 / λ.
        num_steps: At most so many steps; exactly so many with a learning rate.
        momentum: Of gradient descent (heavy ball), in [0, 1).
        tol: Converged when the gradient, relative to ‖X‖·‖residual‖, is below this (or within
            rounding of zero). That is a bound on the relative backward error.
        standardize: Train on centred columns of unit variance (a copy of X), then map the
            coefficients back: the same minimum, reached in far fewer steps when columns differ
            in scale. With False, X itself is read, and not copied if it is C-contiguous of a
            floating type.

    Attributes:
        coef_: [d], or [k, d] if y has two dimensions.
        intercept_: Float, or [k] if y has two dimensions; 0.0 without `fit_intercept`.
        loss_curve_: The loss before the first step and after each one.
        n_iter_: Steps taken.
        learning_rate_: The rate used; None for conjugate gradients.
        n_features_in_, feature_names_in_: As everywhere in scikit-learn.

    Where several coefficients fit equally well (more columns than rows, columns that depend on
    each other), the answer is the one of least norm in the coordinates trained in.

    Source: Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems",
    1952 (their variant for least squares, CGLS); the stopping rule is the second of Paige and
    Saunders, "LSQR", 1982.

    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> model = LinearRegression().fit(X, [1.0, 3.0, 5.0, 7.0])
    >>> model.coef_.round(6), round(model.intercept_, 6)
    (array([2.]), 1.0)
    >>> model.predict([[10.0]]).round(6)
    array([21.])
    """

    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        learning_rate: float | str | npt.ArrayLike | None = None,
        num_steps: int = 1000,
        momentum: float = 0.0,
        tol: float = 1e-10,
        standardize: bool = True,
    ) -> None:
        self.fit_intercept = fit_intercept
        self.learning_rate = learning_rate
        self.num_steps = num_steps
        self.momentum = momentum
        self.tol = tol
        self.standardize = standardize

    def fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> LinearRegression:
        """Fit to X [n, d] and y [n] or [n, k], each row counting `sample_weight` [n] times.

        Warns:
            ConvergenceWarning: `tol` was not reached in `num_steps`.

        Raises:
            ValueError: Parameters out of range, shapes that do not fit, NaN or infinite values,
                negative weights.
            DivergenceError: The learning rate is too large; carries the step and the last finite
                weights (see `linreg_ops.training.DivergenceError`).
        """
        self._check_parameters()
        x, y_checked = validate_data(
            self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True
        )
        targets = check_array(y_checked, dtype=x.dtype, ensure_2d=False, input_name="y")
        one_target = targets.ndim == 1
        targets = targets.reshape(len(targets), -1)
        s = None
        if sample_weight is not None:
            s = _check_sample_weight(sample_weight, x, dtype=x.dtype)
            if s.min() < 0:
                raise ValueError("sample_weight must not be negative")
            if not s.any():
                raise ValueError("sample_weight must not be all zero")

        problem = _Problem(x, targets, s, self.fit_intercept, self.standardize)
        if self.learning_rate is None:
            self.learning_rate_ = None
            w, losses = problem.conjugate_gradients(self.num_steps, self.tol)
        else:
            self.learning_rate_ = self.learning_rate
            if isinstance(self.learning_rate, str):
                self.learning_rate_ = 1.0 / problem.largest_eigenvalue()
            w, losses = problem.descend(self.learning_rate_, self.num_steps, self.momentum)
        self.loss_curve_ = losses
        self.n_iter_ = len(losses) - 1
        if not problem.converged(w, self.tol):
            warnings.warn(
                f"Not converged to tol={self.tol} after {self.n_iter_} steps. Increase num_steps"
                + ("." if self.learning_rate is None else ", or the rate, or use None for it."),
                ConvergenceWarning,
                stacklevel=2,
            )

        intercept, coef = problem.original_coordinates(w)
        self.coef_ = coef[:, 0] if one_target else np.ascontiguousarray(coef.T)
        self.intercept_: Any = 0.0
        if self.fit_intercept:
            self.intercept_ = float(intercept[0]) if one_target else intercept
        return self

    def predict(self, X: npt.ArrayLike) -> Array:
        """X·coef + intercept: [n], or [n, k] if y had two dimensions."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return np.asarray(x @ self.coef_.T + self.intercept_)

    def _check_parameters(self) -> None:
        if not isinstance(self.num_steps, int | np.integer) or self.num_steps < 0:
            raise ValueError(f"num_steps must be an integer >= 0, got {self.num_steps!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum!r}")
        if self.momentum and self.learning_rate is None:
            raise ValueError("momentum needs a learning_rate: conjugate gradients have their own")
        if not self.tol >= 0:
            raise ValueError(f"tol must be >= 0, got {self.tol!r}")
        rate = self.learning_rate
        if isinstance(rate, str):
            if rate != "auto":
                raise ValueError(f"learning_rate must be None, 'auto' or numbers, got {rate!r}")
        elif rate is not None and not np.all(np.asarray(rate, np.float64) > 0):
            raise ValueError(f"learning_rate must be positive, got {rate!r}")


class _Problem:
    """The least-squares problem in the coordinates it is trained in.

    With `standardize`, the intercept is taken care of by centring; without, by the op.
    """

    def __init__(
        self, x: Array, y: Array, s: Array | None, intercept: bool, standardize: bool
    ) -> None:
        self.type = x.dtype
        self.intercept = intercept
        self.centre_x, self.centre_y = np.zeros(x.shape[1]), np.zeros(y.shape[1])
        self.scale = np.ones(x.shape[1])
        self.implicit_ones = intercept and not standardize
        weight = np.ones(len(y)) if s is None else s.astype(np.float64)
        if standardize:
            x, y = self._standardized(x, y, weight)
        self.x, self.y, self.s = np.ascontiguousarray(x), np.ascontiguousarray(y), s
        self.w_shape = (x.shape[1] + int(self.implicit_ones), y.shape[1])
        self.norm_y = np.sqrt(np.einsum("i,ij,ij->", weight, y, y))
        self.norm_x = np.sqrt(
            np.einsum("i,ij,ij->", weight, x, x) + weight.sum() * self.implicit_ones
        )

    def _standardized(self, x: Array, y: Array, weight: Array) -> tuple[Array, Array]:
        # einsum adds in float64, as the weights are, without a float64 copy of X.
        total = weight.sum()
        if self.intercept:
            # In X's type: what is subtracted here is exactly what is taken into account later.
            self.centre_x = (np.einsum("i,ij->j", weight, x) / total).astype(self.type)
            self.centre_y = (np.einsum("i,ij->j", weight, y) / total).astype(self.type)
        x = x - self.centre_x.astype(self.type)
        y = y - self.centre_y.astype(self.type)
        scale = np.sqrt(np.einsum("i,ij,ij->j", weight, x, x) / total)
        # What is left of a constant column after centring is rounding: fitting it would be fitting
        # noise. Its coefficient is 0.
        constant = scale <= 8 * np.finfo(self.type).eps * np.abs(self.centre_x)
        self.scale = np.where(constant, 1.0, scale)
        x /= self.scale.astype(self.type)
        x[:, constant] = 0.0
        return x, y

    def original_coordinates(self, w: Array) -> tuple[Array, Array]:
        """(intercept [k], coef [d, k]) for the untransformed X and y."""
        if self.implicit_ones:
            return w[0].astype(self.type), w[1:].astype(self.type)
        coef = w / self.scale[:, None]
        intercept = self.centre_y - self.centre_x.astype(np.float64) @ coef
        return intercept.astype(self.type), coef.astype(self.type)

    def loss_and_grad(self, w: Array) -> tuple[float, Array]:
        loss, grad = self._pass(w, self.y)
        return float(loss), grad

    def hessian_times(self, v: Array) -> Array:
        return self._pass(v, None)[1]

    def _pass(self, w: Array, y: Array | None) -> tuple[Any, Array]:
        """One fused pass. The small vectors outside it are float64 whatever X is."""
        loss, grad = kernels.loss_and_grad(
            self.x, w.astype(self.type), y, intercept=self.implicit_ones, sample_weight=self.s
        )
        return loss, grad.astype(np.float64)

    def converged(self, w: Array, tol: float) -> bool:
        loss, grad = self.loss_and_grad(w)
        return self._small(loss, grad, tol)

    def _small(self, loss: float, grad: Array, tol: float) -> bool:
        # The second term is the rounding of X·w - y itself: no step gets below it.
        eps = np.finfo(self.type).eps
        residual = np.sqrt(2.0 * max(loss, 0.0))
        limit = self.norm_x * (max(tol, eps) * residual + 4 * eps * self.norm_y)
        return bool(np.linalg.norm(grad) <= limit)

    def conjugate_gradients(self, num_steps: int, tol: float) -> tuple[Array, Array]:
        """One recurrence per target, all in the same pass over X.

        The gradient is carried by the recurrence. When that says converged, one pass computes it
        afresh; if rounding had fooled the recurrence, it restarts from there.
        """
        w = np.zeros(self.w_shape)
        loss, grad = self.loss_and_grad(w)
        losses = [loss]
        direction = -grad
        squared = np.sum(np.square(grad), axis=0)
        fresh = True
        while len(losses) <= num_steps:
            if self._small(loss, grad, tol):
                if fresh:
                    break
                loss, grad = self.loss_and_grad(w)
                direction, squared, fresh = -grad, np.sum(np.square(grad), axis=0), True
                continue
            image = self.hessian_times(direction)
            curvature = np.sum(direction * image, axis=0)
            step = np.divide(squared, curvature, out=np.zeros_like(squared), where=curvature > 0)
            w += step * direction
            grad += step * image
            loss = max(loss - 0.5 * float(step @ squared), 0.0)
            losses.append(loss)
            new = np.sum(np.square(grad), axis=0)
            beta = np.divide(new, squared, out=np.zeros_like(new), where=squared > 0)
            direction = beta * direction - grad
            squared, fresh = new, False
        return w, np.array(losses, self.type)

    def descend(self, rate: Any, num_steps: int, momentum: float) -> tuple[Array, Array]:
        def run(w: Array, first: int, steps: int) -> tuple[Array, Array]:
            return kernels.gradient_descent(
                self.x,
                w,
                self.y,
                rate if np.ndim(rate) == 0 else np.asarray(rate, np.float64)[first : first + steps],
                steps,
                intercept=self.implicit_ones,
                sample_weight=self.s,
                momentum=momentum,
            )

        try:
            w, losses = descend_checked(run, np.zeros(self.w_shape, self.type), num_steps)
        except DivergenceError as error:
            intercept, coef = self.original_coordinates(error.w)
            error.w = np.concatenate([intercept[None], coef]) if self.intercept else coef
            raise
        return w.astype(np.float64), losses

    def largest_eigenvalue(self, iterations: int = 100) -> float:
        """Of XᵀSX, by power iteration: from below, but 1 / λ is only half of the stable maximum."""
        v = np.random.default_rng(0).standard_normal((self.w_shape[0], 1))
        estimate = 0.0
        for _ in range(iterations):
            v /= np.linalg.norm(v)
            image = self.hessian_times(v)
            previous, estimate = estimate, float(np.linalg.norm(image))
            if estimate == 0.0:
                return 1.0  # X is zero: any rate does
            if estimate - previous <= 1e-3 * estimate:
                break
            v = image
        return estimate
