"""Pairs of views of one plane, and endless batches of them, made on the device.

For a batch a scene is rendered and looked at twice, and the light changes each time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from kp.data.hpatches import ImageSequence
from kp.data.photometric import change_photometry
from kp.data.synthetic.render import render
from kp.data.synthetic.scene import Scene
from kp.geometry.coords import Size, covisible_mask, inside, invert, warp_points
from kp.geometry.homography import RandomHomography, compose


@dataclass(frozen=True)
class ViewPair:
    """Two views and the homography between them; the views may differ in size (only when B = 1).

    ``image0``, ``image1``: (B, C, H, W) in [0, 1]. ``H_0to1``: (B, 3, 3), pixels of view 0 -> pixels of view 1.
    ``corners0``, ``corners1``: (B, K, 2) true corners, in pixels of each view, or None when they are not known;
    ``corner_mask0``, ``corner_mask1``: (B, K) bool, the entries that are corners seen in that view.
    ``valid0``, ``valid1``: (B, 1, H, W) bool, the pixels that show the scene, or None for all of them. ``ignore0``,
    ``ignore1``: (B, 1, H, W) bool, the pixels where it is not known whether they are a corner, or None for none.
    """

    image0: Tensor
    image1: Tensor
    H_0to1: Tensor
    corners0: Tensor | None = None
    corners1: Tensor | None = None
    corner_mask0: Tensor | None = None
    corner_mask1: Tensor | None = None
    valid0: Tensor | None = None
    valid1: Tensor | None = None
    ignore0: Tensor | None = None
    ignore1: Tensor | None = None

    @property
    def size0(self) -> Size:
        """(H, W) of view 0."""
        return tuple(self.image0.shape[-2:])

    @property
    def size1(self) -> Size:
        """(H, W) of view 1."""
        return tuple(self.image1.shape[-2:])

    @property
    def H_1to0(self) -> Tensor:
        """(B, 3, 3), pixels of view 1 -> pixels of view 0."""
        return invert(self.H_0to1)

    def swap(self) -> "ViewPair":
        """The same pair seen from the other side: view 1 becomes view 0."""
        return replace(
            self,
            H_0to1=self.H_1to0,
            **{f"{name}0": getattr(self, f"{name}1") for name in _PER_VIEW},
            **{f"{name}1": getattr(self, f"{name}0") for name in _PER_VIEW},
        )

    def to(self, device: torch.device | str) -> "ViewPair":
        """The same pair on another device."""
        return self._each(lambda values: values.to(device))

    def every(self, first: int, step: int) -> "ViewPair":
        """Every ``step``-th pair from the ``first`` on."""
        return self._each(lambda values: values[first::step])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ViewPair":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return ViewPair(**{name: None if v is None else change(v) for name, v in values.items()})

    def shared0(self, border: float = 0.0) -> Tensor:
        """The pixels of view 0 that show the scene and that view 1 sees: (B, 1, H, W) bool.

        Pixels within ``border`` of the edge of either image are left out.
        """
        shared = covisible_mask(self.H_0to1, self.size0, self.size1, border)
        if border > 0:
            identity = torch.eye(3, device=self.H_0to1.device, dtype=self.H_0to1.dtype)[None]
            shared = shared & covisible_mask(identity, self.size0, self.size0, border)
        return shared if self.valid0 is None else shared & self.valid0


_PER_VIEW = ("image", "corners", "corner_mask", "valid", "ignore")


_HELD_OUT_SEED = 20_000_003  # far from the seeds that people train with
CANVAS = 1.5  # side of a scene over the side of its views, so that little of a view is empty
_RESIDUAL_CHANGE = 0.05  # share of a range that is left where there is to be almost no such change
_VALID_BORDER = 4.0  # pixels: blur and interpolation carry the canvas' edge about this far into a view


def view_pairs(
    batch: int,
    size: Size,
    generator: torch.Generator,
    render: Callable[[int, Size, torch.Generator], Scene] = render,
    photometric: float = 1.0,
    light: Mapping[str, float] | None = None,
    illumination_only: float = 0.0,
    viewpoint_only: float = 0.0,
    **ranges: float,
) -> Iterator[ViewPair]:
    """Yield batches of pairs of size (H, W) without end, on the device of ``generator``, which makes every draw.

    Each pair looks twice at a scene of its own. Both views are drawn, so between the two the rotation, for example,
    goes up to twice its limit. Each pair draws a share in [0, 1] of all ranges but that of the translation, so some
    pairs differ in little else.

    Args:
        render: draws the scenes: (batch, size, generator) -> Scene.
        photometric: strength of the photometric changes; each view draws a share in [0, 1] of it.
        light: ranges of these changes, see :func:`kp.data.photometric.change_photometry`.
        illumination_only: share of pairs whose views differ almost only in light and translation.
        viewpoint_only: share of pairs whose views have almost the same light. Both shares sum to at most 1.
        **ranges: limits of :func:`kp.geometry.homography.random_homographies`.
    """
    look = RandomHomography(size, padding="reflection", antialias=True, generator=generator, **ranges)
    while True:
        scene = render(batch, canvas_size(size), generator)
        look.strength, light_strength = shares(batch, generator, illumination_only, viewpoint_only)
        seen = [_look(scene, look) for _ in range(2)]
        images = [_relight(view.image, generator, photometric * light_strength, light or {}) for view in seen]
        yield _pair(*(view._replace(image=image) for view, image in zip(seen, images, strict=True)))


class PrefetchedPairs:
    """Batches of pairs without end. The pairs of ``steps`` batches are drawn at once: a GPU takes as long for few
    pairs.

    Args:
        draw: yields the pairs of ``steps`` batches; all its random numbers come from ``generator``.
    """

    def __init__(self, draw: Iterator[ViewPair], generator: torch.Generator, steps: int = 1) -> None:
        self.generator = generator
        self._draw, self._steps = draw, steps
        self._empty()

    def __iter__(self) -> "PrefetchedPairs":
        return self

    def __next__(self) -> ViewPair:
        if self._pairs is None:
            self._began, self._pairs = self.generator.get_state(), next(self._draw)
        batch, self._used = self._pairs.every(self._used, self._steps), self._used + 1
        if self._used == self._steps:
            self._empty()
        return batch

    def state(self) -> tuple[Tensor, int]:
        """The generator's state (uint8) before the present pairs were drawn; how many of their batches are used."""
        return (self.generator.get_state() if self._pairs is None else self._began), self._used

    def load_state(self, state: Tensor, used: int = 0) -> None:
        """Go on with the batch after the ``used`` ones; with another number of steps, from some batch of a new draw."""
        self.generator.set_state(state)
        self._empty()
        for _ in range(used % self._steps):
            next(self)

    def _empty(self) -> None:
        self._pairs: ViewPair | None = None
        self._began, self._used = self.generator.get_state(), 0


