"""Photographs with one kind of change a pair: turned or scaled step by step (sweeps), or at their own size.

**Sweeps.** For every photograph that scikit-image ships (gray, its short side 480 pixels, here the canvas) and every
value there is a pair of views with the same centre. H_0to1 turns, or magnifies, by the value about it.

rotation    View 0 is the central 240x320 window. View 1 is the same window of the canvas turned by the value, from x to
            y (clockwise on a screen), sampled bilinearly. At 0, 90 and 180 degrees pixels fall on pixels; elsewhere
            sampling smooths view 1, so curves peak at these three values.
scale       Pixels of view 1 per pixel of view 0. The finer view is the central 240x320 window at the resolution of the
            canvas. The coarser one shows the canvas shrunk with a filter, so nothing is ever magnified.

No view sees beyond the canvas. The light of each view changes a little, as much as in the built-in ``v`` sequences. A
photograph has the same two lights at every value, so only the value differs along a curve.

**Full size.** Each photograph, not shrunk, gives three pairs of each kind, the change growing from one to the next. A
view has four fifths of the photograph's sides, at most 720x960 pixels. View 0, but for ``hard``, is a window of the
photograph, which is mirrored at its right and bottom edge; what lies farther out is black in view 1.

light   the light changes, as in the built-in ``i`` sequences
relit   greys are changed by a random curve that rises and falls: edges turn round, as between day and night
focus   the lens is out of focus: a disc with a radius of 2, 4 or 6 pixels
zoom    view 1 is magnified 1.4, 1.9 or 2.5 times, and turned
tilt    the plane is turned away by 40, 55 or 65 degrees, about an axis that turns too
hard    both views are warped, and each has its own light, as in the built-in hard sequences

View 1 of ``relit``, ``focus``, ``zoom`` and ``tilt`` has a little noise.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from zlib import crc32

import torch
from kornia.filters import filter2d
from torch import Tensor

from kp.data import photographs
from kp.data.hpatches import ImageSequence, read_image
from kp.data.photographs import VIEW, as_8bit, canvas_and_window, hard_view, load_canvas, seeded, window
from kp.data.photometric import change_photometry
from kp.geometry.coords import Size, invert, resize, resize_matrix, translation, warp_image

SWEEPS: dict[str, tuple[float, ...]] = {
    "rotation": tuple(float(angle) for angle in range(0, 181, 15)),
    "scale": tuple(2 ** (power / 2) for power in range(-4, 5)),
}
_SWEPT_LIGHT = 0.25  # strength of the change of light
KINDS = ("light", "relit", "focus", "zoom", "tilt", "hard")  # of full size
_LARGEST_VIEW, _VIEW_SHARE = (720, 960), 0.8  # (H, W) in pixels, and share of the photograph's sides
_LIGHT = (0.6, 0.9, 1.2)  # strengths of a change of light
_CURVE_SHARES = (0.4, 0.7, 1.0)  # of the random curve in a grey; the rest stays
_KNOTS = 12  # of that curve
_DISC = (2.0, 4.0, 6.0)  # pixels
_ZOOM = ((1.4, 20.0), (1.9, -50.0), (2.5, 35.0))  # factor, and degrees in the plane
_TILT = ((40.0, 0.0), (55.0, 90.0), (65.0, 30.0))  # degrees of the plane, and of the direction that it shortens
_HARD, _HARD_REFERENCE = (0.2, 0.4, 0.6), 0.2  # most change of view, and view 0's
_SUPERSAMPLING = 3  # times the sides of a view: no axis then shrinks before the filter
_NOISE = 0.008  # standard deviation, as a share of the range of greys


def swept_sequences(kind: str, seed: int = 0, values: Sequence[float] | None = None) -> list[ImageSequence]:
    """The pairs of a sweep, as sequences of two images: all values of a photograph, then those of the next.

    Their ``kind`` is ``rotation_45``, ``scale_0.5`` and so on. The same seed gives the same images.

    Args:
        values: only these values, instead of ``SWEEPS[kind]``.

    Raises:
        HPatchesError: scikit-image is not installed.
    """
    made, values = [], SWEEPS[kind] if values is None else values
    for path in [photographs.folder() / file for file in photographs.FILES]:
        canvas = load_canvas(path)
        made += [swept_sequence(canvas, f"v_{path.stem}", kind, value, seed) for value in values]
    return made


def swept_sequence(canvas: Tensor, name: str, kind: str, value: float, seed: int = 0) -> ImageSequence:
    """The pair of a sweep at a value, of a canvas (1, 1, H, W) in [0, 1] with both sides of at least 400 pixels.

    Its name starts with ``name``, which alone, with ``seed``, decides the light. Images are drawn when they are used.
    """
    looks = ((1.0, 0.0), (1.0, value)) if kind == "rotation" else ((min(1, 1 / value), 0.0), (min(1, value), 0.0))
    frames = [_frame(tuple(canvas.shape[-2:]), *look) for look in looks]
    seeds = [crc32(f"{name}/{number}".encode()) + seed for number in (1, 2)]
    views = zip(frames, looks, seeds, strict=True)
    images = tuple(partial(_view, canvas, *frame, shrink, light) for frame, (shrink, _), light in views)
    (H_canvas_to_0, _), (H_canvas_to_1, _) = frames
    H_0to1 = H_canvas_to_1 @ invert(H_canvas_to_0)
    return ImageSequence(f"{name}_{kind}_{value:g}", "v", images, (H_0to1,), kind=f"{kind}_{value:g}")


def _frame(canvas: Size, shrink: float, angle: float) -> tuple[Tensor, Size]:
    """H_canvas_to_view (3, 3), float64, for the canvas shrunk and turned (degrees), and the size of the view."""
    centre = [(n - view) // 2 + (view - 1) / 2 for n, view in zip(canvas, VIEW, strict=True)]  # of a window of pixels
    reach = [min(c + 0.5, n - 0.5 - c) for c, n in zip(centre, canvas, strict=True)]
    size = tuple(min(view, math.floor(2 * shrink * r)) for view, r in zip(VIEW, reach, strict=True))
    cos, sin = shrink * math.cos(math.radians(angle)), shrink * math.sin(math.radians(angle))
    about = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    return translation((size[1] - 1) / 2, (size[0] - 1) / 2) @ about @ translation(-centre[1], -centre[0]), size


def _view(canvas: Tensor, H_canvas_to_view: Tensor, size: Size, shrink: float, seed: int) -> Tensor:
    """A view (1, 1, *size) of a canvas (1, 1, H, W) in a light of its own, in 8 bits.

    Resizing, to whole pixels, filters well but shrinks by a little less than asked; warping by the rest is exact.
    """
    whole = tuple(canvas.shape[-2:])
    shrunk = tuple(math.ceil(n * shrink) for n in whole)
    H_shrunk_to_view = H_canvas_to_view @ invert(resize_matrix(whole, shrunk))
    image = warp_image(resize(canvas, shrunk).clamp(0, 1), H_shrunk_to_view[None], size)
    return as_8bit(change_photometry(image, torch.Generator().manual_seed(seed), _SWEPT_LIGHT))


def full_size_sequences(photograph: Path, seed: int = 0) -> list[ImageSequence]:
    """A sequence of four images of each of KINDS, from a photograph at its own size."""
    image = read_image(photograph)
    view = tuple(min(most, int(side * _VIEW_SHARE)) for most, side in zip(_LARGEST_VIEW, image.shape[-2:], strict=True))
    generator = seeded(photograph.stem, seed)
    canvas, H_canvas_to_plain = canvas_and_window(image, view)
    kinds: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for kind, image, H_plain_to_view in _full_size_views(canvas, H_canvas_to_plain, view, generator):
        kinds.setdefault(kind, []).append((image, H_plain_to_view))
    return [photographs.as_sequence(f"{kind}_{photograph.stem}", kind, views) for kind, views in kinds.items()]


def _full_size_views(
    canvas: Tensor, H_canvas_to_plain: Tensor, view: Size, generator: torch.Generator
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Kind, image (1, 1, H, W) and H_plain_to_view (3, 3) of all views: of each kind view 0 and three others."""
    plain, same = window(canvas, H_canvas_to_plain, view), torch.eye(3, dtype=torch.float64)

    def noisy(image: Tensor) -> Tensor:
        return (image + _NOISE * torch.randn(image.shape, generator=generator)).clamp(0, 1)

    for kind in ("light", "relit", "focus", "zoom", "tilt"):
        yield kind, plain, same
    for strength in _LIGHT:
        yield "light", change_photometry(plain, generator, strength), same
    for share in _CURVE_SHARES:
        yield "relit", noisy(redrawn(plain, share, generator)), same
    for radius in _DISC:
        yield "focus", noisy(window(out_of_focus(canvas, radius), H_canvas_to_plain, view)), same
    centre = translation((view[1] - 1) / 2, (view[0] - 1) / 2)
    for kind, changes in (("zoom", map(_magnified, _ZOOM)), ("tilt", map(_tilted, _TILT))):
        for change in changes:
            H_0to1 = centre @ change @ invert(centre)
            yield kind, noisy(_filtered(canvas, H_canvas_to_plain, view, H_0to1)), H_0to1
    for strength in (_HARD_REFERENCE, *_HARD):
        yield "hard", *hard_view(canvas, H_canvas_to_plain, view, strength, generator)


