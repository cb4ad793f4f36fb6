"""Numbers that describe the surroundings of a keypoint: what tells whether it will be found again in another light."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.geometry.block_filters import ascending, max_2x2, max_3x3, mean_2x2, noise
from kp.geometry.coords import sample_at
from kp.models.keypoints import Keypoints

NUM_FEATURES = 36
_LEVELS = 5  # of the pyramid of means over 2x2, 4x4, ... 32x32 pixels
_CONTRAST_LEVELS = (1, 2, 3, 4)
_RANGE_LEVELS = (1, 2, 3)  # of the darkest and brightest pixel over 3x3 blocks
_NOISE_LEVELS = (2, 3)
_WHITE, _BLACK = 0.98, 0.02  # grey from and below which a pixel is taken as clipped
_QUANTILES = (1, 10, 50, 90, 99)  # of grey, in percent
_NOISE_QUANTILES = (10, 50)
_LEAST = 1e-3  # grey: smaller contrasts are all the same
_MAPS: tuple[Callable[[Tensor], Tensor], ...] = (  # of grey, averaged over blocks; made one by one, to save memory
    lambda grey: grey,
    lambda grey: grey * grey,
    noise,
    lambda grey: torch.ge(grey, _WHITE, out=torch.empty_like(grey)),  # as numbers at once: a conversion takes longer
    lambda grey: torch.le(grey, _BLACK, out=torch.empty_like(grey)),
)


def peak_features(grey: Tensor, keypoints: Keypoints) -> Tensor:
    """What is around the keypoints (B, K) of grey images (B, 1, H, W) in [0, 1]: (B, K, NUM_FEATURES).

    Of the score: the score, the log of the rank by area, and the scores at 100 and 1000 keypoints a megapixel. Around
    the keypoint, over blocks of a pyramid: grey, its change from block to larger block, contrast, the darkest and
    brightest pixels, noise, the share of clipped pixels. Of the whole image: mean, contrast, quantiles of grey, noise,
    the share of clipped pixels.
    """
    of_scores = _of_scores(keypoints, grey.shape[-2] * grey.shape[-1])
    return torch.cat([of_scores, _around(grey, keypoints.xy).mT], dim=2)


def _of_scores(keypoints: Keypoints, area: int) -> Tensor:
    """What the scores of the keypoints say, in an image of ``area`` pixels: (B, K, 4)."""
    scores = keypoints.scores.masked_fill(~keypoints.valid, 0)
    count = scores.shape[1]
    rank = torch.arange(1, count + 1, device=scores.device, dtype=scores.dtype) * (1e6 / area)  # a megapixel
    found = keypoints.valid.sum(1, keepdim=True).clamp(min=1)
    at = [
        scores.gather(1, (found - 1).clamp(max=(n * area + 500_000) // 1_000_000)).expand_as(scores)
        for n in (100, 1000)
    ]
    return torch.stack([scores, (rank / 1000).log().expand_as(scores), *at], dim=2)


def _around(grey: Tensor, xy: Tensor) -> Tensor:
    """(B, N, K): the maps of every level at the keypoints, and numbers of the whole image."""
    height, width = grey.shape[-2:]
    step = 2**_LEVELS
    padded = F.pad(grey, (0, -width % step, 0, -height % step), mode="replicate")
    maps = torch.cat([mean_2x2(make(padded)) for make in _MAPS], dim=1)
    extremes = torch.cat([max_2x2(padded), max_2x2(-padded)], dim=1)
    found, previous = [sample_at(padded, xy)], sample_at(padded, xy)
    for level in range(1, _LEVELS + 1):
        maps = mean_2x2(maps) if level > 1 else maps
        places = (xy + 0.5) / 2**level - 0.5
        sides = (maps.shape[-1], maps.shape[-2])
        places = torch.stack([places[..., i].clamp(0, side - 1) for i, side in enumerate(sides)], dim=-1)
        mean, square, roughness, white, black = sample_at(maps, places).split(1, dim=1)
        found.append(previous - mean)
        previous = mean
        if level in _CONTRAST_LEVELS:
            found.append((square - mean * mean).clamp(min=0).sqrt().clamp(min=_LEAST).log())
        if level in _NOISE_LEVELS:
            found.append(roughness.clamp(min=_LEAST / 10).log())
        if level == _RANGE_LEVELS[-1]:
            found += [mean, white, black]
            whole = _of_image(maps, xy.shape[1])
        if level in _RANGE_LEVELS:
            extremes = max_2x2(extremes) if level > 1 else extremes
            found.append(sample_at(max_3x3(extremes), places, mode="nearest"))
    return torch.cat([*found, whole], dim=1)


def _of_image(maps: Tensor, count: int) -> Tensor:
    """(B, N, count): the same for every keypoint of an image; ``maps`` are means over blocks, see :func:`_around`."""
    mean, square, roughness, white, black = (values.flatten(1) for values in maps.split(1, dim=1))
    average = mean.mean(1)
    contrast = (square.mean(1) - average**2).clamp(min=0).sqrt()
    rows = [average, contrast, white.mean(1), black.mean(1), *_quantiles(mean, _QUANTILES)]
    rows += _quantiles(roughness, _NOISE_QUANTILES).clamp(min=_LEAST / 10).log()
    return torch.stack(list(rows), dim=1)[..., None].expand(-1, -1, count)


def _quantiles(values: Tensor, percents: tuple[int, ...]) -> Tensor:
    """Values (B, N) in order at percents of N: (percents, B), without interpolation."""
    ordered = ascending(values)
    places = [ordered.shape[1] * percent // 100 for percent in percents]  # whole numbers: a graph has no others
    return torch.stack([ordered[:, place] for place in places])
