"""A scene is a stack of layers painted in order; the canvas keeps account of what can still be seen of each.

What a later layer hides is no corner. Where the outline of a layer crosses the outline of one below, the image has a
junction that is not fixed in the world: it is neither a corner nor the lack of one.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.geometry.coords import inside, sample_at

_TOUCHED, _FULL = 0.02, 0.98  # coverage from which a layer changes a pixel, and from which it is all one sees
_HIDDEN_WITHIN = 3  # pixels, odd: side of the square about a corner that no later layer may touch
_IGNORED_WITHIN = 9  # pixels, odd: side of the square about a junction that is ignored
_RING = 2.5  # pixels around a corner where its contrast is looked for
_MIN_CONTRAST = 0.08  # of the grey range: a fainter corner drowns in the noise


class Kind(IntEnum):
    """What a corner is."""

    NONE = 0
    VERTEX = 1  # of a polygon: two edges meet
    CROSSING = 2  # of the lines of a board
    END = 3  # of a stroke: where its axis ends
    LINE_CROSSING = 4  # of two strokes: where their axes cross or meet


@dataclass(frozen=True)
class Scene:
    """Grey images (B, 1, H, W) in [0, 1] and what is known of their corners.

    ``corners`` (B, K, 2) in pixels and ``kinds`` (B, K), NONE where there is no corner. ``ignore`` (B, 1, H, W) bool:
    pixels, junctions of occlusion and textures, of which nobody knows whether they should be called a corner.
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
    """Images (B, 1, H, W) to paint on, from the ground up.

    ``ignored`` (B, 1, 1, 1) or a map says where the ground is a texture whose corners nobody knows.
    """

    def __init__(self, ground: Tensor, ignored: Tensor | bool = False) -> None:
        self.image = ground.clone()
        self.layer = 0
        self._last = torch.zeros_like(ground)  # the last layer that touched a pixel
        self._outline, self._junction = (torch.zeros_like(ground, dtype=torch.bool) for _ in range(2))
        self._unknown = torch.as_tensor(ignored, device=ground.device).expand_as(ground).clone()
        self._corners: list[tuple[Tensor, Tensor, int]] = []

    def shade(self, share: Tensor) -> None:
        """Take this share (B, 1, H, W) of the light, as a cast shadow does."""
        self.image.addcmul_(self.image, share, value=-1)

    def paint(self, cover: Tensor, fill: Tensor, ignored: Tensor | bool = False) -> Tensor:
        """Paint a layer that covers so much of each pixel (B, 1, H, W) with ``fill``, a map or (B, 1, 1, 1).

        ``ignored``, likewise, says where the layer is a texture. Returns how much each pixel has changed.
        """
        self.layer += 1
        change = (fill - self.image).mul_(cover)
        self.image.add_(change)
        touched, full = cover > _TOUCHED, cover > _FULL
        edge, hidden = touched & ~full, ~full
        self._junction = (self._junction & hidden) | (edge & self._outline)
        self._outline = (self._outline & hidden) | edge
        self._unknown = (self._unknown & hidden) | (touched & ignored)
        self._last.masked_fill_(touched, self.layer)
        return change

    def mark(self, corners: Tensor, kind: Kind, mask: Tensor | None = None, change: Tensor | None = None) -> None:
        """Corners (B, K, 2) of the layer painted last, those of ``mask`` (B, K).

        Given what the layer has changed, only those are kept where it changed enough to be seen.
        """
        mask = inside(corners, self.size) if mask is None else mask & inside(corners, self.size)
        if change is not None:
            mask = mask & (_around(change.abs(), corners).amax(-1) > _MIN_CONTRAST)
        self._corners.append((corners, torch.where(mask, int(kind), 0), self.layer))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return tuple(self.image.shape[-2:])

    def scene(self) -> Scene:
        """The finished images, with the corners that can be seen in them."""
        image = self.image.clamp(0, 1)
        ignore = self._unknown | (greatest_within(self._junction.float(), _IGNORED_WITHIN) > 0)
        if not self._corners:
            return Scene(image, image.new_zeros(len(image), 0, 2), image.new_zeros(len(image), 0).long(), ignore)
        corners = torch.cat([corners for corners, _, _ in self._corners], dim=1)
        kinds = torch.cat([kinds for _, kinds, _ in self._corners], dim=1)
        layers = torch.cat([torch.full_like(kinds, layer) for _, kinds, layer in self._corners], dim=1)
        last = greatest_within(self._last, _HIDDEN_WITHIN)
        kinds = kinds * (sample_at(last, corners, mode="nearest")[:, 0] <= layers)
        corners, kinds = pack(corners, kinds)
        around = _around(image, corners)
        return Scene(image, corners, kinds * (around.amax(-1) - around.amin(-1) > _MIN_CONTRAST), ignore)


def greatest_within(maps: Tensor, side: int) -> Tensor:
    """The greatest value (B, 1, H, W) in the square of ``side`` pixels, odd, about each pixel."""
    maps = F.pad(maps, [side // 2] * 4, mode="replicate")
    for axis in (-2, -1):
        run = 1  # the greatest of runs of 1, 2, 4 ... pixels: much faster than max_pool2d
        while run < side:
            step = min(run, side - run)
            ahead = maps.narrow(axis, step, maps.shape[axis] - step)
            maps = torch.maximum(maps.narrow(axis, 0, ahead.shape[axis]), ahead)
            run += step
    return maps


def pack(corners: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """The same corners (B, K, 2) and kinds (B, K), with as few places K as the image with most corners needs."""
    real = kinds != Kind.NONE
    order = real.sort(dim=1, descending=True, stable=True).indices[:, : max(1, int(real.sum(1).max()))]
    return corners.gather(1, order[..., None].expand(-1, -1, 2)), kinds.gather(1, order)


def _around(image: Tensor, points: Tensor) -> Tensor:
    """What images (B, 1, H, W) show on a ring about points (B, K, 2): (B, K, 12)."""
    angles = torch.arange(12, device=image.device) * (torch.pi / 6)
    ring = _RING * torch.stack([angles.cos(), angles.sin()], dim=-1)
    around = (points[:, :, None] + ring).flatten(1, 2).clamp(min=0)  # (B, K * 12, 2)
    height, width = image.shape[-2:]
    around = torch.minimum(around, around.new_tensor([width - 1.0, height - 1.0]))
    return sample_at(image, around, mode="nearest")[:, 0].view(*points.shape[:2], len(ring))
