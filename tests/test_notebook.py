"""The notebook runs from top to bottom; its own assertions say whether the five ways agree."""

import base64
import re

import nbformat
import pytest
from nbclient import NotebookClient


@pytest.fixture
def path(repository):
    return repository / "examples" / "getting_started.ipynb"


def outputs(notebook, kind):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [out for cell in cells for out in cell.outputs if out.output_type == kind]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Jupyter's own
def test_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    [summary] = [out.text for out in outputs(notebook, "stream") if "loss" in out.text]
    assert len(summary.splitlines()) == 5
    pictures = [out for out in outputs(notebook, "execute_result") if "image/png" in out.data]
    assert len(pictures) == 9
    for picture in pictures:
        assert base64.b64decode(picture.data["image/png"])[1:4] == b"PNG"


def test_is_committed_with_its_pictures_and_nothing_else(path):
    """Readers see it without running it, and see no path of the machine that ran it."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000
    results = outputs(notebook, "execute_result")
    assert sum("image/png" in out.data for out in results) == 9
    assert not outputs(notebook, "error")
    texts = [out.text for out in outputs(notebook, "stream")]
    texts += [out.data.get("text/plain", "") for out in results]
    assert not [text for text in texts if re.search(r"(^|[\s'\"(])/\w|0x[0-9a-f]{6}", text)]
    assert not [out for out in outputs(notebook, "stream") if out.name == "stderr"]
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
