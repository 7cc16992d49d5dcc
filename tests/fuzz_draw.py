"""What fuzz.py calls, and with what: call i of a seed is always the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

HUGE = [2**31, 2**32 + 1, 2**40, 2**44, 2**55, 2**57 + 8, 2**60, 2**62, 2**63 - 1]
SMALL = [0, 0, 1, 1, 2, 3, 5, 8, 9, 17, 33]
DTYPES = [np.float32, np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
STRANGE = [np.int32, np.int64, np.complex64, np.bool_, np.longdouble]
HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
STEPS = [0, 1, 2, 3, 7, -1, -(2**63), 2**33, 2**40, 2**40 + 1, 2**56, 2**61, 2**62, 2**63 - 1]
RATES = [0.0, 1e-3, 1e-3, np.inf, np.nan, 1e300]
MOST_ELEMENTS = 10_000  # of an array that has elements


# ------------------------------------------------------------------------------------- arguments


class Call(NamedTuple):
    """A function's name, how it is called, and with what."""

    mode: str
    function: str
    arrays: dict[str, Any]
    options: dict[str, Any]

    def __str__(self) -> str:
        shapes = {
            name: "none" if a is None else f"{a.dtype}{list(a.shape)}" if a.ndim else a.item()
            for name, a in self.arrays.items()
        }
        return f"{self.mode} {self.function} {shapes} {self.options}"


def size(rng: np.random.Generator, huge: float = 0.25) -> int:
    return int(rng.choice(HUGE) if rng.random() < huge else rng.choice(SMALL))


def array(rng: np.random.Generator, shape: list[int], dtype: Any) -> np.ndarray | None:
    """Random numbers of a shape, or None where there is no such array."""
    elements = int(np.prod(shape, dtype=object)) if shape else 1
    if elements > MOST_ELEMENTS:
        return None
    if elements:
        values = np.asarray(rng.standard_normal(shape)).reshape(shape)
        if rng.random() < 0.1:
            some = rng.random(shape) < rng.choice([0.05, 0.5])
            values[some] = rng.choice(extremes(np.dtype(dtype)), np.count_nonzero(some))
        return values.astype(dtype)
    try:
        return np.zeros(shape, dtype)
    except (ValueError, MemoryError):
        return None


def extremes(dtype: np.dtype) -> list[float]:
    """What is not a number, zeros, what is subnormal, and what overflows when it is squared."""
    if dtype.kind not in "fV":
        return [0.0, 1.0]
    kind = ml_dtypes.finfo(dtype)
    huge = 10 * float(kind.max) ** 0.5
    return [np.nan, np.inf, -np.inf, 0.0, -0.0, float(kind.tiny) / 4, huge, -huge]


def draw(rng: np.random.Generator, modes: dict[str, float]) -> Call:
    while True:
        call = _draw(rng, modes)
        if call is not None:
            return call


