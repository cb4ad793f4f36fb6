"""A camera that photographs a scene several times: as light, sensor and development change it.

Scenes hold grey as files encode it. The camera decodes them to light, adds a smooth illumination of several stops,
exposes, adds photon and read noise, clips, and develops: response, S-curve, sharpening, JPEG. No pixel moves. Two
responses are used: a power that clips, and one with a shoulder, 1 - exp(-light), that compresses highlights as the
cameras do whose brackets the validation sequences hold.
"""

import math

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from kp.config import CameraSettings
from kp.data.photometric import jpeg_blocks
from kp.data.synthetic.random import Draw
from kp.geometry.coords import Size
from kp.models.detector import blur

GAMMA = 2.2  # grey to this power is light, without a shoulder
_MIDDLE = (0.18, 0.5)  # light of a middle grey: without a shoulder, with one
_WHITE = (1.0, 6.0)  # light that fills the well
_BRIGHTEST = 0.99  # grey of a scene beyond which a shoulder is not decoded: its light would have no end
_SHARPENING_SIGMA = 1.0  # pixels
_LIT_CELLS, _SHADOW_CELLS = (3, 3), (4, 4)  # of the random fields of light and of shadows
_SHADOW_SHARE = 0.7  # of the views under a light of their own
_SHADOW_EDGE = (0.005, 0.2)  # softness of a shadow's edge, in units of its field
_AUTOMATIC = 0.3  # stops (standard deviation) by which automatic exposures differ


def bracket(scenes: Tensor, generator: torch.Generator, settings: CameraSettings = CameraSettings()) -> Tensor:
    """Views (B, V, 1, H, W) in [0, 1] of B scenes, photographed V times each: as large, of 8 bits.

    The first view of each scene is exposed for a middle grey, the others by 1 to ``settings.bracket_stops`` stops more
    or less, or by a share of these where the response has a shoulder. All views of a scene share the illumination, the
    sensor and the development. Scenes that are relit have a light and an automatic exposure in each view instead.

    Args:
        generator: source of all draws, on the device of the scenes.
        settings: the ranges; each scene draws its own values.
    """
    draw, (views, size) = Draw(len(scenes), generator), (scenes.shape[1], tuple(scenes.shape[-2:]))
    shoulder, power = _one(draw, 0, 1) < settings.shoulder_share, _one(draw, *settings.shoulder_power)
    middle, white = (torch.where(shoulder, values[1], values[0]) for values in (_MIDDLE, _WHITE))
    light = torch.where(shoulder, _decoded(scenes.clamp(0, 1), power), scenes.clamp(0, 1) ** GAMMA)
    light = light * torch.exp2(_lit(draw, size) * _one(draw, 0, settings.scene_stops / 2))
    middle = middle * torch.exp2(_one(draw, -settings.metering, settings.metering))
    stops = _stops(draw, views, settings.bracket_stops)[:, :, None, None, None]
    stops = torch.where(shoulder, stops * _one(draw, 0, 1), stops)
    exposed = light * middle / _mean(light[:, :1]) * torch.exp2(stops)
    relit = shoulder & (_one(draw, 0, 1) < settings.relit_share)
    exposed = torch.where(relit, _relit(light, middle, draw, settings), exposed)
    exposed = _defocus(exposed, draw, settings) / white  # 1 fills the well
    well, read = _log_uniform(draw, *settings.full_well), _log_uniform(draw, *settings.read_noise)
    noise = draw.normal(*scenes.shape[1:])
    sensed = (exposed + noise * (exposed.clamp(max=1) / well + read**2).sqrt()).clamp(0, 1)
    grey = torch.where(shoulder, _encoded(sensed * white, power), sensed ** (1 / GAMMA))
    return _develop(grey, draw, settings)


def _decoded(grey: Tensor, power: Tensor) -> Tensor:
    """The light of grey under a response with a shoulder: the inverse of :func:`_encoded`, up to a scale."""
    return -torch.log1p(-(grey ** (1 / power)).clamp(max=_BRIGHTEST))


def _encoded(light: Tensor, power: Tensor) -> Tensor:
    """Grey in [0, 1] of light up to that which fills the well: nearly linear where it is dark, flat where bright."""
    return (1 - torch.exp(-light)) ** power / (1 - math.exp(-_WHITE[1])) ** power


