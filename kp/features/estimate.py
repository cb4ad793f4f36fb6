"""The homography or fundamental matrix that fits most of two images' matches, and whether it is more than chance."""

import math
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

ESTIMATORS = ("poselib", "opencv")

_MAX_ITERATIONS = 100_000  # enough for 15 right matches in 150, in 20 ms; easy pairs stop after 1 ms
_CONFIDENCE = 0.9999
_FALSE_ALARMS = 1e-3  # homographies, at most, that fit as many of random matches
_FEWEST_F = 20  # matches that a fundamental matrix fits, if it is evidence
_MOST_PLACES = 2000  # keypoints, the best, whose density is measured
_DENSITY_RADIUS = 8.0  # thresholds, within which keypoints are counted: detectors keep them apart by more than one
_LARGEST = 700.0  # exponent
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
    xy0: Tensor, xy1: Tensor, threshold: float = 3.0, model: str = "homography", estimator: str = "opencv"
) -> tuple[Tensor | None, Tensor]:
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


def is_evidence(fits_H: int, fits_F: int, count: int, threshold: float, keypoints1: Tensor) -> bool:
    """Whether more of ``count`` matches fit a homography, or a fundamental matrix, than would by chance.

    Any four matches have a homography, and of a few hundred wrong ones some fit 5 to 9: it has to have fewer than 0.001
    :func:`false_alarms`. A fundamental matrix fits a quarter of a few hundred wrong matches, and 16 of 40: it has to
    fit at least 20, and two thirds of all.
    """
    by_plane = false_alarms(fits_H, count, threshold, keypoints1) < _FALSE_ALARMS
    return by_plane or (fits_F >= _FEWEST_F and 3 * fits_F >= 2 * count)


def false_alarms(fits: int, count: int, threshold: float, keypoints1: Tensor) -> float:
    """How many homographies of four out of ``count`` random matches would have as many as ``fits``, or more.

    The number of false alarms (Moisan and Stival, IJCV 2004). Matched places of image 1 are taken to lie as its
    ``keypoints1`` (N, 2) do: near a given one is the share of their pairs that are near each other, or, where that is
    more, as if they were spread evenly over the rectangle around all.

    Args:
        threshold: largest error of a match that fits, in pixels.
    """
    if fits <= 4 or len(keypoints1) < 2:
        return math.inf
    places = keypoints1[:_MOST_PLACES].cpu().double()
    radius = _DENSITY_RADIUS * threshold
    pairs = len(places) * (len(places) - 1)
    near = (int((torch.cdist(places, places) < radius).sum()) - len(places)) / pairs / _DENSITY_RADIUS**2
    area = float((places.amax(0) - places.amin(0)).clamp(min=1).prod())
    share = min(1.0, max(near, math.pi * threshold * (threshold / area)))
    tests = math.log(count - 4) + _log_choices(count, fits) + _log_choices(fits, 4)
    return math.exp(min(tests + (fits - 4) * math.log(share), _LARGEST))


def _log_choices(count: int, chosen: int) -> float:
    """The logarithm of how many ways there are to choose so many of a number."""
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)


def fit_homography(xy0: Tensor, xy1: Tensor, threshold: float = 3.0) -> Tensor | None:
    """H_0to1 (3, 3), float64, from matches (M, 2) and (M, 2), of which many may be wrong, by OpenCV: :func:`estimate`.

    None for fewer than 4 matches, or if all lie on a line. Equal matches give equal homographies.

    Args:
        threshold: largest error of a right match, in pixels of view 1.
    """
    return estimate(xy0, xy1, threshold)[0]


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
