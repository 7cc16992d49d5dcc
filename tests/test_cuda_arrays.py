"""GPU arrays around the kernels' calls: streams, memory and DLPack, on the PTX runner.

Its streams work when somebody waits for them, and its memory is given out again as soon as it is
given back: an order that nobody asked for shows as a wrong number.
"""

import ctypes
import datetime

import ml_dtypes
import numpy as np
import pytest
from oracles import assert_within, problem, truth
from ptx_runner import DEVICES, become, build, load


@pytest.fixture(scope="module")
def emulated(request):
    built = build(request.config.cache.mkdir("ptx_runner"))
    module = load(built.module)
    become(module, built, DEVICES["sm_90"])
    return module


def to_device(emulated, a):
    a = np.ascontiguousarray(a)
    return emulated.cuda.from_bytes(a.reshape(-1).view(np.uint8), a.dtype.name, a.shape)


def to_numpy(array, stream=0):
    return np.frombuffer(array.to_bytes(stream), array.dtype).reshape(array.shape)


@pytest.fixture
def arrays(rng):
    return problem(rng, 50, 3)[:3]


@pytest.fixture
def call(emulated, arrays):
    """loss_and_grad of the same arrays on a stream, with other weights if there are any."""
    x, w, y = (to_device(emulated, a) for a in arrays)

    def loss_and_grad(stream, weights=w):
        return emulated.cuda.loss_and_grad(x, weights, y, stream=stream)

    return loss_and_grad


class Foreign:
    """An array of another library, which orders its streams as ours does."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, *, stream):
        return self.array.__dlpack__(stream=stream)


def test_reading_a_result_waits_for_its_stream(emulated, arrays, call):
    exact = truth(*arrays)
    loss, grad = call(emulated.new_stream())
    assert_within(to_numpy(loss), exact.loss, exact.loss_bound)
    assert_within(to_numpy(grad), exact.grad, exact.grad_bound)


@pytest.mark.parametrize("kind", [lambda array: array, Foreign], ids=["own", "dlpack"])
def test_a_result_of_another_stream_is_waited_for(emulated, arrays, call, kind):
    x, _, y = arrays
    first, second = emulated.new_stream(), emulated.new_stream()
    _, grad = call(first)
    loss, _ = call(second, kind(grad))
    got = to_numpy(loss, second)
    exact = truth(x, to_numpy(grad), y)
    assert_within(got, exact.loss, exact.loss_bound)


def test_memory_is_given_back_behind_the_work_on_it(emulated, call):
    """Results and workspace dropped before the stream has worked: nobody else gets them yet."""
    stream = emulated.new_stream()
    call(stream)
    ones = np.ones(3, np.float32)
    others = [to_device(emulated, ones) for _ in range(8)]
    others[0].to_bytes(stream)
    for other in others:
        np.testing.assert_array_equal(to_numpy(other), ones)


def test_inputs_are_kept_until_the_gpu_has_read_them(emulated, arrays):
    """Another library may give an input's memory out again as soon as nobody has it: with
    keep_inputs=False the runner ends here, at a read of memory that belongs to nobody."""
    x, w, y = arrays
    stream = emulated.new_stream()
    kept = [Foreign(to_device(emulated, a)) for a in (x, w, y)]
    results = emulated.cuda.loss_and_grad(*kept, stream=stream)
    del kept
    ones = np.ones(x.size, np.float32)
    others = [to_device(emulated, ones) for _ in range(4)]  # of the inputs' memory, if it is free
    exact = truth(x, w, y)
    assert_within(to_numpy(results[0], stream), exact.loss, exact.loss_bound)
    assert_within(to_numpy(results[1], stream), exact.grad, exact.grad_bound)
    del results, others
    to_device(emulated, ones).to_bytes(stream)  # waits for what gives the results back
    held = emulated.bytes_given_out()
    emulated.cuda.loss_and_grad(*(to_device(emulated, a) for a in (x, w, y)), keep_inputs=False)
    assert emulated.bytes_given_out() <= held - x.nbytes - w.nbytes - y.nbytes


@pytest.mark.parametrize(
    ("producer", "consumer", "events"),
    [(0, 1, 0), (1, 1, 0), (0, None, 0), (0, -1, 0), (0, 2, 1), (1, 2, 1)],
)
def test_streams_that_are_one_need_no_event(emulated, call, producer, consumer, events):
    """DLPack's 1 and CUDA's 0 both stand for the legacy default stream."""
    _, grad = call(producer)
    before = emulated.machine().events
    grad.__dlpack__(stream=consumer)
    assert emulated.machine().events - before == events


def test_a_second_call_asks_the_driver_nothing_again(emulated):
    """Its answers take microseconds. This call's kernel needs more shared memory than the 48 KB
    for which nobody has to ask."""
    machine = emulated.machine()
    known, machine.ordinal = machine.ordinal, 77
    x, w, y = (to_device(emulated, np.ones(s, np.float32)) for s in ((40, 4096), 4096, 40))
    asked = [machine.attribute_calls]
    for _ in range(2):
        emulated.cuda.loss_and_grad(x, w, y)
        asked.append(machine.attribute_calls)
    machine.ordinal = known
    assert asked[0] < asked[1] == asked[2]


def test_a_stream_that_is_captured_is_refused(emulated, arrays, call):
    """The graph would own the results' memory."""
    stream = emulated.new_stream()
    runtime = ctypes.CDLL(emulated.__file__)
    assert runtime.cudaStreamBeginCapture(ctypes.c_void_p(stream), 0) == 0
    with pytest.raises(RuntimeError, match="stream is being captured into a CUDA graph"):
        call(stream)


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("manager_ctx", ctypes.c_void_p),  # from here on DLManagedTensor's
        ("deleter", ctypes.c_void_p),
    )


