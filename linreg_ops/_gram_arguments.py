"""What the Gram engine is given, checked: native, C-contiguous, of shapes and sizes that fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _kernels

Array = NDArray[Any]

_TYPES = ("float16", "bfloat16", "float32", "float64")


def size(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 0 or value >= 2**63:
        raise ValueError(f"{name} must be an integer from 0 to 2**63 - 1, got {value}")
    return int(value)


def threads(value: int | None) -> int | None:
    if value is not None and not 1 <= size(value, "num_threads") <= 4096:
        raise ValueError(f"num_threads must be between 1 and 4096, got {value}")
    return None if value is None else int(value)


def isa(name: str | None) -> str | None:
    supported = [isa for isa, runs in _kernels.isas().items() if runs]
    if name is not None and name not in supported:
        raise ValueError(f"isa must be one of {', '.join(supported)}, got {name!r}")
    return name


def floats(array: Any, name: str) -> Array:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(array).__name__}")
    if array.dtype.name not in _TYPES or not array.dtype.isnative:
        raise TypeError(
            f"{name} must be float32, float64, float16 or bfloat16 in native byte order, "
            f"got {array.dtype} ({array.dtype.str})"
        )
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{name} must be C-contiguous (numpy.ascontiguousarray makes it so), "
            f"got shape {array.shape} with strides {array.strides}"
        )
    return array


def integers(fold: Any, n: int) -> Array:
    fold = np.asarray(fold)
    if fold.dtype.kind not in "iu":
        raise TypeError(f"fold must hold integers, got {fold.dtype}")
    if fold.shape != (n,):
        raise ValueError(f"fold must be [{n}], got shape {fold.shape}")
    if fold.dtype == np.uint64 and np.any(fold >= 2**63):
        raise ValueError(f"fold must hold numbers of folds, got {fold.max()}")
    return np.ascontiguousarray(fold, np.int64)


def column_values(given: Any, default: float, count: int, name: str) -> Array:
    if given is None:
        return np.full(count, default)
    values: Array = np.array(given, np.float64)
    if values.shape != (count,):
        raise ValueError(f"{name} must be [{count}], got shape {values.shape}")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")
    return values


def powers_of_two(given: Any, count: int, name: str) -> Array:
    values = column_values(given, 1.0, count, name)
    wrong = np.frexp(values)[0] != 0.5
    if np.any(wrong):
        raise ValueError(f"{name} must hold powers of two, got {values[wrong][0]}")
    return values


def stored(arrays: Mapping[str, Any], name: str, dtype: Any, shape: tuple[int, ...]) -> Array:
    array: Array = np.asarray(arrays[name])
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"arrays[{name!r}] must be {np.dtype(dtype).name} of shape {shape}, "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array
