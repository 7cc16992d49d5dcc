"""`python -m benchmarks`: measure, save JSON, and write the report from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from . import report as reporting
from . import tables
from .against import run as compare_builds
from .harness import Mode, Session
from .machine import describe, threads_available
from .measure import Turn
from .peers import installed, limit_threads
from .results import RESULTS, Results, load_all
from .suites import SUITES


def main(
    suite: Annotated[list[str] | None, typer.Option(help="Only these suites.")] = None,
    quick: Annotated[
        bool, typer.Option(help="Two minutes, not thirty; not for the documentation.")
    ] = False,
    report: Annotated[
        bool, typer.Option(help="Measure nothing: print tables and draw plots from the JSON.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Threads for everyone. Default: all.")] = None,
    peers: Annotated[list[str] | None, typer.Option(help="Only these libraries.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the JSON files.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Only the kernels, beside those of another build: its folder."),
    ] = None,
    alone: Annotated[
        str, typer.Option(help="A command that runs another alone here, as `flock FILE`.")
    ] = "",
) -> None:
    """Measure linreg_ops beside every peer installed, on the same arrays.

    A full run writes benchmarks/results/*.json, from which `python docs/generate.py` makes the
    documentation's tables and pictures. A quick one writes build/benchmarks/quick. Both print
    goals and losses, and draw pictures in build/benchmarks.
    """
    if against:
        mode = Mode.quick() if quick else Mode.full()
        with Turn(alone).case():
            slower = compare_builds(
                against,
                seconds=mode.seconds,
                large=mode.large,
                threads=threads or threads_available(),
            )
        raise typer.Exit(1 if slower else 0)
    folder = out or (Path("build/benchmarks/quick") if quick else RESULTS)
    unknown = set(suite or ()) - set(SUITES)
    if unknown:
        raise typer.BadParameter(f"unknown suite {sorted(unknown)}; there are {tuple(SUITES)}")
    if not report:
        _measure(
            list(suite or SUITES),
            quick,
            threads or threads_available(),
            peers,
            folder,
            alone,
        )
    reporting.show(load_all(folder), Path("build/benchmarks") if folder == RESULTS else folder)
    if folder == RESULTS and not report:
        typer.echo("The documentation shows this run after: python docs/generate.py")


def _measure(
    suites: list[str],
    quick: bool,
    threads: int,
    libraries: list[str] | None,
    folder: Path,
    alone: str,
) -> None:
    limit_threads(threads)
    mode = Mode.quick() if quick else Mode.full()
    for name in suites:
        session = Session(mode, installed(libraries), threads, Turn(alone))
        start, rows = time.monotonic(), []
        machine = describe(threads)
        for row in SUITES[name](session):
            rows.append(row)
            typer.echo(f"{name} {len(rows)}: {tables.line(row)}")
            run = machine | {"seconds": round(time.monotonic() - start)}
            path = Results(name, mode.name, run, rows).save(folder)  # whatever comes next
        session.turn.release()
        typer.echo(f"{path}: {len(rows)} rows in {run['seconds']} s")


if __name__ == "__main__":
    typer.run(main)
