"""The describer: what is at a keypoint (a descriptor), and whether it will be matched. It moves none of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kp.geometry.block_filters import mean_2x2
from kp.geometry.coords import sample_at, upsample
from kp.models.detector import blur
from kp.models.encoders import Encoder
from kp.models.gradient_histograms import SIZE, gradient_histograms
from kp.models.mobile import normalise, pad_to_lattice, separable
from kp.support.device import full_precision

_CONTRAST_SIGMA = 8.0  # pixels of the image at half size over which contrast is measured
_STRIDE = 16  # of the encoder's coarsest stage, in pixels of the image at half size
_FINEST = 2  # of the pyramid's finest level, in the same pixels


class Describer(nn.Module):
    """Grey images (B, 1, H, W) and keypoints' places (B, K, 2) -> descriptors (B, K, size) and logits (B, K).

    A mobile encoder looks at the image at half its size, in units of the contrast around. A feature pyramid (Lin et
    al., CVPR 2017) brings its stages to stride 4 of the image. A descriptor is a linear map of the histograms of
    :mod:`kp.models.gradient_histograms` at its place, corrected by what a hidden layer makes of these and of the
    pyramid's features, and divided by its length. The hidden layer also gives the logit that the keypoint's match will
    be right.

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
        self.standard = nn.BatchNorm1d(SIZE + width, affine=False)
        self.hidden = nn.Sequential(nn.Linear(SIZE + width, hidden), nn.GELU())
        self.linear, self.correction = nn.Linear(SIZE, size), nn.Linear(hidden, size)
        self.matchability = nn.Linear(hidden, 1)
        nn.init.zeros_(self.correction.weight)

    def forward(self, grey: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
        half = at_half_size(grey)
        with full_precision(grey.device):
            histograms = gradient_histograms(half.float(), xy)
        features = torch.cat([histograms, self.context(half, xy)], dim=2)
        standard = self.standard(features.flatten(0, 1)).unflatten(0, xy.shape[:2])
        hidden = self.hidden(standard)
        descriptors = self.linear(standard[..., :SIZE]) + self.correction(hidden)
        return F.normalize(descriptors, dim=2), self.matchability(hidden)[..., 0]

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


def at_half_size(grey: Tensor) -> Tensor:
    """Means over 2x2 pixels of images (B, 1, H, W), rounded up; an odd last row or column is repeated."""
    return mean_2x2(F.pad(grey, (0, grey.shape[-1] % 2, 0, grey.shape[-2] % 2), mode="replicate"))
