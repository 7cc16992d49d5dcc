"""`linreg-ops demo`: one linear model trained in four ways that must agree, and what each costs."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from .terminal import Picture, console, count, fail, without_tensorflow_logs, writing

if TYPE_CHECKING:
    from ..demo import Data, Result

_MANY = 1_000_000
_MANY_STEPS = 10


class Dataset(str, Enum):
    """What the demo trains on."""

    LINE = "line"
    DIABETES = "diabetes"


def _positive(value: float | None) -> float | None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise typer.BadParameter(f"{value} is not a positive number.")
    return value


def demo(
    data: Annotated[Dataset, typer.Option(help="What to train on.")] = Dataset.LINE,
    steps: Annotated[
        int | None, typer.Option(min=1, show_default="50; diabetes: 500", help="Training steps.")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            callback=_positive,
            show_default="0.1 / points; diabetes: 0.0005",
            help="The step along the gradient of a sum: more points need a smaller one.",
        ),
    ] = None,
    points: Annotated[
        int | None, typer.Option(min=2, show_default="50", help="Points on the line.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise and the first weights.")] = 0,
    million: Annotated[
        bool, typer.Option(help="Time a million points too, where a pass over the data counts.")
    ] = True,
    output: Picture = None,
) -> None:
    """Train one linear model in four ways that must agree, and draw it."""
    if data is Dataset.DIABETES and points is not None:
        raise typer.BadParameter(
            "the diabetes data have 442 points; this option is for --data line.",
            param_hint="'--points'",
        )
    with console.status("Starting TensorFlow"), without_tensorflow_logs():
        from .. import demo as job

    line = data is Dataset.LINE
    try:
        problem = job.noisy_line(points or 50, seed) if line else job.diabetes()
    except ImportError as error:
        fail(str(error))
    steps = steps or (50 if line else 500)
    rate = learning_rate or (job.rate_for(len(problem.y)) if line else 0.0005)

    results = _train(problem, seed, rate, steps, job.RUNS)
    console.print(_heading(problem, steps, rate))
    console.print(_comparison(problem, results, line=line))
    console.print(
        f"[dim]Loss: ½ Σ (xw - y)². vs stock: largest relative difference between the loss "
        f"curves; float32 rounds at {np.finfo(np.float32).eps:.1e}. Time: one whole training, "
        f"median of {job.RUNS} after a warm-up.[/dim]"
    )
    if not line:
        console.print(
            "[dim]‖coef‖ is still short of least squares' where R² is not: some columns nearly "
            "repeat others, and along their differences the loss is almost flat.[/dim]"
        )
    if million:
        _at_a_million(problem, seed, rate)
    if output is None:
        output = Path("linreg_demo.png" if line else "linreg_diabetes.png")
    _draw(problem, results, output)
    console.print(f"Picture: {output}", soft_wrap=True, markup=False)


def _heading(data: Data, steps: int, rate: float) -> str:
    return (
        f"{count(len(data.y), 'point')}, {count(steps, 'step')} of gradient descent at learning "
        f"rate {rate:g}"
    )


def _train(data: Data, seed: int, rate: float, steps: int, runs: int) -> list[Result]:
    from .. import demo as job
    from ..training import DivergenceError

    results = []
    start = job.start(data.x.shape[1], seed)
    try:
        with _progress() as progress:
            task = progress.add_task(f"Training on {count(len(data.y), 'point')}", total=4)
            for result in job.train_every_way(data, start, rate, steps, runs=runs):
                results.append(result)
                progress.advance(task)
    except DivergenceError as error:
        fail(
            f"gradient descent diverged: the loss is {error.losses[-1]} at step {error.step}. Try "
            f"a smaller --learning-rate than {rate:g}: for these points a stable one is below "
            f"{job.stable_rate(data.x):.2g}."
        )
    return results


def _at_a_million(data: Data, seed: int, rate: float) -> None:
    """The same job on a million points like these: there the time goes into reading them."""
    from .. import demo as job

    many = job.resampled(data, _MANY, seed)
    rate *= len(data.y) / _MANY
    results = _train(many, seed, rate, _MANY_STEPS, runs=3)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("", no_wrap=True)
    for column in ("time", "per step", "vs stock"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            result.name,
            _duration(result.seconds),
            _duration(result.seconds / _MANY_STEPS),
            f"{results[0].seconds / result.seconds:.1f} times as fast",
        )
    console.print(_heading(many, _MANY_STEPS, rate))
    console.print(table)
    console.print(
        "[dim]At a few points a step's time is Python's and TensorFlow's, and only leaving their "
        "loop helps. At a million it is the data's: the fused op reads them once per step.[/dim]"
    )


def _comparison(data: Data, results: list[Result], *, line: bool) -> Table:
    from ..demo import difference

    exact, loss, name = _least_squares(data, line=line)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("", no_wrap=True)
    columns = ["intercept", "slope"] if line else ["intercept", "‖coef‖", "R²"]
    # The time is what one came for: in a narrow terminal the others give way.
    for column in [*columns, "final loss", "vs stock"]:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True, min_width=7)

    def summary(w: Any) -> list[str]:
        if line:
            return [f"{w[0]:.5f}", f"{w[1]:.5f}"]
        return [f"{w[0]:.2f}", f"{np.linalg.norm(w[1:]):.3f}", f"{_r_squared(data, w):.5f}"]

    for result in results:
        table.add_row(
            result.name,
            *summary(result.w),
            f"{result.losses[-1]:.6g}",
            f"{difference(result.losses, results[0].losses):.1e}",
            _duration(result.seconds),
        )
    table.add_section()
    table.add_row(name, *summary(exact), f"{loss:.6g}", "", "", style="dim")
    return table


def _least_squares(data: Data, *, line: bool) -> tuple[Any, float, str]:
    """Where the descent goes: the weights, their loss, and who computed them."""
    from ..reference import least_squares, linear_l2_loss

    if line:
        w = np.polyfit(data.x[:, 0].astype(np.float64), data.y.astype(np.float64), 1)[::-1]
    else:
        w = least_squares(data.x, data.y, intercept=True)
    loss = linear_l2_loss(data.x, w, data.y, intercept=True)
    return w, loss, "np.polyfit" if line else "np.linalg.lstsq"


def _r_squared(data: Data, w: Any) -> float:
    residual = w[0] + data.x @ w[1:] - data.y
    return 1.0 - float(np.sum(residual**2) / np.sum((data.y - data.y.mean()) ** 2))


def _draw(data: Data, results: list[Result], output: Path) -> None:
    try:
        from .. import plotting
    except ImportError as error:
        fail(str(error))
    line = data.x.shape[1] == 1
    w = results[-1].w
    exact, floor, name = _least_squares(data, line=line)
    with plotting.style():
        picture, (left, right) = plotting.figure(2)
        if line:
            lines = {"gradient descent": (w[0], w[1]), name: (exact[0], exact[1])}
            plotting.plot_line(left, data.x, data.y, lines)
        else:
            plotting.plot_predictions(left, data.y, w[0] + data.x @ w[1:])
            left.set_title(f"{data.target.capitalize()}: predicted against actual")
        plotting.plot_losses(right, {r.name: r.losses for r in results}, floor=floor)
        with writing(output):
            plotting.save(picture, output)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
    )


def _duration(seconds: float) -> str:
    return f"{1e6 * seconds:.0f} µs" if seconds < 1e-3 else f"{1e3 * seconds:.3g} ms"
