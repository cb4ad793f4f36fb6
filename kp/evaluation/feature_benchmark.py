"""With --features NAME ..., complete features are measured instead of detectors: a detector with its descriptor, as
users run it. NAME is a feature (kp, sift, orb, xfeat, aliked-n16, aliked-t16, disk, or the name of shipped weights), or
DETECTOR+DESCRIPTOR, such as kp+rootsift, kp+xfeat or harris+orb: the points of one, the descriptors of another. kp, and
the points of kp, are those of kp.Extractor with its defaults; SIFT (as RootSIFT) and ORB are OpenCV's detectAndCompute;
XFeat, ALIKED and DISK are Kornia's, each with its own threshold and suppression. All get the same grey image.

Each image's best --points count, whether the other view sees them or not; one search at the largest number gives all. A
feature may find fewer: the column points says how many there are. Matches are mutual nearest neighbours, without a
ratio test. Descriptors of kp's own weights are compared in that turn (of eight), in those sizes (of three) and in that
tilt of the two images in which most of them have a clear match, as kp.match does; described+upright compares them as
they are. NAME+refined moves the matched points of image k to where the pictures fit (kp.refine), also from a keypoint
near the right one: a step for all features, which "kp match" and kp.match_pair take. Ours tell it their turn and sizes,
and are compared at half the size, too, where this costs no clear match (kp.match's context). Before, where a homography
of the first matches is evidence that two images are not seen alike, one is described anew as the other sees it, at the
same points, too: what one homography fits of these matches counts, and the other points are matched by both looks. So
for all but the complete features sift and orb, NAME+upright and oracles. The places that are found count.
DETECTOR+oracle matches the points of one by the given homography, one to one and within 3 px: no descriptor has more
right matches as found. MMA is the share of matches right to 1, 3 and 5 px of image k, 0 without a match. A match is
right within 3 px. The matching score is the number of right matches divided by that of points that the other view sees,
the mean of both views (SuperPoint, CVPRW 2018). H is the share of pairs whose homography moves the image's corners
right to so many px on average. It is fitted with a threshold of 3 px by OpenCV's MAGSAC, followed by least squares on
its inliers, or by PoseLib. AUC is the area under the curve of that share from 0 to so many px, divided by them
(SuperGlue, CVPR 2020). All numbers are means over pairs (1, k). The 95 % intervals are by bootstrap over sequences;
those of the differences between the first feature and each of the others are paired.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from torch import Tensor

from kp.data.hpatches import ImageSequence
from kp.evaluation.feature_matching import measure_pair
from kp.evaluation.features import REFINED, Feature, describer, is_oracle
from kp.features.describe import Described
from kp.features.second_look import Describe
from kp.support.errors import named
from kp.support.parallel import map_items

_DIGITS = 6  # of the numbers in a record, after the decimal point


def evaluate_features(
    sequences: Sequence[ImageSequence], features: Mapping[str, Feature], points: Sequence[int], workers: int = 1
) -> Iterator[dict[str, Any]]:
    """Measure every pair (image 1, image k) by each feature and number of points: one plain dict for each.

    A record has ``feature``, ``points`` (how many were asked for), ``sequence``, ``split``, ``kind``, ``image`` (k) and
    what :func:`kp.evaluation.feature_matching.measure_pair` says, None where a number is infinite. They come a sequence
    at a time. Each feature sees each image once. With more ``workers`` than one, processes share the sequences; the
    features must be picklable. Draws a progress bar on stderr.
    """
    work = partial(_measurer, features, tuple(points))
    for records in map_items(work, sequences, workers, name=attrgetter("name"), unit="sequence"):
        yield from records


def _measurer(
    features: Mapping[str, Feature], points: Sequence[int]
) -> Callable[[ImageSequence], list[dict[str, Any]]]:
    return partial(measure_sequence, features=features, points=points)


def measure_sequence(
    sequence: ImageSequence, features: Mapping[str, Feature], points: Sequence[int]
) -> list[dict[str, Any]]:
    """The records of one sequence, see :func:`evaluate_features`."""
    images = [load() for load in sequence.images]
    records, seen = [], {}
    for name, feature in features.items():
        with named(f"{name} on {sequence.name}"):
            found = name.removesuffix(REFINED)
            described = seen.pop(found, None) or [feature(image) for image in images]
            if name == found and name + REFINED in features:
                seen[name] = described
            describe = describer(feature)
            facts = {"feature": name, "sequence": sequence.name, "split": sequence.split, "kind": sequence.kind}
            for number in range(2, len(images) + 1):
                for count in points:
                    scores = _pair_scores(sequence, images, described, number, count, name, describe)
                    records.append(facts | {"image": number, "points": count} | scores)
    return records


def _pair_scores(
    sequence: ImageSequence,
    images: Sequence[Tensor],
    described: Sequence[Described],
    number: int,
    count: int,
    name: str,
    describe: Describe | None,
) -> dict[str, float | None]:
    pair = images[0], images[number - 1]
    size0, size1 = (tuple(image.shape[-2:]) for image in pair)
    H_0to1 = sequence.homography(number, size0)[0]
    choices = pair if name.endswith(REFINED) else None, is_oracle(name), describe
    scores = measure_pair(described[0], described[number - 1], H_0to1, size0, size1, count, *choices)
    return {name: round(value, _DIGITS) if math.isfinite(value) else None for name, value in scores.items()}
