"""Commands of python -m kp: pictures can be read back, errors are one line, every benchmark row is positive."""

import json

import cv2
import numpy as np
import pytest
import torch
from forked import CONTEXT

from kp.cli.errors import ERROR
from kp.cli.main import main
from kp.data import photographs
from kp.data.synthetic.render import FAMILIES
from kp.experiments import speed
from kp.reporting.training_curves import draw_curves, read_log


def test_preview_draws_every_family(tmp_path):
    assert main(["preview", str(tmp_path / "folder" / "sheet.png")]) == 0
    picture = cv2.imread(str(tmp_path / "folder" / "sheet.png"))
    assert picture.shape == (len(FAMILIES) * 244, 4 * 324, 3)
    red = (picture[..., 2] > 200) & (picture[..., 0] < 90)
    rows = [red[i * 244 : (i + 1) * 244].sum() for i in range(len(FAMILIES))]
    for family, count in zip(FAMILIES, rows, strict=True):
        assert (count == 0) == (family in ("ellipses", "grain", "cells", "noise")), family


def test_preview_of_weights_has_no_seed(tmp_path, capsys):
    assert main(["preview", str(tmp_path / "sheet.png"), "--weights", "default", "--seed", "3"]) == ERROR
    assert "--seed is for pairs without --weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--inference", "--device", "cpu"], "--device is not for --inference"),
        (["--inference", "--batch", "2"], "--batch is not for --inference"),
        (["--inference", "--profile"], "--profile is not for --inference"),
        (["--json", "never.json"], "--json is for --inference"),
        (["--size", "64x64"], "--size is for --inference"),
        (["--repeats", "3"], "--repeats is for --inference"),
    ],
)
def test_a_benchmark_refuses_flags_of_another(capsys, flags, message):
    assert main(["bench", *flags]) == ERROR
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_curves_of_a_log(tmp_path):
    steps = [{"step": i, "seconds": i, "loss": {"corner": 1.0 / i, "repeatability": 0.5}} for i in range(1, 200)]
    lines = [*steps, {"step": 199, "seconds": 199, "validation": {"repeatability": 0.5}}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["curves", str(tmp_path), str(tmp_path / "curves.png")]) == 0
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture.shape[1] > 2 * picture.shape[0]
    assert picture.std() > 5


def test_curves_compare_runs_over_minutes_and_steps(tmp_path):
    """A run twice as fast is as good in half the minutes, after as many steps; one not yet validated has no line."""
    logs = {}
    for name, pace in (("slow", 2), ("fast", 1)):
        (tmp_path / name).mkdir()
        lines = [{"step": i, "seconds": pace * i, "loss": {"corner": 1.0 / i}} for i in range(1, 121)]
        scores = [(i, {"repeatability": i / 200, "localisation_error": 0.8}) for i in (60, 120)]
        lines += [{"step": i, "seconds": pace * i, "validation": score} for i, score in scores]
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        logs[name] = read_log(tmp_path / name / "log.jsonl")
    logs["new"] = [{"step": 1, "seconds": 1, "loss": {"corner": 1.0, "repeatability": 1.0}}]
    panels = {(axis.get_title(), axis.get_xlabel()): axis for axis in draw_curves(logs).axes}
    assert len(panels) == 5
    assert len({axis.get_position().y0 for axis in panels.values()}) == 2, "four beside each other"
    lines = {
        over: {line.get_label(): line.get_xydata().tolist() for line in panels["validation: repeatability", over].lines}
        for over in ("minutes", "steps")
    }
    assert lines["minutes"] == {"slow": [[2, 0.3], [4, 0.6]], "fast": [[1, 0.3], [2, 0.6]], "new": []}
    assert lines["steps"] == {"slow": [[60, 0.3], [120, 0.6]], "fast": [[60, 0.3], [120, 0.6]], "new": []}
    runs = [str(tmp_path / name) for name in ("slow", "fast")]
    assert main(["curves", *runs, str(tmp_path / "both.png")]) == 0
    assert cv2.imread(str(tmp_path / "both.png")).std() > 5


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no log at"), ("half a li", "not the log of a run"), ("", "no step yet")]
)
def test_curves_of_no_log(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "log.jsonl").write_text(content)
    assert main(["curves", str(tmp_path), str(tmp_path / "curves.png")]) == ERROR
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "curves.png").exists()


@pytest.fixture
def hpatches(tmp_path, monkeypatch):
    """A folder with one sequence, whose view 2 has half the scale; and only two of scikit-image's photographs."""
    monkeypatch.setattr(photographs, "FILES", photographs.FILES[:2])
    folder = tmp_path / "root" / "v_half"
    folder.mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    for number in (1, 2):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    (folder / "H_1_2").write_text("0.5 0 0  0 0.5 0  0 0 1")
    return folder.parent


def test_statistics_of_families_and_photographs(tmp_path, capsys, hpatches):
    out = tmp_path / "folder" / "world.jpg"
    assert main(["statistics", str(out), "--hpatches", str(hpatches), "--images", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [*FAMILIES, "mixture"]
    assert [line.split(" (")[0] for line in lines[1 : len(names) + 1]] == names
    assert [line.split(")")[0] + ")" for line in lines[-4:-2]] == ["scikit-image (2)", "HPatches (1)"]
    assert all(line.startswith("bracketed") and line.count("% inside") == 4 for line in lines[-2:])
    assert len({len(line) for line in lines}) == 1, "columns are not aligned"
    picture = cv2.imread(str(out))
    assert picture.shape[1] > 1500
    assert picture.std() > 5


def test_views_of_training_and_of_cameras(tmp_path, capsys, hpatches):
    assert main(["views", str(tmp_path / "views.png"), "--hpatches", str(hpatches), "--pairs", "20"]) == 0
    head, training, real = capsys.readouterr().out.splitlines()
    assert head.split()[-4:] == ["overlap", "scale", "tilt", "rotation"]
    assert training.startswith("training (20)")
    assert "0.500 (0.500 to 0.500)" in real
    assert cv2.imread(str(tmp_path / "views.png")).std() > 5
    assert main(["views", str(tmp_path / "alone.png"), "--pairs", "1"]) == 0
    assert capsys.readouterr().out.count("\n") == 2


@pytest.mark.parametrize("command", ["statistics", "views"])
@pytest.mark.parametrize(
    ("out", "flags", "message"),
    [
        ("world.pdf", [], "must end in .png or .jpg"),
        ("file/world.png", [], "cannot be written"),
        ("world.png", ["--hpatches", "nowhere"], "nowhere does not exist"),
        ("world.png", ["--seed", "-1"], "--seed must be"),
        ("world.png", ["--images or --pairs", "0"], "must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(tmp_path, monkeypatch, capsys, command, out, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    count = "--images" if command == "statistics" else "--pairs"
    assert main([command, out, *(flag.replace("--images or --pairs", count) for flag in flags)]) == ERROR
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["preview", str(tmp_path / "file" / "sheet.png")]) == ERROR
    assert "error" in capsys.readouterr().err


def test_the_benchmark_covers_every_part(monkeypatch):
    monkeypatch.setattr(speed, "get_context", lambda method: CONTEXT)  # processes that start at once
    rows = speed.benchmark(torch.device("cpu"), batch=2, seconds=0.0)  # more than the one pair of the warm-up
    assert all(rate > 0 for _, rate, _ in rows)
    text = " ".join(name for name, _, _ in rows)
    parts = ("warp", "change light", "pairs", "score map", "four sizes", "keypoints", "training", "match_pair", "SIFT")
    for part in (*FAMILIES, *parts):
        assert part in text
