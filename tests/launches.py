"""Which kernels run, and on how many threads: what the tests of fusion count."""

import re
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import op_callbacks
from tensorflow.tsl.profiler.protobuf import xplane_pb2

needs_custom_calls = pytest.mark.skipif(
    not (Path(tf.sysconfig.get_include()) / "xla" / "ffi" / "api" / "ffi.h").exists(),
    reason="this TensorFlow has no header for custom calls: the ops are plain HLO",
)


def eager_kernels(function, *args):
    """How often each type of op runs in one eager call."""
    ran = Counter()

    def record(op_type, *_, **__):
        ran[op_type] += 1

    op_callbacks.add_op_callback(record)
    try:
        function(*args)
    finally:
        op_callbacks.remove_op_callback(record)
    return ran


def graph_kernels(function, *args):
    """How many nodes of each type the function's graph has after grappler, as it is run."""
    concrete = tf.function(function).get_concrete_function(*args)
    context.enable_run_metadata()
    try:
        concrete(*args)
        metadata = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    assert metadata.function_graphs, "no function ran"
    graphs = metadata.function_graphs[-1].partition_graphs
    nodes = [
        node
        for graph in graphs
        for part in (graph.node, *(f.node_def for f in graph.library.function))
        for node in part
    ]
    return Counter(node.op for node in nodes)


def session_kernels(session, fetches, feeds):
    """The values, and how many nodes of each type the session ran, after grappler."""
    metadata = tf.compat.v1.RunMetadata()
    options = tf.compat.v1.RunOptions(output_partition_graphs=True)
    values = session.run(fetches, feeds, options=options, run_metadata=metadata)
    return values, Counter(node.op for graph in metadata.partition_graphs for node in graph.node)


def profiled(function, *args):
    """The lines of TensorFlow's profile of a call, one per thread: (name, start, end) of events."""
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            function(*args)
        (trace,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(trace.read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            yield [
                (
                    plane.event_metadata[event.metadata_id].display_name
                    or plane.event_metadata[event.metadata_id].name,
                    event.offset_ps,
                    event.offset_ps + event.duration_ps,
                )
                for event in line.events
            ]


# An op's, and XLA's: named after the op by TensorFlow 2.21, and only after what it is by 2.20.
FUSED_PASS = re.compile(r":Linreg>|^Linreg_|^custom-call")


def closures_scheduled(function, *args):
    """How many closures each fused pass in the call, an op's or XLA's, hands to a thread pool."""
    counts = []
    for line in profiled(function, *args):
        passes = [event for event in line if FUSED_PASS.search(event[0])]
        scheduled = [start for name, start, _ in line if name == "ThreadpoolListener::Record"]
        counts += [sum(start <= at <= end for at in scheduled) for _, start, end in passes]
    return counts
