"""Eager ops that Ctrl-C ends.

Python runs the handlers of signals in the main thread, between two of its own instructions, and so
not while that thread is inside an op. An op that takes long runs in another thread therefore, while
the main one waits as Python code does; what a handler raises there cancels the op.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import cancellation, context, execute, record


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, and what the op gave when it was cancelled."""

    def __init__(self, results: list[tf.Tensor]) -> None:
        super().__init__()
        self.results = results


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
    """The op's results: as if it had run here, on this thread's device and under its tapes.

    Raises:
        Interrupted: Ctrl-C, and the op, cancelled, has given results nevertheless: `results`.
    """
    ctx = context.context()
    device, policy = ctx.device_name, ctx.device_policy
    manager = cancellation.CancellationManager()

    def call() -> list[tf.Tensor]:
        with ctx.device(device), context.device_policy(policy):
            results = execute.execute_with_cancellation(
                op_type, outputs, list(inputs), tuple(attributes), ctx, manager
            )
        return list(results)

    running: Future[list[tf.Tensor]] | None = None
    with ThreadPoolExecutor(1, "linreg_ops") as pool:
        try:
            running = _start(pool, call, op_type)
            results = running.result()
        except BaseException as error:
            manager.start_cancel()  # before the pool waits for its thread
            if not isinstance(error, KeyboardInterrupt) or running is None or running.exception():
                raise
            raise Interrupted(running.result()) from None
    if record.could_possibly_record():
        execute.record_gradient(op_type, list(inputs), tuple(attributes), results)
    return results


def _start(
    pool: ThreadPoolExecutor, call: Callable[[], list[tf.Tensor]], op_type: str
) -> Future[list[tf.Tensor]]:
    try:
        return pool.submit(call)
    except RuntimeError as error:
        message = f"no memory for a thread to run {op_type} in: {error}"
        raise tf.errors.ResourceExhaustedError(None, None, message) from None
