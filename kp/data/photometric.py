"""Photometric changes between two views of one scene: light, lens, sensor, camera response, file; nothing geometric.

Images hold grey as files encode it, about the 1 / 2.2th power of light. A factor of light is then a factor of grey too
(a stop, twice the light, is 1.37 times the grey), so what multiplies light needs no decoding.
"""

import math
from collections.abc import Callable

import torch
from kornia.enhance import adjust_contrast_with_mean_subtraction, adjust_gamma
from kornia.filters import filter2d, filter2d_separable, get_gaussian_kernel1d
from torch import Tensor
from torch.nn import functional as F

from kp.data.synthetic.random import Draw

# The shares of images that an effect happens to; exposure, illumination, colour, contrast and gamma happen to all.
_SHADOWED, _GLARING, _DEFOCUSED, _SHAKEN, _NOISY, _COMPRESSED = 1 / 2, 1 / 3, 1 / 2, 1 / 4, 1 / 2, 1 / 3

_ENCODING = 2.2  # power of grey that is light: close to sRGB's curve
_SPOTS = 3  # of glare in an image
_STRONGEST = 2.0  # in a tensor: its values are on the device, and blurs need kernels for the largest
_STOPS, _FACTOR, _SHARE, _PIXELS, _QUALITY = (0, 16), (1, 100), (0, 1), (0, 100), (1, 100)

# Steps of luminance at quality 50, by vertical, then by horizontal frequency: ITU-T T.81 (JPEG), Annex K, table K.1.
_LUMINANCE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
).flatten()
_WAVES = torch.cos(torch.outer(torch.arange(8), 2 * torch.arange(8) + 1) * (math.pi / 16)) / 2  # (frequency, pixel)
_WAVES[0] /= math.sqrt(2)
_DCT = torch.kron(_WAVES, _WAVES)  # (64, 64), orthonormal: a flat block to its frequencies


def change_photometry(
    images: Tensor,
    generator: torch.Generator,
    strength: float | Tensor = 1.0,
    *,
    exposure: float = 2.0,  # stops of light either way; the sensor clips at 1
    gamma: float = 1.6,  # power of grey, factor either way, log-uniform
    contrast: float = 1.6,  # factor of grey either way about the image's mean, log-uniform
    colour_cast: float = 1.5,  # factor of light either way for each channel, log-uniform; only where C = 3
    illumination: float = 1.5,  # stops of light either way, falling off smoothly over the image
    shadow: float = 0.9,  # share of light that a cast shadow takes at most; its edge soft or sharp
    specular: float = 0.8,  # grey that a few spots of glare add at most
    noise: float = 0.04,  # standard deviation in black at most, as a share of the grey range; in white half of it
    jpeg: float = 30,  # lowest quality, as libjpeg counts; 100 is no compression
    defocus: float = 1.5,  # standard deviation of a Gaussian at most, in pixels
    motion: float = 7.0,  # path of a shaken camera at most, in pixels
) -> Tensor:
    """Images (B, C, H, W) in [0, 1], C = 1 or 3, as another light and another camera would show them: the same shape.

    In the order in which a picture comes about: light (exposure, illumination, colour, shadow, glare), lens (defocus,
    motion), sensor (noise, clipping), response (contrast, gamma), file (JPEG). Each image draws on its own, from
    ``generator``, on the images' device. ``strength``, a number or (B,) up to 2, scales all ranges, factors as powers,
    ``jpeg`` by its distance from 100; an image of strength 0 does not change, and 1 is about what lies between day and
    dusk. Raises ValueError where a range or the strength is out of bounds, or the strength of another shape.
    """
    _check(_STOPS, exposure=exposure, illumination=illumination)
    _check(_FACTOR, gamma=gamma, contrast=contrast, colour_cast=colour_cast)
    _check(_SHARE, shadow=shadow, specular=specular, noise=noise)
    _check(_PIXELS, defocus=defocus, motion=motion)
    _check(_QUALITY, jpeg=jpeg)
    _check_strength(strength, len(images))
    if not isinstance(strength, Tensor) and strength == 0:
        return images
    draw = _Changes(images, generator, strength)
    changed = _light(images.float(), draw, exposure, illumination, colour_cast)
    changed = _some(changed, draw.sometimes(shadow, _SHADOWED).clamp(max=1), draw, _cast_shadow)
    changed = _some(changed, draw.sometimes(specular, _GLARING), draw, _glare)
    changed = _some(changed, draw.sometimes(defocus, _DEFOCUSED), draw, _defocus, math.ceil(3 * defocus * draw.most))
    changed = _some(changed, draw.sometimes(motion, _SHAKEN), draw, _shake, math.ceil(motion * draw.most / 2))
    changed = _some(changed, draw.sometimes(noise, _NOISY), draw, _grain).clamp(0, 1)
    changed = _respond(changed, draw, contrast, gamma)
    changed = _some(changed, draw.sometimes(100 - jpeg, _COMPRESSED).clamp(max=99), draw, _compress).to(images.dtype)
    if not isinstance(strength, Tensor):
        return changed
    return torch.where(draw.strength == 0, images, changed)  # powers are not exact


