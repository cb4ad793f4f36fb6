"""Photometric changes between two views of one scene: light, lens, sensor, camera response, file. No pixel moves.

Images hold grey as files encode it: light to the power 1 / 2.2. A factor of light is therefore a factor of grey (one
stop, which is twice the light, is 1.37 times the grey), and effects that multiply light need no decoding.
"""

import math
from collections.abc import Callable

import torch
from kornia.enhance import adjust_contrast_with_mean_subtraction, adjust_gamma
from kornia.filters import filter2d, filter2d_separable, get_gaussian_kernel1d
from torch import Tensor
from torch.nn import functional as F

from kp.config import LightSettings
from kp.data.synthetic.random import Draw

_DEFAULTS = LightSettings()

# The share of images that get an effect. Exposure, illumination, colour, contrast and gamma change all images.
_SHADOW_SHARE, _SPECULAR_SHARE = 1 / 2, 1 / 3
_DEFOCUS_SHARE, _MOTION_SHARE = 1 / 2, 1 / 4
_NOISE_SHARE, _JPEG_SHARE = 1 / 2, 1 / 3

_GAMMA = 2.2  # grey to this power is light: close to the curve of sRGB
_NUM_SPOTS = 3  # spots of glare in an image
_MAX_STRENGTH = 2.0  # limit of a strength that is a tensor: blur kernels have the size that this strength needs

# Lowest and highest value of a range, by its unit.
_STOPS, _FACTOR, _SHARE, _PIXELS, _QUALITY = (0, 16), (1, 100), (0, 1), (0, 100), (1, 100)

# Quantisation steps of luminance at quality 50, (vertical, horizontal frequency): ITU-T T.81 (JPEG), table K.1.
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
_DCT = torch.kron(_WAVES, _WAVES)  # (64, 64), orthonormal: a block as a row of pixels -> its frequencies


def change_photometry(
    images: Tensor,
    generator: torch.Generator,
    strength: float | Tensor = 1.0,
    *,
    exposure: float = _DEFAULTS.exposure,
    gamma: float = _DEFAULTS.gamma,
    contrast: float = _DEFAULTS.contrast,
    colour_cast: float = _DEFAULTS.colour_cast,
    illumination: float = _DEFAULTS.illumination,
    shadow: float = _DEFAULTS.shadow,
    specular: float = _DEFAULTS.specular,
    noise: float = _DEFAULTS.noise,
    jpeg: float = _DEFAULTS.jpeg,
    defocus: float = _DEFAULTS.defocus,
    motion: float = _DEFAULTS.motion,
) -> Tensor:
    """Images (B, C, H, W) in [0, 1], C = 1 or 3, in another light and by another camera: the same shape and dtype.

    The effects follow each other as in a camera: light (exposure, illumination, colour cast, shadow, glare), lens
    (defocus, motion), sensor (noise, clipping at 1), response (contrast, gamma), file (JPEG). Each image has its own
    random changes. The defaults are those of :class:`kp.config.LightSettings`.

    Args:
        generator: source of all draws, on the device of the images.
        strength: a number or (B,), up to 2. It multiplies all ranges (factors as powers, ``jpeg`` as the distance from
            100). An image of strength 0 does not change; 1 is about the difference between day and dusk.
        exposure: stops of light, either way.
        gamma: power of grey, factor either way, log-uniform.
        contrast: factor of grey about the mean of the image, either way, log-uniform.
        colour_cast: factor of light of each channel, either way, log-uniform; only if C = 3.
        illumination: stops of light, either way, changing smoothly over the image.
        shadow: largest share of light that a cast shadow takes. Its edge is soft or sharp.
        specular: largest grey that spots of glare add.
        noise: largest standard deviation in black, as a share of the grey range. In white it is half of it.
        jpeg: lowest quality of compression, as libjpeg counts; 100 is no compression.
        defocus: largest standard deviation of a Gaussian blur, in pixels.
        motion: longest path of a shaken camera, in pixels.

    Raises:
        ValueError: a range or the strength is out of bounds, or the strength has another shape.
    """
    _check(_STOPS, exposure=exposure, illumination=illumination)
    _check(_FACTOR, gamma=gamma, contrast=contrast, colour_cast=colour_cast)
    _check(_SHARE, shadow=shadow, specular=specular, noise=noise)
    _check(_PIXELS, defocus=defocus, motion=motion)
    _check(_QUALITY, jpeg=jpeg)
    _check_strength(strength, len(images))
    if not isinstance(strength, Tensor) and strength == 0:
        return images
    draw = _ScaledDraw(images, generator, strength)
    defocus_reach, motion_reach = math.ceil(3 * defocus * draw.limit), math.ceil(motion * draw.limit / 2)  # pixels
    changed = _change_light(images.float(), draw, exposure, illumination, colour_cast)
    changed = _apply(changed, draw.occasional(shadow, _SHADOW_SHARE).clamp(max=1), draw, _add_shadow)
    changed = _apply(changed, draw.occasional(specular, _SPECULAR_SHARE), draw, _add_glare)
    changed = _apply(changed, draw.occasional(defocus, _DEFOCUS_SHARE), draw, _defocus, defocus_reach)
    changed = _apply(changed, draw.occasional(motion, _MOTION_SHARE), draw, _motion_blur, motion_reach)
    changed = _apply(changed, draw.occasional(noise, _NOISE_SHARE), draw, _add_noise).clamp(0, 1)
    changed = _change_response(changed, draw, contrast, gamma)
    changed = _apply(changed, draw.occasional(100 - jpeg, _JPEG_SHARE).clamp(max=99), draw, _compress).to(images.dtype)
    if not isinstance(strength, Tensor):
        return changed
    return torch.where(draw.strength == 0, images, changed)  # powers are not exact at strength 0


