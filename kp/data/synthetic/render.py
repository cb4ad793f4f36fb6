"""Synthetic images and their exact corners, rendered in batched torch on the device of the generator.

A family is a function of (size, draw) that returns a :class:`kp.data.synthetic.scene.Scene`. A mixture draws a family
for each image.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.config import WorldSettings
from kp.data.synthetic import dead_leaves, shapes, surfaces
from kp.data.synthetic.random import Draw
from kp.data.synthetic.raster import convex_polygons, polygon_coverage, random_points
from kp.data.synthetic.scene import Canvas, Kind, Scene, max_filter
from kp.geometry.coords import Size, sample_at

CLASSIC = ("checkerboard", "cube", "star", "lines", "stripes", "polygon", "polygons", "ellipses")
PLANES = ("grain", "cells", "bricks", "windows", "text")
LEAVES = ("leaves", "foliage")


def collage(size: Size, draw: Draw) -> Scene:
    """Two families side by side: polygons cut out of an image of one lie on an image of the other."""
    below, above = (FAMILIES[name](size, draw) for name in draw.shuffled(PLANES + LEAVES)[:2])
    canvas = Canvas(below.image, below.ignore)
    _mark_all(canvas, below, below.corner_mask)
    outlines, are_corners = convex_polygons(min(size) * draw.uniform(0.2, 0.5, 4), draw)
    outlines = outlines + random_points(size, draw, 4, 1)
    for outline, corners in zip(outlines.unbind(1), are_corners.unbind(1), strict=True):
        cover = polygon_coverage(outline, size)[:, None]
        change = canvas.paint(cover, above.image, above.ignore)
        canvas.mark(outline, Kind.VERTEX, corners, change)
        interior = -max_filter(-cover, 5)
        _mark_all(canvas, above, sample_at(interior, above.corners, mode="nearest")[:, 0] > 0.98)
    return canvas.scene()


def _mark_all(canvas: Canvas, scene: Scene, mask: Tensor) -> None:
    """Mark the corners ``mask`` (B, K) of a scene that was painted as one layer."""
    for kind in scene.kinds.unique().tolist():
        canvas.mark(scene.corners, Kind(kind), mask & (scene.kinds == kind))


FAMILIES: dict[str, Callable[[Size, Draw], Scene]] = {
    name: getattr(module, name)
    for module, names in ((shapes, CLASSIC), (dead_leaves, LEAVES), (surfaces, (*PLANES, "noise")))
    for name in names
} | {"collage": collage}


def parse_mixture(families: Iterable[str]) -> dict[str, float]:
    """The weight of each family of a mixture, by name.

    Args:
        families: ``name`` or ``name=weight``. ``classic`` and ``planes`` are groups; the families of a group get equal
            parts of its weight.

    Raises:
        ValueError: an unknown family, or a weight that is not a number from 0.
    """
    weights: dict[str, float] = {}
    for entry in families:
        name, _, weight = entry.partition("=")
        members = {"classic": CLASSIC, "planes": PLANES}.get(name, (name,))
        if not set(members) <= set(FAMILIES):
            raise ValueError(f"unknown family {name}; there are classic, planes, {', '.join(FAMILIES)}")
        try:
            share = float(weight or 1)
        except ValueError:
            share = -1.0
        if not 0 <= share < float("inf"):
            raise ValueError(f"{entry}: the weight of a family is a number from 0")
        for member in members:
            weights[member] = weights.get(member, 0.0) + share / len(members)
    if not sum(weights.values()):
        raise ValueError("a mixture needs a family with a weight above 0")
    return weights


def render(batch: int, size: Size, generator: torch.Generator, families: Iterable[str] | None = None) -> Scene:
    """A batch of B scenes of this ``size`` (H, W), each of one random family.

    All corners are visible: inside the image, not hidden by a later layer, and of enough contrast.

    Args:
        generator: source of all draws; its device is the device of the scenes.
        families: a mixture, see :func:`parse_mixture`. None: the default of :class:`kp.config.WorldSettings`.

    Raises:
        ValueError: the mixture is wrong.
    """
    weights = parse_mixture(WorldSettings().families if families is None else families)
    shares = torch.tensor(list(weights.values()), device=generator.device)
    drawn = torch.multinomial(shares, batch, replacement=True, generator=generator)
    counts = drawn.bincount(minlength=len(weights)).tolist()
    parts = [FAMILIES[name](size, Draw(n, generator)) for name, n in zip(weights, counts, strict=True) if n]
    order = torch.randperm(batch, generator=generator, device=generator.device)
    places = max(part.kinds.shape[1] for part in parts)
    corners = torch.cat([F.pad(part.corners, (0, 0, 0, places - part.kinds.shape[1])) for part in parts])[order]
    kinds = torch.cat([F.pad(part.kinds, (0, places - part.kinds.shape[1]), value=Kind.NONE) for part in parts])[order]
    image, ignore = (torch.cat([getattr(part, name) for part in parts])[order] for name in ("image", "ignore"))
    return Scene(image, corners, kinds, ignore)
