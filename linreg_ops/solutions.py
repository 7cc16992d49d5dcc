"""Least squares and ridge as functions of their data in TensorFlow, differentiable to any order.

The solution w minimises a quadratic, so one Newton step from it, w - H⁻¹∇, is the solution for any
data near by as well: its derivatives are w's, of every order, and its value adds nothing. ∇ is the
fused op's; H⁻¹ is applied by the factor that found w, and differentiated by

    d(H⁻¹b) = H⁻¹(db - dH H⁻¹b)

Source: Golub and Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares
problems whose variables separate", 1973.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from . import solvers
from .ops import TensorLike, _as_tensor, linear_l2_loss_and_grad
from .solvers.factor import Factor, Factors
from .solvers.problem import Array, Problem, refuse_overflow

_FLOATS = (tf.float32, tf.float64, tf.float16, tf.bfloat16)


def least_squares(
    x: TensorLike,
    y: TensorLike,
    *,
    intercept: bool = False,
    sample_weight: TensorLike | None = None,
    name: str | None = None,
) -> tf.Tensor:
    """The weights of least loss ½ Σ s (xw - y)², differentiable in x, y and sample_weight.

    The unfused form, which squares the condition number::

        w = tf.linalg.solve(tf.matmul(x, x, transpose_a=True), tf.matmul(x, y, transpose_a=True))

    Solved as `linreg_ops.LinearRegression` does, in float64 whatever the dtype: by QR or by a
    refined Gram matrix, on the CPU. Gradients are implicit, of any order: a product with a factor
    of d², and nothing of the steps that found w. Runs eagerly and in a `tf.function`, in this
    process: not under XLA, and not from a SavedModel elsewhere.

    Args:
        x: `[n, d]`, of float32, float64, float16 or bfloat16.
        y: `[n, k]` or `[n]`, of x's dtype, or float32 when x's has 16 bits.
        intercept: Gives x an implicit leading column of ones, whose weight is `w[0]`.
        sample_weight: `[n]`, of y's dtype, not negative.
        name: A name for the operations.

    Returns:
        w `[d, k]` or `[d]`, with one row more, the first, if there is an intercept; of y's dtype.

    Raises:
        TypeError: A dtype that the ops have no kernel for.
        ValueError: Shapes that do not fit, known while tracing.
        tf.errors.InvalidArgumentError: Columns that depend on each other, for which w is not
            unique and has no derivative (`ridge` has one); NaN or infinite values; negative
            weights; shapes that do not fit, known when running.

    >>> import tensorflow as tf, linreg_ops as lo
    >>> x, y = tf.constant([[0.0], [1.0], [2.0]]), tf.Variable([1.0, 3.0, 5.0])
    >>> with tf.GradientTape() as tape:
    ...     intercept, slope = tf.unstack(lo.least_squares(x, y, intercept=True))
    >>> float(intercept), float(slope), (tape.gradient(slope, y).numpy().round(5) + 0).tolist()
    (1.0, 2.0, [-0.5, 0.0, 0.5])
    """
    with tf.name_scope(name or "least_squares"):
        return _solution(x, y, None, None, intercept, sample_weight)


def ridge(
    x: TensorLike,
    y: TensorLike,
    alpha: TensorLike,
    *,
    penalty: TensorLike | None = None,
    intercept: bool = False,
    sample_weight: TensorLike | None = None,
    name: str | None = None,
) -> tf.Tensor:
    """The weights of least ½ Σ s (xw - y)² + ½ Σ alpha penalty w², differentiable in all of them.

    The unfused form, without an intercept::

        gram = tf.matmul(x, x, transpose_a=True) + alpha * tf.linalg.diag(penalty)
        w = tf.linalg.solve(gram, tf.matmul(x, y, transpose_a=True))

    Args:
        x: `[n, d]`, as of `least_squares`.
        y: `[n, k]` or `[n]`.
        alpha: A scalar, or `[k]`: one for each target; not negative. The intercept is not
            penalised.
        penalty: `[d]`, by which alpha is multiplied for each column of x, 0 for one that is not to
            be shrunk; not negative. None for ones.
        intercept: Gives x an implicit leading column of ones, whose weight is `w[0]`.
        sample_weight: `[n]`, of y's dtype, not negative.
        name: A name for the operations.

    Returns:
        w as of `least_squares`.

    Raises:
        Exception: As `least_squares`; tf.errors.InvalidArgumentError for a negative alpha or
            penalty too.

    >>> import tensorflow as tf, linreg_ops as lo
    >>> x, y, alpha = tf.constant([[-1.0], [1.0]]), tf.constant([-1.0, 1.0]), tf.Variable(2.0)
    >>> with tf.GradientTape() as tape:
    ...     w = lo.ridge(x, y, alpha)
    >>> w.numpy().tolist(), tape.gradient(w, alpha).numpy().tolist()
    ([0.5], -0.125)
    """
    with tf.name_scope(name or "ridge"):
        return _solution(x, y, alpha, penalty, intercept, sample_weight)


def _solution(
    x: Any, y: Any, alpha: Any, penalty: Any, intercept: bool, sample_weight: Any
) -> tf.Tensor:
    x = _as_tensor(x, "x", tf.float32)
    if x.dtype not in _FLOATS:
        raise TypeError(f"x must be float32, float64, float16 or bfloat16, got {x.dtype.name}")
    y = _as_tensor(y, "y", x.dtype)
    dtype = y.dtype
    if y.shape.rank not in (1, 2) or x.shape.rank != 2:
        raise ValueError(
            f"x must have shape [n, d] and y [n] or [n, k], got {x.shape} and {y.shape}"
        )
    one_target = y.shape.rank == 1
    y = y[:, None] if one_target else y
    alpha = _as_tensor(0.0 if alpha is None else alpha, "alpha", dtype)
    alpha = tf.cast(alpha, dtype)
    if alpha.shape.rank not in (0, 1):
        raise ValueError(f"alpha must be a scalar or have shape [k], got {alpha.shape}")
    if alpha.shape.rank == 1 and not alpha.shape.is_compatible_with(y.shape[1:]):
        raise ValueError(
            f"alpha must be a scalar or have shape [{y.shape[1]}], got {alpha.shape.as_list()}"
        )
    ones = tf.ones(tf.shape(x)[1:], dtype)
    penalty = ones if penalty is None else tf.cast(_as_tensor(penalty, "penalty", dtype), dtype)
    if not penalty.shape.is_compatible_with(x.shape[1:]):
        raise ValueError(
            f"penalty must have one entry per column of x, shape {x.shape[1:]}, got {penalty.shape}"
        )
    s = None if sample_weight is None else _as_tensor(sample_weight, "sample_weight", dtype)
    weights = tf.ones(tf.shape(y)[:1], dtype) if s is None else s

    inputs = [tf.stop_gradient(t) for t in (x, y, alpha, penalty, weights)]
    solve = partial(_solve, intercept=intercept, weighted=s is not None)
    try:
        w, roots, which = tf.numpy_function(solve, inputs, [tf.float64, tf.float64, tf.int32])
    except ValueError as error:  # as a graph, which has no Python exceptions, has it
        raise tf.errors.InvalidArgumentError(None, None, str(error)) from None
    size = None if x.shape[1] is None else x.shape[1] + int(intercept)
    w.set_shape([size, y.shape[1]])
    roots.set_shape([None, size, size])
    which.set_shape([y.shape[1]])
    w = tf.cast(w, dtype)

    # [d, k], what each coefficient's square is multiplied by.
    product = penalty[:, None] * tf.broadcast_to(alpha, tf.shape(y)[1:])
    gradient = linear_l2_loss_and_grad(x, w, y, intercept=intercept, sample_weight=s).grad
    pull = product * w[int(intercept) :]
    gradient += tf.concat([tf.zeros_like(w[:1]), pull], 0) if intercept else pull
    step = _newton(x, weights, product, gradient, roots, which, intercept)
    w -= step - tf.stop_gradient(step)
    return w[:, 0] if one_target else w


def _newton(
    x: tf.Tensor,
    s: tf.Tensor,
    penalty: tf.Tensor,
    b: tf.Tensor,
    roots: tf.Tensor,
    which: tf.Tensor,
    intercept: bool,
) -> tf.Tensor:
    """H⁻¹b of H = AᵀSA + penalty [d, k], by factors Z with Z Zᵀ = H⁻¹; `which`, for each target."""

    def apply(b: tf.Tensor) -> tf.Tensor:
        wide = tf.cast(b, tf.float64)
        if roots.shape[0] == 1:
            out = tf.matmul(roots[0], tf.matmul(roots[0], wide, transpose_a=True))
        else:
            own = tf.gather(roots, which)  # [k, p, p]
            out = tf.einsum("kij,klj,lk->ik", own, own, wide)
        return tf.cast(out, b.dtype)

    def image(v: tf.Tensor) -> tf.Tensor:
        slopes = tf.cast(x, v.dtype)
        return tf.matmul(slopes, v[1:]) + v[:1] if intercept else tf.matmul(slopes, v)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def solve(x: tf.Tensor, s: tf.Tensor, penalty: tf.Tensor, b: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            u, v = solve(x, s, penalty, upstream), solve(x, s, penalty, b)
            image_u, image_v = image(u), image(v)
            first = int(intercept)
            of_x = tf.matmul(s[:, None] * image_v, u[first:], transpose_b=True)
            of_x += tf.matmul(s[:, None] * image_u, v[first:], transpose_b=True)
            of_s = -tf.reduce_sum(image_u * image_v, 1)
            return tf.cast(-of_x, x.dtype), of_s, -u[first:] * v[first:], u

        return apply(b), gradient

    return solve(x, s, penalty, b)


def _solve(
    x: Array,
    y: Array,
    alpha: Array,
    penalty: Array,
    s: Array,
    *,
    intercept: bool,
    weighted: bool,
) -> tuple[Array, Array, Array]:
    """W [p, k], the factors [u, p, p] of its Hessians, and which of them is each target's [k]."""
    n, d = x.shape
    if len(y) != n or s.shape != (n,):
        raise ValueError(f"y and sample_weight must have {n} rows as x, got {len(y)}, {len(s)}")
    if alpha.shape not in ((), (y.shape[1],)):
        raise ValueError(f"alpha must be a scalar or have shape [{y.shape[1]}], got {alpha.shape}")
    if penalty.shape != (d,):
        raise ValueError(
            f"penalty must have one entry per column of x, shape [{d}], got {list(penalty.shape)}"
        )
    x, y = (a.astype(np.float32) if a.dtype.itemsize == 2 else a for a in (x, y))
    not_negative = {"alpha": alpha, "penalty": penalty, "sample_weight": s}
    for name, value in {"x": x, "y": y, **not_negative}.items():
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{name} must not hold NaN or infinite values")
        if name in not_negative and np.any(value < 0):
            raise ValueError(f"{name} must not be negative")
    if not np.any(s > 0):
        raise ValueError("sample_weight must not be all zero")
    alpha, penalty, s = (a.astype(np.float64) for a in not_negative.values())
    refuse_overflow(alpha, penalty)
    problem = Problem(
        x,
        y,
        s if weighted else None,
        intercept=intercept,
        alpha=alpha,
        column_penalty=penalty,
    )
    solver = solvers.choose(problem)[0]
    with np.errstate(all="ignore"):
        found = solvers.solve(
            problem,
            "exact" if solver == "cg" else "auto",
            tol=1e-10,
            num_steps=0,
            progress=solvers.Progress(problem),
        )
    if found.rank != d:
        raise ValueError(
            f"x has {d} columns of rank {found.rank}: w is not unique. Leave columns out, or take "
            "ridge with alpha above 0"
        )
    if not found.converged:
        raise ValueError(f"not solved to rounding at a condition number of {found.condition:.1g}")
    assert isinstance(found.factor, Factor | Factors)
    parts, which = found.factor.parts(problem.k)
    roots = [problem.directions(factor.root()) * np.sqrt(problem.s_scale) for factor in parts]
    w = np.vstack([found.intercept[None], found.coef]) if intercept else found.coef
    return w, np.array(roots), which.astype(np.int32)