def _filtered(canvas: Tensor, H_canvas_to_plain: Tensor, view: Size, H_plain_to_view: Tensor) -> Tensor:
    """A view drawn larger and then shrunk: warping alone would not filter an axis that shrinks more than the other."""
    larger = tuple(_SUPERSAMPLING * side for side in view)
    H_canvas_to_larger = resize_matrix(view, larger) @ H_plain_to_view @ H_canvas_to_plain
    return resize(warp_image(canvas, H_canvas_to_larger[None].float(), larger), view).clamp(0, 1)


def redrawn(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """An image (1, 1, H, W) in [0, 1], its greys by a ``share`` on a random curve from 0 to 1 that need not rise."""
    curve = torch.rand(_KNOTS, generator=generator)
    curve = (curve - curve.min()) / (curve.max() - curve.min())
    place = image * (_KNOTS - 1)
    below = place.long().clamp(0, _KNOTS - 2)
    return (1 - share) * image + share * torch.lerp(curve[below], curve[below + 1], place - below)


def out_of_focus(image: Tensor, radius: float) -> Tensor:
    """An image (1, 1, H, W) through a lens that makes a disc of a point: ``radius`` in pixels, its edge smooth."""
    reach = math.ceil(radius)
    steps = torch.arange(-reach, reach + 1.0)
    disc = (radius + 0.5 - torch.hypot(steps[:, None], steps)).clamp(0, 1)
    return filter2d(image, disc[None], border_type="replicate", normalized=True)


def _magnified(look: tuple[float, float]) -> Tensor:
    factor, degrees = look
    return torch.tensor([factor, factor, 1], dtype=torch.float64).diag() @ _turned(degrees)


def _tilted(look: tuple[float, float]) -> Tensor:
    tilt, direction = look
    shortened = torch.tensor([math.cos(math.radians(tilt)), 1, 1], dtype=torch.float64).diag()
    return _turned(-direction) @ shortened @ _turned(direction)


def _turned(degrees: float) -> Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
