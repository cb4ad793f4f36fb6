"""The linear map of descriptors, computed from pairs of views: linear discriminant analysis, where a class is a place.

Fisher 1936; for descriptors Cai, Mikolajczyk and Matas, PAMI 2011. There is no gradient and no step size: the map
depends on sums over all places that were seen, so it can be computed at any time. So can the maps that make of a
descriptor the one that the place would have, seen from the side: linear least squares.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_SHRINKAGE = 0.03  # of the mean variance, added to all variances within a place: those measured small are uncertain
_RIDGE = 1e-3  # of the mean square of a number of descriptors, added to all


class Moments:
    """Sums, float64, over the views of places that two views show each.

    ``count`` of the views; ``total`` (size,) of their features and ``products`` (size, size) of these; ``changes``
    (size, size), products of the differences of two views, over places. Of places seen from the front and from the
    side: ``fronts`` (size + 1, size + 1), products of the features from the front, followed by 1; ``sides`` (tilts,
    size + 1, size + 1), products of those from the side and those from the front.
    """

    def __init__(self, size: int, tilts: int = 0) -> None:
        self.count = torch.zeros((), dtype=torch.float64)
        self.total = torch.zeros(size, dtype=torch.float64)
        self.products = torch.zeros(size, size, dtype=torch.float64)
        self.changes = torch.zeros(size, size, dtype=torch.float64)
        self.fronts = torch.zeros(size + 1, size + 1, dtype=torch.float64)
        self.sides = torch.zeros(tilts, size + 1, size + 1, dtype=torch.float64)

    def add(self, features0: Tensor, features1: Tensor) -> None:
        """Features (M, size) of the same places in view 0 and in view 1."""
        both, change = torch.cat([features0, features1]), features0 - features1
        for name, values in (
            *(("count", both.new_tensor(len(both))), ("total", both.sum(0))),
            *(("products", both.mT @ both), ("changes", change.mT @ change)),
        ):
            setattr(self, name, getattr(self, name) + values.cpu().double())

    def add_tilted(self, front: Tensor, sides: Tensor) -> None:
        """Features (M, size) of places as they are seen, and (tilts, M, size) as they are in each of the tilts."""
        front, sides = (torch.cat([each, torch.ones_like(each[..., :1])], dim=-1) for each in (front, sides))
        self.fronts = self.fronts + (front.mT @ front).cpu().double()
        self.sides = self.sides + (sides.mT @ front).cpu().double()

    def state_dict(self) -> dict[str, Tensor]:
        """What :meth:`load_state_dict` takes."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from these sums."""
        for name, values in state.items():
            setattr(self, name, values)


def merged(each: Sequence[Moments]) -> Moments:
    """The sums of all; at least one."""
    total = Moments(len(each[0].total), len(each[0].sides))
    for moments in each:
        for name, values in vars(moments).items():
            setattr(total, name, getattr(total, name) + values)
    return total


def discriminant(moments: Moments, size: int, orbits: Tensor) -> tuple[Tensor, Tensor]:
    """The linear map, ``weight`` (size, D) and ``bias`` (size,), that tells places apart best; float64.

    In the mapped space a place varies alike in all directions from view to view. Kept are the directions in which
    places differ most, each shortened by the share of its variance that is not of places (Wiener's filter). Mapped
    features have the mean zero and the mean square 1.

    The sums are taken as if each pair of views were seen in all turns of the image. Then Fourier coefficients along the
    orbits have no covariance with those of another frequency, and each frequency is analysed alone. A turn of the image
    rotates the two numbers of a direction, real and imaginary part, so the mapped space is closed under it: there is a
    matrix that turns descriptors (Bökman et al., Steerers, CVPR 2024, who learn it).

    Args:
        moments: of at least one place.
        size: at most D.
        orbits: (D / T, T), the features ``[i, 0]`` to ``[i, T - 1]`` follow each other as the image turns by a Tth.
    """
    count, turns = moments.count, orbits.shape[1]
    mean = torch.empty_like(moments.total)
    mean[orbits] = (moments.total[orbits] / count).mean(1, keepdim=True)  # over all turns
    variance = moments.products / count - mean[:, None] * mean
    within = moments.changes / count  # half the mean square of a difference of two views: count is of views
    within = within + _SHRINKAGE * (within.diagonal().mean() + 1e-12) * torch.eye(len(mean), dtype=mean.dtype)
    found: list[tuple[float, Tensor]] = []  # variance of all by variance of a place, and one or two rows (R, D)
    for frequency in range(turns // 2 + 1):
        found += _directions(variance, within, orbits, frequency)
    found.sort(key=lambda pair: -pair[0])
    rows: list[Tensor] = []
    for value, each in found:
        if len(rows) + len(each) <= size:  # of a direction with two numbers not one alone
            rows += max(value - 1, 0.0) / max(value, 1.0) * each
    weight = torch.stack(rows)
    weight = weight * (weight @ variance @ weight.mT).trace().clamp(min=1e-12).rsqrt()
    return weight, -weight @ mean


def tilt_maps(moments: Moments, weight: Tensor, bias: Tensor, orbits: Tensor) -> Tensor:
    """The matrices (tilts, size, size) that make of mapped features those of the place in each tilt; float64.

    Least squares with a small ridge. The sums are taken as if each place were also seen in the image turned by 180
    degrees, in which a tilt along the x axis is the same tilt.

    Args:
        moments: of tilts along the x axis, of at least one place.
        weight: (size, D), and ``bias`` (size,): the map, see :func:`discriminant`.
        orbits: as of :func:`discriminant`.
    """
    half = torch.arange(len(moments.fronts))  # where each feature is after half a turn; the last is 1
    half[orbits] = orbits.roll(-(orbits.shape[1] // 2), 1)
    mapped = torch.cat([weight, bias[:, None]], dim=1)
    mapped = torch.stack([mapped, mapped[:, half]])[:, None]  # (2, 1, size, D + 1)
    fronts, sides = ((mapped @ each @ mapped.mT).sum(0) for each in (moments.fronts, moments.sides))
    ridge = _RIDGE * fronts[0].diagonal().mean() + 1e-12
    return sides @ torch.linalg.inv(fronts + ridge * torch.eye(len(weight), dtype=fronts.dtype))


def _directions(variance: Tensor, within: Tensor, orbits: Tensor, frequency: int) -> list[tuple[float, Tensor]]:
    """The directions of one frequency: how much places differ in it, and its numbers as rows (1 or 2, D)."""
    turns = orbits.shape[1]
    angles = -2 * math.pi * frequency / turns * torch.arange(turns, dtype=torch.float64)
    basis = torch.zeros(len(orbits), orbits.numel(), dtype=torch.complex128)
    basis.scatter_(1, orbits, torch.polar(torch.full_like(angles, turns**-0.5), angles).expand_as(orbits))
    alone = 2 * frequency % turns == 0  # no imaginary part
    basis = basis.real if alone else basis
    variance, within = (basis @ each.to(basis.dtype) @ basis.mH for each in (variance, within))
    whiten = torch.linalg.cholesky(torch.linalg.inv(within))  # within = inverse(whiten @ whiten.mH)
    values, directions = torch.linalg.eigh(whiten.mH @ variance @ whiten)
    functionals = (whiten @ directions).mH @ basis  # (D / T, D)
    rows = functionals[:, None] if alone else math.sqrt(2) * torch.stack([functionals.real, functionals.imag], dim=1)
    return list(zip(values.tolist(), rows, strict=True))
