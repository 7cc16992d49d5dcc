"""A fitted model as a JSON file: numbers and names, nothing that runs when it is loaded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._files import whole
from .design import Array, Feature, Kind
from .terminal import fail, shown, writing

_FORMAT = "linreg-ops model"
_VERSION = 2


class Statistics(NamedTuple):
    """What the coefficients are worth: arrays are [columns, targets], the intercept first if any.

    NaN where the rows do not tell, as of a column that depends on others.
    """

    rows: int
    df_model: int
    df_residual: int
    condition: float
    errors: Array
    t: Array
    p: Array
    low: Array  # the 95% interval
    high: Array
    sigma: Array  # [targets], as the rest
    adjusted_r2: Array
    f: Array
    f_p: Array

    @classmethod
    def of(cls, found: Any) -> Statistics:
        """From an estimator's `summary()` of two-dimensional targets."""
        low, high = np.moveaxis(found.intervals, -1, 0)
        return cls(
            rows=found.rows,
            df_model=found.df_model,
            df_residual=found.df_residual,
            condition=float(found.condition),
            errors=found.standard_errors,
            t=found.t,
            p=found.p_values,
            low=low,
            high=high,
            sigma=found.sigma,
            adjusted_r2=found.adjusted_r2,
            f=found.f,
            f_p=found.f_p_value,
        )

    def plain(self) -> dict[str, Any]:
        """For JSON, which has no NaN and no infinity."""
        return {key: _plain(value) for key, value in self._asdict().items()}

    @classmethod
    def loaded(cls, content: dict[str, Any], shape: tuple[int, int]) -> Statistics:
        """From what `plain` made, for so many coefficients and targets."""
        found = cls(**{key: _numbers(value) for key, value in dict(content).items()})
        for name in ("rows", "df_model", "df_residual", "condition"):
            if not isinstance(getattr(found, name), int | float):
                raise TypeError(f"{name} must be a number, got {getattr(found, name)!r}")
        tables = dict.fromkeys(("errors", "t", "p", "low", "high"), shape)
        for name, needed in (tables | dict.fromkeys(_BY_TARGET, shape[1:])).items():
            got = np.shape(getattr(found, name))
            if got != needed:
                raise ValueError(f"{name} must be {list(needed)}, got {list(got)}")
        return found


_BY_TARGET = ("sigma", "adjusted_r2", "f", "f_p")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(each) for each in value]
    return value if math.isfinite(value) else None


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return np.array(value, np.float64)  # of None: NaN
    return math.nan if value is None else value


class Model(NamedTuple):
    """y = X·coef + intercept for the columns that `features` make; coef is [columns, targets].

    `alpha`, [targets], is the penalty that it was fitted with, and `solver` by what.
    """

    targets: list[str]
    features: list[Feature]
    fit_intercept: bool
    intercept: Array
    coef: Array
    alpha: Array
    solver: str
    statistics: Statistics | None = None  # none under a penalty

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
            "fit_intercept": self.fit_intercept,
            "intercept": self.intercept.tolist(),
            "coef": self.coef.tolist(),
            "alpha": self.alpha.tolist(),
            "solver": self.solver,
            "statistics": self.statistics and self.statistics.plain(),
        }
        with writing(path), whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


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
        bool(content["fit_intercept"]),
        np.array(content["intercept"], np.float64),
        np.array(content["coef"], np.float64),
        np.array(content["alpha"], np.float64),
        _text(content["solver"]),
    )
    columns = len(model.labels())
    if model.coef.shape != (columns, len(targets)) or model.intercept.shape != (len(targets),):
        raise ValueError(f"coef must be [{columns}, {len(targets)}], got {model.coef.shape}")
    if model.alpha.shape != (len(targets),):
        raise ValueError(f"alpha must be [{len(targets)}], got {model.alpha.shape}")
    if not math.isfinite(float(np.sum(model.coef)) + float(np.sum(model.intercept))):
        raise ValueError("a coefficient is not finite")
    if content["statistics"] is None:
        return model
    shape = (columns + model.fit_intercept, len(targets))
    return model._replace(statistics=Statistics.loaded(content["statistics"], shape))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a name must be text, got {value!r}")
    return value
