"""Trainings that begin from weights, or on photographs of a folder: what they take over, record and refuse."""

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch

import train_homographic
from kp.cli.evaluate import main as evaluate
from kp.config import RunSettings
from kp.data import photograph_scenes, photographs
from kp.models.checkpoint import SHIPPED, load_checkpoint, load_detector, read_metadata, read_weights
from kp.training import trainer as trainer_module
from kp.training.initial import read_initial
from kp.training.learner import Learner
from kp.training.run_folder import WEIGHTS_FILE
from kp.training.validation import Validation

FLAGS = ("--image-size", "96", "--device", "cpu", "--validate-every", "100", "--save-every", "0")
ENCODER = ("--encoder", "mobilenet_v3_small", "--batch", "4", "--warmup", "1", "--lr", "3e-3")


@pytest.fixture(autouse=True)
def small_validation(monkeypatch):
    monkeypatch.setattr(trainer_module, "Validation", partial(Validation, batches=1, batch=4, size=(64, 80), files=()))


@pytest.fixture
def images(tmp_path):
    """A folder of scikit-image's photographs, one of them in a folder of its own, and a file that is none."""
    folder = tmp_path / "own"
    (folder / "more").mkdir(parents=True)
    for name in ("astronaut.png", "brick.png", "coins.png", "gravel.png"):
        shutil.copy(photographs.folder() / name, folder)
    shutil.copy(photographs.folder() / "rocket.jpg", folder / "more")
    (folder / "broken.png").write_bytes(b"none")
    return folder


def train(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train_homographic.py", *map(str, arguments)])
        return train_homographic.main()


def losses(folder, name):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"][name] for line in lines if "loss" in line]


@pytest.mark.parametrize(("model", "loss"), [((), "ranking"), (ENCODER, "localization")], ids=["ranker", "encoder"])
def test_a_training_on_photographs_lowers_its_loss_and_its_weights_can_be_measured(
    tmp_path, images, capsys, model, loss
):
    run, table = tmp_path / "run", tmp_path / "t.json"
    steps = 20 if model == () else 28
    assert train("--images", images, "--out", run, "--steps", steps, *model, *FLAGS) == 0
    out = capsys.readouterr().out
    assert f"5 photographs in {images}; 1 files cannot be used: broken.png (" in out
    found = losses(run, loss)
    assert np.mean(found[-8:]) < np.mean(found[:8])
    if model:
        assert set(losses(run, "corner")) == {0.0}, "no corner of a photograph is known"
    facts = read_metadata(run / "weights.safetensors")
    assert (facts["images"]["name"], facts["images"]["files"]) == ("own", 5)
    assert str(tmp_path).encode() not in (run / "weights.safetensors").read_bytes()
    flags = ["--detectors", "kp", "--weights", run / "weights.safetensors", "--split", "i", "--json", table]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photographs, "FILES", photographs.FILES[:2])
        assert evaluate([*map(str, flags)]) == 0
    assert json.loads(table.read_text())["rows"][0]["repeatability"] > 0.4


def test_a_training_on_photographs_goes_on_with_the_very_next_steps(tmp_path, images, capsys):
    assert train("--images", images, "--out", tmp_path / "straight", "--steps", 4, *FLAGS) == 0
    assert train("--images", images, "--out", tmp_path / "run", "--steps", 2, "--decay", 0, *FLAGS) == 0
    assert train("--resume", tmp_path / "run", "--steps", 4) == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["images"]["folder"] == str(images)
    assert losses(tmp_path / "run", "repeatability_by_score") == losses(
        tmp_path / "straight", "repeatability_by_score"
    ), "the same photographs were drawn"
    assert "images" in read_metadata(tmp_path / "run" / "weights.safetensors")
    images.rename(tmp_path / "moved")
    assert train("--resume", tmp_path / "run", "--steps", 5) == 1
    assert f"--images: {images} is not a folder" in capsys.readouterr().err
    assert train("--resume", tmp_path / "run", "--steps", 5, "--images", tmp_path / "moved") == 0
    (tmp_path / "moved" / "coins.png").unlink()
    assert train("--resume", tmp_path / "run", "--steps", 6, "--images", tmp_path / "moved") == 1
    assert "the run began on other photographs" in capsys.readouterr().err


def test_drawn_scenes_do_not_become_photographs(tmp_path, images, capsys):
    assert train("--out", tmp_path / "run", "--steps", 1, *FLAGS) == 0
    assert train("--resume", tmp_path / "run", "--steps", 2, "--images", images) == 1
    assert "the run began on drawn scenes" in capsys.readouterr().err
    for flags in (["--families", "leaves"], ["--detail", "2"], [*ENCODER, "--corner-weight", "1"]):
        assert train("--images", images, "--out", tmp_path / "other", *flags) == 1
        assert "has no effect with --images" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ranked", "mobilenet_v3_small"])
