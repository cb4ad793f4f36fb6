"""Outlines of shapes, and the share of every pixel that a shape covers, in batched torch.

First come the outlines: points in pixels (x, y). Then the coverage of pixels, without aliasing. Each of N shapes is
drawn on a patch of its own: (N, h, w). :class:`Cells` puts patches side by side on a canvas, so one call paints
hundreds of small shapes in the time of one large shape.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.data.synthetic.random import Draw
from kp.geometry.coords import Size, invert, transform_pixels

_MAX_CORNER_ANGLE = 150.0  # degrees: a vertex with a wider angle is not marked as a corner
_MIN_CROSSING_SINE = 0.3  # of the angle between two segments: flatter crossings are not marked
_MIN_EDGE_RUN = 0.05  # pixels: an edge that moves less in x within a row is drawn as if it moved so much


# --- outlines ---


def random_points(size: Size, draw: Draw, *shape: int, margin: float = 0.0) -> Tensor:
    """Random points (B, *shape, 2) of an image, in pixels, ``margin`` of its sides or more from its edge."""
    xy = draw.uniform(margin, 1 - margin, *shape, 2)
    return xy * xy.new_tensor([size[1] - 1.0, size[0] - 1.0])


def convex_polygons(radius: Tensor, draw: Draw, elongation: float = 1.0) -> tuple[Tensor, Tensor]:
    """Random convex polygons (B, L, V, 2) around (0, 0), and which vertices (B, L, V) are corners.

    V is from 3 to 6, the same for the whole batch. The vertices lie on an ellipse, in the order of their angle. About
    half of the quadrilaterals are rectangles.

    Args:
        radius: longer half axis of the ellipse (B, L), in pixels.
        elongation: factor by which the ellipse is narrower.
    """
    layers, count = radius.shape[1], draw.integer(3, 6)
    places = torch.arange(count, device=draw.device)
    jitter = draw.uniform(-0.3, 0.3, layers, count)
    squeeze = draw.uniform(0.4, 1, layers, 1)
    if count == 4:  # the diagonals of a rectangle are two diameters of a circle
        rectangle = draw.uniform(0, 1, layers, 1) < 0.5
        jitter = torch.where(rectangle, (places % 2) * jitter[..., :1], jitter)
        squeeze = torch.where(rectangle, 1.0, squeeze)
    angle = (places + jitter) * (2 * torch.pi / count)
    outline = torch.stack([angle.cos(), angle.sin() * squeeze / elongation], dim=-1) * radius[..., None, None]
    return _rotated(outline, draw.uniform(0, 2 * torch.pi, layers)), _inner_angles(outline) < _MAX_CORNER_ANGLE


def _rotated(points: Tensor, angle: Tensor) -> Tensor:
    """Points (B, L, V, 2), rotated around (0, 0) by angles (B, L) in radians."""
    (x, y), cos, sin = points.unbind(-1), angle.cos()[..., None], angle.sin()[..., None]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def _inner_angles(outline: Tensor) -> Tensor:
    """The angle (B, L, V), in degrees, at each vertex of polygons (B, L, V, 2)."""
    before, after = (outline.roll(way, 2) - outline for way in (1, -1))
    return torch.rad2deg(torch.arccos(torch.cosine_similarity(before, after, dim=-1).clamp(-1, 1)))


def stroke_outline(start: Tensor, end: Tensor, width: Tensor) -> Tensor:
    """The four vertices (..., 4, 2) of straight strokes from start to end (..., 2), ``width`` (...) pixels wide."""
    along = F.normalize(end - start, dim=-1)
    across = torch.stack([-along[..., 1], along[..., 0]], dim=-1) * (width / 2)[..., None]
    return torch.stack([start - across, end - across, end + across, start + across], dim=-2)


def crossings(a0: Tensor, a1: Tensor, b0: Tensor, b1: Tensor) -> tuple[Tensor, Tensor]:
    """The points (B, N, 2) where segments a0-a1 and b0-b1 (B, N, 2) cross, and whether they do (B, N).

    False also where the angle between two segments is small.
    """
    a, b, between = a1 - a0, b1 - b0, b0 - a0

    def cross(u: Tensor, v: Tensor) -> Tensor:
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    det = cross(a, b)
    steep = det.abs() > _MIN_CROSSING_SINE * a.norm(dim=-1) * b.norm(dim=-1)
    det = torch.where(steep, det, torch.ones_like(det))
    s, t = cross(between, b) / det, cross(between, a) / det
    return a0 + s[..., None] * a, steep & (s > 0) & (s < 1) & (t > 0) & (t < 1)


# --- coverage of pixels ---


def polygon_coverage(vertices: Tensor, size: Size, softness: Tensor | float = 1.0) -> Tensor:
    """The share (N, h, w) of each pixel that simple polygons (N, V, 2), in pixels of the patch, cover: the exact area.

    By Green's theorem: in each row, every edge adds the area to its right. A polygon may leave the patch. A polygon of
    fewer than V vertices repeats one.

    Args:
        softness: (N,) or a number, the side in pixels of the square that is averaged for a pixel. With 1 the image is
            sharp; with 5 an edge is five pixels wide.
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
        flat = (from_x - to_x).abs() < _MIN_EDGE_RUN
        middle = (from_x + to_x) / 2
        from_x = torch.where(flat, middle + _MIN_EDGE_RUN / 2, from_x)
        to_x = torch.where(flat, middle - _MIN_EDGE_RUN / 2, to_x)
        height = (to_y - from_y) / (soft * (from_x - to_x))  # (N, h)
        for x, out in zip((from_x, to_x), area, strict=True):
            torch.sub(right, x[..., None], out=out)
            torch.clamp(out, 0, 1, out=scratch)
            out.sub_(scratch, alpha=0.5).mul_(scratch)  # the integral of clamp(t, 0, 1) over t up to out
        total.addcmul_(area[1].sub_(area[0]), height[..., None])
    return total.abs_().clamp_(0, 1)


