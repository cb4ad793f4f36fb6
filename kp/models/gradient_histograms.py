"""Histograms of gradient directions on rings around keypoints: what a descriptor is made of before anything is learnt.

The layout is DAISY's (Tola, Lepetit and Fua, PAMI 2010): maps of the gradient in eight directions, blurred more on
wider rings, read at the centre and at eight places of each ring. They are computed at half the size of the image: on
photographs they tell keypoints apart as well as at full size, in a quarter of the time.
"""

import math

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kp.geometry.block_filters import at_half_size, opencv_can
from kp.geometry.coords import sample_at
from kp.models.detector import blur

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
                maps, step, variance = at_half_size(maps), 4, variance + 1  # 4 times 0.25
            maps, variance = _blur(maps, math.sqrt(sigma**2 - variance) / step), sigma**2
            around = (xy[:, :, None] + _ring(radius, places, xy)).flatten(1, 2)  # (B, K * places, 2)
            values = sample_at(maps, (around - (step - 1) / 2) / step)
            read.append(values.mT.reshape(*xy.shape[:2], places * DIRECTIONS))  # (B, K, places * DIRECTIONS)
        found = torch.cat(read, dim=2)
        return found.div_(found.sum(2, keepdim=True) + _LEAST_GRADIENT).clamp_(min=0).sqrt_()


def in_own_frame(histograms: Tensor) -> Tensor:
    """Histograms (B, K, SIZE), each as it is in the image turned so that its strongest direction is the x axis.

    In steps of 45 degrees. The direction is that of the sum over all places.
    """
    shares = histograms.square().unflatten(2, (-1, DIRECTIONS)).sum(2)  # (B, K, DIRECTIONS)
    turned = torch.empty(DIRECTIONS, SIZE, dtype=torch.long)  # of each turn: which number is taken for each
    for turn in range(DIRECTIONS):
        turned[turn, ORBITS] = ORBITS.roll(-turn, 1)
    return histograms.gather(2, turned.to(histograms.device)[shares.argmax(2)])


def gradient_maps(grey: Tensor) -> Tensor:
    """The gradient of grey images (B, 1, H, W) in each direction, from the x axis on: (B, DIRECTIONS, H, W), >= 0.

    A gradient of length 1 at an angle a from a direction counts there as cos(a)^2, and not at all beyond 90 degrees.
    """
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


def _blur(maps: Tensor, sigma: float) -> Tensor:
    """The same as :func:`kp.models.detector.blur`; on a CPU by OpenCV, in a fifth of the time."""
    if not opencv_can(maps):
        return blur(maps, sigma)
    size = 2 * math.ceil(3 * sigma) + 1
    images = [np.ascontiguousarray(image) for image in maps.permute(0, 2, 3, 1).numpy()]
    done = [cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REPLICATE) for image in images]
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2)
