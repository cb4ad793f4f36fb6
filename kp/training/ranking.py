"""What the ranker is to foretell: the share of the other views that repeat a keypoint."""

import math

import torch
from torch import Tensor

from kp.geometry.coords import Size, covisible, invert, warp_points
from kp.models.keypoints import Keypoints

THRESHOLD = 3.0  # pixels within which a keypoint is repeated


def repeated_shares(
    keypoints: list[Keypoints], H: Tensor, size: Size, keypoints_per_megapixel: float
) -> tuple[Tensor, Tensor]:
    """For every keypoint the share, in [0, 1], of the views that see its place and repeat it: (V, B, K), and (V, B, K).

    The second is True where at least one other view sees the place. A view repeats a keypoint if one of its own best
    keypoints lies within 3 px of it. How many count follows from the area that both views share.

    Args:
        keypoints: of each of V views, best first: (B, K).
        H: (B, V, 3, 3), pixels of the scene -> pixels of the view.
        size: (H, W) of the views.
        keypoints_per_megapixel: of a view that count, for each megapixel that both views share.
    """
    shares, views = [], []
    for a, own in enumerate(keypoints):
        found, seen_by = torch.zeros_like(own.scores), torch.zeros_like(own.scores)
        for b, other in enumerate(keypoints):
            if a == b:
                continue
            H_atob = (H[:, b].double() @ invert(H[:, a].double())).to(own.xy)
            seen, repeated = _repeated(own, other, H_atob, size, keypoints_per_megapixel)
            found, seen_by = found + repeated, seen_by + seen
        shares.append(found / seen_by.clamp(min=1))
        views.append(seen_by > 0)
    return torch.stack(shares), torch.stack(views)


def _repeated(
    own: Keypoints, other: Keypoints, H_0to1: Tensor, size: Size, keypoints_per_megapixel: float
) -> tuple[Tensor, Tensor]:
    """Of keypoints of view 0, those whose place view 1 sees, and those that view 1 repeats: (B, K) bool each."""
    seen = covisible(own.xy, H_0to1, size) & own.valid
    shared = covisible(other.xy, invert(H_0to1), size) & other.valid
    overlap = seen.sum(1) / own.valid.sum(1).clamp(min=1)  # (B,)
    wanted = (overlap * size[0] * size[1] * keypoints_per_megapixel / 1e6).ceil()
    counted = shared & (shared.cumsum(1) <= wanted[:, None])
    places, _ = warp_points(own.xy, H_0to1)
    distance = torch.cdist(places, other.xy, compute_mode="donot_use_mm_for_euclid_dist")
    near = distance.masked_fill(~counted[:, None], math.inf).amin(2) <= THRESHOLD
    return seen, seen & near
