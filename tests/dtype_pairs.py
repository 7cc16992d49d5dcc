"""The pairs of dtypes of x and w that have kernels, as csrc/kernels/dtypes.h lists them."""

import ml_dtypes  # noqa: F401  (NumPy knows the name bfloat16 from it)
import numpy as np
import pytest

from linreg_ops import _kernels

PAIRS = [(np.dtype(x).type, np.dtype(w).type) for x, w in _kernels.dtype_pairs()]


def _name(x_type, w_type):
    x, w = np.dtype(x_type).name, np.dtype(w_type).name
    return x if x == w else f"{x}-{w}"


PARAMS = [pytest.param(*pair, id=_name(*pair)) for pair in PAIRS]
