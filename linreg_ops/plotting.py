"""Pictures of a fit: the data and its line, predictions against actual values, loss over steps.

Figures are made without pyplot: nothing is shown, no global state changes, and no display is
needed. A notebook shows a figure that is a cell's last expression.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Circle, FancyArrowPatch
except ImportError as error:
    raise ImportError(
        "linreg_ops.plotting needs matplotlib. Install it with: pip install matplotlib"
    ) from error

from ._files import whole

# Okabe and Ito's colours: distinct for colour-blind readers too.
BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#9A9A9A", "#2B2B2B"
COLOURS = [BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9"]

_DRAWN = 20_000  # points at most in a scatter plot

_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-5, 7),  # from ten millions on a power of ten at the axis' end
    "grid.color": "#E8E8E8",
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "font.size": 10.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "savefig.dpi": 200,
}


@contextmanager
def style() -> Iterator[None]:
    """The package's look, for the figures made inside."""
    with mpl.rc_context(_STYLE):
        yield


def plot_line(
    axes: Axes,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    lines: Mapping[str, tuple[float, float]],
    names: tuple[str, str] = ("x", "y"),
) -> None:
    """The points and, over them, each (intercept, slope) of `lines` under its name.

    Args:
        axes: Where to draw.
        x: `[n]`.
        y: `[n]`.
        lines: The first is drawn solid; those after it dashed, as a comparison.
        names: What x and y are called.
    """
    x, y = np.ravel(x), np.ravel(y)
    # A few points would vanish under a line through them.
    _scatter(axes, x, y, GREY, label="data", zorder=1 if len(x) > 20 else 10)
    ends = np.array([x.min(), x.max()]) if len(x) else np.zeros(2)
    for i, (name, (intercept, slope)) in enumerate(lines.items()):
        axes.plot(
            ends,
            intercept + slope * ends,
            label=_legend(name, _equation(intercept, slope, names)),
            color=COLOURS[i % len(COLOURS)],
            linewidth=3 if i == 0 else 1.6,
            linestyle="-" if i == 0 else (0, (5, 3)),
            zorder=3 + i,
        )
    _label(axes, *names, "Data and fitted line")
    bottom, top = axes.get_ylim()
    rows = 1 + sum(str(line.get_label()).count("\n") + 1 for line in axes.get_lines())
    axes.set_ylim(top=top + 0.07 * rows * (top - bottom))  # room for the legend
    legend = axes.legend(loc="upper left")
    for text in legend.get_texts():
        text.set_parse_math(False)
    points = legend.legend_handles[0]
    if isinstance(points, PathCollection):  # as small and faint as the data it would not be seen
        points.set_sizes([24.0])
        points.set_alpha(1.0)


def _equation(intercept: float, slope: float, names: tuple[str, str]) -> str:
    constant = f" {'-' if intercept < 0 else '+'} {_digits(abs(intercept))}" if intercept else ""
    return f"{names[1]} = {_digits(slope)} {names[0]}{constant}"


