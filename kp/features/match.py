"""Matches of descriptors, and the homography that fits most of them."""

import cv2
import torch
from kornia.feature import match_mnn
from torch import Tensor

_MAX_ITERATIONS = 100_000  # enough for 15 right matches in 150, in 20 ms; easy pairs stop after 1 ms
_CONFIDENCE = 0.9999


def match(descriptors0: Tensor, descriptors1: Tensor) -> Tensor:
    """Index pairs (M, 2) into descriptors (K0, D) and (K1, D) that are mutual nearest neighbours.

    There is no ratio test. Its threshold would favour some detectors, and the estimator tolerates wrong matches.
    """
    return match_mnn(descriptors0, descriptors1)[1]


def fit_homography(xy0: Tensor, xy1: Tensor, threshold: float = 3.0) -> Tensor | None:
    """H_0to1 (3, 3), float64, from matches (M, 2) and (M, 2), of which many may be wrong.

    None for fewer than 4 matches, or if all lie on a line. By OpenCV's USAC_MAGSAC (Barath et al., CVPR 2020), whose
    random numbers start from the same seed in each call: equal matches give equal homographies.

    Args:
        threshold: largest error of a right match, in pixels of view 1.
    """
    if len(xy0) < 4:  # OpenCV raises an error
        return None
    points0, points1 = (xy.cpu().double().numpy() for xy in (xy0, xy1))
    settings = {"maxIters": _MAX_ITERATIONS, "confidence": _CONFIDENCE}
    H_0to1, _ = cv2.findHomography(points0, points1, cv2.USAC_MAGSAC, threshold, **settings)
    return None if H_0to1 is None else torch.from_numpy(H_0to1)
