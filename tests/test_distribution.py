"""Rows sharded by TensorFlow's strategies, loss and gradient all-reduced: one machine's result.

A shard's sums are the same numbers added in another order. Where the data are small integers and
the rates powers of two, every sum is exact and the order leaves no trace: those are compared bit
by bit. The example's data are not, and its test derives the tolerance.
"""

import runpy

import numpy as np
import pytest
from fresh import run

pytestmark = pytest.mark.composes("Strategies: mirrored, multi-worker, parameter server")

# Integer data, five rows to one shard and four to the other, and the truth of four steps.
DATA = """
import numpy as np
import tensorflow as tf
import linreg_ops as lo

SHARDS, STEPS, RATE = 2, 4, 2.0**-6
rng = np.random.default_rng(1)
X, Y = (rng.integers(-3, 4, shape).astype(np.float64) for shape in ((9, 3), (9, 2)))

def shard(array, index):
    return tf.constant(np.array_split(array, SHARDS)[index])

def check(losses, w):
    truth = np.zeros((3, 2))
    for loss in losses:
        r = X @ truth - Y
        np.testing.assert_array_equal(loss, 0.5 * np.sum(r * r))
        truth -= RATE * X.T @ r
    assert len(losses) == STEPS
    np.testing.assert_array_equal(w, truth)
"""

MIRRORED = """
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * SHARDS)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    w = tf.Variable(np.zeros((3, 2)))

fused_on = set()

def by_op(x, y):
    loss, grad = lo.linear_l2_loss_and_grad(x, w, y)
    fused_on.add((loss.op.type, loss.device[-5:]))
    return loss, grad

def by_tape(x, y):
    with tf.GradientTape() as tape:
        loss = lo.linear_l2_loss(x, w, y)
    return loss, tape.gradient(loss, w)

def shards(array):
    return strategy.experimental_distribute_values_from_function(
        lambda context: shard(array, context.replica_id_in_sync_group)
    )

def train(loss_and_grad):
    @tf.function
    def step(x, y):
        def replica(x, y):
            both = list(loss_and_grad(x, y))
            return tf.distribute.get_replica_context().all_reduce("SUM", both)

        loss, grad = strategy.run(replica, args=(x, y))
        w.assign_sub(RATE * strategy.experimental_local_results(grad)[0])
        return strategy.experimental_local_results(loss)

    w.assign(tf.zeros_like(w))
    losses = []
    for _ in range(STEPS):
        on_0, on_1 = step(shards(X), shards(Y))
        np.testing.assert_array_equal(on_0, on_1)
        losses.append(on_0.numpy())
    check(losses, w.numpy())

train(by_op)
assert fused_on == {("Linreg>L2LossGrad", "CPU:0"), ("Linreg>L2LossGrad", "CPU:1")}, fused_on
train(by_tape)
"""

PARAMETER_SERVER = """
import socket

sockets = [socket.socket() for _ in range(3)]
for bound in sockets:
    bound.bind(("127.0.0.1", 0))
ps, *workers = (f"127.0.0.1:{bound.getsockname()[1]}" for bound in sockets)
for bound in sockets:
    bound.close()
cluster = tf.train.ClusterSpec({"ps": [ps], "worker": workers})
# A worker waits inside an op for the parameter server: one thread would not do.
threads = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=4)
servers = [
    tf.distribute.Server(cluster, job_name=job, task_index=index, config=threads)
    for job, index in (("ps", 0), ("worker", 0), ("worker", 1))
]
resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")
strategy = tf.distribute.ParameterServerStrategy(resolver)
coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
with strategy.scope():
    w = tf.Variable(np.zeros((3, 2)))
assert "job:ps" in w.device, w.device

@tf.function
def on_worker(x, y):
    return lo.linear_l2_loss_and_grad(x, w, y)

losses = []
for _ in range(STEPS):
    # By itself TensorFlow applies gradients as they come, at weights that differ between
    # workers; waiting for all of them makes it one machine's descent.
    results = [coordinator.schedule(on_worker, args=(shard(X, i), shard(Y, i))) for i in (0, 1)]
    coordinator.join()
    results = [result.fetch() for result in results]
    losses.append(sum(result.loss for result in results))
    w.assign_sub(RATE * sum(result.grad for result in results))
check(losses, w.numpy())
"""


@pytest.mark.parametrize("program", [MIRRORED, PARAMETER_SERVER], ids=["mirrored", "ps"])
def test_a_strategy_equals_one_machine(program):
    run(DATA + program)


def test_two_worker_processes_equal_one_machine(repository, tmp_path):
    """The example, over loopback, against NumPy on all rows.

    One step's gradient adds n products of sums of d + 2 terms, in two orders, so it differs by
    at most δ = 2 (n + d + 2) u Σ |x| (|x||w| + |y|) in any element. The step w - X'(Xw - y)/n
    contracts distances, so that T steps add up to no more than T δ / n, twice: both drift from
    the exact iterates. The rounding of the weights themselves, T u |w|, is far below.
    """
    example = repository / "examples" / "multi_worker.py"
    rows, features, steps = 3001, 5, 8
    arguments = ["--rows", rows, "--features", features, "--steps", steps, "--timeout", 100]
    done = run(example, *arguments, "--output", tmp_path / "out.npz")
    # Their lines may run into each other.
    assert "worker 0 of 2: rows 0 to 1500" in done.stdout
    assert "worker 1 of 2: rows 1500 to 3001" in done.stdout
    assert "largest difference of a weight from one machine's" in done.stdout

    x, y = runpy.run_path(str(example))["make_rows"](0, rows, features)
    assert np.linalg.norm(x, 2) ** 2 < 2 * rows  # the step contracts
    w, losses, u = np.zeros(features), [], 2.0**-53
    delta = np.zeros(features)
    for _ in range(steps):
        r = x @ w - y
        losses.append(0.5 * np.sum(r * r))
        size = np.abs(x).T @ (np.abs(x) @ np.abs(w) + np.abs(y))
        delta = np.maximum(delta, 2 * (rows + features + 2) * u * size)
        w -= 0.1 / rows * (x.T @ r)
    out = np.load(tmp_path / "out.npz")
    bound = 2 * steps * np.linalg.norm(delta) / rows
    assert bound < 1e-9  # far from vacuous: the weights are of order 1
    assert np.max(np.abs(out["w"] - w)) <= bound
    # dL = r·X dw, and L itself is a sum of n squares.
    loss_bound = np.linalg.norm(x, 2) * np.linalg.norm(y) * bound + 2 * rows * u * losses[0]
    assert np.max(np.abs(out["losses"] - losses)) <= loss_bound


def test_when_a_worker_fails_the_example_stops_and_says_so(repository, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit(3)")
    example = repository / "examples" / "multi_worker.py"
    done = run(example, "--timeout", 600, timeout=60, fails=True, PYTHONPATH=str(tmp_path))
    assert done.stderr.endswith("failed with code 3\n")


def test_the_example_gives_up_in_time(repository, tmp_path):
    (tmp_path / "tensorflow.py").write_text("import time; time.sleep(600)")
    example = repository / "examples" / "multi_worker.py"
    done = run(example, "--timeout", 2, timeout=60, fails=True, PYTHONPATH=str(tmp_path))
    assert done.stderr.endswith("the workers did not finish in 2 seconds\n")
