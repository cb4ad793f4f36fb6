"""Repeatability as one thing changes: rotation in the plane, 0 to 180 degrees, and scale, a quarter to four times.

For every photograph that scikit-image ships (:mod:`kp.data.photographs`: gray, its short side 480 pixels, here the
canvas) and every value there is a pair of views with the same centre; H_0to1 turns, or magnifies, by the value about
it.

rotation    View 0 is the central 240x320 window; view 1 the same window of the canvas turned by the value, from x to y
            (clockwise on a screen), sampled bilinearly. What lies in both gets smaller towards 90 degrees. At 0, 90
            and 180 pixels fall on pixels, elsewhere sampling smooths view 1: curves peak at these three.
scale       pixels of view 1 per pixel of view 0. The finer view is the central 240x320 window, at the canvas's own
            resolution; the coarser one shows the canvas shrunk with a filter, so that nothing is ever magnified: a
            window of 240x320 pixels or of as many as the shrunk canvas has (120x120 of a square one at 0.25 and 4).

No view sees beyond the canvas. The light of each view changes a little, apart from the other's, and as much as in the
built-in ``v`` sequences; a photograph has the same two lights at every value, so that only the value differs along a
curve, and rotation 0 is the same pair as scale 1. Keypoints are found and counted as everywhere
(:mod:`kp.evaluation.benchmark`): distances are in pixels of view 1, so a threshold of 3 pixels is four times as
generous at scale 0.25 as at 1, to chance too; compare detectors at a value, and each with its ``chance``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from kp.data import photographs
from kp.data.hpatches import ImageSequence
from kp.data.photographs import VIEW, as_8bit, load_canvas
from kp.data.photometric import change_photometry
from kp.evaluation.benchmark import evaluate
from kp.evaluation.protocols import PROTOCOLS, Protocol
from kp.evaluation.registry import Detector
from kp.evaluation.summary import summarise
from kp.geometry.coords import Size, invert, resize, resize_matrix, translation, warp_image

SWEEPS: dict[str, tuple[float, ...]] = {
    "rotation": tuple(float(angle) for angle in range(0, 181, 15)),
    "scale": tuple(2 ** (power / 2) for power in range(-4, 5)),
}
_MEASURES = ("repeatability", "localisation_error", "chance", "common", "homography_3px", "interval", "pairs")
_LIGHT = 0.25  # strength of the change of light


def sequences(kind: str, seed: int = 0, values: Sequence[float] | None = None) -> list[tuple[float, ImageSequence]]:
    """A sweep's pairs, each a ImageSequence of two images, with their values: all values of a photograph, then of the
    next.

    ``values``: only these, instead of the sweep's own. The same seed gives the same images, whatever else is made.
    Raises HPatchesError where scikit-image is not installed.
    """
    made, values = [], SWEEPS[kind] if values is None else values
    for path in [photographs.folder() / file for file in photographs.FILES]:
        canvas = load_canvas(path)
        made += [(value, make_sequence(canvas, f"v_{path.stem}", kind, value, seed)) for value in values]
    return made


def make_sequence(canvas: Tensor, name: str, kind: str, value: float, seed: int = 0) -> ImageSequence:
    """The pair of a sweep at a value, of a canvas (1, 1, H, W) in [0, 1] with both sides of at least 400 pixels.

    Its name starts with ``name``, which alone, with ``seed``, decides the light. Images are drawn when asked for.
    """
    looks = ((1.0, 0.0), (1.0, value)) if kind == "rotation" else ((min(1, 1 / value), 0.0), (min(1, value), 0.0))
    frames = [_frame(tuple(canvas.shape[-2:]), *look) for look in looks]
    seeds = [crc32(f"{name}/{number}".encode()) + seed for number in (1, 2)]
    views = zip(frames, looks, seeds, strict=True)
    images = tuple(partial(_view, canvas, *frame, shrink, light) for frame, (shrink, _), light in views)
    (H_canvas_to_0, _), (H_canvas_to_1, _) = frames
    return ImageSequence(f"{name}_{kind}_{value:g}", "v", images, (H_canvas_to_1 @ invert(H_canvas_to_0),))


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
    return as_8bit(change_photometry(image, torch.Generator().manual_seed(seed), _LIGHT))


def measure(
    make: Callable[[], Mapping[str, Detector]],
    protocol: Protocol = PROTOCOLS["native"],
    seed: int = 0,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """All sweeps by all detectors: one plain dict for each sweep, value and detector, in this order.

    A row has ``sweep``, ``value``, ``detector`` and, as :func:`kp.evaluation.summary.summarise` means them over the
    photographs, ``repeatability``, ``localisation_error``, ``chance``, ``common``, ``homography_3px``, ``interval`` and
    ``pairs``. ``make`` and ``workers`` as for :func:`kp.evaluation.benchmark.evaluate`. Raises ValueError on a protocol
    that resizes images, HPatchesError where scikit-image is not installed.
    """
    if protocol.size is not None:
        raise ValueError(f"protocol {protocol.name} resizes images: sweeps take native ones")
    swept = [(kind, value, sequence) for kind in SWEEPS for value, sequence in sequences(kind, seed)]
    records = {(kind, value): [] for kind in SWEEPS for value in SWEEPS[kind]}
    at = {sequence.name: (kind, value) for kind, value, sequence in swept}
    for record in evaluate([sequence for *_, sequence in swept], make, protocol, workers=workers):
        records[at[record["sequence"]]].append(record)
    return [
        {"sweep": kind, "value": value, "detector": row["detector"]} | {name: row[name] for name in _MEASURES}
        for (kind, value), pairs in records.items()
        for row in summarise(pairs, "v")
    ]
