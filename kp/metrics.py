"""Two views' keypoints and the homography between them -> repeatability and localisation error.

The protocol, that of the HPatches exercise this project grew from (the idea is from DeTone et al., SuperPoint, CVPRW
2018, appendix): a keypoint counts when the other view sees its place; then the best ``max_keypoints`` of each view by
score; then neighbours are counted in both directions, several points may share one neighbour, and all distances, in
both directions, are pixels of view 1.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import Tensor
from torch.nn import functional as F

from kp.geometry import Size, covisible, covisible_mask, invert, warp_points
from kp.keypoints import Keypoints

THRESHOLDS = (1, 3, 5)  # pixels: what is always measured, beside a protocol's own threshold


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


def measure_pair(
    keypoints0: Keypoints,
    keypoints1: Keypoints,
    H_0to1: Tensor,
    size0: Size,
    size1: Size,
    max_keypoints: int,
    threshold: float,
) -> dict[str, float]:
    """Everything that is measured of one pair (B = 1), as plain numbers by name; arguments as :func:`repeatability`.

    The fields of PairScores at ``threshold``, and ``repeatability_1px`` to ``_5px``, ``one_to_one``, ``coverage``, the
    mean of both views', and ``chance``: see the functions of these names.
    """
    H_0to1 = H_0to1.to(_exact_dtype(H_0to1.device))
    H_1to0 = invert(H_0to1)
    seen0, seen1 = counted(keypoints0, H_0to1, size1, max_keypoints), counted(keypoints1, H_1to0, size0, max_keypoints)
    count0, count1 = seen0.valid.sum(1), seen1.valid.sum(1)
    nearest = torch.cat(nearest_distances(seen0, seen1, H_0to1), dim=1)
    scores = {name: value.item() for name, value in vars(_summary(nearest, count0, count1, threshold)).items()}
    for pixels in THRESHOLDS:
        scores[f"repeatability_{pixels}px"] = _summary(nearest, count0, count1, pixels).repeatability.item()
    covered = coverage(seen0, H_0to1, size0, size1, max_keypoints), coverage(seen1, H_1to0, size1, size0, max_keypoints)
    shared1 = covisible_mask(H_1to0, size1, size0).sum().item()
    return scores | {
        "one_to_one": one_to_one(seen0, seen1, H_0to1, threshold),
        "coverage": sum(covered) / 2,
        "chance": chance_level(count0.item(), count1.item(), shared1, threshold),
    }


def one_to_one(keypoints0: Keypoints, keypoints1: Keypoints, H_0to1: Tensor, threshold: float = 3.0) -> float:
    """Repeatability of counted keypoints (B = 1) when none may be the neighbour of two: the most pairs there can be.

    Where the usual count is generous to points that huddle together, this one is not (Hopcroft and Karp's matching).
    """
    points0, points1 = keypoints0.xy[keypoints0.valid], keypoints1.xy[keypoints1.valid]
    if not len(points0) or not len(points1):
        return 0.0
    moved = warp_points(points0[None].to(H_0to1.dtype), H_0to1)[0][0]
    near = torch.cdist(moved, points1.to(H_0to1.dtype), compute_mode="donot_use_mm_for_euclid_dist") <= threshold
    matched = maximum_bipartite_matching(csr_matrix(near.cpu().numpy()), perm_type="column")
    return 2 * float((matched >= 0).sum()) / (len(points0) + len(points1))


def chance_level(count0: int, count1: int, shared1: float, threshold: float = 3.0) -> float:
    """The repeatability to expect of so many counted points strewn evenly over ``shared1`` square pixels of view 1."""
    if not count0 or not count1 or shared1 <= 0:
        return 0.0
    hit = min(1.0, math.pi * threshold**2 / shared1)  # by one point of the other view
    found = count0 * (1 - (1 - hit) ** count1) + count1 * (1 - (1 - hit) ** count0)
    return found / (count0 + count1)


def coverage(keypoints0: Keypoints, H_0to1: Tensor, size0: Size, size1: Size, max_keypoints: int = 300) -> float:
    """The share of what view 1 sees of view 0 that lies near a counted keypoint of view 0 (B = 1).

    Near is the radius of discs of which ``max_keypoints`` have the whole area: points strewn evenly at random cover
    1 - 1/e = 0.63 of it, points in one heap next to nothing.
    """
    shared = covisible_mask(H_0to1, size0, size1)[0, 0].cpu().numpy()
    points = keypoints0.xy[keypoints0.valid].cpu()
    if not shared.any() or not len(points):
        return 0.0
    radius = math.sqrt(shared.sum() / (math.pi * max_keypoints))  # pixels
    step = max(1, int(radius // 8))  # pixels of the lattice that distances are taken on
    shared = shared[::step, ::step]
    free = np.ones(shared.shape, np.uint8)
    x, y = (points / step).round().long().T.numpy()
    free[y.clip(0, shared.shape[0] - 1), x.clip(0, shared.shape[1] - 1)] = 0
    return float((cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[shared] <= radius / step).mean())


def _summary(nearest: Tensor, count0: Tensor, count1: Tensor, threshold: float) -> PairScores:
    """From nearest distances (B, K0 + K1) and counted points (B,) of each view."""
    near = nearest <= threshold
    total, hits = count0 + count1, near.sum(1)  # (B,)
    error = nearest.masked_fill(~near, 0).sum(1) / hits  # 0 / 0 is NaN: no error without a match
    common, repeated = total.to(nearest.dtype) / 2, hits.to(nearest.dtype) / 2
    return PairScores(repeated / common.clamp(min=0.5), error, common, repeated)


def _exact_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
