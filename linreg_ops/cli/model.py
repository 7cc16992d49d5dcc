"""A fitted model as a JSON file: numbers and names, nothing that runs when it is loaded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .design import Array, Feature, Kind
from .terminal import fail, shown, writing

_FORMAT = "linreg-ops model"
_VERSION = 1


class Model(NamedTuple):
    """y = X·coef + intercept for the columns that `features` make; coef is [columns, targets]."""

    targets: list[str]
    features: list[Feature]
    intercept: Array
    coef: Array

    def labels(self) -> list[str]:
        """The names of X's columns."""
        return [label for feature in self.features for label in feature.labels()]

    def predict(self, x: Array) -> Array:
        """[rows, targets]."""
        return x @ self.coef + self.intercept

    def save(self, path: Path) -> None:
        """Writes it as JSON; every float comes back as it was."""
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "targets": self.targets,
            "features": [feature._asdict() for feature in self.features],
            "intercept": self.intercept.tolist(),
            "coef": self.coef.tolist(),
        }
        with writing(path):
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def load(path: Path) -> Model:
    """Reads what `Model.save` wrote, and refuses anything else in a line."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        fail(f"{shown(str(path))} is not a model that `linreg-ops fit --save` wrote: {error}")
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        fail(f"{shown(str(path))} is not a model that `linreg-ops fit --save` wrote.")
    if content.get("version") != _VERSION:
        fail(
            f"{shown(str(path))} is a model of version {content.get('version')!r}; this program "
            f"reads version {_VERSION}."
        )
    try:
        return _checked(content)
    except (KeyError, TypeError, ValueError) as error:
        fail(f"{shown(str(path))} is damaged: {type(error).__name__}: {error}.")


def _checked(content: dict[str, Any]) -> Model:
    targets = content["targets"]
    features = [
        Feature(_text(f["column"]), Kind(f["kind"]), tuple(map(_text, f["levels"])))
        for f in content["features"]
    ]
    model = Model(
        [_text(name) for name in targets],
        features,
        np.array(content["intercept"], np.float64),
        np.array(content["coef"], np.float64),
    )
    columns = len(model.labels())
    if model.coef.shape != (columns, len(targets)) or model.intercept.shape != (len(targets),):
        raise ValueError(f"coef must be [{columns}, {len(targets)}], got {model.coef.shape}")
    if not math.isfinite(float(np.sum(model.coef)) + float(np.sum(model.intercept))):
        raise ValueError("a coefficient is not finite")
    return model


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a name must be text, got {value!r}")
    return value
