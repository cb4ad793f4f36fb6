"""Descriptors of keypoints: RootSIFT on patches turned to their dominant gradient, by Kornia."""

from dataclasses import dataclass
from functools import cache

import torch
from kornia.feature import (
    PatchDominantGradientOrientation,
    SIFTDescriptor,
    extract_patches_simple,
    laf_from_center_scale_ori,
)
from torch import Tensor

from kp.models.keypoints import Keypoints

PATCH = 32  # cells a side
PATCH_RADIUS = 12.0  # pixels from a patch's centre to its side: that of SIFT's own patch, 12 sigma wide, at sigma = 2
_GREY_STEPS = 16 * 255  # finer than 8 bits; with still finer steps rounding errors would describe a flat patch


@dataclass(frozen=True)
class Features:
    """The described keypoints of an image, best first: ``xy`` (K, 2) in pixels, ``descriptors`` (K, 128)."""

    xy: Tensor
    descriptors: Tensor


@torch.inference_mode()
def describe(
    image: Tensor, keypoints: Keypoints, max_keypoints: int = 300, patch_radius: float = PATCH_RADIUS
) -> Features:
    """Describe the best ``max_keypoints`` keypoints (B = 1) of a gray image (1, 1, H, W) in [0, 1] by RootSIFT.

    The same for every detector, and made for none of them: whatever size and angle a detector may know are not used.
    Each patch spans 2 * ``patch_radius`` pixels (at most 2 * PATCH, or it would alias), turned to its dominant
    gradient; beyond the edge of the image it repeats the edge's pixels. There are no weights, so that it works offline
    and was trained on nobody's points: SIFT by Lowe, IJCV 2004, square roots by Arandjelovic and Zisserman, CVPR 2012.
    It bears any rotation, but of the built-in photographs at 1 / 1.25, 1 / 1.5 and 1 / 2 of their size, 94, 67 and 17 %
    of the matches of the very same points are right.
    """
    best = keypoints.select(keypoints.valid, max_keypoints)
    xy = best.xy[best.valid].to(image)  # (K, 2)
    orientation, sift = _modules()
    angles = torch.rad2deg(orientation(read_patches(image, xy, torch.zeros_like(xy[:, 0]), patch_radius)))
    return Features(xy, sift(read_patches(image, xy, angles, patch_radius)))


@cache
def _modules() -> tuple[PatchDominantGradientOrientation, SIFTDescriptor]:
    return PatchDominantGradientOrientation(PATCH).eval(), SIFTDescriptor(PATCH, rootsift=True).eval()


def read_patches(image: Tensor, xy: Tensor, angles: Tensor, radius: float) -> Tensor:
    """The patches (K, 1, PATCH, PATCH) of an image (1, 1, H, W) around xy (K, 2), bilinearly.

    ``radius``: pixels from the centre to a side. ``angles`` (K,): degrees, counter-clockwise on screen, from the x axis
    of the image to that of the patch.
    """
    frames = laf_from_center_scale_ori(xy[None], xy.new_full((1, len(xy), 1, 1), radius), angles[None, :, None])
    patches = extract_patches_simple(image, frames, PATCH)[0]
    return (patches * _GREY_STEPS).round() / _GREY_STEPS
