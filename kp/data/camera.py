"""A camera that brackets: the same scene in several exposures, as light, sensor and development change it.

Scenes hold grey as files encode it. The camera decodes them to light, adds a smooth illumination of several stops,
exposes, adds photon and read noise, clips, and develops: power, S-curve, sharpening, JPEG. No pixel moves.
"""

import math

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from kp.config import CameraSettings
from kp.data.photometric import jpeg_blocks
from kp.data.synthetic.random import Draw
from kp.models.detector import blur

GAMMA = 2.2  # grey to this power is light
_MIDDLE = 0.18  # light of a middle grey
_SHARPENING_SIGMA = 1.0  # pixels


def bracket(scenes: Tensor, generator: torch.Generator, settings: CameraSettings = CameraSettings()) -> Tensor:
    """Views (B, V, 1, H, W) in [0, 1] of B scenes, photographed in V exposures: as large, of 8 bits.

    The first view of each scene is exposed for a middle grey, the others by 1 to ``settings.bracket_stops`` stops more
    or less. All views of a scene share the illumination, the sensor and the development.

    Args:
        generator: source of all draws, on the device of the scenes.
        settings: the ranges; each scene draws its own values.
    """
    draw = Draw(len(scenes), generator)
    light = scenes.clamp(0, 1) ** GAMMA
    field = draw.field(tuple(scenes.shape[-2:]), (3, 3)).clamp(-1, 1)[:, None]
    light = light * torch.exp2(field * draw.uniform(0, settings.scene_stops / 2, 1, 1, 1, 1))
    light = light * _MIDDLE / light[:, :1].mean((2, 3, 4), keepdim=True).clamp(min=1e-4)
    exposed = light * torch.exp2(_stops(draw, scenes.shape[1], settings.bracket_stops)[:, :, None, None, None])
    exposed = _defocus(exposed, draw, settings)  # 1 fills the well
    well, read = _log_uniform(draw, *settings.full_well), _log_uniform(draw, *settings.read_noise)
    noise = draw.normal(*scenes.shape[1:])
    sensed = exposed + noise * (exposed.clamp(max=1) / well + read**2).sqrt()
    return _develop(sensed.clamp(0, 1), draw, settings)


def _stops(draw: Draw, views: int, most: float) -> Tensor:
    """Stops (B, views) from a middle exposure: 0 for the first view, 1 to ``most`` either way for the others."""
    size = draw.uniform(min(1.0, most), most, views)
    sign = torch.where(draw.uniform(0, 1, views) < 0.5, -1.0, 1.0)
    stops = size * sign
    stops[:, 0] = 0
    return stops


def _develop(sensed: Tensor, draw: Draw, settings: CameraSettings) -> Tensor:
    """Light (B, views, 1, H, W) in [0, 1] as a file holds it: grey, sharpened, compressed, of 8 bits."""
    grey = sensed ** (1 / GAMMA)
    curve = draw.uniform(0, settings.s_curve, 1, 1, 1, 1)
    grey = grey + curve * (grey * grey * (3 - 2 * grey) - grey)
    flat = grey.flatten(0, 1)
    amount = draw.uniform(0, settings.sharpening, 1, 1, 1, 1).expand(*grey.shape[:2], 1, 1, 1).flatten(0, 1)
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
