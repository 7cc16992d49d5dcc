"""The ops against the stock composite, autodiff and extended-precision truth, in every mode."""

import re

import dtype_pairs
import fresh
import numpy as np
import pandas
import pytest
import scipy.sparse
import tensorflow as tf
from fresh import run
from oracles import assert_within, problem, truth

import linreg_ops as lo

SHAPES = [(1, 1, 1), (50, 2, 1), (7, 3, 2), (33, 16, 5), (20, 4, 17), (301, 65, 3), (0, 3, 2)]
SHAPES += [(4, 0, 2), (4, 3, 0), (0, 0, 0)]


def stock(x, w, y, *, intercept=False, sample_weight=None):
    """The unfused loss: what a user of TensorFlow writes."""
    x = tf.cast(x, w.dtype)
    if intercept:
        ones = tf.ones([tf.shape(x)[0], 1], x.dtype)
        x = tf.concat([ones, x], axis=1)
    product = tf.linalg.matvec(x, w) if w.shape.rank == 1 else tf.matmul(x, w)
    r = product - y
    if sample_weight is None:
        return tf.nn.l2_loss(r)
    s = sample_weight if w.shape.rank == 1 else sample_weight[:, tf.newaxis]
    return tf.reduce_sum(s * r * r) / 2


def stock_loss_and_grad(x, w, y, **options):
    with tf.GradientTape() as tape:
        tape.watch(w)
        loss = stock(x, w, y, **options)
    return loss, tape.gradient(loss, w)


def run_eager(function, x, w, y, options):
    return function(x, w, y, **options)


def run_function(function, x, w, y, options):
    return tf.function(lambda x, w, y, s: function(x, w, y, **{**options, **s}))(
        x, w, y, {key: options[key] for key in ("sample_weight",) if key in options}
    )


def run_unknown_shapes(function, x, w, y, options):
    signature = [tf.TensorSpec(None, t.dtype) for t in (x, w, y)]
    traced = tf.function(lambda x, w, y: function(x, w, y, **options), input_signature=signature)
    return traced(x, w, y)


def run_session(function, x, w, y, options):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        feeds = {
            tf.compat.v1.placeholder(t.dtype, [None] * t.shape.rank): t.numpy() for t in (x, w, y)
        }
        options = {k: v.numpy() if isinstance(v, tf.Tensor) else v for k, v in options.items()}
        return session.run(function(*feeds, **options), feeds)


MODES = [run_eager, run_function, run_unknown_shapes, run_session]


def tensors(
    rng, n, d, k, *, rank_1=False, dtype=np.float32, w_dtype=None, intercept=False, weights=False
):
    x, w, y, s = problem(
        rng,
        n,
        d,
        None if rank_1 else k,
        dtype=dtype,
        w_dtype=w_dtype,
        intercept=intercept,
        weights=weights,
    )
    options = {"intercept": intercept}
    if weights:
        options["sample_weight"] = tf.constant(s)
    return tf.constant(x), tf.constant(w), tf.constant(y), options


def as_numpy(options):
    return {k: v.numpy() if isinstance(v, tf.Tensor) else v for k, v in options.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("x_type", "w_type"), dtype_pairs.PARAMS)
