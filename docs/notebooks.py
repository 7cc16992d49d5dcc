"""Executes the notebooks of examples/ and stores their outputs in them.

    python docs/notebooks.py                     all
    python docs/notebooks.py getting_started     this one

What is stored is what came out, less TensorFlow's chatter on stderr. A cell's `alt` in its metadata
describes its picture to those who do not see it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def execute(notebook: nbformat.NotebookNode, folder: str | Path) -> None:
    """Runs every cell in `folder`, from none of the outputs that are there."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()


def main() -> int:
    """Executes, and writes."""
    for name in sys.argv[1:] or [path.stem for path in sorted(EXAMPLES.glob("*.ipynb"))]:
        path = EXAMPLES / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, folder)
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # when it ran, to the microsecond
            if cell.cell_type != "code":
                continue
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.metadata["image/png"] = {"alt": cell.metadata["alt"]}
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
