"""Derivatives of every order and mode, against those of the stock composite, in float64."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from launches import eager_kernels, graph_kernels, session_kernels
from oracles import problem, unit_roundoff

import linreg_ops as lo
from linreg_ops.ops import _ops

pytestmark = pytest.mark.composes("Autodiff: any order, forward mode, Jacobians, Hessians")
FORWARD, PASS_ON = "Linreg>L2LossGrad", "Linreg>SavedGradient"
HESSIAN = "Linreg>HessianVectorProduct"
MATRIX_PRODUCTS = ("MatMul", "_MklMatMul", "_FusedMatMul", "_MklFusedMatMul", "BatchMatMulV2")
MATRIX_PRODUCTS += ("BatchMatMulV3", "_MklBatchMatMulV2")


class Case:
    """One problem in float64: rank 1, rank 2, or a batch of rank 3."""

    def __init__(self, rng, rank, intercept, weights):
        k, batch = {1: (None, ()), 2: (2, ()), 3: (2, (3,))}[rank]
        count = int(np.prod(batch))
        parts = [
            problem(rng, 7, 3, k, dtype=np.float64, intercept=intercept, weights=True)
            for _ in range(count)
        ]
        stacked = [np.stack(p).reshape(*batch, *p[0].shape) for p in zip(*parts, strict=True)]
        x, w, y, s = map(tf.constant, stacked)
        self.inputs = [x, w, y, *([s] if weights else [])]
        self.intercept = intercept
        self.directions = [tf.constant(rng.standard_normal(t.shape)) for t in self.inputs]

    def ours(self, x, w, y, s=None):
        return lo.linear_l2_loss(x, w, y, intercept=self.intercept, sample_weight=s)

    def our_grad(self, x, w, y, s=None):
        return lo.linear_l2_loss_and_grad(x, w, y, intercept=self.intercept, sample_weight=s).grad

    def stock(self, x, w, y, s=None):
        return self._stock_parts(x, w, y, s)[1]

    def stock_grad(self, x, w, y, s=None):
        x, _, r = self._stock_parts(x, w, y, s)
        if s is not None:
            r = r * s[..., tf.newaxis]
        grad = tf.matmul(x, r, transpose_a=True)
        return grad[..., 0] if w.shape.rank == 1 else grad

    def _stock_parts(self, x, w, y, s):
        if self.intercept:
            x = tf.concat([tf.ones_like(x[..., :1]), x], axis=-1)
        if w.shape.rank == 1:
            w, y = w[:, tf.newaxis], y[:, tf.newaxis]
        r = tf.matmul(x, w) - y
        root = r if s is None else r * tf.sqrt(s)[..., tf.newaxis]
        return x, tf.nn.l2_loss(root), r


def name_of(case):
    return "-".join(str(part) for part in case)


CASES = list(itertools.product((1, 2, 3), (False, True), (False, True)))


@pytest.fixture(params=CASES, ids=name_of)
def case(request, rng):
    return Case(rng, *request.param)


def assert_equal(ours, theirs):
    """To 1e-10 of the largest element of each."""
    ours, theirs = tf.nest.flatten(ours), tf.nest.flatten(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        scale = np.max(np.abs(other), initial=1.0)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * scale)


def gradient(function, inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    return tape.gradient(value, inputs)


def of_gradients(function, case):
    """A scalar that mixes every first derivative of sin(loss), so that none cancels."""

    def value(*inputs):
        first = gradient(lambda *a: tf.sin(function(*a) / 10.0), list(inputs))
        return tf.add_n(
            [tf.reduce_sum(tf.sin(g) * v) for g, v in zip(first, case.directions, strict=True)]
        )

    return value


def test_first_to_third_order(case):
    orders = []
    for function in (case.ours, case.stock):
        second = of_gradients(function, case)
        third = of_gradients(second, case)
        orders.append([gradient(f, case.inputs) for f in (function, second, third)])
    assert_equal(*orders)


@pytest.mark.parametrize(
    ("case", "unknown"),
    # All of them for every case; some of them for those with all there is.
    [pytest.param(case, [0, 1, 2, 3], id=f"{name_of(case)}-all") for case in CASES]
    + [
        pytest.param((rank, True, True), some, id=f"{rank}-{some}")
        for rank in (1, 2, 3)
        for some in ([1], [1, 2], [0, 1, 2])
    ],
    indirect=["case"],
)
def test_ranks_unknown_while_tracing(case, unknown):
    """For w, w and y, ...: derivatives of every order and mode, as with known ranks."""

    def derivatives(loss, grad):
        def compute(*inputs):
            inputs = list(inputs)
            with tf.autodiff.ForwardAccumulator(inputs, case.directions) as accumulator:
                value = tf.sin(loss(*inputs))
            through = gradient(lambda *a: tf.reduce_sum(tf.sin(grad(*a))), inputs)
            return [
                gradient(loss, inputs),
                gradient(of_gradients(loss, case), inputs),
                through,
                accumulator.jvp(value),
            ]

        return compute

    inputs = case.inputs
    signature = [
        tf.TensorSpec(None if i in unknown else t.shape, t.dtype) for i, t in enumerate(inputs)
    ]
    ours = tf.function(derivatives(case.ours, case.our_grad), input_signature=signature)
    assert_equal(ours(*inputs), derivatives(case.stock, case.stock_grad)(*inputs))


def test_losses_per_target_with_ranks_unknown_while_tracing(case):
    """The raw op, of which tf.vectorized_map makes use."""
    x, w, y, *s = case.inputs

    def gradients(x, w, y):
        with tf.GradientTape() as tape:
            tape.watch([x, w, y])
            loss, _ = _ops.linreg_l2_loss_grad(
                x, w, y, s, intercept=case.intercept, loss_per_target=True
            )
            total = tf.reduce_sum(tf.sin(loss))
        return tape.gradient(total, [x, w, y])

    unknown = [tf.TensorSpec(None, tf.float64)] * 3
    assert_equal(tf.function(gradients, input_signature=unknown)(x, w, y), gradients(x, w, y))


def test_through_the_gradient_output(case):
    def value(function):
        return lambda *inputs: tf.reduce_sum(tf.sin(function(*inputs)) * case.directions[1])

    for function in (value, lambda f: of_gradients(value(f), case)):
        assert_equal(
            gradient(function(case.our_grad), case.inputs),
            gradient(function(case.stock_grad), case.inputs),
        )


def test_forward_mode(case):
    def derivatives(function):
        with tf.autodiff.ForwardAccumulator(case.inputs, case.directions) as accumulator:
            value = function(*case.inputs)
        return accumulator.jvp(value)

    assert_equal(derivatives(case.ours), derivatives(case.stock))
    assert_equal(derivatives(case.our_grad), derivatives(case.stock_grad))


def test_forward_over_reverse(case):
    def products(function):
        with tf.autodiff.ForwardAccumulator(case.inputs, case.directions) as accumulator:
            first = gradient(function, case.inputs)
        return [accumulator.jvp(g) for g in first]

    assert_equal(products(case.ours), products(case.stock))


def test_jacobians(case):
    """pfor, over what the converters build; the Hessian in w is the Jacobian of the gradient."""

    def jacobians(grad):
        def compute(inputs):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                value = grad(*inputs)
            return tape.jacobian(value, inputs, experimental_use_pfor=True)

        return tf.function(compute).get_concrete_function(case.inputs)(case.inputs)

    theirs = jacobians(case.stock_grad)
    assert_equal(jacobians(case.our_grad), theirs)

    def gradient_in_w(x, w, *rest):
        return gradient(lambda w: case.ours(x, w, *rest), [w])[0]

    assert_equal(jacobians(gradient_in_w), theirs)


@pytest.mark.parametrize("intercept", [False, True])
def test_batch_jacobian(rng, intercept):
    case = Case(rng, 3, intercept, True)

    def jacobian(grad):
        x, w, y, s = case.inputs

        def compute(w):
            with tf.GradientTape() as tape:
                tape.watch(w)
                value = grad(x, w, y, s)
            return tape.batch_jacobian(value, w)

        return tf.function(compute).get_concrete_function(w)(w)

    assert_equal(jacobian(case.our_grad), jacobian(case.stock_grad))


@pytest.mark.composes("v1 graphs and sessions")
@pytest.mark.parametrize("rank", [1, 2])
def test_v1_gradients_and_hessians(rng, rank):
    case = Case(rng, rank, True, True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        inputs = [tf.constant(t.numpy()) for t in case.inputs]
        results = []
        for function in (case.ours, case.stock):
            loss = tf.sin(function(*inputs))
            first = tf.gradients(loss, inputs)
            second = tf.gradients(tf.add_n([tf.reduce_sum(tf.sin(g)) for g in first]), inputs)
            results.append([first, second, tf.hessians(loss, inputs[1])])
        assert_equal(*session.run(results))


def test_finite_differences(case):
    for function in map(tf.function, (case.ours, of_gradients(case.ours, case))):
        ours, differences = tf.test.compute_gradient(function, case.inputs, delta=1e-4)
        for one, other in zip(ours, differences, strict=True):
            # The truncation of a central difference is 1e-8 times a third derivative.
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("w_type", ["same", "float32"])
@pytest.mark.parametrize("x_type", [tf.float16, tf.bfloat16])
def test_mixed_16_bit_types(rng, x_type, w_type):
    w_type = x_type if w_type == "same" else tf.float32
    x, w, y, _ = problem(rng, 9, 3, 2)
    inputs = [tf.cast(x, x_type), tf.cast(w, w_type), tf.cast(y, w_type)]
    ours = gradient(lo.linear_l2_loss, inputs)
    second = gradient(
        lambda *inputs: tf.reduce_sum(lo.linear_l2_loss_and_grad(*inputs).grad), inputs
    )
    exact = [tf.cast(t, tf.float64) for t in inputs]
    for mine, truth in (
        (ours, gradient(lo.linear_l2_loss, exact)),
        (
            second,
            gradient(lambda *i: tf.reduce_sum(lo.linear_l2_loss_and_grad(*i).grad), exact),
        ),
    ):
        for got, want, source in zip(mine, truth, inputs, strict=True):
            assert got.dtype == source.dtype
            # A few roundings of the narrowest type on the way.
            scale = np.max(np.abs(want))
            error = np.max(np.abs(tf.cast(got, tf.float64) - want))
            assert error <= 32 * scale * unit_roundoff(x_type.as_numpy_dtype)


def gradient_in_w(x, w, y):
    with tf.GradientTape() as tape:
        tape.watch(w)
        loss = lo.linear_l2_loss(x, w, y)
    return tape.gradient(loss, w)


def count(kernels, *names):
    return sum(kernels[name] for name in names)


@pytest.mark.composes("Loss and gradient from one read of x")
@pytest.mark.parametrize("launched", [eager_kernels, graph_kernels], ids=["eager", "function"])
def test_gradient_of_the_loss_is_one_pass(rng, launched):
    """No Hessian-vector product, and no product of the size of x where x is a constant."""
    x, w, y, _ = problem(rng, 9, 3, 2)
    kernels = launched(gradient_in_w, tf.constant(x), tf.constant(w), tf.constant(y))
    assert kernels[FORWARD] == 1
    assert count(kernels, HESSIAN, *MATRIX_PRODUCTS) == 0


@pytest.mark.composes("Loss and gradient from one read of x")
def test_gradient_of_the_loss_is_one_pass_in_v1(rng):
    x, w, y, _ = problem(rng, 9, 3, 2)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        feeds = {tf.compat.v1.placeholder(tf.float32, a.shape): a for a in (x, w, y)}
        x, w, y = feeds
        (grad,) = tf.gradients(lo.linear_l2_loss(x, w, y), [w])
        _, kernels = session_kernels(session, grad, feeds)
    assert kernels[FORWARD] == 1
    assert count(kernels, HESSIAN, *MATRIX_PRODUCTS) == 0


@pytest.mark.composes("Loss and gradient from one read of x")
@pytest.mark.parametrize("launched", [eager_kernels, graph_kernels], ids=["eager", "function"])
def test_hessian_vector_product_is_one_more_pass(rng, launched):
    x, w, y, _ = problem(rng, 9, 3, 2)

    def product(x, w, y):
        with tf.GradientTape() as tape:
            tape.watch(w)
            first = gradient_in_w(x, w, y)
        return tape.gradient(first, w)

    kernels = launched(product, tf.constant(x), tf.constant(w), tf.constant(y))
    # In a graph the forward pass is pruned: the product does not depend on it.
    assert kernels[FORWARD] == (1 if launched is eager_kernels else 0)
    assert kernels[HESSIAN] == 1
    assert count(kernels, *MATRIX_PRODUCTS) == 0


@pytest.mark.parametrize("launched", [eager_kernels, graph_kernels], ids=["eager", "function"])
def test_gradients_in_x_and_y_cost_what_they_need(rng, launched):
    """One residual for both; the gradient in w still comes from the forward pass."""
    x, w, y, _ = problem(rng, 9, 3, 2)

    def gradients(x, w, y):
        return gradient(lo.linear_l2_loss, [x, w, y])

    kernels = launched(gradients, tf.constant(x), tf.constant(w), tf.constant(y))
    assert kernels[FORWARD] == 1
    assert kernels[HESSIAN] == 0
    assert count(kernels, *MATRIX_PRODUCTS) == 2


def test_nothing_is_passed_on_where_no_tape_is(rng):
    x, w, y, _ = map(tf.constant, (*problem(rng, 9, 3, 2)[:3], 0))
    assert PASS_ON not in eager_kernels(lo.linear_l2_loss_and_grad, x, w, y)
    with tf.GradientTape() as tape:
        tape.watch(w)
        kernels = eager_kernels(lo.linear_l2_loss_and_grad, x, w, y)
    assert kernels[PASS_ON] == 1


def test_persistent_tape_and_unconnected_inputs(rng):
    x, w, y, s = map(tf.constant, problem(rng, 9, 3, 2, weights=True))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([w, s])
        loss, grad = lo.linear_l2_loss_and_grad(x, w, y, sample_weight=s)
    np.testing.assert_array_equal(tape.gradient(loss, w), grad)
    assert tape.gradient(loss, x) is None
    assert tape.gradient(grad, y) is None
    assert tape.gradient(loss, s).shape == [9]
    assert tape.gradient(loss, x, unconnected_gradients="zero").shape == x.shape
