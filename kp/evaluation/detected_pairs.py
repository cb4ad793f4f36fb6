"""Pairs of a sequence with the keypoints of their images, and the short way to score them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from torch import Tensor

from kp.data.hpatches import ImageSequence
from kp.evaluation import metrics
from kp.evaluation.registry import FindKeypoints
from kp.geometry.coords import Size
from kp.models.keypoints import Keypoints


class DetectedPair(NamedTuple):
    """Keypoints (B = 1) of image 1 and of image ``number``, H_0to1 (1, 3, 3), and the sizes (H, W) of both images."""

    number: int
    keypoints0: Keypoints
    keypoints1: Keypoints
    H_0to1: Tensor
    size0: Size
    size1: Size


def detected_pairs(
    sequence: ImageSequence, images: Sequence[Tensor], keypoints: Sequence[Keypoints]
) -> Iterator[DetectedPair]:
    """Every pair (image 1, image k) of a sequence with the keypoints of its images: what every measure begins with."""
    sizes = [tuple(image.shape[-2:]) for image in images]
    for index in range(1, len(images)):
        H_0to1 = sequence.homography(index + 1, sizes[0])
        yield DetectedPair(index + 1, keypoints[0], keypoints[index], H_0to1, sizes[0], sizes[index])


def score_sequences(
    sequences: Iterable[ImageSequence],
    find: FindKeypoints,
    counts: Callable[[ImageSequence], Sequence[int]],
    threshold: float = 3.0,
) -> Iterator[dict[str, Any]]:
    """Repeatability and localisation error of every pair: a record for each pair and number of keypoints.

    A record has ``kind`` and ``sequence`` of the sequence, ``count``, ``repeatability`` and ``localisation_error`` (NaN
    where nothing matched). An image that occurs in several sequences is searched once.

    Args:
        counts: of a sequence, the numbers of best keypoints that count.
        threshold: pixels within which a keypoint is repeated.
    """
    known: dict[bytes, Keypoints] = {}

    def search(image: Tensor) -> Keypoints:
        key = sha256(image.numpy(force=True).tobytes()).digest() + str(image.shape).encode()
        if key not in known:
            known[key] = find(image)
        return known[key]

    for sequence in sequences:
        images = [load() for load in sequence.images]
        keypoints = [search(image) for image in images]
        if sequence.valid:
            keypoints = [inside_mask(*each) for each in zip(keypoints, sequence.valid, strict=True)]
        for pair in detected_pairs(sequence, images, keypoints):
            for count in counts(sequence):
                scores = metrics.repeatability(*pair[1:], count, threshold)
                yield {
                    "kind": sequence.kind,
                    "sequence": sequence.name,
                    "count": count,
                    "repeatability": scores.repeatability.item(),
                    "localisation_error": scores.localisation_error.item(),
                }


def inside_mask(keypoints: Keypoints, mask: Tensor) -> Keypoints:
    """The keypoints (B = 1) whose nearest pixel is in ``mask`` (1, 1, H, W)."""
    height, width = mask.shape[-2:]
    x, y = keypoints.xy.round().long().unbind(-1)
    return keypoints.select(mask[0, 0, y.clamp(0, height - 1), x.clamp(0, width - 1)])
