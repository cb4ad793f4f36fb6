"""The detector: a mobile encoder and a head that draws one full-resolution map of score logits."""

import math

import torch
from kornia.color import rgb_to_grayscale
from kornia.feature import harris_response
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn
from torch.nn import functional as F

from kp.encoders import Encoder
from kp.geometry import upsample

_RESPONSE_FLOOR = 1e-10  # of Harris' response: a corner of contrast 0.01, which is noise
_SCALES = (0.0, 1.0, 2.0)  # pixels: blur (standard deviation) before the corner response, for fine and coarse corners
_SCALE_WEIGHTS = (0.5, 0.5, 0.0)  # before training: on photographs the mean of the first two repeats best
_MIX_BLUR = 2.0  # pixels (standard deviation): a steeper offset would move the peaks of the responses
_OFFSET = 1.0  # before training: makes the score about the log-odds that a keypoint is found again


class Detector(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] -> score logits (B, 1, H, W), for any H and W.

    With ``prior="harris"`` the score is a sum of the logs of Kornia's Harris responses of the image at several blurs,
    with weights and an offset that the network draws afresh for every place, smooth over some pixels: which scale to
    believe there, and how likely a keypoint is found again. Before training these are constants, and the detector is
    Harris'; what is learnt may move its peaks. With ``prior="none"`` all is learnt from scratch: a
    shallow stem keeps the full resolution beside the network.

    The network is the encoder and a feature pyramid (Lin et al., CVPR 2017) down to stride 2. Colour is turned to grey,
    and what the network sees is standardised image by image, so the strength of the light does not matter to it.
    """

    def __init__(
        self,
        encoder: str = "mobilenet_v3_small",
        stride: int = 8,
        prior: str = "harris",
        width: int = 32,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        if prior not in ("harris", "none"):
            raise ValueError(f"the prior is harris or none, not {prior}")
        self.prior = prior
        self.encoder = Encoder(encoder, stride, pretrained)
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in self.encoder.channels)
        self.smooth = nn.ModuleList(_separable(width, width) for _ in self.encoder.channels)
        if prior == "harris":
            self.mix = nn.Conv2d(width, 1 + len(_SCALES), 1)
            nn.init.zeros_(self.mix.weight)
            self.mix.bias.data = torch.tensor((_OFFSET, *_SCALE_WEIGHTS))
        else:
            self.draw = nn.Conv2d(width, 8, 1)
            self.stem = nn.Sequential(_conv(1, 8), _conv(8, 8))
            self.score = nn.Sequential(_conv(16, 8), nn.Conv2d(8, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        grey = rgb_to_grayscale(image) if image.shape[1] == 3 else image
        if grey.shape[1] != 1:
            raise ValueError(f"images have 1 or 3 channels, not {image.shape[1]}")
        padded = _pad_to_lattice(grey, 2 ** len(self.lateral))
        standard = _standardise(padded)
        features = self._pyramid(_blur(standard, 1.0))  # unless it is blurred, the strides alias
        scores = self._mixed(features, padded) if self.prior == "harris" else self._learnt(features, standard)
        return scores[..., : grey.shape[-2], : grey.shape[-1]]

    def _mixed(self, features: Tensor, grey: Tensor) -> Tensor:
        """Corner responses of grey images (B, 1, H, W), mixed as features of stride 2 say: (B, 1, H, W)."""
        with torch.autocast(grey.device.type, enabled=False):  # a log of fourth powers has no room in half precision
            mix = upsample(_blur(self.mix(features.float()), _MIX_BLUR / 2), 2)  # (B, 1 + scales, H, W)
            return mix[:, :1] + (mix[:, 1:] * corner_response(grey.float())).sum(1, keepdim=True)

    def _learnt(self, features: Tensor, standard: Tensor) -> Tensor:
        """Scores (B, 1, H, W) from features of stride 2 and from the standardised image (B, 1, H, W) itself."""
        drawn = upsample(self.draw(features), 2)
        return self.score(torch.cat([drawn, self.stem(standard)], dim=1)).float()

    def _pyramid(self, image: Tensor) -> Tensor:
        """From the coarsest stride down to stride 2: (B, width, (H + 1) / 2, (W + 1) / 2)."""
        maps = self.encoder(image)
        top = None
        for lateral, smooth, features in zip(self.lateral[::-1], self.smooth[::-1], maps[::-1], strict=True):
            features = lateral(features)
            top = smooth(features if top is None else features + upsample(top, 2))
        return top


def corner_response(grey: Tensor) -> Tensor:
    """Log of Kornia's Harris response of grey images (B, 1, H, W), one map for each of _SCALES: (B, 3, H, W).

    A quarter of the log, so that it counts factors of contrast, and centred so that a clear corner is at about zero.
    H and W must be at least 6 pixels.
    """
    maps = []
    for sigma in _SCALES:
        response = harris_response(_blur(grey, sigma) if sigma else grey, k=0.04).clamp(min=0)
        maps.append(torch.log(response + _RESPONSE_FLOOR) / 4 + 2.5)
    return torch.cat(maps, dim=1)


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name, or for ``auto`` the best there is. Raises ValueError where it does not exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"no device {name} here: choose another with --device") from error
    return device


def _pad_to_lattice(image: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column until H - 1 and W - 1 are multiples of stride: features then span all pixels.

    At least two features a side: the filters of the corner response need some pixels to reflect.
    """
    right, below = (max(-(side - 1) % stride, 2 * stride + 1 - side) for side in (image.shape[-1], image.shape[-2]))
    return F.pad(image, (0, right, 0, below), mode="replicate")


def _blur(maps: Tensor, sigma: float) -> Tensor:
    size = 2 * math.ceil(3 * sigma) + 1
    return gaussian_blur2d(maps, (size, size), (sigma, sigma), border_type="replicate")


def _standardise(grey: Tensor) -> Tensor:
    mean = grey.mean((2, 3), keepdim=True)
    deviation = grey.std((2, 3), keepdim=True)
    return (grey - mean) / (deviation + 0.005)


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate", bias=False),
        nn.BatchNorm2d(outputs),
        nn.Hardswish(),
    )


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, padding_mode="replicate", groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.Hardswish())
