"""Descriptors of keypoints: RootSIFT by Kornia, and those of OpenCV and Kornia by name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import cv2
import kornia.feature as KF
import numpy as np
import torch
from kornia.feature import (
    PatchDominantGradientOrientation,
    SIFTDescriptor,
    extract_patches_simple,
    laf_from_center_scale_ori,
)
from torch import Tensor

from kp.features.images import places_in, to_grey_image
from kp.models.keypoints import Keypoints
from kp.support.device import full_precision
from kp.support.errors import one_line

if TYPE_CHECKING:
    from kp.features.images import Source

DEFAULT_METHOD = "rootsift"
PATCH = 32  # samples on a side of a patch
PATCH_RADIUS = 12.0  # pixels from the centre of a patch to its side: SIFT's patch, 12 sigma wide, has it at sigma = 2
_LEAST_NORM = 0.5  # of a descriptor that says something: others have length 1
_GREY_STEPS = 16 * 255  # finer than 8 bits; with finer steps rounding errors would describe a flat patch
_SIFT_PATCH = 6  # sides of the square that OpenCV's SIFT describes, in sizes of a keypoint
_ORB_SIZE = 31.0  # pixels: the patch that ORB's tests are drawn in


@dataclass(frozen=True)
class Described:
    """Keypoints of an image with descriptors, best first: ``xy`` (K, 2) in pixels, ``descriptors`` (K, D).

    ``scaled_descriptors`` (K, S, D), ``turn`` (D, D) and ``tilts`` (T, D, D): see :meth:`kp.Extractor.extract`.
    """

    xy: Tensor
    descriptors: Tensor
    scaled_descriptors: Tensor | None = None
    turn: Tensor | None = None
    tilts: Tensor | None = None

    def best(self, count: int) -> "Described":
        """The first ``count`` of them."""
        scaled = None if self.scaled_descriptors is None else self.scaled_descriptors[:count]
        return Described(self.xy[:count], self.descriptors[:count], scaled, self.turn, self.tilts)

    def features(self) -> dict[str, Tensor]:
        """What :func:`kp.match` compares."""
        named = {name: getattr(self, name) for name in ("descriptors", "scaled_descriptors", "turn", "tilts")}
        return {name: values for name, values in named.items() if values is not None}


@torch.no_grad()
def describe(
    image: "Source",
    features: Mapping[str, Tensor],
    method: str = DEFAULT_METHOD,
    patch_radius: float = PATCH_RADIUS,
    exif: str = "ignore",
) -> Tensor:
    """Descriptors (1, N, D) of the keypoints of an image: float32, of unit length. Each patch is turned upright.

    A descriptor is zero where it cannot be computed (ORB, near the edge) and where ``valid`` is False; it is never
    matched. No method tolerates changes of scale beyond about 1.5.

    Args:
        image: the image of which :meth:`kp.Extractor.extract` found the ``features``; so is ``exif``.
        method: ``rootsift`` (Kornia's, D = 128), ``sift`` (OpenCV's, 128), ``orb`` (OpenCV's, 256), or a network of
            Kornia's whose weights it downloads: ``hardnet``, ``sosnet``, ``hynet`` (128).
        patch_radius: pixels from the centre of a patch to its side, at most 32.

    Raises:
        ValueError: there is no such method, its weights cannot be had, or the features are not of this image.

    Example:
        >>> features["descriptors"] = describe("photo.jpg", features)
        >>> features["descriptors"].shape  # (1, N, 128)
    """
    if method not in METHODS:
        raise ValueError(f"no descriptor is called {method!r}: there are {', '.join(METHODS)}")
    if not 1 <= patch_radius <= PATCH:
        raise ValueError(f"patch_radius must be from 1 to {PATCH} pixels, not {patch_radius}")
    grey = to_grey_image(image, exif).grey
    xy = places_in(grey, features)
    grey = grey.to(xy.device)
    with full_precision(grey.device):
        found = METHODS[method](grey, xy[0].float(), patch_radius)[None].float()
    found = found.masked_fill(found.norm(dim=2, keepdim=True) < _LEAST_NORM, 0)  # of an even patch
    if "valid" not in features:
        return found
    return found.masked_fill(~torch.as_tensor(features["valid"]).bool().to(found.device)[..., None], 0)


@torch.inference_mode()
def rootsift(
    image: Tensor, keypoints: Keypoints, max_keypoints: int = 300, patch_radius: float = PATCH_RADIUS
) -> Described:
    """The best keypoints of a grey image with their RootSIFT descriptors: K <= ``max_keypoints``.

    Each patch is rotated to its dominant gradient. Outside the image it repeats the pixels of the edge. SIFT is by
    Lowe, IJCV 2004; the square root by Arandjelovic and Zisserman, CVPR 2012. It has no learned weights, so it works
    offline and favours no detector. The size and angle that a detector may give are not used.

    The descriptor tolerates any rotation, but not large changes of scale: for the same points of the built-in
    photographs at 1 / 1.25, 1 / 1.5 and 1 / 2 of their size, 94, 67 and 17 % of the matches are right.

    Args:
        image: (1, 1, H, W) in [0, 1].
        keypoints: of this image, B = 1.
        patch_radius: pixels from the centre of a patch to its side, at most PATCH (larger patches alias).
    """
    best = keypoints.select(keypoints.valid, max_keypoints)
    xy = best.xy[best.valid].to(image)  # (K, 2)
    return Described(xy, _rootsift(image, xy, patch_radius))


def read_patches(image: Tensor, xy: Tensor, angles: Tensor, radius: float) -> Tensor:
    """Patches (K, 1, PATCH, PATCH) of an image (1, 1, H, W) around ``xy`` (K, 2), sampled bilinearly.

    Args:
        angles: (K,), degrees from the x axis of the image to that of the patch, counter-clockwise on the screen.
        radius: pixels from the centre of a patch to its side.
    """
    frames = laf_from_center_scale_ori(xy[None], xy.new_full((1, len(xy), 1, 1), radius), angles[None, :, None])
    patches = extract_patches_simple(image, frames, PATCH)[0]
    return (patches * _GREY_STEPS).round() / _GREY_STEPS


def orientations(image: Tensor, xy: Tensor, radius: float = PATCH_RADIUS) -> Tensor:
    """The dominant gradients (K,) around ``xy`` (K, 2): degrees, counter-clockwise on the screen."""
    upright = read_patches(image, xy, torch.zeros_like(xy[:, 0]), radius)
    return torch.rad2deg(_modules()[0].to(image.device)(upright))


@cache
def _modules() -> tuple[PatchDominantGradientOrientation, SIFTDescriptor]:
    return PatchDominantGradientOrientation(PATCH).eval(), SIFTDescriptor(PATCH, rootsift=True).eval()


def _by_patches(image: Tensor, xy: Tensor, radius: float, network: Callable[[Tensor], Tensor]) -> Tensor:
    if not len(xy):
        return image.new_zeros(0, 128)
    return network(read_patches(image, xy, orientations(image, xy, radius), radius))


def _rootsift(image: Tensor, xy: Tensor, radius: float) -> Tensor:
    return _by_patches(image, xy, radius, _modules()[1].to(image.device))


@cache
def _network(name: str) -> torch.nn.Module:
    """A network of Kornia's with its published weights. Raises ValueError where they cannot be had."""
    try:
        return {"hardnet": KF.HardNet, "sosnet": KF.SOSNet, "hynet": KF.HyNet}[name](pretrained=True).eval()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"no weights of {name} ({one_line(error, 600)}): rootsift, sift and orb need none") from error


