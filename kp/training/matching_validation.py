"""What descriptors are worth while they are trained: right matches and homographies, which no loss can flatter."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from kp.config import DESCRIPTOR_SCALES
from kp.data import hpatches
from kp.data.hpatches import ImageSequence
from kp.evaluation import matching
from kp.evaluation.detected_pairs import inside_mask
from kp.features.describe import Described, rootsift
from kp.models.corner import CornerDetector
from kp.models.keypoints import Keypoints

MAX_KEYPOINTS = 1000  # of an image

DescribeKeypoints = Callable[[Tensor, Keypoints], Described]  # of an image (1, 1, H, W)


class RealMatches:
    """Real sequences, and how much better a detector's descriptors match there than the floor's.

    The floor of descriptors is RootSIFT, with which nothing is learnt, at the keypoints by score.

    Raises:
        HPatchesError: there are no sequences in ``root``.
    """

    def __init__(self, root: Path) -> None:
        self.sequences = hpatches.read(root)
        self.floor: dict[str, float] | None = None  # of keypoints in order of score, as no training changes them

    def measure(self, detector: CornerDetector) -> dict[str, float]:
        """``validation``, the mean matching accuracy over pairs, all of :func:`matching_scores`, and how much they are
        above the floor, named ``above_floor_mma_i`` and so on.
        """
        if self.floor is None:
            unranked = CornerDetector(detector.settings, ranker_width=0, descriptor_size=0).eval()
            self.floor = matching_scores(self.sequences, unranked, by_rootsift)
        scores = matching_scores(self.sequences, detector, describer(detector))
        above = {f"above_floor_{name}": value - self.floor[name] for name, value in scores.items()}
        return {"validation": scores["mma"]} | scores | above


def describer(detector: CornerDetector) -> DescribeKeypoints:
    """The detector's own descriptors as users compare them, see :func:`kp.match`; on the CPU."""
    turn, tilts = detector.describer.turn(), detector.describer.tilts()
    matrices = [None if each is None else each.cpu() for each in (turn, tilts)]

    def describe(image: Tensor, keypoints: Keypoints) -> Described:
        xy = keypoints.xy[:, keypoints.valid[0]]
        device = next(detector.parameters()).device
        scaled = detector.describe_in_sizes(image.to(device), xy.to(device), DESCRIPTOR_SCALES)[0].cpu()
        return Described(xy[0], scaled[:, 0], scaled, *matrices)

    return describe


def by_rootsift(image: Tensor, keypoints: Keypoints) -> Described:
    """The floor of descriptors: RootSIFT, with which nothing is learnt."""
    return rootsift(image, keypoints, MAX_KEYPOINTS)


@torch.inference_mode()
def matching_scores(
    sequences: Iterable[ImageSequence],
    detector: CornerDetector,
    describe: DescribeKeypoints,
    count: int = MAX_KEYPOINTS,
) -> dict[str, float]:
    """Means over the pairs: ``mma`` within 3 px, ``right_matches`` and ``homography_auc`` at 5 px (MAGSAC).

    Of matches, see :func:`kp.match`, among the best ``count`` keypoints of each image. ``mma_i``, ``mma_v`` and so on
    are those of one split, where there are both.
    """
    rows = [row for sequence in sequences for row in _pairs(sequence, detector, describe, count)]
    parts = {"": rows} | {f"_{split}": [row for row in rows if row["split"] == split] for split in ("i", "v")}
    if not parts["_i"] or not parts["_v"]:
        parts = {"": rows}
    return {name + part: value for part, some in parts.items() if some for name, value in _means(some).items()}


def _means(rows: Sequence[dict]) -> dict[str, float]:
    return {
        "mma": fmean(row["matching_accuracy_3px"] for row in rows),
        "right_matches": fmean(row["matching_accuracy_3px"] * row["matches"] for row in rows),
        "homography_auc": matching.auc([row["corner_error"] for row in rows])[-1],
    }


def _pairs(
    sequence: ImageSequence, detector: CornerDetector, describe: DescribeKeypoints, count: int
) -> Iterable[dict]:
    images, features = [load() for load in sequence.images], []
    device = next(detector.parameters()).device if detector.describer is not None else torch.device("cpu")
    for index, image in enumerate(images):
        found = detector.keypoints(image.to(device), None if sequence.valid else count, subpixel=True).to("cpu")
        if sequence.valid:
            found = inside_mask(found, sequence.valid[index]).select(torch.ones_like(found.valid), count)
        features.append(describe(image, found))
    size0 = tuple(images[0].shape[-2:])
    for index in range(1, len(images)):
        H_0to1 = sequence.homography(index + 1, size0)
        yield {"split": sequence.split} | matching.measure_pair(features[0], features[index], H_0to1[0], size0)
