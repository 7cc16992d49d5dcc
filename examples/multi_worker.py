"""Least squares on rows that are spread over machines, by TensorFlow's own engine.

Every worker holds some rows of X and Y. A step is one fused pass over them on each worker, and an
all-reduce of the losses and gradients: d k + 1 numbers, however many rows there are.

Two worker processes on this machine, over loopback:

    python examples/multi_worker.py

Two machines: the same command on both, each with its own index:

    TF_CONFIG='{"cluster": {"worker": ["host-a:2222", "host-b:2222"]},
                "task": {"type": "worker", "index": 0}}' python examples/multi_worker.py
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2, help="processes on this machine")
    parser.add_argument("--rows", type=int, default=100_000, help="on all workers together")
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--timeout", type=float, default=300, help="seconds, for all of it")
    parser.add_argument("--output", help="an .npz file for the weights and the losses")
    return parser.parse_args()


def make_rows(first, last, features):
    """Rows first to last of the data, in blocks with a seed each: a worker makes only its own."""
    import numpy as np

    block = 1000
    truth = np.linspace(-1, 1, features)
    x, noise = [], []
    for number in range(first // block, -(-last // block)):
        rng = np.random.default_rng(number)
        rows = slice(max(first - number * block, 0), min(last - number * block, block))
        x.append(rng.standard_normal((block, features))[rows])
        noise.append(rng.standard_normal(block)[rows])
    x, noise = np.concatenate(x), np.concatenate(noise)
    return x, x @ truth + noise


def work(options):
    """One worker: what every process of the cluster runs."""
    import numpy as np
    import tensorflow as tf

    import linreg_ops as lo

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    workers = strategy.num_replicas_in_sync
    index = strategy.cluster_resolver.task_id
    first, last = (options.rows * i // workers for i in (index, index + 1))
    x, y = make_rows(first, last, options.features)
    # One write, so that the workers' lines do not mix.
    print(f"worker {index} of {workers}: rows {first} to {last}\n", end="", flush=True)

    with strategy.scope():
        w = tf.Variable(tf.zeros([options.features], tf.float64))
    learning_rate = 0.1 / options.rows  # a tenth of the way in each step

    @tf.function
    def step(x, y):
        loss, grad = strategy.run(lambda: lo.linear_l2_loss_and_grad(x, w, y))
        loss = strategy.reduce(tf.distribute.ReduceOp.SUM, loss, axis=None)
        grad = strategy.reduce(tf.distribute.ReduceOp.SUM, grad, axis=None)
        w.assign_sub(learning_rate * grad)
        return loss

    x, y = tf.constant(x), tf.constant(y)
    start = time.perf_counter()
    losses = []
    for number in range(options.steps):
        losses.append(float(step(x, y)))
        if index == 0 and number % max(1, options.steps // 5) == 0:
            print(f"step {number:4d}   loss {losses[-1]:.6f}", flush=True)
    seconds = time.perf_counter() - start

    if index == 0:
        x, y = make_rows(0, options.rows, options.features)
        alone = lo.gradient_descent(x, tf.zeros_like(w), y, learning_rate, options.steps)
        difference = float(tf.reduce_max(tf.abs(alone.w - w)))
        print(f"{options.steps} steps in {seconds:.2f} s on {workers} workers")
        print(f"largest difference of a weight from one machine's: {difference:.1e}", flush=True)
        if options.output:
            np.savez(options.output, w=w.numpy(), losses=losses)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for bound in sockets:
        bound.bind(("127.0.0.1", 0))
    ports = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports


def launch(options):
    """Runs the workers as processes of this machine. When one fails, so does everything."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(options.workers)]
    processes = []
    try:
        for index in range(options.workers):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
            processes.append(subprocess.Popen([sys.executable, *sys.argv], env=environment))
        deadline = time.monotonic() + options.timeout
        while True:
            codes = [process.poll() for process in processes]
            for index, code in enumerate(codes):
                if code:
                    return f"worker {index} failed with code {code}"
            if None not in codes:
                return 0
            if time.monotonic() > deadline:
                return f"the workers did not finish in {options.timeout:g} seconds"
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(work(parse_arguments()) if "TF_CONFIG" in os.environ else launch(parse_arguments()))
