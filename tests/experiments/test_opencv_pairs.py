"""The other pipeline makes true pairs too, else its speed would compare with nothing."""

from itertools import islice

import cv2
import numpy as np
import pytest

from kp.experiments import opencv_pairs
from kp.experiments.opencv_pairs import SHAPES, SIZE, draw, pairs


@pytest.mark.parametrize("shape", list(SHAPES))
def test_pairs_are_two_views_with_corners(shape):
    shown = 0
    for view0, view1, H_0to1, corners0 in islice(pairs(0, (shape,)), 6):
        for view in (view0, view1):
            assert (view.shape, view.dtype) == (SIZE, np.uint8)
            assert view.std() > 2
        assert (H_0to1.shape, H_0to1.dtype) == ((3, 3), np.float64)
        assert (corners0.ndim, corners0.shape[1]) == (2, 2)
        assert ((corners0 >= 0) & (corners0 <= (SIZE[1] - 1, SIZE[0] - 1))).all()
        shown += len(corners0)
    assert (shown == 0) == (shape in ("ellipses", "noise"))


@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_homography_agrees_with_the_pixels(shape):
    for view0, view1, H_0to1, _ in islice(pairs(1, (shape,)), 4):
        seen = cv2.warpPerspective(view0, H_0to1, SIZE[::-1])
        shared = cv2.warpPerspective(np.full_like(view0, 255), H_0to1, SIZE[::-1])
        shared = cv2.erode(shared, np.ones((5, 5))) == 255
        shared &= (seen > 0) & (view1 > 0)  # around the picture both are black
        assert shared.mean() > 0.1
        difference = np.abs(seen.astype(float) - view1)[shared].mean()
        shifted = np.abs(np.roll(seen, 3, 1).astype(float) - view1)[shared].mean()
        assert difference < 2
        assert difference < shifted / 2, "three pixels off would agree as well"


@pytest.mark.parametrize("shape", ["checkerboard", "polygon", "cube", "star", "lines"])
def test_corners_look_like_corners_to_opencv(shape):
    rng = np.random.default_rng(2)
    ranks = []
    for _ in range(6):
        image, corners = draw(shape, rng)
        response = cv2.dilate(cv2.cornerMinEigenVal(image, 5), np.ones((5, 5)))
        x, y = corners[((corners > 5) & (corners < (SIZE[1] - 6, SIZE[0] - 6))).all(1)].round().astype(int).T
        ranks += list((response[y, x][:, None] > response.flatten()[::50]).mean(1))
    assert np.median(ranks) > 0.9


def test_every_shape_appears(monkeypatch):
    drawn = set()

    def record(shape, rng):
        drawn.add(shape)
        return np.zeros(SIZE, np.uint8), np.zeros((0, 2))

    monkeypatch.setattr(opencv_pairs, "draw", record)
    list(islice(pairs(0), 100))
    assert drawn == set(SHAPES)


def test_the_same_seed_makes_the_same_pairs_and_another_does_not():
    first, again, other = (list(islice(pairs(seed), 4)) for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not any(np.array_equal(one[0], two[0]) for one, two in zip(first, other, strict=True))
