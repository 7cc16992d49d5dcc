"""The ways to compose the ops: what the tests show, beside stock TensorFlow.

    python tests/composability.py
    python tests/composability.py tests/test_xla.py     the rows with all their tests there

runs every test marked `@pytest.mark.composes("row")`, puts the same demand to
`tf.nn.l2_loss(tf.matmul(x, w) - y)` in the probes below, and writes composability.json, of which
docs/generate.py makes a table. Arguments go to pytest; a row keeps its cells if not all of its
files took part.
"""

import json
import re
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from fresh import run

RECORD = Path(__file__).with_name("composability.json")


def stock(x, w, y):
    """What these ops stand in for."""
    return tf.nn.l2_loss(tf.matmul(x, w) - y)


def data(*batch):
    rng = np.random.default_rng(1)
    shapes = ((*batch, 8, 3), (*batch, 3, 2), (*batch, 8, 2))
    return [tf.constant(rng.standard_normal(shape)) for shape in shapes]


def autodiff():
    x, w, y = data()
    with tf.GradientTape() as third:
        third.watch(x)
        with tf.GradientTape(persistent=True) as second:
            second.watch(w)
            with tf.GradientTape() as first:
                first.watch(w)
                loss = stock(x, w, y)
            grad = first.gradient(loss, w)
        product = second.gradient(grad, w)
    assert second.jacobian(grad, w) is not None
    assert third.gradient(product, x) is not None
    with tf.autodiff.ForwardAccumulator(w, tf.ones_like(w)) as forward:
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = stock(x, w, y)
        grad = tape.gradient(loss, w)
    assert forward.jvp(grad) is not None


def one_read():
    @tf.function
    def loss_and_grad(x, w, y):
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = stock(x, w, y)
        return loss, tape.gradient(loss, w)

    graph = loss_and_grad.get_concrete_function(*data()).graph
    readers = graph.inputs[0].consumers()
    assert len(readers) == 1, f"{len(readers)} ops read x"


def vectorized_map():
    x, w, y = data()
    tf.vectorized_map(lambda w: stock(x, w, y), tf.stack([w, 2 * w]), fallback_to_while_loop=False)


def batch():
    stock(*data(4))


def xla():
    @tf.function(jit_compile=True)
    def loss_and_grad(x, w, y):
        loss = stock(x, w, y)
        return loss, tf.gradients(loss, w)

    loss_and_grad(*data())


def function():
    x, w, y = data()
    unknown = [tf.TensorSpec([None, None], tf.float64)] * 3
    traced = tf.function(stock, input_signature=unknown)
    traced(x, w, y)
    tf.map_fn(lambda w: traced(x, w, y), tf.stack([w, w]), fn_output_signature=tf.float64)
    tf.while_loop(lambda t: t < 1.0, lambda t: [t + 1.0 + 0.0 * traced(x, w, y)], [w[0, 0]])
    rows = tf.data.Dataset.from_tensors((x, y)).map(
        lambda x, y: stock(x, w, y), num_parallel_calls=2
    )
    assert len(list(rows)) == 1


def v1():
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        w = tf.compat.v1.placeholder(tf.float64, [3, 2], name="w")
        loss = stock(np.ones((8, 3)), w, np.ones((8, 2)))
        session.run(tf.gradients(loss, w), {w: np.ones((3, 2))})
        definition = graph.as_graph_def()
    with tf.Graph().as_default():
        tf.import_graph_def(definition)


def saved_model():
    module = tf.Module()
    module.loss = tf.function(stock)
    x, w, y = data()
    module.loss(x, w, y)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder)
        loss = tf.saved_model.load(folder).loss
    with tf.GradientTape() as tape:
        tape.watch(w)
        value = loss(x, w, y)
    assert tape.gradient(value, w) is not None


def distribution():
    run(
        """
        import tensorflow as tf
        cpu, = tf.config.list_physical_devices("CPU")
        half = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [half, half])
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        @tf.function
        def step(x, w, y):
            losses = strategy.run(lambda: tf.nn.l2_loss(tf.matmul(x, w) - y))
            return strategy.reduce("SUM", losses, axis=None)
        assert float(step(tf.ones([4, 3]), tf.ones([3, 2]), tf.ones([4, 2]))) == 32.0
        """
    )


def keras_layer():
    import keras

    class Loss(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 2))

        def call(self, x):
            self.add_loss(
                stock(x, tf.cast(self.kernel, x.dtype), tf.zeros([tf.shape(x)[0], 2], x.dtype))
            )
            return x

    inputs = keras.Input([3])
    model = keras.Model(inputs, Loss(dtype="mixed_bfloat16")(inputs))
    model.compile("sgd", jit_compile=True)
    model.fit(np.ones((8, 3), np.float32), verbose=0)


def tooling():
    specs = [tf.TensorSpec(shape, tf.float32) for shape in ((8, 3), (3, 2), (8, 2))]
    graph = tf.function(stock).get_concrete_function(*specs).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    cost = tf.compat.v1.profiler.profile(graph, options={**options, "output": "none"})
    assert cost.total_float_ops >= 8 * 2 * 3 * 2


ROWS = {
    "Autodiff: any order, forward mode, Jacobians, Hessians": autodiff,
    "Loss and gradient from one read of x": one_read,
    "`vectorized_map`, without a fallback to a loop": vectorized_map,
    "Batches of problems": batch,
    "XLA, and auto-clustering": xla,
    "`tf.function`, control flow, `tf.data`": function,
    "v1 graphs and sessions": v1,
    "SavedModel, with and without this package": saved_model,
    "Strategies: mirrored, multi-worker, parameter server": distribution,
    "Keras 3: layers, mixed precision, symbolic inputs": keras_layer,
    "Profiler, grappler, numeric checks, determinism": tooling,
}


def probe_stock(row: str) -> str:
    """A check mark if stock TensorFlow meets the row's demand, else what it says instead."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ROWS[row]()
    except Exception as error:  # whatever it is, it is what a user gets
        message = re.sub(r"^in user code:\s*(\w+Error: )?", "", str(error)).splitlines()[0]
        return f"✗ {message}"
    return "✓"


def marked_files() -> dict[str, list[str]]:
    """The test files of every row: those whose source has its mark."""
    files = defaultdict(list)
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for row in set(re.findall(r'composes\("(.+?)"\)', path.read_text())):
            files[row].append(path.name)
    return files


class Outcomes:
    """A pytest plugin: whether the tests of every row passed."""

    def __init__(self):
        self.rows = {}
        self.files = defaultdict(set)
        self.passed = defaultdict(list)

    def pytest_collection_modifyitems(self, items):
        for item in items:
            self.rows[item.nodeid] = {mark.args[0] for mark in item.iter_markers("composes")}

    def pytest_runtest_logreport(self, report):
        if report.failed or (report.when == "call" and report.passed):
            for row in self.rows[report.nodeid]:
                self.files[row].add(Path(report.fspath).name)
                self.passed[row].append(report.passed)

    def complete(self, row: str) -> bool:
        return self.files[row] == set(marked_files()[row])

    def cells(self, row: str) -> dict[str, Any]:
        passed = self.passed[row]
        ours = "✗ not tested" if not passed else "✓" if all(passed) else "✗"
        return {"ours": ours, "files": marked_files()[row], "stock": probe_stock(row)}


def main() -> int:
    outcomes = Outcomes()
    status = pytest.main(["-q", "-m", "composes and not slow", *sys.argv[1:]], plugins=[outcomes])
    before = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record = {
        row: outcomes.cells(row) if outcomes.complete(row) or row not in before else before[row]
        for row in ROWS
    }
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
