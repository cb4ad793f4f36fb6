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

from kp.evaluation.protocols import THRESHOLDS
from kp.geometry.coords import Size, covisible, invert, warp_points
from kp.models.keypoints import Keypoints

_TO_FIT = 20  # points that must have a neighbour for a homography to be fitted to them: it has eight unknowns


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
    distance = F.pad(_distances(keypoints0, keypoints1, H_0to1), (0, 1, 0, 1), value=torch.inf)  # none: inf
    return distance.amin(2)[:, :-1], distance.amin(1)[:, :-1]


def _distances(keypoints0: Keypoints, keypoints1: Keypoints, H_0to1: Tensor) -> Tensor:
    """Pixels of view 1 between keypoints of view 0, carried there, and of view 1: (B, K0, K1), infinite without one."""
    points0, _ = warp_points(keypoints0.xy.to(H_0to1.dtype), H_0to1)
    points1 = keypoints1.xy.to(H_0to1.dtype)
    # the matrix-product form of cdist is off by 1e-3 px in float32, and decides at the threshold
    distance = torch.cdist(points0, points1, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.masked_fill(~(keypoints0.valid[:, :, None] & keypoints1.valid[:, None]), torch.inf)


def measure_pair(
    keypoints0: Keypoints,
    keypoints1: Keypoints,
    H_0to1: Tensor,
    shared: tuple[Tensor, Tensor],
    max_keypoints: int,
    threshold: float,
) -> dict[str, float]:
    """Everything that is measured of one pair (B = 1), as plain numbers by name; arguments as :func:`repeatability`.

    ``shared`` are the pixels (1, 1, H, W) bool of view 0 that view 1 sees, and of view 1 that view 0 sees. The fields
    of PairScores at ``threshold``, and ``repeatability_1px`` to ``_5px``, ``one_to_one``, ``coverage``, the mean of
    both views', ``chance`` and ``refitted_error``: see the functions of these names.
    """
    H_0to1 = H_0to1.to(_exact_dtype(H_0to1.device))
    size0, size1 = (tuple(mask.shape[-2:]) for mask in shared)
    seen = (
        counted(keypoints0, H_0to1, size1, max_keypoints),
        counted(keypoints1, invert(H_0to1), size0, max_keypoints),
    )
    counts = [points.valid.sum(1) for points in seen]
    nearest = torch.cat(nearest_distances(*seen, H_0to1), dim=1)
    scores = {name: value.item() for name, value in vars(_summary(nearest, *counts, threshold)).items()}
    for pixels in THRESHOLDS:
        scores[f"repeatability_{pixels}px"] = _summary(nearest, *counts, pixels).repeatability.item()
    covered = [coverage(points, mask, max_keypoints) for points, mask in zip(seen, shared, strict=True)]
    return scores | {
        "one_to_one": one_to_one(*seen, H_0to1, threshold),
        "coverage": sum(covered) / 2,
        "chance": chance_repeatability(*(count.item() for count in counts), shared[1].sum().item(), threshold),
        "refitted_error": refitted_error(*seen, H_0to1, threshold),
    }


def refitted_error(keypoints0: Keypoints, keypoints1: Keypoints, H_0to1: Tensor, threshold: float = 3.0) -> float:
    """The localisation error of counted keypoints (B = 1), pixels of view 1, were H_0to1 the one that fits them best.

    That of least squares between each point of view 0 and its neighbour within ``threshold``, pixels of view 1. What
    the error falls by is shared by all points: the homography is not exact or, where it is known to be, the pixels of
    the detector are off. NaN where fewer than _TO_FIT points have a neighbour, or these lie on a line.
    """
    distance = _distances(keypoints0, keypoints1, H_0to1)[0]
    if not distance.numel():
        return math.nan
    nearest, index = distance.min(dim=1)
    near = nearest <= threshold
    if near.sum() < _TO_FIT:
        return math.nan
    places, _ = warp_points(keypoints0.xy.to(H_0to1.dtype), H_0to1)
    found = keypoints1.xy[0, index].to(H_0to1.dtype)
    change, _ = cv2.findHomography(places[0, near].cpu().numpy(), found[near].cpu().numpy())
    if change is None or not np.isfinite(change).all() or abs(np.linalg.det(change)) < 1e-9:
        return math.nan
    to1, to0 = nearest_distances(keypoints0, keypoints1, torch.from_numpy(change).to(H_0to1) @ H_0to1)
    counts = keypoints0.valid.sum(1), keypoints1.valid.sum(1)
    return _summary(torch.cat([to1, to0], dim=1), *counts, threshold).localisation_error.item()


def one_to_one(keypoints0: Keypoints, keypoints1: Keypoints, H_0to1: Tensor, threshold: float = 3.0) -> float:
    """Repeatability of counted keypoints (B = 1) when none may be the neighbour of two: the most pairs there can be.

    Where the usual count is generous to points that huddle together, this one is not (Hopcroft and Karp's matching).
    ``threshold`` in pixels of view 1; 0 if neither view has a counted point.
    """
    near = _distances(keypoints0, keypoints1, H_0to1)[0] <= threshold
    matched = maximum_bipartite_matching(csr_matrix(near.cpu().numpy()), perm_type="column") if near.any() else []
    count = keypoints0.valid.sum() + keypoints1.valid.sum()
    return 2 * float(np.sum(np.asarray(matched) >= 0)) / max(count.item(), 1)


def chance_repeatability(count0: int, count1: int, shared1: float, threshold: float = 3.0) -> float:
    """The repeatability to expect of so many counted points strewn evenly over ``shared1`` square pixels of view 1."""
    if not count0 or not count1 or shared1 <= 0:
        return 0.0
    hit = min(1.0, math.pi * threshold**2 / shared1)  # by one point of the other view
    found = count0 * (1 - (1 - hit) ** count1) + count1 * (1 - (1 - hit) ** count0)
    return found / (count0 + count1)


def coverage(keypoints: Keypoints, shared: Tensor, max_keypoints: int = 300) -> float:
    """The share of what the other view sees, ``shared`` (1, 1, H, W) bool, that lies near a counted keypoint (B = 1).

    Near is the radius of discs of which ``max_keypoints`` have the whole area: points strewn evenly at random cover
    1 - 1/e = 0.63 of it, points in one heap next to nothing.
    """
    seen, points = shared[0, 0].cpu().numpy(), keypoints.xy[keypoints.valid].cpu()
    if not seen.any() or not len(points):
        return 0.0
    radius = math.sqrt(seen.sum() / (math.pi * max_keypoints))  # pixels
    step = max(1, int(radius // 8))  # pixels of the lattice that distances are taken on
    seen = seen[::step, ::step]
    free = np.ones(seen.shape, np.uint8)
    x, y = (points / step).round().long().T.numpy()
    free[y.clip(0, seen.shape[0] - 1), x.clip(0, seen.shape[1] - 1)] = 0
    return float((cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[seen] <= radius / step).mean())


def _summary(nearest: Tensor, count0: Tensor, count1: Tensor, threshold: float) -> PairScores:
    """From nearest distances (B, K0 + K1) and counted points (B,) of each view."""
    near = nearest <= threshold
    total, hits = count0 + count1, near.sum(1)  # (B,)
    error = nearest.masked_fill(~near, 0).sum(1) / hits  # 0 / 0 is NaN: no error without a match
    common, repeated = total.to(nearest.dtype) / 2, hits.to(nearest.dtype) / 2
    return PairScores(repeated / common.clamp(min=0.5), error, common, repeated)


def _exact_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
