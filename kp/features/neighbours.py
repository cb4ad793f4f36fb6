"""Mutual nearest neighbours of descriptors."""

from collections.abc import Sequence

import torch
from kornia.feature import match_mnn, match_smnn
from torch import Tensor


def mutual_neighbours(looks: Sequence[tuple[Tensor, Tensor]], ratio: float | None = None) -> tuple[Tensor, Tensor]:
    """Index pairs (M, 2), in order of the first, and their cosines (M,), of descriptors (N, D), (K, D) of unit length.

    A descriptor that is zero, as where nothing was described, has none.

    Args:
        looks: in which the same N and K places were described. Two places are as near as in the look in which they are
            nearest.
        ratio: see :func:`kp.match`.
    """
    at0, at1 = (torch.stack([each.any(1) for each in sides]).any(0) for sides in zip(*looks, strict=True))
    at0, at1 = (each.nonzero()[:, 0] for each in (at0, at1))
    looks = [(one[at0], two[at1]) for one, two in looks]
    one, two = looks[0]
    if min(len(one), len(two)) < (1 if ratio is None else 2):  # files may not say how long no descriptors are
        return torch.empty(0, 2, dtype=torch.long, device=one.device), one.new_zeros(0)
    distances = None if len(looks) == 1 else _distances(looks)  # None: Kornia computes them
    pairs = (match_mnn(one, two, distances) if ratio is None else match_smnn(one, two, ratio, distances))[1]
    pairs = pairs[pairs[:, 0].argsort()]
    cosines = [(one[pairs[:, 0]] * two[pairs[:, 1]]).sum(1) for one, two in looks]
    return torch.stack([at0[pairs[:, 0]], at1[pairs[:, 1]]], dim=1), torch.stack(cosines).amax(0)


def _distances(looks: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The least distance (N, K) of descriptors in any look; as of opposite ones in a look in which one is zero."""
    nearest = None
    for one, two in looks:
        cosines = one @ two.mT
        cosines[~one.any(1)] = -1
        cosines[:, ~two.any(1)] = -1
        nearest = cosines if nearest is None else torch.maximum(nearest, cosines, out=nearest)
    return nearest.neg_().add_(1).mul_(2).clamp_(min=0).sqrt_()
