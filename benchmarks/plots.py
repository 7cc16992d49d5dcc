"""The pictures of the README and the documentation, drawn from the JSON alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.ticker

from .results import EAGER, KERNELS, Results, Row
from .tables import FAMILIES

# Okabe and Ito's colours, told apart by everyone; the markers tell them apart in grey.
STYLES: dict[str, dict[str, Any]] = {
    EAGER: {"color": "#0072B2", "marker": "o", "linewidth": 2.4, "zorder": 5},
    KERNELS: {"color": "#56B4E9", "marker": ".", "linewidth": 1.6, "zorder": 4},
    "TensorFlow": {"color": "#D55E00", "marker": "s"},
    "JAX": {"color": "#CC79A7", "marker": "v"},
    "PyTorch": {"color": "#E69F00", "marker": "^"},
    "NumPy": {"color": "#009E73", "marker": "D"},
}
LABELS = {EAGER: "linreg_ops (the op, eager)", KERNELS: "linreg_ops.kernels"}


def draw(suites: dict[str, Results], folder: Path) -> list[Path]:
    """Every picture whose suite was run."""
    mpl.use("svg")
    pictures: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
        "headline": (("over_rows",), headline),
        "roofline": (("one_target",), roofline),
        "over_rows": (("over_rows",), over_rows),
        "over_targets": (("few_targets", "many_targets"), over_targets),
        "grid": (("grid",), grid),
        "accuracy": (("accuracy", "extremes"), accuracy),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (needs, picture) in pictures.items():
        if all(suite in suites for suite in needs):
            path = folder / f"{name}.svg"
            with _style():
                figure = picture(*(suites[suite].rows for suite in needs))
                # No date and no random ids: the same JSON gives the same file.
                figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
            paths.append(path)
    return paths


def headline(rows: list[Row]) -> Any:
    """Each library's time as a multiple of the op's over the rows: where it pays, and where not."""
    widths = [d for d in (10, 100) if any(r.case["d"] == d for r in rows)]
    figure, panels = _panels(len(widths), sharey=True)
    for axes, d in zip(panels, widths, strict=True):
        chosen = [r for r in rows if r.case["d"] == d]
        for name, points in _lines(chosen, "n", lambda r, n: r.ratio(n), ()):
            axes.plot(*points, **STYLES[name], label=name)
        axes.axhspan(0.1, 1, color="0.93", zorder=0)
        axes.set(xscale="log", yscale="log", ylim=(0.15, 16), xlabel="rows")
        axes.set(yticks=[0.2, 0.5, 1, 2, 5, 10], title=f"{d} features, one target, float32")
        axes.yaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}×")
        axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    panels[0].set_ylabel("time, as a multiple of linreg_ops'")
    panels[0].text(0.02, 0.97, "linreg_ops is faster", transform=panels[0].transAxes, va="top")
    panels[0].text(0.98, 0.03, "the library is faster", transform=panels[0].transAxes, ha="right")
    return _finish(figure, panels)


def roofline(rows: list[Row]) -> Any:
    """Fraction of the read bandwidth over d."""
    dtypes = [t for t in ("float32", "float64") if any(r.case["dtype"] == t for r in rows)]
    figure, panels = _panels(len(dtypes), sharey=True)
    for axes, dtype in zip(panels, dtypes, strict=True):
        chosen = [
            r
            for r in rows
            if r.case["dtype"] == dtype and not (r.case["intercept"] or r.case["sample_weight"])
        ]
        for name, points in _lines(chosen, "d", lambda row, n: row.fraction(n)):
            axes.plot(*points, **STYLES[name], label=LABELS.get(name, f"{name}, its best"))
        axes.axhline(1, color="0.35", linewidth=1, linestyle="--")
        axes.set(xscale="log", ylim=(0, 1.12), title=dtype, xlabel="features d")
    panels[0].set_ylabel("fraction of the read bandwidth")
    panels[0].text(
        1, 1.02, "X and y read once, at the machine's bandwidth", color="0.35", fontsize=8
    )
    return _finish(figure, panels)


def over_rows(rows: list[Row]) -> Any:
    """Time of one loss and gradient over n."""
    widths = sorted({r.case["d"] for r in rows})
    figure, panels = _panels(len(widths), sharey=True)
    for axes, d in zip(panels, widths, strict=True):
        chosen = [r for r in rows if r.case["d"] == d]
        for name, points in _lines(chosen, "n", lambda r, n: r.time(n), (EAGER, KERNELS)):
            axes.plot(*points, **STYLES[name], label=LABELS.get(name, f"{name}, its best"))
        # Below, X is in a cache, and what a read of it takes says nothing of memory.
        large = [r for r in chosen if r.x_bytes >= 1 << 25]
        axes.plot(
            [r.case["n"] for r in large],
            [r.floor() for r in large],
            color="0.35",
            linewidth=1,
            linestyle="--",
            label="reading X and y once",
        )
        axes.set(xscale="log", yscale="log", title=f"d = {d}", xlabel="rows n")
    panels[0].set_ylabel("seconds for loss and gradient")
    return _finish(figure, panels)


def over_targets(few: list[Row], many: list[Row]) -> Any:
    """Fraction of the roofline over k: reading at few targets, arithmetic at many."""
    rows = [r for r in few + many if r.case["dtype"] == "float32"]
    shared = {r.case["d"] for r in few} & {r.case["d"] for r in many}
    widths = sorted(shared)
    figure, panels = _panels(len(widths), sharey=True)
    for axes, d in zip(panels, widths, strict=True):
        chosen = [r for r in rows if r.case["d"] == d]
        for name, points in _lines(chosen, "k", lambda row, n: row.fraction(n)):
            axes.plot(*points, **STYLES[name], label=LABELS.get(name, f"{name}, its best"))
        axes.axhline(1, color="0.35", linewidth=1, linestyle="--")
        axes.set(xscale="log", ylim=(0, 1.12), title=f"d = {d}", xlabel="targets k")
    panels[0].set_ylabel("fraction of the roofline")
    return _finish(figure, panels)


def grid(rows: list[Row]) -> Any:
    """Every shape of the grid: the best peer's time as a multiple of the op's."""
    figure, (axes,) = _panels(1, width=6.4)
    for family in FAMILIES:
        points = [
            (row.time(EAGER), row.ratio(best))
            for row in rows
            if (best := row.best(family)) and EAGER in row.times
        ]
        if points:
            style = {key: STYLES[family][key] for key in ("color", "marker")}
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, s=12, alpha=0.7, linewidths=0, label=family, **style)
    axes.axhline(1, color="0.35", linewidth=1, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="the op's time, seconds")
    axes.set_ylabel("its time as a multiple of the op's")
    axes.set_title(f"{len(rows)} shapes; above the line the op is faster")
    return _finish(figure, [axes])


def accuracy(usual: list[Row], extreme: list[Row]) -> Any:
    """The gradient's error of each library, by the best of its ways, in each case."""
    figure, panels = _panels(2, sharey=True, width=5.6)
    for axes, dtype in zip(panels, ("float32", "float64"), strict=True):
        rows = [row for row in (*usual, *extreme) if row.case["dtype"] == dtype]
        labels = [f"{row.case['case']}, {row.case['n']:,} × {row.case['d']:,}" for row in rows]
        for name in (EAGER, *FAMILIES):
            points = [
                (i, min(found))
                for i, row in enumerate(rows)
                if (found := [e.grad for who, e in row.errors.items() if who.startswith(name)])
            ]
            if points:
                at, errors = zip(*points, strict=True)
                shown = [max(error, 1e-3) for error in errors]
                look = {**STYLES[name], "linewidth": 0}
                axes.plot(shown, at, **look, label=LABELS.get(name, name))
        axes.set(xscale="log", title=dtype, xlabel="error of the gradient, epsilons of its terms")
        axes.axvline(0.5, color="0.5", linewidth=0.8, zorder=0)
        if axes is panels[0]:  # the other shares its axis
            axes.set_yticks(range(len(rows)), labels)
    panels[0].invert_yaxis()
    return _finish(figure, panels)


