"""Two images' own descriptors, seen in the turn and in the sizes in which the images look alike.

A descriptor holds for turns of about 20 degrees and changes of size of about 1.4. Two pictures of one scene differ by
one turn of the camera and one change of distance, more or less, for all keypoints. So both are chosen once for a pair
of images, by counting matches, and no keypoint needs an orientation or a scale of its own.
"""

from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

TURNS = 8  # of 45 degrees each, in a circle

_VOTERS = 300  # keypoints of image 0, the best, whose matches are counted
_RATIO = 0.85  # distance of the best match by that of the second best: at most so much counts
_UNCHANGED = 1.25  # times as much counts a match without a turn or a change of size: they are rare


class Aligned(NamedTuple):
    """Descriptors (N0, D) and (N1, D) that can be compared, and how image 0 changes to look like image 1.

    ``rotation``: degrees in (-180, 180] from the x axis to the y axis. ``scale``: times larger.
    """

    descriptors0: Tensor
    descriptors1: Tensor
    rotation: float = 0.0
    scale: float = 1.0


def align(features0: Mapping[str, Tensor], features1: Mapping[str, Tensor]) -> Aligned:
    """Choose the turn and the sizes of two images, with ``descriptors`` (N, D) each, best keypoints first.

    What is not there is not tried: ``scaled_descriptors`` (N, S, D), of the image and of others each half as large as
    the one before; the matrix ``turn`` (D, D), which both must have.
    """
    sizes0 = _sizes(features0)
    sizes1 = _sizes(features1).to(sizes0.device)
    turns = _turns(features0, features1)
    best, choice = -1.0, (0, 0, 0)
    for i, j in product(range(len(sizes0)), range(len(sizes1))):
        if i and j:
            continue  # one of the images stays as large as it is
        votes = _votes(sizes0[i, :_VOTERS], sizes1[j], turns)
        if not i and not j:
            votes[0] *= _UNCHANGED
        if (most := votes.max().item()) > best:
            best, choice = most, (i, j, int(votes.argmax()))
    i, j, k = choice
    rotation = 180.0 - (180.0 + 45.0 * k) % 360.0
    return Aligned(sizes0[i], sizes1[j] @ turns[k].mT, rotation, 2.0 ** (j - i))


def _sizes(features: Mapping[str, Tensor]) -> Tensor:
    """Descriptors (S, N, D) in each size of the image."""
    descriptors, scaled = features["descriptors"], features.get("scaled_descriptors")
    return descriptors[None] if scaled is None or _replaced(features) else scaled.transpose(0, 1)


def _replaced(features: Mapping[str, Tensor]) -> bool:
    """Whether other descriptors were put into the place of those that were described in several sizes."""
    return "scaled_descriptors" in features and not torch.equal(
        features["scaled_descriptors"][:, 0], features["descriptors"]
    )


def _turns(features0: Mapping[str, Tensor], features1: Mapping[str, Tensor]) -> Tensor:
    """The matrices (T, D, D) of the turns that can be tried: the first is none."""
    size = features0["descriptors"].shape[1]
    none = torch.eye(size, device=features0["descriptors"].device)[None]
    turn = features0.get("turn")
    if turn is None or "turn" not in features1 or turn.shape != (size, size):
        return none
    if _replaced(features0) or _replaced(features1):
        return none
    return torch.stack([torch.linalg.matrix_power(turn, k) for k in range(TURNS)])


def _votes(descriptors0: Tensor, descriptors1: Tensor, turns: Tensor) -> Tensor:
    """How many of ``descriptors0`` (N0, D) have a clear match in ``descriptors1`` (N1, D) after each turn: (T,)."""
    if min(len(descriptors0), len(descriptors1)) < 2:
        return turns.new_zeros(len(turns))
    votes = []
    for turned in descriptors0 @ turns:  # (turn @ d1) . d0 = d1 . (d0 @ turn); all turns at once would take much memory
        nearest = (turned @ descriptors1.mT).topk(2, dim=1).values
        distances = (1 - nearest).clamp(min=0)  # half their squares
        votes.append((distances[:, 0] < _RATIO**2 * distances[:, 1]).sum())
    return torch.stack(votes).float()
