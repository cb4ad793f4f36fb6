"""The check at full size: one kind of change a pair, homographies that say where things went, numbers by name."""

import json
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kp import load_detector
from kp.cli.main import main
from kp.data import photograph_changes, photographs
from kp.data.photograph_changes import KINDS, full_size_sequences, out_of_focus, redrawn
from kp.evaluation.metrics import repeatability
from kp.evaluation.scorecard import ERROR, FULL_SIZE_NAMES, scorecard
from kp.models.keypoints import extract_keypoints


class Pair(NamedTuple):
    kind: str
    image0: torch.Tensor
    image1: torch.Tensor
    H_0to1: torch.Tensor


def pairs(photograph, seed=0):
    """All pairs of a photograph, kind by kind."""
    for sequence in full_size_sequences(photograph, seed):
        image0, *others = (load() for load in sequence.images)
        for image1, H_0to1 in zip(others, sequence.homographies, strict=True):
            yield Pair(sequence.kind, image0, image1, H_0to1)


@pytest.fixture
def spot(tmp_path):
    """A photograph of 200x300 pixels, gray but for a bright spot of 9 pixels near the middle of a view."""
    image = np.full((200, 300), 60, np.uint8)
    cv2.circle(image, (187, 112), 4, 250, -1)
    cv2.imwrite(str(tmp_path / "spot.png"), image)
    return tmp_path / "spot.png"


@pytest.fixture
def blobs(tmp_path, monkeypatch):
    """A photograph of blobs of every grey, in place of scikit-image's."""
    noise = np.random.default_rng(0).normal(size=(200, 300))
    image = cv2.GaussianBlur(noise, (0, 0), 3)
    cv2.imwrite(str(tmp_path / "blobs.png"), (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8))
    monkeypatch.setattr(photographs, "FILES", ("blobs.png",))
    monkeypatch.setattr(photographs, "folder", lambda: tmp_path)


def centre_of_light(image):
    """(x, y) of what is far brighter than the rest."""
    y, x = np.nonzero(image[0, 0].numpy() > 0.6)
    return np.array([x.mean(), y.mean()])


def test_homographies_say_where_things_went(spot, monkeypatch):
    strengths = []
    for module in (photograph_changes, photographs):
        monkeypatch.setattr(module, "change_photometry", lambda image, _, strength: strengths.append(strength) or image)
    found = list(pairs(spot))
    assert [pair.kind for pair in found] == [kind for kind in KINDS for _ in range(3)]
    assert strengths == [0.6, 0.9, 1.2, *[1.0] * 4]
    for pair in found:
        assert pair.image0.shape == pair.image1.shape == (1, 1, 160, 240)
        if pair.kind not in ("relit", "focus"):  # there it does not stay the brightest, or spreads
            x, y, w = pair.H_0to1.numpy() @ [*centre_of_light(pair.image0), 1]
            assert np.abs(centre_of_light(pair.image1) - [x / w, y / w]).max() < 0.8, pair.kind
    changes = {kind: [pair.H_0to1.numpy() for pair in found if pair.kind == kind] for kind in KINDS}
    assert (np.array([changes[kind] for kind in ("light", "relit", "focus")]) == np.eye(3)).all()
    for H, factor, degrees in zip(changes["zoom"], (1.4, 1.9, 2.5), (20, -50, 35), strict=True):
        cos, sin = factor * np.cos(np.radians(degrees)), factor * np.sin(np.radians(degrees))
        assert H[:2, :2] == pytest.approx(np.array([[cos, -sin], [sin, cos]]))
    for H, tilt, degrees in zip(changes["tilt"], (40, 55, 65), (0, 90, 30), strict=True):
        short = np.array([np.cos(np.radians(degrees)), -np.sin(np.radians(degrees))])
        assert H[:2, :2] == pytest.approx(np.eye(2) + (np.cos(np.radians(tilt)) - 1) * np.outer(short, short))


def test_hard_views_move_more_and_more(spot, monkeypatch):
    strengths, real = [], photographs._draw_window
    monkeypatch.setattr(photographs, "_draw_window", lambda *args: strengths.append(args[3]) or real(*args))
    list(pairs(spot))
    assert strengths == [0.2, 0.2, 0.4, 0.6]


def test_views_are_not_larger_than_720x960(tmp_path):
    cv2.imwrite(str(tmp_path / "large.png"), np.full((1000, 1100), 90, np.uint8))
    assert next(pairs(tmp_path / "large.png")).image1.shape == (1, 1, 720, 880)


def test_what_is_foreshortened_does_not_alias(tmp_path):
    """Rows of stripes 3 pixels apart, 1.7 where the plane is turned by 55 degrees: too fine to be seen."""
    stripes = np.tile(np.array([20, 20, 230], np.uint8), 100)
    cv2.imwrite(str(tmp_path / "stripes.png"), np.repeat(stripes[:, None], 300, axis=1))
    seen = [pair for pair in pairs(tmp_path / "stripes.png") if pair.kind == "tilt"][1]
    inside = seen.image1[..., 90:150, 90:150]
    assert seen.image0.std() > 0.3
    assert inside.std() < 0.3 * seen.image0.std()  # twice as much, were both axes filtered alike
    assert inside.mean().item() == pytest.approx(seen.image0.mean().item(), abs=0.02)


