"""Filters over small blocks of pixels, which OpenCV computes on a CPU in a fraction of torch's time.

Most take maps (B, C, H, W). Where OpenCV cannot (another device, a gradient, another dtype, torch.compile), torch does.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kp.support.device import keep_freed_memory

_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
_PAIR, _BLOCK = np.ones((2, 2), np.uint8), np.ones((3, 3), np.uint8)


def opencv_can(maps: Tensor) -> bool:
    """Whether OpenCV may compute with these maps instead of torch, without anyone noticing but by the time it takes."""
    plain = maps.device.type == "cpu" and maps.dtype == torch.float32 and not torch.compiler.is_compiling()
    return plain and not torch.is_grad_enabled() and min(maps.shape[-2:]) >= 4  # it takes a 1x1 array for a number


def mean_2x2(maps: Tensor) -> Tensor:
    """Means over blocks of 2x2 pixels (B, C, H / 2, W / 2); H and W are even."""
    if not opencv_can(maps):
        return F.avg_pool2d(maps, 2)
    return _each(maps, half_size)


def at_half_size(maps: Tensor) -> Tensor:
    """Means over 2x2 pixels of maps of any size, rounded up; an odd last row or column is repeated."""
    return mean_2x2(F.pad(maps, (0, maps.shape[-1] % 2, 0, maps.shape[-2] % 2), mode="replicate"))


def double(maps: Tensor) -> Tensor:
    """Maps at twice their size (B, C, 2 H, 2 W), bilinear; the pixels of :func:`mean_2x2` keep their places."""
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


def half_size(image: np.ndarray) -> np.ndarray:
    """An image (H, W) or (H, W, C) at half its size, rounded up: means over 2x2 pixels.

    An odd last row or column is repeated.
    """
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)


def double_size(image: np.ndarray) -> np.ndarray:
    """An image (H, W) at twice its size, bilinear: the same as :func:`double`."""
    return cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)


def max_2x2(maps: Tensor) -> Tensor:
    """The largest over blocks of 2x2 pixels (B, C, H / 2, W / 2); H and W are even."""
    if not opencv_can(maps):
        return F.max_pool2d(maps, 2)
    return _each(maps, lambda image: cv2.dilate(image, _PAIR, anchor=(0, 0))[::2, ::2])


def max_3x3(maps: Tensor) -> Tensor:
    """The largest of 3x3 pixels around each pixel, as large as the maps."""
    if not opencv_can(maps):
        return F.max_pool2d(maps, 3, stride=1, padding=1)
    return _each(maps, lambda image: cv2.dilate(image, _BLOCK))


def noise(maps: Tensor) -> Tensor:
    """The size of Immerkaer's Laplacian (CVIU 1996), which edges and smooth shades hardly change; as large.

    Its standard deviation is that of the noise.
    """
    if not opencv_can(maps):
        weight = torch.from_numpy(_LAPLACIAN).to(maps)[None, None]
        channels = maps.shape[1]
        padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, weight.expand(channels, 1, 3, 3), groups=channels).abs()
    return _each(maps, _noise)


def ascending(values: Tensor) -> Tensor:
    """Values (B, N) in order, smallest first."""
    if values.device.type != "cpu" or values.requires_grad or torch.compiler.is_compiling():
        return values.sort(dim=1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=1))  # in a tenth of torch's time


def _noise(image: np.ndarray) -> np.ndarray:
    found = cv2.filter2D(image, cv2.CV_32F, _LAPLACIAN, borderType=cv2.BORDER_REPLICATE)
    return np.abs(found, out=found)


def _each(maps: Tensor, work: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    keep_freed_memory()
    each = [work(np.ascontiguousarray(image)) for image in maps.flatten(0, 1).numpy()]
    found = each[0][None] if len(each) == 1 else np.stack(each)
    return torch.from_numpy(found).unflatten(0, maps.shape[:2])
