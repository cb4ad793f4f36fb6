"""The notebooks run from top to bottom without an error or a warning; those that are there were run, and are small."""

import json
import re

import nbformat
import notebook_cells
import pytest
from forked import Forked
from nbclient import NotebookClient

from kp.reporting.pages import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MINUTES = 3  # that a reader of a notebook waits at most, on a quiet machine with two cores; a busy CI gets more


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def test_there_are_six_chapters():
    names = [path.stem for path in NOTEBOOKS]
    assert names == ["1_worlds", "2_geometry", "3_loss", "4_training", "5_results", "6_matching"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_outputs_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs(notebook)) >= 5
    assert path.stat().st_size < 1e6
    assert "image/png" not in path.read_text()  # larger
    assert not re.search(r"/(home|root|tmp|work|Users)/", path.read_text()), "a path of the machine it was run on"


def shown(notebook):
    """The media types of each output."""
    return [sorted(output.get("data", {})) for output in outputs(notebook) if output.output_type != "stream"]


FEWER = {  # numbers of a notebook that take long, and smaller ones that run the same code
    "1_worlds": {
        "range(1, 9)]": "range(1, 3)]",
        "render(16, (120, 160)": "render(3, (120, 160)",
        "render(48, (160, 160)": "render(9, (160, 160)",
        "sample(600, ": "sample(90, ",
        "COUNT = 7": "COUNT = 2",
        "seed=0), photographs)": "seed=0), {'scikit-image': photographs['scikit-image'][:3]})",
    },
    "2_geometry": {'split="v")[::3]': 'split="v")[::6]'},
    "3_loss": {
        "STEPS = 24": "STEPS = 8",
        "logspace(-1.5, 1.5, 11)": "logspace(-1.5, 1.5, 3)",
        "range(-5, 6)": "range(-1, 2)",
        "batch=12, size=(120, 160)": "batch=3, size=(120, 160)",
    },
    "4_training": {
        "20, (0, 8, 20)": "2, (0, 1, 2)",
        "image_size=96": "image_size=64",
        "batch=8, size=(160, 208)": "batch=3, size=(160, 208)",
    },
    "5_results": {},
    "6_matching": {
        "views=(3, 5)": "views=(3,)",
        "STEPS = 40": "STEPS = 3",
        "12, 22, 34, 45, 67, 90, 112, 135, 180)": "90)",
        'SHOWN = ("coffee.png", "astronaut.png", "chelsea.png", "rocket.jpg")': "SHOWN = ('coffee.png', 'rocket.jpg')",
    },
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_says_nothing_on_stderr(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell.source for cell in code(notebook)]
    for many, few in FEWER[path.stem].items():
        assert sum(cell.count(many) for cell in cells) == 1, many
        cells = [cell.replace(many, few) for cell in cells]
    (tmp_path / "cells.json").write_text(json.dumps({"folder": str(path.parent), "code": cells}))
    with Forked(notebook_cells.main, tmp_path / "cells.json", tmp_path / "out.json") as running:
        status, out, err = running.finish(4 * 60 * MINUTES)
    assert status == 0, out + err
    found = json.loads((tmp_path / "out.json").read_text())
    assert not err + found["errors"]
    assert found["shown"] == shown(notebook)


@pytest.mark.exact
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_jupyter_with_its_own_numbers(path):
    notebook = nbformat.read(path, as_version=4)
    stored = shown(notebook)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=4 * 60 * MINUTES, resources=resources).execute()
    assert not [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert shown(notebook) == stored


@pytest.mark.parametrize("chapter", ["5_results", "6_matching"])
def test_the_stored_chapters_on_results_are_of_the_weights_that_ship(chapter):
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    printed = "".join(output.get("text", "") for output in outputs(notebook))
    assert "weights that ship here: yes" in printed, "run the notebooks again"