def jpeg_blocks(images: Tensor, quality: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1] after JPEG of a quality (B,) from 1 to 100: the same shape, not rounded to 8 bits.

    Each channel is compressed alone, as luminance, in blocks of 8x8 pixels. The quantisation steps are those of
    libjpeg's jpeg_quality_scaling (jcparam.c).
    """
    (h, w), dct = images.shape[-2:], _DCT.to(images, non_blocking=True)
    images = F.pad(images, (0, -w % 8, 0, -h % 8), mode="replicate")
    cells = images.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # (B, C, rows, columns, 8, 8)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    steps = (_LUMINANCE.to(images, non_blocking=True) * percent[:, None] / 100 + 0.5).floor().clamp(1, 255) / 255
    frequencies = (cells.reshape(len(images), -1, 64) - 128 / 255) @ dct.T / steps[:, None]
    blocks = (frequencies.round() * steps[:, None]) @ dct + 128 / 255
    return blocks.view(cells.shape).transpose(3, 4).reshape(images.shape)[..., :h, :w].clamp(0, 1)


class _ScaledDraw(Draw):
    """Random amounts (B, 1 or C, 1, 1), multiplied by a strength that is at most ``limit``."""

    def __init__(self, images: Tensor, generator: torch.Generator, strength: float | Tensor) -> None:
        super().__init__(len(images), generator)
        self.strength, self.limit = strength, strength
        if isinstance(strength, Tensor):
            self.limit = _MAX_STRENGTH
            self.strength = strength.to(self.device, torch.float32).clamp(max=_MAX_STRENGTH)[:, None, None, None]

    def symmetric(self, amount: float, channels: int = 1) -> Tensor:
        """Uniform from -``amount`` to ``amount``, times the strength."""
        return self.uniform(-amount, amount, channels, 1, 1) * self.strength

    def occasional(self, amount: float, share: float) -> Tensor:
        """For a ``share`` of the images uniform from 0 to ``amount``, times the strength; for the others zero."""
        happens = self.uniform(0, 1, 1, 1, 1) < share
        return happens * self.uniform(0, amount, 1, 1, 1) * self.strength


def _check_strength(strength: float | Tensor, batch: int) -> None:
    if not isinstance(strength, Tensor):
        _check((0, 10), strength=strength)
    elif strength.shape != (batch,):
        raise ValueError(f"strength must be a number or ({batch},), not {tuple(strength.shape)}")
    elif strength.device.type == "cpu" and not (strength >= 0).all():  # on a GPU this would make the host wait
        raise ValueError("strength must not be negative")


def _check(bounds: tuple[float, float], **values: float) -> None:
    for name, value in values.items():
        if not bounds[0] <= value <= bounds[1]:
            raise ValueError(f"{name} must be from {bounds[0]} to {bounds[1]}, not {value}")


def _apply(images: Tensor, amount: Tensor, draw: Draw, change: Callable[..., Tensor], *settings: int) -> Tensor:
    """``change(images, amount, draw, *settings)`` where the amount (B, 1, 1, 1) of an image (B, C, H, W) is not zero.

    On a CPU the images are changed in place.
    """
    if images.device.type != "cpu":  # change all, because selecting some would make the host wait
        return torch.where(amount == 0, images, change(images, amount, draw, *settings))
    which = amount.flatten().nonzero()[:, 0]
    if not len(which):
        return images
    changed = change(images[which], amount[which], Draw(len(which), draw.generator), *settings)
    return images.index_copy_(0, which, changed)


def _change_light(
    images: Tensor, draw: _ScaledDraw, exposure: float, illumination: float, colour_cast: float
) -> Tensor:
    """Grey (B, C, H, W) after exposure, uneven illumination and colour cast, not clipped."""
    fall = draw.field(tuple(images.shape[-2:]), (3, 3)).clamp(-1, 1)
    stops = draw.symmetric(exposure) + draw.symmetric(illumination) * fall
    if images.shape[1] == 3:
        stops = stops + draw.symmetric(math.log2(colour_cast), channels=3)
    return images * torch.exp2(stops / _GAMMA)


def _add_shadow(images: Tensor, taken: Tensor, draw: Draw) -> Tensor:
    """Images that lose the share ``taken`` of light where a random field is high; the edge is sharp or soft."""
    sharpness = 10 ** draw.uniform(0.3, 2, 1, 1, 1)  # the field changes by about 2 over the image
    shade = torch.sigmoid(draw.field(tuple(images.shape[-2:]), (4, 4)) * sharpness)
    return images * (1 - shade * (1 - (1 - taken) ** (1 / _GAMMA)))


def _add_glare(images: Tensor, brightness: Tensor, draw: Draw) -> Tensor:
    """Images plus elliptical spots. Where spots overlap, the brightest counts. Lengths are shares of the short side."""
    (h, w), short = images.shape[-2:], min(images.shape[-2:])
    x = torch.arange(w, device=images.device) / short - draw.uniform(0, w / short, _NUM_SPOTS, 1, 1)
    y = torch.arange(h, device=images.device)[:, None] / short - draw.uniform(0, h / short, _NUM_SPOTS, 1, 1)
    turn = draw.uniform(0, math.pi, _NUM_SPOTS, 1, 1)
    length = 10 ** draw.uniform(-1.5, -0.6, _NUM_SPOTS, 1, 1)  # half axis, 0.03 to 0.25
    width = length * draw.uniform(1 / 3, 1, _NUM_SPOTS, 1, 1)  # the other half axis
    along = turn.cos() / length * x + turn.sin() / length * y
    across = turn.cos() / width * y - turn.sin() / width * x
    sharpness = 10 ** draw.uniform(0, 1.3, _NUM_SPOTS, 1, 1)
    spots = torch.sigmoid(sharpness * (1 - along * along - across * across)) * draw.uniform(0.3, 1, _NUM_SPOTS, 1, 1)
    return images + brightness * spots.amax(1, keepdim=True)


def _defocus(images: Tensor, sigma: Tensor, draw: Draw, reach: int) -> Tensor:
    """Images after a Gaussian blur of standard deviation ``sigma`` pixels, cut off ``reach`` pixels from its centre."""
    kernel = get_gaussian_kernel1d(2 * reach + 1, sigma.flatten(1))
    return filter2d_separable(images, kernel, kernel, border_type="replicate")


def _motion_blur(images: Tensor, path: Tensor, draw: Draw, reach: int) -> Tensor:
    """Images blurred along a straight ``path`` of so many pixels in a random direction.

    The kernel is symmetric, so no image moves. Kornia's motion_blur has one odd length for the whole batch.
    """
    at = torch.arange(-reach, reach + 1, device=images.device)
    turn = draw.uniform(0, math.pi, 1, 1)
    along = turn.cos() * at + turn.sin() * at[:, None]  # (B, k, k)
    across = turn.cos() * at[:, None] - turn.sin() * at
    kernel = (path[:, 0] / 2 + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(min=0)
    return filter2d(images, kernel / kernel.sum((1, 2), keepdim=True), border_type="replicate")


def _add_noise(images: Tensor, deviation: Tensor, draw: Draw) -> Tensor:
    """Images with shot noise and read noise.

    Grey is about the square root of light, so shot noise is equal in every grey (Anscombe 1948). Read noise adds to it
    in the dark, where a small change of light changes grey most. In black it is taken to be as large as shot noise.
    """
    return images + deviation * (1 - images.clamp(max=1) / 2) * draw.normal(*images.shape[1:])


def _change_response(images: Tensor, draw: _ScaledDraw, contrast: float, gamma: float) -> Tensor:
    """Images after the camera's response: contrast about the mean (of luminance if C = 3), then a power of grey."""
    factor, power = (torch.exp(draw.symmetric(math.log(limit))).flatten() for limit in (contrast, gamma))
    return adjust_gamma(adjust_contrast_with_mean_subtraction(images, factor), power)


def _compress(images: Tensor, loss: Tensor, draw: Draw) -> Tensor:
    return jpeg_blocks(images, (100 - loss).round().flatten())
