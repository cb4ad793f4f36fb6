"""What the describer learns from: the same places of the scene in both views of a pair, and their histograms."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kp.data.pairs import ViewPair
from kp.geometry.block_filters import at_half_size
from kp.geometry.coords import inside, resize, resize_matrix, warp_points
from kp.models.detector import Detector
from kp.models.gradient_histograms import gradient_histograms
from kp.models.keypoints import extract_keypoints

BORDER = 8.0  # pixels: places nearer to the edge of a view are not described
NEAR = 6.0  # pixels: two places so near are no example of different places
SAME_PATCH = 0.98  # cosine of two places' gradient histograms from which they look the same
_JITTER = 0.5  # pixels (standard deviation) of the place that the other view is given: a detector's error
_EXCLUDED = -4.0  # in place of the cosine of two places that are no example of different ones


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
    scores = detector.score_map(pair.image0)  # not its keypoints: a ranker would change their order as it learns
    found = extract_keypoints(scores, count, subpixel=True, mask=pair.shared0(BORDER))
    places, in_front = warp_points(found.xy, pair.H_0to1)
    noise = torch.randn(places.shape, generator=generator, device=generator.device)
    places = places + _JITTER * noise.to(places)
    valid = found.valid & in_front & inside(places, pair.size1, BORDER / 2)
    return found.xy, places.masked_fill(~valid[..., None], 0), valid


def matched_share(descriptors0: Tensor, descriptors1: Tensor, valid: Tensor, same: Tensor) -> Tensor:
    """The share of places whose mutual nearest neighbour in the other view is the right one: a scalar, 0 of none.

    Args:
        descriptors0: (B, N, D), of unit length, of the places in view 0; ``descriptors1``: in view 1.
        valid: (B, N), the places that count.
        same: (B, N, N), pairs of places of one image that are no example of different places, see :func:`alike`.
    """
    own = torch.eye(valid.shape[1], device=valid.device).bool()
    excluded = (same & ~own) | ~(valid[:, :, None] & valid[:, None, :])
    cosines = (descriptors0 @ descriptors1.mT).masked_fill(excluded, _EXCLUDED)
    true = torch.arange(valid.shape[1], device=valid.device)
    right = (cosines.argmax(2) == true) & (cosines.argmax(1) == true) & valid
    return right.sum() / valid.sum().clamp(min=1)


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