def _lines(
    rows: list[Row],
    key: str,
    value: Callable[[Row, str], float],
    ours: tuple[str, ...] = (EAGER,),
) -> Iterator[tuple[str, tuple[list[float], list[float]]]]:
    """Ours, and for each library the best of its ways in each row."""
    rows = sorted(rows, key=lambda row: row.case[key])
    for name in (*ours, *FAMILIES):
        points = [
            (row.case[key], value(row, found))
            for row in rows
            if (
                found := name if name in row.times else row.best(name) if name in FAMILIES else None
            )
        ]
        if points:
            x, y = zip(*points, strict=True)
            yield name, (list(x), list(y))


def _panels(count: int, sharey: bool = False, width: float = 4.2) -> tuple[Any, list[Any]]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, count, figsize=(width * count, 3.4), sharey=sharey, squeeze=False, layout="constrained"
    )
    return figure, list(axes[0])


def _finish(figure: Any, panels: list[Any]) -> Any:
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib.pyplot as plt

    style: dict[Any, Any] = {
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 11,
        "figure.dpi": 100,
        "font.size": 9,
        "grid.color": "0.9",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.3,
        "lines.markersize": 4.5,
        "legend.fontsize": 8.5,
        "svg.hashsalt": "linreg_ops",
    }
    with plt.rc_context(style):
        yield
    plt.close("all")
