"""The corner response against scipy; OpenCV's score map against torch's, of any size, in tiles, in bounded memory."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Forked
from scipy import ndimage

from kp.data.hpatches import read_image
from kp.data.photographs import folder
from kp.models import corner_cpu
from kp.models.checkpoint import load_detector
from kp.models.corner import CornerDetector, floor_detector
from kp.models.keypoints import extract_keypoints


def blocks(size=(97, 131), seed=0):
    """An image of blocks of 8 pixels and a little noise."""
    generator = np.random.default_rng(seed)
    image = generator.random((size[0] // 8 + 1, size[1] // 8 + 1)).repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    return np.clip(0.1 + 0.8 * image + 0.01 * generator.normal(size=size), 0, 1).astype(np.float32)


def scipy_response(image, sigma, window):
    smooth = ndimage.gaussian_filter(image.astype(float), sigma, mode="nearest", radius=int(np.ceil(3 * sigma)))
    dx, dy = (ndimage.sobel(smooth, axis, mode="nearest") / 8 for axis in (1, 0))
    blur = {"mode": "nearest", "radius": int(np.ceil(3 * window))}
    xx, yy, xy = (ndimage.gaussian_filter(p, window, **blur) for p in (dx * dx, dy * dy, dx * dy))
    return np.log(np.maximum((xx * yy - xy**2) / (xx + yy + 1e-5), 0) + 1e-5) / 2


def scipy_floor(image):
    """Mean of three scales, blurred by 1 px, less 0.9 of the mean around; times 4."""
    total = np.mean([scipy_response(image, *s) for s in ((0.7, 1.5), (1.4, 2.0), (2.8, 4.0))], axis=0)
    near, around = (ndimage.gaussian_filter(total, s, mode="nearest", radius=int(3 * s)) for s in (1, 4))
    return 4 * (near - 0.9 * around)


@pytest.mark.parametrize("use_opencv", [True, False])
def test_the_floor_is_the_prominence_of_the_mean_response(use_opencv):
    image = blocks()
    expected = scipy_floor(image)
    expected = expected - 10 * (ndimage.maximum_filter(expected, 3, mode="nearest") - expected)
    detector = floor_detector()
    detector.use_opencv = use_opencv
    with torch.no_grad():
        found = detector(torch.from_numpy(image)[None, None])[0, 0].numpy()
    assert np.abs(found - expected).max() < 2e-3 * np.ptp(expected)


def test_a_coarse_scale_at_half_size_is_the_scale_but_for_a_little():
    """The response at half the size of 2x2 means, enlarged: within a tenth of the range of the response itself."""
    image = ndimage.gaussian_filter(blocks((160, 192)), 2)
    scale = {"derivative_sigmas": (4.0,), "window_sigmas": (5.6,), "surround_weight": 0.0, "thinning": 0.0}
    with torch.no_grad():
        whole, half = (
            CornerDetector(**scale, half_size_scales=n).eval()(torch.from_numpy(image)[None, None])[0, 0]
            for n in (0, 1)
        )
    inner = np.s_[20:-20, 20:-20]
    whole, half = (scores[inner] - scores[inner].mean() for scores in (whole, half))
    assert torch.corrcoef(torch.stack([whole.flatten(), half.flatten()]))[0, 1] > 0.98


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (5, 4), (33, 47), (120, 161), (481, 642)])
@pytest.mark.parametrize("make", [CornerDetector, floor_detector])
def test_opencv_gives_the_scores_and_keypoints_of_torch(make, size):
    images = torch.from_numpy(np.stack([blocks(size, seed) for seed in (1, 2)]))[:, None]
    detector = make().eval()
    with torch.no_grad():
        by_opencv = detector(images)
        detector.use_opencv = False
        by_torch = detector(images)
    assert (by_opencv - by_torch).abs().max() < 3e-4 * max(1.0, (by_torch.max() - by_torch.min()).item())
    found, expected = (extract_keypoints(scores, 300, subpixel=True) for scores in (by_opencv, by_torch))
    assert torch.equal(found.valid, expected.valid)
    away = torch.cdist(found.xy.double(), expected.xy.double()).amin(2)[found.valid]
    assert (away < 0.01).float().mean() >= 0.99 if len(away) else True


def test_opencv_is_used_only_where_no_gradient_is_wanted(monkeypatch):
    calls = []
    monkeypatch.setattr(corner_cpu, "score_map", lambda image, *_: calls.append(1) or np.zeros_like(image))
    image, detector = torch.rand(1, 1, 20, 20), CornerDetector()
    detector.train()(image)
    detector.eval()(image)
    assert not calls
    with torch.no_grad():
        detector(image)
    assert calls


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["default", "ranked", "mobilenet_v3_small"])
def test_every_floating_point_type_gives_the_keypoints_of_float32(name, dtype):
    image = (torch.from_numpy(blocks((120, 160)))[None, None] * 8).round() / 8  # steps that every type has
    with torch.no_grad():
        expected = load_detector(name).keypoints(image, 100, subpixel=True)
        found = load_detector(name).to(dtype).keypoints(image.to(dtype), 100, subpixel=True)
    assert found.xy.dtype == torch.float32
    if dtype == torch.float64 or name == "default":
        assert torch.equal(found.xy, expected.xy)
    away = torch.cdist(found.xy, expected.xy)[0].amin(1)
    assert (away < 0.5).float().mean() > 0.95  # learnt weights are rounded


@pytest.mark.parametrize("size", [(2100, 1030), (1500, 1499)])
def test_tiles_give_the_keypoints_of_the_whole_image(size, monkeypatch):
    image, detector = torch.from_numpy(blocks(size))[None, None], CornerDetector().eval()
    with torch.no_grad():
        whole = detector(image)
        monkeypatch.setattr(corner_cpu, "_ONE_TILE", 0)
        monkeypatch.setattr(corner_cpu, "_TILE", 512)
        tiled = detector(image)
    assert (whole - tiled).abs().max() < 1e-3
    expected, found = (extract_keypoints(scores, 3000, subpixel=True) for scores in (whole, tiled))
    away = torch.cdist(found.xy.double(), expected.xy.double())[0].amin(1)
    assert (away < 0.01).float().mean() > 0.999


def test_threads_do_not_change_the_scores():
    numbers, image = CornerDetector().numbers, blocks((203, 310))
    one, two = (corner_cpu.score_map(image, numbers, 10.0, threads) for threads in (1, 2))
    assert np.array_equal(one, two)


def test_a_corner_of_a_photograph_moves_with_it():
    image, detector = read_image(folder() / "camera.png"), CornerDetector().eval()
    with torch.no_grad():
        here, moved = (
            extract_keypoints(detector(view), 200, border=20, subpixel=True)
            for view in (image[..., 2:-2, 4:-4], image[..., :-4, :-8])
        )
    away = torch.cdist((here.xy + torch.tensor([4.0, 2.0])).double(), moved.xy.double())[0].amin(1)
    assert (away < 0.1).float().mean() > 0.9


def peak():
    """The peak memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def print_memory():
    """The bytes a pixel that the keypoints of an image of a size take."""
    torch.set_num_threads(2)
    detector = CornerDetector().eval()
    with torch.inference_mode():
        extract_keypoints(detector(torch.rand(1, 1, 64, 64)), 1000, subpixel=True)
        image = torch.rand(1, 1, *map(int, sys.argv[1:]))
        before = peak()
        extract_keypoints(detector(image), 1000, subpixel=True)
    print((peak() - before) / image.numel())


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("size", [(1200, 1600), (4000, 3000)])
def test_keypoints_take_at_most_60_bytes_a_pixel(size):
    with Forked(print_memory, *size) as measured:
        _, out, err = measured.finish()
    assert 4 <= float(out) <= 60, err


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="no encoder mobilenet_v3_small"):
        CornerDetector(encoder="mobilenet_v3_small")
    with pytest.raises(ValueError, match="half-size-scales"):
        CornerDetector(half_size_scales=5)
    with pytest.raises(ValueError, match="one number for each scale"):
        CornerDetector(window_sigmas=(1.0,))
