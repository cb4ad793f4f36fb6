"""Pictures: score maps, keypoints, labelled pairs, and the sequences on which a detector does best and worst.

A picture is an RGB array (H, W, 3) of uint8.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from kp.data.hpatches import ImageSequence
from kp.data.pairs import ViewPair, view_pairs
from kp.data.synthetic.render import FAMILIES, render
from kp.evaluation import benchmark
from kp.evaluation.metrics import counted, nearest_distances
from kp.evaluation.protocols import Protocol
from kp.evaluation.registry import FindKeypoints
from kp.geometry.coords import Size, covisible, invert, resize, resize_matrix, warp_points
from kp.models.keypoints import Keypoints

GREEN, RED = (60, 220, 60), (240, 60, 60)
LONGEST = 640  # pixels of a picture's longer side
COLOURS = {"repeated": (0, 158, 115), "missed": (213, 94, 0), "unseen": (0, 114, 178)}  # Okabe and Ito, 2008
_RADIUS = {"repeated": 5.0, "missed": 3.5, "unseen": 4.0}  # pixels from the centre of a mark to its edge
_ANGLES = np.linspace(0, 2 * np.pi, 17)
_LINES = {  # lines of a mark with radius 1: a ring, a cross and a square
    "repeated": [np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)],
    "missed": [np.array([[-1, -1], [1, 1]]), np.array([[-1, 1], [1, -1]])],
    "unseen": [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])],
}


@dataclass(frozen=True)
class Marks:
    """The keypoints of a view in three kinds, each (N, 2) in pixels.

    repeated  counted, and found again in the other view
    missed    counted, and not found again
    unseen    not counted: among the best of all keypoints, but outside the other view
    """

    repeated: np.ndarray
    missed: np.ndarray
    unseen: np.ndarray


@dataclass(frozen=True)
class Example:
    """One of a detector's best or worst sequences, shown by its images 1 and ``image``.

    kind      "best" or "worst"
    mean      the mean repeatability of the sequence
    marks     keypoints of the two images, in pixels of the images that the detector saw
    pictures  the two images with these marks
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
        """The share of this pair's counted keypoints that are repeated; 0 if a view has none."""
        counts = [(len(marks.repeated), len(marks.missed)) for marks in self.marks]
        return sum(hits for hits, _ in counts) / max(sum(map(sum, counts)), 1)


def grey_picture(image: Tensor) -> np.ndarray:
    """An image (1 or 3, H, W) in [0, 1] as a picture."""
    picture = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return np.ascontiguousarray(picture.expand(3, -1, -1).permute(1, 2, 0).numpy())