def _draw(rng: np.random.Generator, modes: dict[str, float]) -> Call | None:
    weights = np.array(list(modes.values()))
    mode = str(rng.choice(list(modes), p=weights / weights.sum()))
    functions = ["loss_and_grad", "descent"] + ["gram"] * (mode != "jit")
    if mode == "estimator":
        functions = ["fit"]
    elif mode != "kernels":
        functions += ["loss", "gradients"]
    if mode not in ("kernels", "estimator", "jit"):
        functions += ["raw_loss_grad", "raw_product", "raw_saved", "raw_descent"]
    function = str(rng.choice(functions))
    batch = [size(rng, 0.1) for _ in range(int(rng.choice([0, 0, 0, 1, 2, 3])))]
    numpy = mode in ("kernels", "estimator")
    if numpy:
        batch = []
    n, d, k = size(rng), size(rng), size(rng)
    intercept = bool(rng.random() < 0.3)
    vector = not batch and rng.random() < 0.4
    columns = [] if vector else [k]
    shapes = {
        "x": [*batch, n, d],
        "w": [*batch, min(d + intercept, 2**63 - 1), *columns],
        "y": [*batch, n, *columns],
    }
    if rng.random() < 0.3:
        shapes["sample_weight"] = [*batch, n]
    if function == "raw_saved":
        shapes["grad"] = shapes["w"]
    if rng.random() < 0.4:  # one of them is of another shape
        name = str(rng.choice(list(shapes)))
        if rng.random() < 0.5:
            shapes[name] = [size(rng) for _ in range(int(rng.integers(0, 6)))]
        elif shapes[name]:
            shapes[name] = list(shapes[name])
            shapes[name][int(rng.integers(len(shapes[name])))] = size(rng)
    x_type = rng.choice(DTYPES)
    w_type = np.float32 if np.dtype(x_type) in HALVES and rng.random() < 0.5 else x_type
    types = dict.fromkeys(shapes, w_type) | {"x": x_type}
    if rng.random() < 0.1:
        types[str(rng.choice(list(types)))] = rng.choice(DTYPES + STRANGE)
    arrays: dict[str, Any] = {}
    for name, shape in shapes.items():
        value = array(rng, shape, types[name])
        if value is None:
            return None
        arrays[name] = value
    if mode == "kernels" and rng.random() < 0.2:
        arrays["y"] = None  # zeros of any size
    if "descent" in function:
        arrays |= _schedule(rng)
    options: dict[str, Any] = {"intercept": intercept}
    if function == "raw_loss_grad":
        options["loss_per_target"] = bool(rng.random() < 0.5)
    if function == "fit":
        options["solver"] = str(rng.choice(["auto", "exact", "gram", "cg"]))
        if "sample_weight" in arrays and rng.random() < 0.7:
            arrays["sample_weight"] = np.abs(arrays["sample_weight"])
    if numpy and rng.random() < 0.2:
        arrays = {
            name: a if a is None or a.ndim == 0 else laid_out(rng, a) for name, a in arrays.items()
        }
    elif numpy and rng.random() < 0.05:
        arrays = in_common(arrays)
    return Call(mode, function, arrays, options)


def laid_out(rng: np.random.Generator, a: np.ndarray) -> np.ndarray:
    """The same numbers, elsewhere in memory: what is not in C's order is refused."""
    kind = rng.choice(["as it was", "read-only", "misaligned", "strides", "Fortran", "byte order"])
    if a.size == 0 or kind == "as it was":
        return a
    if kind == "read-only":
        a.flags.writeable = False
        return a
    if kind == "misaligned":
        place = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    elif kind == "strides":
        place = np.empty((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)[..., ::2]
    elif kind == "Fortran":
        return np.asfortranarray(a)
    else:
        return a.astype(a.dtype.newbyteorder())
    place[...] = a
    return place


def in_common(arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays of one type as parts of one, from its beginning."""
    names = [n for n in ("x", "w", "y", "sample_weight") if arrays.get(n) is not None]
    longest = max((arrays[n] for n in names), key=lambda a: a.size)
    if longest.size == 0:
        return arrays
    begin = longest.reshape(-1)
    shared = {
        n: begin[: arrays[n].size].reshape(arrays[n].shape)
        for n in names
        if arrays[n].dtype == begin.dtype and arrays[n].size
    }
    return arrays | shared


def _schedule(rng: np.random.Generator) -> dict[str, np.ndarray]:
    steps = int(rng.choice(STEPS) if rng.random() < 0.5 else rng.choice(STEPS[:5]))
    rate: Any = float(rng.choice(RATES))
    if rng.random() < 0.3:
        rate = np.full(max(0, min(steps, 9)) + int(rng.random() < 0.2), rate)
    count: Any = steps
    if rng.random() < 0.1:
        count = np.full([size(rng, 0) for _ in range(int(rng.integers(1, 4)))], min(steps, 5))
    return {
        "learning_rate": np.asarray(rate, np.float64),
        "num_steps": np.asarray(count, np.int64),
        "momentum": np.asarray(rng.choice([0.0, 0.0, 0.5, np.inf]), np.float64),
    }
