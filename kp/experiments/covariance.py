"""How far keypoints are off, and whether their covariances say so.

A keypoint's covariance is the inverse of the score map's sharpness there, times a scale. The scale is measured on
synthetic pairs, whose homographies are exact. The error of a repeated keypoint, divided by the covariances of both
views (the normalised squared error), has a mean of 2 where these are right: there are two coordinates.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from kp.data.hpatches import ImageSequence
from kp.data.pairs import as_sequences, held_out_pairs
from kp.evaluation.detected_pairs import inside_mask
from kp.geometry.coords import jacobian, warp_points
from kp.models.corner import CornerDetector

THRESHOLD = 3.0  # pixels within which a keypoint is repeated
MAX_KEYPOINTS = 1000  # of an image
PARTS = 5  # of the keypoints, by the size of the foretold error


class Errors(NamedTuple):
    """Repeated keypoints: ``error`` (M, 2) in pixels of view 1, and the covariance (M, 2, 2) foretold for it."""

    error: Tensor
    covariance: Tensor


def synthetic(batches: int = 8) -> list[ImageSequence]:
    """Pairs of 240x320 pixels that no training sees, eight a batch."""
    return [sequence for pair in held_out_pairs(batches) for sequence in as_sequences(pair)]


@torch.inference_mode()
def repeated_keypoints(detector: CornerDetector, sequences: Iterable[ImageSequence]) -> Errors:
    """The errors of the keypoints that are each other's nearest, within 3 px, in image 1 and another of a sequence."""
    errors = [pair for sequence in sequences for pair in _of_sequence(detector, sequence)]
    return Errors(*(torch.cat(values) for values in zip(*errors, strict=True)))


def scale_that_fits(errors: Errors) -> float:
    """The factor of the covariances with which the errors are most likely, which makes the mean of :func:`nse` 2."""
    return nse(errors).mean().item() / 2


def nse(errors: Errors) -> Tensor:
    """The normalised squared errors (M,)."""
    return (errors.error[:, None] @ torch.linalg.inv(errors.covariance) @ errors.error[..., None])[:, 0, 0]


def by_size(errors: Errors, parts: int = PARTS) -> list[tuple[float, float]]:
    """Foretold and true error (root mean square, pixels), by parts of equal number from the smallest foretold on.

    There must be as many keypoints as parts.
    """
    foretold = errors.covariance.diagonal(dim1=1, dim2=2).sum(1)
    true = errors.error.square().sum(1)
    order = foretold.argsort().tensor_split(parts)
    return [tuple(values[part].mean().sqrt().item() for values in (foretold, true)) for part in order]


def _of_sequence(detector: CornerDetector, sequence: ImageSequence) -> Iterable[Errors]:
    images, found = [load() for load in sequence.images], []
    for index, image in enumerate(images):
        keypoints = detector.keypoints(image, None if sequence.valid else MAX_KEYPOINTS, subpixel=True)
        if sequence.valid:
            keypoints = inside_mask(keypoints, sequence.valid[index])
        xy = keypoints.xy[keypoints.valid][None, :MAX_KEYPOINTS]
        found.append((xy.double(), detector.covariances(image, xy)[0].double()))
    for index in range(1, len(images)):
        H_0to1 = sequence.homography(index + 1, tuple(images[0].shape[-2:]))
        yield _of_pair(*found[0], *found[index], H_0to1.double())


def _of_pair(xy0: Tensor, covariance0: Tensor, xy1: Tensor, covariance1: Tensor, H_0to1: Tensor) -> Errors:
    there, in_front = warp_points(xy0, H_0to1)
    distances = torch.cdist(there, xy1)[0]
    if not distances.numel():
        return Errors(xy0.new_zeros(0, 2), xy0.new_zeros(0, 2, 2))
    near, nearest = distances.min(1)
    mutual = distances.argmin(0)[nearest] == torch.arange(len(nearest))
    kept = mutual & (near < THRESHOLD) & in_front[0]
    J = jacobian(H_0to1, xy0)[0][kept]
    covariance = J @ covariance0[kept] @ J.mT + covariance1[nearest[kept]]
    return Errors((xy1[0, nearest] - there[0])[kept], covariance)
