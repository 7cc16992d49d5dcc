"""The raw kernels on NumPy arrays: no TensorFlow, no copies, a few hundred nanoseconds a call.

They take C-contiguous arrays of float32, float64, float16 or bfloat16 (of ml_dtypes); `w`, `y` and
`sample_weight` share one dtype: x's, or float32 when x's has 16 bits. They compute in float32 or
wider, and the loss in float64.

The same bits come out for any `num_threads`, on every run, and with every instruction set that has
a fused multiply-add.

Beside its outputs a call allocates O(d k) for each of the parts that the rows are cut into, at most
256 of them however many the rows are, and for each thread; never an array of n k. Sizes are 64-bit.
A row wider than the caches is read twice, for its residual and for its share of the gradient, the
second time from the cache or memory that it fits in. Rows are what threads share for up to eight
targets: where there are only a few, threads stay idle. A thread that has done its share stays awake
for 100 µs: to be woken for the next call would take it as long.

`kernels.cuda` has the same on arrays in a GPU's memory.
"""

from typing import Any, NamedTuple

from . import _cuda as cuda
from . import _kernels
from ._kernels import active_isa, gradient_descent, isas, loss_and_grad

__all__ = [
    "Plan",
    "active_isa",
    "cuda",
    "gradient_descent",
    "isas",
    "loss_and_grad",
    "plan",
    "routes",
]


class Plan(NamedTuple):
    """How a call runs: see :func:`plan`."""

    isa: str
    route: str  # one of routes()
    reason: str  # what the route is for
    workers: int  # threads worth having for it, at most num_threads
    tasks: int  # what they share, in the largest stage
    tile_rows: int  # rows between whose two uses X stays in the cache
    workspace_bytes: int  # what the call allocates beside its outputs


def plan(
    n: int,
    d: int,
    k: int = 1,
    dtype: Any = "float32",
    *,
    w_dtype: Any = None,
    intercept: bool = False,
    descent: bool = False,
    num_threads: int | None = None,
    isa: str | None = None,
) -> Plan:
    """How `loss_and_grad` (or, with `descent`, `gradient_descent`) runs on x [n, d] and w [d, k].

    `dtype` is x's, `w_dtype` that of w and y (by default x's). Sample weights change no plan.
    Raises ValueError for sizes, types or an `isa` that the call would refuse, and TypeError for a
    dtype that no array may have.

    >>> plan(1000, 100).route
    'lane_per_column'
    """
    import numpy as np

    x_type = np.dtype(dtype)
    w_type = x_type if w_dtype is None else np.dtype(w_dtype)
    return Plan(**_kernels.plan(n, d, k, x_type, w_type, intercept, descent, num_threads, isa))


def routes() -> dict[str, tuple[str, str]]:
    """Each route in the order they are asked in: the problems it takes, and what it is for."""
    return _kernels.routes()


try:
    active_isa()
except (RuntimeError, ValueError) as error:  # a wrong LINREG_OPS_ISA is better known now than later
    raise ImportError(str(error)) from error