def _by_network(name: str) -> Callable[[Tensor, Tensor, float], Tensor]:
    return lambda image, xy, radius: _by_patches(image, xy, radius, _network(name).to(image.device))


def _sift(image: Tensor, xy: Tensor, radius: float) -> Tensor:
    found = _by_opencv(cv2.SIFT_create(), image, xy, 2 * radius / _SIFT_PATCH, 128)
    return torch.nn.functional.normalize(found, dim=1)


def _orb(image: Tensor, xy: Tensor, radius: float) -> Tensor:
    found = _by_opencv(cv2.ORB_create(), image, xy, _ORB_SIZE, 32)
    return of_bits(found).masked_fill(~found.any(1, keepdim=True), 0)


def of_bits(values: Tensor) -> Tensor:
    """Bytes (K, D / 8) as descriptors (K, D), float32, of unit length: their bits as -1 and 1, divided by sqrt(D).

    The squared distance of two of 256 bits is a 64th of Hamming's.
    """
    bits = torch.from_numpy(np.unpackbits(values.cpu().byte().numpy(), axis=1)).to(values.device)
    return (2.0 * bits - 1) / math.sqrt(8 * values.shape[1])


def _by_opencv(extractor: cv2.Feature2D, image: Tensor, xy: Tensor, size: float, length: int) -> Tensor:
    """Descriptors (K, length) by OpenCV, zero where it gives none."""
    angles = (-orientations(image, xy)).remainder(360).tolist() if len(xy) else []  # OpenCV's are clockwise
    points = [
        cv2.KeyPoint(x, y, size, angle, 0, 0, index)
        for index, ((x, y), angle) in enumerate(zip(xy.tolist(), angles, strict=True))
    ]
    grey = (image[0, 0] * 255).round().byte().cpu().numpy()
    kept, values = extractor.compute(grey, points)
    found = xy.new_zeros(len(xy), length)
    if kept:
        found[[point.class_id for point in kept]] = torch.from_numpy(values).to(xy)
    return found


METHODS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"rootsift": _rootsift, "sift": _sift, "orb": _orb}
METHODS |= {name: _by_network(name) for name in ("hardnet", "sosnet", "hynet")}
