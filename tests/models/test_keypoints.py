"""Keypoints placed by hand: ties, plateaus, borders, fewer than asked for."""

import numpy as np
import pytest
import torch

from kp.models import keypoints as module
from kp.models.keypoints import Keypoints, extract_keypoints, most_keypoints, resized


def score_map(size, points, low=-10.0):
    scores = torch.full((1, 1, *size), low) + torch.linspace(0, -1e-3, size[0] * size[1]).view(1, 1, *size)
    for x, y, value in points:
        scores[0, 0, y, x] = value
    return scores


def found(keypoints):
    return [tuple(xy) for xy in keypoints.xy[keypoints.valid].tolist()]


def test_best_first_with_scores_and_padding():
    keypoints = extract_keypoints(score_map((40, 50), [(10, 12, 3.0), (30, 20, 7.0)]), 300, border=8)
    assert keypoints.xy.shape == (1, 300, 2)
    assert found(keypoints) == [(30, 20), (10, 12)]
    assert keypoints.scores[0, :2].tolist() == [7.0, 3.0]
    assert (keypoints.scores[~keypoints.valid] == -torch.inf).all()


def test_suppression_reaches_half_a_kernel():
    scores = score_map((40, 50), [(20, 20, 5.0), (24, 24, 4.0), (20, 15, 3.0)])
    assert found(extract_keypoints(scores, 10, nms_size=9, border=4))[:2] == [(20, 20), (20, 15)]
    assert (24, 24) in found(extract_keypoints(scores, 10, nms_size=7, border=4))


def test_equal_neighbours_give_one_keypoint_not_none():
    scores = score_map((40, 50), [(20, 20, 5.0), (21, 20, 5.0), (20, 21, 5.0), (21, 21, 5.0)])
    assert found(extract_keypoints(scores, 1)) == [(20, 20)]


def test_large_logits_stay_apart():
    scores = score_map((40, 50), [(10, 20, 40.0), (30, 20, 41.0)])
    assert found(extract_keypoints(scores, 1)) == [(30, 20)]


@pytest.mark.parametrize(("border", "expected"), [(0, [(0, 0), (49, 39)]), (1, []), (4, [])])
def test_maxima_at_the_very_edge_are_found_and_the_border_leaves_them_out(border, expected):
    scores = torch.full((1, 1, 40, 50), -torch.inf)
    scores[0, 0, 0, 0], scores[0, 0, 39, 49] = 2.0, 1.0
    assert found(extract_keypoints(scores, 5, border=border)) == expected


def test_border_is_measured_from_the_edge_of_the_image():
    scores = torch.full((1, 1, 40, 50), -torch.inf)
    scores[0, 0, 20, 4] = 1.0  # four whole pixels to its left
    scores[0, 0, 10, 3] = 2.0
    assert found(extract_keypoints(scores, 5, border=4)) == [(4, 20)]


def test_mask_and_minus_infinity_leave_out():
    scores = score_map((40, 50), [(10, 12, 3.0), (30, 20, 7.0)])
    mask = torch.ones_like(scores, dtype=torch.bool)
    mask[0, 0, 20, 30] = False
    assert found(extract_keypoints(scores, 1, mask=mask)) == [(10, 12)]
    nothing = extract_keypoints(torch.full((2, 1, 40, 50), -torch.inf), 7)
    assert not nothing.valid.any()
    assert nothing.xy.shape == (2, 7, 2)


def test_no_place_is_lost_when_all_are_asked_for():
    torch.manual_seed(0)
    scores = torch.rand(1, 1, 33, 47)
    everything = extract_keypoints(scores, None, nms_size=3, border=0)
    assert everything.valid.sum() <= most_keypoints((33, 47), 3) == everything.valid.shape[1]
    brute = sum(
        bool(scores[0, 0, y, x] >= scores[0, 0, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].max())
        for y in range(33)
        for x in range(47)
    )
    assert everything.valid.sum() == brute


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (8, 300)])
def test_small_images(size):
    keypoints = extract_keypoints(torch.rand(1, 1, *size), 5, border=0)
    assert keypoints.xy.shape == (1, 5, 2)
    assert keypoints.valid.sum() >= 1


