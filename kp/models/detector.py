"""The detector: a mobile encoder and a head that draws one full-resolution map of score logits."""

import math

import torch
from kornia.color import rgb_to_grayscale
from kornia.filters import gaussian_blur2d, spatial_gradient
from torch import Tensor, nn
from torch.nn import functional as F

from kp.geometry.coords import Size, resize, upsample
from kp.models.encoders import Encoder
from kp.models.symmetry import symmetrise

_SCALES = ((0.7, 1.5), (1.4, 2.0), (2.8, 4.0))  # pixels: blur of the image, and of the products of its derivatives
_FLOOR = 1e-5  # of a corner response: what a contrast of 0.003 gives, which is noise
_STEM = 12  # channels of learnt full-resolution maps
_MIX_STRIDE, _UNUSED = 4, 1  # of the network's last features; stages of the encoder below that stride
_GAIN = 4.0  # of the response before training: the score of a keypoint then differs by some units from its neighbours'
_SMOOTH = 1.0  # pixels (standard deviation): the sum is blurred, for noise to move its peaks less
_AROUND, _PROMINENCE = 4.0, 0.9  # a peak counts by how far it stands out of the scores around (pixels; share of these)
_OCTAVE = 2  # sizes at which the image is looked at until one is half as large
_STEEP = 10.0  # times what a score lacks to the best within a pixel: what thinning takes off
_DARK = 3.0  # slope of a dark spot: of how much darker it is than what is around, in units of the contrast there
_CONTRAST = 8.0  # pixels (standard deviation) about a place over which its contrast is measured


