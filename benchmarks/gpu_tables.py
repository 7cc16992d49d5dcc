"""What benchmarks/gpu.py measured, as the documentation's tables: a function of its JSON alone."""

from __future__ import annotations

from collections.abc import Iterable

from .goals import verdicts
from .results import GRAPH, KERNELS, RESULTS, Results, Row, load_all

CARDS = RESULTS / "gpu"  # a folder of suites for each


def about(results: Results) -> str:
    """The card, its driver, and everything else that the figures depend on."""
    run = results.run
    versions = ", ".join(f"{name} {v}" for name, v in run["versions"].items())
    dirty = ", with changes" if run["dirty"] else ""
    return (
        f"{run['gpu']}, driver {run['driver']}; {versions}; "
        f"commit {run['commit']}{dirty}, {run['date'][:10]}."
    )


def passes(results: Results) -> str:
    """One loss and gradient by `kernels.cuda`, X of 1 GiB, beside the best read of as much."""

    def line(row: Row) -> str:
        peer = row.best()
        cells = (
            _shape(row),
            row.case["route"],
            _us(row.time(KERNELS)),
            f"{row.fraction(KERNELS):.2f}",
            f"{peer} {_us(row.time(peer))}" if peer else "",
            _ratio(row.ratio(peer, KERNELS)) if peer else "",
        )
        return f"| {' | '.join(cells)} |"

    head = "| | route | µs | of the read | the best peer, µs | times as fast |"
    return _table(head, map(line, results.rows))


def trainings(results: Results) -> str:
    """Gradient descents, float32, from the call to the end of the wait."""

    def line(row: Row) -> str:
        graph = row.time("PyTorch graph")
        cells = (
            f"{row.case['n']:,} x {row.case['d']}, {row.case['steps']} steps",
            _us(row.time(KERNELS)),
            f"{row.extra['step_on_gpu'][KERNELS] * 1e6:.1f}",
            _us(graph),
            _us(row.time("PyTorch")),
            _ratio(graph / row.time(KERNELS)),
        )
        return f"| {' | '.join(cells)} |"

    head = (
        "| | µs | µs a step on the GPU | PyTorch as one CUDA graph, µs | PyTorch, µs "
        "| times as fast as the graph |"
    )
    return _table(head, map(line, results.rows))


def ops(results: Results) -> str:
    """The TensorFlow op against the two products, each in a tf.function, X of 1 GiB."""

    def line(row: Row) -> str:
        cells = []
        for suffix in ("", " without TF32"):
            ours, peer = GRAPH + suffix, "TensorFlow tf.function" + suffix
            if ours in row.times:
                times = f"{_us(row.time(ours))} / {_us(row.time(peer))}"
                cells.append(f"{times} | {_ratio(row.ratio(peer, ours))}")
            else:
                cells.append(" | ")
        errors = [_gradient_error(row, name) for name in (GRAPH, "TensorFlow tf.function")]
        error = " / ".join(f"{e:.0e}" for e in errors)
        return f"| {_shape(row)} | {cells[0]} | {error} | {cells[1]} |"

    head = (
        "| | µs, op / TensorFlow | times as fast | error of the gradient | both without TF32, µs "
        "| times as fast |"
    )
    return _table(head, map(line, results.rows))


def gpu() -> str:
    """Everything measured on every card, and what was asked for."""
    parts = []
    for card in sorted(CARDS.iterdir()):
        suites = load_all(card)
        for name, title, table in (
            ("gpu_passes", "One loss and gradient, X of 1 GiB:", passes),
            ("gpu_ops", "The TensorFlow op, X of 1 GiB, from Python:", ops),
            ("gpu_trainings", "Whole trainings, float32:", trainings),
        ):
            if name not in suites:
                continue
            results = suites[name]
            where = [about(results)]
            if name == "gpu_passes":
                fastest = min(
                    (n for n in results.rows[0].times if n.startswith("read ")),
                    key=results.rows[0].time,
                )
                bandwidth = results.rows[0].bandwidth() / 1e9
                where.append(f"The best read is {bandwidth:,.0f} GB/s, {fastest[len('read ') :]}.")
                where.append("A ratio below 1, where a peer is faster, is in bold.")
            parts += [" ".join(where), title, table(results)]
        lines = [f"| {v.goal} | {v.asked} | {v.figure} | {_met(v.met)} |" for v in verdicts(suites)]
        parts.append(_table("| goal | asked | measured | |", lines))
    return "\n\n".join(parts)


def _met(met: bool) -> str:
    return "met" if met else "**missed**"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.2f}**"


def _shape(row: Row) -> str:
    aligned = ", X not aligned" if row.case.get("unaligned") else ""
    return f"d = {row.case['d']:,}, k = {row.case['k']}, {row.case['dtype']}{aligned}"


def _gradient_error(row: Row, name: str) -> float:
    """A run from before this schema kept no error of the loss."""
    found = row.errors.get(name)
    return float(row.extra["gradient_error"][name] if found is None else found.grad)


def _table(head: str, rows: Iterable[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * columns, *rows])
