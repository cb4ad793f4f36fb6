"""Random homographies, and the same as a Kornia augmentation.

A homography is drawn as translation x rotation x scale x shear x perspective about the image's centre. The perspective
part keeps w positive on the whole image by construction, so every draw is in front of the camera and maps the image to
a convex quadrilateral; nothing is drawn again or thrown away.
"""

import math
from typing import Any

import torch
from kornia.augmentation import GeometricAugmentationBase2D
from kornia.constants import Resample
from torch import Tensor

from kp.geometry.coords import Size, covisible_mask, invert, jacobian, warp_image


def random_homographies(
    batch: int,
    size0: Size,
    size1: Size,
    *,
    max_translation: float = 0.15,
    max_scale: float = 1.8,
    max_rotation: float = 60.0,
    max_shear: float = 45.0,
    max_perspective: float = 0.4,
    strength: Tensor | float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw H_0to1 (B, 3, 3), pixels of a view of size0 -> pixels of a view of size1, float32.

    ``max_translation``: of the centre, either way, as a fraction of size1. ``max_scale``: factor >= 1 either way,
    log-uniform. ``max_rotation``: degrees either way. ``max_shear``: degrees, along an axis of any direction; 45 makes
    one side 2.6 times as long as the other. ``max_perspective``: how far w may be from 1 at the corners, in [0, 1).
    ``strength``, in [0, 1], (B,) or one for all: the share of every range but the translation's that is drawn from. A
    network that always saw views which hardly differ on the same lattice of pixels would learn to tie its keypoints to
    its own lattice of strides, for there these are found again. ``device`` follows the generator unless there is none.
    Raises ValueError on a range that is out of bounds.
    """
    _check(max_translation, max_scale, max_rotation, max_shear, max_perspective)
    device = generator.device if generator is not None else device

    def uniform(low: float, high: float) -> Tensor:  # (B,)
        return low + (high - low) * torch.rand(batch, generator=generator, device=device)

    def within(most: float) -> Tensor:  # (B,)
        return uniform(-most, most) * strength

    scale = torch.exp(within(math.log(max_scale)))
    angle = torch.deg2rad(within(max_rotation))
    axis = uniform(0, torch.pi)
    shear = torch.tan(torch.deg2rad(within(max_shear)))
    dx, dy = (uniform(-max_translation, max_translation) * s for s in (size1[1], size1[0]))
    px, py = _perspective(uniform(0, 2 * torch.pi), uniform(0, max_perspective) * strength)

    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    shear = _rotation(-axis) @ _matrix([[one, shear, zero], [zero, one, zero], [zero, zero, one]]) @ _rotation(axis)
    affine = _rotation(angle) @ shear * torch.stack([scale, scale, one], dim=1)[:, :, None]
    perspective = _matrix([[one, zero, zero], [zero, one, zero], [px * 2 / size0[1], py * 2 / size0[0], one]])
    to_centre0 = _shift(one * (1 - size0[1]) / 2, one * (1 - size0[0]) / 2)
    from_centre1 = _shift(dx + (size1[1] - 1) / 2, dy + (size1[0] - 1) / 2)
    return from_centre1 @ affine @ perspective @ to_centre0


class RandomHomography(GeometricAugmentationBase2D):
    """Warp images by :func:`random_homographies`: usable alone and inside ``AugmentationSequential``.

    Images, masks, boxes and keypoints follow ``transform_matrix``, which agrees with the pixels. ``size`` (H, W) is the
    size of the result, the centre of the input falling about its centre; None keeps the input's. ``padding`` is what
    lies outside the input: ``zeros``, ``border`` or ``reflection``; ``antialias`` as in
    :func:`kp.geometry.coords.warp_image`. The attribute ``strength`` may be set before each batch. With a ``generator``
    the homographies come from it alone; with p < 1, Kornia draws which images to warp from torch's global generator.
    Other arguments: see :func:`random_homographies`.
    """

    def __init__(
        self,
        size: Size | None = None,
        *,
        max_translation: float = 0.15,
        max_scale: float = 1.8,
        max_rotation: float = 60.0,
        max_shear: float = 45.0,
        max_perspective: float = 0.4,
        padding: str = "zeros",
        antialias: bool = False,
        generator: torch.Generator | None = None,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        if size is not None and p < 1:
            raise ValueError("a homography that changes the size must apply to every image: p must be 1")
        _check(max_translation, max_scale, max_rotation, max_shear, max_perspective)
        self.size = size
        self.antialias = antialias
        self.strength: Tensor | float = 1.0
        self.generator = generator
        self.ranges = {
            "max_translation": max_translation,
            "max_scale": max_scale,
            "max_rotation": max_rotation,
            "max_shear": max_shear,
            "max_perspective": max_perspective,
        }
        self.flags: dict[str, Any] = {"resample": Resample.BILINEAR, "padding": padding, "align_corners": True}

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw ``homography`` (B, 3, 3) for a batch of shape (B, C, H, W); (1, 3, 3) expanded if the same on batch."""
        size0 = tuple(batch_shape[-2:])
        drawn = 1 if self.same_on_batch else batch_shape[0]
        chance = {"strength": self.strength, "generator": self.generator}
        H = random_homographies(drawn, size0, self.size or size0, **chance, **self.ranges)
        return {"homography": H.expand(batch_shape[0], 3, 3).clone()}

    def compute_transformation(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        """The drawn H_0to1 (B, 3, 3) on the input's device."""
        return params["homography"].to(input)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """The input (B, C, H, W) as the drawn view sees it, of size ``size``."""
        return self._warp(input, transform, self.size or tuple(input.shape[-2:]), flags, self.antialias)

    def inverse_transform(
        self, input: Tensor, flags: dict[str, Any], transform: Tensor | None = None, size: Size | None = None
    ) -> Tensor:
        """Back to the frame of the input: ``transform`` is H_1to0, ``size`` the input's (H, W)."""
        return self._warp(input, transform, size or tuple(input.shape[-2:]), flags)

    @staticmethod
    def _warp(image: Tensor, H: Tensor, size: Size, flags: dict[str, Any], antialias: bool = False) -> Tensor:
        mode = flags["resample"].name.lower()
        return warp_image(image, H.to(image), size, mode=mode, padding=flags["padding"], antialias=antialias)


def compose(H_0to2: Tensor, H_0to1: Tensor) -> Tensor:
    """H_1to2 (B, 3, 3) between two views of one scene 0."""
    return H_0to2 @ invert(H_0to1)


def overlap(H_0to1: Tensor, size0: Size, size1: Size) -> Tensor:
    """The share (B,) of view 0's pixels that view 1 sees."""
    return covisible_mask(H_0to1, size0, size1).double().mean((1, 2, 3))


def scale(J: Tensor) -> Tensor:
    """The factor (B,) of lengths of Jacobians (B, 2, 2): the square root of that of areas."""
    return torch.linalg.det(J).abs().sqrt()


def tilt(J: Tensor) -> Tensor:
    """The relative tilt (B,), >= 1, of Jacobians (B, 2, 2): the ratio of their singular values."""
    values = torch.linalg.svdvals(J)
    return values[:, 0] / values[:, 1]


def rotation(J: Tensor) -> Tensor:
    """Degrees (B,) in (-180, 180] of the rotation nearest to Jacobians (B, 2, 2): that of their polar decomposition.

    Of all rotations, that by a has trace(R^T J) = cos(a) (J00 + J11) + sin(a) (J10 - J01), which this angle makes most.
    """
    return torch.rad2deg(torch.atan2(J[:, 1, 0] - J[:, 0, 1], J[:, 0, 0] + J[:, 1, 1]))


def quantities(H_0to1: Tensor, size0: Size, size1: Size) -> Tensor:
    """Overlap, scale, tilt and rotation (B, 4), float64, of H_0to1 (B, 3, 3)."""
    H_0to1 = H_0to1.double()
    centre = H_0to1.new_tensor([(size0[1] - 1) / 2, (size0[0] - 1) / 2]).expand(len(H_0to1), 1, 2)
    J = jacobian(H_0to1, centre)[:, 0]
    return torch.stack([overlap(H_0to1, size0, size1), scale(J), tilt(J), rotation(J)], dim=1)


def _check(max_translation: float, max_scale: float, max_rotation: float, max_shear: float, max_perspective: float):
    if max_translation < 0 or max_rotation < 0:
        raise ValueError("max_translation and max_rotation must not be negative")
    if max_scale < 1:
        raise ValueError(f"max_scale is a factor either way and must be at least 1, not {max_scale}")
    if not 0 <= max_shear < 90:
        raise ValueError(f"max_shear must be in [0, 90) degrees, not {max_shear}")
    if not 0 <= max_perspective < 1:
        raise ValueError(f"max_perspective must be in [0, 1), not {max_perspective}: the image would cross the horizon")


def _perspective(direction: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
    """px, py (B,) in a direction (radians) with |px| + |py| = strength, the change of w at the farthest corner."""
    px, py = torch.cos(direction), torch.sin(direction)
    norm = strength / (px.abs() + py.abs())
    return px * norm, py * norm


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _rotation(angle: Tensor) -> Tensor:
    c, s, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return _matrix([[c, -s, zero], [s, c, zero], [zero, zero, zero + 1]])


def _shift(dx: Tensor, dy: Tensor) -> Tensor:
    zero, one = torch.zeros_like(dx), torch.ones_like(dx)
    return _matrix([[one, zero, dx], [zero, one, dy], [zero, zero, one]])
