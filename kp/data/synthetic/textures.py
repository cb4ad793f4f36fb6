"""Tones, and textures as maps (B, 1, H, W), for the layers of a scene. The corners of a texture are unknown."""

import torch
from torch import Tensor

from kp.data.synthetic.random import Draw
from kp.data.synthetic.raster import Cells
from kp.geometry.coords import Size


def contrasting(draw: Draw, base: Tensor, *shape: int) -> Tensor:
    """Random grey values (B, *shape) in [0, 1] that differ from ``base`` (B,) by 0.2 or more."""
    base = base.view(-1, *[1] * len(shape))
    room = torch.stack([base - 0.2, 0.8 - base]).clamp(min=0)  # below and above the base
    at = draw.uniform(0, 1, *shape) * room.sum(0)
    return torch.where(at < room[0], at, at - room[0] + base + 0.2)


def fractal(size: Size, draw: Draw, slope: Tensor, stretch: Tensor | None = None) -> Tensor:
    """Gaussian noise (B, 1, H, W) of mean 0 and deviation 1 with power 1 / f^slope.

    Args:
        slope: (B,); 0 is white noise, photographs have about 2 (Field, JOSA A 1987).
        stretch: (B, 2), factors of the frequencies in x and y; unequal factors make a directed grain.
    """
    fy = torch.fft.fftfreq(size[0], device=draw.device)[:, None]
    fx = torch.fft.rfftfreq(size[1], device=draw.device)
    if stretch is not None:
        fx, fy = fx * stretch[:, :1, None], fy * stretch[:, 1:, None]
    power = (fx**2 + fy**2).clamp(min=1 / max(size) ** 2)
    amplitude = power.pow(-slope.view(-1, 1, 1) / 4)
    amplitude[:, 0, 0] = 0
    spectrum = torch.view_as_complex(draw.normal(*amplitude.shape[-2:], 2) * amplitude[..., None])
    noise = torch.fft.irfft2(spectrum, s=size)
    return (noise / noise.std((1, 2), keepdim=True).clamp(min=1e-9))[:, None]


def grating(size: Size, draw: Draw, shortest: float = 4.0, longest: float = 30.0) -> Tensor:
    """Waves (B, 1, H, W) in [-1, 1] of a random direction, from sinusoidal to nearly square.

    The period is from ``shortest`` to ``longest`` pixels, log-uniform.
    """
    period = shortest * (longest / shortest) ** draw.uniform(0, 1, 1, 1, 1)
    angle = draw.uniform(0, torch.pi, 1, 1, 1)
    y, x = (torch.arange(n, device=draw.device) for n in size)
    phase = (angle.cos() * x + angle.sin() * y[:, None]) * (2 * torch.pi / period) + draw.uniform(0, 6.3, 1, 1, 1)
    return torch.tanh(draw.uniform(0.5, 4, 1, 1, 1) * phase.sin())


def voronoi(size: Size, draw: Draw, side: int) -> tuple[Tensor, Tensor]:
    """Distance in pixels to the border of a pixel's cell, and the tone in [0, 1] of the cell: each (B, 1, H, W).

    The cells are those of random seeds, one seed in each square of ``side`` pixels (Worley, SIGGRAPH 1996).
    """
    cells = Cells(size, (side, side), (side, side))
    rows, columns = cells.shape
    seeds = draw.uniform(0.05, 0.95, rows, columns, 2) * side
    tones = draw.uniform(0, 1, rows, columns)
    here = torch.arange(side, device=draw.device, dtype=seeds.dtype)
    first = torch.full((draw.batch, rows, columns, side, side), torch.inf, device=draw.device)
    second, tone = first.clone(), torch.zeros_like(first)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            seed = seeds.roll((-i, -j), (1, 2))
            dy = (here - seed[..., 1:] - i * side) ** 2
            dx = (here - seed[..., :1] - j * side) ** 2
            distance = dy[..., None] + dx[..., None, :]  # (B, rows, columns, side, side), squared
            nearer = distance < first
            second = torch.minimum(second, torch.maximum(first, distance))
            tone = torch.where(nearer, tones.roll((-i, -j), (1, 2))[..., None, None], tone)
            first = torch.minimum(first, distance)
    border = (second.sqrt() - first.sqrt()) / 2
    return tuple(cells.tile(patches.flatten(0, 2)) for patches in (border, tone))
