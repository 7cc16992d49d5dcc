"""NIST's reference sets for linear least squares, and their exact solutions."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path(__file__).parent / "data" / "nist"
EXACT = json.loads((FOLDER / "exact.json").read_text())
_DEGREE = {"pontius": 2, "filip": 10, **{f"wampler{i}": 5 for i in range(1, 6)}}


class Problem(NamedTuple):
    """`coefficients` are those of the exact rational solution, the intercept first if there is."""

    x: np.ndarray
    y: np.ndarray
    intercept: bool
    coefficients: np.ndarray

    def digits(self, found) -> float:
        """Correct digits of the worst coefficient; at most 16."""
        with np.errstate(divide="ignore"):
            error = np.abs(found - self.coefficients) / np.abs(self.coefficients)
            return float(min(16.0, np.min(-np.log10(error))))


def load(name: str) -> Problem:
    table = np.loadtxt(FOLDER / f"{name}.csv", delimiter=",", skiprows=1)
    y, x = table[:, 0], table[:, 1:]
    if name in _DEGREE:
        x = x ** np.arange(1, _DEGREE[name] + 1)
    return Problem(x, y, not name.startswith("noint"), np.array(EXACT[name]["coefficients"]))