def ellipse_coverage(centre: Tensor, axes: Tensor, turn: Tensor, size: Size, softness: Tensor | float = 1.0) -> Tensor:
    """The share (N, h, w) of each pixel that ellipses cover, to first order in the distance to the outline.

    Args:
        centre: (N, 2) in pixels.
        axes: half axes (N, 2) in pixels.
        turn: (N,) in radians.
        softness: (N,) or a number, see :func:`polygon_coverage`.
    """
    soft = torch.as_tensor(softness, dtype=axes.dtype, device=axes.device).expand(len(axes))[:, None, None]
    y, x = (torch.arange(n, device=axes.device, dtype=axes.dtype) for n in size)
    x, y = x - centre[:, :1], y - centre[:, 1:]  # (N, w), (N, h)
    cos, sin = turn.cos()[:, None], turn.sin()[:, None]
    u = (cos * x / axes[:, :1])[:, None] + (sin * y / axes[:, :1])[..., None]  # (N, h, w), in units of the half axis
    v = (-sin * x / axes[:, 1:])[:, None] + (cos * y / axes[:, 1:])[..., None]
    radius = torch.hypot(u, v)
    gradient = torch.hypot(u.div_(axes[:, :1, None]), v.div_(axes[:, 1:, None])).clamp_(min=1e-9)  # of radius squared
    distance = radius.sub(1).mul_(radius).div_(gradient.mul_(soft))
    return distance.neg_().add_(0.5).clamp_(0, 1)


def board_tones(H_board_to_image: Tensor, tones: Tensor, size: Size) -> Tensor:
    """The tone (B, 1, H, W) of each pixel in a perspective view of a board of cells.

    Args:
        H_board_to_image: (B, 3, 3). In board coordinates a cell is one unit wide and high.
        tones: grey of the cells (B, rows, columns). Pixels off the board have the tone of its outermost cells.
    """
    inverse = invert(H_board_to_image)
    *places, w = transform_pixels(inverse, size)
    depth = 1 / w.clamp(min=1e-4)  # pixels beyond the horizon are off the board, and its outline hides them
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
    """A lattice of equal cells that covers a canvas.

    ``canvas``: (H, W) in pixels. ``cell``: (h, w) in pixels. ``offset``: rows and columns of pixels of the first cell
    that are outside the canvas.
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
        """The number of cells."""
        return self.shape[0] * self.shape[1]

    def origins(self, like: Tensor) -> Tensor:
        """The canvas coordinates (count, 2) of the first pixel of each cell, row by row."""
        y, x = (torch.arange(n, device=like.device, dtype=like.dtype) for n in self.shape)
        corners = torch.cartesian_prod(y * self.cell[0] - self.offset[0], x * self.cell[1] - self.offset[1])
        return corners.flip(-1)

    def tile(self, patches: Tensor) -> Tensor:
        """The map (B, 1, H, W) of patches (B * count, h, w), one in each cell."""
        rows, columns = self.shape
        tiled = patches.view(-1, rows, columns, *self.cell).transpose(2, 3)
        return self._crop(tiled.reshape(-1, 1, rows * self.cell[0], columns * self.cell[1]))

    def expand(self, values: Tensor) -> Tensor:
        """The map (B, 1, H, W) of values (B, count), one for each cell."""
        rows, columns = self.shape
        wide = values.view(-1, rows, 1, columns, 1).expand(-1, -1, self.cell[0], -1, self.cell[1])
        return self._crop(wide.reshape(-1, 1, rows * self.cell[0], columns * self.cell[1]))

    def _crop(self, whole: Tensor) -> Tensor:
        (top, left), (height, width) = self.offset, self.canvas
        return whole[..., top : top + height, left : left + width]
