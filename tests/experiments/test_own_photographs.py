import json

import cv2
import pytest
import torch
from skimage import data

from kp.cli.main import main
from kp.data.photographs import make_sequence
from kp.evaluation.baselines import BASELINES
from kp.evaluation.metrics import repeatability
from kp.experiments import own_photographs
from kp.models.checkpoint import load_detector
from kp.models.keypoints import extract_keypoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one photograph and a text."""
    path = tmp_path_factory.mktemp("photos")
    cv2.imwrite(str(path / "camera.png"), data.camera())
    (path / "notes.txt").write_text("x")
    (path / "broken.png").write_bytes(b"x")
    return path


def test_repeatability_is_that_of_the_pairs(folder):
    made = own_photographs.sequences([folder / "camera.png"])
    assert [sequence.kind for sequence in made] == ["i", "v", "hard"]
    found = own_photographs.measure(BASELINES["harris"], made, torch.device("cpu"))
    assert set(found) == {"i", "v", "hard"}
    sequence = make_sequence(folder / "camera.png", "v", 1)
    points = [extract_keypoints(BASELINES["harris"](load()), None, border=4, subpixel=True) for load in sequence.images]
    size = tuple(sequence.images[0]().shape[-2:])
    each = [
        repeatability(points[0], points[k], sequence.homography(k + 1, size), size, size, 300).repeatability.item()
        for k in range(1, 6)
    ]
    assert found["v"] == pytest.approx(sum(each) / 5, abs=1e-6)


def test_descriptors_have_their_share_of_right_matches(folder):
    made = own_photographs.sequences([folder / "camera.png"])
    found = own_photographs.measure(load_detector("described"), made, torch.device("cpu"))
    assert set(found) == set(own_photographs.NAMES)
    assert found["mma_i"] > 0.5
    assert found["mma_hard"] < found["mma_i"]


def test_the_command(folder, tmp_path, capsys):
    assert main(["score", "harris", "--images", str(folder), "--json", str(tmp_path / "a.json")]) == 0
    files, head, row = capsys.readouterr().out.splitlines()
    assert files.startswith(f"1 photographs in {folder}; 1 files cannot be used: broken.png (")
    assert head.split() == ["detector", *own_photographs.NAMES]
    assert row.split()[-3:] == ["-", "-", "-"]
    assert json.loads((tmp_path / "a.json").read_text())["scores"]["harris"]["i"] > 0.2


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--images", "nowhere"], "nowhere is not a folder"),
        (["--images", ".", "--full-size"], "leave out --full-size"),
        (["--images", ".", "--subpixel"], "leave out --full-size and --subpixel"),
    ],
)
def test_what_is_wrong_is_one_line(flags, text, capsys):
    assert main(["score", "harris", *flags]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert text in line
