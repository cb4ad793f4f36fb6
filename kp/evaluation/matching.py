"""Two views' keypoints -> how well a homography is estimated from them.

Repeatability alone does not predict use: points crowded in one place repeat well and fix no homography. Here every
detector gets the same descriptor, matcher and robust estimator, so that what differs is where its keypoints are. An
image's best keypoints count, seen by the other view or not: who estimates a homography does not know it. Distances are
pixels of view 1 at the images' own size.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kp.evaluation.protocols import THRESHOLDS
from kp.features.describe import Described
from kp.features.estimate import fit_homography
from kp.features.match import match
from kp.geometry.coords import Size, warp_points


def corner_error(H_found: Tensor | None, H_true: Tensor, size0: Size) -> float:
    """Mean distance, in pixels of view 1, of where two homographies (3, 3) send the corners of image 0.

    The corners are the centres of the corner pixels. Infinite where nothing was found or a corner is not in front of
    the camera, which the centre of the image is. As DeTone et al., SuperPoint, CVPRW 2018, appendix.
    """
    if H_found is None:
        return math.inf
    right, bottom = size0[1] - 1.0, size0[0] - 1.0
    corners = torch.tensor([[0, 0], [right, 0], [0, bottom], [right, bottom]], dtype=torch.float64)
    centre = torch.tensor([right / 2, bottom / 2, 1], dtype=torch.float64)
    H = torch.stack([H.cpu().double() for H in (H_found, H_true)])
    places, in_front = warp_points(corners.expand(2, -1, -1), H / (H @ centre)[:, 2, None, None])
    error = (places[0] - places[1]).norm(dim=1).mean().item()
    return error if in_front.all() and math.isfinite(error) else math.inf


def accuracy(errors: Sequence[float], thresholds: Sequence[float] = THRESHOLDS) -> list[float]:
    """For each threshold the share of errors that are not greater; NaN of no errors."""
    if not errors:
        return [math.nan for _ in thresholds]
    return [sum(error <= threshold for error in errors) / len(errors) for threshold in thresholds]


def auc(errors: Sequence[float], thresholds: Sequence[float] = THRESHOLDS) -> list[float]:
    """For each threshold the area under the share of errors <= x, x from 0 to the threshold, divided by it: in [0, 1].

    The curve goes in straight lines from (0, 0) through (i-th smallest error, i / N) and is flat beyond the last one
    below the threshold, as in SuperGlue (Sarlin et al., CVPR 2020), ``pose_auc``. NaN of no errors.
    """
    if not errors:
        return [math.nan for _ in thresholds]
    places = torch.tensor([0.0, *sorted(errors)], dtype=torch.float64)
    shares = torch.linspace(0, 1, len(places), dtype=torch.float64)
    areas = []
    for threshold in thresholds:
        below = max(int((places < threshold).sum()), 1)
        x = torch.cat([places[:below], places.new_tensor([threshold])])
        y = torch.cat([shares[:below], shares[below - 1 : below]])
        areas.append(torch.trapezoid(y, x).item() / threshold)
    return areas


def mean_matching_accuracy(
    xy0: Tensor, xy1: Tensor, H_0to1: Tensor, thresholds: Sequence[float] = THRESHOLDS
) -> list[float]:
    """For each threshold, pixels of view 1, the share of matches (M, 2), (M, 2) that H_0to1 (3, 3) brings so near.

    Mikolajczyk and Schmid, PAMI 2005, as in D2-Net (Dusmanu et al., CVPR 2019): 0 without a match, and a point behind
    the camera is near nothing.
    """
    if len(xy0) == 0:
        return [0.0 for _ in thresholds]
    return accuracy(match_errors(xy0, xy1, H_0to1).tolist(), thresholds)


def match_errors(xy0: Tensor, xy1: Tensor, H_0to1: Tensor) -> Tensor:
    """How far, in pixels of view 1, H_0to1 (3, 3) sends each ``xy0`` (M, 2) from its match ``xy1`` (M, 2): (M,).

    Infinite for a point behind the camera.
    """
    places, in_front = warp_points(xy0[None].cpu().double(), H_0to1[None].cpu().double())
    return (places - xy1.cpu().double()).norm(dim=2).masked_fill(~in_front, math.inf)[0]


def measure_pair(
    features0: Described, features1: Described, H_0to1: Tensor, size0: Size, threshold: float = 3.0
) -> dict[str, float]:
    """What the features of two views give, against the true H_0to1 (3, 3), as plain numbers.

    ``matches``: how many :func:`kp.match` finds. ``corner_error``: of the homography fitted to them with
    ``threshold``, pixels of view 1, infinite where there is none. ``matching_accuracy_1px``, ``_3px``, ``_5px``: the
    share of right matches.
    """
    index0, index1 = match(features0.features(), features1.features())["matches"].unbind(1)
    xy0, xy1 = features0.xy[index0], features1.xy[index1]
    shares = mean_matching_accuracy(xy0, xy1, H_0to1)
    return {
        "matches": len(xy0),
        "corner_error": corner_error(fit_homography(xy0, xy1, threshold), H_0to1, size0),
        **{f"matching_accuracy_{t}px": share for t, share in zip(THRESHOLDS, shares, strict=True)},
    }
