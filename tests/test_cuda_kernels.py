"""The CUDA kernels: on a GPU where there is one, and as compiled PTX on the CPU."""

import subprocess

import ml_dtypes
import numpy as np
import pytest
from oracles import assert_within, problem, truth
from ptx_runner import DEVICES, become, build, load

from linreg_ops import _kernels, kernels

BFLOAT16 = ml_dtypes.bfloat16
DTYPES = [
    pytest.param(np.float32, np.float32, id="float32"),
    pytest.param(np.float64, np.float64, id="float64"),
    pytest.param(np.float16, np.float16, id="float16"),
    pytest.param(np.float16, np.float32, id="float16-float32"),
    pytest.param(BFLOAT16, BFLOAT16, id="bfloat16"),
    pytest.param(BFLOAT16, np.float32, id="bfloat16-float32"),
]
NO_GPU = "no NVIDIA GPU with a driver that is new enough, or a build without CUDA"
# Around the vector widths, the lanes of a row and the limits between kernels.
FEATURES = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    13,
    16,
    17,
    31,
    32,
    33,
    64,
    65,
    100,
    128,
    129,
    257,
    300,
    1025,
]
TARGETS = [0, 1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 33]


@pytest.fixture(scope="session")
def runner(request):
    """The PTX runner's module and the stand-alone test programs."""
    return build(request.config.cache.mkdir("ptx_runner"))


# A GPU, or a device that the runner plays, with its threads in an order of their own.
@pytest.fixture(scope="session", params=["gpu", "sm_90", "sm_90 of 5", "sm_75"])
def machine(request):
    if request.param == "gpu":
        if not kernels.cuda.available():
            pytest.skip(NO_GPU)
        return None
    return DEVICES[request.param]


@pytest.fixture
def native(request, machine):
    """`linreg_ops._kernels.cuda`, or the same functions in the runner, which must find no fault."""
    if machine is None:
        yield _kernels.cuda
        return
    built = request.getfixturevalue("runner")
    module = load(built.module)
    become(module, built, machine, seed=0 if machine.name == "sm_90" else 1)
    module.take_faults()
    yield module.cuda
    count, first = module.take_faults()
    assert count == 0, "\n".join(first)


def is_emulated(native):
    return native is not getattr(_kernels, "cuda", None)


def to_device(native, a):
    if a is None:
        return None
    a = np.ascontiguousarray(a)
    return native.from_bytes(a.reshape(-1).view(np.uint8), a.dtype.name, a.shape)


def to_numpy(array, dtype):
    assert array.dtype == np.dtype(dtype).name
    return np.frombuffer(array.to_bytes(), dtype).reshape(array.shape)


def loss_and_grad(native, x, w, y, s=None, **options):
    results = native.loss_and_grad(
        to_device(native, x),
        to_device(native, w),
        to_device(native, y),
        sample_weight=to_device(native, s),
        **options,
    )
    return tuple(to_numpy(r, w.dtype) for r in results)


def check(native, x, w, y, s=None, *, intercept=False):
    exact = truth(x, w, y, intercept=intercept, sample_weight=s)
    loss, grad = loss_and_grad(native, x, w, y, s, intercept=intercept, loss_per_target=True)
    assert_within(loss, exact.loss, exact.loss_bound, what="loss")
    assert_within(grad, exact.grad, exact.grad_bound, what="grad")
    total, again = loss_and_grad(native, x, w, y, s, intercept=intercept)
    assert_within(total, np.sum(exact.loss), np.sum(exact.loss_bound), what="total loss")
    np.testing.assert_array_equal(again, grad)


