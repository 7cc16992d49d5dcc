"""The record of ways to compose the ops says what the marks say and what stock does."""

import json
import os

import composability
import pytest
import tensorflow as tf
from silence import no_tensorflow_warnings

RECORD = json.loads(composability.RECORD.read_text())


def test_every_row_has_its_tests_and_every_mark_its_row():
    assert RECORD.keys() == composability.ROWS.keys()
    assert composability.marked_files().keys() == composability.ROWS.keys()


@pytest.mark.parametrize("row", composability.ROWS)
def test_a_row_says_what_is_true(row):
    """Ours: the mark of a run in which all its tests passed. Stock's: what it answers here."""
    files = composability.marked_files()[row]
    stock = composability.probe_stock(row)
    assert RECORD[row] == {"ours": "✓", "files": files, "stock": stock}


def test_a_row_fails_with_any_of_its_tests():
    row = next(iter(composability.ROWS))
    outcomes = composability.Outcomes()
    assert outcomes.cells(row)["ours"] == "✗ not tested"
    outcomes.passed[row] = [True, True]
    assert outcomes.cells(row)["ours"] == "✓"
    outcomes.passed[row] = [True, False]
    assert outcomes.cells(row)["ours"] == "✗"


def warn_of_while_loop():
    """What vectorized_map has to say of an op without a converter."""
    tf.vectorized_map(tf.nn.l2_loss, tf.ones([2, 3]))


def warn_of_retracing():
    for _ in range(6):
        tf.function(lambda x: x)(1.0)


ABSL, DATED = "W0000 00:00:1795389740.269083   29141 ", "2026-11-23 01:02:03.123456: W tensorflow/"


def warn_in_cpp():
    os.write(2, f"{ABSL}some.cc:163] Something is wrong\n".encode())


def warn_in_cpp_of_2_20():
    os.write(2, f"{DATED}some.cc:163] Something is wrong\n".encode())


@pytest.mark.parametrize(
    "warn", [warn_of_while_loop, warn_of_retracing, warn_in_cpp, warn_in_cpp_of_2_20]
)
def test_tensorflows_warnings_fail_the_tests_of_a_row(warn):
    expected = pytest.raises(AssertionError, match=r"while_loop|retracing|Something is wrong")
    with expected, no_tensorflow_warnings():
        warn()


@pytest.mark.parametrize("start", [ABSL, DATED])
def test_what_stock_programs_hear_too_fails_no_test(start):
    aborting = f"{start}local_rendezvous.cc:412] Local rendezvous is aborting with status: "
    with no_tensorflow_warnings():
        os.write(2, f"{aborting}ABORTED: Cleanup -5965913440928078394\n".encode())
        os.write(2, f"{start}root_dataset.cc:364] Optimization loop failed: CANCELLED\n".encode())
    with pytest.raises(AssertionError, match=r"Connection reset"), no_tensorflow_warnings():
        os.write(2, f"{aborting}UNAVAILABLE: Connection reset\n".encode())
