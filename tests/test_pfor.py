"""tf.vectorized_map over the ops: the loop's results, in one pass over X, without a warning."""

import functools
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from launches import graph_kernels
from oracles import problem

import linreg_ops as lo
from linreg_ops import _library, _pfor

pytestmark = pytest.mark.composes("`vectorized_map`, without a fallback to a loop")
FORWARD = "Linreg>L2LossGrad"
NAMES = ("x", "w", "y", "s")


def vectorized(function, elements):
    """Inside a function of its own, as TensorFlow warns of eager calls in a row that retrace."""
    loop = tf.function(lambda e: tf.vectorized_map(function, e, fallback_to_while_loop=False))
    return loop.get_concrete_function(elements)(elements)


def assert_equal(ours, theirs, tolerance=1e-12):
    for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def family(rng, b, n, d, k, varying, intercept, weights, batch=()):
    """Arguments of b problems: those in `varying` have b in front."""

    def draw(name):
        count = int(np.prod(batch)) * (b if name in varying else 1)
        lead = ((b,) if name in varying else ()) + tuple(batch)
        parts = [
            problem(rng, n, d, k, dtype=np.float64, intercept=intercept, weights=True)[
                NAMES.index(name)
            ]
            for _ in range(max(count, 1))
        ]
        return tf.constant(np.stack(parts)[:count].reshape(*lead, *parts[0].shape))

    return {name: draw(name) for name in NAMES if weights or name != "s"}


def mapped(function, arguments, varying, loop=vectorized, **options):
    """`function` over the arguments in `varying`."""

    def one(elements):
        x, w, y, s = ({**arguments, **elements}.get(name) for name in NAMES)
        return function(x, w, y, sample_weight=s, **options)

    return loop(one, {name: arguments[name] for name in varying})


def one_by_one(function, elements):
    count = len(next(iter(elements.values())))
    results = [function({k: v[i] for k, v in elements.items()}) for i in range(count)]
    return tf.nest.map_structure(lambda *parts: tf.stack(parts), *results)


VARYING = [names for r in range(1, 5) for names in itertools.combinations(NAMES, r)]


@pytest.mark.parametrize("varying", VARYING, ids="".join)
def test_every_combination(rng, varying):
    weights = "s" in varying or "x" in varying
    for k, intercept, batch in ((None, False, ()), (1, True, ()), (3, False, (2,))):
        if len(varying) > 2 and batch:
            continue
        arguments = family(rng, 4, 9, 5, k, varying, intercept, weights, batch)
        for function in (lo.linear_l2_loss_and_grad, lo.linear_l2_loss):
            assert_equal(
                mapped(function, arguments, varying, intercept=intercept),
                mapped(function, arguments, varying, one_by_one, intercept=intercept),
            )


@pytest.mark.parametrize(
    ("varying", "passes", "loops"),
    [
        ("w", 1, 0),
        ("y", 1, 0),
        ("wy", 1, 0),
        ("x", 1, 0),
        ("xwy", 1, 0),
        ("xs", 1, 0),
        ("s", 1, 1),
        ("ws", 1, 1),
    ],
)
def test_one_pass(rng, varying, passes, loops):
    """One op for all problems, not one each; a loop only where it would take copies of X."""
    arguments = family(rng, 8, 20, 5, 1, varying, False, "s" in varying)
    kernels = graph_kernels(lambda: mapped(lo.linear_l2_loss, arguments, varying))
    assert kernels[FORWARD] == passes
    assert kernels["While"] + kernels["StatelessWhile"] + kernels["Enter"] > 0 or not loops
    if not loops:
        assert not any(op in kernels for op in ("While", "StatelessWhile", "Enter"))


def test_columns_are_read_together(rng):
    """b problems over one X reach the kernel as b k columns, in one call."""
    x, _, y, _ = (*map(tf.constant, problem(rng, 20, 5, 3)[:3]), None)
    w = tf.constant(rng.standard_normal((8, 5, 3)), tf.float32)

    def losses(w):
        return tf.vectorized_map(
            lambda w: lo.linear_l2_loss(x, w, y), w, fallback_to_while_loop=False
        )

    graph = tf.function(losses).get_concrete_function(w).graph
    shapes = [
        tuple(tuple(i.shape) for i in op.inputs)
        for op in graph.get_operations()
        if op.type == FORWARD
    ]
    # The first is the loop's body, which nothing uses any more.
    assert shapes == [((20, 5), (5, 3), (20, 3)), ((20, 5), (5, 24), (20, 24))]
    np.testing.assert_allclose(losses(w), [lo.linear_l2_loss(x, v, y) for v in w], rtol=1e-6)


@pytest.mark.parametrize("varying", ["w", "y", "wy"])
def test_nothing_is_copied_but_the_columns(rng, varying):
    """No tensor on the way is larger than the b k columns of y: X stays alone."""
    b, n, d, k = 8, 20, 5, 3
    arguments = family(rng, b, n, d, k, varying, False, False)

    def loop(arguments):
        in_place = functools.partial(tf.vectorized_map, fallback_to_while_loop=False)
        return mapped(lo.linear_l2_loss_and_grad, arguments, varying, in_place)

    graph = tf.function(loop).get_concrete_function(arguments).graph
    shapes = [tuple(t.shape) for op in graph.get_operations() for t in op.outputs]
    assert (n, b * k) in shapes
    assert max(map(math.prod, shapes)) == n * b * k


