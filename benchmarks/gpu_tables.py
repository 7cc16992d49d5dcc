"""What benchmarks/gpu.py measured, as the documentation's tables: a function of its JSON alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "gpu"
BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
Row = dict[str, Any]


def _bytes(row: Row) -> int:
    """X and y, each once."""
    return int(row["n"] * (row["d"] + row["k"]) * BYTES[row["dtype"]])


def _best_peer(times: dict[str, float]) -> tuple[str, float]:
    return min(
        ((name, time) for name, time in times.items() if not name.startswith("ours")),
        key=lambda peer: peer[1],
    )


def _table(head: str, rows: Iterable[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * columns, *rows])


def _shape(row: Row) -> str:
    aligned = "" if row.get("aligned", True) else ", X not aligned"
    return f"d = {row['d']:,}, k = {row['k']}, {row['dtype']}{aligned}"


def passes(result: dict[str, Any]) -> str:
    """One loss and gradient by `kernels.cuda`, X of 1 GiB."""

    def line(row: Row) -> str:
        ours = row["us"]["ours"]
        peer, time = _best_peer(row["us"])
        read = _bytes(row) / ours / 1e3 / result["read_gb_s"]
        before = f"{row['us_before']:,.0f}" if "us_before" in row else ""
        ratio = f"{time / ours:.2f}" if time >= ours else f"**{time / ours:.2f}**"
        cells = (_shape(row), f"{ours:,.0f}", f"{read:.2f}", f"{peer} {time:,.0f}", ratio, before)
        return f"| {' | '.join(cells)} |"

    head = "| | µs | of the read | the best peer, µs | times as fast | µs of the earlier kernels |"
    return _table(head, map(line, result["passes"]))


def trainings(result: dict[str, Any]) -> str:
    """Gradient descents, float32, from the call to the end of the wait."""

    def line(row: Row) -> str:
        us, graph = row["us"], row["us"]["PyTorch graph"]
        cells = (
            f"{row['n']:,} x {row['d']}, {row['steps']} steps",
            f"{us['ours']:,.0f}",
            f"{row['us_per_step']['ours']:.1f}",
            f"{graph:,.0f}",
            f"{us['PyTorch']:,.0f}",
            f"{graph / us['ours']:.2f}",
        )
        return f"| {' | '.join(cells)} |"

    head = (
        "| | µs | µs a step on the GPU | PyTorch as one CUDA graph, µs | PyTorch, µs "
        "| times as fast as the graph |"
    )
    return _table(head, map(line, result["trainings"]))


def ops(result: dict[str, Any]) -> str:
    """The TensorFlow op against the two products, each in a tf.function, X of 1 GiB."""

    def line(row: Row) -> str:
        us, errors = row["us"], row["gradient_error"]
        cells = []
        for suffix in ("", " without TF32"):
            ours, peer = us.get("ours" + suffix), us.get("TensorFlow" + suffix)
            if ours is None:
                cells.append(" | ")
                continue
            ratio = f"{peer / ours:.2f}" if peer >= ours else f"**{peer / ours:.2f}**"
            cells.append(f"{ours:,} / {peer:,} | {ratio}")
        error = f"{errors['ours']:.0e} / {errors['TensorFlow']:.0e}"
        return f"| {_shape(row)} | {cells[0]} | {error} | {cells[1]} |"

    head = (
        "| | µs, op / TensorFlow | times as fast | error of the gradient | both without TF32, µs "
        "| times as fast |"
    )
    return _table(head, map(line, result["ops"]))


def gpu() -> str:
    """Everything measured on every GPU."""
    parts = []
    for file in sorted(RESULTS.glob("*.json")):
        result = json.loads(file.read_text())
        parts += [
            f"{result['gpu']}, driver {result['driver']}, PyTorch {result['pytorch']}, "
            f"TensorFlow {result['tensorflow']}, {result['date']}. "
            f"The best read is {result['read_gb_s']:,} GB/s, {result['read']}; "
            f"a copy moves {result['copy_gb_s']:,} GB/s. "
            "A ratio below 1, where a peer is faster, is in bold.",
            "One loss and gradient, X of 1 GiB:",
            passes(result),
            "The TensorFlow op, X of 1 GiB, from Python:",
            ops(result),
            "Whole trainings, float32:",
            trainings(result),
        ]
    return "\n\n".join(parts)
