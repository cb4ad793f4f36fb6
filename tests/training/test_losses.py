"""What a loss must not like: constant maps, dot grids, the wrong place; and what it must: the truth."""

import math

import pytest
import torch

from kp.data.pairs import ViewPair
from kp.geometry.coords import pixel_grid, warp_points
from kp.training.losses import corner_loss, render_corners, uniform_divergence, window_divergence
from kp.training.losses import repeatability_losses as losses_of

SIZE = (96, 96)
POINTS = torch.cartesian_prod(torch.tensor([24.3, 39.8, 55.1, 70.6]), torch.tensor([30.2, 47.9, 66.4]))


def blobs(points, size=SIZE, height=12.0, sigma=0.8, floor=-4.0):
    """Scores (1, 1, H, W): the log of a narrow Gaussian, ``height`` over the floor, at each point (N, 2)."""
    distance = torch.cdist(pixel_grid(size, points)[0], points).amin(1)
    return (floor + (height - distance**2 / (2 * sigma**2)).clamp(min=0)).view(1, 1, *size)


@pytest.fixture
def pair():
    turn = math.radians(20)
    c, s = 1.1 * math.cos(turn), 1.1 * math.sin(turn)
    H = torch.tensor([[[c, -s, 48 - 48 * c + 48 * s + 3.3], [s, c, 48 - 48 * s - 48 * c - 2.6], [0, 0, 1.0]]])
    blank = torch.zeros(1, 1, *SIZE)
    return ViewPair(blank, blank, H)


@pytest.fixture
def truth(pair):
    """The score maps of a detector that finds the same twelve points of the scene in both views."""
    return blobs(POINTS), blobs(warp_points(POINTS[None], pair.H_0to1)[0][0])


def repeatability_losses(pair, scores0, scores1, **options):
    options = {"keypoints_per_megapixel": 1500.0, "match_radius": 1.0, "temperature": 0.3} | options
    return losses_of(pair, scores0, scores1, **options)


def terms(pair, maps, **options):
    return {name: value.item() for name, value in repeatability_losses(pair, *maps, **options).items()}


def test_the_truth_is_better_than_any_constant(pair, truth):
    good = terms(pair, truth)["localization"]
    assert good < 0.25
    for value in (-20.0, 0.0, 20.0):
        flat = torch.full((1, 1, *SIZE), value)
        assert terms(pair, (flat, flat))["localization"] == pytest.approx(1, rel=1e-4)


def test_uniform_divergence_is_the_divergence_of_an_even_window():
    flat = torch.zeros(1, 1, 30, 30, dtype=torch.float64)
    even = window_divergence(flat, torch.tensor([[[15.0, 15.0], [12.3, 14.8]]], dtype=torch.float64))
    assert torch.allclose(even, torch.full_like(even, uniform_divergence()))


def test_a_map_that_is_almost_constant_is_not_a_way_out(pair, truth):
    torch.manual_seed(0)
    ripple = torch.randn(2, 1, 1, *SIZE) * 1e-3
    assert terms(pair, (ripple[0], ripple[1]))["localization"] > 0.95


@pytest.mark.parametrize("spacing", [4, 8])
def test_a_dot_grid_tied_to_the_pixels_pays_nothing(pair, truth, spacing):
    grid = torch.cartesian_prod(torch.arange(0.0, 96, spacing), torch.arange(0.0, 96, spacing))
    dots = blobs(grid)
    loss = terms(pair, (dots, dots), nms_size=3)["localization"]
    assert loss > 0.8
    assert loss > 3 * terms(pair, truth)["localization"]


def test_more_peaks_do_not_pay(pair, truth):
    """Peaks in every flat place rank behind, and behind the last that counts they change nothing."""
    torch.manual_seed(0)
    clutter = blobs(torch.rand(150, 2) * 96, height=5.0)
    crowded = tuple(torch.maximum(t, clutter) for t in truth)
    few, many = (
        terms(pair, maps, keypoints_per_megapixel=2500.0, match_radius=1.5)["repeatability"]
        for maps in (truth, crowded)
    )
    assert few < 0.05
    assert many >= few - 1e-4


def test_larger_scores_with_the_same_ranks_hardly_pay(pair, truth):
    """While the temperature is small beside the differences of scores; else training would inflate them."""
    torch.manual_seed(0)
    maps = tuple(t / 4 + torch.randn_like(t) for t in truth)
    larger = tuple(3 * m for m in maps)
    gain = [
        terms(pair, maps, temperature=s)["repeatability"] - terms(pair, larger, temperature=s)["repeatability"]
        for s in (0.01, 1.0)
    ]
    assert abs(gain[0]) < 0.01
    assert gain[1] > 0.05


