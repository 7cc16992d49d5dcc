"""Whole solutions as tables: digits, time and extra memory of each contender side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .results import OURS, Results, Row
from .tables import about, markdown, seconds


def solvers(suites: Mapping[str, Results]) -> str:
    """Coefficients: correct digits, then time and memory of a large problem."""
    results = suites.get("solvers")
    if results is None:
        return "Not measured yet."
    nist = [row for row in results.rows if "set" in row.case]
    large = [row for row in results.rows if "condition" in row.case]
    tables = [_digits(nist), _conditioned(large)] if large else [_digits(nist)]
    return "\n\n".join([f"Measured on {about(results)}", *tables])


def penalties(suites: Mapping[str, Results]) -> str:
    """Penalties chosen, and sources read."""
    results = suites.get("penalties")
    if results is None:
        return "Not measured yet."
    return f"Measured on {about(results)}\n\n" + _contenders(results.rows)


def on_disk(suites: Mapping[str, Results]) -> str:
    """How fast a file is read, with how much memory, and what a kill cost."""
    results = suites.get("on_disk")
    if results is None:
        return "Not measured yet."
    row = results.rows[0]
    name = f"{OURS} RidgeCV.fit_dataset"
    time, n = row.time(name), row.case["n"]
    rest = row.time(f"{OURS} the rest, after SIGKILL")
    lines = [
        ["X", f"{row.x_bytes / 1e9:.1f} GB, {n:,} × {row.case['d']} float16"],
        ["the whole fit", seconds(time)],
        ["rows a second", f"{n / time:,.0f}"],
        ["bytes of X a second", f"{row.gigabytes_per_second(name):.2f} GB"],
        ["memory beside the file's cache", f"{row.extra['anonymous_bytes'] / 1e6:,.0f} MB"],
        ["killed by SIGKILL after", f"{row.extra['killed_after_seconds']} s"],
        ["the rest, from the checkpoint", seconds(rest)],
        ["the same bits", "yes" if row.extra["same_bits"] else "**no**"],
    ]
    return f"Measured on {about(results)}\n\n" + markdown(["", "measured"], lines)


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(n for row in rows for n in (*row.errors, *row.failures)))


def _digits(rows: Sequence[Row]) -> str:
    names = _names(rows)
    lines = []
    for row in rows:
        best = max(row.digits(name) for name in names if name in row.errors)
        cells = [
            f"**{row.digits(n):.1f}**" if row.digits(n) > best - 0.05 else f"{row.digits(n):.1f}"
            for n in names
        ]
        lines.append([row.case["set"], *cells])
    return markdown(["correct digits", *map(_short, names)], lines)


def _conditioned(rows: Sequence[Row]) -> str:
    """Time, error and extra memory in a cell, the fastest who solve it in bold."""
    names = _names(rows)

    def cell(row: Row, name: str) -> str:
        if name in row.failures:
            return row.failures[name].split(":")[0]
        time = seconds(row.time(name))
        if name == min(row.right(), key=row.time, default=None):
            time = f"**{time}**"
        memory = row.extra["grown_bytes"][name] / row.x_bytes
        return f"{time}, {row.errors[name].grad:.0e}, {memory:.2f}"

    lines = [
        [f"{row.case['dtype']}, {row.case['condition']}", *(cell(row, n) for n in names)]
        for row in rows
    ]
    shape = f"{rows[0].case['n']:,} × {rows[0].case['d']}"
    return (
        f"X is {shape}. A cell is the time, the worst coefficient's relative error, and the extra "
        "memory in sizes of X; the fastest of those right to 10⁻⁶ is in bold.\n\n"
    ) + markdown(["", *map(_short, names)], lines)


def _contenders(rows: Sequence[Row]) -> str:
    """A row each, the times as multiples of the first one's of ours."""
    lines = []
    for row in rows:
        case = row.case
        task = f"{case['n']:,} × {case['d']}, {case['k']:,} targets"
        base = f"{OURS} memmap" if f"{OURS} memmap" in row.times else next(iter(row.times))
        for name, time in row.times.items():
            grown = f"{row.extra['grown_bytes'][name] / 1e6:,.0f} MB"
            ratio = f"{time.median / row.time(base):.2f}×"
            lines.append([task, name, seconds(time.median), ratio, grown])
        lines += [[task, name, why.split(":")[0], "", ""] for name, why in row.failures.items()]
    return markdown(["rows × features", "who", "time", "ratio", "extra memory"], lines)


def _short(name: str) -> str:
    return name.removeprefix(f"{OURS} ") if name.startswith(OURS) else name
