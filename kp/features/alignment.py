"""Two images' own descriptors, seen in the turn, the sizes and the tilt in which the images look alike.

A descriptor holds for turns of about 20 degrees, where most edges are straight and parallel, as of walls, of 5, for
changes of size of about 1.4 and as much of a tilt. Two pictures of one scene differ by one turn of the camera, one
change of distance and one view from the side, more or less, for all keypoints. So these are chosen once for a pair of
images, by counting matches, and no keypoint needs an orientation, a scale or a shape of its own.
"""

import math
from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.models.describer import TILTS

TURNS = 8  # of 45 degrees each, in a circle

_FINER = 4  # parts of such a turn: the best turns are tried with some more and less, in steps of 11.25 degrees
_DIRECTIONS = 4  # of a tilt, 45 degrees from each other: those opposite are the same
_VOTERS = 300  # keypoints of image 0, the best, whose matches are counted
_RATIO = 0.85  # distance of the best match by that of the second best: at most so much counts
_CHANCE = 4  # votes more has what changes nothing: chance gives a few to any of all changes
_BETWEEN = 0.98  # times as much counts one in a turn between those of 45 degrees: most cameras are held straight
_FEWEST = 8.0  # votes: with fewer nothing is changed, as chance gives some to any change
_TRIED = 2  # changes, the best, that are tried with finer turns and with tilts
_ALIKE = 2 / 3  # of the voters: with so many votes the images are taken as they are, and no tilt is tried


class Aligned(NamedTuple):
    """Descriptors (N0, D) and (N1, D), or of 2 D numbers, to be compared, and how image 0 changes to look like image 1.

    ``rotation``: degrees in (-180, 180] from the x axis to the y axis. ``scale``: times larger. ``tilt``: times
    narrower along one direction; below 1: image 1 was made narrower, 1 / ``tilt`` times. It is what was tried: half the
    size and image 1 narrower is about the same change as image 0 narrower along the other direction.
    """

    descriptors0: Tensor
    descriptors1: Tensor
    rotation: float = 0.0
    scale: float = 1.0
    tilt: float = 1.0


class _Change(NamedTuple):
    """Which sizes of the images are compared, in which turn, and which tilt, if any, of which image.

    ``turn`` counts parts of a turn of 45 degrees, see ``_FINER``. ``context``: whether the next smaller sizes are
    compared, too.
    """

    size0: int
    size1: int
    turn: int
    tilt: int | None = None
    narrowed: int = 0
    context: bool = False


def align(features0: Mapping[str, Tensor], features1: Mapping[str, Tensor], context: bool = False) -> Aligned:
    """Choose the turn, the sizes and the tilt of two images, with ``descriptors`` (N, D) each, best keypoints first.

    What is not there is not tried: ``scaled_descriptors`` (N, S, D), of the image and of others each half as large as
    the one before; the matrix ``turn`` (D, D), which both must have; the matrices ``tilts`` (T, D, D), which both must
    have beside it.

    Args:
        context: compare those of both images at half of the chosen sizes, too, if there are any, where this costs no
            vote: (N, 2 D), of which both halves count alike. What lies around differs where the images overlap little.
    """
    pair, unchanged = _Pair(features0, features1), _Change(0, 0, 0)
    votes = {unchanged: pair.votes(unchanged)}
    if votes[unchanged] - _CHANCE < _ALIKE * pair.voters():
        votes |= {change: pair.votes(change) for change in pair.turned() if change != unchanged}
        tried: dict[_Change, None] = {}  # in order, each once
        for change in sorted(votes, key=votes.__getitem__, reverse=True)[:_TRIED]:
            finer = pair.turned_finer(change)
            votes |= {each: pair.votes(each) for each in finer if each not in votes}
            tried |= dict.fromkeys([change, max([change, *finer], key=votes.__getitem__)])
        if max(votes.values()) < _ALIKE * pair.voters():
            for change in tried:
                votes |= {each: pair.votes(each) for each in pair.tilted(change)}
    best = max(votes, key=votes.__getitem__)
    chosen = best if votes[best] >= _FEWEST else unchanged
    with_context = chosen._replace(context=True)
    if context and pair.has_context(chosen) and pair.votes(with_context) >= votes[chosen]:
        chosen = with_context
    return pair.aligned(chosen)


def as_they_are(features0: Mapping[str, Tensor], features1: Mapping[str, Tensor], context: bool = False) -> Aligned:
    """The descriptors of two images that are seen alike, with ``context`` as of :func:`align` if there is any."""
    pair, nothing = _Pair(features0, features1), _Change(0, 0, 0)
    return pair.aligned(nothing._replace(context=context and pair.has_context(nothing)))


