"""The CUDA kernels, and the ops, against their peers on one GPU: suites as benchmarks/suites.py's.

    python -m benchmarks.gpu --out FOLDER [--suite gpu_passes] [--suite gpu_trainings] [--quick]

writes FOLDER/SUITE.json as `python -m benchmarks` does. Committed to benchmarks/results/gpu/CARD/,
the documentation shows it after `python docs/generate.py`. Needs NumPy, ml_dtypes, PyTorch and this
package built with CUDA; `gpu_ops` needs TensorFlow with the GPU, in a run of its own (both want the
memory).

A pass's time is between two events on the GPU, around four calls in a row that the host has
enqueued behind a millisecond of waiting: medians of five such samples, everyone in turn. X is
1 GiB, many times the L2 cache. A training's and an op's time is the host's, from the call to the
end of the wait. Correct first: loss and gradient of the first rows are compared with float64, and
two calls must agree in every bit.
"""

from __future__ import annotations

import argparse
import functools
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .machine import PACKAGES, commit, version
from .measure import timing
from .problem import error
from .results import GRAPH, KERNELS, Results, Row, Timing

GIB = 1 << 30
BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
Calls = dict[str, Callable[[], Any]]
# d, k, dtype, elements that X starts beyond a multiple of 16 bytes
PASSES = [
    *((d, 1, "float32", 0) for d in (1, 2, 3, 4, 5, 6, 7, 8, 13, 16, 17, 33, 64, 100, 256, 1000)),
    *((d, 1, "float32", 0) for d in (1025, 4096, 16_384, 16_388, 40_000, 40_001, 100_000)),
    *((d, k, "float32", 0) for k in (2, 4, 8, 16) for d in (5, 16, 100, 256, 1000)),
    *((d, 64, "float32", 0) for d in (100, 256)),
    *((4096, 4, "float32", 0), (16_384, 4, "float32", 0), (16_384, 2, "float32", 0)),
    *((d, 1, "bfloat16", 0) for d in (2, 5, 16, 64, 256, 1000, 16_384, 40_000)),
    *((d, 1, "float16", 0) for d in (16, 256)),
    *((d, 1, "float64", 0) for d in (1, 16, 256, 4096, 16_384)),
    *((256, k, "bfloat16", 0) for k in (4, 8, 16)),
    *((d, k, "float32", 0) for k in (8, 16) for d in (48, 64, 512)),
    *((d, k, "bfloat16", 0) for k in (8, 16) for d in (16, 32, 64, 1000)),
    *((d, k, "float16", 0) for k in (8, 16) for d in (16, 64, 256, 512)),
    *((d, 1, "float32", 1) for d in (16, 100)),
]
QUICK_PASSES = [(d, k, "float32", 0) for d in (2, 16, 256, 4096) for k in (1, 4)]
TRAININGS = [(50, 2, 50), (1000, 10, 200), (20_000, 50, 50), (100_000, 60, 50), (400_000, 100, 20)]
OPS = [
    *((d, 1, "float32") for d in (16, 256, 1000, 40_000)),
    *((256, k, "float32") for k in (4, 8, 16, 17, 32, 64)),
    *((1000, k, "float32") for k in (8, 16, 64)),
    (100, 16, "float32"),
    *((256, k, "bfloat16") for k in (1, 4, 8, 16, 64)),
]


def on_gpu(calls: Calls, at_once: int = 4, samples: int = 5) -> dict[str, Timing]:
    """Seconds of a call between two events."""
    import torch

    for call in calls.values():
        for _ in range(2):
            call()
    torch.cuda.synchronize()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(samples):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(1_000_000)  # cycles: until all calls are enqueued
            begin.record()
            results = [call() for _ in range(at_once)]
            end.record()
            torch.cuda.synchronize()
            del results
            times[name].append(1e-3 * begin.elapsed_time(end) / at_once)
    return {name: timing(t) for name, t in times.items()}


def on_host(call: Callable[[], Any], wait: Callable[[Any], None], at_once: int = 1) -> Timing:
    """Seconds of a call, from the host's side."""
    wait(call())
    times = []
    for _ in range(20 if at_once == 1 else 5):
        start = time.perf_counter()
        for _ in range(at_once):
            result = call()
        wait(result)
        times.append((time.perf_counter() - start) / at_once)
    return timing(times)