def _digits(value: float) -> str:
    """Three digits at least, and all before the point of what is below a million."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def _legend(name: str, equation: str) -> str:
    """In two lines where one would not fit into the panel."""
    return f"{name}: {equation}" if len(name) + len(equation) < 45 else f"{name}:\n{equation}"


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    """Names and title, taken literally: a column may be called "$"."""
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    axes.set_title(title, parse_math=False)
    axes.locator_params(axis="x", nbins=6)  # more numbers of six digits would touch


def _scatter(axes: Axes, x: npt.NDArray[Any], y: npt.NDArray[Any], color: str, **how: Any) -> None:
    """Points, smaller and fainter the more there are; of very many a part, which says so."""
    total = len(x)
    if total > _DRAWN:
        rows = np.random.default_rng(0).choice(total, _DRAWN, replace=False)
        x, y = x[rows], y[rows]
        text = f"{_DRAWN:,} of {total:,} points drawn"
        axes.text(0.99, 0.01, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8)
    few = total <= 500
    axes.scatter(
        x, y,
        s=24 if few else max(24 * 500 / total, 3),
        color=color,
        alpha=0.75 if few else max((500 / total) ** 0.5, 0.15),
        edgecolor="white" if few else "none",
        linewidth=0.6 if few else 0,
        rasterized=not few,
        **how,
    )  # fmt: skip


def plot_predictions(axes: Axes, actual: npt.ArrayLike, predicted: npt.ArrayLike) -> None:
    """Predicted against actual values, with the diagonal where they agree.

    Args:
        axes: Where to draw.
        actual: `[n]`.
        predicted: `[n]`.
    """
    actual, predicted = np.ravel(actual), np.ravel(predicted)
    everything = np.concatenate([actual, predicted])
    low, high = (everything.min(), everything.max()) if len(everything) else (0.0, 1.0)
    margin = 0.04 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=GREY, linewidth=1.2, linestyle=(0, (5, 3)))
    _scatter(axes, actual, predicted, BLUE, zorder=3)
    axes.set(xlim=limits, ylim=limits)
    _label(axes, "actual", "predicted", "Predicted against actual")


def plot_residuals(axes: Axes, predicted: npt.ArrayLike, residuals: npt.ArrayLike) -> None:
    """What the model leaves over, against its predictions: without a pattern if the model fits.

    Args:
        axes: Where to draw.
        predicted: `[n]`.
        residuals: `[n]`, actual less predicted.
    """
    predicted, residuals = np.ravel(predicted), np.ravel(residuals)
    axes.axhline(0.0, color=GREY, linewidth=1.2, linestyle=(0, (5, 3)))
    _scatter(axes, predicted, residuals, BLUE, zorder=3)
    largest = float(np.abs(residuals).max(initial=0.0)) or 1.0
    axes.set_ylim(-1.1 * largest, 1.1 * largest)
    _label(axes, "predicted", "actual - predicted", "Residuals")


def plot_losses(
    axes: Axes, losses: Mapping[str, npt.ArrayLike], floor: float | None = None
) -> None:
    """Loss over steps, one curve per name.

    The first is a broad band under the others, which then are visible where they agree with it.

    Args:
        axes: Where to draw.
        losses: For each name the loss before the first step and after each one.
        floor: The least loss that there is, drawn as a line.
    """
    if floor is not None:
        axes.axhline(floor, color=GREY, linewidth=1.2, linestyle=(0, (5, 3)), label="least squares")
    overlays = len(losses) - 1
    for i, (name, values) in enumerate(losses.items()):
        values = np.asarray(values)
        band = i == 0 and overlays > 0
        # Interleaved dashes: each curve has its own places to show where all coincide.
        dashes: Any = (4 * i, (4, 4 * (overlays - 1)))
        axes.plot(
            np.arange(len(values)),
            values,
            label=name,
            color="#BFD9EA" if band else COLOURS[i % len(COLOURS)],
            linewidth=8 if band else 2,
            linestyle="-" if band or overlays < 2 else dashes,
            solid_capstyle="round",
            zorder=3 + i,
        )
    if all(np.all(np.asarray(values) > 0) for values in losses.values()):
        axes.set_yscale("log")
    steps = max((np.size(values) for values in losses.values()), default=1) - 1
    if steps > 200:  # the first steps are where most happens
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(-0.15, 1.3 * steps)
        axes.set_xticks([0, *10 ** np.arange(int(np.log10(steps)) + 1)])
        axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set(xlabel="step", ylabel="loss  ½ Σ (xw - y)²", title="Loss over steps")
    if losses:
        legend = axes.legend(loc="upper right")
        for handle, curve in zip(legend.get_lines(), axes.get_lines(), strict=True):
            if curve.get_label() in losses:
                handle.set_linestyle("-")


def plot_network(axes: Axes, inputs: Sequence[str], output: str = "ŷ") -> None:
    """The network that linear regression is: one neuron, a weight on each input, no activation.

    Args:
        axes: Where to draw.
        inputs: Their names, top to bottom; "1" is the constant that carries the intercept.
        output: The output's name.
    """
    heights = np.linspace(1, -1, len(inputs)) * 0.55 * (len(inputs) - 1)
    for i, (name, height) in enumerate(zip(inputs, heights, strict=True)):
        arrow = FancyArrowPatch(
            (0, height), (3, 0), shrinkA=24, shrinkB=34, arrowstyle="-|>", mutation_scale=16,
            color=INK, linewidth=1.4,
        )  # fmt: skip
        axes.add_patch(arrow)
        axes.add_patch(Circle((0, height), 0.3, facecolor="#E3EEF6", edgecolor=BLUE, linewidth=1.8))
        axes.text(0, height, name, ha="center", va="center", fontsize=13)
        axes.text(
            1.15, height * 0.62 + 0.09, f"$w_{i}$", ha="center", va="bottom", fontsize=13,
            color=BLUE,
        )  # fmt: skip
    axes.add_patch(Circle((3, 0), 0.42, facecolor="#FBE9DD", edgecolor=ORANGE, linewidth=1.8))
    axes.text(3, 0, "Σ", ha="center", va="center", fontsize=17)
    axes.annotate(
        output, (3.45, 0), (4.5, 0), ha="center", va="center", fontsize=14,
        arrowprops={"arrowstyle": "<|-", "color": INK, "linewidth": 1.4, "mutation_scale": 16},
    )  # fmt: skip
    edge = 0.55 * (len(inputs) - 1) + 0.5
    axes.set(xlim=(-0.6, 4.9), ylim=(-edge, edge), aspect="equal")
    axes.axis("off")


def figure(
    panels: int = 1, *, columns: int | None = None, width: float = 5.6, height: float = 4.4
) -> tuple[Figure, list[Axes]]:
    """A figure with `panels` axes, `columns` or all of them side by side, each `width` by `height`.

    In inches.

    >>> from linreg_ops.plotting import figure, plot_losses
    >>> picture, [axes] = figure()
    >>> plot_losses(axes, {"stock": [4.0, 2.0, 1.0]})
    >>> axes.get_yscale()
    'log'
    """
    columns = columns or panels
    rows = -(-panels // columns)
    with style():
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        made = Figure(figsize=(columns * width, rows * height), layout=layout)
        axes = list(made.subplots(rows, columns, squeeze=False).flat[:panels])
    return made, axes


def save(picture: Figure, path: Any) -> None:
    """Writes the figure in the format that the file's suffix names: whole, or not at all."""
    with style(), whole(path) as temporary:
        picture.savefig(temporary)
