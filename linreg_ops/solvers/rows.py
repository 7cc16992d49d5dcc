"""Rows as their callers give them, checked: arrays that fit each other, or ValueError."""

from __future__ import annotations

from typing import Any

import numpy as np

from .problem import Array


def checked(x: Any, y: Any, s: Any) -> tuple[Any, Array, Array | None]:
    """X [m, d], dense or CSR; y [m] or [m, k]; s [m] in float64 or None."""
    x = x.tocsr() if hasattr(x, "tocsr") else _numbers(x, "x")
    if x.ndim != 2:
        raise ValueError(f"x must have shape [m, d], got {list(x.shape)}")
    m = x.shape[0]
    y = _numbers(y, "y")
    if y.ndim not in (1, 2) or len(y) != m:
        raise ValueError(f"y must have shape [{m}] or [{m}, k] as x, got {list(y.shape)}")
    if s is not None:
        s = _numbers(s, "sample_weight").astype(np.float64, copy=False)
        if s.shape != (m,):
            raise ValueError(f"sample_weight must have shape [{m}] as x, got {list(s.shape)}")
        if not np.all(np.isfinite(s)) or np.any(s < 0):
            raise ValueError("sample_weight must not be negative, infinite or NaN")
    for name, value in (("x", x.data if hasattr(x, "tocsr") else x), ("y", y)):
        if not all_finite(value):
            raise ValueError(f"{name} must not hold NaN or infinite values")
    return x, y, s


def _numbers(value: Any, name: str) -> Array:
    array: Array = np.asarray(value)
    if array.dtype.kind in "iub" or array.dtype == object:
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(f"{name} must be of floating type or integers, got {array.dtype.name}")
    return array


def as_it_is(x: Any) -> bool:
    """Whether the kernel reads x without a copy."""
    return isinstance(x, np.ndarray) and bool(x.flags.c_contiguous)


def dense(x: Any) -> Any:
    """CSR rows as an array; an array as it is."""
    return x.toarray() if hasattr(x, "toarray") else x


def all_finite(value: Array) -> bool:
    """Block by block, from which no array of the same size comes."""
    rows = max(1, 2**17 // max(1, value[:1].size))
    with np.errstate(over="ignore", invalid="ignore"):
        for begin in range(0, len(value), rows):
            block = value[begin : begin + rows]
            if not (np.isfinite(block.sum(dtype=np.float64)) or np.all(np.isfinite(block))):
                return False
    return True
