"""A detector with a mobile encoder and a head that draws one full-resolution map of score logits."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kp.config import DetectorSettings
from kp.geometry.coords import upsample
from kp.models.corner import corner_response
from kp.models.detector import Detector, blur
from kp.models.encoders import Encoder
from kp.models.symmetry import settle, symmetrise
from kp.support.device import full_precision

_MIX_STRIDE = 4  # pixels between two features of the finest pyramid level, which gives the weights of the maps
_SKIPPED_STAGES = 1  # of the encoder: the stage of stride 2 is not in the pyramid
_SETTINGS = DetectorSettings(encoder="mobilenet_v3_small")


class MobileDetector(Detector):
    """Images (B, 1 or 3, H, W) in [0, 1] -> score logits (B, 1, H, W), for any H and W.

    The score is a weighted sum of full-resolution maps. It is slightly blurred, and the mean score of the surround is
    subtracted. The maps are the logs of a corner response at three scales (:func:`corner_response`), a map of
    dark spots (:func:`dark_spots`) and the maps of a shallow learnt stem. A network predicts the weights of the sum and
    an offset for every place; the weights are smoothed so that they do not move peaks. Before training only the finest
    corner response and the dark spots have a weight.

    The network is an encoder and a feature pyramid (Lin et al., CVPR 2017) down to stride 4. Colour is converted to
    grey. With ``normalised``, encoder and stem see grey in units of the contrast around. With ``symmetric``, a turned
    or mirrored image gives the turned or mirrored score map.

    Args:
        settings: all numbers of the model; see :class:`kp.config.DetectorSettings`.
        num_scales: sizes in which an image is looked at, in evaluation mode.
        **changes: fields of ``settings`` to replace, by name.

    Raises:
        ValueError: a setting is out of bounds.
        PretrainedError: the pretrained weights of the encoder cannot be had.
    """

    def __init__(self, settings: DetectorSettings = _SETTINGS, *, num_scales: int = 1, **changes: object) -> None:
        super().__init__(settings, num_scales=num_scales, **changes)
        s = self.settings
        self.encoder = Encoder(s.encoder, s.stride, s.pretrained)
        used = self.encoder.channels[_SKIPPED_STAGES:]
        self.lateral = nn.ModuleList(nn.Conv2d(channels, s.width, 1) for channels in used)
        self.smooth = nn.ModuleList(_separable(s.width, s.width) for _ in used)
        responses, dark = len(s.derivative_sigmas), s.darkness > 0
        self.stem = nn.Sequential(_conv(1 + responses, s.stem_channels), _conv(s.stem_channels, s.stem_channels))
        self.mix = nn.Conv2d(s.width, 1 + responses + dark + s.stem_channels, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)
        self.mix.bias.data[1] = s.response_gain
        self.mix.bias.data[1 + responses : 1 + responses + dark] = s.darkness
        if s.symmetric:
            symmetrise(self)

    def at_one_scale(self, grey: Tensor) -> Tensor:
        padded = pad_to_lattice(grey, 2 ** len(self.encoder.channels))
        s = self.settings
        normalised = normalise(padded, s.contrast_sigma) if s.normalised else padded - 0.5
        features = self._pyramid(blur(normalised, 1.0))  # without this blur, the strides alias
        return self._mixed(features[0], padded, normalised)[..., : grey.shape[-2], : grey.shape[-1]]

    def settle(self) -> None:
        settle(self)

    def _mixed(self, features: Tensor, grey: Tensor, normalised: Tensor) -> Tensor:
        """The smoothed sum of the maps, less the mean around, and an offset: (B, 1, H, W).

        Only the stem, and the encoder before, may run in half precision. The fourth powers of the response would
        overflow there, and neighbouring scores would become equal.
        """
        s, full = self.settings, full_precision(grey.device)
        with full:
            responses = corner_response(grey.float(), s.derivative_sigmas, s.window_sigmas)
            inputs = [normalised, responses - blur(responses, s.surround_sigma)]
            maps = [responses]
            if s.darkness > 0:
                maps.append(dark_spots(normalised.float(), s.dark_slope))
        maps.append(self.stem(torch.cat(inputs, dim=1)).float())
        with full:
            mix = upsample(blur(self.mix(features.float()), s.mix_blur / _MIX_STRIDE), _MIX_STRIDE)
            total = (mix[:, 1:] * torch.cat(maps, dim=1)).sum(1, keepdim=True)
            surround = s.surround_weight * blur(total, s.surround_sigma)
            return mix[:, :1] + blur(total, s.score_blur) - surround

    def _pyramid(self, image: Tensor) -> list[Tensor]:
        """Features of every stride s from 4 on, finest first: (B, width, (H + s - 1) / s, (W + s - 1) / s)."""
        maps, levels = self.encoder(image)[_SKIPPED_STAGES:], []
        for lateral, smooth, features in zip(self.lateral[::-1], self.smooth[::-1], maps[::-1], strict=True):
            features = lateral(features)
            levels.append(smooth(features + upsample(levels[-1], 2) if levels else features))
        return levels[::-1]


def dark_spots(normalised: Tensor, slope: float) -> Tensor:
    """How far images (B, 1, H, W) in units of contrast are below their surround, slightly blurred: >= -0.4.

    A keypoint lies on the dark or on the bright side of an edge. Without this map the random first weights of the stem
    would decide which. Light that saturates a sensor removes what is on the bright side.
    """
    return F.hardswish(-slope * blur(normalised, 1.0))


def normalise(grey: Tensor, sigma: float) -> Tensor:
    """Grey images (B, 1, H, W), less the mean around and divided by the standard deviation around.

    H and W must be 4 n + 1 pixels. ``sigma``: pixels (standard deviation) of the surround.
    """
    smooth = blur(grey, 2.0)[..., ::4, ::4]
    apart = grey - upsample(blur(smooth, sigma / 4), 4)
    power = upsample(blur(blur(apart**2, 2.0)[..., ::4, ::4], sigma / 4), 4)
    return apart / (power + 1e-4).sqrt()


def pad_to_lattice(image: Tensor, stride: int) -> Tensor:
    """Images whose last row and column are repeated until H - 1 and W - 1 are multiples of ``stride``.

    Features then span all pixels. There are at least two features a side, because the filters of the corner response
    need some pixels to reflect.
    """
    # Written as multiples of ``stride``, which torch.export simplifies: it takes a third of the time.
    right, below = (max((n - 2) // stride + 1, 2) * stride + 1 - n for n in (image.shape[-1], image.shape[-2]))
    return F.pad(image, (0, right, 0, below), mode="replicate")


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate", bias=False),
        nn.BatchNorm2d(outputs),
        nn.Hardswish(),
    )


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, padding_mode="replicate", groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.Hardswish())
