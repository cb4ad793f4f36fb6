"""Textured planes, like walls, pages and the ground seen from near.

The corners of a drawn pattern are known. The grain on it is ignored by the losses, because its corners are unknown.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.data.synthetic.random import Draw
from kp.data.synthetic.raster import Cells, polygon_coverage, stroke_outline
from kp.data.synthetic.scene import Canvas, Kind, Scene
from kp.data.synthetic.textures import contrasting, fractal, grating, voronoi
from kp.geometry.coords import Size

_MIN_STROKE = 3.0  # pixels: the ends of shorter strokes are not marked
_MIN_WINDOW_CELL = 16  # pixels: smallest width of a cell with a window
_MIN_PANE = 5.0  # pixels: smallest width of a pane with its rim


def grain(size: Size, draw: Draw) -> Scene:
    """Fractal noise of a random spectrum, with or without a direction, plain or made into veins, blots and cracks."""
    along = torch.stack([draw.uniform(0.25, 1), torch.ones(draw.batch, device=draw.device)], dim=1)
    noise = fractal(size, draw, draw.uniform(1, 3), along)
    style = draw.integer(0, 3)
    if style == 1:
        noise = torch.tanh(noise * draw.uniform(1, 6, 1, 1, 1))
    elif style == 2:
        noise = 2 - 4 * torch.exp(-noise.abs() * draw.uniform(2, 8, 1, 1, 1))
    elif style == 3:
        noise = noise + 0.7 * grating(size, draw, 6, min(size) / 3)
    contrast = draw.uniform(0.05, 0.25, 1, 1, 1)
    return Canvas(draw.uniform(0.25, 0.75, 1, 1, 1) + contrast * noise, ignored=True).scene()


def cells(size: Size, draw: Draw) -> Scene:
    """Cells of uneven tone, with or without joints, like pebbles, scales or dry mud."""
    side = draw.integer(10, max(11, min(size) // 5))
    border, tone = voronoi(size, draw, side)
    image = draw.uniform(0.3, 0.7, 1, 1, 1) + (tone - 0.5) * draw.uniform(0.1, 0.8, 1, 1, 1)
    joint = torch.sigmoid((draw.uniform(0.02, 0.12, 1, 1, 1) * side - border) * draw.uniform(0.5, 3, 1, 1, 1))
    image = image - joint * draw.uniform(-0.4, 0.6, 1, 1, 1)
    if draw.integer(0, 1):  # rounded, like pebbles
        image = image + 0.5 * ((border / side).clamp(max=0.4) - 0.2)
    return Canvas(image + 0.05 * fractal(size, draw, draw.uniform(0.5, 2)), ignored=True).scene()


def bricks(size: Size, draw: Draw) -> Scene:
    """A wall of bricks; every other row is shifted by half a brick. Corners are the vertices of the bricks."""
    height = draw.integer(10, max(11, min(size) // 8))
    width = round(height * draw.integer(12, 35) / 10)
    canvas, joints = _grainy_ground(size, draw, 0.07)
    grainy = fractal(size, draw, draw.uniform(0.5, 2.5)) * draw.uniform(0, 0.07, 1, 1, 1)
    tone, deviation = contrasting(draw, joints, 1), draw.uniform(0, 0.12, 1)
    start = draw.integer(0, 2 * height - 1), draw.integer(0, width - 1)
    for half in (0, 1):
        offset = (start[0] + half * height) % (2 * height), (start[1] + half * width // 2) % width
        lattice = Cells(size, (2 * height, width), offset)
        joint = draw.uniform(0.5, 2.5, 1, 1, 2)
        outline = _rectangles(lattice, joint, torch.tensor([width, height], device=draw.device) - joint, draw, 0.6)
        tones = (tone + deviation * draw.normal(lattice.count)).clamp(0.02, 0.98)
        _paint_cells(canvas, lattice, outline, lattice.expand(tones) + grainy)
    return canvas.scene()


def windows(size: Size, draw: Draw) -> Scene:
    """A wall with rows of windows. Corners are those of their frames and panes."""
    width = draw.integer(max(_MIN_WINDOW_CELL, min(size) // 10), max(_MIN_WINDOW_CELL, min(size) // 4))
    lattice = Cells(size, (round(width * draw.integer(8, 18) / 10), width), (draw.integer(0, 9), draw.integer(0, 9)))
    canvas, wall = _grainy_ground(size, draw, 0.08)
    whole = torch.tensor([width, lattice.cell[0]], device=draw.device)
    low = draw.uniform(0.12, 0.3, 1, 1, 2) * whole
    high = whole - draw.uniform(0.12, 0.3, 1, 1, 2) * whole
    frame = lattice.expand(contrasting(draw, wall, 1).expand(-1, lattice.count))
    _paint_cells(canvas, lattice, _rectangles(lattice, low, high, draw, 0.0), frame)
    narrowest = 0.4 * 0.8 * width  # of a frame: margins leave 0.4 of a cell; its height is at least 0.8 width
    max_panes = max(1, min(3, int(narrowest / _MIN_PANE)))
    rows, columns = draw.integer(1, max_panes), draw.integer(1, max_panes)
    rim = draw.uniform(1.5, 3.5, 1, 1, 1).clamp(max=narrowest / max_panes / 4)  # leaves at least half of a pane
    pane = (high - low - rim) / torch.tensor([columns, rows], device=draw.device)
    glass = draw.uniform(0, 1, 1)
    for row in range(rows):
        for column in range(columns):
            first = low + rim + pane * torch.tensor([column, row], device=draw.device)
            outline = _rectangles(lattice, first, first + pane - rim, draw, 0.0)
            tones = (glass + 0.12 * draw.normal(lattice.count)).clamp(0, 1)
            _paint_cells(canvas, lattice, outline, lattice.expand(tones))
    return canvas.scene()


def text(size: Size, draw: Draw) -> Scene:
    """A page of invented letters, printed or handwritten. Corners are ends and joints of the strokes."""
    height = draw.integer(10, max(11, min(size) // 8))
    lattice = Cells(size, (round(1.4 * height), round(0.75 * height)), (draw.integer(0, 8), draw.integer(0, 5)))
    paper, ink = draw.uniform(0.6, 1, 1, 1, 1), draw.uniform(0, 0.35, 1, 1, 1)
    paper, ink = (ink, paper) if draw.integer(0, 3) == 0 else (paper, ink)
    canvas = Canvas((paper + 0.02 * fractal(size, draw, draw.uniform(1, 3))).clamp(0, 1))
    width = (height * draw.uniform(0.08, 0.16, 1)).clamp(min=1.2)  # of the pen
    joints = _letters(lattice, height, by_hand=bool(draw.integer(0, 1)), draw=draw)
    reach = F.normalize(joints.diff(dim=2), dim=-1) * width[..., None, None] / 2  # square caps
    start, end = joints[:, :, :-1] - reach, joints[:, :, 1:] + reach
    outlines = stroke_outline(start, end, width[..., None].expand(start.shape[:3]))
    written = draw.uniform(0, 1, lattice.count) < 0.82
    cover = torch.zeros(draw.batch * lattice.count, *lattice.cell, device=draw.device)
    for outline in outlines.flatten(0, 1).unbind(1):
        torch.maximum(cover, polygon_coverage(outline, lattice.cell), out=cover)
    change = canvas.paint(lattice.tile(cover * written.view(-1, 1, 1)), ink)
    _mark_letters(canvas, lattice, joints, start[:, :, 0], end[:, :, -1], written, change)
    return canvas.scene()


def _letters(lattice: Cells, height: int, by_hand: bool, draw: Draw) -> Tensor:
    """The joints (B, count, 5, 2) of letters of four strokes, in pixels of a cell. Some strokes have no length."""
    columns, rows = (draw.uniform(0, n, lattice.count, 5).floor() / (n - 1) for n in (2, 3))
    joints = torch.stack([columns, rows], dim=-1)
    joints = joints + 0.1 * by_hand * draw.normal(lattice.count, 5, 2)
    room = torch.tensor([0.55 * height, height], device=draw.device) - 4
    return 2.5 + joints * room


def _mark_letters(
    canvas: Canvas, lattice: Cells, joints: Tensor, first: Tensor, last: Tensor, written: Tensor, change: Tensor
) -> None:
    """Mark both ends (B, count, 2) of every letter, and the joints where its direction changes."""
    origins = lattice.origins(joints)
    strokes = joints.diff(dim=2)  # (B, count, 4, 2)
    length = strokes.norm(dim=-1)
    turned = torch.cosine_similarity(strokes[:, :, :-1], strokes[:, :, 1:], dim=-1).abs() < 0.9
    turns = turned & (length[:, :, :-1] > _MIN_STROKE) & (length[:, :, 1:] > _MIN_STROKE) & written[..., None]
    canvas.mark((joints[:, :, 1:-1] + origins[:, None]).flatten(1, 2), Kind.LINE_CROSSING, turns.flatten(1), change)
    for end, stroke in ((first, 0), (last, -1)):
        canvas.mark(end + origins, Kind.END, written & (length[:, :, stroke] > _MIN_STROKE), change)


def noise(size: Size, draw: Draw) -> Scene:
    """Noise on an uneven ground: no corners."""
    ground = draw.uniform(0.2, 0.8, 1, 1, 1) + draw.uniform(0, 0.15, 1, 1, 1) * fractal(size, draw, draw.uniform(3, 5))
    image = ground + draw.uniform(0, 0.2, 1, 1, 1).square() * 5 * draw.normal(1, *size)
    return Canvas(image.clamp(0, 1)).scene()


def _grainy_ground(size: Size, draw: Draw, max_contrast: float) -> tuple[Canvas, Tensor]:
    """A canvas of one tone with grain on it, and the tone (B,). ``max_contrast``: largest contrast of the grain."""
    grainy = fractal(size, draw, draw.uniform(0.5, 2.5)) * draw.uniform(0, max_contrast, 1, 1, 1)
    tone = draw.uniform(0.1, 0.9)
    return Canvas((tone.view(-1, 1, 1, 1) + grainy).clamp(0, 1), ignored=True), tone


def _rectangles(lattice: Cells, low: Tensor, high: Tensor, draw: Draw, jitter: float) -> Tensor:
    """Rectangles (B, count, 4, 2) from ``low`` to ``high`` (B, 1, 1, 2), in pixels of a cell.

    ``jitter``: pixels by which each vertex is moved at random.
    """
    corners = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]], device=draw.device)
    flat = low + corners * (high - low) - 0.5
    return flat.expand(-1, lattice.count, -1, -1) + jitter * draw.uniform(-1, 1, lattice.count, 4, 2)


def _paint_cells(canvas: Canvas, lattice: Cells, outlines: Tensor, fill: Tensor) -> None:
    """Paint a polygon (B, count, 4, 2) in each cell with ``fill`` (B, 1, H, W), and mark its vertices."""
    cover = lattice.tile(polygon_coverage(outlines.flatten(0, 1), lattice.cell))
    change = canvas.paint(cover, fill, ignored=True)
    canvas.mark((outlines + lattice.origins(outlines)[:, None]).flatten(1, 2), Kind.VERTEX, change=change)
