"""Mutual nearest neighbours of descriptors."""

import torch
from kornia.feature import match_mnn, match_smnn
from torch import Tensor


def mutual_neighbours(one: Tensor, two: Tensor, ratio: float | None = None) -> tuple[Tensor, Tensor]:
    """Index pairs (M, 2), in order of the first, and their cosines (M,), of descriptors (N, D), (K, D) of unit length.

    A descriptor that is zero, as where nothing was described, has none.

    Args:
        ratio: see :func:`kp.match`.
    """
    at0, at1 = (each.any(1).nonzero()[:, 0] for each in (one, two))
    one, two = one[at0], two[at1]
    pairs = torch.empty(0, 2, dtype=torch.long, device=one.device)
    if ratio is None and len(one) and len(two):
        pairs = match_mnn(one, two)[1]
    elif min(len(one), len(two)) >= 2:
        pairs = match_smnn(one, two, ratio)[1]
    pairs = pairs[pairs[:, 0].argsort()]
    scores = (one[pairs[:, 0]] * two[pairs[:, 1]]).sum(1)
    return torch.stack([at0[pairs[:, 0]], at1[pairs[:, 1]]], dim=1), scores