def test_views_have_a_little_noise(spot):
    for pair in pairs(spot):
        if pair.kind in ("focus", "zoom", "tilt"):
            flat = pair.image1[..., 60:100, 60:85] * 255  # left of the spot
            assert flat.std().item() == pytest.approx(0.008 * 255, rel=0.1)


def test_a_seed_decides_the_pairs(spot):
    once, again, other = list(pairs(spot)), list(pairs(spot)), list(pairs(spot, seed=1))
    for pair, same, changed in zip(once, again, other, strict=True):
        assert torch.equal(pair.image1, same.image1)
        assert torch.equal(pair.H_0to1, same.H_0to1)
        assert not torch.equal(pair.image1, changed.image1)


def test_redrawn_greys_are_a_function_of_the_grey_that_falls_somewhere():
    image = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(redrawn(image, 0, generator), image)
    new = redrawn(torch.cat([image, image.flip(-1)], dim=-1), 1, generator)
    assert torch.equal(new[..., :16], new[..., 16:].flip(-1))
    assert new.min() >= 0
    assert new.max() <= 1
    steps = new[..., :16].flatten().diff()
    assert steps.min() < 0 < steps.max()
    assert steps.abs().max() < 12 / 256  # it does not jump


def test_a_point_out_of_focus_is_an_even_disc():
    point = F.pad(torch.ones(1, 1, 1, 1), (10, 10, 10, 10))
    disc = out_of_focus(point, 4)[0, 0]
    y, x = np.mgrid[-10:11, -10:11]
    distance = torch.from_numpy(np.hypot(x, y))
    assert disc.sum().item() == pytest.approx(1, abs=1e-5)
    assert (disc[distance > 4.5] == 0).all()
    inside = disc[distance < 3.5]
    assert inside.numpy() == pytest.approx(np.full(len(inside), 1 / (np.pi * 16)), rel=0.05)
    assert torch.allclose(out_of_focus(torch.full((1, 1, 9, 30), 0.4), 6), torch.tensor(0.4))


def test_a_photograph_gives_numbers_by_name_and_every_view_is_looked_at_once(blobs):
    seen = []
    scores = scorecard(lambda image: seen.append(image) or image, full_size=True)
    assert tuple(scores) == FULL_SIZE_NAMES
    assert len(seen) == len({image.numpy().tobytes() for image in seen}) == 3 * len(KINDS) + 2
    assert scores["all"] == pytest.approx(np.mean([scores[kind] for kind in KINDS]))
    nothing = scorecard(torch.zeros_like, full_size=True)
    assert nothing == {name: 0 for name in FULL_SIZE_NAMES if not name.endswith(ERROR)}


@pytest.mark.parametrize("subpixel", [False, True])
def test_keypoints_are_found_and_counted_as_under_protocol_native(blobs, subpixel):
    expected = []
    for pair in pairs(photographs.folder() / photographs.FILES[0]):
        if pair.kind == "zoom":
            views = [extract_keypoints(image, subpixel=subpixel) for image in (pair.image0, pair.image1)]
            sizes = [tuple(image.shape[-2:]) for image in (pair.image0, pair.image1)]
            expected.append(repeatability(*views, pair.H_0to1[None], *sizes, max_keypoints=300, threshold=3.0))
    scores = scorecard(lambda image: image, subpixel=subpixel, full_size=True)
    assert scores["zoom"] == pytest.approx(np.mean([each.repeatability.item() for each in expected]))
    assert scores["zoom_error"] == pytest.approx(np.mean([each.localisation_error.item() for each in expected]))
    assert scores["zoom"] > 0.3


def test_the_command_shows_and_writes_them(blobs, capsys, tmp_path):
    out = tmp_path / "scores.json"
    command = ["score", "random", "mobilenet_v3_small", "--full-size", "--scales", "2", "--device", "cpu"]
    assert main([*command, "--json", str(out)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["detector", *FULL_SIZE_NAMES]
    assert [line.split()[0] for line in lines] == ["random", "mobilenet_v3_small"]
    content = json.loads(out.read_text())
    assert (content["full_size"], content["scales"]) == (True, 2)
    assert content["scores"]["random"]["all"] < content["scores"]["mobilenet_v3_small"]["all"]
    detector = load_detector("mobilenet_v3_small", scales=2)
    assert content["scores"]["mobilenet_v3_small"] == pytest.approx(scorecard(detector, full_size=True))
    assert main(["score", "harris", "--full-size", "--scales", "0"]) == 1
    assert capsys.readouterr().err.endswith("--scales must be at least 1 and at most 12, not 0\n")
