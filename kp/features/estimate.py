"""The homography or fundamental matrix that fits most of two images' matches."""

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

ESTIMATORS = ("poselib", "opencv")
FIT = 3.0  # pixels: the largest error of a match that fits, if no other is asked for

Fit = tuple[Tensor | None, Tensor]
"""A matrix (3, 3), or None, and which matches (M,) it fits."""

_MAX_ITERATIONS = 100_000  # enough for 15 right matches in 150, in 20 ms; easy pairs stop after 1 ms
_CONFIDENCE = 0.9999
_ZERO = 1e-12  # of the largest number of a matrix


def choose_estimator(name: str | None = None) -> str:
    """``poselib`` where it is installed, else ``opencv``; or the named one. Raises ValueError if it is not there."""
    if name not in (None, *ESTIMATORS):
        raise ValueError(f"no estimator is called {name!r}: there are {', '.join(ESTIMATORS)}")
    try:
        import poselib  # noqa: F401
    except ImportError:
        if name == "poselib":
            raise ValueError("PoseLib is not installed: pip install poselib") from None
        return "opencv"
    return name or ESTIMATORS[0]


def estimate(
    xy0: Tensor, xy1: Tensor, threshold: float = FIT, model: str = "homography", estimator: str = "opencv"
) -> Fit:
    """The ``homography`` or ``fundamental`` matrix (3, 3), float64, of matches (M, 2), (M, 2), and its inliers (M,).

    None, and no inlier, for fewer matches than the model needs, or where none fits. OpenCV's USAC_MAGSAC (Barath et
    al., CVPR 2020), for a homography followed by least squares on its inliers, or PoseLib's LO-RANSAC; either is
    repeatable. The last number of a homography is 1 unless it is 0, to rounding.

    Args:
        threshold: largest error of a right match, in pixels.
    """
    none = torch.zeros(len(xy0), dtype=torch.bool)
    if len(xy0) < (4 if model == "homography" else 8):  # OpenCV raises an error
        return None, none
    points0, points1 = (xy.cpu().double().numpy() for xy in (xy0, xy1))
    fit = _by_poselib if estimator == "poselib" else _by_opencv
    matrix, inliers = fit(points0, points1, threshold, model)
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all() or not np.any(inliers):
        return None, none
    if model == "homography" and abs(matrix[2, 2]) > _ZERO * np.abs(matrix).max():
        matrix = matrix / matrix[2, 2]  # PoseLib's have any sign and size
    return torch.from_numpy(matrix), torch.from_numpy(np.asarray(inliers, dtype=bool).ravel())


def fit_homography(xy0: Tensor, xy1: Tensor, threshold: float = FIT) -> Tensor | None:
    """H_0to1 (3, 3), float64, from matches (M, 2) and (M, 2), of which many may be wrong, by OpenCV: :func:`estimate`.

    None for fewer than 4 matches, or if all lie on a line. Equal matches give equal homographies.

    Args:
        threshold: largest error of a right match, in pixels of view 1.
    """
    return estimate(xy0, xy1, threshold)[0]


def in_front(H_0to1: Tensor, xy0: Tensor) -> Tensor:
    """The homography (3, 3) of :func:`estimate` with the sign that has most places (M, 2) in front of the camera."""
    w = xy0.cpu().double() @ H_0to1[2, :2] + H_0to1[2, 2]
    return H_0to1 * w.median().sign()


def _by_opencv(points0: np.ndarray, points1: np.ndarray, threshold: float, model: str) -> tuple[Any, Any]:
    """OpenCV's random numbers start from the same seed in each call."""
    settings = {"maxIters": _MAX_ITERATIONS, "confidence": _CONFIDENCE}
    if model == "homography":
        matrix, inliers = cv2.findHomography(points0, points1, cv2.USAC_MAGSAC, threshold, **settings)
        return _least_squares(points0, points1, inliers, matrix), inliers
    return cv2.findFundamentalMat(points0, points1, cv2.USAC_MAGSAC, threshold, _CONFIDENCE, _MAX_ITERATIONS)


def _least_squares(points0: np.ndarray, points1: np.ndarray, inliers: Any, fitted: Any) -> Any:
    """The homography of all inliers, or ``fitted`` where they have none: OpenCV returns that of a few of them."""
    if fitted is None or np.count_nonzero(inliers) < 4:
        return fitted
    chosen = np.ravel(inliers).astype(bool)
    refined, _ = cv2.findHomography(points0[chosen], points1[chosen], 0)
    return fitted if refined is None else refined


def _by_poselib(points0: np.ndarray, points1: np.ndarray, threshold: float, model: str) -> tuple[Any, Any]:
    import poselib

    settings = {"max_iterations": _MAX_ITERATIONS, "success_prob": _CONFIDENCE}
    if model == "homography":
        matrix, facts = poselib.estimate_homography(points0, points1, settings | {"max_reproj_error": threshold})
    else:
        matrix, facts = poselib.estimate_fundamental(points0, points1, settings | {"max_epipolar_error": threshold}, {})
    return np.array(matrix, dtype=np.float64), facts["inliers"]
