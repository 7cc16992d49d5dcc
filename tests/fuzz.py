"""Calls everything with what nobody would pass: `python tests/fuzz.py --calls N --seed S`.

Sizes are 0, small or huge, ranks 0 to 5, element types any; numbers may be infinite, NaN, subnormal
or have products that overflow. Arrays of kernels and of an estimator may have strides, another byte
order or memory in common. Those of ops are eager, or inside a tf.function of known shape or unknown
rank, or constants whose shape is known only once they are folded, or fed to a v1 session, or given
to a SavedModel that was loaded. A call must give the right answer (`fuzz_truth.py`) or raise one of
`refusals`.

Calls run in child processes with a limit on memory. The parent notices a child that dies or takes
too long over one call, reports the call, and goes on with a new child behind it. Call i of a seed
is always the same: `--seed S --first i --calls 1` repeats it.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from fuzz_draw import Call, draw
from fuzz_truth import wrong

MEMORY = 6 << 30

Function = Callable[..., Any]


def functions() -> dict[str, Function]:
    """What is called, by name: arguments by name, results as a flat list."""
    import tensorflow as tf

    import linreg_ops as lo
    from linreg_ops.ops import _ops

    def gradients(x: Any, w: Any, y: Any, sample_weight: Any = None, **options: Any) -> list[Any]:
        inputs = [tf.convert_to_tensor(a) for a in (x, w, y)]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = lo.linear_l2_loss(*inputs, sample_weight=sample_weight, **options)
        return [loss, *tape.gradient(loss, inputs)]

    def raw(op: Function, *names: str) -> Function:
        def call(sample_weight: Any = None, **arguments: Any) -> list[Any]:
            weights = [] if sample_weight is None else [sample_weight]
            positional = [arguments.pop(name) for name in names]
            result = op(*positional, weights, **arguments)
            return list(result) if isinstance(result, tuple) else [result]

        return call

    def descent(**arguments: Any) -> list[Any]:
        return list(lo.gradient_descent(**arguments))

    return {
        "gram": lambda x, y, sample_weight=None, **rest: list(
            lo.gram(x, y, sample_weight=sample_weight)
        ),
        "loss": lambda **a: [lo.linear_l2_loss(**a)],
        "loss_and_grad": lambda **a: list(lo.linear_l2_loss_and_grad(**a)),
        "descent": descent,
        "gradients": gradients,
        "raw_loss_grad": raw(_ops.linreg_l2_loss_grad, "x", "w", "y"),
        "raw_product": raw(_product(_ops), "x", "w", "y"),
        "raw_saved": raw(_ops.linreg_saved_gradient, "x", "grad", "w", "y"),
        "raw_descent": raw(
            _ops.linreg_gradient_descent, "x", "w", "y", "learning_rate", "num_steps", "momentum"
        ),
    }


def _product(ops: Any) -> Function:
    return lambda x, w, y, s, **options: ops.linreg_hessian_vector_product(x, w, s, **options)


def kernel_functions() -> dict[str, Function]:
    from linreg_ops import kernels

    def descent(**arguments: Any) -> list[Any]:
        for name, kind in (("num_steps", int), ("momentum", float)):
            if arguments[name].ndim == 0:
                arguments[name] = kind(arguments[name])
        return list(kernels.gradient_descent(**arguments))

    return {
        "loss_and_grad": lambda **a: list(kernels.loss_and_grad(**a)),
        "descent": descent,
        "gram": lambda x, y, sample_weight=None, **rest: list(
            kernels.gram(x, y, sample_weight=sample_weight)[:6]
        ),
    }


def fit(
    x: Any, y: Any, sample_weight: Any = None, *, intercept: bool, solver: str, **rest: Any
) -> list[Any]:
    """Coefficients; a warning that they are not the least squares is as good as a refusal."""
    from sklearn.exceptions import ConvergenceWarning

    import linreg_ops as lo

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ConvergenceWarning)
        model = lo.LinearRegression(fit_intercept=intercept, solver=solver)
        model.fit(x, y, sample_weight)
    return [model.coef_, model.intercept_]


def run(call: Call, known: dict[str, dict[str, Function]]) -> list[Any]:
    if call.function == "fit":
        return fit(**call.arrays, **call.options)
    if call.mode == "kernels":
        return known["kernels"][call.function](**call.arrays, **call.options)
    import tensorflow as tf

    function = known["ops"][call.function]
    if call.mode == "eager":
        arguments = {name: tf.constant(a) for name, a in call.arrays.items()}
        return function(**arguments, **call.options)
    if call.mode == "folded":
        encoded = {
            name: (tf.io.serialize_tensor(tf.constant(a)), a.dtype)
            for name, a in call.arrays.items()
        }

        def decode() -> dict[str, Any]:
            return {
                name: tf.io.parse_tensor(tf.constant(text.numpy()), tf.as_dtype(dtype))
                for name, (text, dtype) in encoded.items()
            }

        return tf.function(lambda: function(**decode(), **call.options), autograph=False)()
    if call.mode == "fed":
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            places = {n: tf.compat.v1.placeholder(a.dtype) for n, a in call.arrays.items()}
            results = function(**places, **call.options)
            return list(session.run(results, {places[n]: a for n, a in call.arrays.items()}))
    names = list(call.arrays)
    tensors = [tf.constant(a) for a in call.arrays.values()]
    shapes = [None if call.mode == "unknown" else t.shape for t in tensors]
    traced = tf.function(
        lambda *a: function(**dict(zip(names, a, strict=True)), **call.options),
        autograph=False,
        jit_compile=call.mode == "jit",
        input_signature=[
            tf.TensorSpec(shape, t.dtype) for shape, t in zip(shapes, tensors, strict=True)
        ],
    )
    if call.mode != "saved":
        return traced(*tensors)
    module = tf.Module()
    module.traced = traced
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder)
        return tf.saved_model.load(folder).traced(*tensors)


def refusals(modes: dict[str, float]) -> tuple[type[BaseException], ...]:
    refused: tuple[type[BaseException], ...] = (ValueError, TypeError, MemoryError)
    if "estimator" in modes:
        from sklearn.exceptions import ConvergenceWarning

        refused += (ConvergenceWarning,)
    if not modes.keys() <= {"kernels", "estimator"}:
        import tensorflow as tf

        refused += (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError)
    return refused


# ---------------------------------------------------------------------------------- child, parent


def child(arguments: argparse.Namespace, modes: dict[str, float], report: Any) -> None:
    known = {"kernels": kernel_functions()}
    if not modes.keys() <= {"kernels", "estimator"}:
        known["ops"] = functions()
    refused = refusals(modes)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    np.seterr(all="ignore")
    for i in range(arguments.first, arguments.first + arguments.calls):
        call = draw(np.random.default_rng([arguments.seed, i]), modes)
        report(f"call {i} {call}")
        try:
            results = run(call, known)
            fault = wrong(call, results)
            outcome = f"answered {call.mode}" if fault is None else f"fault {fault}"
        except refused as error:
            outcome = f"refused {type(error).__name__}"
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            outcome = f"fault {type(error).__name__}: {text}"
        report(outcome)


def lines(process: subprocess.Popen[bytes], limit: float, start: float) -> Iterator[str]:
    """What a child reports, until its end or until it says nothing for `limit` seconds."""
    pipe = process.stdout
    assert pipe is not None
    buffer, patience = b"", start
    while select.select([pipe], [], [], patience)[0]:
        data = os.read(pipe.fileno(), 1 << 16)
        if not data:
            return
        patience = limit
        *whole, buffer = (buffer + data).split(b"\n")
        yield from (line.decode() for line in whole)
    yield f"fault no answer for {patience:.0f} s"
    process.kill()


def fuzz(
    calls: int,
    seed: int,
    modes: str,
    *,
    first: int = 0,
    limit: float = 20,
    seconds: float = float("inf"),
) -> tuple[Counter[str], list[str]]:
    """How often each outcome was seen, and the faults."""
    seen: Counter[str] = Counter()
    faults: list[str] = []
    end, deadline = first + calls, time.monotonic() + seconds
    while first < end and time.monotonic() < deadline:
        count = min(end - first, 20_000)
        command = [sys.executable, __file__, "--child", "--seed", str(seed), "--modes", modes]
        process = subprocess.Popen(
            [*command, "--first", str(first), "--calls", str(count)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if count == 1 else subprocess.DEVNULL,
            env=os.environ
            | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
            # Where a CPU has AVX-512's VNNI, oneDNN's allocator waits ten seconds for memory that
            # there is not, and again for each result.
            | {"TF_ENABLE_ONEDNN_OPTS": "0"},
        )
        current, answered = None, True
        for line in lines(process, limit, 6 * limit):
            kind, _, rest = line.partition(" ")
            if kind == "call":
                index, _, current = rest.partition(" ")
                first, answered = int(index) + 1, False
                continue
            seen[line if kind in ("answered", "refused") else kind] += 1
            answered = True
            if kind == "fault":
                faults.append(f"{first - 1}: {rest}: {current}")
            if time.monotonic() > deadline:
                process.kill()
                break
        code = process.wait()
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
        if not answered:
            seen["died"] += 1
            faults.append(f"{first - 1}: died of {code}: {current}")
        elif current is None:
            raise RuntimeError(f"the child of calls from {first} on ended with {code}")
    return seen, faults


MODES = {
    # How often: a trace takes a hundred times as long as an eager call, and XLA ten traces.
    "kernels": 100.0,
    "estimator": 10.0,
    "eager": 30.0,
    "folded": 1.0,
    "known": 0.5,
    "unknown": 0.5,
    "fed": 0.5,
    "jit": 0.2,
    "saved": 0.05,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--limit", type=float, default=20, help="seconds; more where others work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--modes", default=",".join(MODES), help=f"of {', '.join(MODES)}")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    modes = {name: MODES[name] for name in arguments.modes.split(",")}
    if arguments.child:
        out = os.dup(1)
        os.dup2(2, 1)  # what others print
        child(arguments, modes, lambda line: os.write(out, f"{line}\n".encode()))
        os._exit(0)
    seen, faults = fuzz(
        arguments.calls,
        arguments.seed,
        arguments.modes,
        first=arguments.first,
        limit=arguments.limit,
        seconds=arguments.seconds,
    )
    for outcome, count in seen.most_common():
        print(f"{count:9}  {outcome}")
    print(*faults, sep="\n")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
