"""The score map of the corner detector by OpenCV on a CPU, tile by tile: numpy in, numpy out.

It computes what :class:`kp.models.corner.CornerDetector` computes with torch, in a tenth of the time. A tile is
computed with a margin as wide as all blurs together, so that scores do not depend on the tiles.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from kp.geometry.block_filters import double_size, half_size

RESPONSE_FLOOR = 1e-5  # of a corner response: what a contrast of 0.003 of the grey range gives, which is noise

_HALVING_VARIANCE = 0.25  # square pixels: of the mean over 2x2 pixels
_LEAST_SIGMA = 0.3  # pixels: a narrower Gaussian is no blur
_TILE = 1024  # pixels: longest side of a tile
_ONE_TILE = _TILE**2  # pixels of an image that is not cut into tiles
_SMOOTH, _DERIVE = np.array([0.25, 0.5, 0.25], np.float32), np.array([-0.5, 0, 0.5], np.float32)  # Sobel, normalised


class CornerNumbers(NamedTuple):
    """The numbers of a corner detector: the weight of a scale, and two blurs in pixels of the image for each scale."""

    weight: float
    derivative_sigmas: tuple[float, ...]
    window_sigmas: tuple[float, ...]
    half_size_scales: int
    score_blur: float
    surround_sigma: float
    surround_weight: float

    @property
    def margin(self) -> int:
        """Pixels, an even number, beyond which nothing changes the score of a pixel."""
        fine = len(self.window_sigmas) - self.half_size_scales
        reach = [0]
        for scale, (derivative, window) in enumerate(zip(self.derivative_sigmas, self.window_sigmas, strict=True)):
            if scale < fine:
                reach.append(kernel_radius(derivative) + 1 + kernel_radius(window))
            else:
                reach.append(2 * (kernel_radius(halved(derivative)) + 1 + kernel_radius(window / 2)) + 3)
        whole = max(reach) + max(kernel_radius(self.score_blur), kernel_radius(self.surround_sigma)) + 1
        return whole + whole % 2


def score_map(image: np.ndarray, numbers: CornerNumbers, thinning: float, threads: int = 1) -> np.ndarray:
    """The scores (H, W) float32 of a grey image (H, W) float32 in [0, 1], thinned by ``thinning``; 0 leaves them dense.

    The peak of the memory is about 60 bytes for each pixel of a tile, beside the image and the scores.
    """
    if image.size <= _ONE_TILE:
        return _scores(image, numbers, thinning, threads)
    scores = np.empty_like(image)
    for inner, outer, within in _tiles(image.shape, numbers.margin):
        scores[inner] = _scores(np.ascontiguousarray(image[outer]), numbers, thinning, threads)[within]
    return scores


def kernel_radius(sigma: float) -> int:
    """Pixels on either side of the centre of the kernel of a Gaussian."""
    return math.ceil(3 * sigma)


def halved(sigma: float) -> float:
    """The blur, in pixels of the image at half size, that makes up ``sigma`` pixels together with the halving."""
    return math.sqrt(max(sigma**2 - _HALVING_VARIANCE, 4 * _LEAST_SIGMA**2)) / 2


def _tiles(size: tuple[int, int], margin: int) -> Iterator[tuple[tuple[slice, slice], ...]]:
    """For each tile: its place in the image, its place with the margin, and where it lies within the latter."""
    steps = (n // -(-n // _TILE) + 1 for n in size)
    height, width = (step + step % 2 for step in steps)  # even, for the scales at half size
    for top in range(0, size[0], height):
        for left in range(0, size[1], width):
            ends = (min(top + height, size[0]), min(left + width, size[1]))
            inner = (slice(top, ends[0]), slice(left, ends[1]))
            outer = tuple(
                slice(max(s.start - margin, 0), min(s.stop + margin, n)) for s, n in zip(inner, size, strict=True)
            )
            within = tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(inner, outer, strict=True))
            yield inner, outer, within


def _scores(image: np.ndarray, numbers: CornerNumbers, thinning: float, threads: int) -> np.ndarray:
    total = _total(image, numbers, threads)
    scores = _blur(total, numbers.score_blur)
    around = _blur(total, numbers.surround_sigma)
    scores = cv2.addWeighted(scores, 1, around, -numbers.surround_weight, 0, dst=scores)
    if thinning:
        best = cv2.dilate(scores, np.ones((3, 3), np.uint8))
        scores = cv2.addWeighted(scores, 1 + thinning, best, -thinning, 0, dst=best)
    return scores


def _total(image: np.ndarray, numbers: CornerNumbers, threads: int) -> np.ndarray:
    """The weighted sum (H, W) of the responses of all scales."""
    fine = len(numbers.window_sigmas) - numbers.half_size_scales
    half = half_size(image) if numbers.half_size_scales else image

    def scale(index: int) -> np.ndarray:
        derivative, window = numbers.derivative_sigmas[index], numbers.window_sigmas[index]
        if index < fine:
            return _noble_response(image, derivative, window, numbers.weight)
        return _noble_response(half, halved(derivative), window / 2, numbers.weight)

    indices = range(len(numbers.window_sigmas))
    if threads == 1:
        maps = list(map(scale, indices))
    else:
        with ThreadPoolExecutor(threads) as pool:  # OpenCV lets other Python threads run
            maps = list(pool.map(scale, indices))
    total = maps[0]
    for other in maps[1:fine]:
        cv2.add(total, other, dst=total)
    if numbers.half_size_scales == 0:
        return total
    coarse = sum(maps[fine + 1 :], maps[fine])
    coarse = double_size(coarse)[: image.shape[0], : image.shape[1]]
    return cv2.add(total, coarse, dst=total) if fine else np.ascontiguousarray(coarse)


def _noble_response(image: np.ndarray, derivative_sigma: float, window_sigma: float, weight: float) -> np.ndarray:
    """``weight`` times half the log of Noble's response; see :func:`kp.models.corner.noble_response`."""
    free = _blur(image, derivative_sigma)
    dx, dy = _filter(free, _DERIVE, _SMOOTH), _filter(free, _SMOOTH, _DERIVE)
    xx = _blur(cv2.multiply(dx, dx, dst=free), window_sigma)
    yy = _blur(cv2.multiply(dy, dy, dst=free), window_sigma)
    xy = _blur(cv2.multiply(dx, dy, dst=dx), window_sigma, dst=free)  # five arrays at once, no more
    trace = cv2.add(cv2.add(xx, yy, dst=dy), RESPONSE_FLOOR, dst=dy)
    determinant = cv2.subtract(cv2.multiply(xx, yy, dst=xx), cv2.multiply(xy, xy, dst=xy), dst=xx)
    response = cv2.max(cv2.divide(determinant, trace, dst=trace), 0, dst=trace)
    response = cv2.log(cv2.add(response, RESPONSE_FLOOR, dst=response), dst=response)
    return cv2.multiply(response, weight / 2, dst=response)


def _blur(image: np.ndarray, sigma: float, dst: np.ndarray | None = None) -> np.ndarray:
    kernel = _gaussian(sigma)
    return _filter(image, kernel, kernel, dst)


def _filter(image: np.ndarray, along_x: np.ndarray, along_y: np.ndarray, dst: np.ndarray | None = None) -> np.ndarray:
    return cv2.sepFilter2D(image, cv2.CV_32F, along_x, along_y, dst=dst, borderType=cv2.BORDER_REPLICATE)


@cache
def _gaussian(sigma: float) -> np.ndarray:
    steps = np.arange(-kernel_radius(sigma), kernel_radius(sigma) + 1)
    kernel = np.exp(-(steps**2) / (2 * sigma**2))
    return (kernel / kernel.sum()).astype(np.float32)