def shares(
    batch: int, generator: torch.Generator, illumination_only: float = 0.0, viewpoint_only: float = 0.0
) -> tuple[Tensor, Tensor]:
    """How much of its ranges each pair uses, (B,) in [0, 1] each: of viewpoint and of light."""
    view, kind = torch.rand(2, batch, generator=generator, device=generator.device)
    view = torch.where(kind < illumination_only, _RESIDUAL_CHANGE * view, view)
    return view, torch.where(kind > 1 - viewpoint_only, _RESIDUAL_CHANGE, 1.0)


def canvas_size(view: Size) -> Size:
    """(H, W) of the scene that views of this size look at."""
    return (round(CANVAS * view[0]), round(CANVAS * view[1]))


class _View(NamedTuple):
    """A look at a scene, as one side of a ViewPair, and ``H`` (B, 3, 3), pixels of the scene -> pixels of the look."""

    image: Tensor
    H: Tensor
    corners: Tensor
    corner_mask: Tensor
    valid: Tensor
    ignore: Tensor


def _pair(view0: _View, view1: _View) -> ViewPair:
    """Two looks, (B, ...) each, at the same scenes."""
    return ViewPair(
        H_0to1=compose(view1.H, view0.H),
        **{f"{name}0": getattr(view0, name) for name in _CARRIED},
        **{f"{name}1": getattr(view1, name) for name in _CARRIED},
    )


_CARRIED = ("image", "corners", "corner_mask", "valid", "ignore")


def _look(scene: Scene, look: RandomHomography) -> _View:
    """The scene seen through a new homography, with its corners and masks in the frame of the view."""
    image, ignore = look(torch.cat([scene.image, scene.ignore.float()], dim=1)).chunk(2, dim=1)
    H = look.transform_matrix
    corners, in_front = warp_points(scene.corners, H)
    seen = scene.corner_mask & in_front & inside(corners, look.size)
    valid = covisible_mask(invert(H), look.size, tuple(scene.image.shape[-2:]), border=_VALID_BORDER)
    return _View(image, H, corners, seen, valid, ignore > 0.5)


def _relight(image: Tensor, generator: torch.Generator, photometric: Tensor, light: Mapping[str, float]) -> Tensor:
    """Images (B, 1, H, W) in [0, 1], each changed by a share of the strength (B,) of its own."""
    if not photometric.any():
        return image
    share = torch.rand(len(image), generator=generator, device=generator.device)
    return change_photometry(image, generator, photometric * share, **light)


def held_out_pairs(batches: int = 8, batch: int = 8, size: Size = (240, 320)) -> list[ViewPair]:
    """Batches of synthetic pairs that no training sees, always the same ones; drawn and kept on the CPU."""
    pairs = view_pairs(batch, size, torch.Generator().manual_seed(_HELD_OUT_SEED))
    return [next(pairs) for _ in range(batches)]


def as_sequences(pair: ViewPair) -> list[ImageSequence]:
    """Each pair of a batch as a sequence of two images, of kind ``synthetic``, with the pixels that show the scene."""
    sequences = []
    for b in range(len(pair.image0)):
        images = tuple(partial(torch.clone, image[b : b + 1]) for image in (pair.image0, pair.image1))
        valid = tuple(mask[b : b + 1] for mask in (pair.valid0, pair.valid1))
        H_0to1 = (pair.H_0to1[b].double(),)
        sequences.append(ImageSequence(f"synthetic_{b}", "v", images, H_0to1, kind="synthetic", valid=valid))
    return sequences