def _relit(light: Tensor, middle: Tensor, draw: Draw, settings: CameraSettings) -> Tensor:
    """Light (B, views, 1, H, W) with an illumination, a shadow or glow, and an automatic exposure in each view."""
    views = []
    for view in light.unbind(1):
        field = _lit(draw, tuple(view.shape[-2:])) * _one(draw, 0, settings.relit_stops / 2)
        views.append(view * torch.exp2(field + _shadow(draw, tuple(view.shape[-2:]), settings.shadow_stops))[:, 0])
    changed = torch.stack(views, dim=1)
    return changed * middle / _mean(changed) * torch.exp2(_AUTOMATIC * draw.normal(light.shape[1], 1, 1, 1))


def _shadow(draw: Draw, size: Size, most: float) -> Tensor:
    """Stops (B, 1, 1, H, W) of a region of any shape that is darker or brighter by up to ``most``, 0 in some images."""
    field = draw.field(size, _SHADOW_CELLS).clamp(-1, 1)[:, None]
    region = torch.sigmoid((field - _one(draw, -0.4, 0.4)) / _log_uniform(draw, *_SHADOW_EDGE))
    return region * _one(draw, -most, most) * (_one(draw, 0, 1) < _SHADOW_SHARE)


def _lit(draw: Draw, size: Size) -> Tensor:
    """A smooth field (B, 1, 1, H, W) in [-1, 1]."""
    return draw.field(size, _LIT_CELLS).clamp(-1, 1)[:, None]


def _one(draw: Draw, low: float, high: float) -> Tensor:
    """A number for each scene: (B, 1, 1, 1, 1)."""
    return draw.uniform(low, high, 1, 1, 1, 1)


def _mean(light: Tensor) -> Tensor:
    """The mean of each view, not below what divides well: (B, views, 1, 1, 1)."""
    return light.mean((2, 3, 4), keepdim=True).clamp(min=1e-4)


def _stops(draw: Draw, views: int, most: float) -> Tensor:
    """Stops (B, views) from a middle exposure: 0 for the first view, 1 to ``most`` either way for the others."""
    size = draw.uniform(min(1.0, most), most, views)
    sign = torch.where(draw.uniform(0, 1, views) < 0.5, -1.0, 1.0)
    stops = size * sign
    stops[:, 0] = 0
    return stops


def _develop(grey: Tensor, draw: Draw, settings: CameraSettings) -> Tensor:
    """Grey (B, views, 1, H, W) in [0, 1] as a file holds it: with more contrast, sharpened, compressed, of 8 bits."""
    curve = _one(draw, 0, settings.s_curve)
    grey = grey + curve * (grey * grey * (3 - 2 * grey) - grey)
    flat = grey.flatten(0, 1)
    amount = _one(draw, 0, settings.sharpening).expand(*grey.shape[:2], 1, 1, 1).flatten(0, 1)
    flat = (flat + amount * (flat - blur(flat, _SHARPENING_SIGMA))).clamp(0, 1)
    quality = draw.uniform(*settings.jpeg_quality, 1).expand(grey.shape[:2])
    hard = draw.uniform(settings.hard_jpeg, settings.jpeg_quality[0], grey.shape[1])
    quality = torch.where(draw.uniform(0, 1, grey.shape[1]) < settings.hard_jpeg_share, hard, quality).flatten().round()
    flat = jpeg_blocks(flat, quality)
    return ((flat * 255).round() / 255).view_as(grey)


def _defocus(light: Tensor, draw: Draw, settings: CameraSettings) -> Tensor:
    """Light (B, views, 1, H, W), blurred in some of the views."""
    views = light.shape[1]
    happens = draw.uniform(0, 1, views) < settings.out_of_focus_share
    sigma = (draw.uniform(0, settings.out_of_focus, views) * happens).flatten().clamp(min=0.05)
    size = 2 * math.ceil(3 * settings.out_of_focus) + 1
    flat = gaussian_blur2d(light.flatten(0, 1), size, sigma[:, None].expand(-1, 2), border_type="replicate")
    return torch.where(happens[:, :, None, None, None], flat.view_as(light), light)


def _log_uniform(draw: Draw, low: float, high: float) -> Tensor:
    return torch.exp(draw.uniform(math.log(low), math.log(high), 1, 1, 1, 1))