def test_a_training_begins_with_the_weights_it_is_given(name, tmp_path):
    initial = read_initial(name)
    s = replace(RunSettings(), detector=initial.detector)
    learner = Learner(replace(s, train=replace(s.train, device="cpu")))
    learner.begin_with(initial.tensors)
    image, shipped = torch.rand(1, 1, 64, 80), load_detector(name)
    for network in (learner.model, learner.average.module):
        found, expected = network.eval().score_map(image), shipped.score_map(image)
        assert torch.allclose(found, expected, atol=1e-2 * expected.std().item())  # in another memory format
    for key, value in initial.tensors.items():
        assert torch.equal(learner.model.state_dict()[key], value), key


def test_a_ranker_goes_on_and_a_map_is_computed_anew(tmp_path, capsys):
    assert train("--init", "described", "--out", tmp_path / "one", "--steps", 1, "--pairs", 1, *FLAGS) == 0
    assert "the map of descriptors is computed anew" in capsys.readouterr().out
    (began, _), (after, _) = (read_weights(path) for path in (SHIPPED["described"], tmp_path / "one" / WEIGHTS_FILE))
    assert not torch.allclose(began["describer.linear.weight"], after["describer.linear.weight"], atol=0.1)
    ranker = [name for name in began if name.startswith("ranker.layers")]
    assert all(torch.allclose(began[name], after[name], atol=0.1) for name in ranker)
    alone = ["--ranker-width", 0, "--steps", 1, "--pairs", 1, "--image-size", 64, "--device", "cpu"]
    assert train("--out", tmp_path / "alone", *alone) == 0
    assert train("--init", tmp_path / "alone" / WEIGHTS_FILE, "--out", tmp_path / "two", *FLAGS) == 1
    assert "train anew with --ranker-width 0" in capsys.readouterr().err


def test_where_a_run_began_is_recorded_and_stays_so(tmp_path):
    assert train("--init", "ranked", "--out", tmp_path / "one", "--steps", 1, *FLAGS) == 0
    expected = {"weights": "ranked", "sha256": hashlib.sha256(SHIPPED["ranked"].read_bytes()).hexdigest()}
    assert read_metadata(tmp_path / "one" / "weights.safetensors")["init"] == expected
    assert train("--resume", tmp_path / "one", "--steps", 2) == 0
    assert read_metadata(tmp_path / "one" / "weights.safetensors")["init"] == expected
    weights = tmp_path / "one" / "weights.safetensors"
    assert train("--init", weights, "--ranker-width", 48, "--out", tmp_path / "two", "--steps", 1, *FLAGS) == 0
    second = read_metadata(tmp_path / "two" / "weights.safetensors")
    assert second["init"] == {
        "weights": "weights.safetensors",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    assert second["settings"]["detector"] == read_metadata(SHIPPED["ranked"])["settings"]["detector"]
    before, after = read_weights(weights)[0], read_weights(tmp_path / "two" / "weights.safetensors")[0]
    moved = [(after[key] - value).abs().max() for key, value in before.items() if value.is_floating_point()]
    assert 0 < max(moved) < 0.2, "one step away from where it began"


def test_a_photograph_that_goes_away_ends_the_run_in_one_line(tmp_path, images, monkeypatch, capsys):
    monkeypatch.setattr(photograph_scenes.PhotographScenes, "_keep", lambda *_: (images / "gone").touch())
    real = photograph_scenes.PhotographScenes.render

    def render(self, *arguments):
        for path in self.files:
            path.unlink(missing_ok=True)
        return real(self, *arguments)

    monkeypatch.setattr(photograph_scenes.PhotographScenes, "render", render)
    assert train("--images", images, "--out", tmp_path / "run", "--steps", 3, *FLAGS) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "train_homographic.py: error: " in error
    assert "cannot be read" in error


def test_a_photograph_in_colour_is_grey(tmp_path, capsys):
    """Thermal and medical images may be colour files or 16 bits: whatever read_image reads."""
    for name, image in (("c.png", np.zeros((100, 120, 3), np.uint8)), ("d.png", np.zeros((100, 120), np.uint16))):
        cv2.imwrite(str(tmp_path / name), image)
    assert train("--images", tmp_path, "--out", tmp_path / "run", "--steps", 1, *FLAGS) == 0
    assert "2 photographs in" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [("--bogus",), ("--steps", "many"), ("--step", "3")])
def test_a_wrong_flag_is_one_line(capsys, flags):
    assert train(*flags) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("train_homographic.py: error: ")
    assert err.count("\n") == 1