@pytest.mark.parametrize(("x_type", "w_type"), DTYPES)
@pytest.mark.parametrize("weights", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("intercept", [False, True], ids=["", "intercept"])
def test_shapes(rng, native, x_type, w_type, intercept, weights):
    shapes = [(n, d, None) for n in (1, 17, 40) for d in FEATURES]
    shapes += [(n, d, k) for n in (0, 1, 19) for d in (0, 1, 5, 33) for k in TARGETS]
    if is_emulated(native):
        shapes = shapes[rng.integers(12) :: 12]
    for n, d, k in shapes:
        x, w, y, s = problem(
            rng, n, d, k, dtype=x_type, w_dtype=w_type, intercept=intercept, weights=weights
        )
        try:
            check(native, x, w, y, s, intercept=intercept)
        except AssertionError as error:
            raise AssertionError(f"n={n}, d={d}, k={k}: {error}") from error


LARGE = [
    (100_003, 1, None),
    (50_001, 4, None),
    (30_001, 17, None),
    (3001, 300, None),
    (5, 16_384, None),
    (3, 40_000, None),
    (20_001, 5, 4),
    (3001, 40, 8),
    (2003, 33, 16),
    (1001, 130, 20),
]


@pytest.mark.parametrize(("x_type", "w_type"), DTYPES)
@pytest.mark.parametrize(("n", "d", "k"), LARGE)
def test_many_blocks_and_the_same_bits(rng, native, x_type, w_type, n, d, k):
    if is_emulated(native):
        n = (n + 7) // 8
    x, w, y, s = problem(rng, n, d, k, dtype=x_type, w_dtype=w_type, weights=True)
    x /= np.asarray(16, x_type)  # so that float16's sums stay finite
    exact = truth(x, w, y, sample_weight=s)
    results = [loss_and_grad(native, x, w, y, s, loss_per_target=True) for _ in range(2)]
    finite = np.abs(np.asarray(exact.loss, np.float64)) < (6e4 if w_type == np.float16 else np.inf)
    loss, grad = results[0]
    assert_within(
        np.where(finite, loss, 0), np.where(finite, exact.loss, 0), exact.loss_bound, what="loss"
    )
    assert_within(grad, exact.grad, exact.grad_bound, what="grad")
    for loss, grad in results[1:]:
        assert loss.tobytes() == results[0][0].tobytes()
        assert grad.tobytes() == results[0][1].tobytes()


def test_zeros_in_place_of_y(rng, native):
    x, v, _, s = problem(rng, 100, 7, 3, weights=True)
    exact = truth(x, v, None, sample_weight=s)
    _, product = loss_and_grad(native, x, v, None, s)
    assert_within(product, exact.grad, exact.grad_bound)


def test_not_finite_as_the_composite_has_it(rng, native):
    x, w, y, s = problem(rng, 40, 9, weights=True)
    x[5, 3] = np.nan
    x[6, 4] = np.inf
    w[4] = 0.0  # inf · 0 is nan, and a weight of zero hides nothing
    s[5] = 0.0
    loss, grad = loss_and_grad(native, x, w, y, s)
    assert np.isnan(loss)
    assert np.isnan(grad).all()


@pytest.fixture
def tensor_rows(native, machine):
    """Few rows that the tensor cores take, and some."""
    if native.device_properties()["code"] < 90:
        pytest.skip("a device whose code has no tensor cores")
    if machine is not None and machine.name != "sm_90":
        pytest.skip("one device that is played is enough")

    def rows(d, k, dtype):
        n = 192
        while native.plan(n, d, k, np.dtype(dtype).name)["route"] != "tensor_cores":
            n *= 2
            assert n < 1 << 22, "no number of rows has tensor cores"
        return n + 5

    return rows


TENSOR_DTYPES = [dtype for dtype in DTYPES if dtype.id != "float64"]


@pytest.mark.parametrize(("x_type", "w_type"), TENSOR_DTYPES)
@pytest.mark.parametrize(("d", "k", "more"), [(48, 5, True), (200, 16, False), (400, 13, True)])
def test_tensor_cores(rng, native, tensor_rows, x_type, w_type, d, k, more):
    x, w, y, s = problem(
        rng,
        tensor_rows(d, k, x_type),
        d,
        k,
        dtype=x_type,
        w_dtype=w_type,
        intercept=more,
        weights=more,
    )
    for array in (x, w, y):  # so that float16's sums stay finite, of as many rows as a GPU needs
        array /= array.dtype.type(64)
    check(native, x, w, y, s, intercept=more)


def test_tensor_cores_without_y(rng, native, tensor_rows):
    n = tensor_rows(64, 7, np.float32)
    x, v, _, _ = problem(rng, n, 64, 7)
    exact = truth(x, v, None)
    _, product = loss_and_grad(native, x, v, None)
    assert_within(product, exact.grad, exact.grad_bound)


@pytest.mark.parametrize("x_type", [np.float32, np.float16, BFLOAT16], ids=lambda t: t.__name__)
@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("x", np.nan),
        ("x", np.inf),
        ("x", 3.4e38),
        ("w", np.nan),
        ("w", 3.4e38),
        ("w", 1e-38),
        ("y", -np.inf),
        ("y", 1e25),
    ],
)
def test_numbers_that_tensor_cores_do_not_hold(rng, native, tensor_rows, x_type, where, value):
    """As the kernels of four targets have them, which do without."""
    d, k = 64, 8
    n = tensor_rows(d, k, x_type)
    x, w, y, s = problem(rng, n, d, k, dtype=x_type, w_dtype=np.float32, weights=True)
    with np.errstate(over="ignore"):
        {"x": x, "w": w, "y": y}[where].reshape(-1)[n // 2 if where != "w" else 77] = value
    loss, grad = loss_and_grad(native, x, w, y, s, loss_per_target=True)
    halves = [
        loss_and_grad(native, x, w[:, part], y[:, part], s, loss_per_target=True)
        for part in (slice(0, 4), slice(4, 8))
    ]
    for got, want in zip((loss, grad), zip(*halves, strict=True), strict=True):
        want = np.concatenate(want, axis=-1)
        finite = np.isfinite(want)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(got[~finite], want[~finite])
        scale = np.max(np.abs(want[finite]), initial=0)
        np.testing.assert_allclose(got[finite], want[finite], 1e-5, 1e-5 * scale)


def descend(x, w, y, s, rates, momentum, intercept):
    """The iterates' losses and the last weights, in extended precision."""
    x, w, y = (a.astype(np.longdouble) for a in (x, w, y))
    if intercept:
        x = np.concatenate([np.ones((len(x), 1), np.longdouble), x], axis=1)
    s = np.ones(len(x), np.longdouble) if s is None else s.astype(np.longdouble)
    s = s.reshape(-1, *[1] * (w.ndim - 1))
    v = np.zeros_like(w)
    losses = []
    for rate in [*rates, None]:
        r = x @ w - y
        losses.append(np.sum(s * r * r) / 2)
        if rate is not None:
            v = momentum * v - rate * (x.T @ (s * r))
            w = w + v
    return w, np.array(losses)


@pytest.mark.parametrize(
    ("n", "d", "k"),
    [
        (50, 1, None),
        (1000, 10, None),
        (70, 33, 4),
        (40, 5, 20),
        (9001, 16, None),
        (1100, 129, None),
    ],
)
@pytest.mark.parametrize("schedule", [False, True], ids=["", "schedule"])
def test_descent(rng, native, n, d, k, schedule):
    x, w, y, s = problem(rng, n, d, k, dtype=np.float64, intercept=True, weights=True)
    steps = 5
    rates = np.linspace(0.5, 0.1, steps) / n if schedule else np.full(steps, 0.3 / n)
    new_w, losses = native.gradient_descent(
        *(to_device(native, a) for a in (x, w, y)),
        rates if schedule else rates[0],
        steps,
        intercept=True,
        sample_weight=to_device(native, s),
        momentum=0.5,
    )
    want_w, want_losses = descend(x, w, y, s, rates, 0.5, True)
    # A handful of contracting steps in float64: 1e-12 is thousands of roundings.
    np.testing.assert_allclose(to_numpy(new_w, np.float64), want_w.astype(float), 1e-12, 1e-12)
    np.testing.assert_allclose(to_numpy(losses, np.float64), want_losses.astype(float), 1e-12)


@pytest.mark.parametrize(("n", "d", "k"), [(20_000, 1, None), (1500, 33, 3), (40, 2900, None)])
def test_descent_without_cooperative_launches(rng, native, n, d, k):
    """Passes and steps in launches of their own, most of them from a graph: the same bits."""
    x, w, y, s = problem(rng, n, d, k, intercept=True, weights=True)
    arrays = [to_device(native, a) for a in (x, w, y)]
    rates = np.linspace(0.5, 0.1, 35) / n / d
    results = [
        native.gradient_descent(
            *arrays,
            rates,
            len(rates),
            intercept=True,
            sample_weight=to_device(native, s),
            momentum=0.5,
            cooperative_launch=cooperative,
        )
        for cooperative in (True, False)
    ]
    for one, other in zip(*results, strict=True):
        assert one.to_bytes() == other.to_bytes()
        assert np.isfinite(to_numpy(one, np.float32)).all()


@pytest.mark.parametrize(("x_type", "w_type"), DTYPES)
def test_descent_keeps_the_iterates_wide(rng, native, x_type, w_type):
    """Steps too small for 16 bits add up; 300 of them take two launches and more than one set."""
    x, w, y, _ = problem(rng, 64, 3, dtype=x_type, w_dtype=w_type)
    steps, rate = 300, 1e-5
    new_w, losses = native.gradient_descent(*(to_device(native, a) for a in (x, w, y)), rate, steps)
    want_w, want_losses = descend(x, w, y, None, [rate] * steps, 0.0, False)
    u = {"bfloat16": 2.0**-8, "float16": 2.0**-11}.get(np.dtype(w_type).name, 2.0**-24)
    scale = 1 if u > 2.0**-24 else steps
    np.testing.assert_allclose(
        to_numpy(new_w, w_type).astype(float), want_w.astype(float), 4 * scale * u, 4 * scale * u
    )
    np.testing.assert_allclose(
        to_numpy(losses, w_type).astype(float), want_losses.astype(float), 8 * scale * u
    )


def test_descent_of_several_launches(rng, native):
    """State passes from launch to launch: the bits of one long descent are those of its parts."""
    x, w, y, _ = problem(rng, 20, 2)
    steps = 4100  # a launch has 4096
    arrays = [to_device(native, a) for a in (x, w, y)]
    new_w, losses = native.gradient_descent(*arrays, 1e-4, steps)
    half, first = native.gradient_descent(*arrays, 1e-4, 4000)
    rest_w, rest = native.gradient_descent(arrays[0], half, arrays[2], 1e-4, steps - 4000)
    assert rest_w.to_bytes() == new_w.to_bytes()
    assert first.to_bytes() + rest.to_bytes()[4:] == losses.to_bytes()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"x": np.zeros(3, np.float32)}, ValueError, r"x must be \[n, d\], got shape \(3,\)"),
        ({"w": np.zeros(2, np.float32)}, ValueError, r"w must be .* got w of shape \(2,\)"),
        ({"w": np.zeros(3)}, TypeError, "w must have x's dtype, float32, got float64"),
        ({"y": np.zeros(4)}, TypeError, "y must have w's dtype float32, got float64"),
        ({"y": np.zeros((4, 1), np.float32)}, ValueError, r"y must be \[n\]"),
        ({"sample_weight": np.zeros(3, np.float32)}, ValueError, "sample_weight must be"),
    ],
)
def test_bad_arrays(native, change, error, match):
    arrays = {
        "x": np.zeros((4, 3), np.float32),
        "w": np.zeros(3, np.float32),
        "y": np.zeros(4, np.float32),
        "sample_weight": None,
        **change,
    }
    with pytest.raises(error, match=match):
        native.loss_and_grad(**{name: to_device(native, a) for name, a in arrays.items()})


