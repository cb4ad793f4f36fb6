"""Photometric changes between two views of one scene: light, camera response, lens and sensor; nothing geometric."""

import torch
from kornia.enhance import adjust_brightness, adjust_contrast_with_mean_subtraction, adjust_gamma
from kornia.filters import gaussian_blur2d, motion_blur
from torch import Tensor
from torch.nn import functional as F

_BLUR_KERNEL = 11  # pixels, odd: four times the largest standard deviation and more
_MOTION_KERNEL = 7  # pixels, odd: the longest path of a shaken camera


def change_photometry(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Images (B, C, H, W) in [0, 1] as another light and another camera would show them, each image on its own.

    In this order: uneven light, cast shadow, colour cast (C = 3), contrast, brightness, gamma, Gaussian blur, motion
    blur, sensor noise. ``strength`` scales every range: 0 changes nothing, 1 is about what lies between day and dusk.
    The draws come from ``generator``, whose device must be the images'.
    """
    if strength == 0:
        return images
    draw = _Draw(images, generator, strength)
    images = images * torch.exp(draw.around(0.5) * draw.field(3)) * (1 - draw.sometimes(0.7) * draw.shadow())
    if images.shape[1] == 3:
        images = images * torch.exp(draw.around(0.2, channels=3))
    images = adjust_contrast_with_mean_subtraction(images.clamp(0, 1), torch.exp(draw.around(0.5)).flatten())
    images = adjust_brightness(images, draw.around(0.15).flatten())
    images = adjust_gamma(images, torch.exp(draw.around(0.5)).flatten())
    images = _blur(images, draw)
    sigma = draw.sometimes(0.04)
    return (images + sigma * torch.randn(images.shape, generator=generator, device=images.device)).clamp(0, 1)


class _Draw:
    """Random amounts for a batch, (B, 1, 1, 1) or a field (B, 1, H, W), from one generator, of one strength."""

    def __init__(self, images: Tensor, generator: torch.Generator, strength: float) -> None:
        self.batch, _, *self.size = images.shape
        self.generator, self.device, self.strength = generator, images.device, strength

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(self.batch, *shape, generator=self.generator, device=self.device)

    def around(self, amount: float, channels: int = 1) -> Tensor:
        """Uniform within ``amount`` times strength of zero."""
        return (2 * self.rand(channels, 1, 1) - 1) * amount * self.strength

    def sometimes(self, amount: float) -> Tensor:
        """Zero for half of the images, else uniform up to ``amount`` times strength (at most 1 for a strength of 1)."""
        return (2 * self.rand(1, 1, 1) - 1).clamp(min=0) * amount * min(self.strength, 1 / max(amount, 1e-9))

    def field(self, cells: int) -> Tensor:
        """A smooth field in about [-1, 1] with ``cells`` cells a side."""
        coarse = 2 * self.rand(1, cells, cells) - 1
        return F.interpolate(coarse, self.size, mode="bicubic", align_corners=True)

    def shadow(self) -> Tensor:
        """1 in the shadow, 0 in the light, with an edge some pixels wide or as sharp as a pixel."""
        softness = 10 ** (1.7 * self.rand(1, 1, 1) + 0.3)  # the field climbs about 2 over the image
        return torch.sigmoid(self.field(4) * softness)


def _blur(images: Tensor, draw: _Draw) -> Tensor:
    """Defocus for half of the images, motion blur for a quarter; standard deviation and path in pixels."""
    sigma = (0.1 + draw.sometimes(1.8)).clamp(max=_BLUR_KERNEL / 4).flatten()
    images = gaussian_blur2d(images, _BLUR_KERNEL, torch.stack([sigma, sigma], dim=1), border_type="replicate")
    shaken = draw.rand() < 0.25 * min(draw.strength, 1)
    angle, direction = 360 * draw.rand(), 2 * draw.rand() - 1
    moved = motion_blur(images, _MOTION_KERNEL, angle, direction, border_type="replicate")
    return torch.where(shaken[:, None, None, None], moved, images)
