"""The CUDA kernels, and the ops, against their peers on one GPU: writes what gpu_tables.py shows.

    python -m benchmarks.gpu --out benchmarks/results/gpu/NAME.json [passes] [trainings] [ops]

Needs NumPy, PyTorch and this package built with CUDA; `ops` needs TensorFlow with the GPU, in a run
of its own (both want the memory). Each part that is asked for replaces that part of the file.

A pass's time is between two events on the GPU, around four calls in a row that the host has
enqueued behind a millisecond of waiting: medians of five such samples, everyone in turn. X is
1 GiB, many times the L2 cache. A training's and an op's time is the host's, from the call to the
end of the wait. Correct first: the gradient of the first rows is compared with float64, and two
calls must agree in every bit.
"""

import argparse
import datetime
import functools
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

GIB = 1 << 30
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
    *((d, 1, "float32", 1) for d in (16, 100)),
]
TRAININGS = [(50, 2, 50), (1000, 10, 200), (20_000, 50, 50), (100_000, 60, 50), (400_000, 100, 20)]
OPS = [
    *((d, 1, "float32") for d in (16, 256, 1000, 40_000)),
    *((256, k, "float32") for k in (4, 8, 16, 17, 32, 64)),
    *((1000, k, "float32") for k in (8, 16, 64)),
    (100, 16, "float32"),
    *((256, k, "bfloat16") for k in (1, 4, 8, 16, 64)),
]


def on_gpu(calls: Calls, at_once: int = 4, samples: int = 5) -> dict[str, float]:
    """Median microseconds of a call between two events."""
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
            times[name].append(1e3 * begin.elapsed_time(end) / at_once)
    return {name: round(statistics.median(t), 2) for name, t in times.items()}


def on_host(call: Callable[[], Any], wait: Callable[[Any], None], at_once: int = 1) -> float:
    """Median microseconds of a call, from the host's side."""
    wait(call())
    times = []
    for _ in range(20 if at_once == 1 else 5):
        start = time.perf_counter()
        for _ in range(at_once):
            result = call()
        wait(result)
        times.append((time.perf_counter() - start) / at_once)
    return round(1e6 * statistics.median(times), 1)


def relative_error(got: Any, true: Any) -> float | None:
    """None where the sum overflows the type."""
    error = float(np.linalg.norm(got - true) / np.linalg.norm(true))
    return float(f"{error:.2g}") if np.isfinite(error) else None


def two_products(x: Any, w: Any, y: Any) -> tuple[Any, Any]:
    r = x @ w - y
    return 0.5 * (r * r).sum(), x.T @ r


def with_tf32(x: Any, w: Any, y: Any) -> tuple[Any, Any]:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    result = two_products(x, w, y)
    torch.backends.cuda.matmul.allow_tf32 = False
    return result