@pytest.mark.parametrize(
    ("intercept", "weights"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_loss_and_grad(rng, mode, x_type, w_type, intercept, weights):
    for n, d, k in SHAPES:
        for rank_1 in (False, True) if k == 1 else (False,):
            x, w, y, options = tensors(
                rng,
                n,
                d,
                k,
                rank_1=rank_1,
                dtype=x_type,
                w_dtype=w_type,
                intercept=intercept,
                weights=weights,
            )
            exact = truth(x.numpy(), w.numpy(), y.numpy(), **as_numpy(options))
            stock_loss, stock_grad = stock_loss_and_grad(x, w, y, **options)
            loss, grad = mode(lo.linear_l2_loss_and_grad, x, w, y, options)
            alone = mode(lo.linear_l2_loss, x, w, y, options)
            # Scalars of bfloat16 have no array protocol in TensorFlow.
            loss, alone = (a.numpy() if isinstance(a, tf.Tensor) else a for a in (loss, alone))
            stock_loss = stock_loss.numpy()
            assert loss == alone
            what = f"n={n}, d={d}, k={k}: "
            assert_within(
                loss,
                np.sum(exact.loss),
                np.sum(exact.loss_bound),
                stock=stock_loss,
                what=f"{what}loss",
            )
            assert_within(grad, exact.grad, exact.grad_bound, stock=stock_grad, what=f"{what}grad")
            assert grad.dtype == w.dtype.as_numpy_dtype or grad.dtype == w.dtype
            assert loss.dtype == grad.dtype


@pytest.mark.parametrize("weights", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("intercept", [False, True], ids=["", "intercept"])
@pytest.mark.parametrize("k", [1, 3])
def test_gradients_equal_autodiff_of_stock(rng, k, intercept, weights):
    x, w, y, options = tensors(rng, 9, 4, k, dtype=np.float64, intercept=intercept, weights=weights)
    variables = [x, w, y, *([options["sample_weight"]] if weights else [])]

    def gradients(function):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(variables)
            with tf.GradientTape() as inner:
                inner.watch(variables)
                loss = 3.0 * function(x, w, y, **options)
            first = inner.gradient(loss, variables)
            mixed = tf.add_n([tf.reduce_sum(tf.sin(g)) for g in first])
        return first + outer.gradient(mixed, variables)

    for ours, theirs in zip(gradients(lo.linear_l2_loss), gradients(stock), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("weights", [False, True], ids=["", "weights"])
def test_both_outputs_are_differentiable(rng, weights):
    x, w, y, options = tensors(rng, 9, 4, 2, dtype=np.float64, intercept=True, weights=weights)
    variables = [x, w, y, *([options["sample_weight"]] if weights else [])]
    ct = tf.constant(rng.standard_normal(w.shape))

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch(variables)
            loss, grad = function(x, w, y, **options)
            value = tf.sin(loss) + tf.reduce_sum(ct * grad)
        return tape.gradient(value, variables)

    ours = gradients(lo.linear_l2_loss_and_grad)
    for mine, theirs in zip(ours, gradients(stock_loss_and_grad), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numeric_gradient(rng, dtype):
    x, w, y, _ = tensors(rng, 6, 3, 2, dtype=dtype)
    theoretical, numeric = tf.test.compute_gradient(lo.linear_l2_loss, [x, w, y], delta=2**-7)
    for ours, difference in zip(theoretical, numeric, strict=True):
        # The loss is quadratic: central differences of it have no error but rounding.
        np.testing.assert_allclose(
            ours, difference, atol=2**8 * np.finfo(dtype).eps * float(lo.linear_l2_loss(x, w, y))
        )


def test_v1_gradients(rng):
    x, w, y, _ = (t.numpy() if isinstance(t, tf.Tensor) else t for t in tensors(rng, 9, 4, 2))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.placeholder_with_default(a, [None, None]) for a in (x, w, y)]
        ours = tf.gradients(lo.linear_l2_loss(*variables), variables)
        theirs = tf.gradients(stock(*variables), variables)
        for mine, other in zip(*session.run([ours, theirs]), strict=True):
            np.testing.assert_allclose(mine, other, rtol=2e-5, atol=2e-5)


def test_getting_started_program_with_one_line_swapped():
    """The v1 program of the old notebook: same losses and betas, step by step."""
    rng = np.random.default_rng(0)
    x_data = np.stack([np.ones(50), np.linspace(-2, 4, 50)], axis=1) + rng.normal(size=(50, 1)) * [
        0,
        1,
    ]
    y_data = np.linspace(-6, 6, 50)[:, np.newaxis] + rng.normal(size=(50, 1))
    start = rng.normal(scale=0.1, size=(2, 1))

    def train(loss_of):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            x = tf.constant(x_data, tf.float32)
            y = tf.constant(y_data, tf.float32)
            beta = tf.compat.v1.get_variable("beta", initializer=tf.constant(start, tf.float32))
            loss = loss_of(x, beta, y)
            update = tf.compat.v1.train.GradientDescentOptimizer(0.002).minimize(loss)
            session.run(tf.compat.v1.global_variables_initializer())
            history = []
            for _ in range(50):
                history.append(session.run([loss, beta]))
                session.run(update)
            return [np.array(h) for h in zip(*history, strict=True)]

    losses, betas = train(lo.linear_l2_loss)
    stock_losses, stock_betas = train(lambda x, beta, y: tf.nn.l2_loss(tf.matmul(x, beta) - y))
    # 50 products of numbers near 6 are summed in float32: 50 roundings, each of the partial sum.
    np.testing.assert_allclose(losses, stock_losses, rtol=50 * 2**-24)
    np.testing.assert_allclose(betas, stock_betas, rtol=50 * 2**-24, atol=50 * 2**-24)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("function", [lo.linear_l2_loss, lo.linear_l2_loss_and_grad])
@pytest.mark.parametrize(
    ("change", "shapes"),
    [
        ({"x": [4]}, r"x must be \[n, d\].* got shape \[4\]"),
        ({"w": [2, 2]}, r"w must be \[d, k\].*w of shape \[2,2\] for x of shape \[4,3\]"),
        ({"w": []}, r"w must .*got w of shape \[\] for x of shape \[4,3\]"),
        ({"y": [5, 2]}, r"y must be \[n, k\].*y of shape \[5,2\] for x of shape \[4,3\]"),
        ({"y": [4, 1]}, r"y must be \[n, k\].*y of shape \[4,1\].* w of shape \[3,2\]"),
        ({"y": [4]}, r"y must be \[n, k\].*y of shape \[4\]"),
        ({"w": [3], "y": [4, 1]}, r"y must be \[n\] .*y of shape \[4,1\]"),
        ({"sample_weight": [5]}, r"sample_weight must be \[n\].* \[5\] for x of shape \[4,3\]"),
        ({"sample_weight": [4, 1]}, r"sample_weight must be \[n\].* \[4,1\]"),
        (
            {"intercept": True},
            r"w must be \[d \+ 1, k\].*w of shape \[3,2\] for x of shape \[4,3\]",
        ),
        ({"x": [2, 4, 3]}, r"w must have x's rank.*w of shape \[3,2\] for x of shape \[2,4,3\]"),
        ({"x": [2, 4, 3], "w": [5, 3, 2], "y": [2, 4, 2]}, r"w must have x's leading dimensions"),
    ],
)
def test_shape_errors(function, change, shapes):
    shape_of = {"x": [4, 3], "w": [3, 2], "y": [4, 2], **change}
    options = {"intercept": shape_of.pop("intercept", False)}
    arguments = {name: tf.zeros(shape) for name, shape in shape_of.items()}
    positional = [arguments.pop(name) for name in ("x", "w", "y")]
    options.update(arguments)
    with pytest.raises(tf.errors.InvalidArgumentError, match=shapes):
        function(*positional, **options)
    with pytest.raises(ValueError, match=shapes):
        tf.function(lambda: function(*positional, **options)).get_concrete_function()
    # Shapes that are unknown while tracing: the same words when it runs.
    unknown = tf.function(
        lambda x, w, y: function(x, w, y, **options),
        input_signature=[tf.TensorSpec(None, tf.float32)] * 3,
    )
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=shapes):
        unknown(*positional)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": np.int32}, "x must be float32, float64, float16 or bfloat16, got int32"),
        ({"w": np.float64}, "w must have x's dtype, float32, got float64"),
        ({"y": np.float64}, "y must have w's dtype, float32, got float64"),
        ({"sample_weight": np.float64}, "sample_weight must have w's dtype, float32, got float64"),
        ({"x": np.float64}, "w must have x's dtype, float64, got float32"),
        ({"x": np.float16, "w": np.float64}, "w must have x's dtype, float16 or float32, got"),
    ],
)
@pytest.mark.parametrize("as_tensor", [False, True], ids=["numpy", "tensor"])
def test_dtype_errors(change, error, as_tensor):
    shapes = {"x": (4, 3), "w": (3, 2), "y": (4, 2), "sample_weight": (4,)}
    arguments = {
        name: np.zeros(shape, change.get(name, np.float32)) for name, shape in shapes.items()
    }
    if as_tensor:
        arguments = {name: tf.constant(value) for name, value in arguments.items()}
    with pytest.raises(TypeError, match=error):
        lo.linear_l2_loss(**arguments)


def test_lists_variables_and_numpy_are_taken():
    w = tf.Variable([1.0, 1.0])
    x = [[1.0, 2.0], [3.0, 4.0]]
    assert float(lo.linear_l2_loss(x, w, [0, 0])) == 29.0
    assert float(lo.linear_l2_loss(np.array(x), [1, 1], np.zeros(2))) == 29.0
    with tf.GradientTape() as tape:
        loss = lo.linear_l2_loss(x, w, [0.0, 0.0])
    np.testing.assert_array_equal(tape.gradient(loss, w), [24.0, 34.0])


@pytest.mark.parametrize("function", [lo.linear_l2_loss, lo.linear_l2_loss_and_grad])
def test_float64_is_never_rounded_to_float32(function):
    """In a DataFrame, a Series, lists of rows or of scalars: as tf.convert_to_tensor takes it."""
    x, w, y = np.array([[1.0], [3.0]]) / 3, np.array([0.1]), np.array([0.2, 0.7])
    exact = function(x, w, y)
    tables = {
        "pandas": (pandas.DataFrame(x), pandas.Series(w), pandas.Series(y)),
        "rows": (list(x), w, y),
        "scalars": ([[np.float64(v)] for v in x[:, 0]], list(w), list(y)),
        "tensors": ([tf.constant(row) for row in x], w, y),
    }
    for name, arguments in tables.items():
        found = function(*arguments)
        for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(exact), strict=True):
            assert a.dtype == tf.float64, name
            np.testing.assert_array_equal(a, b, err_msg=name)
    # Beside float32 they are refused, as arrays are.
    for table in (tables["pandas"][0], tables["rows"][0], tables["scalars"][0]):
        with pytest.raises(TypeError, match="w must have x's dtype, float64, got float32"):
            function(table, w.astype(np.float32), y.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_python_numbers_take_the_dtype_beside_them(dtype):
    """In any argument: floats, integers and booleans alike."""
    x, w, y, s = [[1, 2.0], [True, 4]], [1, 1.0], [0, 0], [1, 2]
    for given in range(3):
        arguments = [x, w, y, s]
        arguments[given] = tf.constant(arguments[given], dtype)
        loss = lo.linear_l2_loss(*arguments[:3], sample_weight=arguments[3])
        assert loss.dtype == dtype
        assert float(loss) == 29.5 if dtype != "bfloat16" else float(loss) > 29
    assert lo.linear_l2_loss(x, w, y).dtype == tf.float32


SPARSE = [
    (lambda x: tf.sparse.from_dense(x), "SparseTensor; convert it by tf.sparse.to_dense"),
    (lambda x: tf.RaggedTensor.from_tensor(x), "RaggedTensor; convert it by its to_tensor()"),
    (lambda x: scipy.sparse.csr_matrix(x.numpy()), "csr_matrix; convert it by its toarray()"),
    (lambda x: scipy.sparse.coo_array(x.numpy()), "coo_array; convert it by its toarray()"),
]


@pytest.mark.parametrize(("make", "message"), SPARSE)
@pytest.mark.parametrize("argument", ["x", "w", "y", "sample_weight"])
def test_sparse_is_refused_in_a_line(make, message, argument):
    shapes = {"x": (4, 3), "w": (3, 2), "y": (4, 2), "sample_weight": (4, 1)}
    arguments = {name: tf.zeros(shape) for name, shape in shapes.items()}
    arguments[argument] = make(arguments[argument])
    with pytest.raises(TypeError) as raised:
        lo.linear_l2_loss(**arguments)
    assert str(raised.value) == f"{argument} must be dense, got {message}"


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0, 2.0], [3.0]], ValueError, "x cannot be made a tensor: Can't convert non-rect"),
        (pandas.DataFrame({"a": [1.0, object()]}), ValueError, "x cannot be made a tensor: Failed"),
        (pandas.DataFrame({"a": ["one"]}), TypeError, "x must be float32, .*, got string"),
        (None, ValueError, "x cannot be made a tensor: Attempt to convert a value"),
    ],
)
def test_what_is_no_tensor_is_refused_by_name(x, error, message):
    with pytest.raises(error, match=message) as raised:
        lo.linear_l2_loss(x, [1.0], [1.0])
    assert "\n" not in str(raised.value)


