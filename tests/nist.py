"""NIST's reference sets for linear least squares, and their exact solutions."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path(__file__).parent / "data" / "nist"
EXACT = json.loads((FOLDER / "exact.json").read_text())


class Problem(NamedTuple):
    """`coefficients` are those of the exact rational solution, the intercept first if there is."""

    x: np.ndarray
    y: np.ndarray
    intercept: bool
    coefficients: np.ndarray


def load(name: str) -> Problem:
    table = np.loadtxt(FOLDER / f"{name}.csv", delimiter=",", skiprows=1)
    y, x = table[:, 0], table[:, 1:]
    if name.startswith("wampler"):
        x = x ** np.arange(1, 6)
    return Problem(x, y, name != "noint1", np.array(EXACT[name]))
