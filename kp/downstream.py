"""Two views' keypoints -> how well a homography is estimated from them.

Repeatability alone does not predict use: points crowded in one place repeat well and fix no homography. Here every
detector gets the same descriptor, matcher and robust estimator, so that what differs is where its keypoints are. An
image's best keypoints count, seen by the other view or not: who estimates a homography does not know it. Distances are
pixels of view 1 at the images' own size.
"""

import math
from collections.abc import Sequence as Series
from dataclasses import dataclass
from functools import cache

import cv2
import torch
from kornia.feature import (
    PatchDominantGradientOrientation,
    SIFTDescriptor,
    extract_patches_simple,
    laf_from_center_scale_ori,
    match_mnn,
)
from torch import Tensor

from kp.geometry import Size, warp_points
from kp.keypoints import Keypoints
from kp.protocols import THRESHOLDS

PATCH = 32  # cells a side
PATCH_RADIUS = 12.0  # pixels from a patch's centre to its side: that of SIFT's own patch, 12 sigma wide, at sigma = 2
_STEPS = 16 * 255  # of gray: finer than the image's 8 bits; finer ones let a flat patch be described by rounding errors
_MAX_ITERATIONS = 100_000  # finds the homography of 15 right matches in 150, in 20 ms; easy pairs stop after 1 ms
_CONFIDENCE = 0.9999


@dataclass(frozen=True)
class Features:
    """The described keypoints of an image, best first: ``xy`` (K, 2) in pixels, ``descriptors`` (K, 128)."""

    xy: Tensor
    descriptors: Tensor


@torch.inference_mode()
def describe(
    image: Tensor, keypoints: Keypoints, max_keypoints: int = 300, patch_radius: float = PATCH_RADIUS
) -> Features:
    """Describe the best ``max_keypoints`` keypoints (B = 1) of a gray image (1, 1, H, W) in [0, 1] by RootSIFT.

    The same for every detector, and made for none of them: whatever size and angle a detector may know are not used.
    Each patch spans 2 * ``patch_radius`` pixels (at most 2 * PATCH, or it would alias), turned to its dominant
    gradient; beyond the edge of the image it repeats the edge's pixels. There are no weights, so that it works offline
    and was trained on nobody's points: SIFT by Lowe, IJCV 2004, square roots by Arandjelovic and Zisserman, CVPR 2012.
    It bears any rotation, but of the built-in photographs at 1 / 1.25, 1 / 1.5 and 1 / 2 of their size, 94, 67 and 17 %
    of the matches of the very same points are right.
    """
    best = keypoints.select(keypoints.valid, max_keypoints)
    xy = best.xy[best.valid].to(image)  # (K, 2)
    orientation, sift = _modules()
    angles = torch.rad2deg(orientation(read_patches(image, xy, torch.zeros_like(xy[:, 0]), patch_radius)))
    return Features(xy, sift(read_patches(image, xy, angles, patch_radius)))


@cache
def _modules() -> tuple[PatchDominantGradientOrientation, SIFTDescriptor]:
    return PatchDominantGradientOrientation(PATCH).eval(), SIFTDescriptor(PATCH, rootsift=True).eval()


def read_patches(image: Tensor, xy: Tensor, angles: Tensor, radius: float) -> Tensor:
    """The patches (K, 1, PATCH, PATCH) of an image (1, 1, H, W) around xy (K, 2), bilinearly.

    ``radius``: pixels from the centre to a side. ``angles`` (K,): degrees, counter-clockwise on screen, from the x axis
    of the image to that of the patch.
    """
    frames = laf_from_center_scale_ori(xy[None], xy.new_full((1, len(xy), 1, 1), radius), angles[None, :, None])
    patches = extract_patches_simple(image, frames, PATCH)[0]
    return (patches * _STEPS).round() / _STEPS


def match(descriptors0: Tensor, descriptors1: Tensor) -> Tensor:
    """The pairs (M, 2), indices in descriptors (K0, D) and (K1, D), that are each other's nearest neighbours.

    No ratio test: its limit would suit some detectors more than others, and the estimator bears wrong matches.
    """
    return match_mnn(descriptors0, descriptors1)[1]


def fit_homography(xy0: Tensor, xy1: Tensor, threshold: float = 3.0) -> Tensor | None:
    """H_0to1 (3, 3), float64, from matches (M, 2) and (M, 2), of which many may be wrong; None where there is none.

    There is none with fewer than 4 matches, and where all lie on a line. OpenCV's USAC_MAGSAC (Barath et al., CVPR
    2020), where ``threshold``, in pixels of view 1 whatever the size of the image, bounds the error of a right match.
    Its random numbers begin anew at every call: the same matches give the same homography.
    """
    if len(xy0) < 4:  # OpenCV raises an error
        return None
    points0, points1 = (xy.cpu().double().numpy() for xy in (xy0, xy1))
    settings = {"maxIters": _MAX_ITERATIONS, "confidence": _CONFIDENCE}
    H_0to1, _ = cv2.findHomography(points0, points1, cv2.USAC_MAGSAC, threshold, **settings)
    return None if H_0to1 is None else torch.from_numpy(H_0to1)


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


def accuracy(errors: Series[float], thresholds: Series[float] = THRESHOLDS) -> list[float]:
    """For each threshold the share of errors that are not greater; NaN of no errors."""
    if not errors:
        return [math.nan for _ in thresholds]
    return [sum(error <= threshold for error in errors) / len(errors) for threshold in thresholds]


def auc(errors: Series[float], thresholds: Series[float] = THRESHOLDS) -> list[float]:
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
    xy0: Tensor, xy1: Tensor, H_0to1: Tensor, thresholds: Series[float] = THRESHOLDS
) -> list[float]:
    """For each threshold, pixels of view 1, the share of matches (M, 2), (M, 2) that H_0to1 (3, 3) brings so near.

    Mikolajczyk and Schmid, PAMI 2005, as in D2-Net (Dusmanu et al., CVPR 2019): 0 without a match, and a point behind
    the camera is near nothing.
    """
    if len(xy0) == 0:
        return [0.0 for _ in thresholds]
    places, in_front = warp_points(xy0[None].cpu().double(), H_0to1[None].cpu().double())
    distances = (places - xy1.cpu().double()).norm(dim=2).masked_fill(~in_front, math.inf)
    return accuracy(distances[0].tolist(), thresholds)


def measure_pair(
    features0: Features, features1: Features, H_0to1: Tensor, size0: Size, threshold: float = 3.0
) -> dict[str, float]:
    """What the features of two views give, against the true H_0to1 (3, 3), as plain numbers.

    ``matches``: how many. ``corner_error``: of the homography fitted to them with ``threshold``, pixels of view 1,
    infinite where there is none. ``matching_accuracy_1px``, ``_3px``, ``_5px``: the share of right matches.
    """
    index0, index1 = match(features0.descriptors, features1.descriptors).unbind(1)
    xy0, xy1 = features0.xy[index0], features1.xy[index1]
    shares = mean_matching_accuracy(xy0, xy1, H_0to1)
    return {
        "matches": len(xy0),
        "corner_error": corner_error(fit_homography(xy0, xy1, threshold), H_0to1, size0),
        **{f"matching_accuracy_{t}px": share for t, share in zip(THRESHOLDS, shares, strict=True)},
    }
