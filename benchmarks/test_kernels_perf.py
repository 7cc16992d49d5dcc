"""Times of the raw kernels, one entry a variant: `pytest benchmarks`, never plain `pytest`."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from linreg_ops import kernels

ISAS = [name for name, supported in kernels.isas().items() if supported]
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
# X of 64 MiB (beyond the caches) at both ends of d, then many targets, a cached and a tiny problem.
SHAPES = [(2, 1), (256, 1), (256, 8), (256, 64)]
SMALL = [(50, 2, 1), (1000, 32, 1)]
LARGE = 64 << 20

pytestmark = pytest.mark.benchmark


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_large(benchmark: Any, isa: str, dtype: Any, d: int, k: int) -> None:
    n = min(LARGE // (np.dtype(dtype).itemsize * d), (1 << 30) // (d * k))
    _run(benchmark, isa, dtype, n, d, k)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize(("n", "d", "k"), SMALL)
def test_small(benchmark: Any, isa: str, dtype: Any, n: int, d: int, k: int) -> None:
    _run(benchmark, isa, dtype, n, d, k)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("n", "d", "steps"), [(50, 2, 50), (1000, 10, 200), (20_000, 50, 50)])
def test_descent(benchmark: Any, isa: str, n: int, d: int, steps: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, d), np.float32), rng.standard_normal(n, np.float32)
    benchmark(kernels.gradient_descent, x, np.zeros(d, np.float32), y, 0.5 / n, steps, isa=isa)


def _run(benchmark: Any, isa: str, dtype: Any, n: int, d: int, k: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d), np.float32).astype(dtype)
    y = rng.standard_normal((n, k), np.float32).astype(dtype)
    w = np.zeros((d, k), dtype)
    benchmark.extra_info["bytes"] = x.nbytes + y.nbytes
    benchmark(kernels.loss_and_grad, x, w, y, isa=isa)
