"""What all detectors have in common: images -> score maps, in several sizes if asked for, thinned outside training."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from kornia.color import rgb_to_grayscale
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn
from torch.nn import functional as F

from kp.config import DetectorSettings
from kp.geometry.coords import resize
from kp.models.keypoints import Keypoints, extract_keypoints

_SIZES_PER_OCTAVE = 2  # sizes at which the image is looked at until one is half as large


class Detector(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] -> score logits (B, 1, H, W), for any H and W. Colour is converted to grey.

    Images may be of any floating-point type; the detector computes in float32, also after ``double()`` or ``half()``,
    which rounds the weights: neighbouring scores would be equal in half precision. Under autocast an encoder runs in
    half precision.

    In training mode the result is a smooth map, as the losses need it. In evaluation mode the map is thinned
    (:func:`thin`). With ``num_scales`` > 1 the image is then looked at in that many sizes, from 1.41 times its own size
    down, each 0.71 of the one before. The odds of a keypoint are added up over the sizes, each divided by its number of
    pixels for one of the image (after Lindeberg, IJCV 1998).

    Subclasses say in ``at_one_scale`` how grey images are scored.

    Args:
        settings: all numbers of the model; see :class:`kp.config.DetectorSettings`.
        num_scales: sizes in which an image is looked at, in evaluation mode.
        **changes: fields of ``settings`` to replace, by name.

    Raises:
        ValueError: a setting is out of bounds.
    """

    def __init__(
        self, settings: DetectorSettings = DetectorSettings(), *, num_scales: int = 1, **changes: object
    ) -> None:
        super().__init__()
        self.settings = replace(settings, **changes)
        check(self.settings, num_scales)
        self.num_scales = num_scales

    def forward(self, image: Tensor) -> Tensor:
        return self.dense(image) if self.training else self.score_map(image)

    def score_map(self, image: Tensor) -> Tensor:
        """The thinned scores (B, 1, H, W) of images (B, 1 or 3, H, W): what keypoints are found in."""
        return thin(self.dense(image), self.settings.thinning)

    def dense(self, image: Tensor) -> Tensor:
        """The scores (B, 1, H, W) of images (B, 1 or 3, H, W) before they are thinned: what to look at."""
        grey = to_grey(image)
        if self.training or self.num_scales == 1:
            return self.at_one_scale(grey)
        sizes = [2 ** ((1 - level) / _SIZES_PER_OCTAVE) for level in range(self.num_scales)]
        scores = self._resized(grey, sizes[0])
        for size in sizes[1:]:
            scores = torch.logaddexp(scores, self._resized(grey, size))
        return scores

    def keypoints(self, image: Tensor, max_keypoints: int | None = None, **options: Any) -> Keypoints:
        """The best keypoints (B, K) of images (B, 1 or 3, H, W); arguments as of
        :func:`kp.models.keypoints.extract_keypoints`, which finds them in the score map.
        """
        return extract_keypoints(self.score_map(image), max_keypoints, **options)

    def at_one_scale(self, grey: Tensor) -> Tensor:
        """The scores (B, 1, H, W) of grey images (B, 1, H, W) at their own size, not thinned."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Detector":
        """What ``to``, ``half``, ``double``, ``cuda`` are made of: a change of the floating-point type is undone."""
        super()._apply(fn, recurse)
        return super()._apply(lambda t: t.float() if t.is_floating_point() else t, recurse)

    def settle(self) -> None:
        """Fix the parameters, for use: the detector can no longer be trained, and can be exported."""

    def _resized(self, grey: Tensor, scale: float) -> Tensor:
        """The scores of images at another size, on their own pixels, less the log of its pixels for one of theirs."""
        if scale == 1:
            return self.at_one_scale(grey)
        height, width = grey.shape[-2:]
        resized = resize(grey, (max(1, math.ceil(scale * height)), max(1, math.ceil(scale * width))))
        return resize(self.at_one_scale(resized), (height, width)) - math.log(scale**2)


def describes(detector: Any) -> bool:
    """Whether a detector, or what stands in its place, has descriptors of its own."""
    return getattr(detector, "describer", None) is not None


def to_grey(image: Tensor) -> Tensor:
    """Images (B, 1 or 3, H, W) as grey ones (B, 1, H, W), float32. Raises ValueError on another number of channels."""
    image = image.float()
    grey = rgb_to_grayscale(image) if image.shape[1] == 3 else image
    if grey.shape[1] != 1:
        raise ValueError(f"images have 1 or 3 channels, not {image.shape[1]}")
    return grey


def thin(scores: Tensor, strength: float) -> Tensor:
    """Scores (B, 1, H, W), lowered by ``strength`` times what they lack to the best within one pixel.

    Maxima keep their score, and sub-pixel refinement gives the same place as before. Suppression keeps what is best in
    its window. In a smooth map the slope of a large peak is better than a small peak beside it, so the small one is
    lost. In a thinned map peaks compete with peaks only, as in detectors that first suppress within 3x3 pixels (FAST:
    Rosten and Drummond, ECCV 2006).
    """
    return scores - strength * (F.max_pool2d(scores, 3, stride=1, padding=1) - scores)


def blur(maps: Tensor, sigma: float) -> Tensor:
    """Maps (B, C, H, W), smoothed by a Gaussian of ``sigma`` pixels (standard deviation), cut off at three of these.

    The edge is repeated.
    """
    size = 2 * math.ceil(3 * sigma) + 1
    if (
        torch.compiler.is_compiling()
    ):  # Kornia's operations, ten times as many, would take most of the time of an export
        return _blur_in_graph(maps, sigma)
    return gaussian_blur2d(maps, (size, size), (sigma, sigma), border_type="replicate")


def _blur_in_graph(maps: Tensor, sigma: float) -> Tensor:
    """The same as :func:`blur`, in four operations and with the kernel as a constant."""
    r, channels = math.ceil(3 * sigma), maps.shape[1]
    weights = [math.exp(-(x**2) / (2 * sigma**2)) for x in range(-r, r + 1)]
    along_x = maps.new_tensor([weight / sum(weights) for weight in weights]).expand(channels, 1, 1, -1)
    maps = F.conv2d(F.pad(maps, (r, r, 0, 0), mode="replicate"), along_x, groups=channels)
    return F.conv2d(F.pad(maps, (0, 0, r, r), mode="replicate"), along_x.mT, groups=channels)


def check(s: DetectorSettings, num_scales: int = 1) -> None:
    """Raises ValueError, naming the flag, on settings of which no detector can be made."""
    if not 1 <= s.mix_blur < math.inf:
        raise ValueError(f"--mix-blur must be at least 1 pixel, not {s.mix_blur}")
    if not 0 <= s.darkness < math.inf:
        raise ValueError(f"--darkness must be at least 0, not {s.darkness}")
    if len(s.derivative_sigmas) != len(s.window_sigmas) or not s.window_sigmas:
        raise ValueError("--derivative-sigmas and --window-sigmas need one number for each scale of the response")
    if min(*s.derivative_sigmas, *s.window_sigmas, s.score_blur, s.surround_sigma, s.contrast_sigma) <= 0:
        raise ValueError("the sigmas and --score-blur must be above 0 pixels")
    if not 0 <= s.half_size_scales <= len(s.window_sigmas):
        raise ValueError(f"--half-size-scales must be at most the number of scales, not {s.half_size_scales}")
    if num_scales < 1:
        raise ValueError(f"an image is looked at in at least one size, not {num_scales}")
