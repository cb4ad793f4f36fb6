"""The classic families: a few plain shapes on an uneven background. All their corners are known.

After the synthetic shapes of DeTone et al., "SuperPoint", CVPRW 2018, section 4.1.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from kp.data.synthetic.random import Draw
from kp.data.synthetic.raster import (
    board_tones,
    convex_polygons,
    crossings,
    ellipse_coverage,
    polygon_coverage,
    random_points,
    stroke_outline,
)
from kp.data.synthetic.scene import Canvas, Kind, Scene
from kp.data.synthetic.textures import contrasting, fractal
from kp.geometry.coords import Size, warp_points
from kp.geometry.homography import random_homographies


def background(size: Size, draw: Draw) -> tuple[Tensor, Tensor]:
    """An uneven background (B, 1, H, W) and its mean tone (B,)."""
    tone = draw.uniform(0.15, 0.85)
    uneven = fractal(size, draw, draw.uniform(2, 4)) * draw.uniform(0, 0.08, 1, 1, 1)
    return uneven.add_(tone.view(-1, 1, 1, 1)).clamp_(0, 1), tone


def _polygons(size: Size, draw: Draw, layers: int, smallest: float, largest: float) -> Scene:
    ground, base = background(size, draw)
    canvas = Canvas(ground)
    radius = min(size) * smallest * (largest / smallest) ** draw.uniform(0, 1, layers)
    tones = contrasting(draw, base, layers, 1, 1, 1)
    for i in range(layers):
        outline, is_corner = (values[:, 0] for values in convex_polygons(radius[:, i : i + 1], draw))
        outline = outline + random_points(size, draw, 1)
        change = canvas.paint(polygon_coverage(outline, size)[:, None], tones[:, i])
        canvas.mark(outline, Kind.VERTEX, is_corner, change)
    return canvas.scene()


def polygon(size: Size, draw: Draw) -> Scene:
    """One convex polygon of 3 to 6 vertices."""
    return _polygons(size, draw, 1, 0.15, 0.45)


def polygons(size: Size, draw: Draw) -> Scene:
    """Eight overlapping polygons. Hidden vertices and the crossings of two outlines are not corners."""
    return _polygons(size, draw, 8, 0.08, 0.35)


def _strokes(canvas: Canvas, start: Tensor, end: Tensor, base: Tensor, draw: Draw) -> Iterator[tuple[int, Tensor]]:
    """Paint straight strokes from start to end (B, L, 2), 2 to 5 pixels wide.

    Yields after each stroke its index and the change of each pixel (B, 1, H, W).
    """
    layers = start.shape[1]
    outlines = stroke_outline(start, end, draw.uniform(2, 5, layers))
    tones = contrasting(draw, base, layers, 1, 1, 1)
    for i in range(layers):
        yield i, canvas.paint(polygon_coverage(outlines[:, i], canvas.size)[:, None], tones[:, i])


def lines(size: Size, draw: Draw) -> Scene:
    """Straight strokes. Corners are the ends of their axes and the points where two axes cross."""
    ground, base = background(size, draw)
    canvas = Canvas(ground)
    start, way = random_points(size, draw, 8), draw.uniform(0, 2 * torch.pi, 8, 1)
    length = min(size) * draw.uniform(0.1, 0.9, 8, 1)
    end = start + length * torch.cat([way.cos(), way.sin()], dim=-1)
    for i, change in _strokes(canvas, start, end, base, draw):
        canvas.mark(torch.stack([start[:, i], end[:, i]], dim=1), Kind.END, change=change)
        if i:  # a crossing belongs to the later stroke: a layer that hides this stroke hides it
            this = (ends[:, i : i + 1].expand(-1, i, -1) for ends in (start, end))
            points, cross = crossings(start[:, :i], end[:, :i], *this)
            canvas.mark(points, Kind.LINE_CROSSING, cross)
    return canvas.scene()


def star(size: Size, draw: Draw) -> Scene:
    """Six strokes from one point. Corners are this point and the other ends."""
    ground, base = background(size, draw)
    canvas = Canvas(ground)
    rays = 6
    centre = random_points(size, draw, 1, margin=0.2)
    angle = (torch.arange(rays, device=draw.device) + draw.uniform(-0.25, 0.25, rays)) * (2 * torch.pi / rays)
    angle = (angle + draw.uniform(0, 2 * torch.pi, 1))[..., None]
    end = centre + min(size) * draw.uniform(0.15, 0.5, rays, 1) * torch.cat([angle.cos(), angle.sin()], dim=-1)
    for i, change in _strokes(canvas, centre.expand_as(end), end, base, draw):
        canvas.mark(end[:, i : i + 1], Kind.END, change=change)
    canvas.mark(centre, Kind.LINE_CROSSING)
    return canvas.scene()


def cube(size: Size, draw: Draw) -> Scene:
    """A box in a random pose, in orthographic projection. Corners are its seven visible vertices."""
    ground, base = background(size, draw)
    canvas = Canvas(ground)
    axes = torch.linalg.qr(draw.normal(3, 3)).Q
    axes = axes * torch.where(axes[:, 2:] < 0, -1, 1)  # columns point towards the viewer: three faces are visible
    axes = axes * min(size) * draw.uniform(0.12, 0.35, 1, 3)
    x, y, z = axes[:, :2].unbind(-1)  # (B, 2): the edges of the box in the image
    near = random_points(size, draw, margin=0.25)
    faces = torch.stack(
        [torch.stack([near, near - u, near - u - v, near - v], dim=1) for u, v in ((x, y), (y, z), (z, x))], 1
    )
    tones = contrasting(draw, base, 1) + torch.tensor([-0.25, 0.0, 0.25], device=draw.device) * draw.uniform(0.5, 1, 1)
    covers = polygon_coverage(faces.flatten(0, 1), size).view(-1, 3, *size)  # the faces do not overlap
    total = covers.sum(1, keepdim=True)
    mosaic = (covers * tones.clamp(0, 1)[..., None, None]).sum(1, keepdim=True) / total.clamp(min=1e-6)
    change = canvas.paint(total.clamp(max=1), mosaic)
    corners = torch.stack([near, near - x, near - y, near - z, near - x - y, near - y - z, near - z - x], dim=1)
    area = torch.linalg.det(torch.stack([faces[:, :, 1] - faces[:, :, 0], faces[:, :, 3] - faces[:, :, 0]], dim=-1))
    visible = area.abs().amin(1, keepdim=True) > 60  # square pixels: the corners of a narrower face are not marked
    canvas.mark(corners, Kind.VERTEX, visible.expand(-1, 7), change)
    return canvas.scene()


def _board(draw: Draw, size: Size, tones: Tensor, aspect: float) -> Scene:
    """A board of cells of ``tones`` (B, rows, columns) in a random view. ``aspect``: its height over its width.

    Corners are all crossings of its lines. Crossings on the outline are vertices.
    """
    canvas = Canvas(background(size, draw)[0])
    rows, columns = tones.shape[1:]
    long_side = 0.75 * min(size)
    board = (round(long_side * min(aspect, 1)), round(long_side / max(aspect, 1)))  # (H, W) of the flat board in pixels
    ranges = {"max_translation": 0.15, "max_scale": 1.4, "max_rotation": 180.0, "max_shear": 25.0}
    H = random_homographies(draw.batch, board, size, generator=draw.generator, max_perspective=0.4, **ranges)
    unit = torch.tensor([[board[1] / columns, 0, -0.5], [0, board[0] / rows, -0.5], [0, 0, 1]], device=draw.device)
    H = H @ unit  # board units -> pixels; a cell is one unit wide and high
    lattice = torch.cartesian_prod(torch.arange(columns + 1.0), torch.arange(rows + 1.0)).to(draw.device)
    corners = warp_points(lattice.expand(draw.batch, -1, -1), H)[0]
    outline = corners[:, [0, columns * (rows + 1), -1, rows]]
    canvas.paint(polygon_coverage(outline, size)[:, None], board_tones(H, tones, size))
    inner = ((lattice > 0) & (lattice < lattice[-1])).all(-1)
    for kind, chosen in ((Kind.CROSSING, inner), (Kind.VERTEX, ~inner)):
        canvas.mark(corners[:, chosen], kind)
    return canvas.scene()


def checkerboard(size: Size, draw: Draw) -> Scene:
    """A chessboard in perspective, of slightly uneven tones. Corners are all crossings, also on the outline."""
    columns, rows = draw.integer(4, 9), draw.integer(4, 9)
    parity = (torch.arange(rows, device=draw.device)[:, None] + torch.arange(columns, device=draw.device)) % 2
    dark, light = draw.uniform(0, 0.35, 1, 1), draw.uniform(0.65, 1, 1, 1)
    tones = torch.where(parity == 1, light, dark) + draw.uniform(-0.1, 0.1, rows, columns)
    return _board(draw, size, tones.clamp(0, 1), rows / columns)


def stripes(size: Size, draw: Draw) -> Scene:
    """Parallel stripes in perspective. Corners are the ends of their borders."""
    columns = draw.integer(4, 9)
    light = torch.arange(columns, device=draw.device) % 2 == 1
    tones = torch.where(light, draw.uniform(0.6, 1, 1, columns), draw.uniform(0, 0.4, 1, columns))
    return _board(draw, size, tones, 0.3 * 5 ** (draw.integer(0, 100) / 100))


def ellipses(size: Size, draw: Draw) -> Scene:
    """Eight overlapping ellipses: many edges and no corner."""
    ground, base = background(size, draw)
    canvas = Canvas(ground)
    for tone in contrasting(draw, base, 8, 1, 1, 1).unbind(1):
        axes = min(size) * draw.uniform(0.05, 0.3, 2)
        canvas.paint(ellipse_coverage(random_points(size, draw), axes, draw.uniform(0, torch.pi), size)[:, None], tone)
    return canvas.scene()
