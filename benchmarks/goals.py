"""The goals, each with the figure that the results give it: met, or by how much it is missed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .results import EAGER, GRAPH, KERNELS, OURS, Error, Results, Row

Suites = dict[str, Results]


@dataclass(frozen=True)
class Verdict:
    """One line of the goals table."""

    goal: str
    asked: str
    figure: str
    met: bool


def verdicts(suites: Suites) -> list[Verdict]:
    """A goal whose suite was not run has no line."""
    return [v for name, judge in _JUDGES if name in suites for v in judge(suites[name])]


def _at_least(
    goal: str, asked: float, rows: Iterable[Row], figure: Callable[[Row], float | None], unit: str
) -> Iterator[Verdict]:
    """Every row's figure is at least `asked`; the line shows the worst and how many hold."""
    figures = [(value, row) for row in rows if (value := figure(row)) is not None]
    if not figures:
        return
    worst, row = min(figures, key=lambda pair: pair[0])
    good = sum(value >= asked for value, _ in figures)
    text = f"{good} of {len(figures)} rows; worst {worst:.2f}{unit} ({row.label})"
    yield Verdict(goal, f"≥ {asked:g}{unit}", text, good == len(figures))


def _fraction(row: Row) -> float | None:
    return row.fraction(EAGER) if EAGER in row.times else None


def _best_ratio(row: Row) -> float | None:
    best = row.best()
    return row.ratio(best) if best and EAGER in row.times else None


def _one_target(results: Results) -> Iterator[Verdict]:
    rows = results.rows
    yield from _at_least("One target: of the read bandwidth", 0.9, rows, _fraction, "")
    yield from _at_least("One target: against the best peer", 1.8, rows, _best_ratio, "×")


def _few_targets(results: Results) -> Iterator[Verdict]:
    rows = results.rows
    yield from _at_least("2-8 targets: of the roofline", 0.8, rows, _fraction, "")
    yield from _at_least("2-8 targets: against the best peer", 3.0, rows, _best_ratio, "×")


def _many_targets(results: Results) -> Iterator[Verdict]:
    yield from _at_least("Many targets: of the roofline", 0.8, results.rows, _fraction, "")
    bands = ((2.0, "k = 16", 16, 16), (1.3, "k = 32-128", 32, 128), (1.1, "k > 128", 129, 10**9))
    for asked, name, low, high in bands:
        rows = [row for row in results.rows if low <= row.case["k"] <= high]
        yield from _at_least(f"{name}: against the best peer", asked, rows, _best_ratio, "×")
    grown = [
        (row.extra["grown_bytes"][KERNELS] / row.extra["nk_bytes"], row)
        for row in results.rows
        if KERNELS in row.extra.get("grown_bytes", {}) and row.extra["nk_bytes"] >= 2**25
    ]
    if grown:
        share, row = max(grown, key=lambda pair: pair[0])
        mib = row.extra["grown_bytes"][KERNELS] / 2**20
        text = f"at most {share:.2f} of n × k: {mib:.1f} MiB ({row.label})"
        yield Verdict("Many targets: extra memory", "no n × k array", text, share < 0.5)


def _grid(results: Results) -> Iterator[Verdict]:
    def against(prefixes: tuple[str, ...], ours: str, above: float = 0.0) -> Any:
        def figure(row: Row) -> float | None:
            best = row.best(prefixes)
            if best is None or ours not in row.times or row.time(best) <= above:
                return None
            return row.ratio(best, ours)

        return figure

    others = ("NumPy", "PyTorch")
    for goal, figure in {
        "Any size: the op against TensorFlow": against(("TensorFlow",), EAGER),
        "Any size: the op against JAX": against(("JAX",), EAGER),
        "Any size: the op against NumPy and PyTorch over 20 µs": against(others, EAGER, 20e-6),
        "Any size: the raw kernels against NumPy and PyTorch": against(others, KERNELS),
        "Any size: the raw kernels against JAX": against(("JAX",), KERNELS),
    }.items():
        yield from _at_least(goal, 1.0, results.rows, figure, "×")


def _eager_call(results: Results) -> Iterator[Verdict]:
    for row in results.rows:
        matmul = row.times.get("tf.matmul alone")
        if matmul and EAGER in row.times:
            ours = row.time(EAGER)
            text = f"{ours * 1e6:.1f} µs beside {matmul.median * 1e6:.1f} µs"
            yield Verdict("An eager call at 50×2", "≤ tf.matmul there", text, ours <= matmul.median)


