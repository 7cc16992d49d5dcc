"""The CUDA kernels against their peers on one GPU: `python benchmarks/gpu.py [--quick] [--out F]`.

Needs NumPy and PyTorch, and this package built with CUDA; JAX and TensorFlow take part where they
are installed with GPU support. Every figure is the median of interleaved repeats on the host's
clock: single passes several at a time, so that the host enqueues one while the GPU works on another
(20 µs of a call's own would be a tenth of such a pass), whole trainings one at a time, from the
call to the end of the wait. The passes' inputs exceed the L2 cache several times; the device's own
copy and read bandwidths are measured in the same run. Correctness first: each result is compared
with float64. Prints each row and adds it to the JSON at once; a row that fails says why.
"""

import argparse
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Else JAX and TensorFlow take most of the GPU's memory when they start.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import torch

from linreg_ops import kernels

GIB = 1 << 30
PASSES = 8  # of a sample
Call = Callable[[], Any]  # may return something with a method that waits for it


def wait(result: Any) -> None:
    """For everything on the GPU; JAX may not even have enqueued its work yet."""
    if hasattr(result, "block_until_ready"):
        result.block_until_ready()
    torch.cuda.synchronize()


def milliseconds(calls: dict[str, Call], repeats: int, at_once: int) -> dict[str, float]:
    """Median time of a call, taken in turns so that clocks and neighbours affect all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            wait(call())
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(at_once):
                result = call()
            wait(result)
            times[name].append((time.perf_counter() - start) / at_once)
            del result
    return {name: 1e3 * statistics.median(t) for name, t in times.items()}


def bandwidths(repeats: int) -> dict[str, float]:
    """GB/s of a device-to-device copy, bytes read plus written, and of the best plain read."""
    source = torch.randn(GIB // 4, device="cuda")
    target = torch.empty_like(source)
    reads = {
        "sum": lambda: source.sum(),
        "max": lambda: source.max(),
        "norm": lambda: torch.linalg.vector_norm(source),
    }
    times = milliseconds({"copy": lambda: target.copy_(source), **reads}, repeats, PASSES)
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
    jax.config.update("jax_enable_x64", True)  # else float64 becomes float32
    from jax import numpy as jnp

    def step(x: Any, w: Any, y: Any) -> Any:
        r = jnp.matmul(x, w, precision="highest") - y
        return 0.5 * (r * r).sum(), jnp.matmul(x.T, r, precision="highest")

    arrays = [jnp.from_dlpack(a) for a in (x, w, y)]
    jitted = jax.jit(step)
    return lambda: jitted(*arrays)[1]


def tensorflow_two_pass(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor) -> dict[str, Call]:
    if importlib.util.find_spec("tensorflow") is None:
        return {}
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return {}
    import linreg_ops as lo

    tf.config.experimental.enable_tensor_float_32_execution(False)  # as for the others

    arrays = [
        tf.experimental.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(a)) for a in (x, w, y)
    ]

    def stock(x: Any, w: Any, y: Any) -> Any:
        r = tf.matmul(x, w) - y
        return tf.nn.l2_loss(r), tf.matmul(x, r, transpose_a=True)

    graph = tf.function(stock)
    return {
        "tensorflow": lambda: graph(*arrays),
        "our op": lambda: lo.linear_l2_loss_and_grad(*arrays),
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
    }
    # After eight shapes of one function PyTorch would go on without compiling, and say nothing.
    torch.compiler.reset()
    compiled = torch.compile(two_pass, dynamic=False)
    try:
        compiled(x, w, y)
        calls["torch.compile"] = lambda: compiled(x, w, y)
    except Exception as error:  # an image without Triton or a compiler
        print(f"torch.compile does not work here: {type(error).__name__}", flush=True)
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
    times = milliseconds(calls, repeats, PASSES)
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
        at_once=1,
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


def rows(measure: Callable[..., dict[str, Any]], shapes: Sequence[Any], repeats: int) -> Any:
    """Of each shape, or what went wrong: the others' figures are worth having without it."""
    for shape in shapes:
        try:
            yield measure(*shape, repeats)
        except Exception as error:
            yield {"shape": [str(size) for size in shape], "error": f"{error!r}"}
        # The next inputs need this memory, in whichever library's allocator.
        gc.collect()
        torch.cuda.empty_cache()


def describe(row: dict[str, Any], best: float) -> str:
    if "error" in row:
        return f"{', '.join(row['shape'])}: {row['error']}"
    sizes = f"n={row['n']} d={row['d']} "
    speed = f"{row['gb_per_s']:.0f} GB/s, {row['speedup']:.2f} x the best peer"
    times = ", ".join(f"{name} {1e3 * ms:.1f}" for name, ms in row["ms"].items())
    if "steps" in row:
        sizes += f"{row['steps']} steps: {row['us_per_step']:.2f} us a step, {speed}, "
        return f"{sizes}error of w {row['w_error']:.1e}; us: {times}"
    sizes += f"k={row['k']} {row['dtype']}: {row['gb_per_s'] / best:.2f} of the read, {speed}, "
    return f"{sizes}error of the gradient {row['grad_error']:.1e}; us: {times}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few sizes, some minutes")
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
    tables: dict[str, list[dict[str, Any]]] = {"descent": [], "single_pass": []}
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
        **tables,
    }
    print(
        f"{result['gpu']}: copy {measured['copy']:.0f}, read {measured['read']:.0f} GB/s",
        flush=True,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name, measure, sizes in (("descent", descent, loops), ("single_pass", single_pass, shapes)):
        for row in rows(measure, sizes, repeats):
            tables[name].append(row)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
            print(describe(row, measured["read"]), flush=True)


if __name__ == "__main__":
    main()