def jpeg_blocks(images: Tensor, quality: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1] after JPEG at a quality (B,) of 1 to 100: the same shape, not rounded to 8 bits.

    Every channel alone as luminance, in blocks of 8x8 pixels; steps by libjpeg's jpeg_quality_scaling (jcparam.c).
    """
    (h, w), dct = images.shape[-2:], _DCT.to(images, non_blocking=True)
    images = F.pad(images, (0, -w % 8, 0, -h % 8), mode="replicate")
    cells = images.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # (B, C, rows, columns, 8, 8)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    steps = (_LUMINANCE.to(images, non_blocking=True) * percent[:, None] / 100 + 0.5).floor().clamp(1, 255) / 255
    frequencies = (cells.reshape(len(images), -1, 64) - 128 / 255) @ dct.T / steps[:, None]
    blocks = (frequencies.round() * steps[:, None]) @ dct + 128 / 255
    return blocks.view(cells.shape).transpose(3, 4).reshape(images.shape)[..., :h, :w].clamp(0, 1)


class _Changes(Draw):
    """Random amounts (B, C or 1, 1, 1), scaled by a strength of which ``most`` is the largest."""

    def __init__(self, images: Tensor, generator: torch.Generator, strength: float | Tensor) -> None:
        super().__init__(len(images), generator)
        self.strength, self.most = strength, strength
        if isinstance(strength, Tensor):
            self.most = _STRONGEST
            self.strength = strength.to(self.device, torch.float32).clamp(max=_STRONGEST)[:, None, None, None]

    def around(self, amount: float, channels: int = 1) -> Tensor:
        """Uniform within ``amount`` times strength of zero."""
        return self.uniform(-amount, amount, channels, 1, 1) * self.strength

    def sometimes(self, amount: float, share: float) -> Tensor:
        """Zero but for a ``share`` of the images, else uniform up to ``amount`` times strength."""
        happens = self.uniform(0, 1, 1, 1, 1) < share
        return happens * self.uniform(0, amount, 1, 1, 1) * self.strength


def _check_strength(strength: float | Tensor, batch: int) -> None:
    if not isinstance(strength, Tensor):
        _check((0, 10), strength=strength)
    elif strength.shape != (batch,):
        raise ValueError(f"strength must be a number or ({batch},), not {tuple(strength.shape)}")
    elif strength.device.type == "cpu" and not (strength >= 0).all():  # elsewhere the look would stall the queue
        raise ValueError("strength must not be negative")


def _check(bounds: tuple[float, float], **values: float) -> None:
    for name, value in values.items():
        if not bounds[0] <= value <= bounds[1]:
            raise ValueError(f"{name} must be from {bounds[0]} to {bounds[1]}, not {value}")


def _some(images: Tensor, amount: Tensor, draw: Draw, change: Callable[..., Tensor], *settings: int) -> Tensor:
    """``change(images, amount, draw, *settings)`` for the images (B, C, H, W) whose amount (B, 1, 1, 1) is not zero.

    On a CPU, in place.
    """
    if images.device.type != "cpu":  # all of them: to know which, the host would have to wait for the device
        return torch.where(amount == 0, images, change(images, amount, draw, *settings))
    which = amount.flatten().nonzero()[:, 0]
    if not len(which):
        return images
    changed = change(images[which], amount[which], Draw(len(which), draw.generator), *settings)
    return images.index_copy_(0, which, changed)


def _light(images: Tensor, draw: _Changes, exposure: float, illumination: float, colour_cast: float) -> Tensor:
    """Grey (B, C, H, W) in the light of another hour, not clipped yet."""
    fall = draw.field(tuple(images.shape[-2:]), (3, 3)).clamp(-1, 1)
    stops = draw.around(exposure) + draw.around(illumination) * fall
    if images.shape[1] == 3:
        stops = stops + draw.around(math.log2(colour_cast), channels=3)
    return images * torch.exp2(stops / _ENCODING)


def _cast_shadow(images: Tensor, taken: Tensor, draw: Draw) -> Tensor:
    """Light taken away where a random field is high, over an edge some tens of pixels wide or as sharp as a pixel."""
    sharpness = 10 ** draw.uniform(0.3, 2, 1, 1, 1)  # the field climbs about 2 over the image
    shade = torch.sigmoid(draw.field(tuple(images.shape[-2:]), (4, 4)) * sharpness)
    return images * (1 - shade * (1 - (1 - taken) ** (1 / _ENCODING)))


def _glare(images: Tensor, brightness: Tensor, draw: Draw) -> Tensor:
    """Elliptical spots added, the brightest where they overlap; their size relative to the image's short side."""
    (h, w), short = images.shape[-2:], min(images.shape[-2:])
    x = torch.arange(w, device=images.device) / short - draw.uniform(0, w / short, _SPOTS, 1, 1)
    y = torch.arange(h, device=images.device)[:, None] / short - draw.uniform(0, h / short, _SPOTS, 1, 1)
    turn = draw.uniform(0, math.pi, _SPOTS, 1, 1)
    length = 10 ** draw.uniform(-1.5, -0.6, _SPOTS, 1, 1)  # half axes: 0.03 to 0.25 one way, a third of it or more
    width = length * draw.uniform(1 / 3, 1, _SPOTS, 1, 1)  # the other
    along = turn.cos() / length * x + turn.sin() / length * y
    across = turn.cos() / width * y - turn.sin() / width * x
    sharpness = 10 ** draw.uniform(0, 1.3, _SPOTS, 1, 1)
    spots = torch.sigmoid(sharpness * (1 - along * along - across * across)) * draw.uniform(0.3, 1, _SPOTS, 1, 1)
    return images + brightness * spots.amax(1, keepdim=True)