def row(case: dict[str, Any], times: dict[str, Timing], **rest: Any) -> Row:
    """`bytes` are X's and y's, each once; none of the suites has sample weights."""
    n, d, k = (case[size] for size in "ndk")
    size = BYTES[case["dtype"]]
    return Row(
        case=case,
        bytes=n * (d + k) * size,
        x_bytes=n * d * size,
        read_bytes=GIB,
        flops=4.0 * n * d * k,
        times=times,
        **rest,
    )


def two_products(x: Any, w: Any, y: Any) -> tuple[Any, Any]:
    r = x @ w - y
    return 0.5 * (r * r).sum(), x.T @ r


def with_tf32(x: Any, w: Any, y: Any) -> tuple[Any, Any]:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    result = two_products(x, w, y)
    torch.backends.cuda.matmul.allow_tf32 = False
    return result


READ = """
extern "C" __global__ void read(const uint4* from, int count, unsigned* out) {
  const int step = gridDim.x * blockDim.x;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned sum = 0;
  for (; i + 3 * step < count; i += 4 * step) {
    uint4 v[4];
    for (int u = 0; u < 4; ++u) v[u] = from[i + u * step];
    for (int u = 0; u < 4; ++u) sum ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
  }
  if (sum == 12345u) *out = sum;
}
"""


