"""Dead leaves: opaque shapes of every size fall on one another, and the picture has the statistics of photographs.

Shapes whose number falls as the cube of their radius make images that look alike at every scale, with the spectra and
the sparse gradients of natural images (Lee, Mumford and Huang, IJCV 2001). One lattice of cells for each octave of
sizes, each cell with one leaf, has just that law: half the side, four times as many.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.data.synthetic.random import Draw
from kp.data.synthetic.raster import Cells, convex_polygons, ellipse_coverage, polygon_coverage
from kp.data.synthetic.scene import Canvas, Kind, Scene
from kp.data.synthetic.textures import fractal, grating, voronoi
from kp.geometry.coords import Size

_OCTAVES = (1, 2, 4, 8, 16)  # cells of a layer along the short side
_FINE = 8  # cells along the short side from which leaves lie in drifts, and bare ground between
_SMALLEST = 12  # pixels: side of a cell; smaller leaves are no more than grain
_ROUNDS = 2  # times that leaves of every size fall
_SHADOW = 0.25  # of a leaf's radius: how far its shadow may reach beyond it
_SHARP = 2.5  # pixels: an edge that takes more makes no corner
_TINY = 5.0  # pixels: the corners of a leaf of a smaller radius are not told apart
_TEXTURED = 0.04  # of the grey range: a texture so strong has corners of its own


@dataclass(frozen=True)
class Leaf:
    """How the leaves of a layer look."""

    elongation: float = 1.0  # length over width, beside a shape's own
    dark: Tensor | float = 0.02  # tones, in [0, 1]: one for all or (B, 1)
    light: Tensor | float = 0.98
    smallest: float = 0.35  # radius over the largest that a cell can hold
    density: float = 0.85  # share of cells that have a leaf
    drifts: bool = False  # whether half of the canvas is left bare
    shadow: float = 0.0  # share of the light taken, at most


def leaves(size: Size, draw: Draw) -> Scene:
    """Polygons and ellipses of every size, flat, shaded or textured, with sharp and soft edges and shadows."""
    uneven = draw.uniform(0, 0.15, 1, 1, 1) * fractal(size, draw, draw.uniform(1.8, 3.5))
    canvas = Canvas(draw.uniform(0.1, 0.9, 1, 1, 1) + uneven, ignored=True)
    textures = texture_bank(size, draw)
    dark, light = draw.uniform(0, 0.4, 1), draw.uniform(0.5, 1, 1)
    for _ in range(_ROUNDS):
        for octave in draw.shuffled([n for n in _OCTAVES if min(size) // n >= _SMALLEST]):
            fine = octave >= _FINE
            leaf = Leaf(dark=dark, light=light, drifts=fine, shadow=0.0 if fine else 0.5)
            drop(canvas, min(size) // octave, textures, leaf, draw)
    return canvas.scene()


def foliage(size: Size, draw: Draw) -> Scene:
    """Slender leaves of about one size, darker the deeper they lie, on a dark ground."""
    ground = draw.uniform(0.02, 0.3, 1, 1, 1) + 0.06 * fractal(size, draw, draw.uniform(1, 2))
    canvas = Canvas(ground, ignored=True)
    textures = texture_bank(size, draw)
    slender, side = draw.integer(15, 40) / 10, draw.integer(min(size) // 10, min(size) // 3)
    for depth in range(12):
        light = 0.25 + 0.06 * depth
        leaf = Leaf(slender, light - 0.2, light + 0.12, smallest=0.6, density=0.95, shadow=0.5)
        drop(canvas, max(_SMALLEST, round(side * draw.integer(70, 130) / 100)), textures, leaf, draw)
    return canvas.scene()


def texture_bank(size: Size, draw: Draw) -> list[Tensor]:
    """Maps (B, 1, H, W) of about unit deviation that leaves may wear."""
    fine, broad = (fractal(size, draw, draw.uniform(*slopes)) for slopes in ((0.3, 1.5), (1.5, 3)))
    border, tone = voronoi(size, draw, draw.integer(6, max(7, min(size) // 12)))
    return [broad, fine, 3 * (tone - 0.5), (border < 1).float() * -2 + fine / 4, grating(size, draw)]


def drop(canvas: Canvas, side: int, textures: list[Tensor], leaf: Leaf, draw: Draw) -> None:
    """Let a layer of leaves fall, one in most cells of ``side`` pixels."""
    cells = Cells(canvas.size, (side, side), (draw.integer(0, side - 1), draw.integer(0, side - 1)))
    layer = _Layer(cells, leaf, draw)
    if leaf.shadow and draw.integer(0, 1):
        depth = draw.uniform(0, leaf.shadow, cells.count).view(-1, 1, 1)
        canvas.shade(cells.tile(layer.shadow() * depth))
    fill, ignored = _fill(cells, textures, leaf, draw)
    change = canvas.paint(cells.tile(layer.cover()), fill, ignored)
    if layer.outline is not None:
        corners = layer.outline + cells.origins(layer.outline)[:, None]
        seen = layer.present & (layer.soft < _SHARP) & (layer.radius > _TINY)
        meant = layer.meant & seen[..., None]
        canvas.mark(corners.flatten(1, 2), Kind.VERTEX, meant.flatten(1), change)


class _Layer:
    """Leaves of one layer, in the coordinates of their cells: all ellipses (``outline`` None), or all polygons."""

    def __init__(self, cells: Cells, leaf: Leaf, draw: Draw) -> None:
        n, half = cells.count, cells.cell[0] / 2
        self.cells = cells
        self.present = draw.uniform(0, 1, n) < leaf.density
        if leaf.drifts:
            self.present = self.present & (draw.field(cells.shape, (4, 4)).flatten(1) > 0.1)
        self.soft = 1 + draw.uniform(-6, min(4, half / 6), n).clamp(min=0)  # most edges are sharp
        reach = 1 + leaf.shadow * _SHADOW  # a leaf and its shadow in radii
        self.radius = ((half - self.soft) / reach - 1) * draw.uniform(leaf.smallest, 1, n)
        room = half - self.soft / 2 - 0.5 - self.radius * reach
        self.centre = half - 0.5 + room[..., None] * draw.uniform(-1, 1, n, 2)  # (B, n, 2)
        self.away = F.normalize(draw.normal(1, 2), dim=-1) * self.radius[..., None] * _SHADOW / 2  # from the light
        self.turn = draw.uniform(0, torch.pi, n)
        self.flat = draw.uniform(0.5, 1, n) / leaf.elongation
        self.outline = self.meant = None
        if draw.integer(0, 3):
            self.outline, self.meant = convex_polygons(self.radius, draw, leaf.elongation)
            self.outline = self.outline + self.centre[:, :, None]

    def cover(self) -> Tensor:
        """The share (B * n, h, w) of each pixel that the leaves hide."""
        return self._cover(torch.zeros_like(self.away), self.soft)

    def shadow(self) -> Tensor:
        """The share (B * n, h, w) of each pixel that lies in their shadows, softer the larger the leaf."""
        return self._cover(self.away, (self.radius / 4).clamp(min=1))

    def _cover(self, shift: Tensor, softness: Tensor) -> Tensor:
        """Moved by ``shift`` (B, n, 2) pixels, with edges ``softness`` (B, n) pixels wide."""
        if self.outline is None:
            axes = torch.stack([self.radius, self.radius * self.flat], dim=-1)
            shape = ((self.centre + shift).flatten(0, 1), axes.flatten(0, 1), self.turn.flatten())
            cover = ellipse_coverage(*shape, self.cells.cell, softness.flatten())
        else:
            outline = (self.outline + shift[:, :, None]).flatten(0, 1)
            cover = polygon_coverage(outline, self.cells.cell, softness.flatten())
        return cover * self.present.view(-1, 1, 1)


def _fill(cells: Cells, textures: list[Tensor], leaf: Leaf, draw: Draw) -> tuple[Tensor, Tensor]:
    """What the leaves of a layer wear (B, 1, H, W): a tone, a gradient, a texture; and where that is a texture."""
    n, side = cells.count, cells.cell[0]
    tone = leaf.dark + (leaf.light - leaf.dark) * draw.uniform(0, 1, n)
    slope = draw.uniform(-0.3, 0.3, n, 2) * (draw.uniform(0, 1, n, 1) < 0.4) / side  # grey range a pixel
    here = torch.arange(side, device=draw.device) - (side - 1) / 2
    flat = tone.view(-1, 1, 1) + (slope[..., :1] * here).view(-1, 1, side) + (slope[..., 1:] * here).view(-1, side, 1)
    share = draw.uniform(-0.15, 0.15, n) * (draw.uniform(0, 1, n) < 0.4)
    texture = textures[draw.integer(0, len(textures) - 1)]
    texture = texture.roll((draw.integer(0, 99), draw.integer(0, 99)), (2, 3))
    return cells.tile(flat).addcmul(cells.expand(share), texture), cells.expand(share.abs() > _TEXTURED)
