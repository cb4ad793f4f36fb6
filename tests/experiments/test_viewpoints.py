"""How far apart two views are: homographies made by hand, with numpy, of known scale, tilt and rotation."""

import numpy as np
import pytest
import torch

from kp.data.hpatches import ImageSequence
from kp.data.pairs import view_pairs
from kp.data.synthetic.scene import Scene
from kp.experiments.viewpoints import QUANTITIES, draw, drawn, quantiles, real, sample
from kp.geometry.homography import overlap, quantities, rotation

SIZE0, SIZE1 = (60, 80), (90, 100)
CENTRE0 = (39.5, 29.5)
RANGES = {"max_translation": 0.1, "max_scale": 1.4, "max_rotation": 45.0, "max_shear": 20.0, "max_perspective": 0.25}


def about_centres(affine, perspective=(0.0, 0.0)):
    """H_0to1 (1, 3, 3): centre of view 0 -> centre of view 1, ``affine`` (2, 2) there, w falling off around it."""
    there = np.array([[1, 0, -CENTRE0[0]], [0, 1, -CENTRE0[1]], [0, 0, 1]])
    tilted = np.eye(3)
    tilted[:2, :2], tilted[2, :2] = affine, perspective
    back = np.array([[1, 0, (SIZE1[1] - 1) / 2], [0, 1, (SIZE1[0] - 1) / 2], [0, 0, 1]])
    return torch.from_numpy(back @ tilted @ there)[None]


def turn(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]])


@pytest.mark.parametrize("perspective", [(0.0, 0.0), (4e-3, -6e-3)])
@pytest.mark.parametrize(
    ("zoom", "tilt", "angle"), [(1, 1, 0), (0.5, 1, 90), (1.7, 2, -30), (1, 3, 170), (2, 1.2, -135)]
)
def test_scale_tilt_and_rotation_at_the_centre(zoom, tilt, angle, perspective):
    stretch = turn(25).T @ np.diag([tilt**0.5, tilt**-0.5]) @ turn(25)  # symmetric: it turns nothing
    found = quantities(about_centres(zoom * turn(angle) @ stretch, perspective), SIZE0, SIZE1)[0]
    assert found[1:].tolist() == pytest.approx([zoom, tilt, angle], abs=1e-9)


def test_scaling_a_homography_changes_nothing():
    H = about_centres(1.3 * turn(20), (3e-3, 1e-3))
    assert torch.allclose(quantities(H, SIZE0, SIZE1), quantities(0.2 * H, SIZE0, SIZE1))


def test_the_rotation_is_the_nearest_one():
    J = torch.randn(200, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    J = J[torch.linalg.det(J) > 0.05]
    candidates = np.stack([turn(angle) for angle in np.arange(-180, 180, 0.5)])
    distances = ((J.numpy()[:, None] - candidates) ** 2).sum((2, 3))
    nearest = np.arange(-180, 180, 0.5)[distances.argmin(1)]
    away = (rotation(J).numpy() - nearest + 180) % 360 - 180
    assert np.abs(away).max() <= 0.25 + 1e-9


@pytest.mark.parametrize(("dx", "dy", "share"), [(0, 0, 1), (20, 0, 0.75), (-20, 30, 0.375), (0, -60, 0), (500, 0, 0)])
def test_the_overlap_of_a_translation(dx, dy, share):
    H = torch.tensor([[[1.0, 0, dx], [0, 1, dy], [0, 0, 1]]])
    assert overlap(H, (60, 80), (60, 80)).tolist() == [share]


def test_the_overlap_leaves_out_what_is_behind_the_camera():
    H = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [-1 / 40, 0, 1]]])  # w <= 0 from x = 40 on
    assert overlap(H, (1, 80), (1, 100_000)).item() == 0.5


def test_the_sample_is_two_views_of_one_scene():
    first, again = (sample(500, SIZE0, torch.Generator().manual_seed(3), **RANGES) for _ in range(2))
    assert torch.equal(first, again)
    values = quantities(first, SIZE0, SIZE0)
    assert values[:, 1].max() > 1.5  # beyond the 1.4 of one view: both were drawn
    assert (values[:, 3].abs() > 45).any()
    assert values[:, 3].abs().max() < 140
    assert 0.5 < values[:, 0].mean() < 1
    none = {"max_translation": 0, "max_scale": 1, "max_rotation": 0, "max_shear": 0, "max_perspective": 0}
    still = sample(5, SIZE0, torch.Generator().manual_seed(0), **none)
    assert torch.allclose(quantities(still, SIZE0, SIZE0), torch.tensor([[1.0, 1, 1, 0]]).double(), atol=1e-5)


def test_what_is_drawn_and_what_is_real_come_in_order():
    H = sample(130, SIZE0, torch.Generator().manual_seed(0), **RANGES)
    ticks = []
    values = drawn(H, SIZE0, lambda: ticks.append(1))
    assert len(ticks) == 130
    assert torch.allclose(values[100:101], quantities(H[100:101], SIZE0, SIZE0))
    matrices = about_centres(0.5 * turn(10))[0], 7 * about_centres(2 * turn(-80))[0]  # of any factor
    images = tuple(lambda size=size: torch.zeros(1, 1, *size) for size in (SIZE0, SIZE1, SIZE1))
    values = real([ImageSequence("v_hand", "v", images, matrices)], lambda: ticks.append(1))
    assert len(ticks) == 132
    assert values[:, 1:].numpy() == pytest.approx(np.array([[0.5, 1, 10], [2, 1, -80]]), abs=1e-6)
    assert values[0, 0] == 1


def test_the_figure_tells_the_numbers():
    values = torch.rand(100, 4, generator=torch.Generator().manual_seed(0)).double() + 1
    figure = draw({"training": values - 0.5, "HPatches v": values[:7]})
    figure.draw_without_rendering()
    assert len(figure.axes) == 4
    for axis, name, column in zip(figure.axes, QUANTITIES, values.T, strict=True):
        title = axis.get_title()
        assert title.startswith(name)
        assert title.count("median") == 2
        assert axis.get_xlabel()
        if name != "rotation":
            assert f"median {np.median(column[:7]):.2f}" in title
    assert quantiles(torch.arange(101.0)) == pytest.approx((5, 50, 95))


def test_a_figure_of_views_that_do_not_move():
    still = torch.tensor([[1.0, 1, 1, 0]]).double().expand(5, 4)
    draw({"training": still}).draw_without_rendering()


def test_the_homographies_are_those_of_the_pairs_that_training_sees():
    def blank(batch, size, generator):
        nothing = torch.zeros(batch, 0, dtype=torch.long)
        return Scene(torch.zeros(batch, 1, *size), torch.zeros(batch, 0, 2), nothing, torch.zeros(batch, 1, *size) > 0)

    pairs = view_pairs(5, SIZE0, torch.Generator().manual_seed(3), render=blank, photometric=0, **RANGES)
    assert torch.equal(next(pairs).H_0to1, sample(5, SIZE0, torch.Generator().manual_seed(3), **RANGES))
    pairs = view_pairs(
        5, SIZE0, torch.Generator().manual_seed(3), blank, photometric=0, illumination_only=0.5, **RANGES
    )
    assert torch.equal(
        next(pairs).H_0to1, sample(5, SIZE0, torch.Generator().manual_seed(3), illumination_only=0.5, **RANGES)
    )
