"""From a score map to keypoints: non-maximum suppression, border, the best, sub-pixel position."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from kornia.geometry.subpix import nms2d
from torch import Tensor
from torch.nn import functional as F

from kp.geometry.coords import Size, pixel_grid
from kp.support.device import keep_freed_memory


@dataclass(frozen=True)
class Keypoints:
    """A fixed number of keypoints per image, best first: ``xy`` (B, K, 2) pixels, ``scores`` (B, K), ``valid`` (B, K).

    Where ``valid`` is False there is no keypoint: its position is (0, 0) and its score -inf.
    """

    xy: Tensor
    scores: Tensor
    valid: Tensor

    def to(self, device: torch.device | str) -> "Keypoints":
        """The same keypoints on another device."""
        return Keypoints(self.xy.to(device), self.scores.to(device), self.valid.to(device))

    def each(self, images: slice) -> "Keypoints":
        """The keypoints of some images of the batch."""
        return Keypoints(self.xy[images], self.scores[images], self.valid[images])

    def select(self, keep: Tensor, max_keypoints: int | None = None) -> "Keypoints":
        """The best ``max_keypoints`` (all places if None) of those that ``keep`` (B, K) allows, still best first."""
        keep = keep & self.valid
        kept = Keypoints(self.xy, self.scores, keep).ordered(
            torch.argsort(~keep, dim=1, stable=True)[:, :max_keypoints]
        )
        return _masked(kept.xy, kept.scores, kept.valid)

    def ordered(self, order: Tensor) -> "Keypoints":
        """The keypoints in another order: ``order`` (B, N) holds places in [0, K)."""
        xy = self.xy.gather(1, order[..., None].expand(-1, -1, 2))
        return Keypoints(xy, self.scores.gather(1, order), self.valid.gather(1, order))


def most_keypoints(size: Size, nms_size: int) -> int:
    """The most keypoints that NMS with an odd kernel of ``nms_size`` pixels can leave in an image of this size."""
    apart = nms_size // 2 + 1
    return -(-size[0] // apart) * -(-size[1] // apart)


def extract_keypoints(
    scores: Tensor,
    max_keypoints: int | None = None,
    nms_size: int = 9,
    border: int = 4,
    subpixel: bool = False,
    mask: Tensor | None = None,
    greedy: bool = False,
    threshold: float = 0.0,
) -> Keypoints:
    """The best local maxima of score maps (B, 1, H, W), as exactly ``max_keypoints`` places (None: all there can be).

    Give logits, not probabilities: sigmoid(19) and sigmoid(20) are equal in float32. Equal scores are told apart by
    raster order, so a plateau gives one keypoint, not none, and the same image gives the same keypoints everywhere.
    Maxima are searched up to the very edge of the image, before ``border`` and ``mask`` act. A pixel whose score is
    -inf is never a keypoint. On a CPU OpenCV finds the maxima, elsewhere Kornia; the keypoints are the same.

    Args:
        nms_size: odd, side in pixels of the window in which a keypoint is the best pixel.
        border: pixels from the edge of the image within which there is no keypoint.
        subpixel: move each keypoint, by half a pixel at most, to the top of a quadric through 3x3 scores.
        mask: (B, 1, H, W), True where there may be keypoints.
        greedy: a pixel is a keypoint if it is the best of its window but for pixels that lie in the window of a better
            keypoint. The best keypoint is chosen first, its window removed, and so on, as ``box_nms`` of
            rpautrat/SuperPoint does.
        threshold: in [0, 1): only pixels are keypoints whose score is above the logit of this; 0: all may be.

    Raises:
        ValueError: a score is NaN, ``nms_size`` is even, or ``threshold`` is out of bounds.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), not {threshold}")
    if nms_size % 2 != 1 or nms_size < 1:
        raise ValueError(f"nms_size must be odd and positive, not {nms_size}")
    scores, size = scores.detach(), tuple(scores.shape[-2:])
    if scores.isnan().any():
        raise ValueError("the score map has NaN: the image or the weights are not finite")
    if max_keypoints is None:
        max_keypoints = most_keypoints(size, nms_size)
    peaks = _greedy(scores, nms_size) if greedy else _peaks(scores, nms_size)
    peaks[..., :border, :] = peaks[..., size[0] - min(border, size[0]) :, :] = False
    peaks[..., :border] = peaks[..., size[1] - min(border, size[1]) :] = False
    if mask is not None:
        peaks &= mask
    if threshold:
        peaks &= scores > math.log(threshold / (1 - threshold))
    return _best_peaks(scores, peaks, max_keypoints, subpixel)


