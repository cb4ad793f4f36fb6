"""The losses of the describer: the descriptors of one place are alike, and which keypoints will be matched."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.data.pairs import ViewPair
from kp.geometry.block_filters import at_half_size
from kp.geometry.coords import inside, resize, resize_matrix, warp_points
from kp.models.detector import Detector
from kp.models.gradient_histograms import gradient_histograms

BORDER = 8.0  # pixels: places nearer to the edge of a view are not described
NEAR = 6.0  # pixels: two places so near are no example of different places
SAME_PATCH = 0.98  # cosine of two places' gradient histograms from which they look the same
_JITTER = 0.5  # pixels (standard deviation) of the place that the other view is given: a detector's error
_EXCLUDED = -1e4  # logit of a pair of places that does not count


class Places(NamedTuple):
    """The same places of the scene in both views of pairs: ``xy0`` and ``xy1`` (B, N, 2), ``valid`` (B, N) bool."""

    xy0: Tensor
    xy1: Tensor
    valid: Tensor


def shared_places(pair: ViewPair, detector: Detector, count: int, generator: torch.Generator) -> Places:
    """The best keypoints of each view, ``count`` of both together, carried to the other by the true homography.

    What is carried is moved by a random distance about as large as a detector's error.
    """
    half = max(1, count // 2)
    xy0, xy1, valid = _carried(pair, detector, half, generator)
    back1, back0, back_valid = _carried(pair.swap(), detector, half, generator)
    return Places(torch.cat([xy0, back0], 1), torch.cat([xy1, back1], 1), torch.cat([valid, back_valid], 1))


@torch.no_grad()
def _carried(
    pair: ViewPair, detector: Detector, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    found = detector.keypoints(pair.image0, count, subpixel=True, mask=pair.shared0(BORDER))
    places, in_front = warp_points(found.xy, pair.H_0to1)
    noise = torch.randn(places.shape, generator=generator, device=generator.device)
    places = places + _JITTER * noise.to(places)
    valid = found.valid & in_front & inside(places, pair.size1, BORDER / 2)
    return found.xy, places.masked_fill(~valid[..., None], 0), valid


def description_losses(
    descriptors0: Tensor,
    descriptors1: Tensor,
    logits0: Tensor,
    logits1: Tensor,
    places: Places,
    same: Tensor,
    inverse_temperature: float,
    kind: str = "softmax",
) -> dict[str, Tensor]:
    """The terms of the loss, scalars by name, and the share of places that are matched right.

    ``descriptor``: minus the log of the probability that a place of view 0 is told from all other places of the batch,
    and the same from view 1 (dual softmax, as LoFTR, Sun et al., CVPR 2021). ``matchability``: cross-entropy of "its
    mutual nearest neighbour is the right one". ``matched``: the share of places of which this is true.

    Args:
        descriptors0: (B, N, D), of unit length, of the places in view 0; ``descriptors1``: in view 1.
        logits0: (B, N), of the places in view 0; ``logits1``: in view 1.
        same: (B, N, N), pairs of places of one image that are no example of different places, see :func:`alike`.
        inverse_temperature: factor of the cosines.
        kind: softmax; or triplet, for the mean of "how much the hardest other place is nearer than a margin of 1 beyond
            the true one", from both views (HardNet, Mishchuk et al., NIPS 2017). Its term ``sosr`` is the distance
            between what a place is from its 8 nearest in the two views (SOSNet, Tian et al., CVPR 2019).
    """
    valid = places.valid.flatten()
    different = ~torch.block_diag(*same)[valid][:, valid] | torch.eye(int(valid.sum()), device=same.device).bool()
    one, two = descriptors0.flatten(0, 1)[valid], descriptors1.flatten(0, 1)[valid]
    logits = (inverse_temperature * one @ two.mT).masked_fill(~different, _EXCLUDED)
    true = torch.arange(len(logits), device=logits.device)
    if not len(true):
        nothing = descriptors0.sum() * 0 + logits0.sum() * 0
        return {"descriptor": nothing, "sosr": nothing, "matchability": nothing, "matched": nothing}
    if kind == "softmax":
        descriptor = (F.cross_entropy(logits, true) + F.cross_entropy(logits.mT, true)) / 2
    else:
        descriptor = _hardest_triplet(one, two, different)
    with torch.no_grad():
        right = (_own_pair(logits, places.valid) == true) & (_own_pair(logits.mT, places.valid) == true)
    said = torch.cat([logits0.flatten()[valid], logits1.flatten()[valid]])
    matchability = F.binary_cross_entropy_with_logits(said, right.to(said).repeat(2))
    sosr = _second_order(one, two, different)
    return {"descriptor": descriptor, "sosr": sosr, "matchability": matchability, "matched": right.float().mean()}


def _distances(one: Tensor, two: Tensor) -> Tensor:
    """Euclidean distances (M, N) of descriptors (M, D) and (N, D) of unit length."""
    return (2 - 2 * one @ two.mT).clamp(min=1e-6).sqrt()


def _hardest_triplet(one: Tensor, two: Tensor, different: Tensor) -> Tensor:
    """The hinge of margin 1 with the hardest of the ``different`` (M, M) places, from both views; the mean over M."""
    distances = _distances(one, two)
    others = distances.masked_fill(~different | torch.eye(len(one), device=one.device).bool(), 10.0)
    hinge = [F.relu(1 + distances.diagonal() - others.amin(axis)) for axis in (0, 1)]
    return (hinge[0] + hinge[1]).mean() / 2


def _second_order(one: Tensor, two: Tensor, different: Tensor) -> Tensor:
    """Root of the summed squared differences of distances to the 8 nearest of either view; the mean over M."""
    own = ~different | torch.eye(len(one), device=one.device).bool()
    apart0, apart1 = (_distances(each, each).masked_fill(own, 10.0) for each in (one, two))
    count = min(8, len(one))
    near = torch.zeros_like(own)
    for apart in (apart0, apart1):
        near = near.scatter(1, apart.topk(count, largest=False).indices, True)
    return ((apart0 - apart1).square() * (near & ~own)).sum(1).clamp(min=1e-12).sqrt().mean()


def view_histograms(pair: ViewPair, places: Places) -> tuple[Tensor, Tensor]:
    """The gradient histograms (B, N, D) of the places in view 0 and in view 1."""
    looks = ((pair.image0, places.xy0), (pair.image1, places.xy1))
    return tuple(gradient_histograms(at_half_size(image), xy) for image, xy in looks)


def tilted_histograms(images: Tensor, xy: Tensor, tilts: Sequence[float]) -> Tensor:
    """The gradient histograms (T, B, N, D) of places in images (B, 1, H, W) that are narrowed by each of the tilts.

    Along the x axis: as a camera far to the side sees a plane (Morel and Yu, ASIFT, SIAM J. Imaging Sciences 2009).
    """
    size, found = tuple(images.shape[-2:]), []
    for tilt in tilts:
        narrow = (size[0], max(1, round(size[1] / tilt)))
        places, _ = warp_points(xy, resize_matrix(size, narrow).to(xy)[None].expand(len(xy), -1, -1))
        found.append(gradient_histograms(at_half_size(resize(images, narrow)), places))
    return torch.stack(found)


def alike(places: Places, histograms: tuple[Tensor, Tensor]) -> Tensor:
    """Pairs of places of one image that are no example of different places: (B, N, N) bool.

    They are near each other in one of the views, or their ``histograms`` look the same in one of them: flat or periodic
    patches.
    """
    near = (torch.cdist(places.xy0, places.xy0) < NEAR) | (torch.cdist(places.xy1, places.xy1) < NEAR)
    for view in histograms:
        near = near | (view @ view.mT > SAME_PATCH)
    return near


def _own_pair(logits: Tensor, valid: Tensor) -> Tensor:
    """Of logits (M, M) of the ``valid`` (B, N) places the best column (M,) of each row, within the row's image."""
    image = torch.arange(len(valid), device=valid.device)[:, None].expand_as(valid)[valid]
    return logits.masked_fill(image[:, None] != image, 2 * _EXCLUDED).argmax(1)