class Detector(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] -> score logits (B, 1, H, W), for any H and W.

    A score is a sum of full-resolution maps, slightly blurred, less the mean of that sum around: prominence. A network
    draws the weights of the sum and an offset afresh for every place, smoothed over ``mix_blur`` pixels (standard
    deviation, at least 1) lest they move peaks. The maps are, with ``prior="corner"``, the logs of a corner response at
    three scales (see :func:`corner_response`) and one of :func:`dark_spots`, and beside them those of a shallow learnt
    stem; before training only the finest response counts and, with weight ``darkness``, the dark spots. With
    ``darkness=0`` there are none of these; with ``prior="none"`` there is the stem alone.

    The network is an encoder and a feature pyramid (Lin et al., CVPR 2017) down to stride 4. Colour is turned to grey;
    network and stem see it ``normalised``, in units of the contrast around: the strength of the light does not matter.
    With ``symmetric`` kernels, nor does it matter which way up the image is. With ``shuffled``, every stride of the
    pyramid gives a map of its own to the sum, by pixel shuffle (Shi et al., CVPR 2016): free, but tied to a lattice and
    to which way is up.

    In training mode that is the map: smooth, as losses need it. In evaluation mode the image is looked at in ``scales``
    sizes: in its own or, where they are several, in one larger by the square root of two and in others, each smaller by
    that than the one before. A place's odds of a keypoint are then the sum of its odds in all, each divided by how many
    pixels that size has for one of the image, lest the largest decide because it has the most places. The size at
    which it stands out decides (Lindeberg, IJCV 1998), so that more keypoints stay as an image blurs or grows. Then the
    map is ``thinned``, see :func:`thin`, so that suppression finds the small peaks too that stand on the slopes of
    large ones.
    """

    def __init__(
        self,
        encoder: str = "mobilenet_v3_small",
        stride: int = 8,
        prior: str = "corner",
        width: int = 32,
        symmetric: bool = True,
        normalised: bool = True,
        shuffled: bool = False,
        mix_blur: float = 8.0,
        darkness: float = 0.3,
        scales: int = 1,
        thinned: bool = True,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        if prior not in ("corner", "none"):
            raise ValueError(f"the prior is corner or none, not {prior}")
        if not 1 <= mix_blur < math.inf:
            raise ValueError(f"mixing weights are smoothed over at least a pixel, not {mix_blur}")
        if not 0 <= darkness < math.inf:
            raise ValueError(f"the weight of dark spots is at least 0, not {darkness}")
        if scales < 1:
            raise ValueError(f"an image is looked at in at least one size, not {scales}")
        self.prior, self.normalised, self.mix_blur = prior, normalised, mix_blur
        self.scales, self.thinned = scales, thinned
        self.dark = prior == "corner" and darkness > 0
        self.encoder = Encoder(encoder, stride, pretrained)
        used = self.encoder.channels[_UNUSED:]
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in used)
        self.smooth = nn.ModuleList(_separable(width, width) for _ in used)
        responses = len(_SCALES) if prior == "corner" else 0
        self.stem = nn.Sequential(_conv(1 + responses, _STEM), _conv(_STEM, _STEM))
        self.mix = nn.Conv2d(width, 1 + responses + self.dark + _STEM, 1)
        strides = [2 ** (_UNUSED + 1 + i) for i in range(len(used))] if shuffled else []
        self.shuffled = nn.ModuleList(nn.Conv2d(width, stride**2, 1, bias=False) for stride in strides)
        for layer in (self.mix, *self.shuffled):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.mix.bias)
        if prior == "corner":
            self.mix.bias.data[1] = _GAIN
            self.mix.bias.data[1 + responses : 1 + responses + self.dark] = darkness
        else:
            nn.init.normal_(self.mix.bias[1:].data)
        if symmetric:
            symmetrise(self)

    def forward(self, image: Tensor) -> Tensor:
        scores = self.dense(image)
        return thin(scores) if self.thinned and not self.training else scores

    def dense(self, image: Tensor) -> Tensor:
        """The scores (B, 1, H, W) of images (B, 1 or 3, H, W) before they are thinned: what to look at."""
        grey = rgb_to_grayscale(image) if image.shape[1] == 3 else image
        if grey.shape[1] != 1:
            raise ValueError(f"images have 1 or 3 channels, not {image.shape[1]}")
        if self.training or self.scales == 1:
            return self._at_one_scale(grey)
        sizes = [2 ** ((1 - level) / _OCTAVE) for level in range(self.scales)]
        scores = self._resized(grey, sizes[0])
        for size in sizes[1:]:
            scores = torch.logaddexp(scores, self._resized(grey, size))
        return scores

    def _resized(self, grey: Tensor, scale: float) -> Tensor:
        """The scores of images at another size, drawn at their own, less the log of its pixels for one of theirs."""
        if scale == 1:
            return self._at_one_scale(grey)
        height, width = grey.shape[-2:]
        resized = resize(grey, (max(1, math.ceil(scale * height)), max(1, math.ceil(scale * width))))
        return resize(self._at_one_scale(resized), (height, width)) - math.log(scale**2)

    def _at_one_scale(self, grey: Tensor) -> Tensor:
        """The scores (B, 1, H, W) of grey images at the size that they have."""
        padded = _pad_to_lattice(grey, 2 ** len(self.encoder.channels))
        normalised = normalise(padded) if self.normalised else padded - 0.5
        features = self._pyramid(_blur(normalised, 1.0))  # unless it is blurred, the strides alias
        return self._mixed(features, padded, normalised)[..., : grey.shape[-2], : grey.shape[-1]]

    def _mixed(self, features: list[Tensor], grey: Tensor, normalised: Tensor) -> Tensor:
        """The smoothed sum of full-resolution maps, less the mean around, and an offset: (B, 1, H, W).

        Never in half precision, which has no room for the response's fourth powers, and which makes neighbours equal
        that NMS would tell apart; the stem and what comes before may be.
        """
        full, inputs, maps = torch.autocast(grey.device.type, enabled=False), [normalised], []
        if self.prior == "corner":
            with full:
                responses = corner_response(grey.float())
                inputs.append(responses - _blur(responses, _AROUND))
                maps = [responses, dark_spots(normalised.float())] if self.dark else [responses]
        maps.append(self.stem(torch.cat(inputs, dim=1)).float())
        with full:
            mix = upsample(_blur(self.mix(features[0].float()), self.mix_blur / _MIX_STRIDE), _MIX_STRIDE)
            total = (mix[:, 1:] * torch.cat(maps, dim=1)).sum(1, keepdim=True)
            for layer, maps_there in zip(self.shuffled, features, strict=False):
                total = total + _shuffle(layer(maps_there.float()), tuple(total.shape[-2:]))
            return mix[:, :1] + _blur(total, _SMOOTH) - _PROMINENCE * _blur(total, _AROUND)

    def _pyramid(self, image: Tensor) -> list[Tensor]:
        """Features of every stride s from 4 on, finest first: (B, width, (H + s - 1) / s, (W + s - 1) / s)."""
        maps, levels = self.encoder(image)[_UNUSED:], []
        for lateral, smooth, features in zip(self.lateral[::-1], self.smooth[::-1], maps[::-1], strict=True):
            features = lateral(features)
            levels.append(smooth(features + upsample(levels[-1], 2) if levels else features))
        return levels[::-1]


def thin(scores: Tensor) -> Tensor:
    """Scores (B, 1, H, W) lowered by _STEEP times what they lack to the best within a pixel: maxima keep theirs.

    Suppression keeps what is best in its window, and the slope of a large peak is better than a small peak beside it:
    with smooth scores nothing is found between large peaks, however many keypoints are asked for. On thinned scores a
    peak competes with peaks only, as do those of detectors that first suppress within 3x3 pixels of their own (FAST:
    Rosten and Drummond, ECCV 2006). About a maximum the map stays smooth: keypoints are refined to the same place.
    """
    return scores - _STEEP * (F.max_pool2d(scores, 3, stride=1, padding=1) - scores)


def corner_response(grey: Tensor) -> Tensor:
    """Log of a corner response of grey images (B, 1, H, W), one map for each of _SCALES: (B, 3, H, W).

    Of the determinant over the trace of the structure tensor (Noble 1988; Brown, Szeliski and Winder, CVPR 2005): half
    the harmonic mean of its eigenvalues. On photographs it repeats better than Harris' or the least eigenvalue. Half of
    the log, so that it counts factors of contrast, and centred so that a clear corner is at about zero. H and W must be
    at least 2 pixels.
    """
    maps = []
    for sigma, window in _SCALES:
        dx, dy = spatial_gradient(_blur(grey, sigma))[:, 0].split(1, dim=1)
        xx, yy, xy = _blur(torch.cat([dx * dx, dy * dy, dx * dy], dim=1), window).split(1, dim=1)
        response = ((xx * yy - xy**2) / (xx + yy + _FLOOR)).clamp(min=0)
        maps.append(torch.log(response + _FLOOR) / 2 + 1.5)
    return torch.cat(maps, dim=1)


def dark_spots(normalised: Tensor) -> Tensor:
    """How far images (B, 1, H, W) in units of contrast are below what is around, slightly blurred; hardly less than 0.

    A keypoint goes to the dark side of an edge or to the bright one, and without them the chance of the stem's first
    weights would say which. Light that saturates a sensor takes what is on the bright side.
    """
    return F.hardswish(-_DARK * _blur(normalised, 1.0))


def normalise(grey: Tensor) -> Tensor:
    """Grey images (B, 1, H, W), H and W of 4 n + 1 pixels: less the mean around, in units of the deviation around."""
    smooth = _blur(grey, 2.0)[..., ::4, ::4]
    apart = grey - upsample(_blur(smooth, _CONTRAST / 4), 4)
    power = upsample(_blur(_blur(apart**2, 2.0)[..., ::4, ::4], _CONTRAST / 4), 4)
    return apart / (power + 1e-4).sqrt()


def _pad_to_lattice(image: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column until H - 1 and W - 1 are multiples of stride: features then span all pixels.

    At least two features a side: the filters of the corner response need some pixels to reflect.
    """
    right, below = (max(-(side - 1) % stride, 2 * stride + 1 - side) for side in (image.shape[-1], image.shape[-2]))
    return F.pad(image, (0, right, 0, below), mode="replicate")


def _shuffle(maps: Tensor, size: Size) -> Tensor:
    """One map (B, 1, H, W) out of s ** 2 maps of stride s, each place of which gives the s x s pixels around it."""
    stride = math.isqrt(maps.shape[1])
    first = stride // 2
    return F.pixel_shuffle(maps, stride)[..., first : first + size[0], first : first + size[1]]


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
