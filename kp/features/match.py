"""Matches of descriptors, and the homography that they agree on."""

import cv2
import torch
from kornia.feature import match_mnn
from torch import Tensor

_MAX_ITERATIONS = 100_000  # finds the homography of 15 right matches in 150, in 20 ms; easy pairs stop after 1 ms
_CONFIDENCE = 0.9999


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