def _best_peaks(scores: Tensor, peaks: Tensor, max_keypoints: int, subpixel: bool) -> Keypoints:
    """The best of the pixels that ``peaks`` (B, 1, H, W) allows; of equal scores the first in raster order."""
    flat, width = scores.flatten(1), scores.shape[-1]
    image, pixel = peaks.flatten(1).nonzero().unbind(1)  # (N,), by image, then in raster order
    first = torch.searchsorted(image, torch.arange(len(flat), device=image.device))
    order = flat[image, pixel].argsort(descending=True, stable=True)
    order = order[image[order].argsort(stable=True)]  # by image, then best first
    place = torch.arange(len(order), device=image.device) - first[image[order]]
    order, place = order[place < max_keypoints], place[place < max_keypoints]
    index = flat.new_zeros((len(flat), max_keypoints), dtype=torch.long)
    valid = torch.zeros_like(index, dtype=torch.bool)
    index[image[order], place], valid[image[order], place] = pixel[order], True
    xy = torch.stack([index % width, index // width], dim=-1).to(pixel_grid((1, 1), scores).dtype)
    if subpixel:
        xy = xy + subpixel_offsets(scores, index)
    return _masked(xy, flat.gather(1, index), valid)


def _peaks(scores: Tensor, nms_size: int) -> Tensor:
    """True (B, 1, H, W) where a score is the best of its window, or the first in raster order of several best."""
    finite = scores > -torch.inf
    if nms_size == 1:
        return finite
    if scores.device.type != "cpu" or scores.dtype not in (torch.float32, torch.float64):
        return finite & _best_within(_total_order(scores), nms_size)
    maps = [_opencv_peaks(image[0].numpy(), nms_size) for image in scores]
    return finite & torch.from_numpy(np.stack(maps))[:, None]


def _opencv_peaks(scores: np.ndarray, nms_size: int) -> np.ndarray:
    """Where scores (H, W) are greatest in their window and greater than all that come before them in raster order."""
    keep_freed_memory()
    r = nms_size // 2
    peaks = scores >= cv2.dilate(scores, np.ones((nms_size, nms_size), np.uint8))
    above = cv2.dilate(scores, np.ones((r, nms_size), np.uint8), anchor=(r, r - 1))  # this row and r - 1 above it
    peaks[1:] &= scores[1:] > above[:-1]
    left = cv2.dilate(scores, np.ones((1, r), np.uint8), anchor=(r - 1, 0))  # the pixel and r - 1 pixels on its left
    peaks[:, 1:] &= scores[:, 1:] > left[:, :-1]
    return peaks


def _greedy(scores: Tensor, nms_size: int) -> Tensor:
    """True (B, 1, H, W) for the keypoints that are left when the best is taken, its window removed, and so on."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    left = scores.clone()
    while (peaks := _peaks(left, nms_size)).any():
        chosen |= peaks
        window = F.max_pool2d(peaks.float(), nms_size, stride=1, padding=nms_size // 2) > 0
        left.masked_fill_(window, -torch.inf)
    return chosen


def resized(keypoints: Keypoints, count: int) -> Keypoints:
    """The best ``count`` keypoints (B, count) of each image; places without one where there are fewer."""
    missing = max(0, count - keypoints.valid.shape[1])
    return _masked(
        F.pad(keypoints.xy[:, :count], (0, 0, 0, missing)),
        F.pad(keypoints.scores[:, :count], (0, missing)),
        F.pad(keypoints.valid[:, :count], (0, missing)),
    )


def _masked(xy: Tensor, scores: Tensor, valid: Tensor) -> Keypoints:
    return Keypoints(xy.masked_fill(~valid[..., None], 0), scores.masked_fill(~valid, -torch.inf), valid)


def _total_order(scores: Tensor) -> Tensor:
    """The ranks of pixels as a map (B, 1, H, W), none equal in one image: 1 is the worst, H * W the best.

    Ordered by score and then by raster position, first pixel best. As floating point, because not every device takes
    the maximum of integers; float32 counts exactly to 2 ** 24 pixels.
    """
    flat = scores.flatten(1)
    pixels = flat.shape[1]
    ranks = torch.arange(pixels, 0, -1, device=flat.device, dtype=torch.float32 if pixels < 2**24 else torch.float64)
    order = flat.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(flat, dtype=ranks.dtype).scatter(1, order, ranks.expand_as(flat)).view_as(scores)


def _best_within(order: Tensor, nms_size: int) -> Tensor:
    """Where a map (B, 1, H, W) is greatest in its window: bool. Padding lets one stand at the edge too."""
    r = nms_size // 2
    return nms2d(F.pad(order, (r, r, r, r)), (nms_size, nms_size), mask_only=True)[..., r:-r, r:-r]


def subpixel_offsets(scores: Tensor, index: Tensor) -> Tensor:
    """Offsets (B, K, 2) in [-0.5, 0.5] px from pixels ``index`` (B, K) to the top of a quadric through 3x3 scores.

    The quadric's derivatives are central differences, as in Brown and Lowe, BMVC 2002. Zero where it has no top.
    """
    gx, gy, hxx, hyy, hxy = _derivatives(scores, index)
    det = hxx * hyy - hxy**2
    has_top = (det > 0) & (hxx < 0)
    offset = torch.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], dim=-1)  # (B, K, 2)
    offset = offset / torch.where(has_top, det, torch.ones_like(det))[..., None]
    has_top = has_top & offset.isfinite().all(-1)  # not beside a pixel that is left out with -inf
    return torch.where(has_top[..., None], offset, torch.zeros_like(offset)).clamp(-0.5, 0.5)


def sharpness(scores: Tensor, xy: Tensor) -> Tensor:
    """Minus the second derivatives (B, K, 2, 2) of maps (B, 1, H, W) at the pixels of places ``xy`` (B, K, 2)."""
    height, width = scores.shape[-2:]
    x, y = (xy[..., i].round().long().clamp(0, side - 1) for i, side in enumerate((width, height)))
    _, _, hxx, hyy, hxy = _derivatives(scores, y * width + x)
    return -torch.stack([hxx, hxy, hxy, hyy], dim=-1).unflatten(-1, (2, 2))


def _derivatives(scores: Tensor, index: Tensor) -> tuple[Tensor, ...]:
    """The first (x, y) and second (xx, yy, xy) derivatives, each (B, K), of maps (B, 1, H, W) at pixels ``index``."""
    width = scores.shape[-1]
    padded = F.pad(scores, (1, 1, 1, 1), mode="replicate").flatten(1)  # (B, (H + 2) * (W + 2))
    centre = index + 2 * (index // width) + width + 3

    def at(dx: int, dy: int) -> Tensor:
        return padded.gather(1, centre + dy * (width + 2) + dx)

    hxx, hyy = at(1, 0) - 2 * at(0, 0) + at(-1, 0), at(0, 1) - 2 * at(0, 0) + at(0, -1)
    hxy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    return (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2, hxx, hyy, hxy
