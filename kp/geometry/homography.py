"""Random homographies, the same as a Kornia augmentation, and measures of a homography.

A random homography is the product translation x rotation x scale x shear x perspective, about the centre of the image.
The perspective part keeps w positive on the whole image by construction. So every draw is in front of the camera and
maps the image to a convex quadrilateral; no draw is rejected.

The measures (:func:`quantities`) say how far apart two views are: overlap, scale, tilt and rotation.
"""

import math
from typing import Any

import torch
from kornia.augmentation import GeometricAugmentationBase2D
from kornia.constants import Resample
from torch import Tensor

from kp.config import WorldSettings
from kp.geometry.coords import Size, covisible_mask, invert, jacobian, warp_image

_DEFAULTS = WorldSettings()
_BOUNDS = {  # of each range: at least the first number, below the second
    "max_translation": (0.0, math.inf),  # fraction of the view's side
    "max_scale": (1.0, math.inf),  # factor
    "max_rotation": (0.0, math.inf),  # degrees
    "max_shear": (0.0, 90.0),  # degrees
    "max_perspective": (0.0, 1.0),  # change of w at the corners; at 1 the image would reach the horizon
}


# --- random homographies ---


def random_homographies(
    batch: int,
    size0: Size,
    size1: Size,
    *,
    max_translation: float = _DEFAULTS.max_translation,
    max_scale: float = _DEFAULTS.max_scale,
    max_rotation: float = _DEFAULTS.max_rotation,
    max_shear: float = _DEFAULTS.max_shear,
    max_perspective: float = _DEFAULTS.max_perspective,
    strength: Tensor | float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Random H_0to1 (B, 3, 3), float32: pixels of a view of size0 -> pixels of a view of size1.

    Each range is drawn in both directions. The defaults are those of :class:`kp.config.WorldSettings`.

    Args:
        batch: the number B of homographies.
        size0: (H, W) of view 0 in pixels.
        size1: (H, W) of view 1 in pixels.
        max_translation: shift of the centre, as a fraction of size1.
        max_scale: factor >= 1, log-uniform.
        max_rotation: degrees.
        max_shear: degrees, along an axis of any direction; 45 makes one side 2.6 times as long as the other.
        max_perspective: largest difference of w from 1 at the corners, in [0, 1).
        strength: in [0, 1], a number or (B,). All ranges except ``max_translation`` are multiplied by it. The
            translation keeps its range because views without any shift share one pixel lattice: a network that often
            sees such views learns to place keypoints on the lattice of its own strides, where it finds them again.
        generator: source of all draws; its device is the device of the result.
        device: used only without a generator.

    Raises:
        ValueError: a range is out of bounds.
    """
    _check(
        max_translation=max_translation,
        max_scale=max_scale,
        max_rotation=max_rotation,
        max_shear=max_shear,
        max_perspective=max_perspective,
    )
    device = generator.device if generator is not None else device

    def uniform(low: float, high: float) -> Tensor:  # (B,)
        return low + (high - low) * torch.rand(batch, generator=generator, device=device)

    def symmetric(limit: float) -> Tensor:  # (B,)
        return uniform(-limit, limit) * strength

    scale = torch.exp(symmetric(math.log(max_scale)))
    angle = torch.deg2rad(symmetric(max_rotation))
    axis = uniform(0, torch.pi)
    shear = torch.tan(torch.deg2rad(symmetric(max_shear)))
    dx, dy = (uniform(-max_translation, max_translation) * s for s in (size1[1], size1[0]))
    px, py = _perspective(uniform(0, 2 * torch.pi), uniform(0, max_perspective) * strength)

    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    shear = _rotation(-axis) @ _matrix([[one, shear, zero], [zero, one, zero], [zero, zero, one]]) @ _rotation(axis)
    affine = _rotation(angle) @ shear * torch.stack([scale, scale, one], dim=1)[:, :, None]
    perspective = _matrix([[one, zero, zero], [zero, one, zero], [px * 2 / size0[1], py * 2 / size0[0], one]])
    to_centre0 = _shift(one * (1 - size0[1]) / 2, one * (1 - size0[0]) / 2)
    from_centre1 = _shift(dx + (size1[1] - 1) / 2, dy + (size1[0] - 1) / 2)
    return from_centre1 @ affine @ perspective @ to_centre0


def _check(**ranges: float) -> None:
    for name, value in ranges.items():
        if name not in _BOUNDS:
            raise TypeError(f"{name} is not a range of a homography; there are {', '.join(_BOUNDS)}")
        low, high = _BOUNDS[name]
        if not low <= value < high:
            raise ValueError(f"{name} must be at least {low} and below {high}, not {value}")


def _perspective(direction: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """px and py (B,) with |px| + |py| = ``change`` (of w at the farthest corner), in a direction (B,) in radians."""
    px, py = torch.cos(direction), torch.sin(direction)
    norm = change / (px.abs() + py.abs())
    return px * norm, py * norm


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _rotation(angle: Tensor) -> Tensor:
    c, s, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return _matrix([[c, -s, zero], [s, c, zero], [zero, zero, zero + 1]])


def _shift(dx: Tensor, dy: Tensor) -> Tensor:
    zero, one = torch.zeros_like(dx), torch.ones_like(dx)
    return _matrix([[one, zero, dx], [zero, one, dy], [zero, zero, one]])


class RandomHomography(GeometricAugmentationBase2D):
    """Warps images by :func:`random_homographies`: a Kornia augmentation, alone or in ``AugmentationSequential``.

    Images, masks, boxes and keypoints follow ``transform_matrix``, which agrees with the pixels. The attribute
    ``strength`` may be set before each batch.

    >>> augment = AugmentationSequential(RandomHomography((240, 320)), data_keys=["image", "keypoints"])
    >>> view, keypoints = augment(image, keypoints)

    Args:
        size: (H, W) of the result; the centre of the input goes to its centre. None keeps the size of the input.
        padding: what lies outside the input: ``zeros``, ``border`` or ``reflection``.
        antialias: see :func:`kp.geometry.coords.warp_image`.
        generator: source of all homographies. With p < 1, Kornia chooses the images to warp by torch's global
            generator.
        p, same_on_batch, keepdim: as in every Kornia augmentation.
        **ranges: the ranges of :func:`random_homographies`.

    Raises:
        ValueError: a range is out of bounds, or ``size`` is given and p is below 1.
    """

    def __init__(
        self,
        size: Size | None = None,
        *,
        padding: str = "zeros",
        antialias: bool = False,
        generator: torch.Generator | None = None,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
        **ranges: float,
    ) -> None:
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        if size is not None and p < 1:
            raise ValueError("a homography that changes the size must apply to every image: p must be 1")
        _check(**ranges)
        self.size = size
        self.antialias = antialias
        self.strength: Tensor | float = 1.0
        self.generator = generator
        self.ranges = ranges
        self.flags: dict[str, Any] = {"resample": Resample.BILINEAR, "padding": padding, "align_corners": True}

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """``homography`` (B, 3, 3), random, for a batch of shape (B, C, H, W); with ``same_on_batch`` all are equal."""
        size0 = tuple(batch_shape[-2:])
        drawn = 1 if self.same_on_batch else batch_shape[0]
        source = {"strength": self.strength, "generator": self.generator}
        H = random_homographies(drawn, size0, self.size or size0, **source, **self.ranges)
        return {"homography": H.expand(batch_shape[0], 3, 3).clone()}

    def compute_transformation(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        """The drawn H_0to1 (B, 3, 3) on the device of the input."""
        return params["homography"].to(input)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """The input (B, C, H, W) seen in the drawn view, whose size is ``size``."""
        return self._warp(input, transform, self.size or tuple(input.shape[-2:]), flags, self.antialias)

    def inverse_transform(
        self, input: Tensor, flags: dict[str, Any], transform: Tensor | None = None, size: Size | None = None
    ) -> Tensor:
        """The view in the frame of the input: ``transform`` is H_1to0, ``size`` the (H, W) of the input."""
        return self._warp(input, transform, size or tuple(input.shape[-2:]), flags)

    @staticmethod
    def _warp(image: Tensor, H: Tensor, size: Size, flags: dict[str, Any], antialias: bool = False) -> Tensor:
        mode = flags["resample"].name.lower()
        return warp_image(image, H.to(image), size, mode=mode, padding=flags["padding"], antialias=antialias)


# --- measures of a homography ---


def compose(H_0to2: Tensor, H_0to1: Tensor) -> Tensor:
    """H_1to2 (B, 3, 3) between two views of one scene 0."""
    return H_0to2 @ invert(H_0to1)


def quantities(H_0to1: Tensor, size0: Size, size1: Size) -> Tensor:
    """Overlap, scale, tilt and rotation (B, 4), float64, of H_0to1 (B, 3, 3).

    Scale, tilt and rotation are those of a small patch at the centre of view 0.
    """
    H_0to1 = H_0to1.double()
    centre = H_0to1.new_tensor([(size0[1] - 1) / 2, (size0[0] - 1) / 2]).expand(len(H_0to1), 1, 2)
    J = jacobian(H_0to1, centre)[:, 0]
    return torch.stack([overlap(H_0to1, size0, size1), scale(J), tilt(J), rotation(J)], dim=1)


def overlap(H_0to1: Tensor, size0: Size, size1: Size) -> Tensor:
    """The share (B,) of the pixels of view 0 that view 1 sees."""
    return covisible_mask(H_0to1, size0, size1).double().mean((1, 2, 3))


def scale(J: Tensor) -> Tensor:
    """The factor (B,) by which Jacobians (B, 2, 2) change lengths: the square root of the factor of areas."""
    return torch.linalg.det(J).abs().sqrt()


def tilt(J: Tensor) -> Tensor:
    """The relative tilt (B,), >= 1, of Jacobians (B, 2, 2): the ratio of their singular values."""
    values = torch.linalg.svdvals(J)
    return values[:, 0] / values[:, 1]


def rotation(J: Tensor) -> Tensor:
    """Degrees (B,) in (-180, 180] of the rotation nearest to Jacobians (B, 2, 2): that of their polar decomposition.

    The rotation R by the angle a has trace(R^T J) = cos(a) (J00 + J11) + sin(a) (J10 - J01). The returned angle
    maximises this trace.
    """
    return torch.rad2deg(torch.atan2(J[:, 1, 0] - J[:, 0, 1], J[:, 0, 0] + J[:, 1, 1]))