def _defocus(images: Tensor, sigma: Tensor, draw: Draw, reach: int) -> Tensor:
    """A Gaussian of standard deviation ``sigma`` pixels, cut off ``reach`` pixels from its centre."""
    kernel = get_gaussian_kernel1d(2 * reach + 1, sigma.flatten(1))
    return filter2d_separable(images, kernel, kernel, border_type="replicate")


def _shake(images: Tensor, path: Tensor, draw: Draw, reach: int) -> Tensor:
    """A straight path of so many pixels in any direction, both ends alike, so that no image moves.

    Kornia's motion_blur has one length for the whole batch, a whole odd number.
    """
    at = torch.arange(-reach, reach + 1, device=images.device)
    turn = draw.uniform(0, math.pi, 1, 1)
    along = turn.cos() * at + turn.sin() * at[:, None]  # (B, k, k)
    across = turn.cos() * at[:, None] - turn.sin() * at
    kernel = (path[:, 0] / 2 + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(min=0)
    return filter2d(images, kernel / kernel.sum((1, 2), keepdim=True), border_type="replicate")


def _grain(images: Tensor, deviation: Tensor, draw: Draw) -> Tensor:
    """Shot and read noise. Shot noise is alike in every grey, which is about the root of light (Anscombe 1948).

    Read noise adds to it in the dark, where grey rises steepest with light; taken to be as large as shot noise there.
    """
    return images + deviation * (1 - images.clamp(max=1) / 2) * draw.normal(*images.shape[1:])


def _respond(images: Tensor, draw: _Changes, contrast: float, gamma: float) -> Tensor:
    """The camera's curve: contrast about the mean (of luminance, where C = 3), then a power of grey."""
    factor, power = (torch.exp(draw.around(math.log(most))).flatten() for most in (contrast, gamma))
    return adjust_gamma(adjust_contrast_with_mean_subtraction(images, factor), power)


def _compress(images: Tensor, loss: Tensor, draw: Draw) -> Tensor:
    return jpeg_blocks(images, (100 - loss).round().flatten())