class HandMade:
    """A float32 array in the runner's memory, or what claims to be one."""

    def __init__(self, emulated, array, strides=None, **changes):
        self.array = np.ascontiguousarray(array, np.float32)
        emulated.lend(self.array.ctypes.data, self.array.nbytes)
        sizes = ctypes.c_int64 * array.ndim
        self.tensor = DLTensor(
            self.array.ctypes.data, 2, 0, array.ndim, 2, 32, 1, sizes(*array.shape)
        )
        if strides is not None:
            self.tensor.strides = sizes(*strides)
        for name, value in changes.items():
            setattr(self.tensor, name, value)

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, *, stream):
        return capsule(ctypes.addressof(self.tensor), b"dltensor")


def capsule(pointer, name):
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = (
        ctypes.py_object,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
    )
    return new(pointer, name, None)


@pytest.mark.parametrize("strides", [None, (3, 1)])
@pytest.mark.parametrize("skip", [0, 1])
def test_hand_made_dlpack(emulated, arrays, strides, skip):
    x, w, y = arrays
    view = HandMade(emulated, x, strides, byte_offset=12 * skip)
    view.tensor.shape[0] -= skip
    loss, grad = emulated.cuda.loss_and_grad(
        view, HandMade(emulated, w), HandMade(emulated, y[skip:])
    )
    exact = truth(x[skip:], w, y[skip:])
    assert_within(to_numpy(loss), exact.loss, exact.loss_bound)
    assert_within(to_numpy(grad), exact.grad, exact.grad_bound)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"lanes": 2}, TypeError, "x must be float32, .* got DLPack type .* 32 bits and 2 lanes"),
        ({"lanes": 0}, TypeError, "x must be float32, .* and 0 lanes"),
        ({"code": 0}, TypeError, "x must be float32, .* code 0 of 32 bits"),
        ({"bits": 8}, TypeError, "x must be float32, .* code 2 of 8 bits"),
        ({"code": 4}, TypeError, "x must be float32, .* code 4 of 32 bits"),
        ({"ndim": -1}, ValueError, "x must have a rank of 0 or more, got -1"),
        ({"strides": (1, 50)}, ValueError, r"x must be C-contiguous, got shape \(50, 3\)"),
        ({"strides": (0, 0)}, ValueError, "x must be C-contiguous"),
        ({"strides": (-3, 1)}, ValueError, "x must be C-contiguous"),
    ],
)
def test_dlpack_that_is_refused(emulated, arrays, changes, error, match):
    x, w, _ = arrays
    with pytest.raises(error, match=match):
        emulated.cuda.loss_and_grad(HandMade(emulated, x, **changes), HandMade(emulated, w))


