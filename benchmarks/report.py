"""The tables as blocks of Markdown, for the pages that docs/generate.py fills and the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import plots, solver_tables, tables
from .results import Results

Suites = dict[str, Results]


def machine(suites: Suites) -> str:
    """Where the figures are from, and the commit of each suite: they need not be of one run."""
    if not suites:
        return "Not measured yet."
    some = suites.get("one_target", next(iter(suites.values())))
    return f"Measured on {tables.about(some)} Commit of each suite: {tables.commits(suites)}."


def one_target(suites: Suites) -> str:
    """Every width at one target, beside the machine's own reading of the same memory."""
    results = suites.get("one_target")
    if results is None:
        return "Not measured yet."
    return (
        f"The bandwidth was {tables.bandwidths(results)}.\n\n### float32\n\n"
        f"{tables.one_target(results)}\n\n### float64\n\n{tables.one_target(results, 'float64')}"
    )


def rows(suites: Suites) -> str:
    """Every row of every suite."""
    parts = []
    for name, results in suites.items():
        parts += [f"## {name}", f"{results.mode}: {tables.about(results)}", tables.suite(results)]
        failures = sorted(
            {f"- {who}: {why}" for row in results.rows for who, why in row.failures.items()}
        )
        if failures:
            parts += ["Left out:", "\n".join(failures)]
    return "\n\n".join(parts)


BLOCKS: dict[str, Callable[[Suites], str]] = {
    "headline": tables.headline,
    "descents": tables.descents,
    "machine": machine,
    "one-target": one_target,
    "keras": tables.keras,
    "goals": tables.goals,
    "losses": tables.losses,
    "solvers": solver_tables.solvers,
    "penalties": solver_tables.penalties,
    "on-disk": solver_tables.on_disk,
    "rows": rows,
}


def show(suites: Suites, folder: Path) -> None:
    """Plots in `folder`; on the terminal the goals and losses, as no row fits its width."""
    from rich.console import Console
    from rich.markdown import Markdown

    plots.draw(suites, folder)
    text = "\n\n".join(["# Goals", tables.goals(suites), "# Losses", tables.losses(suites)])
    Console().print(Markdown(text))
