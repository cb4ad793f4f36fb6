"""The linear map of descriptors, computed from pairs of views: linear discriminant analysis, where a class is a place.

Fisher 1936; for descriptors Cai, Mikolajczyk and Matas, PAMI 2011. There is no gradient and no step size: the map
depends on sums over all places that were seen, so it can be computed at any time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_SHRINKAGE = 0.03  # of the mean variance, added to all variances within a place: those measured small are uncertain


class Moments:
    """Sums, float64, over the views of places that two views show each.

    ``count`` of the views; ``total`` (size,) of their features and ``products`` (size, size) of these; ``changes``
    (size, size), products of the differences of two views, over places.
    """

    def __init__(self, size: int) -> None:
        self.count = torch.zeros((), dtype=torch.float64)
        self.total = torch.zeros(size, dtype=torch.float64)
        self.products = torch.zeros(size, size, dtype=torch.float64)
        self.changes = torch.zeros(size, size, dtype=torch.float64)

    def add(self, features0: Tensor, features1: Tensor) -> None:
        """Features (M, size) of the same places in view 0 and in view 1."""
        both, change = torch.cat([features0, features1]), features0 - features1
        for name, values in (
            *(("count", both.new_tensor(len(both))), ("total", both.sum(0))),
            *(("products", both.mT @ both), ("changes", change.mT @ change)),
        ):
            setattr(self, name, getattr(self, name) + values.cpu().double())

    def state_dict(self) -> dict[str, Tensor]:
        """What :meth:`load_state_dict` takes."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from these sums."""
        for name, values in state.items():
            setattr(self, name, values)


def merged(each: Sequence[Moments]) -> Moments:
    """The sums of all; at least one."""
    total = Moments(len(each[0].total))
    for moments in each:
        for name, values in vars(moments).items():
            setattr(total, name, getattr(total, name) + values)
    return total


def discriminant(moments: Moments, size: int) -> tuple[Tensor, Tensor]:
    """The linear map, ``weight`` (size, D) and ``bias`` (size,), that tells places apart best; float64.

    In the mapped space a place varies alike in all directions from view to view. Kept are the ``size`` directions in
    which places differ most, each shortened by the share of its variance that is not of places (Wiener's filter).
    Mapped features have the mean zero and the mean square 1.

    Args:
        moments: of at least one place.
    """
    mean = moments.total / moments.count
    variance = moments.products / moments.count - mean[:, None] * mean
    within = moments.changes / moments.count  # half the mean square of a difference of two views: count is of views
    within = within + _SHRINKAGE * (within.diagonal().mean() + 1e-12) * torch.eye(len(mean), dtype=mean.dtype)
    whiten = torch.linalg.cholesky(torch.linalg.inv(within))  # (D, D), within = inverse(whiten @ whiten.mT)
    values, directions = torch.linalg.eigh(whiten.mT @ variance @ whiten)
    values, directions = values.flip(0)[:size], directions.flip(1)[:, :size]
    weight = whiten @ directions * ((values - 1).clamp(min=0) / values.clamp(min=1))
    scale = (weight.mT @ variance @ weight).trace().clamp(min=1e-12).rsqrt()
    weight = weight * scale
    return weight.mT, -mean @ weight
