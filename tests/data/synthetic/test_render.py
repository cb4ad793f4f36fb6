"""Rendered scenes: what every family promises, and corners where an oracle that shares no code finds them."""

import cv2
import numpy as np
import pytest
import torch

from kp.config import WorldSettings
from kp.data.synthetic import surfaces
from kp.data.synthetic.render import CLASSIC, FAMILIES, PLANES, parse_mixture, render
from kp.data.synthetic.scene import Kind
from kp.geometry.coords import inside

SIZE = (240, 320)
WITHOUT_CORNERS = ("ellipses", "grain", "cells", "noise")


def scene(family, seed=0, batch=8, size=SIZE):
    return render(batch, size, torch.Generator().manual_seed(seed), (family,))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_scenes_are_images_with_visible_corners(family):
    made = scene(family, batch=4)
    assert made.image.shape == made.ignore.shape == (4, 1, *SIZE)
    assert made.ignore.dtype == torch.bool
    assert made.image.isfinite().all()
    assert made.image.min() >= 0
    assert made.image.max() <= 1
    assert made.image.flatten(1).std(1).min() > 0.001, "an empty image"
    assert inside(made.corners, SIZE)[made.corner_mask].all()
    if family in WITHOUT_CORNERS:
        assert not made.corner_mask.any()
    else:
        assert made.corner_mask.sum(1).float().mean() >= 2


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("size", [(97, 131), (64, 48)])
def test_any_size_can_be_rendered(family, size):
    made = scene(family, batch=20 if min(size) < 64 else 2, size=size)
    assert made.image.shape[1:] == (1, *size)
    assert made.image.isfinite().all()


KINDS = {
    "polygon": {Kind.VERTEX},
    "polygons": {Kind.VERTEX},
    "cube": {Kind.VERTEX},
    "checkerboard": {Kind.VERTEX, Kind.CROSSING},
    "stripes": {Kind.VERTEX},
    "lines": {Kind.END, Kind.LINE_CROSSING},
    "star": {Kind.END, Kind.LINE_CROSSING},
    "text": {Kind.END, Kind.LINE_CROSSING},
    "bricks": {Kind.VERTEX},
    "windows": {Kind.VERTEX},
    "leaves": {Kind.VERTEX},
    "foliage": {Kind.VERTEX},
}


@pytest.mark.parametrize("family", list(KINDS))
def test_corners_have_their_meaning(family):
    kinds = scene(family, batch=12, size=(96, 128)).kinds
    assert {Kind(k) for k in kinds.unique().tolist()} - {Kind.NONE} == KINDS[family]


def test_corner_counts_of_known_shapes():
    size = (96, 128)
    assert scene("polygon", batch=50, size=size).corner_mask.sum(1).max() <= 6
    assert scene("cube", batch=50, size=size).corner_mask.sum(1).max() == 7
    star = scene("star", batch=50, size=size)
    assert star.corner_mask.sum(1).max() == 7  # six ends and the centre
    assert (star.kinds == Kind.LINE_CROSSING).sum(1).max() == 1


@pytest.mark.parametrize("family", ["polygon", "polygons", "cube", "checkerboard", "leaves", "windows", "text"])
def test_a_corner_looks_like_a_corner_to_opencv(family):
    made = scene(family, batch=2)
    ranks = []
    for image, corners, mask in zip(made.image, made.corners, made.corner_mask, strict=True):
        response = cv2.dilate(cv2.cornerMinEigenVal(image[0].numpy(), 5), np.ones((5, 5)))
        x, y = corners[mask & inside(corners[None], SIZE, border=5)[0]].round().long().T.numpy()
        ranks += list((response[y, x][:, None] > response.flatten()[::50]).mean(1))
    assert np.median(ranks) > (0.9 if family in CLASSIC else 0.7), "labels are no more corner-like than the rest"


def smallest_rectangle(size, seeds, monkeypatch):
    """Pixels: the smallest side of all frames and panes of windows that are drawn."""
    sides, rectangles = [], surfaces._rectangles

    def record(lattice, low, high, *args):
        sides.append((high - low).min().item())
        return rectangles(lattice, low, high, *args)

    monkeypatch.setattr(surfaces, "_rectangles", record)
    for seed in seeds:
        render(2, size, torch.Generator().manual_seed(seed), ("windows",))
    return min(sides)


@pytest.mark.parametrize("size", [(32, 40), (160, 160)])
def test_panes_of_windows_are_large_enough_for_corners_of_their_own(size, monkeypatch):
    assert smallest_rectangle(size, range(8), monkeypatch) > 2.5


@pytest.mark.exact
@pytest.mark.parametrize("size", [(32, 40), (160, 160), (480, 640)])
def test_panes_of_many_windows_are_large_enough_for_corners_of_their_own(size, monkeypatch):
    assert smallest_rectangle(size, range(60), monkeypatch) > 2.5


def test_textures_are_ignored_and_almost_nothing_of_the_classic_families():
    for family in PLANES:
        assert scene(family, batch=4, size=(96, 128)).ignore.float().mean() > 0.9 or family == "text"
    for family in CLASSIC:
        assert scene(family, batch=4, size=(96, 128)).ignore.float().mean() < 0.1


def test_the_same_seed_renders_the_same_and_another_does_not():
    first, again, other = (render(6, (64, 96), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    for name in ("image", "corners", "kinds", "ignore"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert not torch.equal(first.image, other.image)


def test_a_mixture_draws_each_family_as_often_as_it_weighs():
    made = render(300, (32, 40), torch.Generator().manual_seed(0), ("noise=1", "checkerboard=3"))
    share = (made.corner_mask.sum(1) == 0).float().mean()
    assert 0.17 < share < 0.33


def test_a_mixture_is_parsed():
    assert parse_mixture(("leaves", "text=0.5", "leaves=2")) == {"leaves": 3.0, "text": 0.5}
    classic = parse_mixture(("classic=2",))
    assert set(classic) == set(CLASSIC)
    assert sum(classic.values()) == pytest.approx(2)
    assert set(parse_mixture(WorldSettings().families)) == set(FAMILIES), "a family that the default never draws"


@pytest.mark.parametrize(
    ("families", "message"),
    [
        (("cube", "spheres"), "unknown family spheres"),
        (("cube=many",), "cube=many: the weight"),
        (("cube=-1",), "cube=-1: the weight"),
        (("cube=inf",), "cube=inf: the weight"),
        (("cube=0",), "above 0"),
        ((), "above 0"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(families, message):
    with pytest.raises(ValueError, match=message):
        render(1, SIZE, torch.Generator(), families)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_same_seed_renders_the_same():
    first, again = (render(34, (96, 128), torch.Generator("cuda").manual_seed(1)) for _ in range(2))
    assert torch.equal(first.image, again.image)
    assert first.image.is_cuda
