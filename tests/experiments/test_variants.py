"""Other uses of a detector: each does what its name says, to maps worked out by hand or by SciPy."""

import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from kp.evaluation.baselines import BASELINES
from kp.experiments.variants import (
    dense,
    four_sizes,
    harris_thinned,
    homographic_adaptation,
    image_pyramid,
    mixed_alike,
    of_the_negative,
    smoothed,
    sparse,
)
from kp.models.detector import Detector


@pytest.fixture
def smooth_image():
    y, x = torch.meshgrid(torch.linspace(0, 1, 60), torch.linspace(0, 1, 80), indexing="ij")
    return (0.25 + 0.5 * x * y)[None, None]


def test_a_pyramid_sees_the_image_at_three_scales(smooth_image):
    seen = []
    image = smooth_image

    def itself(image):
        seen.append(tuple(image.shape[-2:]))
        return image

    scores = image_pyramid(itself)(image)
    assert seen == [(60, 80), (42, 57), (30, 40)]
    assert scores.shape == image.shape
    assert (scores - image)[..., 4:-4, 4:-4].abs().max() < 2e-3  # smooth: the same at all scales, in its place


def test_adapted_maps_are_carried_back_to_their_places(smooth_image):
    seen = []

    def itself(image):
        seen.append(image)
        return image

    scores = homographic_adaptation(itself)(smooth_image)
    assert len(seen) == 9
    assert torch.equal(seen[0], smooth_image)
    assert all((view - smooth_image).abs().max() > 0.05 for view in seen[1:])
    assert (scores - smooth_image).abs().max() < 5e-3
    assert torch.equal(scores, homographic_adaptation(itself)(smooth_image))


def test_adaptation_takes_the_mean_of_the_views_that_see_a_place():
    image, calls = torch.rand(1, 1, 60, 80), []

    def by_view(image):
        calls.append(image)
        return torch.full_like(image, float(len(calls) > 1))  # 0 of the image itself, 1 of the others

    shares = homographic_adaptation(by_view)(image)
    counts = shares / (1 - shares)  # of the views that see a place
    assert counts.amax() == pytest.approx(8, abs=1e-3)
    assert counts[..., 30, 40] == pytest.approx(8, abs=1e-3)
    assert counts.amin() < 7


@pytest.mark.parametrize(("use", "radius"), [(dense, 2), (sparse, 8)])
def test_suppression_leaves_what_is_best_within_its_radius(use, radius):
    image = torch.rand(1, 1, 60, 80)
    found = use(lambda image: image)(image)
    window = (1, 1, 2 * radius + 1, 2 * radius + 1)
    best = image == torch.from_numpy(ndimage.maximum_filter(image.numpy(), window, mode="nearest"))
    assert torch.equal(found.isfinite(), best)
    assert torch.equal(found[best], image[best])


def test_smoothing_is_a_gaussian_of_a_pixel():
    spike = F.pad(torch.ones(1, 1, 1, 1), (10, 10, 10, 10))
    blurred = smoothed(lambda image: image)(spike)[0, 0]
    x = torch.arange(-10, 11)
    assert blurred.sum() == pytest.approx(1)
    assert (blurred.sum(0) * x**2).sum() == pytest.approx(1, abs=0.05)  # variance
    assert torch.allclose(blurred, blurred.T)


def test_harris_is_thinned_where_it_has_a_response():
    image = torch.rand(1, 1, 33, 47)
    response, found = BASELINES["harris"](image), harris_thinned(None)(image)
    assert torch.equal(found.isfinite(), response.isfinite())
    best = torch.from_numpy(ndimage.maximum_filter(response.numpy(), (1, 1, 3, 3), mode="nearest"))
    assert torch.equal(found[response == best], response[response == best])
    lower = response.isfinite() & (response < best)
    assert lower.any()
    assert (found[lower] < response[lower]).all()


def test_four_sizes_are_those_of_a_detector_that_looks_at_four():
    torch.manual_seed(0)
    given, image = Detector(thinned=False).eval(), torch.rand(1, 1, 65, 97)
    other = Detector(scales=4, thinned=False).eval()
    other.load_state_dict(given.state_dict())
    with torch.no_grad():
        assert torch.equal(four_sizes(given)(image), other(image))
    assert given.scales == 1


def test_the_negative_of_an_image_is_what_is_looked_at():
    image = torch.rand(1, 1, 5, 7)
    assert torch.equal(of_the_negative(lambda image: image)(image), 1 - image)


def test_mixed_alike_everywhere_is_what_a_detector_does_whose_encoder_says_nothing():
    torch.manual_seed(0)
    detector, image = Detector(thinned=False).eval(), torch.rand(1, 1, 65, 97)
    with torch.no_grad():
        assert torch.allclose(mixed_alike(detector)(image), detector(image), atol=1e-4)  # before training
        nn.init.normal_(detector.mix.weight, std=500)  # of features that hardly differ yet
        told, alike = detector(image), mixed_alike(detector)(image)
        assert not torch.allclose(told, alike, atol=0.1)
        weights = []
        hook = detector.mix.register_forward_hook(lambda *call: weights.append(call[-1].mean((0, 2, 3))))
        assert torch.equal(detector(image), told)  # the one given is as it was
        hook.remove()
        detector.mix.weight.zero_()
        detector.mix.bias.copy_(weights[0])
        assert torch.allclose(detector(image), alike, atol=1e-3 * alike.abs().max().item())
