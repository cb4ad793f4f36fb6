"""The sequences on which a detector does best and worst, as pictures: which keypoints were found again, which not."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from kp.data.hpatches import ImageSequence
from kp.evaluation import benchmark
from kp.evaluation.metrics import counted, nearest_distances
from kp.evaluation.protocols import Protocol
from kp.evaluation.registry import Detector
from kp.geometry.coords import Size, covisible, invert, resize, resize_matrix, warp_points
from kp.models.keypoints import Keypoints
from kp.reporting.images import grey_picture

LONGEST = 640  # pixels of a picture's longer side
COLOURS = {"repeated": (0, 158, 115), "missed": (213, 94, 0), "unseen": (0, 114, 178)}  # Okabe and Ito, 2008
_REACH = {"repeated": 5.0, "missed": 3.5, "unseen": 4.0}  # pixels from a mark's centre, along x and y
_TURN = np.linspace(0, 2 * np.pi, 17)
_LINES = {  # a mark of reach 1, as open lines: a ring, a cross and a square
    "repeated": [np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)],
    "missed": [np.array([[-1, -1], [1, 1]]), np.array([[-1, 1], [1, -1]])],
    "unseen": [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])],
}


@dataclass(frozen=True)
class Marks:
    """A view's keypoints, each kind (N, 2) in pixels, by what the other view makes of them.

    ``repeated`` and ``missed`` together are those that count: the best that the other view sees, with and without a
    neighbour there. ``unseen`` are those of the best of all that the other view does not see.
    """

    repeated: np.ndarray
    missed: np.ndarray
    unseen: np.ndarray


@dataclass(frozen=True)
class Example:
    """A sequence on which a detector is among its ``best`` or ``worst`` (``kind``), shown by images 1 and ``image``.

    ``mean`` is the sequence's mean repeatability, ``repeatability`` that of this pair; ``marks`` are in pixels of what
    the detector saw, ``pictures`` RGB arrays (H, W, 3) of uint8 with these marks drawn.
    """

    kind: str
    protocol: str
    detector: str
    sequence: str
    image: int
    mean: float
    marks: tuple[Marks, Marks]
    pictures: tuple[np.ndarray, np.ndarray]

    @property
    def repeatability(self) -> float:
        """The share of the counted keypoints, as they are drawn, that are repeated; 0 if either view has none."""
        counts = [(len(marks.repeated), len(marks.missed)) for marks in self.marks]
        return sum(hits for hits, _ in counts) / max(sum(map(sum, counts)), 1)


def examples(
    sequences: Sequence[ImageSequence],
    records: Sequence[dict[str, Any]],
    detector_name: str,
    detector: Detector,
    protocol: Protocol,
    count: int = 3,
) -> list[Example]:
    """The ``count`` best sequences of a detector, best first, then its worst, worst first; none of them twice.

    Ranked by the mean repeatability of ``records`` under this protocol, of those sequences that have any. Of each, the
    pair that comes nearest to that mean: not the easiest and not the hardest one, but one that shows why the sequence
    has its rank.
    """
    pairs = {sequence.name: [] for sequence in sequences}
    for record in records:
        if (record["protocol"], record["detector"]) == (protocol.name, detector_name):
            pairs[record["sequence"]].append(record)
    means = {name: fmean(r["repeatability"] for r in found) for name, found in pairs.items() if found}
    ranked = sorted(means, key=means.get, reverse=True)
    best = ranked[: min(count, (len(ranked) + 1) // 2)]
    kinds = dict.fromkeys(best, "best") | dict.fromkeys(ranked[len(best) :][::-1][:count], "worst")
    by_name = {sequence.name: sequence for sequence in sequences}
    shown = []
    for name, kind in kinds.items():
        typical = min(pairs[name], key=lambda record, mean=means[name]: abs(record["repeatability"] - mean))
        marks, pictures = show_pair(by_name[name], typical["image"], detector, protocol)
        shown.append(Example(kind, protocol.name, detector_name, name, typical["image"], means[name], marks, pictures))
    return shown


def show_pair(
    sequence: ImageSequence, image: int, detector: Detector, protocol: Protocol
) -> tuple[tuple[Marks, Marks], tuple[np.ndarray, np.ndarray]]:
    """Detect in images 1 and ``image`` again: what became of the keypoints, and the two pictures that show it."""
    two = (sequence.images[0], sequence.images[image - 1]), (sequence.homographies[image - 2],)
    images, pair = benchmark.prepared_sequence(replace(sequence, images=two[0], homographies=two[1]), protocol)
    sizes = [tuple(image.shape[-2:]) for image in images]
    [(H_0to1, shared)] = benchmark.views(pair, sizes)
    marks = classify(*map(detector, images), H_0to1, *sizes, protocol.max_keypoints, protocol.threshold)
    return marks, tuple(map(draw_marks, images, shared, marks))


def classify(
    keypoints0: Keypoints,
    keypoints1: Keypoints,
    H_0to1: Tensor,
    size0: Size,
    size1: Size,
    max_keypoints: int,
    threshold: float,
) -> tuple[Marks, Marks]:
    """What became of the keypoints (B = 1) of either view, counted as :mod:`kp.evaluation.metrics` does."""
    views = (keypoints0, H_0to1, size1), (keypoints1, invert(H_0to1), size0)
    seen = [counted(*view, max_keypoints) for view in views]
    marks = []
    for (keypoints, H, size), points, nearest in zip(views, seen, nearest_distances(*seen, H_0to1), strict=True):
        best, near = keypoints.select(keypoints.valid, max_keypoints), nearest <= threshold
        unseen = best.xy[best.valid & ~covisible(best.xy.to(H.dtype), H, size)]
        kinds = points.xy[points.valid & near], points.xy[points.valid & ~near], unseen
        marks.append(Marks(*(xy.double().numpy() for xy in kinds)))
    return tuple(marks)


def draw_marks(image: Tensor, shared: Tensor, marks: Marks) -> np.ndarray:
    """An image (1, 1, H, W) with its marks, the longer side ``LONGEST`` pixels: RGB (H, W, 3) of uint8.

    Pale where ``shared`` (1, 1, H, W) bool, so that marks stand out, and dark where the other view does not see it.
    """
    size0 = tuple(image.shape[-2:])
    size1 = tuple(max(1, round(n * LONGEST / max(size0))) for n in size0)
    seen = (resize(shared.float(), size1)[0, 0] > 0.5).numpy()[..., None]
    picture = grey_picture(resize(image, size1)[0])
    picture = np.where(seen, 0.6 * picture + 0.4 * 255, 0.35 * picture).astype(np.uint8)
    for kind in (field.name for field in reversed(fields(marks))):  # what was repeated comes last, on top
        xy = torch.from_numpy(getattr(marks, kind))[None]
        places = warp_points(xy, resize_matrix(size0, size1)[None])[0][0].numpy()
        lines = [place + _REACH[kind] * line for place in places for line in _LINES[kind]]
        lines = [(line * 16).round().astype(np.int32) for line in lines]  # cv2: 4 binary digits after the point
        for colour, thickness in (((255, 255, 255), 4), (COLOURS[kind], 2)):
            cv2.polylines(picture, lines, False, colour, thickness, cv2.LINE_AA, 4)
    return picture
