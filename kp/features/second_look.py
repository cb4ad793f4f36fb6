"""A second look at two images: one of them warped to look like the other, and described anew.

The first look (:mod:`kp.features.alignment`) compares descriptors in few turns, sizes and tilts, all keypoints in the
same. Its matches have a homography. Where this is evidence and says that the images are not seen alike, the image that
shows more is warped to the frame of the other, so its keypoints are described as the other image sees them: in any
turn, size and tilt, and each in its own. No keypoint moves. What one homography fits of the matches of the second look
counts. The other keypoints are matched by both looks, and two of them are as alike as in the look in which they are
more alike, so what is not on the plane of the homography loses next to nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kp.features.alignment import Aligned, as_they_are
from kp.features.estimate import FIT, Fit, estimate, in_front
from kp.features.evidence import evidence
from kp.features.neighbours import mutual_neighbours
from kp.geometry.coords import Size, inside, invert, jacobian, resize, resize_matrix, warp_image, warp_points
from kp.geometry.homography import scale

Describe = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""A grey image (1, 1, H, W) and places (N, 2) in it, in pixels -> what is compared: ``descriptors`` (N, D), and
``scaled_descriptors`` (N, S, D) if there are any, on any device."""

_ALIKE = 0.1  # share of its length by which a small vector may change between images seen alike: median of matches
_SIZES = 16.0  # times more, at most, an image shows of a thing


@torch.no_grad()
def second_look(
    images: tuple[Tensor, Tensor],
    features: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    matches: Tensor,
    fit: Fit,
    describe: Describe,
    context: bool = False,
) -> Aligned | None:
    """The descriptors of a second look, zero for keypoints that it does not show; None where there is none.

    Args:
        images: grey, (1, 1, H, W) each.
        features: of each image, ``keypoints`` (N, 2) in pixels, and what was compared, as ``Describe`` gives it.
        matches: (M, 2), of the first look, indices of keypoints of image 0 and of image 1.
        fit: their homography, pixels of image 0 to pixels of image 1, if any, and which of them it fits.
        describe: describes keypoints of a warped image as those of ``features`` were described.
        context: see :func:`kp.match`.

    Raises:
        ValueError: ``describe`` gives descriptors of another length than those of ``features``.
    """
    H_0to1, fits = fit
    if H_0to1 is None:
        return None
    keypoints = [each["keypoints"] for each in features]
    xy0, xy1 = (xy[at] for xy, at in zip(keypoints, matches.unbind(1), strict=True))
    H_0to1 = in_front(H_0to1, xy0[fits])
    changes = jacobian(H_0to1[None], xy0[fits].cpu().double()[None])[0]  # pixels of image 1 per pixel of image 0
    changes = changes[changes.flatten(1).isfinite().all(1)]
    size = float(scale(changes).median()) if len(changes) else 0.0
    if not 1 / _SIZES < size < _SIZES or _alike(changes):
        return None
    if not evidence(xy0, xy1, H_0to1, None, FIT, keypoints[1])["verified_H"]:  # takes longest
        return None
    one, two = features
    if size <= 1:
        one = _described(images[0], keypoints[0], H_0to1, size, tuple(images[1].shape[-2:]), describe)
    else:
        two = _described(images[1], keypoints[1], invert(H_0to1), 1 / size, tuple(images[0].shape[-2:]), describe)
    lengths = [each["descriptors"].shape[1] for each in (one, two)]
    if lengths[0] != lengths[1]:
        raise ValueError(f"descriptors of {lengths[0]} and of {lengths[1]} numbers cannot be matched")
    return as_they_are(one, two, context)


def both_looks(
    first: Aligned,
    second: Aligned,
    keypoints: tuple[Tensor, Tensor],
    ratio: float | None = None,
    estimator: str = "opencv",
) -> dict[str, Any]:
    """The ``matches`` and ``scores`` of two looks at the ``keypoints`` (N0, 2) and (N1, 2), as of :func:`kp.match`."""
    looks = [(each.descriptors0, each.descriptors1) for each in (first, second)]
    pairs, scores = mutual_neighbours(looks[1:], ratio)
    xy0, xy1 = (xy[at] for xy, at in zip(keypoints, pairs.unbind(1), strict=True))
    fits = estimate(xy0, xy1, FIT, "homography", estimator)[1].to(pairs.device)
    pairs, scores = pairs[fits], scores[fits]
    others, their_scores = mutual_neighbours(looks, ratio)
    free = ~torch.stack([torch.isin(others[:, side], pairs[:, side]) for side in (0, 1)]).any(0)
    pairs, scores = torch.cat([pairs, others[free]]), torch.cat([scores, their_scores[free]])
    order = pairs[:, 0].argsort()
    return {"matches": pairs[order], "scores": scores[order]}


def _alike(changes: Tensor) -> bool:
    """Whether images are seen alike, of which small vectors change by matrices (M, 2, 2)."""
    moved = torch.linalg.matrix_norm(changes - torch.eye(2).to(changes), 2)
    return float(moved.median()) < _ALIKE


def _described(
    image: Tensor, xy: Tensor, H: Tensor, times: float, size: Size, describe: Describe
) -> Mapping[str, Tensor]:
    """What is compared of an image (1, 1, H, W), described at ``xy`` (N, 2) as another of ``size`` sees it.

    Zero for keypoints that the other does not see.

    Args:
        H: (3, 3), pixels of the image to pixels of the other.
        times: how many times as large the image is in the other, at most 1.
    """
    whole = tuple(image.shape[-2:])
    small = tuple(max(2, round(times * side)) for side in whole)
    from_small = (H @ invert(resize_matrix(whole, small))).float().to(xy.device)
    seen = warp_image(resize(image.to(xy.device), small), from_small[None], size, padding="border")
    places, ahead = (each[0] for each in warp_points(xy[None].cpu().double(), H[None]))
    there = (ahead & inside(places, size)).nonzero()[:, 0]
    found = describe(seen.clamp(0, 1), places[there].float().to(xy.device))
    found = {name: values.to(xy.device) for name, values in found.items()}
    there = there.to(xy.device)
    return {name: each.new_zeros(len(xy), *each.shape[1:]).index_copy(0, there, each) for name, each in found.items()}