def test_host_memory_is_refused(native):
    with pytest.raises(TypeError, match="x must be in the memory of an NVIDIA GPU"):
        native.loss_and_grad(np.zeros((4, 3), np.float32), np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="x must be an array on a GPU that supports DLPack"):
        native.loss_and_grad([[1.0]], [1.0])


@pytest.mark.parametrize(
    ("rate", "steps", "match"),
    [(0.1, -1, "num_steps must be between 0 and"), (np.zeros(2), 3, "num_steps=3 entries, got 2")],
)
def test_bad_descent(native, rate, steps, match):
    x, w, y = (to_device(native, np.zeros(s, np.float32)) for s in ((4, 3), 3, 4))
    with pytest.raises(ValueError, match=match):
        native.gradient_descent(x, w, y, rate, steps)


@pytest.mark.slow  # every error of every call, each from a fresh start, in an interpreter
def test_the_calls_around_the_kernels(runner):
    """Every way to descend, and every error of the runtime."""
    done = subprocess.run(
        [runner.folder / "cuda_calls_test", runner.ptx(90)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_random_problems(runner):
    """Every path at every alignment between forbidden pages, and no fault: any order, same bits."""
    outputs = set()
    for order in ("0", "129"):
        done = subprocess.run(
            [runner.folder / "cuda_random_test", runner.ptx(90), "100", order],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1, outputs


def test_without_a_gpu_the_calls_say_what_is_missing():
    if kernels.cuda.available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match=r"no CUDA kernels|CUDA device.*failed"):
        kernels.cuda.device_properties()


@pytest.mark.parametrize("k", [None, 3, 20])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_torch_tensors_and_unaligned_slices(k, dtype):
    if not kernels.cuda.available():
        pytest.skip(NO_GPU)
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype)
    generator = torch.Generator("cuda").manual_seed(1)
    for skip in (0, 1, 3):
        x = torch.randn(70, 13, generator=generator, device="cuda").to(kind)[skip:]
        w = torch.randn(*((13,) if k is None else (13, k)), generator=generator, device="cuda")
        y = torch.randn(*((70,) if k is None else (70, k)), generator=generator, device="cuda")
        w, y = w.to(kind), y.to(kind)[skip:]
        loss, grad = kernels.cuda.loss_and_grad(x, w, y)
        assert isinstance(grad, torch.Tensor)
        assert grad.shape == w.shape
        assert grad.dtype == kind
        exact = truth(*(a.double().cpu().numpy() for a in (x, w, y)))
        u = torch.finfo(kind).eps
        size = exact.grad_bound + u * np.abs(exact.grad) + 70 * 1e-6 * np.max(np.abs(exact.grad))
        assert_within(grad.double().cpu().numpy(), exact.grad, size)
        total = np.sum(exact.loss)
        assert_within(loss.double().cpu().numpy(), total, total * (u + 1e-5))
