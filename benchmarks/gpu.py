"""The CUDA kernels against their peers on one GPU: `python benchmarks/gpu.py [--quick] [--out F]`.

Needs NumPy and PyTorch, and this package built with CUDA; JAX and TensorFlow take part where they
are installed with GPU support. Every figure is the median of interleaved repeats timed with CUDA
events, on inputs that together exceed the L2 cache several times; the device's own copy and read
bandwidths are measured in the same run. Correctness first: each result is compared with float64.
Writes JSON, and prints a short table last.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from linreg_ops import kernels

GIB = 1 << 30
Call = Callable[[], Any]


def milliseconds(calls: dict[str, Call], repeats: int) -> dict[str, float]:
    """Median time of each, taken in turns so that clocks and neighbours affect all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            call()
    for _ in range(repeats):
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(end))
    return {name: statistics.median(t) for name, t in times.items()}


def bandwidths(repeats: int) -> dict[str, float]:
    """GB/s of a device-to-device copy, bytes read plus written, and of the best plain read."""
    source = torch.randn(GIB // 4, device="cuda")
    target = torch.empty_like(source)
    reads = {
        "sum": lambda: source.sum(),
        "max": lambda: source.max(),
        "norm": lambda: torch.linalg.vector_norm(source),
    }
    times = milliseconds({"copy": lambda: target.copy_(source), **reads}, repeats)
    bytes_of_x = source.numel() * 4
    return {
        "copy": 2 * bytes_of_x / times["copy"] / 1e6,
        "read": max(bytes_of_x / times[name] for name in reads) / 1e6,
    }


def two_pass(
    x: torch.Tensor, w: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    r = x @ w - y
    return 0.5 * (r * r).sum(), x.T @ r


def jax_two_pass(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor) -> Call | None:
    """The same under XLA's jit, on the same memory."""
    if importlib.util.find_spec("jax") is None:
        return None
    import jax

    if jax.default_backend() != "gpu":
        return None
    from jax import numpy as jnp

    def step(x: Any, w: Any, y: Any) -> Any:
        r = jnp.matmul(x, w, precision="highest") - y
        return 0.5 * (r * r).sum(), jnp.matmul(x.T, r, precision="highest")

    arrays = [jnp.from_dlpack(a) for a in (x, w, y)]
    jitted = jax.jit(step)
    return lambda: jax.block_until_ready(jitted(*arrays))


def tensorflow_two_pass(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor) -> dict[str, Call]:
    if importlib.util.find_spec("tensorflow") is None:
        return {}
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return {}
    import linreg_ops as lo

    arrays = [
        tf.experimental.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(a)) for a in (x, w, y)
    ]

    def stock(x: Any, w: Any, y: Any) -> Any:
        r = tf.matmul(x, w) - y
        return tf.nn.l2_loss(r), tf.matmul(x, r, transpose_a=True)

    graph = tf.function(stock)

    def waited(call: Call) -> Call:
        return lambda: tf.nest.map_structure(lambda t: t.numpy(), call())

    return {
        "tensorflow": waited(lambda: graph(*arrays)),
        "our op": waited(lambda: lo.linear_l2_loss_and_grad(*arrays)),
    }


def relative_error(result: torch.Tensor, truth: torch.Tensor) -> float:
    return float((result.double() - truth).norm() / truth.norm())


def single_pass(n: int, d: int, k: int, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    x = torch.randn(n, d, device="cuda").to(dtype)
    w = torch.randn(d, k, device="cuda").to(dtype)
    y = torch.randn(n, k, device="cuda").to(dtype)
    calls: dict[str, Call] = {
        "ours": lambda: kernels.cuda.loss_and_grad(x, w, y),
        "pytorch": lambda: two_pass(x, w, y),
        "torch.compile": (lambda compiled: lambda: compiled(x, w, y))(torch.compile(two_pass)),
    }
    try:
        calls["torch.compile"]()
    except Exception as error:  # an image without Triton or a compiler
        print(f"torch.compile does not work here: {type(error).__name__}")
        del calls["torch.compile"]
    if jax_call := jax_two_pass(x, w, y):
        calls["jax"] = jax_call
    calls.update(tensorflow_two_pass(x, w, y))
    loss, grad = kernels.cuda.loss_and_grad(x, w, y)
    rows = min(n, 1 << 20)
    part_loss, part_grad = kernels.cuda.loss_and_grad(x[:rows], w, y[:rows])
    true_loss, true_grad = two_pass(x[:rows].double(), w.double(), y[:rows].double())
    again = kernels.cuda.loss_and_grad(x, w, y)
    assert torch.equal(again[0], loss)
    assert torch.equal(again[1], grad)
    times = milliseconds(calls, repeats)
    bytes_of_x = x.numel() * x.element_size()
    peers = [t for name, t in times.items() if name not in ("ours", "our op")]
    return {
        "n": n,
        "d": d,
        "k": k,
        "dtype": str(dtype).removeprefix("torch."),
        "ms": times,
        "gb_per_s": bytes_of_x / times["ours"] / 1e6,
        "speedup": min(peers) / times["ours"],
        "grad_error": relative_error(part_grad, true_grad),
        "loss_error": relative_error(part_loss, true_loss),
    }


def descent(n: int, d: int, steps: int, repeats: int) -> dict[str, Any]:
    """A whole training, against PyTorch eager and the same steps replayed as one CUDA graph."""
    x = torch.randn(n, d, device="cuda")
    w = torch.randn(d, 1, device="cuda")
    y = torch.randn(n, 1, device="cuda")
    rate = 0.1 / n

    def loop() -> torch.Tensor:
        now = w
        for _ in range(steps):
            now = now - rate * two_pass(x, now, y)[1]
        return now

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        loop()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loop()
    ours, _ = kernels.cuda.gradient_descent(x, w, y, rate, steps)
    times = milliseconds(
        {
            "ours": lambda: kernels.cuda.gradient_descent(x, w, y, rate, steps),
            "pytorch": loop,
            "pytorch graph": graph.replay,
        },
        repeats,
    )
    peers = [t for name, t in times.items() if name != "ours"]
    return {
        "n": n,
        "d": d,
        "steps": steps,
        "ms": times,
        "us_per_step": 1e3 * times["ours"] / steps,
        "gb_per_s": x.numel() * 4 * (steps + 1) / times["ours"] / 1e6,
        "speedup": min(peers) / times["ours"],
        "w_error": relative_error(ours, loop().double()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few sizes, about a minute")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    options = parser.parse_args()
    if not kernels.cuda.available():
        parser.exit(1, "there is no GPU that these kernels can use\n")
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    repeats = 10 if options.quick else 30
    features = [2, 16, 256, 4096] if options.quick else [1, 2, 3, 5, 8, 13, 16, 17, 31, 64, 100]
    if not options.quick:
        features += [128, 129, 256, 1000, 1024, 4096, 8192, 16_384, 40_000]
    size = GIB
    shapes = [(size // 4 // d, d, 1, torch.float32) for d in features]
    shapes += [(size // 2 // d, d, 1, torch.bfloat16) for d in (16, 256)]
    shapes += [(size // 8 // d, d, 1, torch.float64) for d in (16, 256)]
    many = [4, 16] if options.quick else [2, 3, 4, 8, 16, 32]
    shapes += [(size // 4 // d, d, k, torch.float32) for k in many for d in (16, 256)]
    loops = [(50, 2, 50), (1000, 10, 200), (20_000, 50, 50), (100_000, 60, 50), (400_000, 100, 20)]
    measured = bandwidths(repeats)
    result = {
        "gpu": torch.cuda.get_device_name(),
        "driver": subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
        ).stdout.strip(),
        "torch": torch.__version__,
        "device": kernels.cuda.device_properties(),
        "bandwidth_gb_per_s": measured,
        "single_pass": [single_pass(*shape, repeats) for shape in shapes],
        "descent": [descent(*shape, repeats) for shape in loops],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    best = max([measured["read"], *(row["gb_per_s"] for row in result["single_pass"])])
    print(f"{result['gpu']}: copy {measured['copy']:.0f}, read {measured['read']:.0f} GB/s")
    print("      n      d   k  dtype      GB/s  of best  x best peer  grad error")
    for row in result["single_pass"]:
        print(
            f"{row['n']:>9} {row['d']:>5} {row['k']:>3}  {row['dtype']:8} {row['gb_per_s']:>6.0f}"
            f"  {row['gb_per_s'] / best:7.2f}  {row['speedup']:11.2f}  {row['grad_error']:.1e}"
        )
    print("      n      d  steps  us a step  GB/s  x best peer  error of w")
    for row in result["descent"]:
        print(
            f"{row['n']:>9} {row['d']:>5}  {row['steps']:>5}  {row['us_per_step']:9.2f}"
            f" {row['gb_per_s']:>5.0f}  {row['speedup']:11.2f}  {row['w_error']:.1e}"
        )


if __name__ == "__main__":
    main()
