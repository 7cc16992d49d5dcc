"""`linreg-ops summary`: what a saved model says, without the table that it was fitted to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import report
from .model import load
from .terminal import note


def summary(
    model: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="What `fit --save` wrote.")
    ],
) -> None:
    """Show a saved model: coefficients, standard errors, 95% intervals."""
    fitted = load(model)
    if fitted.statistics is None:
        note("it was fitted with a penalty, and has no standard errors.")
    report.print_model(str(model), fitted, summary=True)
