"""The command line: the demo, a fit of the user's own table, and what was built."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

try:
    import typer
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Table
    from rich.text import Text
except ImportError as error:
    raise ImportError(
        f"the command line needs {error.name}, which is not installed. Install all it needs with: "
        'pip install "linreg_ops[demo]"'
    ) from error

if TYPE_CHECKING:
    import pandas

    from .demo import Data, Result

app = typer.Typer(
    help="Least squares in TensorFlow at the speed of memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()


class Dataset(str, Enum):
    """What the demo trains on."""

    LINE = "line"
    DIABETES = "diabetes"


def _positive(value: float | None) -> float | None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise typer.BadParameter(f"{value} is not a positive number.")
    return value


def _picture_path(path: Path | None) -> Path | None:
    if path is None:
        return None
    formats = (".png", ".pdf", ".svg")
    if path.suffix.lower() not in formats:
        raise typer.BadParameter(f"'{path}' must end in one of {', '.join(formats)}.")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"folder '{path.parent}' does not exist.")
    if not os.access(path if path.exists() else path.parent, os.W_OK) or path.is_dir():
        raise typer.BadParameter(f"'{path}' cannot be written.")
    return path


Output = typer.Option("--output", "-o", callback=_picture_path, help="The picture: PNG, PDF, SVG.")


@app.command()
def demo(
    data: Annotated[Dataset, typer.Option(help="What to train on.")] = Dataset.LINE,
    steps: Annotated[
        int | None, typer.Option(min=1, show_default="50; diabetes: 500", help="Training steps.")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            callback=_positive,
            show_default="0.002; diabetes: 0.0005",
            help="Of the sum of squares: the more points, the smaller it must be.",
        ),
    ] = None,
    points: Annotated[
        int | None, typer.Option(min=2, show_default="50", help="Points on the line.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of the first weights.")] = 0,
    output: Annotated[Path, Output] = Path("linreg_demo.png"),
) -> None:
    """Train one linear model in four ways that must agree, and draw it."""
    if data is Dataset.DIABETES and points is not None:
        raise typer.BadParameter(
            "the diabetes data have 442 points; this option is for --data line.",
            param_hint="'--points'",
        )
    with console.status("Starting TensorFlow"), _without_tensorflow_logs():
        from . import demo as job
    from .training import DivergenceError

    line = data is Dataset.LINE
    problem = job.noisy_line(points or 50, seed) if line else job.diabetes()
    steps = steps or (50 if line else 500)
    rate = learning_rate or (0.002 if line else 0.0005)
    start = job.start(problem.x.shape[1], seed)

    results = []
    try:
        with _progress() as progress:
            task = progress.add_task("Training", total=len(job.WAYS))
            for result in job.train_every_way(problem, start, rate, steps):
                results.append(result)
                progress.advance(task)
    except DivergenceError as error:
        _fail(f"{error}. Try a smaller --learning-rate than {rate:g}.")

    console.print(
        f"{len(problem.y)} points, {steps} steps of gradient descent at learning rate {rate:g}"
    )
    console.print(_comparison(problem, results, line=line))
    console.print(
        f"[dim]Loss: ½ Σ (xw - y)². vs stock: largest relative difference between the loss "
        f"curves; float32 rounds at {np.finfo(np.float32).eps:.1e}. Time: one whole training, "
        f"median of {job.RUNS} after a warm-up.[/dim]"
    )
    _draw_demo(problem, results, output)
    console.print(f"Picture: {output}", soft_wrap=True, markup=False)


def _comparison(data: Data, results: list[Result], *, line: bool) -> Table:
    from .demo import difference

    exact, loss, name = _least_squares(data, line=line)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("", no_wrap=True)
    columns = ["intercept", "slope"] if line else ["intercept", "‖coef‖", "R²"]
    for column in [*columns, "final loss", "vs stock", "time"]:
        table.add_column(column, justify="right", no_wrap=True)

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
    from .reference import least_squares, linear_l2_loss

    if line:
        w = np.polyfit(data.x[:, 0].astype(np.float64), data.y.astype(np.float64), 1)[::-1]
    else:
        w = least_squares(data.x, data.y, intercept=True)
    loss = linear_l2_loss(data.x, w, data.y, intercept=True)
    return w, loss, "np.polyfit" if line else "np.linalg.lstsq"


def _r_squared(data: Data, w: Any) -> float:
    residual = w[0] + data.x @ w[1:] - data.y
    return 1.0 - float(np.sum(residual**2) / np.sum((data.y - data.y.mean()) ** 2))


def _draw_demo(data: Data, results: list[Result], output: Path) -> None:
    from . import plotting

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
        plotting.save(picture, output)


@app.command()
def fit(
    table: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV or Parquet.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    features: Annotated[
        str | None,
        typer.Option(show_default="all others", help="Columns to predict it from: a,b,c."),
    ] = None,
    intercept: Annotated[bool, typer.Option(help="Fit a constant term too.")] = True,
    output: Annotated[Path | None, Output] = None,
) -> None:
    """Fit a table's column by least squares on its others."""
    try:
        from .estimator import LinearRegression
    except ImportError as error:
        _fail(str(error))
    frame = _read(table)
    names = _feature_names(frame, target, features)
    x, y = _numbers(frame[names]), _numbers(frame[[target]])[:, 0]
    model = LinearRegression(fit_intercept=intercept).fit(x, y)

    coefficients = Table(box=SIMPLE_HEAD, pad_edge=False)
    coefficients.add_column("column")
    coefficients.add_column("coefficient", justify="right")
    if intercept:
        coefficients.add_row("(intercept)", f"{model.intercept_:.8g}")
    for name, value in zip(names, model.coef_, strict=True):
        coefficients.add_row(Text(name), f"{value:.8g}")
    console.print(coefficients)
    console.print(
        f"{len(y)} rows, R² = {model.score(x, y) if len(y) > 1 else math.nan:.6f}, "
        f"loss ½ Σ (xw - y)² = {model.loss_curve_[-1]:.6g}, "
        f"conjugate gradient steps: {model.n_iter_}"
    )
    if output is not None:
        from . import plotting

        with plotting.style():
            picture, (left, right) = plotting.figure(2)
            if len(names) == 1:
                line = (model.intercept_, model.coef_[0])
                plotting.plot_line(left, x, y, {"least squares": line})
                left.set(xlabel=names[0], ylabel=target)
            else:
                plotting.plot_predictions(left, y, model.predict(x))
                left.set_title(f"{target}: predicted against actual")
            plotting.plot_losses(right, {"conjugate gradients": model.loss_curve_})
            plotting.save(picture, output)
        console.print(f"Picture: {output}", soft_wrap=True, markup=False)


