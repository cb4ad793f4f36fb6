"""From a score map to keypoints: Kornia NMS, border, top-k, sub-pixel position."""

from dataclasses import dataclass

import torch
from kornia.geometry.subpix import nms2d
from torch import Tensor
from torch.nn import functional as F

from kp.geometry.coords import Size, inside, pixel_grid


@dataclass(frozen=True)
class Keypoints:
    """A fixed number of keypoints per image, best first: ``xy`` (B, K, 2) pixels, ``scores`` (B, K), ``valid`` (B, K).

    Where ``valid`` is False there is no keypoint: its position is (0, 0) and its score -inf.
    """

    xy: Tensor
    scores: Tensor
    valid: Tensor

    def select(self, keep: Tensor, max_keypoints: int | None = None) -> "Keypoints":
        """The best ``max_keypoints`` (all places if None) of those that ``keep`` (B, K) allows, still best first."""
        keep = keep & self.valid
        order = torch.argsort(~keep, dim=1, stable=True)[:, :max_keypoints]
        return _masked(
            self.xy.gather(1, order[..., None].expand(-1, -1, 2)), self.scores.gather(1, order), keep.gather(1, order)
        )


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
) -> Keypoints:
    """The best local maxima of score maps (B, 1, H, W), as exactly ``max_keypoints`` places (None: all there can be).

    Give logits, not probabilities: sigmoid(19) and sigmoid(20) are equal in float32. ``nms_size`` is an odd kernel in
    pixels; a keypoint lies at least ``border`` pixels from the edge of its image and where ``mask`` (B, 1, H, W) is
    True; a pixel whose score is -inf is never one. Equal scores are told apart by raster order, so a plateau gives one
    keypoint, not none, and the same image gives the same keypoints everywhere. Maxima are searched up to the very edge
    of the image, before ``border`` and ``mask`` act. Raises ValueError on NaN scores or an even ``nms_size``.
    """
    if nms_size % 2 != 1 or nms_size < 1:
        raise ValueError(f"nms_size must be odd and positive, not {nms_size}")
    size = tuple(scores.shape[-2:])
    if max_keypoints is None:
        max_keypoints = most_keypoints(size, nms_size)
    order = _total_order(scores.detach())
    peaks = _best_within(order, nms_size) & inside(pixel_grid(size, scores), size, border).view(1, 1, *size)
    peaks = peaks & (scores > -torch.inf)
    if mask is not None:
        peaks = peaks & mask
    best = (order * peaks).flatten(1).topk(min(max_keypoints, size[0] * size[1]), dim=1)
    valid, index = best.values > 0, best.indices  # (B, K)
    xy = torch.stack([index % size[1], index // size[1]], dim=-1).to(pixel_grid((1, 1), scores).dtype)
    if subpixel:
        xy = xy + _subpixel_offsets(scores.detach(), index)
    missing = max_keypoints - index.shape[1]
    return _masked(
        F.pad(xy, (0, 0, 0, missing)),
        F.pad(scores.flatten(1).gather(1, index), (0, missing)),
        F.pad(valid, (0, missing)),
    )


def _masked(xy: Tensor, scores: Tensor, valid: Tensor) -> Keypoints:
    return Keypoints(xy.masked_fill(~valid[..., None], 0), scores.masked_fill(~valid, -torch.inf), valid)


def _total_order(scores: Tensor) -> Tensor:
    """The ranks of pixels as a map (B, 1, H, W), none equal in one image: 1 is the worst, H * W the best.

    Ordered by score and then by raster position, first pixel best. As floating point, because not every device takes
    the maximum of integers; float32 counts exactly to 2 ** 24 pixels.
    """
    if scores.isnan().any():
        raise ValueError("the score map has NaN: the image or the weights are not finite")
    flat = scores.flatten(1)
    pixels = flat.shape[1]
    ranks = torch.arange(pixels, 0, -1, device=flat.device, dtype=torch.float32 if pixels < 2**24 else torch.float64)
    order = flat.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(flat, dtype=ranks.dtype).scatter(1, order, ranks.expand_as(flat)).view_as(scores)


def _best_within(order: Tensor, nms_size: int) -> Tensor:
    """Where a map (B, 1, H, W) is greatest in its window: bool. Padding lets one stand at the edge too."""
    if nms_size == 1:
        return torch.ones_like(order, dtype=torch.bool)
    r = nms_size // 2
    return nms2d(F.pad(order, (r, r, r, r)), (nms_size, nms_size), mask_only=True)[..., r:-r, r:-r]


def _subpixel_offsets(scores: Tensor, index: Tensor) -> Tensor:
    """Offsets (B, K, 2) in [-0.5, 0.5] px from pixels ``index`` (B, K) to the top of a quadric through 3x3 scores.

    The quadric's derivatives are central differences, as in Brown and Lowe, BMVC 2002. Zero where it has no top.
    """
    width = scores.shape[-1]
    padded = F.pad(scores, (1, 1, 1, 1), mode="replicate").flatten(1)  # (B, (H + 2) * (W + 2))
    centre = (index // width + 1) * (width + 2) + index % width + 1

    def at(dx: int, dy: int) -> Tensor:
        return padded.gather(1, centre + dy * (width + 2) + dx)

    gx, gy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    hxx, hyy = at(1, 0) - 2 * at(0, 0) + at(-1, 0), at(0, 1) - 2 * at(0, 0) + at(0, -1)
    hxy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    det = hxx * hyy - hxy**2
    has_top = (det > 0) & (hxx < 0)
    offset = torch.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], dim=-1)  # (B, K, 2)
    offset = offset / torch.where(has_top, det, torch.ones_like(det))[..., None]
    has_top = has_top & offset.isfinite().all(-1)  # not beside a pixel that is left out with -inf
    return torch.where(has_top[..., None], offset, torch.zeros_like(offset)).clamp(-0.5, 0.5)