REMEDIES = [
    ([4, 3], [3], [4, 1], "; for one target take y[:, 0], or w[:, None]"),
    ([4, 3], [3, 1], [4], "; for one target take y[:, None], or w[:, 0]"),
    ([2, 4, 3], [2, 3], [2, 4, 1], "; for one target take y[..., 0], or w[..., None]"),
    ([4, 3], [4], [4], "; w has one row more than x has columns: if the first is an intercept, "
     "say so"),
    ([4, 3], [3, 2], [4], "of shape [3,2]"),
    ([4, 3], [3], [5], "of shape [3]"),
]  # fmt: skip


@pytest.mark.parametrize(
    "function",
    [
        lo.linear_l2_loss,
        lo.linear_l2_loss_and_grad,
        lambda x, w, y: lo.gradient_descent(x, w, y, 0.1, 2),
    ],
)
@pytest.mark.parametrize(("x", "w", "y", "end"), REMEDIES)
def test_shape_errors_say_what_to_do_and_nothing_of_the_runtime(function, x, w, y, end):
    arguments = [tf.zeros(shape) for shape in (x, w, y)]
    with pytest.raises(tf.errors.InvalidArgumentError) as eager:
        function(*arguments)
    assert re.fullmatch(r"[xwy] must .*", str(eager.value))
    assert str(eager.value).endswith(end)
    with pytest.raises(ValueError, match=re.escape(end)) as traced, tf.Graph().as_default():
        function(*(tf.compat.v1.placeholder(tf.float32, shape) for shape in (x, w, y)))
    assert re.fullmatch(r"[xwy] must .*", str(traced.value))


