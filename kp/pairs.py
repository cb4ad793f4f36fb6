"""Endless batches of view pairs, made on the device: render a scene, look at it twice, change the light each time."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kp.geometry import Size, covisible_mask, inside, invert, warp_points
from kp.homography import RandomHomography, compose
from kp.photometric import change_photometry
from kp.shapes import Scene, render
from kp.views import ViewPair

_CANVAS = 1.5  # the scene is so many times larger than its views, to leave little of them empty
_VALID_BORDER = 4.0  # pixels: blur and interpolation carry the canvas' edge about this far into a view


def view_pairs(
    batch: int,
    size: Size,
    generator: torch.Generator,
    render: Callable[[int, Size, torch.Generator], Scene] = render,
    photometric: float = 1.0,
    **ranges: float,
) -> Iterator[ViewPair]:
    """Yield batches of pairs of size (H, W) for ever, on the device of ``generator``, which makes every draw.

    ``ranges`` are the limits of :func:`kp.homography.random_homographies`; both views are drawn, so between the two the
    rotation, say, goes up to twice its limit. ``photometric`` is the strength of the changes of light.
    """
    canvas = (round(_CANVAS * size[0]), round(_CANVAS * size[1]))
    look = RandomHomography(size, padding="reflection", generator=generator, **ranges)
    while True:
        scene = render(batch, canvas, generator)
        view0, view1 = (_view(scene, look, generator, photometric) for _ in range(2))
        yield ViewPair(
            image0=view0[0],
            image1=view1[0],
            H_0to1=compose(view1[1], view0[1]),
            corners0=view0[2],
            corners1=view1[2],
            corner_mask0=view0[3],
            corner_mask1=view1[3],
            valid0=view0[4],
            valid1=view1[4],
        )


def _view(
    scene: Scene, look: RandomHomography, generator: torch.Generator, photometric: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Image, H from the canvas, corners, corner mask and valid mask of one random view of a scene."""
    image = look(scene.image)
    H = look.transform_matrix
    corners, in_front = warp_points(scene.corners, H)
    valid = covisible_mask(invert(H), look.size, tuple(scene.image.shape[-2:]), border=_VALID_BORDER)
    seen = scene.corner_mask & in_front & inside(corners, look.size)
    return change_photometry(image, generator, photometric), H, corners, seen, valid