def measure_pass(d: int, k: int, dtype: str, shift: int) -> dict[str, Any]:
    import torch

    from linreg_ops import kernels

    kind = getattr(torch, dtype)
    n = GIB // kind.itemsize // d
    drawn = torch.float64 if dtype == "float64" else torch.float32
    x = torch.randn(n * d + shift, device="cuda", dtype=drawn).to(kind)[shift:].view(n, d)
    columns = [] if k == 1 else [k]
    w, y = (torch.randn(m, *columns, device="cuda").to(kind) for m in (d, n))
    calls: Calls = {
        "ours": lambda: kernels.cuda.loss_and_grad(x, w, y),
        "PyTorch": lambda: two_products(x, w, y),
    }
    if dtype == "float32" and k > 1:
        calls["PyTorch TF32"] = lambda: with_tf32(x, w, y)
    first, again = calls["ours"](), calls["ours"]()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "other bits"
    rows = min(n, max(1000, (1 << 24) // d))
    part = x[:rows], w, y[:rows]
    true = two_products(*(a.double() for a in part))[1].cpu().numpy()
    errors = {
        "ours": relative_error(kernels.cuda.loss_and_grad(*part)[1].double().cpu().numpy(), true),
        "PyTorch": relative_error(two_products(*part)[1].double().cpu().numpy(), true),
    }
    row = {"n": n, "d": d, "k": k, "dtype": dtype, "aligned": shift == 0}
    return {**row, "us": on_gpu(calls), "gradient_error": errors}


def measure_training(n: int, d: int, steps: int) -> dict[str, Any]:
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
        "ours": lambda: kernels.cuda.gradient_descent(x, w, y, rate, steps),
        "PyTorch graph": graph.replay,
    }
    a_step = {name: round(us / steps, 3) for name, us in on_gpu(calls, at_once=2).items()}
    wall = {
        name: on_host(call, lambda _: torch.cuda.synchronize())
        for name, call in {**calls, "PyTorch": loop}.items()
    }
    return {"n": n, "d": d, "steps": steps, "us_per_step": a_step, "us": wall}


def measure_op(d: int, k: int, dtype: str) -> dict[str, Any]:
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
    true = two_products(*(tf.cast(a, tf.float64).numpy() for a in part))[1]
    row: dict[str, Any] = {"n": n, "d": d, "k": k, "dtype": dtype, "us": {}, "gradient_error": {}}
    for tf32 in (True, False) if dtype == "float32" and k > 4 else (True,):
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        for name, function in (("ours", lo.linear_l2_loss_and_grad), ("TensorFlow", composite)):
            label = name if tf32 else f"{name} without TF32"
            # One for each precision: a traced function keeps its own.
            call = tf.function(lambda *a, function=function: tuple(function(*a)))
            got = tf.cast(call(*part)[1], tf.float64).numpy()
            row["gradient_error"][label] = relative_error(got, true)
            row["us"][label] = on_host(
                functools.partial(call, x, w, y), lambda result: result[1].numpy(), at_once=8
            )
    return row


def bandwidths() -> dict[str, Any]:
    """GB/s of a copy, bytes read plus written, and of the best of PyTorch's reads."""
    import torch

    source = torch.randn(GIB // 4, device="cuda")
    target = torch.empty_like(source)
    reads: Calls = {
        "sum": source.sum,
        "max": source.max,
        "norm": lambda: torch.linalg.vector_norm(source),
    }
    us = on_gpu({"copy": lambda: target.copy_(source), **reads})
    best = min(reads, key=us.__getitem__)
    return {
        "copy_gb_s": round(2 * GIB / us["copy"] / 1e3),
        "read_gb_s": round(GIB / us[best] / 1e3),
        "read": f"PyTorch's {best}",
    }


def measured(measure: Callable[..., dict[str, Any]], cases: list[Any]) -> Iterator[dict[str, Any]]:
    """Row by row; a case that fails says why, and the others go on."""
    for case in cases:
        try:
            row = measure(*case)
        except Exception as error:
            print(f"{case}: {error!r}", file=sys.stderr, flush=True)
            continue
        print({key: row[key] for key in row if key != "gradient_error"}, flush=True)
        yield row
        gc.collect()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="passes | trainings | ops")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    parts = options.parts or ["passes", "trainings"]
    if not set(parts) <= {"passes", "trainings", "ops"}:
        parser.error(f"parts are passes, trainings and ops, got {' '.join(parts)}")
    from linreg_ops import kernels

    if not kernels.cuda.available():
        parser.exit(1, "there is no GPU that these kernels can use\n")
    result = json.loads(options.out.read_text()) if options.out.exists() else {}
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    name, driver = subprocess.check_output(query, text=True).splitlines()[0].split(", ")
    result |= {"gpu": name, "driver": driver, "date": datetime.date.today().isoformat()}
    if {"passes", "trainings"} & set(parts):
        import torch

        torch.manual_seed(1)
        result |= {"pytorch": torch.__version__, **bandwidths()}
    if "ops" in parts:
        import tensorflow as tf

        result["tensorflow"] = tf.__version__
    work: dict[str, tuple[Callable[..., dict[str, Any]], list[Any]]] = {
        "passes": (measure_pass, PASSES),
        "trainings": (measure_training, TRAININGS),
        "ops": (measure_op, OPS),
    }
    for part in parts:
        result[part] = []
        for row in measured(*work[part]):
            result[part].append(row)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
