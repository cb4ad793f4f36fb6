"""OpenCV's classical detectors and chance, each as image (1, C, H, W) in [0, 1] -> score map (1, 1, H, W).

A pixel that is no keypoint of the detector has the score -inf. All of them see the same 8-bit gray picture; none
applies the non-maximum suppression of the comparison, which ``kp.keypoints`` does for every detector alike.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

ScoreMap = Callable[[Tensor], Tensor]

_MANY = 100_000  # more features than ORB finds: it would otherwise keep its own best 500
_ORB_EDGE = 31  # pixels at the edge of an image where ORB has no keypoints: OpenCV's default


def harris(image: Tensor) -> Tensor:
    """Harris and Stephens' response (1, 1, H, W) over 4x4 blocks, Sobel 3x3, k = 0.04; -inf where it is not positive.

    A negative response is an edge and 0 is flat: neither is a corner.
    """
    return _positive(cv2.cornerHarris(to_gray8(image), 4, 3, 0.04))


def shi_tomasi(image: Tensor) -> Tensor:
    """The smaller eigenvalue (1, 1, H, W) of the structure tensor over 4x4 blocks, Sobel 3x3; -inf where it is 0.

    ``cv2.goodFeaturesToTrack`` with the block of :func:`harris`, without its quality level and minimum distance.
    """
    return _positive(cv2.cornerMinEigenVal(to_gray8(image), 4, ksize=3))


def fast(image: Tensor) -> Tensor:
    """FAST-9/16 with threshold 10 and its own 3x3 suppression (1, 1, H, W).

    Its scores are small integers and often tie; ``extract_keypoints`` then prefers the pixel first in raster order.
    """
    return _scatter(cv2.FastFeatureDetector_create(threshold=10), image)


def sift(image: Tensor) -> Tensor:
    """SIFT's keypoints of all scales (1, 1, H, W), scored by contrast; OpenCV's defaults, no limit on their number."""
    return _scatter(cv2.SIFT_create(), image)


def orb(image: Tensor) -> Tensor:
    """ORB's keypoints of all 8 levels (1, 1, H, W), scored by Harris; OpenCV's defaults, no limit on their number."""
    if min(image.shape[-2:]) <= 2 * _ORB_EDGE:  # there can be none, and OpenCV fails on a level without pixels
        return torch.full((1, 1, *image.shape[-2:]), -torch.inf)
    return _scatter(cv2.ORB_create(nfeatures=_MANY, edgeThreshold=_ORB_EDGE), image)


def random_scores(image: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise (1, 1, H, W): chance. The generator moves on, so every image gets points of its own."""
    return torch.rand((1, 1, *image.shape[-2:]), generator=generator)


BASELINES: dict[str, ScoreMap] = {"harris": harris, "shi-tomasi": shi_tomasi, "fast": fast, "sift": sift, "orb": orb}


def to_gray8(image: Tensor) -> np.ndarray:
    """An image (1, C, H, W) in [0, 1], C = 1 or 3 (RGB), as 8-bit gray (H, W): what OpenCV's detectors take."""
    array = (image[0].detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return array[0].copy() if len(array) == 1 else cv2.cvtColor(array.transpose(1, 2, 0).copy(), cv2.COLOR_RGB2GRAY)


def _positive(response: np.ndarray) -> Tensor:
    scores = torch.from_numpy(response)[None, None]  # (1, 1, H, W)
    return scores.masked_fill(scores <= 0, -torch.inf)


def _scatter(detector: cv2.Feature2D, image: Tensor) -> Tensor:
    """Each keypoint's response at its nearest pixel; where two share a pixel, the better one."""
    gray = to_gray8(image)
    scores = np.full(gray.shape, -np.inf, dtype=np.float32)
    found = detector.detect(gray, None)
    if found:
        xy = cv2.KeyPoint_convert(found)  # (N, 2)
        x, y = np.rint(xy).astype(int).T
        x, y = x.clip(0, gray.shape[1] - 1), y.clip(0, gray.shape[0] - 1)
        np.maximum.at(scores, (y, x), np.array([k.response for k in found], dtype=np.float32))
    return torch.from_numpy(scores)[None, None]
