"""Dead leaves: opaque shapes of every size cover one another. The image has the statistics of photographs.

If the number of shapes falls with the cube of their radius, images look alike at every scale. They have the spectra
and the sparse gradients of natural images (Lee, Mumford and Huang, IJCV 2001). One lattice of cells for each octave of
sizes, with one leaf in each cell, follows this law: leaves of half the size are four times as many.
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
_PATCHY_CELLS = 8  # cells along the short side from which leaves lie in patches, with bare ground between
_MIN_CELL = 12  # pixels: smallest side of a cell; smaller leaves would be noise
_ROUNDS = 2  # layers of each size
_SHADOW_REACH = 0.25  # radii of a leaf: how far its shadow reaches beyond it at most
_MAX_CORNER_SOFTNESS = 2.5  # pixels: wider edges have no corners
_MIN_CORNER_RADIUS = 5.0  # pixels: the corners of smaller leaves are too close to each other
_MIN_TEXTURE = 0.04  # of the grey range: a stronger texture has corners of its own, which are unknown


@dataclass(frozen=True)
class Leaf:
    """The look of the leaves of a layer."""

    elongation: float = 1.0  # factor of length over width, beside that of the shape
    dark: Tensor | float = 0.02  # darkest tone, in [0, 1]: a number or (B, 1)
    light: Tensor | float = 0.98  # lightest tone, likewise
    smallest: float = 0.35  # smallest radius, as a share of the largest that fits in a cell
    density: float = 0.85  # share of cells that have a leaf
    patchy: bool = False  # leave about half of the canvas bare
    shadow: float = 0.0  # largest share of light that a shadow takes


def leaves(size: Size, draw: Draw) -> Scene:
    """Polygons and ellipses of every size: flat, shaded or textured, with sharp or soft edges, and shadows."""
    uneven = draw.uniform(0, 0.15, 1, 1, 1) * fractal(size, draw, draw.uniform(1.8, 3.5))
    canvas = Canvas(draw.uniform(0.1, 0.9, 1, 1, 1) + uneven, ignored=True)
    textures = texture_bank(size, draw)
    dark, light = draw.uniform(0, 0.4, 1), draw.uniform(0.5, 1, 1)
    for _ in range(_ROUNDS):
        for octave in draw.shuffled([n for n in _OCTAVES if min(size) // n >= _MIN_CELL]):
            fine = octave >= _PATCHY_CELLS
            leaf = Leaf(dark=dark, light=light, patchy=fine, shadow=0.0 if fine else 0.5)
            add_layer(canvas, min(size) // octave, textures, leaf, draw)
    return canvas.scene()


def foliage(size: Size, draw: Draw) -> Scene:
    """Narrow leaves of similar size on a dark ground. Lower leaves are darker."""
    ground = draw.uniform(0.02, 0.3, 1, 1, 1) + 0.06 * fractal(size, draw, draw.uniform(1, 2))
    canvas = Canvas(ground, ignored=True)
    textures = texture_bank(size, draw)
    slender, side = draw.integer(15, 40) / 10, draw.integer(min(size) // 10, min(size) // 3)
    for depth in range(12):
        light = 0.25 + 0.06 * depth
        leaf = Leaf(slender, light - 0.2, light + 0.12, smallest=0.6, density=0.95, shadow=0.5)
        add_layer(canvas, max(_MIN_CELL, round(side * draw.integer(70, 130) / 100)), textures, leaf, draw)
    return canvas.scene()


def texture_bank(size: Size, draw: Draw) -> list[Tensor]:
    """Texture maps (B, 1, H, W) for leaves, of standard deviation about 1."""
    fine, broad = (fractal(size, draw, draw.uniform(*slopes)) for slopes in ((0.3, 1.5), (1.5, 3)))
    border, tone = voronoi(size, draw, draw.integer(6, max(7, min(size) // 12)))
    return [broad, fine, 3 * (tone - 0.5), (border < 1).float() * -2 + fine / 4, grating(size, draw)]


def add_layer(canvas: Canvas, side: int, textures: list[Tensor], leaf: Leaf, draw: Draw) -> None:
    """Paint a layer of leaves, one in most cells of ``side`` pixels, and mark their corners."""
    cells = Cells(canvas.size, (side, side), (draw.integer(0, side - 1), draw.integer(0, side - 1)))
    layer = _Layer(cells, leaf, draw)
    if leaf.shadow and draw.integer(0, 1):
        depth = draw.uniform(0, leaf.shadow, cells.count).view(-1, 1, 1)
        canvas.shade(cells.tile(layer.shadow() * depth))
    fill, ignored = _fill(cells, textures, leaf, draw)
    change = canvas.paint(cells.tile(layer.cover()), fill, ignored)
    if layer.outline is not None:
        corners = layer.outline + cells.origins(layer.outline)[:, None]
        visible = layer.present & (layer.soft < _MAX_CORNER_SOFTNESS) & (layer.radius > _MIN_CORNER_RADIUS)
        corner_mask = layer.is_corner & visible[..., None]
        canvas.mark(corners.flatten(1, 2), Kind.VERTEX, corner_mask.flatten(1), change)


class _Layer:
    """The leaves of one layer, in pixels of their cells: all ellipses (then ``outline`` is None), or all polygons."""

    def __init__(self, cells: Cells, leaf: Leaf, draw: Draw) -> None:
        n, half = cells.count, cells.cell[0] / 2
        self.cells = cells
        self.present = draw.uniform(0, 1, n) < leaf.density
        if leaf.patchy:
            self.present = self.present & (draw.field(cells.shape, (4, 4)).flatten(1) > 0.1)
        self.soft = 1 + draw.uniform(-6, min(4, half / 6), n).clamp(min=0)  # most edges are sharp
        reach = 1 + leaf.shadow * _SHADOW_REACH  # of a leaf with its shadow, in radii
        self.radius = ((half - self.soft) / reach - 1) * draw.uniform(leaf.smallest, 1, n)
        room = half - self.soft / 2 - 0.5 - self.radius * reach
        self.centre = half - 0.5 + room[..., None] * draw.uniform(-1, 1, n, 2)  # (B, n, 2)
        self.shadow_shift = (
            F.normalize(draw.normal(1, 2), dim=-1) * self.radius[..., None] * _SHADOW_REACH / 2
        )  # direction of the shadow
        self.turn = draw.uniform(0, torch.pi, n)
        self.flat = draw.uniform(0.5, 1, n) / leaf.elongation
        self.outline = self.is_corner = None
        if draw.integer(0, 3):
            self.outline, self.is_corner = convex_polygons(self.radius, draw, leaf.elongation)
            self.outline = self.outline + self.centre[:, :, None]

    def cover(self) -> Tensor:
        """The share (B * n, h, w) of each pixel that the leaves cover."""
        return self._cover(torch.zeros_like(self.shadow_shift), self.soft)

    def shadow(self) -> Tensor:
        """The share (B * n, h, w) of each pixel that their shadows cover. Larger leaves have softer shadows."""
        return self._cover(self.shadow_shift, (self.radius / 4).clamp(min=1))

    def _cover(self, shift: Tensor, softness: Tensor) -> Tensor:
        """The cover (B * n, h, w) of the leaves, moved by ``shift`` (B, n, 2) pixels, edges ``softness`` wide."""
        if self.outline is None:
            axes = torch.stack([self.radius, self.radius * self.flat], dim=-1)
            shape = ((self.centre + shift).flatten(0, 1), axes.flatten(0, 1), self.turn.flatten())
            cover = ellipse_coverage(*shape, self.cells.cell, softness.flatten())
        else:
            outline = (self.outline + shift[:, :, None]).flatten(0, 1)
            cover = polygon_coverage(outline, self.cells.cell, softness.flatten())
        return cover * self.present.view(-1, 1, 1)


def _fill(cells: Cells, textures: list[Tensor], leaf: Leaf, draw: Draw) -> tuple[Tensor, Tensor]:
    """The grey of the leaves of a layer (B, 1, H, W): tone, gradient and texture. Second: where there is a texture."""
    n, side = cells.count, cells.cell[0]
    tone = leaf.dark + (leaf.light - leaf.dark) * draw.uniform(0, 1, n)
    slope = draw.uniform(-0.3, 0.3, n, 2) * (draw.uniform(0, 1, n, 1) < 0.4) / side  # grey per pixel
    here = torch.arange(side, device=draw.device) - (side - 1) / 2
    flat = tone.view(-1, 1, 1) + (slope[..., :1] * here).view(-1, 1, side) + (slope[..., 1:] * here).view(-1, side, 1)
    share = draw.uniform(-0.15, 0.15, n) * (draw.uniform(0, 1, n) < 0.4)
    texture = textures[draw.integer(0, len(textures) - 1)]
    texture = texture.roll((draw.integer(0, 99), draw.integer(0, 99)), (2, 3))
    return cells.tile(flat).addcmul(cells.expand(share), texture), cells.expand(share.abs() > _MIN_TEXTURE)