def test_the_default_loop_has_nothing_to_fall_back_to(rng):
    """Without fallback_to_while_loop=False, what has no converter runs too, with a warning."""
    arguments = family(rng, 3, 9, 4, 2, "w", False, False)

    def losses(w):
        return tf.vectorized_map(lambda w: lo.linear_l2_loss(arguments["x"], w, arguments["y"]), w)

    assert_equal(
        losses(arguments["w"]), mapped(lo.linear_l2_loss, arguments, "w", one_by_one), 1e-12
    )


@pytest.mark.parametrize("k", [None, 2])
def test_per_target_losses(rng, k):
    ops = _library.load()
    for varying in ("w", "x", "s"):
        arguments = family(rng, 3, 9, 4, k, varying, False, True)

        def losses(x, w, y, sample_weight):
            return ops.linreg_l2_loss_grad(x, w, y, [sample_weight], loss_per_target=True)

        assert_equal(
            mapped(losses, arguments, varying), mapped(losses, arguments, varying, one_by_one)
        )


@pytest.mark.parametrize("varying", ["x", "w", "y", "xw", "s", "wy"])
@pytest.mark.parametrize("k", [None, 2])
def test_gradients_inside(rng, varying, k):
    """The tape in the loop's body: converters of SavedGradient and HessianVectorProduct."""
    arguments = family(rng, 3, 9, 4, k, varying, True, "s" in varying)

    def second_order(x, w, y, sample_weight, intercept):
        with tf.GradientTape() as outer:
            outer.watch([x, w, y])
            with tf.GradientTape() as inner:
                inner.watch(w)
                loss = tf.sin(
                    lo.linear_l2_loss(x, w, y, intercept=intercept, sample_weight=sample_weight)
                )
            gradient = inner.gradient(loss, w)
            value = tf.reduce_sum(tf.sin(gradient))
        return gradient, outer.gradient(value, [x, w, y])

    assert_equal(
        mapped(second_order, arguments, varying, intercept=True),
        mapped(second_order, arguments, varying, one_by_one, intercept=True),
        1e-10,
    )


@pytest.mark.parametrize("varying", ["x", "w", "y", "xwy"])
def test_gradients_through(rng, varying):
    """The tape around the loop: what the converters build is differentiable."""
    arguments = family(rng, 3, 9, 4, 2, varying, False, False)

    def gradients(loop):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            loss, grad = mapped(lo.linear_l2_loss_and_grad, arguments, varying, loop)
            value = tf.reduce_sum(tf.sin(loss)) + tf.reduce_sum(tf.sin(grad))
        return tape.gradient(value, arguments)

    assert_equal(gradients(vectorized), gradients(one_by_one), 1e-11)


@pytest.mark.parametrize("varying", VARYING, ids="".join)
def test_descents(rng, varying):
    arguments = family(rng, 3, 9, 4, 2, varying, True, "s" in varying)

    def descend(x, w, y, sample_weight):
        return lo.gradient_descent(
            x, w, y, 0.01, 5, intercept=True, sample_weight=sample_weight, momentum=0.5
        )

    assert_equal(
        mapped(descend, arguments, varying), mapped(descend, arguments, varying, one_by_one)
    )


def test_descents_with_one_rate_each(rng):
    x, w, y, _ = problem(rng, 9, 4, dtype=np.float64)
    rates = tf.constant([0.001, 0.01, 0.02], tf.float64)

    def descend(rate):
        return lo.gradient_descent(x, w, y, rate, 5)

    expected = [descend(rate) for rate in rates]
    assert_equal(
        vectorized(descend, rates), tf.nest.map_structure(lambda *t: tf.stack(t), *expected)
    )


def test_batches_of_descents_are_one_op(rng):
    arguments = family(rng, 3, 9, 4, 2, "xwy", False, False)

    def descend(x, w, y, sample_weight):
        return lo.gradient_descent(x, w, y, 0.01, 5)

    kernels = graph_kernels(lambda: mapped(descend, arguments, "xwy"))
    assert kernels["Linreg>GradientDescent"] == 1
    assert not any(op in kernels for op in ("While", "StatelessWhile", "Enter"))


def test_unknown_shapes(rng):
    arguments = family(rng, 3, 9, 4, 2, "w", False, False)
    for shape in ([None, None], None):
        signature = [
            tf.TensorSpec(None if shape is None else [None, None, None], tf.float64),
            tf.TensorSpec(shape, tf.float64),
            tf.TensorSpec(shape, tf.float64),
        ]

        @tf.function(input_signature=signature)
        def losses(w, x, y):
            return vectorized(lambda w: lo.linear_l2_loss_and_grad(x, w, y), w)

        assert_equal(
            losses(arguments["w"], arguments["x"], arguments["y"]),
            mapped(lo.linear_l2_loss_and_grad, arguments, "w", one_by_one),
        )


def test_no_iterations_and_empty_problems(rng):
    x, _, y, _ = problem(rng, 9, 4, 2, dtype=np.float64)
    for b, k in ((0, 2), (3, 0)):
        w = tf.zeros([b, 4, k], tf.float64)
        loss, grad = vectorized(lambda w: lo.linear_l2_loss_and_grad(x, w, y[:, : w.shape[1]]), w)
        np.testing.assert_array_equal(loss, np.zeros(b))
        assert grad.shape == [b, 4, k]


def test_registering_twice():
    _pfor.register()
    _pfor.register()
