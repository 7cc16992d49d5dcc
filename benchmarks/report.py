"""Writes the tables and plots into the README and benchmarks/results/README.md."""

from __future__ import annotations

from pathlib import Path

from . import plots, tables
from .machine import ROOT
from .results import RESULTS, Results, load_all

README = ROOT / "README.md"
BEGIN = "<!-- benchmarks: what follows is written by `python -m benchmarks` -->"
END = "<!-- benchmarks: end -->"

_PICTURES = {
    "roofline": "Fraction of the machine's read bandwidth over the number of features, one target",
    "over_rows": "Time of one loss and gradient over the number of rows",
    "over_targets": "Fraction of the roofline over the number of targets",
    "grid": "Time of every library as a multiple of the op's, over a grid of shapes",
}


def write(folder: Path = RESULTS, readme: Path = README) -> None:
    """The plots, the README's section and the full tables, from the JSON in `folder`."""
    suites = load_all(folder)
    plots.draw(suites, folder)
    readme.write_text(splice(readme.read_text(), section(suites)))
    (folder / "README.md").write_text(full(suites))


def show(folder: Path) -> None:
    """Plots beside the JSON; on the terminal the goals and losses, as no row fits its width."""
    from rich.console import Console
    from rich.markdown import Markdown

    suites = load_all(folder)
    plots.draw(suites, folder)
    text = "\n\n".join(["# Goals", tables.goals(suites), "# Losses", tables.losses(suites)])
    Console().print(Markdown(text))


def splice(text: str, section: str) -> str:
    """`text` with `section` between the markers, which it must have, once each and in order."""
    head, found, rest = text.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"the README lacks the lines\n{BEGIN}\n{END}")
    return f"{head}{BEGIN}\n\n{section.strip()}\n\n{END}{tail}"


def section(suites: dict[str, Results]) -> str:
    """What the README shows: the goals, one table, the pictures, and where a peer is faster."""
    if not suites:
        return "Not measured yet."
    parts = [f"Measured on {tables.about(suites.get('one_target', next(iter(suites.values()))))}"]
    if "one_target" in suites:
        parts += [
            "One target, X and y far larger than the caches, float32. The bandwidth is that of a "
            "straight-line read of the same memory, with the same threads, in the same interleaved "
            f"rounds: {tables.bandwidths(suites['one_target'])}. A library's column is the best of "
            "its ways: how many times as long it takes, and its gradient's relative error against "
            "a wider type.",
            tables.one_target(suites["one_target"]),
        ]
    for name in (n for n in _PICTURES if _drawn(n, suites)):
        parts.append(f"![{_PICTURES[name]}](benchmarks/results/{name}.svg)")
    parts += [
        "### Goals",
        tables.goals(suites),
        f"Commit of each suite: {tables.commits(suites)}.",
        "### Where a peer is faster than the op",
        tables.losses(suites),
        "Every row, with every contender: [benchmarks/results](benchmarks/results/README.md).",
    ]
    return "\n\n".join(parts)


def _drawn(name: str, suites: dict[str, Results]) -> bool:
    needs = {"roofline": ("one_target",), "over_targets": ("few_targets", "many_targets")}
    return all(suite in suites for suite in needs.get(name, (name,)))


def full(suites: dict[str, Results]) -> str:
    """Every row of every suite."""
    parts = [
        "# Results",
        "Written by `python -m benchmarks` from the JSON files beside it. Times are medians of "
        "interleaved rounds. A peer's figure is its time as a multiple of the first of ours that "
        "the table has (the eager op where there is one); in brackets is the gradient's relative "
        "error against a wider type. In `accuracy` the two figures are the loss's and the "
        "gradient's errors in epsilons. The roofline is the slower of reading all inputs once at "
        "the bandwidth and, where it was measured, the arithmetic at the multiply-add peak.",
    ]
    for name, results in suites.items():
        parts += [f"## {name}", f"{results.mode}: {tables.about(results)}", tables.suite(results)]
        failures = sorted(
            {f"- {who}: {why}" for row in results.rows for who, why in row.failures.items()}
        )
        if failures:
            parts += ["Left out:", "\n".join(failures)]
    return "\n\n".join(parts) + "\n"