def test_the_commonest_mistake_logs_nothing():
    """TensorFlow logs two lines for each error of an op; here no op runs."""
    done = fresh.run(
        """
        import tensorflow as tf, linreg_ops as lo
        x, w, y = tf.zeros([4, 3]), tf.zeros([3]), tf.zeros([4, 1])
        try:
            lo.linear_l2_loss(x, w, y)
        except tf.errors.InvalidArgumentError as error:
            print(error)
        """
    )
    assert done.stdout.count("\n") == 1
    assert "OP_REQUIRES" not in done.stderr


def infer(x, w, y, *, intercept=False, s=None):
    with tf.Graph().as_default():
        x, w, y, *s = (
            tf.compat.v1.placeholder(tf.float32, shape)
            for shape in ([x, w, y] if s is None else [x, w, y, s])
        )
        out = lo.linear_l2_loss_and_grad(
            x, w, y, intercept=intercept, sample_weight=s[0] if s else None
        )
        return out.grad.shape.as_list() if out.grad.shape.rank is not None else None


def test_shape_inference():
    assert infer([None, 3], [None, None], [None, 2]) == [3, 2]
    assert infer([None, 3], [None, None], [None, 2], intercept=True) == [4, 2]
    assert infer([None, None], [3, None], [7, None]) == [3, None]
    assert infer(None, [3], None) == [3]
    assert infer(None, None, [7, 2]) == [None, 2]
    assert infer([5, 3], None, [5]) == [3]
    assert infer([8, None, 3], None, [None, 5, 2]) == [8, 3, 2]
    assert infer(None, None, None) is None