def _descent(results: Results) -> Iterator[Verdict]:
    plain = [row for row in results.rows if not row.case["momentum"] and EAGER in row.times]
    for row in plain:
        shape = (row.case["n"], row.case["d"], row.case["steps"])
        name = "Descent {}×{}, {} steps".format(*shape)
        ours, xla = row.time(EAGER), row.times.get("TensorFlow XLA loop")
        if shape == (50, 2, 50):
            yield Verdict(name, "≤ 25 µs", f"{ours * 1e6:.1f} µs", ours <= 25e-6)
        asked = {(1000, 10, 200): 10, (20_000, 50, 50): 5}.get(shape)
        if asked and xla:
            ratio = xla.median / ours
            text = f"{ratio:.1f}× ({ours * 1e6:.0f} µs)"
            yield Verdict(name, f"≥ {asked}× the XLA loop", text, ratio >= asked)
    for row in results.rows:
        if row.case["momentum"] and EAGER in row.times:
            same = next(r for r in plain if r.case["n"] == row.case["n"])
            cost = row.time(EAGER) / same.time(EAGER)
            yield Verdict("Descent: momentum", "no cost", f"{cost:.2f}× the time", cost <= 1.05)


def _half(results: Results) -> Iterator[Verdict]:
    single = {r.case["d"]: r for r in results.rows if r.case["dtype"] == "float32"}

    def per_byte(row: Row) -> float | None:
        """Bytes a second of all inputs, relative to float32's at the same d."""
        base = single.get(row.case["d"])
        if base is None or EAGER not in row.times or EAGER not in base.times:
            return None
        return row.fraction(EAGER) / base.fraction(EAGER)

    for dtype in ("float16", "bfloat16"):
        rows = [row for row in results.rows if row.case["dtype"] == dtype]
        yield from _at_least(f"{dtype} X: per byte, of float32's speed", 0.95, rows, per_byte, "")


def _threads(results: Results) -> Iterator[Verdict]:
    """The scalar path has no fused multiply-add, and so bits of its own."""
    odd, compared = [], set()
    for row in results.rows:
        digests = {n: d for n, d in row.extra["digests"].items() if "scalar" not in n}
        compared |= {name.removeprefix("linreg_ops ") for name in digests}
        if len(set(digests.values())) > 1:
            odd.append(row.label)
    text = f"{len(results.rows) - len(odd)} of {len(results.rows)} problems the same bits"
    text += f" ({'; '.join(sorted(compared))})" + (f"; not {odd[0]}" if odd else "")
    yield Verdict("The same bits", "any thread count and ISA", text, not odd and len(compared) > 3)


def _extremes(results: Results) -> Iterator[Verdict]:
    for verdict in _accuracy(results):
        yield replace(verdict, goal=f"{verdict.goal}, at the extremes")


def _accuracy(results: Results) -> Iterator[Verdict]:
    """Half an epsilon is what rounding the exact result may cost: nobody can be asked for less."""
    stock = "TensorFlow eager"
    for part, name in (("loss", "loss"), ("grad", "gradient")):
        rows = [row for row in results.rows if {EAGER, stock} <= row.errors.keys()]
        worse = [
            row.label
            for row in rows
            if _of(row.errors[EAGER], part) > max(0.5, _of(row.errors[stock], part))
        ]
        text = f"{len(rows) - len(worse)} of {len(rows)} cases"
        text += f"; not {worse[0]}" if worse else ""
        text += f" and {len(worse) - 1} more" if len(worse) > 1 else ""
        yield Verdict(f"Accuracy of the {name}", "≤ stock's error, or ½ epsilon", text, not worse)


def _solvers(results: Results) -> Iterator[Verdict]:
    yield from _nist(r for r in results.rows if "set" in r.case)
    conditioned = [r for r in results.rows if "condition" in r.case]
    ours = f"{OURS} LinearRegression"

    def speed(row: Row) -> float | None:
        right = row.right()
        best = min((n for n in right if n != ours), key=row.time, default=None)
        return None if best is None else row.ratio(best, ours) if ours in right else 0.0

    def memory(row: Row) -> float:
        return -1 - float(row.extra["grown_bytes"][ours]) / row.x_bytes

    yield from _at_least("Solutions: the fastest right to 10⁻⁶", 1.0, conditioned, speed, "×")
    worst = min(map(memory, conditioned), default=None)
    if worst is not None:
        yield Verdict("Solutions: memory, X included", "≤ 1.1 of X", f"{-worst:.2f}", worst >= -1.1)


