"""Eager ops that Ctrl-C ends.

Python runs the handlers of signals in the main thread, between two of its own instructions, and so
not while that thread is inside an op. An op that takes long runs in another thread therefore, while
the main one waits as Python code does; what a handler raises there cancels the op.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import cancellation, context, execute, record


def wanted(products: int) -> bool:
    """Whether an op of so many multiplications is long, and would keep signals waiting."""
    # 10 to 100 ms; the thread costs 0.1.
    return (
        products > 100_000_000
        and tf.executing_eagerly()
        and threading.current_thread() is threading.main_thread()
        and not context.context().is_async()  # the op does not keep this thread then
        and not context.context().op_callbacks  # they live in this thread
    )


def run(
    op_type: str, inputs: Sequence[tf.Tensor], attributes: Sequence[Any], outputs: int
) -> list[tf.Tensor]:
    """The op's results: as if it had run here, on this thread's device and under its tapes."""
    ctx = context.context()
    device, policy = ctx.device_name, ctx.device_policy
    manager = cancellation.CancellationManager()

    def call() -> list[tf.Tensor]:
        with ctx.device(device), context.device_policy(policy):
            results = execute.execute_with_cancellation(
                op_type, outputs, list(inputs), tuple(attributes), ctx, manager
            )
        return list(results)

    with ThreadPoolExecutor(1, "linreg_ops") as pool:
        try:
            running = pool.submit(call)
        except RuntimeError as error:
            message = f"no memory for a thread to run {op_type} in: {error}"
            raise tf.errors.ResourceExhaustedError(None, None, message) from None
        try:
            results = running.result()
        except BaseException:
            manager.start_cancel()  # before the pool waits for its thread
            raise
    if record.could_possibly_record():
        execute.record_gradient(op_type, list(inputs), tuple(attributes), results)
    return results
