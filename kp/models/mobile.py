"""The detector: a mobile encoder and a head that draws one full-resolution map of score logits."""

import math
from dataclasses import replace

import torch
from kornia.color import rgb_to_grayscale
from kornia.filters import gaussian_blur2d, spatial_gradient
from torch import Tensor, nn
from torch.nn import functional as F

from kp.config import DetectorSettings
from kp.geometry.coords import resize, upsample
from kp.models.encoders import Encoder
from kp.models.symmetry import symmetrise

_RESPONSE_FLOOR = 1e-5  # of a corner response: what a contrast of 0.003 of the grey range gives, which is noise
_MIX_STRIDE = 4  # pixels between two features of the finest pyramid level, which gives the weights of the maps
_SKIPPED_STAGES = 1  # of the encoder: the stage of stride 2 is not in the pyramid
_SIZES_PER_OCTAVE = 2  # sizes at which the image is looked at until one is half as large


class Detector(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] -> score logits (B, 1, H, W), for any H and W.

    The score is a weighted sum of full-resolution maps. It is slightly blurred, and the mean score of the surround is
    subtracted. The maps are the logs of a corner response at three scales (:func:`corner_response`), a map of
    dark spots (:func:`dark_spots`) and the maps of a shallow learnt stem. A network predicts the weights of the sum and
    an offset for every place; the weights are smoothed so that they do not move peaks. Before training only the finest
    corner response and the dark spots have a weight.

    The network is an encoder and a feature pyramid (Lin et al., CVPR 2017) down to stride 4. Colour is converted to
    grey. With ``normalised``, encoder and stem see grey in units of the contrast around. With ``symmetric``, a turned
    or mirrored image gives the turned or mirrored score map.

    In training mode the result is this map, which is smooth, as the losses need it. In evaluation mode the map is
    thinned (:func:`thin`). With ``num_scales`` > 1 the image is then looked at in that many sizes, from 1.41 times its
    own size down, each 0.71 of the one before. The odds of a keypoint are added up over the sizes, each divided by its
    number of pixels for one of the image (after Lindeberg, IJCV 1998).

    Args:
        settings: all numbers of the model; see :class:`kp.config.DetectorSettings`.
        num_scales: sizes in which an image is looked at, in evaluation mode.
        **changes: fields of ``settings`` to replace, by name.

    Raises:
        ValueError: a setting is out of bounds.
        PretrainedError: the pretrained weights of the encoder cannot be had.
    """

    def __init__(
        self, settings: DetectorSettings = DetectorSettings(), *, num_scales: int = 1, **changes: object
    ) -> None:
        super().__init__()
        self.settings = s = replace(settings, **changes)
        _check(s, num_scales)
        self.num_scales = num_scales
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

    def forward(self, image: Tensor) -> Tensor:
        scores = self.dense(image)
        return scores if self.training else thin(scores, self.settings.thinning)

    def dense(self, image: Tensor) -> Tensor:
        """The scores (B, 1, H, W) of images (B, 1 or 3, H, W) before they are thinned: what to look at."""
        grey = rgb_to_grayscale(image) if image.shape[1] == 3 else image
        if grey.shape[1] != 1:
            raise ValueError(f"images have 1 or 3 channels, not {image.shape[1]}")
        if self.training or self.num_scales == 1:
            return self._at_one_scale(grey)
        sizes = [2 ** ((1 - level) / _SIZES_PER_OCTAVE) for level in range(self.num_scales)]
        scores = self._resized(grey, sizes[0])
        for size in sizes[1:]:
            scores = torch.logaddexp(scores, self._resized(grey, size))
        return scores

    def _resized(self, grey: Tensor, scale: float) -> Tensor:
        """The scores of images at another size, on their own pixels, less the log of its pixels for one of theirs."""
        if scale == 1:
            return self._at_one_scale(grey)
        height, width = grey.shape[-2:]
        resized = resize(grey, (max(1, math.ceil(scale * height)), max(1, math.ceil(scale * width))))
        return resize(self._at_one_scale(resized), (height, width)) - math.log(scale**2)

    def _at_one_scale(self, grey: Tensor) -> Tensor:
        """The scores (B, 1, H, W) of grey images at their own size."""
        padded = _pad_to_lattice(grey, 2 ** len(self.encoder.channels))
        s = self.settings
        normalised = normalise(padded, s.contrast_sigma) if s.normalised else padded - 0.5
        features = self._pyramid(_blur(normalised, 1.0))  # without this blur, the strides alias
        return self._mixed(features[0], padded, normalised)[..., : grey.shape[-2], : grey.shape[-1]]

    def _mixed(self, features: Tensor, grey: Tensor, normalised: Tensor) -> Tensor:
        """The smoothed sum of the maps, less the mean around, and an offset: (B, 1, H, W).

        Only the stem, and the encoder before, may run in half precision. The fourth powers of the response would
        overflow there, and neighbouring scores would become equal.
        """
        s, full = self.settings, torch.autocast(grey.device.type, enabled=False)
        with full:
            responses = corner_response(grey.float(), s.derivative_sigmas, s.window_sigmas)
            inputs = [normalised, responses - _blur(responses, s.surround_sigma)]
            maps = [responses]
            if s.darkness > 0:
                maps.append(dark_spots(normalised.float(), s.dark_slope))
        maps.append(self.stem(torch.cat(inputs, dim=1)).float())
        with full:
            mix = upsample(_blur(self.mix(features.float()), s.mix_blur / _MIX_STRIDE), _MIX_STRIDE)
            total = (mix[:, 1:] * torch.cat(maps, dim=1)).sum(1, keepdim=True)
            surround = s.surround_weight * _blur(total, s.surround_sigma)
            return mix[:, :1] + _blur(total, s.score_blur) - surround

    def _pyramid(self, image: Tensor) -> list[Tensor]:
        """Features of every stride s from 4 on, finest first: (B, width, (H + s - 1) / s, (W + s - 1) / s)."""
        maps, levels = self.encoder(image)[_SKIPPED_STAGES:], []
        for lateral, smooth, features in zip(self.lateral[::-1], self.smooth[::-1], maps[::-1], strict=True):
            features = lateral(features)
            levels.append(smooth(features + upsample(levels[-1], 2) if levels else features))
        return levels[::-1]


def _check(s: DetectorSettings, num_scales: int) -> None:
    if not 1 <= s.mix_blur < math.inf:
        raise ValueError(f"--mix-blur must be at least 1 pixel, not {s.mix_blur}")
    if not 0 <= s.darkness < math.inf:
        raise ValueError(f"--darkness must be at least 0, not {s.darkness}")
    if len(s.derivative_sigmas) != len(s.window_sigmas) or not s.window_sigmas:
        raise ValueError("--derivative-sigmas and --window-sigmas need one number for each scale of the response")
    if min(*s.derivative_sigmas, *s.window_sigmas, s.score_blur, s.surround_sigma, s.contrast_sigma) <= 0:
        raise ValueError("the sigmas and --score-blur must be above 0 pixels")
    if num_scales < 1:
        raise ValueError(f"an image is looked at in at least one size, not {num_scales}")


def thin(scores: Tensor, strength: float) -> Tensor:
    """Scores (B, 1, H, W), lowered by ``strength`` times what they lack to the best within one pixel.

    Maxima keep their score, and sub-pixel refinement gives the same place as before. Suppression keeps what is best in
    its window. In a smooth map the slope of a large peak is better than a small peak beside it, so the small one is
    lost. In a thinned map peaks compete with peaks only, as in detectors that first suppress within 3x3 pixels (FAST:
    Rosten and Drummond, ECCV 2006).
    """
    return scores - strength * (F.max_pool2d(scores, 3, stride=1, padding=1) - scores)


def corner_response(grey: Tensor, derivative_sigmas: tuple[float, ...], window_sigmas: tuple[float, ...]) -> Tensor:
    """Half the log of a corner response of grey images (B, 1, H, W), a map for each scale: (B, S, H, W).

    The response is the determinant over the trace of the structure tensor (Noble 1988; Brown, Szeliski and Winder, CVPR
    2005), which is half the harmonic mean of its eigenvalues. On photographs it repeats better than Harris' or the
    smaller eigenvalue. A clear corner is at about zero. H and W must be at least 2 pixels.

    Args:
        derivative_sigmas: pixels, blur of the image before its derivatives, for each scale.
        window_sigmas: pixels, blur of the products of the derivatives, for each scale.
    """
    maps = []
    for sigma, window in zip(derivative_sigmas, window_sigmas, strict=True):
        dx, dy = spatial_gradient(_blur(grey, sigma))[:, 0].split(1, dim=1)
        xx, yy, xy = _blur(torch.cat([dx * dx, dy * dy, dx * dy], dim=1), window).split(1, dim=1)
        response = ((xx * yy - xy**2) / (xx + yy + _RESPONSE_FLOOR)).clamp(min=0)
        maps.append(torch.log(response + _RESPONSE_FLOOR) / 2 + 1.5)
    return torch.cat(maps, dim=1)


def dark_spots(normalised: Tensor, slope: float) -> Tensor:
    """How far images (B, 1, H, W) in units of contrast are below their surround, slightly blurred: >= -0.4.

    A keypoint lies on the dark or on the bright side of an edge. Without this map the random first weights of the stem
    would decide which. Light that saturates a sensor removes what is on the bright side.
    """
    return F.hardswish(-slope * _blur(normalised, 1.0))


def normalise(grey: Tensor, sigma: float) -> Tensor:
    """Grey images (B, 1, H, W), less the mean around and divided by the standard deviation around.

    H and W must be 4 n + 1 pixels. ``sigma``: pixels (standard deviation) of the surround.
    """
    smooth = _blur(grey, 2.0)[..., ::4, ::4]
    apart = grey - upsample(_blur(smooth, sigma / 4), 4)
    power = upsample(_blur(_blur(apart**2, 2.0)[..., ::4, ::4], sigma / 4), 4)
    return apart / (power + 1e-4).sqrt()


def _pad_to_lattice(image: Tensor, stride: int) -> Tensor:
    """Images whose last row and column are repeated until H - 1 and W - 1 are multiples of ``stride``.

    Features then span all pixels. There are at least two features a side, because the filters of the corner response
    need some pixels to reflect.
    """
    # Written as multiples of ``stride``, which torch.export simplifies: it takes a third of the time.
    right, below = (max((n - 2) // stride + 1, 2) * stride + 1 - n for n in (image.shape[-1], image.shape[-2]))
    return F.pad(image, (0, right, 0, below), mode="replicate")


def _blur(maps: Tensor, sigma: float) -> Tensor:
    size = 2 * math.ceil(3 * sigma) + 1
    return gaussian_blur2d(maps, (size, size), (sigma, sigma), border_type="replicate")


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate", bias=False),
        nn.BatchNorm2d(outputs),
        nn.Hardswish(),
    )


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, padding_mode="replicate", groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.Hardswish())
