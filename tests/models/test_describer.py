import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from kp.geometry.block_filters import at_half_size
from kp.models.corner import CornerDetector
from kp.models.gradient_histograms import DIRECTIONS, RINGS, SIZE, gradient_histograms, gradient_maps


def noise(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return CornerDetector(ranker_width=0).eval()


# --- histograms ---


def test_a_ramp_has_its_gradient_in_its_direction_and_cos_squared_beside():
    x = torch.arange(32.0)
    grey = (0.01 * x).expand(1, 1, 32, 32)
    at = gradient_maps(grey)[0, :, 16, 16]
    wanted = [0.01 * max(0.0, math.cos(2 * math.pi * k / DIRECTIONS)) ** 2 for k in range(DIRECTIONS)]
    assert torch.allclose(at, torch.tensor(wanted), atol=1e-6)


def test_histograms_are_those_of_blurred_maps_read_on_rings():
    """By scipy: the maps blurred at once, and read bilinearly."""
    image, xy = noise(1, 1, 1, 128, 160), torch.tensor([[[70.0, 64.0], [81.5, 60.25]]])
    half = at_half_size(image)
    maps = gradient_maps(half)[0].numpy()
    found = gradient_histograms(half, xy)[0]
    for point, values in zip(xy[0].numpy(), found, strict=True):
        wanted = []
        for radius, places, sigma in RINGS:
            s = math.sqrt((sigma**2 - 0.25) / 4)
            blurred = [gaussian_filter(m, s, mode="nearest", truncate=6) for m in maps]
            for place in range(places):
                angle = 2 * math.pi * place / places
                x, y = (point + radius * np.array([math.cos(angle), math.sin(angle)]) - 0.5) / 2
                x0, y0 = math.floor(x), math.floor(y)
                a, b = x - x0, y - y0
                for m in blurred:
                    rows = m[y0, x0] * (1 - a) + m[y0, x0 + 1] * a, m[y0 + 1, x0] * (1 - a) + m[y0 + 1, x0 + 1] * a
                    wanted.append(rows[0] * (1 - b) + rows[1] * b)
        wanted = np.sqrt(np.array(wanted) / (sum(wanted) + 1e-3))
        assert len(wanted) == SIZE
        assert np.abs(values.numpy() - wanted).max() < 0.008  # kernels end at 3 sigmas, wide rings are coarse


def test_opencv_and_torch_give_the_same_histograms():
    half, xy = noise(2, 2, 1, 60, 70), 110 * noise(3, 2, 9, 2)
    fast = gradient_histograms(half, xy)
    slow = gradient_histograms(half.double(), xy.double())  # OpenCV takes float32 only
    assert torch.allclose(fast.double(), slow, atol=1e-4)


def test_contrast_does_not_change_histograms_and_an_even_patch_has_none():
    half, xy = noise(4, 1, 1, 60, 70), 20 + 80 * noise(5, 1, 20, 2)
    assert torch.allclose(gradient_histograms(half, xy), gradient_histograms(0.5 * half + 0.3, xy), atol=2e-3)
    assert gradient_histograms(torch.full((1, 1, 60, 70), 0.5), xy).abs().max() < 1e-3


# --- the describer ---


def test_descriptors_have_unit_length(detector):
    descriptors = detector.describe(noise(6, 2, 1, 61, 83), 50 * noise(7, 2, 11, 2))
    assert descriptors.shape == (2, 11, detector.settings.descriptor_size)
    assert torch.allclose(descriptors.norm(dim=2), torch.ones(2, 11), atol=1e-5)


def test_a_descriptor_moves_with_its_place(detector):
    """Of an image moved by 32 pixels, far from the edge."""
    wide = noise(8, 1, 1, 288, 320)
    xy = torch.tensor([[[130.0, 140.0], [150.25, 120.5]]])
    one, two = detector.describe(wide[..., :-32], xy), detector.describe(wide[..., 32:], xy - torch.tensor([32.0, 0]))
    assert (one * two).sum(2).min() > 0.999


def test_colour_is_grey_and_other_types_are_described(detector):
    grey, xy = noise(9, 1, 1, 64, 64), 10 + 40 * noise(10, 1, 5, 2)
    wanted = detector.describe(grey, xy)
    assert torch.allclose(detector.describe(grey.expand(1, 3, 64, 64), xy), wanted, atol=1e-4)
    assert torch.allclose(detector.describe(grey.double(), xy.double()), wanted, atol=1e-4)


def test_a_detector_without_a_describer_says_so():
    with pytest.raises(ValueError, match="no descriptors"):
        CornerDetector(descriptor_size=0).describe(noise(1, 1, 1, 64, 64), torch.zeros(1, 1, 2))


def test_random_maps_take_no_chance_from_what_is_trained_beside():
    """The ranker begins with the same weights, and torch's random numbers go on as if there were no describer."""
    found = []
    for size in (0, 128):
        torch.manual_seed(3)
        found.append((CornerDetector(descriptor_size=size).ranker.state_dict(), torch.rand(3)))
    assert all(torch.equal(values, found[1][0][name]) for name, values in found[0][0].items())
    assert torch.equal(found[0][1], found[1][1])


def test_keypoints_are_those_of_the_detector_without_a_describer(detector):
    image = noise(11, 1, 1, 90, 120)
    alone = CornerDetector(ranker_width=0, descriptor_size=0).eval().keypoints(image, 50, subpixel=True)
    assert torch.equal(detector.keypoints(image, 50, subpixel=True).xy, alone.xy)
