"""Endless batches of view pairs, made on the device: render a scene, look at it twice, change the light each time."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from kp.canvas import Scene
from kp.geometry import Size, covisible_mask, inside, invert, warp_points
from kp.homography import RandomHomography, compose
from kp.photometric import change_photometry
from kp.shapes import render
from kp.views import ViewPair

CANVAS = 1.5  # the scene is so many times larger than its views, to leave little of them empty
_HARDLY = 0.05  # of a change: so much is left where it is to be as good as none
_VALID_BORDER = 4.0  # pixels: blur and interpolation carry the canvas' edge about this far into a view


def view_pairs(
    batch: int,
    size: Size,
    generator: torch.Generator,
    render: Callable[[int, Size, torch.Generator], Scene] = render,
    photometric: float = 1.0,
    light: Mapping[str, float] | None = None,
    same_view: float = 0.0,
    same_light: float = 0.0,
    views: int = 2,
    **ranges: float,
) -> Iterator[ViewPair]:
    """Yield batches of pairs of size (H, W) for ever, on the device of ``generator``, which makes every draw.

    ``ranges`` are the limits of :func:`kp.homography.random_homographies`; both views are drawn, so between the two the
    rotation, say, goes up to twice its limit. A pair draws a share, in [0, 1], of them all but
    the translation: some views hardly differ but in where they look. ``photometric`` is the strength of the changes of
    light, of which each view draws a share likewise, and ``light`` their ranges, see
    :func:`kp.photometric.change_photometry`. Shares of the pairs differ in hardly anything but the light and a
    translation, ``same_view``, or but the view, ``same_light``; together they are at most 1.

    Each pair is of a scene of its own unless there are more than two ``views`` of a scene: these go in a ring, each in
    a pair with the next, and ``batch`` is a multiple of their number.
    """
    scenes = batch if views == 2 else batch // views
    look = RandomHomography(size, padding="reflection", antialias=True, generator=generator, **ranges)
    while True:
        scene = render(scenes, canvas_size(size), generator)
        look.strength, bright = shares(scenes, generator, same_view, same_light)
        seen = [_look(scene, look) for _ in range(views)]
        images = [_relight(view.image, generator, photometric * bright, light or {}) for view in seen]
        lit = [view._replace(image=image) for view, image in zip(seen, images, strict=True)]
        yield _pair(*lit) if views == 2 else _pair(_together(lit), _together(lit[1:] + lit[:1]))


class Stock:
    """Batches of pairs for ever, those of ``steps`` batches drawn at once: a GPU draws many as soon as few.

    ``draw`` yields pairs for so many batches, and all of its chance comes from ``generator``.
    """

    def __init__(self, draw: Iterator[ViewPair], generator: torch.Generator, steps: int = 1) -> None:
        self.generator = generator
        self._draw, self._steps = draw, steps
        self._empty()

    def __iter__(self) -> "Stock":
        return self

    def __next__(self) -> ViewPair:
        if self._pairs is None:
            self._began, self._pairs = self.generator.get_state(), next(self._draw)
        batch, self._used = self._pairs.every(self._used, self._steps), self._used + 1
        if self._used == self._steps:
            self._empty()
        return batch

    def state(self) -> tuple[Tensor, int]:
        """The generator's state (uint8) before what is in stock was drawn, and how many batches of it are used up."""
        return (self.generator.get_state() if self._pairs is None else self._began), self._used

    def load_state(self, state: Tensor, used: int = 0) -> None:
        """Go on with the batch after those that were ``used``; somewhere in a new stock, if that is of another size."""
        self.generator.set_state(state)
        self._empty()
        for _ in range(used % self._steps):
            next(self)

    def _empty(self) -> None:
        self._pairs: ViewPair | None = None
        self._began, self._used = self.generator.get_state(), 0


def shares(
    batch: int, generator: torch.Generator, same_view: float = 0.0, same_light: float = 0.0
) -> tuple[Tensor, Tensor]:
    """How much of the ranges each pair uses, (B,) in [0, 1] each: of the view's and the light's."""
    view, kind = torch.rand(2, batch, generator=generator, device=generator.device)
    view = torch.where(kind < same_view, _HARDLY * view, view)
    return view, torch.where(kind > 1 - same_light, _HARDLY, 1.0)


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


def _together(views: list[_View]) -> _View:
    """N looks, (B, ...) each, as one of (N * B, ...)."""
    return _View(*map(torch.cat, zip(*views, strict=True)))


_CARRIED = ("image", "corners", "corner_mask", "valid", "ignore")


def _look(scene: Scene, look: RandomHomography) -> _View:
    """The scene through a new homography; what is known of it goes along."""
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
