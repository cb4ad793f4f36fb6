"""Anti-aliased shapes in batched torch: which share of every pixel a shape covers.

A shape is drawn on a patch of its own, (N, h, w) for N shapes; :class:`Cells` lays patches side by side on a canvas, so
that one call paints hundreds of small shapes for the price of one large one.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.data.synthetic.random import Draw
from kp.geometry.coords import Size, invert, transform_pixels

_STEEP = 0.05  # pixels: an edge that moves less within a row is drawn as if it moved so much


def polygon_coverage(vertices: Tensor, size: Size, softness: Tensor | float = 1.0) -> Tensor:
    """The share (N, h, w) of each pixel that lies in simple polygons (N, V, 2), in pixels of the patch: exact area.

    ``softness`` (N,) or one for all is the side in pixels of the square that stands for a pixel: 1 is a sharp image, 5
    an edge that takes five pixels. A polygon of fewer vertices repeats one; it may leave the patch. By Green's theorem:
    every edge adds, row by row, the area to its right.
    """
    soft = torch.as_tensor(softness, dtype=vertices.dtype, device=vertices.device).expand(len(vertices))[:, None]
    rows, columns = (torch.arange(n, device=vertices.device, dtype=vertices.dtype) for n in size)
    top, bottom = rows - soft / 2, rows + soft / 2  # (N, h)
    right = (columns / soft + 0.5)[:, None]  # (N, 1, w), in units of softness
    total = vertices.new_zeros(len(vertices), *size)
    area, scratch = (torch.empty_like(total), torch.empty_like(total)), torch.empty_like(total)
    for start, end in zip(vertices.unbind(1), vertices.roll(-1, 1).unbind(1), strict=True):
        (x0, y0), (x1, y1) = start[..., None].unbind(1), end[..., None].unbind(1)  # (N, 1)
        from_y, to_y = (torch.minimum(torch.maximum(y, top), bottom) for y in (y0, y1))  # (N, h)
        rise = torch.where((y1 - y0).abs() < 1e-6, torch.ones_like(y0), y1 - y0)
        from_x, to_x = ((x0 + ((y - y0) / rise).clamp(0, 1) * (x1 - x0)) / soft for y in (from_y, to_y))
        flat = (from_x - to_x).abs() < _STEEP
        middle = (from_x + to_x) / 2
        from_x, to_x = torch.where(flat, middle + _STEEP / 2, from_x), torch.where(flat, middle - _STEEP / 2, to_x)
        height = (to_y - from_y) / (soft * (from_x - to_x))  # (N, h)
        for x, out in zip((from_x, to_x), area, strict=True):
            torch.sub(right, x[..., None], out=out)
            torch.clamp(out, 0, 1, out=scratch)
            out.sub_(scratch, alpha=0.5).mul_(scratch)  # the integral of clamp(t, 0, 1) over t up to out
        total.addcmul_(area[1].sub_(area[0]), height[..., None])
    return total.abs_().clamp_(0, 1)


def ellipse_coverage(centre: Tensor, axes: Tensor, turn: Tensor, size: Size, softness: Tensor | float = 1.0) -> Tensor:
    """The share (N, h, w) of each pixel that lies in ellipses, to first order in the distance to the outline.

    ``centre`` (N, 2) and half ``axes`` (N, 2) in pixels, ``turn`` (N,) in radians, ``softness`` (N,) as for polygons.
    """
    soft = torch.as_tensor(softness, dtype=axes.dtype, device=axes.device).expand(len(axes))[:, None, None]
    y, x = (torch.arange(n, device=axes.device, dtype=axes.dtype) for n in size)
    x, y = x - centre[:, :1], y - centre[:, 1:]  # (N, w), (N, h)
    cos, sin = turn.cos()[:, None], turn.sin()[:, None]
    u = (cos * x / axes[:, :1])[:, None] + (sin * y / axes[:, :1])[..., None]  # (N, h, w): across, over the half axis
    v = (-sin * x / axes[:, 1:])[:, None] + (cos * y / axes[:, 1:])[..., None]
    radius = torch.hypot(u, v)
    gradient = torch.hypot(u.div_(axes[:, :1, None]), v.div_(axes[:, 1:, None])).clamp_(min=1e-9)  # of radius squared
    distance = radius.sub(1).mul_(radius).div_(gradient.mul_(soft))
    return distance.neg_().add_(0.5).clamp_(0, 1)


def board_tones(H_board_to_image: Tensor, tones: Tensor, size: Size) -> Tensor:
    """The tone (B, 1, H, W) that each pixel sees of a board of cells (B, rows, columns), in any perspective.

    In board coordinates a cell is one unit wide and high. Pixels off the board read its outermost cells.
    """
    inverse = invert(H_board_to_image)
    *places, w = transform_pixels(inverse, size)
    depth = 1 / w.clamp(min=1e-4)  # pixels beyond the horizon lie off the board: its outline hides them
    near, share = [], []
    for axis, (place, cells) in enumerate(zip(places, (tones.shape[2], tones.shape[1]), strict=True)):
        u = place * depth
        line = u.round()
        gradient = (inverse[:, axis, i, None, None] - u * inverse[:, 2, i, None, None] for i in (0, 1))
        slope = torch.hypot(*gradient) * depth  # units a pixel
        share.append(((u - line) / slope.clamp(min=1e-6) + 0.5).clamp(0, 1))  # of the cell behind the line
        near.append([(line.long() + step).clamp(0, cells - 1).flatten(1) for step in (-1, 0)])
    flat = tones.flatten(1)
    tone = [[flat.gather(1, y * tones.shape[2] + x).view_as(w) for x in near[0]] for y in near[1]]
    upper, lower = (torch.lerp(left, right, share[0]) for left, right in tone)
    return torch.lerp(upper, lower, share[1])[:, None]


@dataclass(frozen=True)
class Cells:
    """A lattice of cells of one size (h, w) in pixels that covers a canvas (H, W).

    ``offset`` is how many rows and columns of pixels the first cell begins before the canvas does.
    """

    canvas: Size
    cell: Size
    offset: tuple[int, int] = (0, 0)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return tuple(
            math.ceil((side + off) / cell) for side, off, cell in zip(self.canvas, self.offset, self.cell, strict=True)
        )

    @property
    def count(self) -> int:
        """How many cells there are."""
        return self.shape[0] * self.shape[1]

    def origins(self, like: Tensor) -> Tensor:
        """Where (count, 2) the middle of each cell's first pixel lies on the canvas, row by row."""
        y, x = (torch.arange(n, device=like.device, dtype=like.dtype) for n in self.shape)
        corners = torch.cartesian_prod(y * self.cell[0] - self.offset[0], x * self.cell[1] - self.offset[1])
        return corners.flip(-1)

    def tile(self, patches: Tensor) -> Tensor:
        """Patches (B * count, h, w) side by side: (B, 1, H, W)."""
        rows, columns = self.shape
        tiled = patches.view(-1, rows, columns, *self.cell).transpose(2, 3)
        return self._crop(tiled.reshape(-1, 1, rows * self.cell[0], columns * self.cell[1]))

    def expand(self, values: Tensor) -> Tensor:
        """A value (B, count) for every cell as a map (B, 1, H, W)."""
        rows, columns = self.shape
        wide = values.view(-1, rows, 1, columns, 1).expand(-1, -1, self.cell[0], -1, self.cell[1])
        return self._crop(wide.reshape(-1, 1, rows * self.cell[0], columns * self.cell[1]))

    def _crop(self, whole: Tensor) -> Tensor:
        (top, left), (height, width) = self.offset, self.canvas
        return whole[..., top : top + height, left : left + width]


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
