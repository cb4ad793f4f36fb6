"""Scenes: images made of layers that are painted in order. The canvas records what remains visible of each layer.

A corner that a later layer hides is not a corner of the scene. Where the outlines of two layers cross, the image has a
junction. It is not a fixed point of the world, so the losses ignore it: it is neither a corner nor background.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.geometry.coords import inside, sample_at

_MIN_COVER = 0.02  # share of a pixel from which a layer counts as present in it
_FULL_COVER = 0.98  # share of a pixel from which a layer hides everything below it
_CORNER_WINDOW = 3  # pixels, odd: side of the square around a corner that a later layer must not touch
_JUNCTION_WINDOW = 9  # pixels, odd: side of the square around a junction that is ignored
_RING_RADIUS = 2.5  # pixels: the contrast of a corner is measured on this circle around it
_MIN_CONTRAST = 0.08  # of the grey range: noise hides a corner of less contrast


class Kind(IntEnum):
    """The kind of a corner."""

    NONE = 0
    VERTEX = 1  # two edges of a polygon meet
    CROSSING = 2  # two lines of a board cross
    END = 3  # the axis of a stroke ends
    LINE_CROSSING = 4  # the axes of two strokes cross or meet


@dataclass(frozen=True)
class Scene:
    """Grey images and their corners.

    ``image``: (B, 1, H, W) in [0, 1]. ``corners``: (B, K, 2) in pixels. ``kinds``: (B, K), NONE where an entry is not a
    corner. ``ignore``: (B, 1, H, W) bool, pixels for which it is unknown whether they are a corner: junctions of two
    layers, and textures.
    """

    image: Tensor
    corners: Tensor
    kinds: Tensor
    ignore: Tensor

    @property
    def corner_mask(self) -> Tensor:
        """True (B, K) for the entries that are corners."""
        return self.kinds != Kind.NONE


class Canvas:
    """Images (B, 1, H, W) to paint layers on, from the lowest layer to the highest.

    Args:
        ground: the lowest layer (B, 1, H, W).
        ignored: where the ground is a texture, whose corners are unknown: bool, (B, 1, 1, 1) or (B, 1, H, W).
    """

    def __init__(self, ground: Tensor, ignored: Tensor | bool = False) -> None:
        self.image = ground.clone()
        self.layer = 0
        self._last = torch.zeros_like(ground)  # number of the last layer in a pixel
        self._outline, self._junction = (torch.zeros_like(ground, dtype=torch.bool) for _ in range(2))
        self._unknown = torch.as_tensor(ignored, device=ground.device).expand_as(ground).clone()
        self._corners: list[tuple[Tensor, Tensor, int]] = []

    def shade(self, share: Tensor) -> None:
        """Multiply the images by 1 - ``share`` (B, 1, H, W), as a cast shadow does."""
        self.image.addcmul_(self.image, share, value=-1)

    def paint(self, cover: Tensor, fill: Tensor, ignored: Tensor | bool = False) -> Tensor:
        """Paint a layer; returns by how much each pixel changed (B, 1, H, W).

        Args:
            cover: share of each pixel that the layer covers (B, 1, H, W).
            fill: grey of the layer, (B, 1, H, W) or (B, 1, 1, 1).
            ignored: where the layer is a texture: bool, of the same shapes.
        """
        self.layer += 1
        change = (fill - self.image).mul_(cover)
        self.image.add_(change)
        present, below = cover > _MIN_COVER, cover <= _FULL_COVER  # below: lower layers remain visible
        edge = present & below
        self._junction = (self._junction & below) | (edge & self._outline)
        self._outline = (self._outline & below) | edge
        self._unknown = (self._unknown & below) | (present & ignored)
        self._last.masked_fill_(present, self.layer)
        return change

    def mark(self, corners: Tensor, kind: Kind, mask: Tensor | None = None, change: Tensor | None = None) -> None:
        """Record corners (B, K, 2), in pixels, of the layer painted last.

        Args:
            mask: the entries (B, K) that are corners; None: all. Corners outside the image are dropped.
            change: what :meth:`paint` returned. Corners near which the layer changed little are dropped.
        """
        mask = inside(corners, self.size) if mask is None else mask & inside(corners, self.size)
        if change is not None:
            mask = mask & (_ring_values(change.abs(), corners).amax(-1) > _MIN_CONTRAST)
        self._corners.append((corners, torch.where(mask, int(kind), 0), self.layer))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return tuple(self.image.shape[-2:])

    def scene(self) -> Scene:
        """The finished images and their visible corners."""
        image = self.image.clamp(0, 1)
        ignore = self._unknown | (max_filter(self._junction.float(), _JUNCTION_WINDOW) > 0)
        if not self._corners:
            return Scene(image, image.new_zeros(len(image), 0, 2), image.new_zeros(len(image), 0).long(), ignore)
        corners = torch.cat([corners for corners, _, _ in self._corners], dim=1)
        kinds = torch.cat([kinds for _, kinds, _ in self._corners], dim=1)
        layers = torch.cat([torch.full_like(kinds, layer) for _, kinds, layer in self._corners], dim=1)
        last = max_filter(self._last, _CORNER_WINDOW)
        kinds = kinds * (sample_at(last, corners, mode="nearest")[:, 0] <= layers)
        corners, kinds = pack(corners, kinds)
        around = _ring_values(image, corners)
        return Scene(image, corners, kinds * (around.amax(-1) - around.amin(-1) > _MIN_CONTRAST), ignore)


def max_filter(maps: Tensor, side: int) -> Tensor:
    """The largest value (B, 1, H, W) in the square of ``side`` pixels (odd) around each pixel of ``maps``."""
    maps = F.pad(maps, [side // 2] * 4, mode="replicate")
    for axis in (-2, -1):
        run = 1  # pixels of which ``maps`` holds the maximum; doubling it is much faster than max_pool2d
        while run < side:
            step = min(run, side - run)
            later = maps.narrow(axis, step, maps.shape[axis] - step)
            maps = torch.maximum(maps.narrow(axis, 0, later.shape[axis]), later)
            run += step
    return maps


def pack(corners: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """The same corners (B, K, 2) and kinds (B, K), with the smallest K: the number of corners of the richest image."""
    real = kinds != Kind.NONE
    order = real.sort(dim=1, descending=True, stable=True).indices[:, : max(1, int(real.sum(1).max()))]
    return corners.gather(1, order[..., None].expand(-1, -1, 2)), kinds.gather(1, order)


def _ring_values(image: Tensor, points: Tensor) -> Tensor:
    """The grey values (B, K, 12) of images (B, 1, H, W) on a circle around points (B, K, 2)."""
    angles = torch.arange(12, device=image.device) * (torch.pi / 6)
    ring = _RING_RADIUS * torch.stack([angles.cos(), angles.sin()], dim=-1)
    around = (points[:, :, None] + ring).flatten(1, 2).clamp(min=0)  # (B, K * 12, 2)
    height, width = image.shape[-2:]
    around = torch.minimum(around, around.new_tensor([width - 1.0, height - 1.0]))
    return sample_at(image, around, mode="nearest")[:, 0].view(*points.shape[:2], len(ring))
