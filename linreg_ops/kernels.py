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

from . import _cuda as cuda
from ._kernels import active_isa, gradient_descent, isas, loss_and_grad

__all__ = ["active_isa", "cuda", "gradient_descent", "isas", "loss_and_grad"]

try:
    active_isa()
except (RuntimeError, ValueError) as error:  # a wrong LINREG_OPS_ISA is better known now than later
    raise ImportError(str(error)) from error