def test_repeatability_is_the_share_that_the_metric_counts(pair):
    """Twelve points wanted of twenty: where the best twelve are the same ones it is 0, where half differ a half."""
    torch.manual_seed(0)
    points = torch.cartesian_prod(torch.arange(24.0, 73, 11), torch.arange(26.0, 71, 11))[:20]
    there = warp_points(points[None], pair.H_0to1)[0][0]
    order = torch.randperm(20)

    def ranked(places, best):
        high = torch.zeros(20, dtype=torch.bool)
        high[best] = True
        return torch.maximum(blobs(places[high], height=12.0), blobs(places[~high], height=7.0))

    shared = pair.shared0(border=5).sum().item()
    for apart in (0, 3, 6):
        maps = ranked(points, order[:12]), ranked(there, order[apart : 12 + apart])
        loss = terms(pair, maps, keypoints_per_megapixel=11.5e6 / shared, match_radius=1.5)["repeatability"]
        assert loss == pytest.approx(apart / 12, abs=0.03)


def test_half_a_pixel_of_error_costs_and_pulls_back(pair, truth):
    points = torch.tensor([[40.0, 50.0]])
    there = warp_points(points[None], pair.H_0to1)[0]
    losses = [window_divergence(blobs(there[0] + torch.tensor([d, 0.0])), there).item() for d in (0.0, 0.5, 1.0, 2.0)]
    assert losses == sorted(losses)
    assert losses[1] > losses[0] + 0.05
    place = (there + torch.tensor([0.7, -0.4])).requires_grad_()
    window_divergence(blobs(there[0]), place).sum().backward()
    step = -place.grad[0, 0]
    assert step @ (there - place)[0, 0].detach() > 0, "the gradient does not point to the peak"


def test_every_score_near_the_place_gets_gradient(pair, truth):
    scores1 = truth[1].clone().requires_grad_()
    repeatability_losses(pair, truth[0], scores1, keypoints_per_megapixel=2500.0)["localization"].backward()
    assert (scores1.grad != 0).sum() > 12 * 40  # not one pixel each: a whole window


def test_repeatability_wants_high_scores_for_what_is_repeated_only(pair, truth):
    alone = torch.tensor([[30.0, 75.0]])
    scores0 = torch.maximum(truth[0], blobs(alone)).requires_grad_()
    repeatability_losses(pair, scores0, truth[1], keypoints_per_megapixel=1500.0)["repeatability"].backward()
    assert scores0.grad[0, 0, 75, 30] > 0  # gradient descent lowers it
    assert scores0.grad[0, 0, 48, 40] < 0  # and raises this one


def test_with_too_few_candidates_the_cut_is_below_them_all():
    from kp.training.losses import _cuts

    scores = torch.tensor([[5.0, 4.0, 0.0], [5.0, 4.0, 0.0]])
    valid = torch.tensor([[True, True, False], [False, False, False]])
    cuts = _cuts(scores, valid, torch.tensor([[9], [9]]))
    assert cuts[0] == 4 - 6  # room for more: six below the last that is there, whatever fills the places of the others
    assert cuts[1].isfinite()


@pytest.mark.parametrize("shift", [0.0, 30.0, 60.0])
def test_keypoints_are_counted_in_proportion_to_the_shared_area(pair, shift):
    from kp.training.losses import _best

    moved = ViewPair(pair.image0, pair.image1, torch.tensor([[[1.0, 0, shift], [0, 1, 0], [0, 0, 1]]]))
    torch.manual_seed(0)
    shared = moved.shared0(border=5)
    found = _best(torch.randn(1, 1, *SIZE), shared, shared, 2000.0, 3)
    area = (96 - 10) * (96 - 10 - shift)  # five pixels less on every side
    assert found.valid.sum() == math.ceil(area * 2000.0 / 1e6)
    assert shared[0, 0][found.xy[0, found.valid[0], 1].long(), found.xy[0, found.valid[0], 0].long()].all()


def test_a_constant_map_costs_chance_at_the_edge_of_the_shared_area_too(pair):
    from kp.training.losses import _BORDER

    edge = torch.tensor([[[_BORDER - 0.5, _BORDER - 0.5], [95.5 - _BORDER, 40.0]]])
    for value in (-8.0, 4.0):
        assert torch.allclose(
            window_divergence(torch.full((1, 1, *SIZE), value), edge),
            torch.full((1, 2), uniform_divergence()),
            atol=1e-4,
        )


