"""Photometric changes between two views of one scene: light, camera response, lens and sensor; nothing geometric."""

import torch
from kornia.enhance import adjust_brightness, adjust_contrast_with_mean_subtraction, adjust_gamma
from kornia.filters import gaussian_blur2d, motion_blur
from torch import Tensor

from kp.chance import Draw

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
    draw = _Changes(images, generator, strength)
    images = images * torch.exp(draw.around(0.5) * draw.uneven())
    images = images * (1 - draw.sometimes(0.7).clamp(max=1) * draw.shadow())
    if images.shape[1] == 3:
        images = images * torch.exp(draw.around(0.2, channels=3))
    images = adjust_contrast_with_mean_subtraction(images.clamp(0, 1), torch.exp(draw.around(0.5)).flatten())
    images = adjust_brightness(images, draw.around(0.15).flatten())
    images = adjust_gamma(images, torch.exp(draw.around(0.5)).flatten())
    images = _blur(images, draw)
    sigma = draw.sometimes(0.03)
    return (images + sigma * draw.normal(*images.shape[1:])).clamp(0, 1)


class _Changes(Draw):
    """Random amounts, (B, 1, 1, 1) or a field (B, 1, H, W), all of one strength."""

    def __init__(self, images: Tensor, generator: torch.Generator, strength: float) -> None:
        super().__init__(len(images), generator)
        self.size, self.strength = tuple(images.shape[-2:]), strength

    def around(self, amount: float, channels: int = 1) -> Tensor:
        """Uniform within ``amount`` times strength of zero."""
        return self.uniform(-amount, amount, channels, 1, 1) * self.strength

    def sometimes(self, amount: float) -> Tensor:
        """Zero for half of the images, else uniform up to ``amount`` times strength."""
        return self.uniform(-amount, amount, 1, 1, 1).clamp(min=0) * self.strength

    def uneven(self) -> Tensor:
        """Light that falls off over the image, in about [-1, 1]."""
        return self.field(self.size, (3, 3))

    def shadow(self) -> Tensor:
        """1 in the shadow, 0 in the light, with an edge some pixels wide or as sharp as a pixel."""
        softness = 10 ** self.uniform(0.3, 2, 1, 1, 1)  # the field climbs about 2 over the image
        return torch.sigmoid(self.field(self.size, (4, 4)) * softness)


def _blur(images: Tensor, draw: _Changes) -> Tensor:
    """Defocus for half of the images, motion blur for a quarter; standard deviation and path in pixels."""
    sigma = (0.1 + draw.sometimes(1.5)).clamp(max=_BLUR_KERNEL / 4).flatten()
    images = gaussian_blur2d(images, _BLUR_KERNEL, torch.stack([sigma, sigma], dim=1), border_type="replicate")
    shaken = draw.uniform(0, 1) < 0.25 * min(draw.strength, 1)
    angle = draw.uniform(0, 180)
    still = torch.zeros_like(angle)  # any other direction weighs the path's end more, and moves the image
    moved = motion_blur(images, _MOTION_KERNEL, angle, still, border_type="replicate")
    return torch.where(shaken[:, None, None, None], moved, images)
