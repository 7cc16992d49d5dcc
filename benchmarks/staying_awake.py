"""What a worker that stays awake after a pass gives its caller, and what it costs others.

`python -m benchmarks.staying_awake` runs the same mixed work in fresh processes, with
LINREG_OPS_STAY_AWAKE=1 and =0 in turn, and prints the medians and their ratio. Each row is what a
user would see: the passes alone, another op between them, another process on the same processors,
and more threads than processors.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

ROUNDS = 3
SECONDS = 0.3


def median_time(call: Callable[[], Any]) -> float:
    """The time of a call, in microseconds, over SECONDS."""
    for _ in range(20):
        call()
    samples, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples) * 1e6


def count(counter: Any, begun: Any, stop: Any) -> None:
    """Another process's work: how far it counts, with the processors it gets."""
    done = 0
    begun.wait()
    while not stop.is_set():
        for _ in range(1000):
            done += 1
    counter.value = done


def beside_another_process(call: Callable[[], Any]) -> tuple[float, float]:
    """The call's time while a process a processor counts, and what each counts in a millisecond."""
    context = multiprocessing.get_context("spawn")
    stop, counters = context.Event(), [context.Value("q") for _ in os.sched_getaffinity(0)]
    begun = context.Barrier(len(counters) + 1)
    others = [context.Process(target=count, args=(c, begun, stop)) for c in counters]
    for other in others:
        other.start()
    begun.wait()
    start = time.perf_counter()
    own = median_time(call)
    elapsed = time.perf_counter() - start
    stop.set()
    for other in others:
        other.join()
    return own, sum(c.value for c in counters) / len(counters) / elapsed / 1e3


def measure() -> dict[str, float]:
    """Everything, in this process."""
    import numpy as np
    import tensorflow as tf

    import linreg_ops as lo
    from linreg_ops import kernels

    result = {}
    for name, n in (("0.4 MB", 1000), ("1.3 MB", 3250), ("13 MB", 32_500)):
        x, w, y = (np.ones(shape, np.float32) for shape in ((n, 100), 100, n))
        tensors = [tf.constant(a) for a in (x, w, y)]
        square = tf.ones([200, 200])

        def eager(tensors: list[tf.Tensor] = tensors) -> Any:
            return lo.linear_l2_loss_and_grad(*tensors)

        def mixed(call: Callable[[], Any] = eager, square: tf.Tensor = square) -> Any:
            call()
            return tf.matmul(square, square)

        def raw(threads: int, x: Any = x, w: Any = w, y: Any = y) -> Any:
            return kernels.loss_and_grad(x, w, y, num_threads=threads)

        result[f"{name}: eager op (us)"] = median_time(eager)
        result[f"{name}: eager op, then a matmul of 200 (us)"] = median_time(mixed)
        result[f"{name}: raw kernel (us)"] = median_time(partial(raw, len(os.sched_getaffinity(0))))
        result[f"{name}: raw kernel, 8 threads (us)"] = median_time(partial(raw, 8))
        if n == 3250:
            own, others = beside_another_process(eager)
            result[f"{name}: eager op beside busy processes (us)"] = own
            result[f"{name}: ... what each of them counts (thousands a ms)"] = others
    return result


def main() -> None:
    found: dict[str, list[dict[str, float]]] = {"1": [], "0": []}
    for _ in range(ROUNDS):
        for value, results in found.items():
            environment = os.environ | {"LINREG_OPS_STAY_AWAKE": value, "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.staying_awake", "once"],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            results.append(json.loads(done.stdout))
    print(f"{'':58} {'awake':>9} {'asleep':>9} {'ratio':>6}")
    for row in found["1"][0]:
        awake, asleep = (statistics.median(r[row] for r in found[v]) for v in ("1", "0"))
        print(f"{row:58} {awake:9.1f} {asleep:9.1f} {asleep / awake:6.2f}")


if __name__ == "__main__":
    if sys.argv[1:] == ["once"]:
        print(json.dumps(measure()))
    else:
        main()