NOT_A_TENSOR = {
    "a-datetimes": (lambda: datetime.datetime_CAPI, r"one named 'datetime\.datetime_CAPI'"),
    "used": (lambda: capsule(1, b"used_dltensor"), "one named 'used_dltensor', which was used"),
    "versioned": (lambda: capsule(1, b"dltensor_versioned"), "one named 'dltensor_versioned'"),
    "nameless": (lambda: capsule(1, None), "one without a name"),
    "none": (lambda: None, "NoneType"),
}


@pytest.mark.parametrize(("make", "got"), NOT_A_TENSOR.values(), ids=NOT_A_TENSOR)
@pytest.mark.parametrize("argument", ["x", "w", "y", "sample_weight"])
def test_what_dlpack_returns_must_be_a_new_tensor(emulated, arrays, argument, make, got):
    """Only the capsule's name says what it points to."""
    arguments = {name: HandMade(emulated, a) for name, a in zip("xwy", arrays, strict=True)}
    arguments["sample_weight"] = HandMade(emulated, np.ones(50))
    fake = type("Fake", (HandMade,), {"__dlpack__": lambda self, *, stream: make()})
    arguments[argument] = fake(emulated, arguments[argument].array)
    with pytest.raises(TypeError, match=rf"{argument}\.__dlpack__ must return .* got .*{got}"):
        emulated.cuda.loss_and_grad(**arguments)


FLOATS = {(2, 32): "f4", (2, 64): "f8", (2, 16): "f2", (4, 16): ml_dtypes.bfloat16}
SIZES = (-(2**63), -1, 2**31, 2**32 + 1, 2**62, 2**63 - 1)


class Claim(HandMade):
    """What says of 4096 bytes that they are an array of some type, rank, sizes and strides."""

    def __init__(self, emulated, rng, shape, bits, lie):
        code, lanes, ndim, strides = 2, 1, len(shape), None
        self.shape, self.lie = list(shape), lie
        if lie == "type":
            code, bits = (int(rng.choice(a)) for a in ((0, 1, 2, 4, 255), (0, 8, 16, 32, 64)))
        elif lie == "lanes":
            lanes = int(rng.choice([0, 2, 4, 65535]))
        elif lie == "rank":
            ndim = int(rng.choice([-(2**31), -1, 0, 1, 2, 3, 5]))
        elif lie == "size":
            self.shape[rng.integers(ndim)] = int(rng.choice(SIZES))
        elif lie == "strides":
            strides = rng.choice([-(2**63), -1, 0, 1, 2, 5, 2**32, 2**63 - 1], 8).tolist()
        dtype = np.dtype(FLOATS.get((code, bits), "f4"))
        self.memory = rng.integers(0, 4, 4096 // dtype.itemsize).astype(dtype)
        emulated.lend(self.memory.ctypes.data, self.memory.nbytes)
        sizes = ctypes.c_int64 * 8
        self.tensor = DLTensor(
            self.memory.ctypes.data, 2, 0, ndim, code, bits, lanes, sizes(*self.shape)
        )
        if strides is not None:
            self.tensor.strides = sizes(*strides)

    def numpy(self):
        return self.memory[: np.prod(self.shape)].reshape(self.shape).astype(float)


def test_random_dlpack(emulated, rng):
    """What is true is computed, exactly; a lie about one array is refused, or true by chance."""
    lies = ["", "type", "lanes", "rank", "size", "strides"]
    answered, refused = 0, 0
    for _ in range(600):
        n, d, k = (int(size) for size in rng.integers(1, 6, 3))
        bits = int(rng.choice([32, 64]))
        shapes = {"x": (n, d), "w": (d, k), "y": (n, k), "sample_weight": (n,)}
        liar = rng.choice(list(shapes))
        claims = {
            name: Claim(emulated, rng, shape, bits, rng.choice(lies) if name == liar else "")
            for name, shape in shapes.items()
        }
        error = None
        try:
            loss, grad = emulated.cuda.loss_and_grad(**claims)
        except (TypeError, ValueError) as raised:
            error = raised
        if error is not None:
            assert claims[liar].lie, error
            assert str(error).split()[0] in shapes, error
            refused += 1
            continue
        x, w, y, s = (claim.numpy() for claim in claims.values())
        r = x @ w - y
        assert to_numpy(loss) == np.sum(s @ r**2) / 2, claims[liar].lie
        np.testing.assert_array_equal(to_numpy(grad), x.T @ (s[:, None] * r), claims[liar].lie)
        answered += 1
    assert answered > 30
    assert refused > 100
