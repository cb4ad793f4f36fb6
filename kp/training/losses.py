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
_SIGMA = 0.8  # pixels: where in the window the keypoint may be; far below half the spacing of keypoints
_CANDIDATES = 3  # for each keypoint that counts: those that could come to count
_ROOM = 6.0  # of scores: how far below the last of too few candidates the cut lies
_NEVER = -1e4  # a score so low that its pixel has no probability
_CORNER_SIGMA = 1.0  # pixels of the blob that a corner is rendered as


def chance_level(window: int = _WINDOW, sigma: float = _SIGMA) -> float:
    """The divergence in nats of a window whose probability is spread evenly, as that of any constant map is."""
    offsets = torch.arange(window, dtype=torch.float64) - window // 2
    target = torch.softmax(-(offsets[:, None] ** 2 + offsets**2).flatten() / (2 * sigma**2), dim=0)
    return math.log(window**2) + (target * target.log()).sum().item()


def corner_loss(
    scores: Tensor, corners: Tensor, mask: Tensor, valid: Tensor | None = None, ignore: Tensor | None = None
) -> Tensor:
    """How badly scores show the true corners (B, K, 2), of which ``mask`` (B, K) are real: a scalar, >= 0.

    The corners are rendered afresh as blobs in this very view; no label map is ever warped. Quality focal loss (Li et
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
    density: float = 1000.0,
    nms_size: int = 9,
    slack: float = 1.0,
    softness: float = 0.3,
    pooling: float = 0.0,
    policy: bool = False,
) -> dict[str, Tensor]:
    """The self-supervised terms: scalars by name, none of which needs to know a corner.

    The keypoints of a view are its best ones inside the area that both views share, so many for each megapixel of that
    area (``density``): more peaks do not pay. No gradient goes through which pixels they are.

    ``repeatability``: carry each keypoint of view 0 to view 1 and compare the softmax of the scores in a window there
    with a narrow Gaussian at the very place: Kullback-Leibler divergence, weighted by the score's probability, as a
    share of :func:`chance_level`. A place without a keypoint counts as an even window, so 1 is chance: what any empty
    or constant map costs.

    ``ranking``: one less the metric itself, made soft. Of three times as many candidates, each is chosen with a
    probability that falls from one to zero as its score falls below those about the last rank that counts; the term is
    the share of what is chosen in view 0 that has no chosen candidate of view 1 within ``slack`` pixels. Its gradient
    asks both views to rank the same points first, and those behind to make room. ``softness`` is the difference of
    scores over which that probability is undecided; small beside their range, or it would pay to make them differ more,
    whatever that does to the ranks. The last rank is that of each view or, by a share ``pooling``, that of the
    whole batch, as if it were one large picture, some places of which deserve more points than others.

    With ``policy`` the ``ranking`` is instead a policy gradient's loss, after DaD (Edstedt et al., 2025): a pixel's
    probability is the softmax of the scores over the shared area; the keypoints of view 0, the best ones in place of
    draws, have a reward of 1 where view 1 has a keypoint within ``slack``, over the mean reward; the loss is the mean
    of reward times surprise (nats). So it is no share, and does not tell how many are repeated.
    """
    shared0, shared1 = pair.shared0(border=_BORDER), pair.swap().shared0(border=_BORDER)
    candidates0 = _best(scores0, shared0, shared0, _CANDIDATES * density, nms_size)
    candidates1 = _best(scores1, shared1, shared0, _CANDIDATES * density, nms_size)
    wanted = _wanted(shared0, density)
    repeatability = _spread(pair, scores0, scores1, candidates0, wanted)
    near = _near(pair, candidates0.xy, candidates1.xy, slack)
    if policy:
        ranking = _reinforced(scores0, shared0, candidates0, candidates1, wanted, near)
    else:
        view0, view1 = (scores0, candidates0), (scores1, candidates1)
        ranking = _not_repeated(view0, view1, wanted.sum(1), near, softness, pooling)
    return {"repeatability": repeatability, "ranking": ranking}


def _spread(pair: ViewPair, scores0: Tensor, scores1: Tensor, candidates0: Keypoints, wanted: Tensor) -> Tensor:
    """How badly view 1 shows the ``wanted`` (B, K) first candidates of view 0, as a share of chance."""
    count = wanted.shape[1]
    xy, valid = candidates0.xy[:, :count], candidates0.valid[:, :count]
    places1, _ = warp_points(xy, pair.H_0to1)
    divergence = window_divergence(scores1, places1)
    # A keypoint that is not there says nothing of where it is: an even window, for the whole weight of a keypoint.
    weight = torch.where(valid, sample_at(scores0, xy)[:, 0].detach().sigmoid(), 1.0)
    return _mean(torch.where(valid, divergence, chance_level()), weight * wanted) / chance_level()


def _near(pair: ViewPair, xy0: Tensor, xy1: Tensor, slack: float) -> Tensor:
    """Which points (B, K0, 2) of view 0 lie in view 1 within ``slack`` pixels of which (B, K1, 2): (B, K0, K1)."""
    places1, _ = warp_points(xy0, pair.H_0to1)
    return torch.cdist(places1.detach(), xy1.to(places1), compute_mode="donot_use_mm_for_euclid_dist") <= slack


def _not_repeated(
    view0: tuple[Tensor, Keypoints],
    view1: tuple[Tensor, Keypoints],
    wanted: Tensor,
    near: Tensor,
    softness: float,
    pooling: float,
) -> Tensor:
    """The share of what is chosen of view 0's candidates that view 1 does not repeat: a scalar.

    ``wanted`` (B,) are to be chosen; ``near`` (B, K0, K1) as of :func:`_near`.
    """
    chosen0, chosen1 = (_chosen(*view, wanted, softness, pooling) for view in (view0, view1))
    repeated = chosen0 * (chosen1[:, None] * near).amax(2)
    return wanted.any() * (1 - repeated.sum() / chosen0.sum().clamp(min=1e-6))


def _reinforced(
    scores0: Tensor, shared0: Tensor, candidates0: Keypoints, candidates1: Keypoints, wanted: Tensor, near: Tensor
) -> Tensor:
    """How improbable view 0's softmax makes those of its ``wanted`` (B, K) points that view 1 repeats: a scalar, nats.

    Scores and ``shared0`` are (B, 1, H, W); ``near`` (B, >= K, >= K) as of :func:`_near`. 0 where nothing is repeated.
    """
    count = wanted.shape[1]
    first0, first1 = (wanted & candidates.valid[:, :count] for candidates in (candidates0, candidates1))
    rewarded = first0 & (near[:, :count, :count] & first1[:, None]).any(2)
    log_chance = scores0.masked_fill(~shared0, _NEVER).flatten(1).log_softmax(1)
    x, y = candidates0.xy[:, :count].long().unbind(-1)
    return -_mean(log_chance.gather(1, y * scores0.shape[-1] + x), rewarded)


def _chosen(scores: Tensor, candidates: Keypoints, wanted: Tensor, softness: float, pooling: float) -> Tensor:
    """The probabilities (B, K), with gradient, that candidates are among the ``wanted`` (B,) best of their image."""
    at = sample_at(scores, candidates.xy)[:, 0]
    together = (part.reshape(1, -1) for part in (at, candidates.valid, wanted.sum()))
    cut = (1 - pooling) * _cuts(at, candidates.valid, wanted[:, None]) + pooling * _cuts(*together)
    return torch.sigmoid((at - cut[:, None]) / softness) * candidates.valid


def _cuts(scores: Tensor, valid: Tensor, wanted: Tensor) -> Tensor:
    """The scores (B,), with gradient, between the ``wanted`` (B, 1) best of scores (B, N) and those that come next."""
    best, order = scores.masked_fill(~valid, -torch.inf).sort(dim=1, descending=True)
    there = valid.gather(1, order)
    share = torch.arange(1, scores.shape[1] + 1, device=scores.device) / wanted.clamp(min=1)  # of the ranks that count
    last, next_ = there & (share >= 0.6) & (share <= 1), there & (share > 1) & (share <= 1.4)
    means = [best.masked_fill(~part, 0).sum(1) / part.sum(1).clamp(min=1) for part in (last, next_)]
    least = torch.where(there, best, torch.inf).detach().amin(1).clamp(max=-_NEVER)  # finite where there is none
    return torch.where(last.any(1) & next_.any(1), sum(means) / 2, least - _ROOM)  # else: room for all, or none are


def window_divergence(scores: Tensor, places: Tensor, window: int = _WINDOW, sigma: float = _SIGMA) -> Tensor:
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


def _best(scores: Tensor, mask: Tensor, shared0: Tensor, density: float, nms_size: int) -> Keypoints:
    """The best keypoints inside ``mask``, as many as the shared area of each image asks for."""
    wanted = _wanted(shared0, density)
    return extract_keypoints(scores, wanted.shape[1], nms_size, border=0, mask=mask).select(wanted)


def _wanted(shared0: Tensor, density: float) -> Tensor:
    """True for the places (B, K) that the shared area (B, 1, H, W) asks for, whether there is a keypoint or not."""
    most = max(1, math.ceil(shared0.shape[-2] * shared0.shape[-1] * density / 1e6))
    count = (shared0.sum((1, 2, 3)) * density / 1e6).ceil()
    return torch.arange(most, device=shared0.device) < count[:, None]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)