def reading() -> dict[str, Callable[[], Any]]:
    """Reads of 1 GiB: the best is the yardstick. PyTorch's, and loads of 16 bytes, four in flight,
    by two blocks of 1024 threads on each multiprocessor."""
    import torch

    source = torch.randn(GIB // 4, device="cuda")
    out = torch.zeros(1, device="cuda", dtype=torch.int32)
    blocks = 2 * torch.cuda.get_device_properties(0).multi_processor_count
    read = torch.cuda._compile_kernel(READ, "read")
    return {
        "read by sum": source.sum,
        "read by max": source.max,
        "read by 16 bytes": lambda: read(
            (blocks, 1, 1), (1024, 1, 1), (source, source.nbytes // 16, out)
        ),
    }


def measure_pass(reads: dict[str, Timing], d: int, k: int, dtype: str, shift: int) -> Row:
    import torch

    from linreg_ops import kernels

    kind = getattr(torch, dtype)
    n = GIB // kind.itemsize // d
    drawn = torch.float64 if dtype == "float64" else torch.float32
    x = torch.randn(n * d + shift, device="cuda", dtype=drawn).to(kind)[shift:].view(n, d)
    columns = [] if k == 1 else [k]
    w, y = (torch.randn(m, *columns, device="cuda").to(kind) for m in (d, n))
    calls: Calls = {
        KERNELS: lambda: kernels.cuda.loss_and_grad(x, w, y),
        "PyTorch": lambda: two_products(x, w, y),
    }
    if dtype == "float32" and k > 1:
        calls["PyTorch TF32"] = lambda: with_tf32(x, w, y)
    first, again = calls[KERNELS](), calls[KERNELS]()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "other bits"
    rows = min(n, max(1000, (1 << 24) // d))
    part = x[:rows], w, y[:rows]
    true = host(two_products(*(a.double() for a in part)))
    errors = {
        KERNELS: error(host(kernels.cuda.loss_and_grad(*part)), true),
        "PyTorch": error(host(two_products(*part)), true),
    }
    case = {"n": n, "d": d, "k": k, "dtype": dtype, "unaligned": shift != 0}
    case["route"] = kernels.cuda.plan(n, d, k, dtype).route
    return row(case, {**on_gpu(calls), **reads}, errors=errors)


def host(results: tuple[Any, Any]) -> tuple[Any, Any]:
    """In float64, on the host."""
    loss, grad = (a.double().cpu().numpy() for a in results)
    return loss, grad


def measure_training(n: int, d: int, steps: int) -> Row:
    """Against PyTorch, and the same steps replayed as one CUDA graph."""
    import torch

    from linreg_ops import kernels

    x, w, y = (torch.randn(*shape, device="cuda") for shape in ((n, d), (d, 1), (n, 1)))
    rate = 0.1 / n

    def loop() -> torch.Tensor:
        now = w
        for _ in range(steps):
            now = now - rate * two_products(x, now, y)[1]
        return now

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        loop()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loop()
    calls: Calls = {
        KERNELS: lambda: kernels.cuda.gradient_descent(x, w, y, rate, steps),
        "PyTorch graph": graph.replay,
    }
    a_step = {name: t.median / steps for name, t in on_gpu(calls, at_once=2).items()}
    wall = {
        name: on_host(call, lambda _: torch.cuda.synchronize())
        for name, call in {**calls, "PyTorch": loop}.items()
    }
    case = {"n": n, "d": d, "k": 1, "dtype": "float32", "steps": steps}
    return row(case, wall, extra={"step_on_gpu": a_step})


def measure_op(d: int, k: int, dtype: str) -> Row:
    """In a tf.function each, with TensorFlow's default arithmetic and without TF32."""
    import tensorflow as tf

    import linreg_ops as lo

    kind = tf.as_dtype(dtype)
    n = GIB // d // kind.size
    with tf.device("GPU:0"):
        x, w, y = (tf.cast(tf.random.normal(shape), kind) for shape in ((n, d), (d, k), (n, k)))

    def composite(x: Any, w: Any, y: Any) -> Any:
        r = tf.matmul(x, w) - y
        return tf.nn.l2_loss(r), tf.matmul(x, r, transpose_a=True)

    part = x[:20_000], w, y[:20_000]
    true = two_products(*(tf.cast(a, tf.float64).numpy() for a in part))
    times, errors = {}, {}
    for tf32 in (True, False) if dtype == "float32" and k > 4 else (True,):
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        functions = ((GRAPH, lo.linear_l2_loss_and_grad), ("TensorFlow tf.function", composite))
        for name, function in functions:
            label = name if tf32 else f"{name} without TF32"
            # One for each precision: a traced function keeps its own.
            call = tf.function(lambda *a, function=function: tuple(function(*a)))
            errors[label] = error(tuple(tf.cast(a, tf.float64).numpy() for a in call(*part)), true)
            once = functools.partial(call, x, w, y)
            times[label] = on_host(once, lambda result: result[1].numpy(), at_once=8)
    return row({"n": n, "d": d, "k": k, "dtype": dtype}, times, errors=errors)


def passes(quick: bool) -> Iterator[Row]:
    """One loss and gradient by `kernels.cuda`, X of 1 GiB, beside the best read of as much."""
    reads = on_gpu(reading())
    yield from measured(lambda *case: measure_pass(reads, *case), QUICK_PASSES if quick else PASSES)


def trainings(quick: bool) -> Iterator[Row]:
    """Gradient descents, float32."""
    yield from measured(measure_training, TRAININGS[:2] if quick else TRAININGS)


def ops(quick: bool) -> Iterator[Row]:
    """The TensorFlow op against the two products, each in a tf.function, X of 1 GiB."""
    yield from measured(measure_op, OPS[:3] if quick else OPS)


SUITES: dict[str, Callable[[bool], Iterator[Row]]] = {
    "gpu_passes": passes,
    "gpu_trainings": trainings,
    "gpu_ops": ops,
}


def measured(measure: Callable[..., Row], cases: Sequence[Any]) -> Iterator[Row]:
    """Row by row; a case that fails says why, and the others go on."""
    for case in cases:
        try:
            yield measure(*case)
        except Exception as problem:
            print(f"{case}: {problem!r}", file=sys.stderr, flush=True)
        gc.collect()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()


def describe() -> dict[str, Any]:
    """What the figures depend on: the card, its driver, the commit and the code that ran."""
    from linreg_ops import kernels

    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    card, driver = subprocess.check_output(query, text=True).splitlines()[0].split(", ")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        **commit(),
        "gpu": card,
        "driver": driver,
        "properties": kernels.cuda.device_properties(),
        "versions": {name: v for name in PACKAGES if (v := version(name))},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--suite", action="append", choices=SUITES, help="only these suites")
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument("--quick", action="store_true", help="a minute; not for the documentation")
    options = parser.parse_args()
    from linreg_ops import kernels

    try:
        kernels.cuda.device_properties()
    except RuntimeError as problem:
        parser.exit(3, f"there is no GPU that these kernels can use: {problem}\n")
    run = describe()
    for suite in options.suite or ("gpu_passes", "gpu_trainings"):
        start, rows = time.monotonic(), []
        mode = "quick" if options.quick else "full"
        for found in SUITES[suite](options.quick):
            rows.append(found)
            print(found.label, {n: f"{t.median:.3g} s" for n, t in found.times.items()}, flush=True)
            # After each row: a run that is cut short leaves what it has.
            seconds = {"seconds": round(time.monotonic() - start)}
            Results(suite, mode, run | seconds, rows).save(options.out)


if __name__ == "__main__":
    main()