class _Pair:
    """Two images' descriptors in all sizes, (S, N, D) each, and the matrices that change them."""

    def __init__(self, features0: Mapping[str, Tensor], features1: Mapping[str, Tensor]) -> None:
        self.sizes0 = _sizes(features0)
        self.sizes1 = _sizes(features1).to(self.sizes0.device)
        self.eighths, self.tilts = _matrices(features0, features1)

    def turned(self) -> list[_Change]:
        """All turns in all sizes, of which one of the images stays as large as it is."""
        sizes = product(range(len(self.sizes0)), range(len(self.sizes1)))
        turns = range(0, len(self.eighths) * _FINER, _FINER)
        return [_Change(i, j, turn) for i, j in sizes if not (i and j) for turn in turns]

    def turned_finer(self, change: _Change) -> list[_Change]:
        """A little more and less of the turn of a change."""
        more = [part for part in range(-(_FINER // 2), _FINER // 2 + 1) if part and len(self.eighths) > 1]
        return [change._replace(turn=(change.turn + part) % (len(self.eighths) * _FINER)) for part in more]

    def tilted(self, change: _Change) -> list[_Change]:
        """All tilts of either image beside a change."""
        return [change._replace(tilt=tilt, narrowed=image) for tilt in range(len(self.tilts)) for image in (0, 1)]

    def compared(self, change: _Change, count: int | None = None) -> tuple[Tensor, Tensor]:
        """The descriptors of image 0, of its best ``count`` keypoints, and those of image 1."""
        if change.context:
            alone = change._replace(context=False)
            half = alone._replace(size0=change.size0 + 1, size1=change.size1 + 1)
            pairs = zip(self.compared(alone, count), self.compared(half, count), strict=True)
            one, two = (_beside(*each) for each in pairs)
            return one, two
        descriptors = [self.sizes0[change.size0, :count], self.sizes1[change.size1]]
        if change.tilt is not None:
            tilted = descriptors[change.narrowed] @ self.tilts[change.tilt].mT
            descriptors[change.narrowed] = F.normalize(tilted, dim=1)
        turned = descriptors[0] @ _turn(self.eighths, change.turn)  # d0 . (turn @ d1) = (d0 @ turn) . d1
        return (F.normalize(turned, dim=1) if change.turn % _FINER else turned), descriptors[1]

    def has_context(self, change: _Change) -> bool:
        """Whether both images have a smaller size than those compared."""
        return change.size0 + 1 < len(self.sizes0) and change.size1 + 1 < len(self.sizes1)

    def voters(self) -> int:
        """How many votes there can be. A descriptor that is zero, as in a batch with empty places, has none."""
        return min(int(each.any(1).sum()) for each in (self.sizes0[0, :_VOTERS], self.sizes1[0]))

    def votes(self, change: _Change) -> float:
        """How many keypoints of image 1 are the clear match of a voter, weighed by how likely the change is."""
        descriptors0, descriptors1 = self.compared(change, _VOTERS)
        if min(len(descriptors0), len(descriptors1)) < 2:
            return 0.0
        cosines = descriptors0 @ descriptors1.mT
        least = 1 - (1 - cosines.amax(1)).clamp(min=0) / _RATIO**2  # half of a squared distance is 1 - cosine
        near = cosines.ge_(least[:, None])  # as numbers, whose sums are fast
        clear = (near.sum(1) == 1).to(near)
        votes = int((clear @ near).count_nonzero())
        if change.turn % _FINER:
            return votes * _BETWEEN
        return votes if any(change[:3]) or change.tilt is not None else votes + _CHANCE

    def aligned(self, change: _Change) -> Aligned:
        """What was chosen."""
        rotation = 180.0 - (180.0 + 360.0 / (TURNS * _FINER) * change.turn) % 360.0
        tilt = 1.0 if change.tilt is None else TILTS[change.tilt // _DIRECTIONS]
        tilt = 1 / tilt if change.narrowed else tilt
        return Aligned(*self.compared(change), rotation, 2.0 ** (change.size1 - change.size0), tilt)


def _beside(descriptors: Tensor, others: Tensor) -> Tensor:
    """Two descriptors of each keypoint (N, D) in one of unit length (N, 2 D); zero where the first is."""
    return F.normalize(torch.cat([descriptors, others], dim=1), dim=1) * descriptors.any(1, keepdim=True)


def _sizes(features: Mapping[str, Tensor]) -> Tensor:
    """Descriptors (S, N, D) in each size of the image."""
    descriptors, scaled = features["descriptors"], features.get("scaled_descriptors")
    return descriptors[None] if scaled is None or _replaced(features) else scaled.transpose(0, 1)


def _replaced(features: Mapping[str, Tensor]) -> bool:
    """Whether other descriptors were put into the place of those that were described in several sizes."""
    return "scaled_descriptors" in features and not torch.equal(
        features["scaled_descriptors"][:, 0], features["descriptors"]
    )


def _matrices(features0: Mapping[str, Tensor], features1: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The matrices (turns, D, D) of the turns that can be tried, the first is none; and those (tilts, D, D) of tilts,
    each along several directions.
    """
    like = features0["descriptors"]
    size, turn, tilts = like.shape[1], features0.get("turn"), features0.get("tilts")
    none = torch.eye(size, device=like.device)[None]
    if turn is None or "turn" not in features1 or turn.shape != (size, size):
        return none, none[:0]
    if _replaced(features0) or _replaced(features1):
        return none, none[:0]
    turns = torch.stack([torch.linalg.matrix_power(turn, k) for k in range(TURNS)])
    if tilts is None or "tilts" not in features1 or tilts.shape != (len(TILTS), size, size):
        return turns, none[:0]
    back = turns.roll(-1, 0).flip(0)  # the inverse of each
    directions = range(_DIRECTIONS)  # turned to the x axis, tilted there, turned back
    return turns, torch.stack([turns[k] @ tilt @ back[k] for tilt in tilts for k in directions])


def _turn(eighths: Tensor, part: int) -> Tensor:
    """The matrix (D, D) of a turn by so many parts, see ``_FINER``, from those of turns by 45 degrees (TURNS, D, D).

    As a turn of 360 degrees changes nothing, each number of a descriptor is a sum of waves of the turn, and eight
    values of a sum of waves give those between, as far as the waves are not shorter than two of the steps.
    """
    if part % _FINER == 0:
        return eighths[part // _FINER]
    angles = 2 * math.pi / TURNS * (part / _FINER - torch.arange(TURNS).to(eighths))
    waves = sum(2 * torch.cos(frequency * angles) for frequency in range(1, TURNS // 2))
    weights = (1 + waves + torch.cos(TURNS // 2 * angles)) / TURNS
    return torch.einsum("k,kij->ij", weights, eighths)