def test_ops_have_the_names_that_they_were_given():
    with tf.Graph().as_default():
        x, w, y = (tf.compat.v1.placeholder(tf.float32, s) for s in ([4, 3], [3], [4]))
        assert lo.linear_l2_loss(x, w, y, name="loss").op.name == "loss"
        assert lo.linear_l2_loss_and_grad(x, w, y, name="pair").loss.op.name == "pair"
        assert lo.gradient_descent(x, w, y, 0.1, 2, name="descent").w.op.name == "descent"


def test_same_bits_for_any_number_of_threads(rng):
    x, w, y, _ = problem(rng, 50_000, 30, 3)
    results = []
    for threads in (1, 2):
        config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads)
        config.device_count["CPU"] = 1
        config.use_per_session_threads = True
        with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
            results.append(session.run(lo.linear_l2_loss_and_grad(x, w, y)))
    assert results[0].loss == results[1].loss
    np.testing.assert_array_equal(results[0].grad, results[1].grad)


def test_slices_along_the_rows(rng):
    x, w, y, _ = tensors(rng, 41, 3, 1)
    for part, target in zip(tf.split(x, [1, 10, 30]), tf.split(y, [1, 10, 30]), strict=True):
        exact = truth(part.numpy(), w.numpy(), target.numpy())
        loss, grad = lo.linear_l2_loss_and_grad(part, w, target)
        assert_within(loss, exact.loss[0], exact.loss_bound[0])
        assert_within(grad, exact.grad, exact.grad_bound)


