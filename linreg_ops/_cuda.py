"""The raw kernels on GPU arrays: of PyTorch, CuPy, JAX or any library that speaks DLPack.

C-contiguous arrays of float32, float64, float16 or bfloat16, all on one GPU; `w`, `y` and
`sample_weight` share one dtype: x's, or float32 when x's has 16 bits. Nothing is copied, and
nothing waits: the work is enqueued on `stream`, a `cudaStream_t` as an integer (default: PyTorch's
current stream for its tensors, else the default stream), which must stay there as long as the
results do. The inputs are kept until the GPU has read them: by PyTorch on its own stream, else by
this library, which lets them go in a later call. A stream that is being captured into a CUDA graph
is refused. Results are arrays of x's library, with the same bits on every run. For more than 16
targets, and for rows too wide for the kernels to hold, these are plain kernels; the TensorFlow op
uses cuBLAS there.

Importable on every machine; the calls raise RuntimeError where the build has no CUDA or the machine
no GPU.
"""

import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _kernels

__all__ = [
    "Plan",
    "Route",
    "available",
    "compiled",
    "device_properties",
    "gradient_descent",
    "loss_and_grad",
    "plan",
    "routes",
]


class Route(NamedTuple):
    """A way to make a pass, named by who holds a row of x, for up to `most_targets`.

    `budget` is what it may cost: instructions of a warp, for each clock in which a multiprocessor
    of an H200 takes in its share of 4.8 TB/s. It issues four at most.
    """

    name: str
    most_targets: int
    budget: float


class Plan(NamedTuple):
    """How the current device makes a pass over x [n, d].

    `blocks` of `threads`, in which `lanes` share a row, and what a block has of the multiprocessor
    that it fills: bytes of x that were asked for and not used yet, and of shared memory.
    """

    route: str
    most_targets: int
    blocks: int
    threads: int
    lanes: int
    rows_in_flight: int
    bytes_in_flight: int
    shared_bytes: int


def compiled() -> bool:
    """Whether this build has the CUDA kernels."""
    return hasattr(_kernels, "cuda")


def available() -> bool:
    """Whether they can run here: there is a GPU, with a driver that is new enough."""
    try:
        device_properties()
    except RuntimeError:
        return False
    return True


def device_properties() -> dict[str, Any]:
    """What the kernels' plans depend on, of the current device.

    Raises:
        RuntimeError: There is no such device; the message says what is missing.
    """
    return _native().device_properties()


def plan(n: int, d: int, k: int = 1, dtype: str = "float32") -> Plan:
    """How `loss_and_grad` runs on the current device.

    Raises:
        RuntimeError: There is no such device.
        ValueError: The sizes are negative or overflow.
        TypeError: No array may have this dtype.
    """
    return Plan(**_native().plan(n, d, k, dtype))


def routes() -> list[Route]:
    """All of them, with their budgets."""
    return [Route(*route) for route in _native().routes()]


def loss_and_grad(
    x: Any,
    w: Any,
    y: Any = None,
    *,
    intercept: bool = False,
    sample_weight: Any = None,
    loss_per_target: bool = False,
    stream: int | None = None,
) -> tuple[Any, Any]:
    """½ Σ s (xw - y)² and xᵀ(s (xw - y)) in one pass over x; `y=None` stands for zeros.

    Args:
        x: [n, d].
        w: [d] or [d, k]; one more row, the first, with `intercept`.
        y: [n] or [n, k].
        intercept: x has an implicit leading column of ones.
        sample_weight: s, [n].
        loss_per_target: One loss for each column of y.
        stream: See the module.

    Returns:
        The loss, [] or [k], and the gradient, of w's shape; both of w's dtype.
    """
    loss, grad = _native().loss_and_grad(
        x,
        w,
        y,
        intercept=intercept,
        sample_weight=sample_weight,
        loss_per_target=loss_per_target,
        stream=_stream(x, stream),
        keep_inputs=not _orders_memory(x, stream),
    )
    return _like(x, loss), _like(x, grad)


def gradient_descent(
    x: Any,
    w: Any,
    y: Any,
    learning_rate: ArrayLike,
    num_steps: int,
    *,
    intercept: bool = False,
    sample_weight: Any = None,
    momentum: float = 0.0,
    stream: int | None = None,
) -> tuple[Any, Any]:
    """`num_steps` full-batch steps from w in one launch: v ← momentum·v - rateₜ·∇, w ← w + v.

    Args:
        x: [n, d].
        w: [d] or [d, k]; one more row, the first, with `intercept`.
        y: [n] or [n, k].
        learning_rate: A number, or one for each step; in host memory.
        num_steps: How many.
        intercept: x has an implicit leading column of ones.
        sample_weight: [n].
        momentum: The share of the last step that is added to the next.
        stream: See the module.

    Returns:
        The weights after the last step, and the num_steps + 1 losses of all iterates.
    """
    new_w, losses = _native().gradient_descent(
        x,
        w,
        y,
        np.asarray(learning_rate, np.float64),
        num_steps,
        intercept=intercept,
        sample_weight=sample_weight,
        momentum=momentum,
        stream=_stream(x, stream),
        keep_inputs=not _orders_memory(x, stream),
    )
    return _like(x, new_w), _like(x, losses)


def to_device(a: NDArray[Any]) -> Any:
    """A copy of a NumPy array on the current GPU, for machines without another array library."""
    a = np.ascontiguousarray(a)
    return _native().from_bytes(a.reshape(-1).view(np.uint8), a.dtype.name, a.shape)


def to_numpy(array: Any, dtype: Any = None) -> NDArray[Any]:
    """A copy of such an array on the host; `dtype` for bfloat16, which NumPy does not know."""
    return np.frombuffer(array.to_bytes(), dtype or array.dtype).reshape(array.shape)


def _native() -> "_kernels._Cuda":
    if not compiled():
        raise RuntimeError(
            "this build of linreg_ops has no CUDA kernels: install it with LINREG_OPS_CUDA=on"
        )
    return _kernels.cuda


def _library(x: Any) -> Any:
    name = type(x).__module__.partition(".")[0]
    return sys.modules.get({"jaxlib": "jax.numpy", "jax": "jax.numpy"}.get(name, name))


def _orders_memory(x: Any, stream: int | None) -> bool:
    """Whether x's library gives its memory out again behind what `_stream` has been given."""
    of_torch = type(x).__module__.partition(".")[0] == "torch"
    return stream is None and of_torch and bool(x.is_cuda)


def _stream(x: Any, stream: int | None) -> int:
    if stream is not None:
        return stream
    if _orders_memory(x, stream):
        return int(_library(x).cuda.current_stream(x.device).cuda_stream)
    return 0


def _like(x: Any, result: Any) -> Any:
    from_dlpack = getattr(_library(x), "from_dlpack", None)
    own = _kernels.cuda.DeviceArray
    return result if isinstance(x, own) or from_dlpack is None else from_dlpack(result)
