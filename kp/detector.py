"""The detector: a mobile encoder and a head that draws one full-resolution map of score logits."""

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
_SCALE_WEIGHTS = (1.0, 1.0, 0.0)  # before training; on photographs the sum of the first two repeats best


class Detector(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] -> score logits (B, 1, H, W), for any H and W.

    The logit is the log of Kornia's Harris response, of the image and of the image blurred, with learnt weights
    (``prior="harris"``), plus a correction that the network learns and that starts at zero; ``prior="none"`` leaves
    the response out and learns all from scratch. The correction is the sum of what the encoder sees at each stride,
    carried down a feature pyramid (Lin et al., CVPR 2017), and of a shallow stem that keeps the full resolution.
    Colour is turned to grey, and grey is standardised image by image, so the light's strength does not matter.
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
        self.stem = nn.Sequential(_conv(1 + len(_SCALES) * (prior == "harris"), 8), _conv(8, 8))
        self.draw = nn.Conv2d(width, 8, 1)
        self.merge = _conv(16, 8)
        self.score = nn.Conv2d(8, 1, 1)
        self.response = nn.Conv2d(len(_SCALES), 1, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.response.weight.data = torch.tensor(_SCALE_WEIGHTS).view(1, -1, 1, 1)
        nn.init.zeros_(self.response.bias)
        if prior == "none":
            nn.init.normal_(self.score.weight, std=0.1)
            self.response.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        grey = rgb_to_grayscale(image) if image.shape[1] == 3 else image
        if grey.shape[1] != 1:
            raise ValueError(f"images have 1 or 3 channels, not {image.shape[1]}")
        size = grey.shape[-2:]
        padded = _pad_to_lattice(grey, 2 ** len(self.lateral))
        standard = _standardise(padded)
        drawn = upsample(self.draw(self._pyramid(standard)), 2)  # (B, 8, H, W)
        if self.prior == "none":
            return self._correction(drawn, standard)[..., : size[0], : size[1]]
        with torch.autocast(image.device.type, enabled=False):  # a log of fourth powers has no room in half precision
            response = corner_response(padded.float())
            scores = self.response(response)
        scores = scores + self._correction(drawn, torch.cat([standard, response], dim=1))
        return scores[..., : size[0], : size[1]]

    def _pyramid(self, image: Tensor) -> Tensor:
        """From the coarsest stride down to stride 2: (B, width, (H + 1) / 2, (W + 1) / 2)."""
        maps = self.encoder(image)
        top = None
        for lateral, smooth, features in zip(self.lateral[::-1], self.smooth[::-1], maps[::-1], strict=True):
            features = lateral(features)
            top = smooth(features if top is None else features + upsample(top, 2))
        return top

    def _correction(self, drawn: Tensor, close: Tensor) -> Tensor:
        """Score logits (B, 1, H, W) from what the pyramid draws (B, 8, H, W) and the maps that the stem reads."""
        return self.score(self.merge(torch.cat([drawn, self.stem(close)], dim=1))).float()


def corner_response(grey: Tensor) -> Tensor:
    """Log of Kornia's Harris response of grey images (B, 1, H, W), one map for each of _SCALES: (B, 3, H, W).

    A quarter of the log, so that it counts factors of contrast, and centred so that a clear corner is at about zero.
    H and W must be at least 6 pixels.
    """
    maps = []
    for sigma in _SCALES:
        blurred = gaussian_blur2d(grey, (11, 11), (sigma, sigma), border_type="replicate") if sigma else grey
        maps.append(torch.log(harris_response(blurred, k=0.04).clamp(min=0) + _RESPONSE_FLOOR) / 4 + 2.5)
    return torch.cat(maps, dim=1)


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name, or for ``auto`` the best there is. Raises ValueError where it does not exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"no device {name} here: choose another with --device") from error
    return device


def _pad_to_lattice(image: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column until H - 1 and W - 1 are multiples of stride: features then span all pixels.

    At least two features a side: the filters of the corner response need some pixels to reflect.
    """
    right, below = (max(-(side - 1) % stride, 2 * stride + 1 - side) for side in (image.shape[-1], image.shape[-2]))
    return F.pad(image, (0, right, 0, below), mode="replicate")


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
