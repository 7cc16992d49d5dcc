"""Fixtures for every test: seeded randomness, and a folder to work in."""

import os
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Warnings of TensorFlow's C++ are shown, so that tests can fail on them.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("MPLBACKEND", "agg")


def pytest_configure() -> None:
    """Ctrl-C ends what the tests interrupt, also where a shell in the background has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The whole suite runs on several cores; a part that is named starts sooner without workers.

    A worker takes 5 s to import TensorFlow, and the memory of a process with it.
    """
    named = config.args_source is pytest.Config.ArgsSource.ARGS or config.option.keyword
    return 0 if named else min(len(os.sched_getaffinity(0)), 4)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Seeded by the test's name; the seed is shown when the test fails."""
    seed = zlib.crc32(request.node.nodeid.encode())
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session", autouse=True)
def _neutral_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs that tests start find the installed package too: `python -c` looks in its folder."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("folder"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(autouse=True)
def _no_tensorflow_warnings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every way of composing the ops works without a warning from TensorFlow."""
    if request.node.get_closest_marker("composes") is None:
        yield
        return
    from silence import no_tensorflow_warnings

    with no_tensorflow_warnings():
        yield
