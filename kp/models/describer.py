"""The describer: what is at a keypoint. It moves none of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kp.geometry.block_filters import at_half_size
from kp.models.gradient_histograms import ORBITS, SIZE, gradient_histograms
from kp.support.device import full_precision

TILTS = (1.6, 3.0)  # factors by which a plane is narrower from the side; a descriptor holds for about 1.4

_CLOSED = 1e-3  # share of a linear map that may be lost in turns of 45 degrees: more than by rounding it has no turn


class Describer(nn.Module):
    """Grey images (B, 1, H, W) and keypoints' places (B, K, 2) -> descriptors (B, K, size) of unit length.

    A descriptor is a linear map of the histograms of :mod:`kp.models.gradient_histograms` at its place, divided by its
    length. The map is not trained by a gradient: :mod:`kp.training.discriminant` computes it, and ``side_maps`` (T,
    size, size), one for each of ``TILTS``, which are zero in weights of earlier versions.

    Args:
        size: numbers of a descriptor.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # what is trained beside it takes the same chance with and without it
            self.linear = nn.Linear(SIZE, size).requires_grad_(False)
        self.register_buffer("side_maps", torch.zeros(len(TILTS), size, size))  # no parameter: checkpoints list these

    def forward(self, grey: Tensor, xy: Tensor) -> Tensor:
        return self.of_histograms(gradient_histograms(at_half_size(grey).float(), xy))

    def of_histograms(self, histograms: Tensor) -> Tensor:
        """Gradient histograms (B, K, SIZE) of keypoints -> their descriptors (B, K, size)."""
        with full_precision(histograms.device):
            return F.normalize(self.linear(histograms), dim=2)

    @torch.no_grad()
    def turn(self) -> Tensor | None:
        """The matrix (size, size) that makes of a descriptor the one it would be in the image turned by 45 degrees,
        from the x axis to the y axis: exact for the histograms. None where there is none, as of a map that is random.
        """
        weight = self.linear.weight.cpu().double()  # not every device has float64
        turned = torch.empty_like(weight)
        turned[:, ORBITS] = weight[:, ORBITS.roll(-1, 1)]
        turn = turned @ torch.linalg.pinv(weight)
        lacks = (turn @ weight - turned).norm() / turned.norm()
        return turn.float().to(self.linear.weight.device) if lacks < _CLOSED else None

    @torch.no_grad()
    def tilts(self) -> Tensor | None:
        """The matrices (T, size, size) that change a descriptor to about that of the same place in the image narrowed
        along the x axis, by each of ``TILTS``. Scaled to unit length it can be compared. None where there are none.
        """
        return self.side_maps.clone() if self.side_maps.any() else None

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Weights of versions that knew no tilts have none."""
        state_dict.setdefault(f"{prefix}side_maps", torch.zeros_like(self.side_maps))
        super()._load_from_state_dict(state_dict, prefix, *rest)