def _read(path: Path) -> pandas.DataFrame:
    try:
        import pandas
    except ImportError:
        _fail('reading a table needs pandas. Install it with: pip install "linreg_ops[demo]"')
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        _fail(f"{path}: the name must end in .csv or .parquet.")
    try:
        return pandas.read_csv(path) if suffix == ".csv" else pandas.read_parquet(path)
    except ImportError:
        _fail("reading Parquet needs pyarrow. Install it with: pip install pyarrow")
    except (ValueError, OSError) as error:
        _fail(f"{path} cannot be read: {error}.")


def _feature_names(frame: pandas.DataFrame, target: str, features: str | None) -> list[str]:
    columns = [str(column) for column in frame.columns]
    frame.columns = columns
    if features is None:
        names = [column for column in columns if column != target]
    else:
        names = [name.strip() for name in features.split(",")]
    missing = [name for name in [target, *names] if name not in columns]
    if missing:
        _fail(f"no column {', '.join(missing)}. The table has: {', '.join(columns)}.")
    if target in names:
        _fail(f"the target {target} is among the features.")
    if not names:
        _fail(f"the table has no column but the target {target}.")
    if frame.empty:
        _fail("the table has no rows.")
    return names


def _numbers(frame: pandas.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    for name in frame.columns:
        column = frame[name]
        try:
            numbers = column.to_numpy(np.float64)
        except (ValueError, TypeError):
            _fail(f"column {name} is not numeric. Leave it out with --features, or encode it.")
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            _fail(
                f"column {name} has {len(bad)} missing or infinite values, the first in row "
                f"{bad[0] + 1}. Fill them in, or remove those rows."
            )
    return np.ascontiguousarray(frame.to_numpy(np.float64))


@app.command()
def info() -> None:
    """Print what was built, and what it uses here."""
    with _without_tensorflow_logs():
        from ._library import build_info
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in build_info().items():
        if isinstance(value, dict):
            value = ", ".join(name if on else f"{name} (not here)" for name, on in value.items())
        table.add_row(key, str(value))
    console.print(table)


def _fail(message: str) -> Any:
    """Says it on stderr and ends with exit code 1; 2 is for options that cannot be right."""
    text = Text.assemble(("Error:", "bold red"), " ", message)
    Console(stderr=True).print(text, soft_wrap=True)
    raise typer.Exit(1)


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


@contextmanager
def _without_tensorflow_logs() -> Iterator[None]:
    """Keeps TensorFlow's chatter about CPU features and drivers off the terminal.

    Its first lines come before its logging is set up and heed no setting, so stderr's file
    descriptor is redirected; what was caught is shown if the import fails. Who sets
    TF_CPP_MIN_LOG_LEVEL gets the logs.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_logical_devices()  # starts the devices, which logs too
            yield
        except BaseException:
            caught.seek(0)
            os.write(terminal, caught.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
