"""Rendered corners against detectors and closed forms that share no code with the renderer."""

import cv2
import numpy as np
import pytest
import torch

from kp.geometry import inside, pixel_grid
from kp.paint import coverage, ellipse_distance, half_planes, hidden_by_later, paint_polygons, polygon_distance
from kp.shapes import FAMILIES, render

SIZE = (240, 320)


def scene(family, seed=0, batch=8):
    return render(batch, SIZE, torch.Generator().manual_seed(seed), (family,))


def refined(image, points):
    """OpenCV's corners, started up to a pixel away from the given ones: (N, 2) and which of them converged."""
    grey = (image.numpy() * 255).round().astype(np.uint8)
    start = points.numpy().astype(np.float32) + np.random.default_rng(0).uniform(-1, 1, points.shape).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-4)
    return cv2.cornerSubPix(grey, start.reshape(-1, 1, 2).copy(), (3, 3), (-1, -1), stop)[:, 0]


def test_opencv_finds_the_checkerboard_corners_where_they_are_said_to_be():
    errors = []
    for seed in range(4):
        board = scene("checkerboard", seed)
        for image, corners, mask in zip(board.image, board.corners, board.corner_mask, strict=True):
            outline = cv2.convexHull(corners.numpy())
            # On the outline cornerSubPix itself is off, by 0.2 px, even on an image that is supersampled 64 times.
            crossing = torch.tensor([cv2.pointPolygonTest(outline, xy, True) > 2 for xy in corners.tolist()])
            apart = torch.cdist(corners, corners).fill_diagonal_(torch.inf).amin(1) > 10  # one corner in a window
            points = corners[mask & crossing & apart & inside(corners[None], SIZE, border=8)[0]]
            if len(points):
                errors.append(np.linalg.norm(refined(image[0], points) - points.numpy(), axis=1))
    errors = np.concatenate(errors)
    assert len(errors) > 200
    assert np.median(errors) < 0.1
    assert np.quantile(errors, 0.9) < 0.2


def test_painted_polygons_weigh_and_balance_like_the_polygon():
    """Area and centroid by the shoelace formulas: a corner out of place would move them."""
    rng = torch.Generator().manual_seed(0)
    for _ in range(10):
        angle = (torch.arange(5) + torch.rand(5, generator=rng) * 0.5) * (2 * torch.pi / 5)
        vertices = 25 * torch.stack([angle.cos(), angle.sin()], -1).double() + torch.tensor([40.0, 32.0]).double()
        x, y = vertices.unbind(-1)
        cross = x * y.roll(-1) - y * x.roll(-1)
        area = cross.sum() / 2
        centroid = torch.stack([((v + v.roll(-1)) * cross).sum() / (6 * area) for v in (x, y)])
        ground = torch.zeros(1, 1, 64, 96, dtype=torch.float64)
        painted = paint_polygons(ground, half_planes(vertices[None, None]), torch.ones(1, 1).double())[0, 0]
        found = torch.stack([(painted.sum(d) * torch.arange(n)).sum() / painted.sum() for d, n in ((0, 96), (1, 64))])
        assert abs(painted.sum() - area) < 0.002 * area
        assert (found - centroid).norm() < 0.02


def test_painted_area_of_an_ellipse():
    one = torch.tensor([[0.7]], dtype=torch.float64)
    distance = ellipse_distance(
        torch.tensor([[[50.2, 40.7]]]).double(),
        torch.tensor([[[30.0, 12.0]]]).double(),
        one,
        pixel_grid((80, 100), one),
    )
    assert abs(coverage(distance).sum() / (torch.pi * 30 * 12) - 1) < 0.01


def test_distance_to_a_square_by_hand():
    square = half_planes(torch.tensor([[[[10.0, 10], [20, 10], [20, 20], [10, 20]]]]))
    points = torch.tensor([[[15.0, 15.0], [15.0, 5.0], [23.0, 12.0], [20.0, 11.0]]])
    assert torch.allclose(polygon_distance(square, points), torch.tensor([[[-5.0, 5.0, 3.0, 0.0]]]))


def test_a_later_polygon_hides_the_corners_under_it_and_no_others():
    squares = torch.tensor([[[10.0, 10], [30, 10], [30, 30], [10, 30]], [[20.0, 20], [40, 20], [40, 40], [20, 40]]])
    planes, points = half_planes(squares[None]), squares.reshape(1, 8, 2)
    owner = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    assert hidden_by_later(points, owner, planes).tolist() == [[False, False, True, False, False, False, False, False]]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_scenes_are_images_with_visible_corners(family):
    made = scene(family)
    assert made.image.shape == (8, 1, *SIZE)
    assert made.image.isfinite().all()
    assert made.image.min() >= 0
    assert made.image.max() <= 1
    assert made.image.flatten(1).std(1).min() > 0.001, "an empty image"
    assert inside(made.corners, SIZE)[made.corner_mask].all()
    if family in ("ellipses", "noise"):
        assert not made.corner_mask.any()
    else:
        assert made.corner_mask.sum(1).float().mean() >= 2


@pytest.mark.parametrize("family", ["polygon", "polygons", "cube", "checkerboard"])
def test_a_corner_looks_like_a_corner_to_opencv(family):
    made = scene(family, batch=12)
    ranks = []
    for image, corners, mask in zip(made.image, made.corners, made.corner_mask, strict=True):
        response = cv2.dilate(cv2.cornerMinEigenVal(image[0].numpy(), 5), np.ones((5, 5)))
        x, y = corners[mask & inside(corners[None], SIZE, border=5)[0]].round().long().T.numpy()
        ranks += list((response[y, x][:, None] > response.flatten()[::50]).mean(1))
    assert np.median(ranks) > 0.9, "the labelled places are no more corner-like than the rest"


def test_corner_counts_of_known_shapes():
    assert scene("polygon", batch=50).corner_mask.sum(1).max() <= 6
    assert scene("cube", batch=50).corner_mask.sum(1).max() == 7
    assert scene("star", batch=50).corner_mask.sum(1).max() == 7  # six ends and the centre


def test_the_same_seed_renders_the_same_and_another_does_not():
    first, again, other = (render(6, SIZE, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.corners, again.corners)
    assert not torch.equal(first.image, other.image)


def test_all_families_appear():
    made = render(200, (48, 64), torch.Generator().manual_seed(0))
    counts = made.corner_mask.sum(1)
    assert (counts == 0).sum() > 20
    assert (counts > 20).sum() > 10


def test_unknown_families_are_refused():
    with pytest.raises(ValueError, match="unknown families spheres"):
        render(1, SIZE, torch.Generator(), ("cube", "spheres"))
