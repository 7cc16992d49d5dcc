"""Writes what README.md and the documentation show of measurements and test runs.

    python docs/generate.py            every table and picture
    python docs/generate.py --check    only says what is out of date, and fails if anything is

A page has places, `<!-- generated: goals -->` to `<!-- end -->`, and what stands in one is a
function of committed JSON: benchmarks/results/*.json, which `python -m benchmarks` writes,
benchmarks/results/gpu/*/*.json, which `python -m benchmarks.gpu` writes,
tests/composability.json and tests/cuda_routes.json, which the programs of these names write, and
.ci/matrix.json, which `python .ci/matrix.py --write` writes. No other program writes into a page.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: `import linreg_ops` still finds the installed package first

from benchmarks import gpu_tables, plots, report  # noqa: E402
from benchmarks.results import load_all  # noqa: E402

IMAGES = ROOT / "docs" / "images"
PLACE = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def composability() -> str:
    """Every way to compose the ops: which tests show it, and what stock TensorFlow answers."""
    rows = json.loads((ROOT / "tests" / "composability.json").read_text())
    lines = ["| | `linreg_ops` | `tf.nn.l2_loss(tf.matmul(x, w) - y)` |", "|---|---|---|"]
    for row, cells in rows.items():
        files = ", ".join(f"`{name}`" for name in cells["files"])
        lines.append(f"| {row} | {cells['ours']} {files} | {cells['stock']} |")
    return "\n".join(lines)


def cuda_routes() -> str:
    """What each route of the CUDA kernels takes of a multiprocessor, by count."""
    lines = [
        "| d, k | route | instructions a clock | budget | registers | warps | KB in flight |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in json.loads((ROOT / "tests" / "cuda_routes.json").read_text()):
        dtype = row["dtype"]
        cells = (
            f"{row['d']:,}, {row['k']}" + ("" if dtype == "float32" else f", {dtype}"),
            row["route"],
            f"{row['instructions_per_clock']:.2f}",
            f"{row['budget']:g}",
            f"{row['registers']}",
            f"{row['warps']}",
            f"{row['bytes_in_flight'] / 1024:.0f}" if row["bytes_in_flight"] else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def matrix() -> str:
    """Every TensorFlow with every Python: what the tests said, at which commit."""
    rows = json.loads((ROOT / ".ci" / "matrix.json").read_text())
    columns = ("tensorflow", "python", "numpy", "keras", "tests", "commit")
    lines = [
        "| TensorFlow | Python | NumPy | Keras | tests | commit |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cells[column] for column in columns)} |" for cells in rows.values()]
    return "\n".join(lines)


def blocks() -> dict[str, Callable[[], str]]:
    """What a page can ask for, by name."""
    suites = load_all()
    measured = {name: lambda block=block: block(suites) for name, block in report.BLOCKS.items()}
    ours = (composability, cuda_routes, matrix, gpu_tables.gpu)
    return {**measured, **{block.__name__.replace("_", "-"): block for block in ours}}


def fill(text: str, blocks: dict[str, Callable[[], str]]) -> str:
    """`text` with every place filled with its block."""

    def filled(place: re.Match[str]) -> str:
        begin, name, end = place.groups()
        if name not in blocks:
            raise ValueError(f"no block {name!r}; there are {', '.join(sorted(blocks))}")
        return f"{begin}\n{blocks[name]().strip()}\n\n{end}"

    if text.count("<!-- generated: ") != len(PLACE.findall(text)):
        raise ValueError("a place that begins with <!-- generated: NAME --> lacks its <!-- end -->")
    return PLACE.sub(filled, text)


def outputs() -> Iterator[tuple[Path, bytes]]:
    """Every generated file as it ought to be."""
    known = blocks()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text()
        if "<!-- generated: " in text:
            yield page, fill(text, known).encode()
    with tempfile.TemporaryDirectory() as folder:
        for picture in plots.draw(load_all(), Path(folder)):
            yield IMAGES / picture.name, picture.read_bytes()


def main() -> int:
    """Writes, or with --check compares; 1 if something is out of date."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    stale = 0
    for path, content in outputs():
        if not path.exists() or path.read_bytes() != content:
            stale += 1
            print("out of date:" if check else "written:", path.relative_to(ROOT))
            if not check:
                path.write_bytes(content)
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
