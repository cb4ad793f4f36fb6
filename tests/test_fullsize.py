"""The check at full size: one kind of change a pair, homographies that say where things went, numbers by name."""

import json

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kp import fullsize, photographs
from kp.__main__ import main
from kp.fullsize import KINDS, NAMES, out_of_focus, pairs, redrawn


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
    monkeypatch.setattr(fullsize, "change_photometry", lambda image, *_: image)
    found = list(pairs(spot))
    assert [pair.kind for pair in found] == [kind for kind in KINDS for _ in range(3)]
    for pair in found:
        assert pair.image0.shape == pair.image1.shape == (1, 1, 160, 240)
        if pair.kind not in ("relit", "focus"):  # there it does not stay the brightest, or spreads
            x, y, w = pair.H_0to1.numpy() @ [*centre_of_light(pair.image0), 1]
            assert np.abs(centre_of_light(pair.image1) - [x / w, y / w]).max() < 0.8, pair.kind
    areas = {kind: [pair.H_0to1[:2, :2].det().item() for pair in found if pair.kind == kind] for kind in KINDS}
    assert areas["zoom"] == pytest.approx([1.4**2, 1.9**2, 2.5**2])
    assert areas["tilt"] == pytest.approx(np.cos(np.radians([40, 55, 65])))
    assert areas["light"] == areas["relit"] == areas["focus"] == [1, 1, 1]


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
    scores = fullsize.scorecard(lambda image: seen.append(image) or image)
    assert tuple(scores) == NAMES
    assert len(seen) == len({image.numpy().tobytes() for image in seen}) == 3 * len(KINDS) + 2
    assert scores["all"] == pytest.approx(np.mean([scores[kind] for kind in KINDS]))
    nothing = fullsize.scorecard(torch.zeros_like)
    assert nothing == {name: 0 for name in NAMES if not name.endswith(fullsize.ERROR)}


def test_the_command_shows_and_writes_them(blobs, capsys, tmp_path):
    out = tmp_path / "scores.json"
    command = ["score", "random", "mobilenet_v3_small", "--full-size", "--scales", "2", "--device", "cpu"]
    assert main([*command, "--json", str(out)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["detector", *NAMES]
    assert [line.split()[0] for line in lines] == ["random", "mobilenet_v3_small"]
    content = json.loads(out.read_text())
    assert (content["full_size"], content["scales"]) == (True, 2)
    assert content["scores"]["random"]["all"] < content["scores"]["mobilenet_v3_small"]["all"]
    assert main(["score", "mobilenet_v3_small", "--full-size", "--scales", "0"]) == 1
    assert "at least one size" in capsys.readouterr().err
