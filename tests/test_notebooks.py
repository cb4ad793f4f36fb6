"""The notebooks run from top to bottom without an error or a warning; those that are there were run, and are small."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from kp.reporting.pages import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MINUTES = 3  # that a reader of a notebook waits at most, on a quiet machine with two cores; a busy CI gets more


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def test_there_are_five_chapters():
    names = [path.stem for path in NOTEBOOKS]
    assert names == ["1_worlds", "2_geometry", "3_loss", "4_training", "5_results"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_outputs_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs(notebook)) >= 5
    assert path.stat().st_size < 1e6
    assert "image/png" not in path.read_text()  # larger
    assert not re.search(r"/(home|root|tmp|work|Users)/", path.read_text()), "a path of the machine it was run on"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_says_nothing_on_stderr(path):
    notebook = nbformat.read(path, as_version=4)
    pictures = [sorted(output.get("data", {})) for output in outputs(notebook) if output.output_type != "stream"]
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=4 * 60 * MINUTES, resources=resources).execute()
    assert not [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    again = [sorted(output.get("data", {})) for output in outputs(notebook) if output.output_type != "stream"]
    assert again == pictures


def test_the_stored_chapter_on_results_is_of_the_weights_that_ship():
    notebook = nbformat.read(ROOT / "notebooks" / "5_results.ipynb", as_version=4)
    printed = "".join(output.get("text", "") for output in outputs(notebook))
    assert "weights that ship here: yes" in printed, "run the notebooks again"
