"""Markdown from results: pure functions, so that what is committed can be checked."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .goals import verdicts
from .results import EAGER, KERNELS, OURS, Results, Row

# A peer's family as the columns name it: the best of what its library offers.
FAMILIES = ("TensorFlow", "NumPy", "PyTorch", "JAX")

# The README's rows: a suite and what chooses its row. The last is one that peers win.
_HEADLINE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("one_target", {"d": 5, "k": 1}),
    ("one_target", {"d": 100, "k": 1}),
    ("one_target", {"d": 4096, "k": 1}),
    ("few_targets", {"d": 1000, "k": 8}),
    ("many_targets", {"d": 1000, "k": 128}),
    ("eager_call", {"d": 2, "k": 1}),
)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, the others align right."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|--:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def seconds(value: float) -> str:
    """Three digits with a fitting unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


def about(results: Results) -> str:
    """The machine, and everything else that the figures depend on, in a sentence or two."""
    run = results.run
    caches = ", ".join(f"{level} {_kib(size)}" for level, size in run["caches"].items())
    versions = ", ".join(f"{name} {v}" for name, v in run["versions"].items())
    dirty = ", with changes" if run["dirty"] else ""
    load = run.get("load", 0)
    busy = f" beside other programs (load {load:g})" if load > run["cores"] else ""
    return (
        f"{run['cpu']}, {run['threads']} of {run['cores']} cores{busy}, {caches}, {run['isa']}; "
        f"{versions}; commit {run['commit']}{dirty}, {run['date'][:10]}."
    )


def commits(suites: Mapping[str, Results]) -> str:
    """Says which commit each suite's figures are of: they need not be of one run."""
    measured: dict[str, list[str]] = {}
    for name, results in suites.items():
        measured.setdefault(results.run["commit"], []).append(name)
    return "; ".join(f"{', '.join(names)}: {commit}" for commit, names in measured.items())


def bandwidths(results: Results) -> str:
    """The range over the rows: a virtual machine's neighbours make it swing."""
    found = sorted(row.bandwidth() / 1e9 for row in results.rows)
    middle = statistics.median(found)
    return f"{found[0]:.0f} to {found[-1]:.0f} GB/s over the rows, {middle:.0f} in the median"


def _kib(size: str) -> str:
    kib = int(size[:-1]) if size.endswith("K") else 0
    if not kib:
        return size
    return f"{kib // 1024} MiB" if kib >= 1024 else f"{kib} KiB"


def line(row: Row) -> str:
    """A row while it is measured."""
    parts, main = [row.label], _main(row)
    if main:
        parts.append(f"{main.removeprefix(OURS).strip()} {seconds(row.time(main))}")
        if any(name.startswith("read ") for name in row.times):
            parts.append(f"{row.fraction(main):.2f} of {row.bandwidth() / 1e9:.1f} GB/s")
        parts += [f"{b} {row.ratio(b, main):.2f}×" for f in FAMILIES if (b := row.best(f))]
    return "; ".join(parts)


def headline(suites: Mapping[str, Results]) -> str:
    """Six problems, and each library's best way as a multiple of ours; bold where it is faster."""
    rows = []
    for name, case in _HEADLINE:
        found = suites[name].rows if name in suites else []
        row = next((r for r in found if _plain_case(r, case)), None)
        if row is None:
            continue
        n, d, k = (row.case[size] for size in "ndk")
        cells = [f"{n:,} × {d:,}, {k} target{'s' * (k > 1)}", seconds(row.time(EAGER))]
        for family in FAMILIES:
            best = row.best(family)
            ratio = f"{row.ratio(best):.2g}×" if best else ""
            cells.append(f"**{ratio}**" if best and row.ratio(best) < 1 else ratio)
        rows.append(cells)
    return markdown(("rows × features", "linreg_ops", *FAMILIES), rows)


def _plain_case(row: Row, case: Mapping[str, Any]) -> bool:
    """Whether the row is float32, has the sizes of `case`, and nothing that is special."""
    same = all(row.case[key] == value for key, value in case.items())
    special = row.case.get("intercept") or row.case.get("sample_weight") or row.case.get("beside")
    return same and row.case["dtype"] == "float32" and not special


def descents(suites: Mapping[str, Results]) -> str:
    """Whole trainings: ours as one op, and each library's best loop as a multiple of it."""
    if "descent" not in suites:
        return "Not measured yet."
    rows = []
    for row in suites["descent"].rows:
        if row.case.get("momentum") or EAGER not in row.times:
            continue
        cells = [f"{row.case['n']:,} × {row.case['d']:,}, {row.case['steps']} steps"]
        cells.append(seconds(row.time(EAGER)))
        cells += [f"{row.ratio(b):.2g}×" if (b := row.best(f)) else "" for f in FAMILIES]
        rows.append(cells)
    return markdown(("rows × features", "linreg_ops", *FAMILIES), rows)


