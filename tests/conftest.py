"""Fixtures for every test: seeded randomness, and the installed package rather than the source."""

import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

# `python -m pytest` puts the repository root first on the path, where the source folder would hide
# the installed package. After `pip install -e .` the two are one.
if not list((ROOT / "linreg_ops").glob("_kernels*.so")):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Seeded by the test's name; the seed is shown when the test fails."""
    seed = zlib.crc32(request.node.nodeid.encode())
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT
