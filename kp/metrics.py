"""Two views' keypoints and the homography between them -> repeatability and localisation error.

The protocol, that of the HPatches exercise this project grew from (the idea is from DeTone et al., SuperPoint, CVPRW
2018, appendix): a keypoint counts when the other view sees its place; then the best ``max_keypoints`` of each view by
score; then neighbours are counted in both directions, several points may share one neighbour, and all distances, in
both directions, are pixels of view 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.geometry import Size, covisible, invert, warp_points
from kp.keypoints import Keypoints


@dataclass(frozen=True)
class PairScores:
    """What a batch of view pairs scores: floating-point tensors (B,), one value per pair.

    ``repeatability``: the share, in [0, 1], of the counted points of both views that have a neighbour in the other;
    0 if either view has no counted point. ``localisation_error``: pixels of view 1, the mean distance to the nearest
    neighbour of those that have one; NaN if none has. ``common``: counted points, the mean of the two views.
    ``repeated``: points with a neighbour, the mean of the two views, so that repeated = repeatability * common.
    """

    repeatability: Tensor
    localisation_error: Tensor
    common: Tensor
    repeated: Tensor


def repeatability(
    keypoints0: Keypoints,
    keypoints1: Keypoints,
    H_0to1: Tensor,
    size0: Size,
    size1: Size,
    max_keypoints: int = 300,
    threshold: float = 3.0,
) -> PairScores:
    """Score pairs of views by their keypoints (B, K0), (B, K1) and H_0to1 (B, 3, 3), pixels of view 0 -> of view 1.

    ``threshold`` is in pixels and still counts as near. Give all keypoints of a view: those that the other view does
    not see are left out before the best ``max_keypoints`` are taken. Runs on the device of the input, in float64 (on
    MPS, which has none, in float32). Raises ValueError on a singular homography.
    """
    H_0to1 = H_0to1.to(_exact_dtype(H_0to1.device))
    seen0 = counted(keypoints0, H_0to1, size1, max_keypoints)
    seen1 = counted(keypoints1, invert(H_0to1), size0, max_keypoints)
    to1, to0 = nearest_distances(seen0, seen1, H_0to1)
    return _summary(torch.cat([to1, to0], dim=1), seen0.valid.sum(1), seen1.valid.sum(1), threshold)


def counted(keypoints: Keypoints, H_0to1: Tensor, size1: Size, max_keypoints: int) -> Keypoints:
    """The best ``max_keypoints`` keypoints (B, <= max_keypoints) of a view 0 among those that view 1 sees."""
    return keypoints.select(covisible(keypoints.xy.to(H_0to1.dtype), H_0to1, size1), max_keypoints)


def nearest_distances(keypoints0: Keypoints, keypoints1: Keypoints, H_0to1: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels of view 1 from each keypoint of view 0 to the nearest of view 1 (B, K0), and the other way (B, K1).

    Infinite where a place holds no keypoint or the other view has none. The keypoints of view 0 must be in front.
    """
    points0, _ = warp_points(keypoints0.xy.to(H_0to1.dtype), H_0to1)
    points1 = keypoints1.xy.to(H_0to1.dtype)
    # the matrix-product form of cdist is off by 1e-3 px in float32, and decides at the threshold
    distance = torch.cdist(points0, points1, compute_mode="donot_use_mm_for_euclid_dist")  # (B, K0, K1)
    both = keypoints0.valid[:, :, None] & keypoints1.valid[:, None]
    distance = F.pad(distance.masked_fill(~both, torch.inf), (0, 1, 0, 1), value=torch.inf)  # none: inf
    return distance.amin(2)[:, :-1], distance.amin(1)[:, :-1]


def _summary(nearest: Tensor, count0: Tensor, count1: Tensor, threshold: float) -> PairScores:
    """From nearest distances (B, K0 + K1) and counted points (B,) of each view."""
    near = nearest <= threshold
    total, hits = count0 + count1, near.sum(1)  # (B,)
    error = nearest.masked_fill(~near, 0).sum(1) / hits  # 0 / 0 is NaN: no error without a match
    common, repeated = total.to(nearest.dtype) / 2, hits.to(nearest.dtype) / 2
    return PairScores(repeated / common.clamp(min=0.5), error, common, repeated)


def _exact_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