def keras(suites: Mapping[str, Results]) -> str:
    """An epoch of stock Keras beside the fused ones, each with or without XLA; bold: stock wins."""
    results = suites.get("keras")
    if results is None:
        return "Not measured yet."
    rows = []
    for row in results.rows:
        n, d, k, batch = (row.case[key] for key in ("n", "d", "k", "batch"))
        stock = row.best("TensorFlow Keras")
        if stock is None:
            continue
        cells = [f"{n:,} × {d:,} → {k}", f"{batch:,}", seconds(row.time(stock))]
        for name in ("patch", "LinearRegression"):
            best = min((n for n in row.times if n.startswith(f"{OURS} {name}")), key=row.time)
            ratio = f"{row.ratio(stock, best):.2f}×"
            cells += [
                seconds(row.time(best)),
                f"**{ratio}**" if row.ratio(stock, best) < 1 else ratio,
            ]
        rows.append(cells)
    ours = [cell for name in ("patch", "LinearRegression") for cell in (f"`{name}`", "ratio")]
    header = ("rows × features → targets", "batch", "stock", *ours)
    return f"Measured on {about(results)}\n\n" + markdown(header, rows)


def goals(suites: dict[str, Results]) -> str:
    rows = [
        (v.goal, v.asked, v.figure.replace("|", "/"), "met" if v.met else "**missed**")
        for v in verdicts(suites)
    ]
    return markdown(("goal", "asked", "measured", ""), rows)


def one_target(results: Results, dtype: str = "float32") -> str:
    """Over d: our time against the machine's bandwidth and against each library's best."""
    rows = []
    for row in results.rows:
        case = row.case
        if case["dtype"] != dtype or case["intercept"] or case["sample_weight"]:
            continue
        cells = [f"{case['d']}", seconds(row.time(EAGER)), f"{row.gigabytes_per_second(EAGER):.1f}"]
        cells += [f"{row.fraction(EAGER):.2f}", _error(row, EAGER)]
        for family in FAMILIES:
            best = row.best(family)
            cells.append(f"{row.ratio(best):.2f}× ({_error(row, best)})" if best else "")
        rows.append(cells)
    header = ("d", "time", "GB/s of X", "of the bandwidth", "error", *FAMILIES)
    return markdown(header, rows)


def losses(suites: dict[str, Results]) -> str:
    """Where some library is faster than the op: how often, and by how much at the worst."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for name, results in suites.items():
        for row, family in itertools.product(results.rows, FAMILIES):
            best = row.best(family)
            if best and EAGER in row.times and row.ratio(best) < 1:
                groups.setdefault((name, family), []).append(row)
    if not groups:
        return "Nowhere in this run."
    rows = []
    for (name, family), slower in sorted(groups.items()):
        worst = min(slower, key=lambda row: row.ratio(row.best(family) or ""))
        best = worst.best(family) or ""
        kernels = [
            row.ratio(row.best(family) or "", KERNELS) for row in slower if KERNELS in row.times
        ]
        rows.append(
            (
                name,
                family,
                f"{len(slower)} of {len(suites[name].rows)}",
                worst.label,
                f"{seconds(worst.time(best))}, ours {seconds(worst.time(EAGER))}",
                f"{worst.ratio(best):.2f}×",
                f"{sum(ratio < 1 for ratio in kernels)} rows" if kernels else "",
            )
        )
    header = ("suite", "faster", "rows", "the worst", "its time", "ratio", "raw kernels slower too")
    return markdown(header, rows)


def suite(results: Results) -> str:
    """Every row in full: ours, then each peer's time as a multiple of ours, errors beside."""
    rows = results.rows
    names = list(dict.fromkeys(n for row in rows for n in (*row.times, *row.errors)))
    ours = [n for n in names if n.startswith(OURS)]
    peers = [
        n
        for n in names
        if n in {p for r in rows for p in (*r.peers(), *r.errors)} | {"tf.matmul alone"}
    ]
    peers = [n for n in peers if n not in ours]
    has_reads = any(n.startswith("read ") for n in names)
    header = ["problem", *ours]
    header += ["GB/s of X", "bandwidth, GB/s", "of the roofline"] if has_reads else []
    lines = []
    for row in rows:
        cells = [row.label, *(_cell(row, n) for n in ours)]
        if has_reads:
            main = _main(row)
            cells.append(f"{row.gigabytes_per_second(main):.1f}" if main else "")
            cells.append(f"{row.bandwidth() / 1e9:.1f}")
            cells.append(f"{row.fraction(main):.2f}" if main else "")
        lines.append([*cells, *(_ratio_cell(row, n) for n in peers)])
    return markdown([*header, *peers], lines)


def _main(row: Row) -> str | None:
    """The row's own contender: the eager op, or the best of ours where there is none."""
    ours = [n for n in row.times if n.startswith(OURS)]
    return EAGER if EAGER in ours else min(ours, key=row.time, default=None)


def _cell(row: Row, name: str) -> str:
    time = seconds(row.time(name)) if name in row.times else ""
    error = _error(row, name)
    return f"{time} ({error})" if time and error else time or error


def _ratio_cell(row: Row, name: str) -> str:
    main = _main(row)
    if name not in row.times or not main:
        return _error(row, name)
    error = _error(row, name)
    ratio = f"{row.ratio(name, main):.2f}×"
    return f"{ratio} ({error})" if error else ratio


def _error(row: Row, name: str) -> str:
    """The gradient's; the accuracy suite, which counts in epsilons, shows the loss's too."""
    if name not in row.errors:
        return ""
    error = row.errors[name]
    if row.extra.get("unit") == "epsilon":
        return f"{error.loss:.2g}, {error.grad:.2g}"
    return f"{error.grad:.0e}".replace("e-0", "e-")
