"""Outlines of shapes in pixels, most of them drawn at random: what there is to paint, and where its corners are."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.chance import Draw
from kp.geometry import Size

_BLUNT = 150.0  # degrees: a wider angle is hardly a corner


def place(size: Size, draw: Draw, *shape: int, margin: float = 0.0) -> Tensor:
    """Random points (B, *shape, 2) of the image, ``margin`` of its sides away from its edge."""
    xy = draw.uniform(margin, 1 - margin, *shape, 2)
    return xy * xy.new_tensor([size[1] - 1.0, size[0] - 1.0])


def convex_polygons(radius: Tensor, draw: Draw, elongation: float = 1.0) -> tuple[Tensor, Tensor]:
    """Polygons (B, L, V, 2) about (0, 0), V from 3 to 6 for the whole batch, and which vertices (B, L, V) are corners.

    The vertices lie on an ellipse whose longer half axis is ``radius`` (B, L), in the order of their angle: the polygon
    is convex. Every other quadrilateral is a rectangle. ``elongation`` makes them so much narrower.
    """
    layers, count = radius.shape[1], draw.integer(3, 6)
    places = torch.arange(count, device=draw.device)
    jitter = draw.uniform(-0.3, 0.3, layers, count)
    squeeze = draw.uniform(0.4, 1, layers, 1)
    if count == 4:  # a rectangle is two diameters of a circle
        rectangle = draw.uniform(0, 1, layers, 1) < 0.5
        jitter = torch.where(rectangle, (places % 2) * jitter[..., :1], jitter)
        squeeze = torch.where(rectangle, 1.0, squeeze)
    angle = (places + jitter) * (2 * torch.pi / count)
    outline = torch.stack([angle.cos(), angle.sin() * squeeze / elongation], dim=-1) * radius[..., None, None]
    return _turned(outline, draw.uniform(0, 2 * torch.pi, layers)), _opening(outline) < _BLUNT


def _turned(points: Tensor, angle: Tensor) -> Tensor:
    """Points (B, L, V, 2) turned about (0, 0) by angles (B, L) in radians."""
    (x, y), cos, sin = points.unbind(-1), angle.cos()[..., None], angle.sin()[..., None]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def _opening(outline: Tensor) -> Tensor:
    """The angle (B, L, V) in degrees at each vertex of polygons (B, L, V, 2)."""
    before, after = (outline.roll(way, 2) - outline for way in (1, -1))
    return torch.rad2deg(torch.arccos(torch.cosine_similarity(before, after, dim=-1).clamp(-1, 1)))


def stroke_outline(start: Tensor, end: Tensor, width: Tensor) -> Tensor:
    """The four vertices (..., 4, 2) of straight strokes from start to end (..., 2), ``width`` (...) pixels wide."""
    along = F.normalize(end - start, dim=-1)
    across = torch.stack([-along[..., 1], along[..., 0]], dim=-1) * (width / 2)[..., None]
    return torch.stack([start - across, end - across, end + across, start + across], dim=-2)


def crossings(a0: Tensor, a1: Tensor, b0: Tensor, b1: Tensor) -> tuple[Tensor, Tensor]:
    """Where segments a and b, ends (B, N, 2), cross: (B, N, 2), and whether they do, and steeply: (B, N)."""
    a, b, between = a1 - a0, b1 - b0, b0 - a0

    def cross(u: Tensor, v: Tensor) -> Tensor:
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    det = cross(a, b)
    steep = det.abs() > 0.3 * a.norm(dim=-1) * b.norm(dim=-1)
    det = torch.where(steep, det, torch.ones_like(det))
    s, t = cross(between, b) / det, cross(between, a) / det
    return a0 + s[..., None] * a, steep & (s > 0) & (s < 1) & (t > 0) & (t < 1)