def test_rendered_corners_are_gaussians_at_sub_pixel_places():
    corners = torch.tensor([[[20.3, 30.8], [50.0, 10.0], [5.0, 5.0], [95.4, 95.0]]])
    mask = torch.tensor([[True, True, False, True]])
    y, x = torch.arange(96.0)[:, None], torch.arange(96.0)
    expected = torch.stack(
        [torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2) for cx, cy in ((20.3, 30.8), (50, 10), (95.4, 95.0))]
    ).amax(0)
    assert (render_corners(corners, mask, SIZE)[0, 0] - expected).abs().max() < math.exp(-4.5)  # cut at three sigma


def corner_scores(corners):
    """The log-odds of a blob of one pixel's deviation at each corner (N, 2)."""
    distance = torch.cdist(pixel_grid(SIZE, corners)[0], corners).amin(1)
    return torch.exp(-(distance**2) / 2).clamp(1e-4, 1 - 1e-4).logit().view(1, 1, *SIZE)


def test_corner_loss_prefers_the_truth():
    corners, mask = torch.tensor([[[20.3, 30.8], [50.0, 10.0]]]), torch.ones(1, 2, dtype=torch.bool)
    right = corner_loss(corner_scores(corners[0]), corners, mask)
    for shift in (0.5, 1.0, 2.0):
        assert right < 0.5 * corner_loss(corner_scores(corners[0] + shift), corners, mask)
    for value in (-12.0, -2.0, 0.0, 5.0):
        assert right < 0.1 * corner_loss(torch.full((1, 1, *SIZE), value), corners, mask)


def test_corner_loss_does_not_look_outside_the_scene():
    corners, mask = torch.tensor([[[20.0, 30.0]]]), torch.ones(1, 1, dtype=torch.bool)
    valid = torch.ones(1, 1, *SIZE, dtype=torch.bool)
    valid[..., 60:, :] = False
    scores = blobs(corners[0])
    border = scores.clone()
    border[..., 60, :] = 9.0  # the edge of the warped image
    assert torch.equal(corner_loss(border, corners, mask, valid), corner_loss(scores, corners, mask, valid))


@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.exact)])
def test_gradcheck(pair, fast):
    torch.manual_seed(0)
    scores = torch.randn(1, 1, 24, 24, dtype=torch.float64, requires_grad=True)
    corners = torch.rand(1, 4, 2, dtype=torch.float64) * 20 + 2
    places = (torch.rand(1, 3, 2, dtype=torch.float64) * 8 + 8).requires_grad_()
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda s: corner_loss(s, corners, mask), scores, fast_mode=fast)
    assert torch.autograd.gradcheck(window_divergence, (scores, places))
    H = torch.tensor([[[1.05, 0.1, -1.3], [-0.1, 1.02, 0.7], [0, 0, 1.0]]], dtype=torch.float64)
    blank = torch.zeros(1, 1, 24, 24, dtype=torch.float64)
    tiny = ViewPair(blank, blank, H)
    other = torch.randn(1, 1, 24, 24, dtype=torch.float64)

    def loss(s0, s1):
        # The weight of a keypoint and the choice of keypoints are constants to the gradient, so only view 1 is checked
        # through the divergence and only view 0 through the repeatability term.
        return repeatability_losses(tiny, s0, s1, keypoints_per_megapixel=20000.0, nms_size=3)

    assert torch.autograd.gradcheck(lambda s1: loss(other, s1)["localization"], scores, fast_mode=fast)
    assert torch.autograd.gradcheck(lambda s0: loss(s0, other)["repeatability"], scores, fast_mode=fast)


def test_no_corner_and_no_shared_area_are_finite():
    empty = corner_loss(torch.zeros(1, 1, *SIZE), torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.bool))
    assert empty.isfinite()
    blank = torch.zeros(1, 1, *SIZE)
    apart = ViewPair(blank, blank, torch.tensor([[[1.0, 0, 500.0], [0, 1, 0], [0, 0, 1]]]))
    torch.manual_seed(0)
    scores = torch.randn(1, 1, *SIZE, requires_grad=True)
    assert all(v.isfinite() for v in repeatability_losses(apart, scores, scores).values())


def test_what_is_ignored_is_no_negative_and_a_corner_still_counts():
    scores = torch.full((1, 1, 20, 20), 2.0, dtype=torch.float64, requires_grad=True)
    corners, mask = torch.tensor([[[5.0, 5.0]]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    ignore = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    ignore[..., :, :12] = True
    corner_loss(scores, corners, mask, ignore=ignore).backward()
    gradient = scores.grad[0, 0]
    assert gradient[5, 5] != 0
    assert (gradient[:, 12:] > 0).all()
    assert not gradient[12:, :12].any()
