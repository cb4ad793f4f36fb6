"""The terms of the training loss: each in one direction, from view 0 to view 1; add the term of ``pair.swap()``.

Scores are logits (B, 1, H, W).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.data.pairs import ViewPair
from kp.geometry.coords import Size, inside, sample_at, warp_points
from kp.models.keypoints import Keypoints, extract_keypoints

_WINDOW = 9  # pixels, odd: no wider than the NMS window, so that it holds one keypoint
_BORDER = _WINDOW // 2 + 1  # pixels: a window about a place so far from the edge lies inside the image
_TARGET_SIGMA = 0.8  # pixels: where in the window the keypoint may be; far below half the spacing of keypoints
_CANDIDATES_PER_KEYPOINT = 3  # of the repeatability loss: those that may come to count
_CUT_MARGIN = 6.0  # of scores: how far the cut lies below the last candidate where all candidates count
_LARGEST_SCORE = 1e4  # stands for the cut's place where there is no candidate at all
_CORNER_SIGMA = 1.0  # pixels: standard deviation of the blob that a corner is rendered as


def uniform_divergence(window: int = _WINDOW, sigma: float = _TARGET_SIGMA) -> float:
    """The divergence in nats of a window with equal scores: what any constant score map costs."""
    offsets = torch.arange(window, dtype=torch.float64) - window // 2
    target = torch.softmax(-(offsets[:, None] ** 2 + offsets**2).flatten() / (2 * sigma**2), dim=0)
    return math.log(window**2) + (target * target.log()).sum().item()


def corner_loss(
    scores: Tensor, corners: Tensor, mask: Tensor, valid: Tensor | None = None, ignore: Tensor | None = None
) -> Tensor:
    """How badly scores show the true corners (B, K, 2), of which ``mask`` (B, K) are real: a scalar, >= 0.

    The corners are rendered as blobs in each view; no label map is warped. Quality focal loss (Li et
    al., NeurIPS 2020, eq. 4, beta = 2) summed over the ``valid`` (B, 1, H, W) pixels, divided by the number of corners,
    or by four an image where there are fewer. What is in ``ignore`` (B, 1, H, W) and shows no corner does not count.
    """
    target = render_corners(corners, mask, tuple(scores.shape[-2:]))
    error = (target - scores.sigmoid()) ** 2 * F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    if valid is not None:
        error = error * valid
    if ignore is not None:
        error = error * (~ignore | (target > 0))
    return error.sum() / mask.sum().clamp(min=4 * len(scores))


def render_corners(corners: Tensor, mask: Tensor, size: Size) -> Tensor:
    """A map (B, 1, H, W) of blobs of height 1 at the sub-pixel places of corners (B, K, 2); overlaps do not add."""
    reach = math.ceil(3 * _CORNER_SIGMA)
    steps = torch.arange(-reach, reach + 1, device=corners.device)
    pixels = corners.round()[:, :, None] + torch.cartesian_prod(steps, steps)  # (B, K, N, 2)
    height = torch.exp(-((pixels - corners[:, :, None]) ** 2).sum(-1) / (2 * _CORNER_SIGMA**2))
    height = height * (mask[..., None] & inside(pixels.flatten(1, 2), size).view_as(height))
    index = pixels[..., 1].clamp(0, size[0] - 1) * size[1] + pixels[..., 0].clamp(0, size[1] - 1)
    target = height.new_zeros(len(corners), size[0] * size[1])
    target = target.scatter_reduce(1, index.long().flatten(1), height.flatten(1), "amax")
    return target.view(-1, 1, *size)


def repeatability_losses(
    pair: ViewPair,
    scores0: Tensor,
    scores1: Tensor,
    keypoints_per_megapixel: float,
    match_radius: float,
    temperature: float,
    nms_size: int = 9,
) -> dict[str, Tensor]:
    """The two self-supervised terms of the loss: scalars by name. Neither needs to know a corner.

    The keypoints of a view are its best ones inside the area that both views share. Their number follows from that
    area, so more peaks do not lower the loss. No gradient goes through the choice of pixels.

    ``localization``: each keypoint of view 0 is warped to view 1. The softmax of the scores in a window there is
    compared with a narrow Gaussian at exactly that place: Kullback-Leibler divergence, weighted by the probability of
    the score, divided by :func:`uniform_divergence`. 1 is chance: what an empty or constant map costs.

    ``repeatability``: one minus a soft version of the metric. There are three times as many candidates as keypoints
    that count. A candidate is chosen with a probability that falls from one to zero as its score falls below the scores
    about the last rank that counts. The term is the share of what is chosen in view 0 that has no chosen candidate of
    view 1 within ``match_radius``. Its gradient makes both views rank the same points first, and lowers the others.

    Args:
        scores0: logits (B, 1, H, W) of view 0.
        scores1: logits (B, 1, H, W) of view 1.
        keypoints_per_megapixel: keypoints that count, for each megapixel of the shared area.
        match_radius: pixels of view 1.
        temperature: difference of scores over which the choice is undecided. It must be small beside the range of the
            scores; otherwise larger scores would lower the loss without a change of ranks.
        nms_size: pixels, odd.
    """
    shared0, shared1 = pair.shared0(border=_BORDER), pair.swap().shared0(border=_BORDER)
    candidate_density = _CANDIDATES_PER_KEYPOINT * keypoints_per_megapixel
    candidates0 = _best(scores0, shared0, shared0, candidate_density, nms_size)
    candidates1 = _best(scores1, shared1, shared0, candidate_density, nms_size)
    wanted = _wanted(shared0, keypoints_per_megapixel)
    near = _near(pair, candidates0.xy, candidates1.xy, match_radius)
    chosen0 = _chosen(scores0, candidates0, wanted.sum(1), temperature)
    chosen1 = _chosen(scores1, candidates1, wanted.sum(1), temperature)
    return {
        "localization": _localization(pair, scores0, scores1, candidates0, wanted),
        "repeatability": _not_repeated(chosen0, chosen1, near) * wanted.any(),
    }


def _localization(pair: ViewPair, scores0: Tensor, scores1: Tensor, candidates0: Keypoints, wanted: Tensor) -> Tensor:
    """The divergence in view 1 of the ``wanted`` (B, K) first candidates of view 0, as a share of chance: a scalar."""
    count = wanted.shape[1]
    xy, valid = candidates0.xy[:, :count], candidates0.valid[:, :count]
    places1, _ = warp_points(xy, pair.H_0to1)
    divergence = window_divergence(scores1, places1)
    # A missing keypoint costs as much as a window with equal scores, with the whole weight of a keypoint.
    weight = torch.where(valid, sample_at(scores0, xy)[:, 0].detach().sigmoid(), 1.0)
    return _mean(torch.where(valid, divergence, uniform_divergence()), weight * wanted) / uniform_divergence()


def _near(pair: ViewPair, xy0: Tensor, xy1: Tensor, match_radius: float) -> Tensor:
    """Which points (B, K0, 2) of view 0 lie in view 1 within ``match_radius`` pixels of which points (B, K1, 2).

    Returns a mask (B, K0, K1).
    """
    places1, _ = warp_points(xy0, pair.H_0to1)
    return torch.cdist(places1.detach(), xy1.to(places1), compute_mode="donot_use_mm_for_euclid_dist") <= match_radius


def _not_repeated(chosen0: Tensor, chosen1: Tensor, near: Tensor) -> Tensor:
    """The share of what is chosen in view 0 that view 1 does not repeat: a scalar.

    Args:
        chosen0: probabilities (B, K0) of the candidates of view 0; chosen1: (B, K1), of view 1.
        near: mask (B, K0, K1), see :func:`_near`.
    """
    repeated = chosen0 * (chosen1[:, None] * near).amax(2)
    return 1 - repeated.sum() / chosen0.sum().clamp(min=1e-6)


def _chosen(scores: Tensor, candidates: Keypoints, wanted: Tensor, temperature: float) -> Tensor:
    """The probabilities (B, K), with gradient, that candidates are among the ``wanted`` (B,) best of their image."""
    at = sample_at(scores, candidates.xy)[:, 0]
    cut = _cuts(at, candidates.valid, wanted[:, None])
    return torch.sigmoid((at - cut[:, None]) / temperature) * candidates.valid


def _cuts(scores: Tensor, valid: Tensor, wanted: Tensor) -> Tensor:
    """The scores (B,), with gradient, between the ``wanted`` (B, 1) best of scores (B, N) and those that come next."""
    best, order = scores.masked_fill(~valid, -torch.inf).sort(dim=1, descending=True)
    exists = valid.gather(1, order)
    share = torch.arange(1, scores.shape[1] + 1, device=scores.device) / wanted.clamp(min=1)  # of the ranks that count
    last, following = exists & (share >= 0.6) & (share <= 1), exists & (share > 1) & (share <= 1.4)
    means = [best.masked_fill(~part, 0).sum(1) / part.sum(1).clamp(min=1) for part in (last, following)]
    least = torch.where(exists, best, torch.inf).detach().amin(1).clamp(max=_LARGEST_SCORE)  # finite without candidates
    return torch.where(last.any(1) & following.any(1), sum(means) / 2, least - _CUT_MARGIN)  # else all count, or none


def window_divergence(scores: Tensor, places: Tensor, window: int = _WINDOW, sigma: float = _TARGET_SIGMA) -> Tensor:
    """How far the scores around places (B, N, 2) are from a peak there: KL divergence in nats (B, N), >= 0.

    Of the softmax over a window of ``window`` pixels a side, read bilinearly so that its centre is the place itself,
    from a Gaussian of ``sigma`` pixels. Differentiable in the scores and, through Kornia's sampling, in the places.
    """
    steps = torch.arange(window, device=scores.device, dtype=places.dtype) - window // 2
    offsets = torch.cartesian_prod(steps, steps)  # (window ** 2, 2)
    around = (places[:, :, None] + offsets).flatten(1, 2)
    log_found = sample_at(scores, around)[:, 0].view(*places.shape[:2], -1).log_softmax(-1)
    log_target = torch.log_softmax(-(offsets**2).sum(-1) / (2 * sigma**2), dim=0).to(log_found)
    return (log_target.exp() * (log_target - log_found)).sum(-1)


def _best(scores: Tensor, mask: Tensor, shared0: Tensor, keypoints_per_megapixel: float, nms_size: int) -> Keypoints:
    """The best keypoints inside ``mask``, as many as the shared area of each image asks for."""
    wanted = _wanted(shared0, keypoints_per_megapixel)
    return extract_keypoints(scores, wanted.shape[1], nms_size, border=0, mask=mask).select(wanted)


def _wanted(shared0: Tensor, keypoints_per_megapixel: float) -> Tensor:
    """True for the places (B, K) that the shared area (B, 1, H, W) asks for, whether there is a keypoint or not."""
    most = max(1, math.ceil(shared0.shape[-2] * shared0.shape[-1] * keypoints_per_megapixel / 1e6))
    count = (shared0.sum((1, 2, 3)) * keypoints_per_megapixel / 1e6).ceil()
    return torch.arange(most, device=shared0.device) < count[:, None]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)