def test_modules_may_be_imported_again():
    """Reloaded, or purged and imported again: what they register takes the place of the old."""
    run("""
    import importlib, sys
    import tensorflow as tf
    import linreg_ops as lo
    import linreg_ops.ops, linreg_ops.stock, linreg_ops.kernels
    tf.get_logger().setLevel("ERROR")  # vectorized_map is traced again and again, as it must be

    def check():
        import linreg_ops as lo
        w = tf.Variable([1.0, 1.0])
        with tf.GradientTape() as tape:
            loss = lo.linear_l2_loss(tf.constant([[1.0, 2.0], [3.0, 4.0]]), w, tf.zeros([2]))
        assert tape.gradient(loss, w).numpy().tolist() == [24.0, 34.0]
        x = tf.ones([3, 2, 2])
        losses = tf.vectorized_map(lambda x: lo.linear_l2_loss(x, w, tf.zeros([2])), x)
        assert losses.numpy().tolist() == [4.0] * 3
        assert lo.gradient_descent(x[0], w, tf.zeros([2]), 0.0, 1).losses.shape == [2]
        # The gradient that is registered is that of the module there is.
        from tensorflow.python.framework import ops
        registered = ops.gradient_registry.lookup("Linreg>L2LossGrad")
        assert registered is sys.modules["linreg_ops._gradients"]._l2_loss_grad

    check()
    for _ in range(2):
        for name in sorted(sys.modules):
            if name.startswith("linreg_ops.") and "_kernels" not in name:
                importlib.reload(sys.modules[name])
        importlib.reload(lo)
        check()
    for _ in range(2):
        for name in [name for name in sys.modules if name.partition(".")[0] == "linreg_ops"]:
            del sys.modules[name]
        check()
    """)


def test_text_is_refused_with_what_can_be_done():
    with pytest.raises(TypeError, match="got string; drop or encode its text"):
        lo.linear_l2_loss(np.array([["a"], ["b"]]), np.zeros(1), np.zeros(2))