def _penalties(results: Results) -> Iterator[Verdict]:
    probes = [r for r in results.rows if r.case["what"] == "20 penalties"]
    ours = f"{OURS} RidgeCV, a penalty a target, 5 folds"

    def speed(row: Row) -> float | None:
        best = row.best()
        return row.ratio(best, ours) if best else None

    yield from _at_least("Penalties by 5 folds: against the best peer", 5, probes, speed, "×")
    for row in probes[-1:]:
        grown = row.extra["grown_bytes"][ours]
        figure = f"{grown / 1e6:,.0f} MB, pages of the file included ({row.label})"
        yield Verdict("Penalties by 5 folds: extra memory", "< 1 GB", figure, grown < 1e9)
    for row in results.rows:
        for name in ("Parquet", "tf.data") if row.case["what"] == "sources" else ():
            ratio = row.ratio(f"{OURS} {name}", f"{OURS} memmap")
            yield Verdict(f"Sources: {name}", "≤ 1.3× a memmap", f"{ratio:.2f}×", ratio <= 1.3)


def _nist(rows: Iterable[Row]) -> Iterator[Verdict]:
    """At 14 digits printing and the last bit decide."""
    ours, short = f"{OURS} LinearRegression", []
    asked = {"NIST filip": 7.3, "NIST wampler5": 7.3}
    count = 0
    for row in rows:
        count += 1
        best = min(14.0, max(row.digits(name) for name in row.errors))
        if row.digits(ours) < max(best, asked.get(row.case["set"], 9.0)):
            short.append(f"{row.case['set']} {row.digits(ours):.1f} of {best:.1f}")
    text = f"{count - len(short)} of {count} sets" + "".join(f"; {line}" for line in short)
    yield Verdict("NIST: digits", "≥ the best peer's, and 9 (7.3)", text, not short)


def _of(error: Error, part: str) -> float:
    value: float = getattr(error, part)
    return value


def _gpu_passes(results: Results) -> Iterator[Verdict]:
    """float32 rows that are aligned; up to four targets memory is the limit."""
    rows = [r for r in results.rows if r.case["dtype"] == "float32" and not r.case["unaligned"]]

    def fraction(row: Row) -> float:
        return row.fraction(KERNELS)

    def ratio(row: Row) -> float | None:
        best = row.best()
        return row.ratio(best, KERNELS) if best else None

    one = [r for r in rows if r.case["k"] == 1]
    usual = [r for r in one if 2 <= r.case["d"] <= 16_384]
    few = [r for r in rows if 2 <= r.case["k"] <= 4]
    yield from _at_least("GPU, one target: of the best read", 0.95, one, fraction, "")
    yield from _at_least("GPU, d = 2-16384: against the best peer", 1.9, usual, ratio, "×")
    yield from _at_least("GPU, 2-4 targets: of the best read", 0.85, few, fraction, "")
    more = [r for r in rows if 5 <= r.case["k"] <= 16]
    yield from _at_least("GPU, 5-16 targets: against the best peer", 1.0, more, ratio, "×")


def _gpu_ops(results: Results) -> Iterator[Verdict]:
    def ratio(row: Row) -> float:
        return row.ratio("TensorFlow tf.function", GRAPH)

    yield from _at_least("GPU, the op: against TensorFlow", 1.0, results.rows, ratio, "×")


def _gpu_trainings(results: Results) -> Iterator[Verdict]:
    def a_step(row: Row) -> float:
        step: dict[str, float] = row.extra["step_on_gpu"]
        return min(t for n, t in step.items() if n != KERNELS) / step[KERNELS]

    yield from _at_least("GPU, a step: against the best peer", 5.0, results.rows, a_step, "×")


def _gram(results: Results) -> Iterator[Verdict]:
    def of_floor(row: Row) -> float | None:
        return row.fraction(KERNELS) if KERNELS in row.times else None

    wide = [row for row in results.rows if row.case["d"] >= 256]
    narrow = [row for row in results.rows if row.case["d"] <= 32]
    yield from _at_least("Gram of 256 columns or more: of the roofline", 0.85, wide, of_floor, "")
    yield from _at_least("Gram of 32 columns or fewer: of the roofline", 0.9, narrow, of_floor, "")


_JUDGES: list[tuple[str, Callable[[Results], Iterator[Verdict]]]] = [
    ("one_target", _one_target),
    ("few_targets", _few_targets),
    ("many_targets", _many_targets),
    ("grid", _grid),
    ("eager_call", _eager_call),
    ("descent", _descent),
    ("half", _half),
    ("gram", _gram),
    ("threads", _threads),
    ("accuracy", _accuracy),
    ("solvers", _solvers),
    ("penalties", _penalties),
    ("extremes", _extremes),
    ("gpu_passes", _gpu_passes),
    ("gpu_ops", _gpu_ops),
    ("gpu_trainings", _gpu_trainings),
]