def score_picture(scores: Tensor) -> np.ndarray:
    """Scores (1, H, W) in false colours: dark is low. The colours range from the 1st to the 99.9th percentile."""
    values = scores.detach().float().flatten().cpu().numpy()
    low, high = np.quantile(values, [0.01, 0.999])
    scaled = ((scores[0].detach().float().cpu().numpy() - low) / max(high - low, 1e-6)).clip(0, 1)
    coloured = cv2.applyColorMap((scaled * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)


def draw_points(picture: np.ndarray, xy: Tensor, colour: tuple[int, int, int], radius: int = 3) -> np.ndarray:
    """The picture with a circle of ``radius`` pixels at each point (N, 2)."""
    picture = picture.copy()
    shift = 4  # cv2 takes coordinates with this number of binary digits after the point
    for x, y in (xy.detach().cpu().double() * 2**shift).round().long().tolist():
        cv2.circle(picture, (x, y), radius << shift, colour, 1, cv2.LINE_AA, shift)
    return picture


def tint(picture: np.ndarray, mask: Tensor) -> np.ndarray:
    """The picture with the pixels of a mask (1, H, W) in blue."""
    blue = (0.75 * picture + np.array([0, 0, 64])).astype(np.uint8)
    return np.where(mask[0].cpu().numpy()[..., None], blue, picture)


def caption(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture with a line of text on white in its upper left corner."""
    picture = picture.copy()
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    cv2.rectangle(picture, (0, 0), (width + 8, height + base + 6), (255, 255, 255), cv2.FILLED)
    cv2.putText(picture, text, (4, height + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def keypoint_picture(image: Tensor, keypoints: Keypoints, repeated: Tensor | None = None) -> np.ndarray:
    """An image (1 or 3, H, W) with its keypoints (B = 1): green, or where ``repeated`` (1, K) is False, red."""
    picture = grey_picture(image)
    repeated = keypoints.valid if repeated is None else repeated
    picture = draw_points(picture, keypoints.xy[keypoints.valid & ~repeated], RED)
    return draw_points(picture, keypoints.xy[keypoints.valid & repeated], GREEN)


def sheet(rows: list[list[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Pictures of one size in rows and columns, ``gap`` white pixels apart."""
    framed = [[np.pad(p, ((0, gap), (0, gap), (0, 0)), constant_values=255) for p in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in framed], axis=0)


def pair_sheet(seed: int = 0, size: Size = (240, 320), columns: int = 2) -> np.ndarray:
    """``columns`` labelled pairs of each family of synthetic scenes, one family in each row.

    Red circles are corners. Ignored places (junctions of occlusion, and textures) are blue in the second view.
    """
    rows = []
    for name in FAMILIES:
        generator = torch.Generator().manual_seed(seed)
        pair = next(view_pairs(columns, size, generator, render=lambda *a, name=name: render(*a, families=(name,))))
        pictures = [picture for b in range(columns) for picture in _pair_pictures(pair, b)]
        rows.append([caption(pictures[0], name), *pictures[1:]])
    return sheet(rows)


def _pair_pictures(pair: ViewPair, b: int) -> tuple[np.ndarray, np.ndarray]:
    view0 = draw_points(grey_picture(pair.image0[b]), pair.corners0[b][pair.corner_mask0[b]], RED, 4)
    view1 = tint(grey_picture(pair.image1[b]), pair.ignore1[b])
    return view0, draw_points(view1, pair.corners1[b][pair.corner_mask1[b]], RED, 4)


def examples(
    sequences: Sequence[ImageSequence],
    records: Sequence[dict[str, Any]],
    detector_name: str,
    detector: FindKeypoints,
    protocol: Protocol,
    count: int = 3,
) -> list[Example]:
    """The ``count`` best sequences of a detector, best first, then its ``count`` worst, worst first.

    The order is that of the mean repeatability in ``records`` under this protocol. No sequence comes twice. Each
    sequence is shown by the pair whose repeatability is nearest to that mean, because this pair is typical.
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
    sequence: ImageSequence, image: int, detector: FindKeypoints, protocol: Protocol
) -> tuple[tuple[Marks, Marks], tuple[np.ndarray, np.ndarray]]:
    """The marks of images 1 and ``image``, and the two pictures that show them. Runs the detector again."""
    two = (sequence.images[0], sequence.images[image - 1]), (sequence.homographies[image - 2],)
    prepared, pair = benchmark.prepared_sequence(replace(sequence, images=two[0], homographies=two[1]), protocol)
    prepared = [each._replace(number=number) for each, number in zip(prepared, (1, image), strict=True)]
    images = [each.image for each in prepared]
    sizes = [tuple(image.shape[-2:]) for image in images]
    [shared] = benchmark.views(pair, sizes)
    H_0to1 = pair.homography(2, sizes[0])
    found = (benchmark.find_in(each, detector) for each in prepared)
    marks = classify(*found, H_0to1, *sizes, protocol.max_keypoints, protocol.threshold)
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
    """The marks of two views from their keypoints (B = 1), counted as :mod:`kp.evaluation.metrics` does."""
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
    """The picture of an image (1, 1, H, W) with its marks; its longer side has ``LONGEST`` pixels.

    The picture is pale where ``shared`` (1, 1, H, W) is True, and dark where the other view does not see the place.
    """
    size0 = tuple(image.shape[-2:])
    size1 = tuple(max(1, round(n * LONGEST / max(size0))) for n in size0)
    seen = (resize(shared.float(), size1)[0, 0] > 0.5).numpy()[..., None]
    picture = grey_picture(resize(image, size1)[0])
    picture = np.where(seen, 0.6 * picture + 0.4 * 255, 0.35 * picture).astype(np.uint8)
    for kind in (field.name for field in reversed(fields(marks))):  # repeated keypoints are drawn last, on top
        xy = torch.from_numpy(getattr(marks, kind))[None]
        places = warp_points(xy, resize_matrix(size0, size1)[None])[0][0].numpy()
        lines = [place + _RADIUS[kind] * line for place in places for line in _LINES[kind]]
        lines = [(line * 16).round().astype(np.int32) for line in lines]  # cv2 takes 4 binary digits after the point
        for colour, thickness in (((255, 255, 255), 4), (COLOURS[kind], 2)):
            cv2.polylines(picture, lines, False, colour, thickness, cv2.LINE_AA, 4)
    return picture
