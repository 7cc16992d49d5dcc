"""Which kernels run: what the tests of fusion count."""

from collections import Counter

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import op_callbacks


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
