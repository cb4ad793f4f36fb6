"""python -m kp: pictures that can be read back, errors of one line; every benchmark row is a rate."""

import json

import cv2
import pytest
import torch

from kp.__main__ import main
from kp.benchmark import benchmark
from kp.config import FAMILIES


def test_preview_draws_every_family(tmp_path):
    assert main(["preview", str(tmp_path / "folder" / "sheet.png")]) == 0
    picture = cv2.imread(str(tmp_path / "folder" / "sheet.png"))
    assert picture.shape == (len(FAMILIES) * 244, 4 * 324, 3)
    red = (picture[..., 2] > 200) & (picture[..., 0] < 90)
    rows = [red[i * 244 : (i + 1) * 244].sum() for i in range(len(FAMILIES))]
    for family, count in zip(FAMILIES, rows, strict=True):
        assert (count == 0) == (family in ("ellipses", "noise")), family


def test_curves_of_a_log(tmp_path):
    steps = [{"step": i, "seconds": i, "loss": {"corner": 1.0 / i, "ranking": 0.5}} for i in range(1, 200)]
    lines = [*steps, {"step": 199, "seconds": 199, "validation": {"repeatability": 0.5}}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["curves", str(tmp_path), str(tmp_path / "curves.png")]) == 0
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture.shape[1] > 2 * picture.shape[0]
    assert picture.std() > 5


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no log at"), ("half a li", "not the log of a run"), ("", "no step yet")]
)
def test_curves_of_no_log(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "log.jsonl").write_text(content)
    assert main(["curves", str(tmp_path), str(tmp_path / "curves.png")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "curves.png").exists()


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["preview", str(tmp_path / "file" / "sheet.png")]) == 1
    assert "error" in capsys.readouterr().err


def test_the_benchmark_covers_every_part():
    rows = benchmark(torch.device("cpu"), batch=2, seconds=0.0)
    assert all(rate > 0 for _, rate, _ in rows)
    text = " ".join(name for name, _, _ in rows)
    for part in (*FAMILIES, "warp", "change light", "pairs", "score map", "keypoints", "training"):
        assert part in text
