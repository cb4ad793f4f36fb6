"""What a protocol makes of an image, and of the homography, tell the same story to less than a tenth of a pixel."""

import cv2
import numpy as np
import pytest
import torch

from kp.evaluation.protocols import PROTOCOLS, carry, choose, prepare
from kp.geometry.coords import warp_points


def blob(size, xy, sigma):
    """A round spot (1, 1, H, W) on black whose centre of mass is at xy."""
    y, x = np.mgrid[: size[0], : size[1]]
    spot = np.exp(-((x - xy[0]) ** 2 + (y - xy[1]) ** 2) / (2 * sigma**2))
    return torch.tensor(spot, dtype=torch.float32)[None, None]


def centre_of_mass(image):
    weight = image[0, 0].double().numpy()
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("size", [(480, 640), (481, 777), (800, 601), (205, 2469), (120, 161)])
@pytest.mark.parametrize("name", ["240x320", "480x640", "squash"])
def test_a_spot_goes_where_the_homography_says(size, name):
    protocol = PROTOCOLS[name]
    xy = (size[1] / 2 + 11.3, size[0] / 2 - 7.6)
    prepared, H = prepare(blob(size, xy, 9.0), protocol)
    assert prepared.shape[-2:] == protocol.size
    expected = warp_points(torch.tensor([[xy]], dtype=torch.float64), H[None])[0][0, 0].numpy()
    assert np.abs(centre_of_mass(prepared) - expected).max() < 0.1


def test_native_images_are_left_alone():
    image = torch.rand(1, 1, 33, 57)
    same, H = prepare(image, PROTOCOLS["native"])
    assert same is image
    assert torch.equal(H, torch.eye(3, dtype=torch.float64))


def test_cropping_keeps_the_aspect_and_squashing_the_whole():
    image = torch.zeros(1, 1, 600, 600)
    for name, corner in (("240x320", None), ("squash", (-0.5, -0.5))):
        _, H = prepare(image, PROTOCOLS[name])
        if corner is None:
            assert H[0, 0] == H[1, 1] == 320 / 600
        else:
            moved = warp_points(torch.tensor([[[-0.5, -0.5], [599.5, 599.5]]], dtype=torch.float64), H[None])[0]
            assert torch.allclose(moved, torch.tensor([[[-0.5, -0.5], [319.5, 239.5]]], dtype=torch.float64))


def test_fine_stripes_become_grey_instead_of_aliasing():
    stripes = (torch.arange(1280) // 2 % 2).float().expand(1, 1, 960, 1280)
    shown, _ = prepare(stripes, PROTOCOLS["240x320"])
    assert shown.std() < 0.05


def test_images_are_like_those_from_files():
    shown, _ = prepare(torch.rand(1, 1, 500, 700), PROTOCOLS["240x320"])
    assert torch.equal((shown * 255).round() / 255, shown)
    assert 0 <= shown.min() < shown.max() <= 1


def test_the_homography_between_prepared_images_by_opencv():
    """Two crops of one picture: image 1 warped by OpenCV with the carried homography looks like image 2."""
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.uniform(0, 1, (700, 1000)).astype(np.float32), (0, 0), 6)
    scene = (scene - scene.min()) / (scene.max() - scene.min())
    H_1to2 = np.array([[0.9, 0.1, 30], [-0.08, 1.05, 20], [1e-5, 4e-5, 1]])
    second = cv2.warpPerspective(scene, H_1to2, (801, 555))
    for name in ("240x320", "squash"):
        (one, to1), (two, to2) = (prepare(torch.tensor(s)[None, None], PROTOCOLS[name]) for s in (scene, second))
        H = carry(torch.tensor(H_1to2)[None], to1, to2)[0].numpy()
        warped = cv2.warpPerspective(one[0, 0].numpy(), H, (320, 240), borderValue=-1)
        shown = cv2.erode((warped > -0.5).astype(np.uint8), np.ones((9, 9))) > 0
        assert shown.mean() > 0.3
        assert np.abs(warped - two[0, 0].numpy())[shown].mean() < 0.004


def test_every_protocol_says_what_it_does():
    for name, protocol in PROTOCOLS.items():
        text = protocol.describe()
        for word in (name, str(protocol.max_keypoints), "3 px", "9x9", "many-to-one"):
            assert word in text


def test_greedy_suppression_is_said_and_nothing_else_is_known():
    assert choose("native").nms == choose("native", nms=None).nms == "window"
    greedy = choose("native", nms="greedy", nms_size=7)
    assert "greedy NMS 7x7" in greedy.describe()
    assert "greedy" not in choose("native", nms="window").describe()
    with pytest.raises(ValueError, match="--nms must be window or greedy, not soft"):
        choose("native", nms="soft")
