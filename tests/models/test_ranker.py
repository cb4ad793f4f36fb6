"""What the ranker reads around a keypoint, against numpy; that it orders keypoints and moves none."""

import numpy as np
import pytest
import torch

from kp.geometry import block_filters
from kp.models.corner import CornerDetector
from kp.models.keypoints import Keypoints, extract_keypoints
from kp.models.peak_features import NUM_FEATURES, peak_features
from kp.models.ranker import Ranker, reranked


def keypoints(xy, scores=None):
    xy = torch.tensor([xy], dtype=torch.float32)
    scores = torch.zeros(xy.shape[:2]) if scores is None else torch.tensor([scores], dtype=torch.float32)
    return Keypoints(xy, scores, torch.ones(xy.shape[:2], dtype=torch.bool))


@pytest.mark.parametrize("gradient", [False, True])
def test_filters_over_blocks_are_numpys(gradient):
    """With gradient torch computes them, without OpenCV."""
    maps = np.random.default_rng(0).random((2, 3, 12, 16)).astype(np.float32)
    blocks = maps.reshape(2, 3, 6, 2, 8, 2)
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    around = np.stack([padded[:, :, y : y + 12, x : x + 16] for y in range(3) for x in range(3)])
    laplacian = np.array([1, -2, 1, -2, 4, -2, 1, -2, 1]) / 6
    with torch.set_grad_enabled(gradient):
        given = torch.from_numpy(maps)
        found = [
            f(given)
            for f in (block_filters.mean_2x2, block_filters.max_2x2, block_filters.max_3x3, block_filters.noise)
        ]
    expected = [blocks.mean((3, 5)), blocks.max((3, 5)), around.max(0), np.abs(np.tensordot(laplacian, around, axes=1))]
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one.numpy(), other, atol=1e-5)


@pytest.mark.parametrize("gradient", [False, True])
def test_values_are_put_in_order_in_each_image(gradient):
    values = np.random.default_rng(1).random((3, 50)).astype(np.float32)
    found = block_filters.ascending(torch.from_numpy(values).requires_grad_(gradient))
    assert np.array_equal(found.detach().numpy(), np.sort(values, axis=1))
    assert found.requires_grad == gradient


def test_noise_is_read_with_its_standard_deviation():
    grey = 0.5 + 0.02 * torch.randn(1, 1, 300, 300, generator=torch.Generator().manual_seed(0))
    mean_size = (
        (2 / torch.pi) ** 0.5 if isinstance(torch.pi, torch.Tensor) else (2 / np.pi) ** 0.5
    )  # of a normal number
    assert block_filters.noise(grey).mean().item() == pytest.approx(0.02 * mean_size, rel=0.03)


def test_features_of_a_flat_image():
    """Grey, no contrast, nothing clipped: the keypoint's grey and the image's mean and quantiles are the grey."""
    features = peak_features(torch.full((1, 1, 64, 96), 0.25), keypoints([[10.0, 20.0], [50.0, 40.0]]))
    assert features.shape == (1, 2, NUM_FEATURES)
    assert torch.equal(features[0, 0, 4:], features[0, 1, 4:])  # all but score and rank
    assert (features[0, 0] == 0.25).sum() >= 8  # grey, extremes, mean and quantiles
    assert features[0, :, 1].exp().tolist() == pytest.approx([1 / 6.144, 2 / 6.144], rel=1e-4)  # of 1000 a megapixel


def test_features_move_with_the_image():
    """By 32 pixels, the size of the largest block: then the blocks are the same."""
    image = torch.rand(1, 1, 160, 160, generator=torch.Generator().manual_seed(0))
    moved = image.roll((32, 32), (-2, -1))
    xy = [[70.0, 61.0], [90.0, 88.0]]
    here, there = (peak_features(i, keypoints(p)) for i, p in ((image, xy), (moved, [[x + 32, y + 32] for x, y in xy])))
    assert torch.allclose(here[0, :, 4:25], there[0, :, 4:25], atol=1e-4)


def test_clipped_pixels_are_counted():
    image = torch.full((1, 1, 64, 64), 0.5)
    image[..., :32] = 1.0
    white, grey = peak_features(image, keypoints([[16.0, 32.0], [48.0, 32.0]]))[0]
    changed = (white - grey).abs() > 0.9
    assert changed.any()
    assert (white == 1).sum() > (grey == 1).sum()


def test_keypoints_are_put_in_a_new_order_and_stay_where_they_are():
    found = Keypoints(
        torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [0.0, 0.0]]]),
        torch.tensor([[3.0, 2.0, 1.0, -torch.inf]]),
        torch.tensor([[True, True, True, False]]),
    )
    ranked = reranked(found, torch.tensor([[0.0, 2.0, 1.0, 9.0]]))
    assert ranked.scores[0, :3].tolist() == [4.0, 3.0, 2.0]
    assert ranked.xy[0].tolist() == [[3.0, 4.0], [1.0, 2.0], [5.0, 6.0], [0.0, 0.0]]
    assert ranked.valid[0].tolist() == [True, True, True, False]
    assert torch.equal(reranked(found, torch.zeros(1, 4)).xy, found.xy)


def test_the_detector_finds_the_same_keypoints_in_another_order():
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(2, 3, 12, 15), (96, 120), mode="bicubic").clamp(0, 1)
    detector = CornerDetector(ranker_weight=5.0).eval()
    with torch.no_grad():
        plain = extract_keypoints(detector(image), subpixel=True)
        ranked = detector.keypoints(image, subpixel=True)
        best = detector.keypoints(image, 20, subpixel=True)
    for b in range(2):
        one, other = (k.xy[b][k.valid[b]] for k in (plain, ranked))
        assert not torch.equal(one, other)
        assert torch.equal(one[one[:, 0].argsort()], other[other[:, 0].argsort()])
    assert best.xy.shape == (2, 20, 2)
    assert torch.equal(best.xy, ranked.xy[:, :20])


def test_without_a_ranker_or_weight_keypoints_are_in_order_of_their_scores():
    image = torch.rand(1, 1, 64, 80)
    for detector in (CornerDetector(ranker_width=0).eval(), CornerDetector(ranker_weight=0.0).eval()):
        with torch.no_grad():
            found, plain = detector.keypoints(image, 30), extract_keypoints(detector(image), 30)
        assert torch.equal(found.xy, plain.xy)
        assert torch.equal(found.scores, plain.scores)


def test_each_image_is_judged_on_its_own():
    torch.manual_seed(0)
    images, ranker = torch.rand(2, 1, 64, 64), Ranker(8).eval()
    found = extract_keypoints(torch.rand(2, 1, 64, 64), 20)
    with torch.no_grad():
        both, second = ranker.judge(images, found), ranker.judge(images[1:], found.each(slice(1, 2)))
    assert torch.allclose(both[1:], second, atol=1e-5)
