"""Whole solutions as tables: digits, time and extra memory of each contender side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .results import OURS, Results, Row
from .tables import about, markdown, seconds


def solvers(suites: Mapping[str, Results]) -> str:
    """Every part of the suite, and the machine."""
    results = suites.get("solvers")
    if results is None:
        return "Not measured yet."
    parts = [f"Measured on {about(results)}"]
    for title, what, table in (
        ("Certified digits", "set", _digits),
        ("A million rows and offsets of 1000 deviations", "condition", _conditioned),
        ("Penalties", "20 penalties", _contenders),
        ("Sources", "sources", _contenders),
        ("The Gram matrix alone", "Gram matrix alone", _gram),
    ):
        rows = [r for r in results.rows if what in (r.case.get("what"), *r.case)]
        if rows:
            parts += [f"### {title}", table(rows)]
    return "\n\n".join(parts)


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


def _gram(rows: Sequence[Row]) -> str:
    def rate(row: Row, name: str) -> str:
        return f"{seconds(row.time(name))}, {row.flops / row.peak() / row.time(name):.2f}"

    lines = []
    for row in rows:
        names = [n for n in row.times if not n.startswith("fma ")]
        task = f"{row.case['n']:,} × {row.case['d']}"
        lines.append([task, *(rate(row, n) for n in names)])
    header = ["time, share of the multiply-adds' peak", *map(_short, names)]
    return markdown(header, lines)


def _short(name: str) -> str:
    return name.removeprefix(f"{OURS} ") if name.startswith(OURS) else name
