"""Histograms of gradient directions on rings around keypoints: what a descriptor is made of before anything is learnt.

The layout is DAISY's (Tola, Lepetit and Fua, PAMI 2010): maps of the gradient in eight directions, blurred more on
wider rings, read at the centre and at eight places of each ring. They are computed at half the size of the image: on
photographs they tell keypoints apart as well as at full size, in a quarter of the time.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kp.geometry.block_filters import at_half_size, half_size, opencv_can
from kp.geometry.coords import sample_at
from kp.models.detector import blur
from kp.support.device import keep_freed_memory

DIRECTIONS = 8
RINGS = (  # radius (pixels of the image), places, blur (standard deviation, the same pixels)
    *((0.0, 1, 1.5), (4.5, 8, 1.8), (9.0, 8, 2.5)),
    *((16.0, 8, 4.5), (28.0, 8, 8.0), (46.0, 8, 13.0)),
)
SIZE = DIRECTIONS * sum(places for _, places, _ in RINGS)  # numbers of a keypoint

_COARSE_FROM = 5.0  # pixels of the image: maps that are blurred more are kept at a quarter of its size
_IMAGE_BLUR = 0.5  # pixels of the image at half size (standard deviation), before the derivatives
_SMALLEST = 1e-6  # gradient, in grey a pixel: an exported graph must not divide by zero
_LEAST_GRADIENT = 1e-3  # of grey a pixel, summed over a keypoint's histograms: noise of less is not magnified


def _orbits() -> Tensor:
    """Where the numbers go as the image turns by 45 degrees, from the x axis to the y axis: (SIZE / 8, 8).

    The number ``[i, k]`` of a keypoint becomes the number ``[i, k + 1]``, and the last of a row the first: places of a
    ring and directions change together.
    """
    rows, first = [], 0
    for _, places, _ in RINGS:
        for offset in range(places):
            rows.append([first + k % places * DIRECTIONS + (offset + k) % DIRECTIONS for k in range(DIRECTIONS)])
        first += places * DIRECTIONS
    return torch.tensor(rows)


ORBITS = _orbits()


def gradient_histograms(half: Tensor, xy: Tensor) -> Tensor:
    """Square roots of the histograms around places ``xy`` (B, K, 2) of images: (B, K, SIZE).

    Those of a keypoint are divided by their sum first, so that contrast does not matter: as RootSIFT (Arandjelovic and
    Zisserman, CVPR 2012). No gradient goes through them.

    Args:
        half: the grey images at half their size (B, 1, h, w): means over 2x2 pixels.
        xy: in pixels of the images themselves.
    """
    with torch.no_grad():
        maps, read, step, variance = gradient_maps(half), [], 2, 0.25  # of the mean over 2x2 pixels
        for radius, places, sigma in RINGS:
            if sigma > _COARSE_FROM and step == 2:
                maps, step, variance = _at_half_size(maps), 4, variance + 1  # 4 times 0.25
            maps, variance = _blur(maps, math.sqrt(sigma**2 - variance) / step), sigma**2
            around = (xy[:, :, None] + _ring(radius, places, xy)).flatten(1, 2)  # (B, K * places, 2)
            values = sample_at(maps, (around - (step - 1) / 2) / step)
            read.append(values.mT.reshape(*xy.shape[:2], places * DIRECTIONS))  # (B, K, places * DIRECTIONS)
        found = torch.cat(read, dim=2)
        return found.div_(found.sum(2, keepdim=True) + _LEAST_GRADIENT).clamp_(min=0).sqrt_()


def gradient_maps(grey: Tensor) -> Tensor:
    """The gradient of grey images (B, 1, H, W) in each direction, from the x axis on: (B, DIRECTIONS, H, W), >= 0.

    A gradient of length 1 at an angle a from a direction counts there as cos(a)^2, and not at all beyond 90 degrees.
    """
    if opencv_can(grey):
        return _each(grey, _gradient_maps)
    smooth = F.pad(blur(grey, _IMAGE_BLUR), (1, 1, 1, 1), mode="replicate")
    dx = (smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]) / 2
    dy = (smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]) / 2
    angles = torch.arange(DIRECTIONS // 2, device=grey.device, dtype=grey.dtype) * (2 * math.pi / DIRECTIONS)
    along = dx * angles.cos().view(1, -1, 1, 1) + dy * angles.sin().view(1, -1, 1, 1)
    share = along * along.abs() / (dx.square() + dy.square()).sqrt().clamp(min=_SMALLEST)
    return F.relu(torch.cat([share, -share], dim=1))


def _ring(radius: float, places: int, like: Tensor) -> Tensor:
    """Offsets (places, 2) in pixels."""
    angles = torch.arange(places, device=like.device, dtype=like.dtype) * (2 * math.pi / places)
    return radius * torch.stack([angles.cos(), angles.sin()], dim=1)


def _gradient_maps(image: np.ndarray) -> np.ndarray:
    """The same of one image (H, W, 1) by OpenCV, in a fifth of the time: (H, W, DIRECTIONS)."""
    size, along_x, along_y = 2 * math.ceil(3 * _IMAGE_BLUR) + 1, np.float32([[-0.5, 0, 0.5]]), np.float32([[1]])
    smooth = cv2.GaussianBlur(image, (size, size), _IMAGE_BLUR, borderType=cv2.BORDER_REPLICATE)
    dx = cv2.sepFilter2D(smooth, cv2.CV_32F, along_x, along_y, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.sepFilter2D(smooth, cv2.CV_32F, along_y, along_x, borderType=cv2.BORDER_REPLICATE)
    length = np.sqrt(dx * dx + dy * dy)  # OpenCV's magnitude depends on where in memory the arrays are
    inverse = 1 / np.maximum(length, _SMALLEST, dtype=np.float32)
    maps, opposite = [], []
    for direction in range(DIRECTIONS // 2):
        angle = 2 * math.pi * direction / DIRECTIONS
        along = cv2.addWeighted(dx, math.cos(angle), dy, math.sin(angle), 0)
        share = cv2.multiply(cv2.multiply(along, along), inverse)
        maps.append(cv2.multiply(share, (along > 0).astype(np.float32)))
        opposite.append(cv2.subtract(share, maps[-1]))
    return cv2.merge([*maps, *opposite])


def _at_half_size(maps: Tensor) -> Tensor:
    """The same as :func:`kp.geometry.block_filters.at_half_size`, faster for maps that come from :func:`_each`."""
    return _each(maps, half_size) if opencv_can(maps) else at_half_size(maps)


def _blur(maps: Tensor, sigma: float) -> Tensor:
    """The same as :func:`kp.models.detector.blur`; on a CPU by OpenCV, in a fifth of the time."""
    if not opencv_can(maps):
        return blur(maps, sigma)
    size = 2 * math.ceil(3 * sigma) + 1
    return _each(maps, lambda image: cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REPLICATE))


def _each(maps: Tensor, work: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """The results of ``work`` on each of the images (H, W, C) of maps (B, C, H, W), again as maps."""
    keep_freed_memory()
    done = [work(np.ascontiguousarray(image)) for image in maps.permute(0, 2, 3, 1).numpy()]
    found = done[0][None] if len(done) == 1 else np.stack(done)
    return torch.from_numpy(found).permute(0, 3, 1, 2)
