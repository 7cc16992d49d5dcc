"""TensorFlow's warnings fail a test: those of its Python logger, and of its C++ on stderr."""

import functools
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import polymorphic_function

# What TensorFlow's C++ says of stock programs too: with each error of an op, which tests ask for;
# of the types of the options that the profiler's own Python half sets; of a strategy's own input
# pipeline; of float64 there; and of a step that spans workers, if something still holds its
# rendezvous when it is cleaned up: about 1 in 200 calls of a stock loss by a parameter server, on
# busy CPUs; and of a dataset that ends while tf.data still tunes it, seen on busy CPUs too.
_ITS_OWN = (
    "OP_REQUIRES failed|expects an i value|GeneratorDatasetOp|Not handling type DT_DOUBLE"
    "|Local rendezvous is aborting with status: ABORTED: Cleanup"
    "|Optimization loop failed: CANCELLED"
)
# The start of a warning of its C++: absl's, or the dated one of TensorFlow 2.19 and 2.20.
_LOGGED = r"(?:W\d{4} \S+ +\d+ |\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: W )"
# Those, Python's warnings, and TensorFlow's own from Python.
WARNING = re.compile(
    rf"^({_LOGGED}(?!.*(?:{_ITS_OWN})).*"
    r"|.*\w*Warning: .*|.*WARNING:(?!\s*All log messages).*)$",
    re.M,
)


def _warnings(stderr: str) -> list[str]:
    """The warnings in it, less time and thread."""
    return [re.sub(f"^{_LOGGED}", "", found) for found in WARNING.findall(stderr)]


@functools.cache
def _of_an_import() -> list[str]:
    """What this TensorFlow warns of as soon as it is imported: 2.19 does, of its own linkage."""
    done = subprocess.run(
        [sys.executable, "-c", "import tensorflow"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "1"},
    )
    return _warnings(done.stderr)


def assert_no_warning(stderr: str) -> None:
    found = _warnings(stderr)
    if found:
        found = [warning for warning in found if warning not in _of_an_import()]
    assert not found, found


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.levelname}: {record.getMessage()}")


@contextmanager
def _recorded_log(logger: logging.Logger) -> Iterator[list[str]]:
    recorder, level = _Recorder(), logger.level
    logger.setLevel(logging.WARNING)
    logger.addHandler(recorder)
    try:
        yield recorder.messages
    finally:
        logger.removeHandler(recorder)
        logger.setLevel(level)


@contextmanager
def _recorded_stderr() -> Iterator[list[str]]:
    """What is written to file descriptor 2, where no Python object can see C++ write."""
    lines: list[str] = []
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            text = file.read().decode(errors="replace")
            sys.stderr.write(text)
            lines.append(text)


@contextmanager
def no_tensorflow_warnings() -> Iterator[None]:
    """Raises AssertionError if TensorFlow warns; Python's own warnings are errors already."""
    # TensorFlow counts retracing by a function's code: Keras' would add up over the tests.
    polymorphic_function._frequent_tracing_detector_manager._detectors.clear()
    with _recorded_log(tf.get_logger()) as messages, _recorded_stderr() as stderr:
        yield
    assert not messages, messages
    assert_no_warning("".join(stderr))