def test_every_image_of_a_batch_is_on_its_own():
    torch.manual_seed(1)
    scores = torch.randn(3, 1, 30, 40)
    together = extract_keypoints(scores, 9)
    for b in range(3):
        assert torch.equal(extract_keypoints(scores[b : b + 1], 9).xy[0], together.xy[b])


def test_subpixel_finds_the_top_of_a_paraboloid():
    y, x = torch.arange(40.0)[:, None], torch.arange(50.0)
    scores = -((x - 20.3) ** 2 + 0.5 * (y - 11.8) ** 2 + 0.3 * (x - 20.3) * (y - 11.8))
    keypoints = extract_keypoints(scores[None, None], 1, subpixel=True)
    assert torch.allclose(keypoints.xy[0, 0], torch.tensor([20.3, 11.8]), atol=1e-3)


def test_nan_and_even_kernels_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        extract_keypoints(torch.full((1, 1, 9, 9), torch.nan), 1)
    with pytest.raises(ValueError, match="odd"):
        extract_keypoints(torch.zeros(1, 1, 9, 9), 1, nms_size=8)


def test_select_keeps_the_order():
    keypoints = extract_keypoints(score_map((60, 60), [(10, 10, 3.0), (30, 30, 7.0), (50, 50, 5.0)]), 3, border=8)
    kept = keypoints.select(torch.tensor([[False, True, True]]), 2)
    assert found(kept) == [(50, 50), (10, 10)]


def rough_map(seed, ties):
    """A batch of scores; some are equal if ``ties``, some -inf."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 6, (2, 1, 37, 53), generator=generator).float() if ties else None
    scores = torch.rand(2, 1, 37, 53, generator=generator) if scores is None else scores
    return scores.masked_fill(torch.rand(scores.shape, generator=generator) < 0.2, -torch.inf)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("nms_size", [3, 5, 9, 15])
def test_opencv_finds_the_maxima_that_kornia_finds(nms_size, ties):
    """To the bit, plateaus included: Kornia's are those of the ranks of all pixels."""
    for seed in range(4):
        scores = rough_map(seed, ties)
        kornia = (scores > -torch.inf) & module._best_within(module._total_order(scores), nms_size)
        assert torch.equal(module._peaks(scores, nms_size), kornia)
        assert torch.equal(module._peaks(scores.double(), nms_size), kornia)


def greedy_by_hand(scores, nms_size):
    """Pixels in order of score, the first in raster order where equal; each removes its window."""
    order = np.lexsort((np.arange(scores.size), -scores.ravel()))
    kept, reach = [], nms_size // 2
    for y, x in zip(*np.unravel_index(order, scores.shape), strict=True):
        free = all(max(abs(y - other_y), abs(x - other_x)) > reach for other_x, other_y in kept)
        if scores[y, x] > -np.inf and free:
            kept.append((x, y))
    return [list(map(float, place)) for place in kept]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("nms_size", [3, 7])
def test_greedy_suppression_takes_the_best_and_removes_its_window(nms_size, ties):
    scores = rough_map(9, ties)
    found = extract_keypoints(scores, None, nms_size, border=0, greedy=True)
    for image in range(2):
        expected = greedy_by_hand(scores[image, 0].numpy(), nms_size)
        assert found.xy[image][found.valid[image]].tolist() == expected
        assert len(expected) > extract_keypoints(scores, None, nms_size, border=0).valid[image].sum()


def test_more_places_than_keypoints_are_empty():
    found = Keypoints(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[2.0]]), torch.tensor([[True]]))
    more = resized(found, 3)
    assert more.xy.tolist() == [[[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]]]
    assert more.scores.tolist() == [[2.0, -torch.inf, -torch.inf]]
    assert more.valid.tolist() == [[True, False, False]]
    assert torch.equal(resized(more, 1).xy, found.xy)
