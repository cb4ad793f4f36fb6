"""The describer: what is at a keypoint (a descriptor), and whether it will be matched. It moves none of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kp.geometry.block_filters import at_half_size
from kp.geometry.coords import sample_at, upsample
from kp.models.detector import blur
from kp.models.encoders import Encoder
from kp.models.gradient_histograms import ORBITS, SIZE, gradient_histograms, in_own_frame
from kp.models.mobile import normalise, pad_to_lattice, separable
from kp.support.device import full_precision

TILTS = (1.6, 3.0)  # factors by which a plane is narrower from the side; a descriptor holds for about 1.4

_CONTRAST_SIGMA = 8.0  # pixels of the image at half size over which contrast is measured
_STRIDE = 16  # of the encoder's coarsest stage, in pixels of the image at half size
_FINEST = 2  # of the pyramid's finest level, in the same pixels
_CLOSED = 1e-3  # share of a linear map that may be lost in turns of 45 degrees: more than by rounding it has no turn


class Describer(nn.Module):
    """Grey images (B, 1, H, W) and keypoints' places (B, K, 2) -> descriptors (B, K, size) and logits (B, K).

    A descriptor is a linear map of the histograms of :mod:`kp.models.gradient_histograms` at its place, divided by its
    length. The map is not trained by a gradient: :mod:`kp.training.discriminant` computes it, and ``side_maps`` (T,
    size, size), one for each of ``TILTS``, which are zero in weights of earlier versions. With a ``network`` the map's
    result is corrected, and the logit says whether the keypoint's match will be right; without one it is 0.

    Args:
        size: numbers of a descriptor.
        network: what looks at the image around, or None.
        own_frame: see :func:`kp.models.gradient_histograms.in_own_frame`.
    """

    def __init__(self, size: int, network: "ContextNetwork | None" = None, own_frame: bool = False) -> None:
        super().__init__()
        self.own_frame = own_frame
        self.linear = nn.Linear(SIZE, size).requires_grad_(False)
        self.register_buffer("side_maps", torch.zeros(len(TILTS), size, size))  # no parameter: checkpoints list these
        self.network = network

    def forward(self, grey: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
        half = at_half_size(grey)
        with full_precision(grey.device):
            histograms = gradient_histograms(half.float(), xy)
            descriptors = self.linear(in_own_frame(histograms) if self.own_frame else histograms)
        logits = torch.zeros_like(descriptors[..., 0])
        if self.network is not None:
            correction, logits = self.network(half, xy)
            descriptors = descriptors + correction
        return F.normalize(descriptors, dim=2), logits

    @torch.no_grad()
    def turn(self) -> Tensor | None:
        """The matrix (size, size) that makes of a descriptor the one it would be in the image turned by 45 degrees,
        from the x axis to the y axis: exact for the histograms. None where there is none, as with a network.
        """
        if self.network is not None or self.own_frame:
            return None
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
        return self.side_maps.clone() if self.network is None and not self.own_frame and self.side_maps.any() else None

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Weights of versions that knew no tilts have none."""
        state_dict.setdefault(f"{prefix}side_maps", torch.zeros_like(self.side_maps))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class ContextNetwork(nn.Module):
    """Images at half their size (B, 1, h, w) and places (B, K, 2) of the images -> corrections (B, K, size) of
    descriptors, and logits (B, K) that a keypoint's match will be right.

    A mobile encoder looks at the image at half its size, in units of the contrast around. A feature pyramid (Lin et
    al., CVPR 2017) brings its stages to stride 4 of the image, where it is read at the places. A hidden layer makes
    the correction, which begins at zero, and the logit.

    Args:
        encoder: a name of :mod:`kp.models.encoders`.
        width: channels of the pyramid.
        hidden: numbers of the hidden layer.
        size: numbers of a descriptor.
        pretrained: whether the encoder begins with ImageNet weights.

    Raises:
        PretrainedError: the pretrained weights cannot be had.
    """

    def __init__(self, encoder: str, width: int, hidden: int, size: int, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(encoder, _STRIDE, pretrained)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in self.encoder.channels)
        self.smooth = nn.ModuleList(separable(width, width) for _ in self.encoder.channels)
        self.standard = nn.BatchNorm1d(width, affine=False)
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.GELU())
        self.correction, self.matchability = nn.Linear(hidden, size), nn.Linear(hidden, 1)
        nn.init.zeros_(self.correction.weight)

    def forward(self, half: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(self.standard(self.context(half, xy).flatten(0, 1)).unflatten(0, xy.shape[:2]))
        return self.correction(hidden), self.matchability(hidden)[..., 0]

    def context(self, half: Tensor, xy: Tensor) -> Tensor:
        """The pyramid's features (B, K, width) at places (B, K, 2) of images, from the images at half size."""
        return sample_at(self.pyramid(half).float(), ((xy - 0.5) / 2) / _FINEST).mT

    def pyramid(self, half: Tensor) -> Tensor:
        """The finest features (B, width, h, w) of images at half size; feature i is centred on their pixel 2 * i."""
        padded = pad_to_lattice(half, _STRIDE)
        maps = self.encoder(blur(normalise(padded, _CONTRAST_SIGMA), 1.0))
        level = None
        for lateral, smooth, features in zip(self.lateral[::-1], self.smooth[::-1], maps[::-1], strict=True):
            features = lateral(features)
            level = smooth(features if level is None else features + upsample(level, 2))
        return level
