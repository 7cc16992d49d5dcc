"""The notebooks run from top to bottom; their own assertions say whether the ways agree.

What takes most of their time runs here on fewer rows, epochs and repetitions: the same lines, each
of which must still be there. `python docs/notebooks.py` runs them as they are.
"""

import base64
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "docs"))

from notebooks import execute  # noqa: E402

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SHORTER = {
    "getting_started": {
        "standard_normal((1_000_000, 10))": "standard_normal((20_000, 10))",
        "while sum(times) < 1 or": "while sum(times) < 0.01 or",
        "5e-7": "5e-7 * 50",  # the rate for so many rows
    },
    "linear_probe": {
        "rows, width, k = 200_000, 256, 100": "rows, width, k = 5_000, 256, 100",
        "epochs=15": "epochs=2",
    },
}


def shorten(notebook, replacements):
    for old, new in replacements.items():
        (cell,) = (cell for cell in notebook.cells if old in cell.source)
        assert cell.source.count(old) == 1
        cell.source = cell.source.replace(old, new)


def outputs(notebook):
    return [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]


def pictures(notebook):
    return [out for out in outputs(notebook) if "image/png" in out.get("data", {})]


def expected_pictures(notebook):
    return sum("plt.show()" in cell.source for cell in notebook.cells)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    stored = pictures(notebook)
    shorten(notebook, SHORTER[path.stem])
    execute(notebook, tmp_path)
    drawn = pictures(notebook)
    assert len(drawn) == len(stored) == expected_pictures(notebook) > 0
    for picture in drawn:
        assert base64.b64decode(picture.data["image/png"])[1:4] == b"PNG"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_with_what_came_out_and_nothing_else(path):
    """Readers see it without running it, and see no path of the machine that ran it."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000
    assert all(len(out.metadata["image/png"]["alt"]) > 20 for out in pictures(notebook))
    kinds = {(out.output_type, out.get("name")) for out in outputs(notebook)}
    assert kinds <= {("stream", "stdout"), ("display_data", None), ("execute_result", None)}
    texts = [out.get("text", "") for out in outputs(notebook)]
    texts += [out.get("data", {}).get("text/plain", "") for out in outputs(notebook)]
    assert not [text for text in texts if re.search(r"(^|[\s'\"(])/\w|0x[0-9a-f]{6}", text)]
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
