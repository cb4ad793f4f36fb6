"""A detector with its keypoints as one graph of fixed operations: for ONNX, torch.export and torch.compile.

:func:`kp.models.keypoints.extract_keypoints` finds the same keypoints, faster on a CPU, with OpenCV and with arrays
whose size depends on the image. Here every size follows from the size of the image alone.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kp.config import DETECTION_THRESHOLD
from kp.models.corner import CornerDetector, candidates
from kp.models.detector import Detector, describes, to_grey
from kp.models.keypoints import Keypoints, subpixel_offsets
from kp.models.ranker import reranked


class KeypointNumbers(NamedTuple):
    """How keypoints are found; the meaning of each number is that of :class:`KeypointGraph`."""

    num_keypoints: int = 1024
    nms_radius: int = 4
    remove_borders: int = 4
    detection_threshold: float = DETECTION_THRESHOLD
    subpixel: bool = True


class KeypointGraph(nn.Module):
    """Grey images (B, 1, H, W) in [0, 1] -> the K best keypoints of each, best first, in the dtype float32.

    ``forward`` returns keypoints (B, K, 2), (x, y) in pixels with (0, 0) at the centre of the top-left pixel;
    keypoint_scores (B, K), the sigmoid of the score; valid (B, K) bool. Where ``valid`` is False there is no keypoint:
    its position is (0, 0) and its score 0. With a describer also descriptors (B, K, D), of unit length, 0 where there
    is no keypoint. A pixel whose score is -inf is never a keypoint. B, H and W are free, also in an exported graph
    (with a ranker sides of torch.export, not of ONNX, are above 32 pixels); K is fixed.

    The graph holds a copy of the detector, which computes with torch, never with OpenCV. A ranker judges as many of the
    best keypoints by score as it does elsewhere.

    Args:
        detector: any detector.
        num_keypoints: K.
        nms_radius: pixels; a keypoint is the best of the square of 2 * nms_radius + 1 pixels around it. Of several
            best the first in raster order counts.
        remove_borders: pixels from the edge of the image within which there is no keypoint.
        detection_threshold: a keypoint has a greater ``sigmoid(score)``; 0 stands for no threshold.
        subpixel: move each keypoint, by half a pixel at most, to the top of a quadric through 3x3 scores.

    Raises:
        ValueError: a number is out of bounds.

    Example:
        >>> graph = KeypointGraph(load_detector(), num_keypoints=500)
        >>> keypoints, keypoint_scores, valid = graph(images)
    """

    def __init__(
        self,
        detector: Detector,
        num_keypoints: int = 1024,
        nms_radius: int = 4,
        remove_borders: int = 4,
        detection_threshold: float = DETECTION_THRESHOLD,
        subpixel: bool = True,
    ) -> None:
        super().__init__()
        self.numbers = KeypointNumbers(num_keypoints, nms_radius, remove_borders, detection_threshold, subpixel)
        check(self.numbers)
        self.detector = copy.deepcopy(detector).eval()
        if isinstance(self.detector, CornerDetector):
            self.detector.use_opencv = False

    @property
    def describes(self) -> bool:
        """Whether there are descriptors."""
        return describes(self.detector)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.described(image, *self.keypoints(image, self.detector.score_map(image)))

    def described(self, image: Tensor, keypoints: Tensor, scores: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        """The keypoints of images, and their descriptors if there are any."""
        if not self.describes:
            return keypoints, scores, valid
        descriptors = self.detector.describe(image, keypoints)
        return keypoints, scores, valid, descriptors.masked_fill(~valid[..., None], 0)

    def keypoints(self, image: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What ``forward`` returns, from images and their score maps (B, 1, H, W)."""
        n, ranker = self.numbers, getattr(self.detector, "ranker", None)
        if ranker is None or not self.detector.settings.ranker_weight:
            found = self._best(scores, n.num_keypoints)
        else:
            found = self._best(scores, candidates(n.num_keypoints, tuple(scores.shape[-2:])))
            gain = self.detector.settings.ranker_weight * ranker.judge(to_grey(image), found)
            found = reranked(found, gain)
        xy, logits, valid = (each[:, : n.num_keypoints] for each in (found.xy, found.scores, found.valid))
        return xy.masked_fill(~valid[..., None], 0), logits.sigmoid().masked_fill(~valid, 0), valid

    def _best(self, scores: Tensor, count: int) -> Keypoints:
        """The best ``count`` keypoints of score maps (B, 1, H, W)."""
        n, width = self.numbers, scores.shape[-1]
        peaks = peak_mask(scores, n.nms_radius) & inner_mask(scores, n.remove_borders)
        index, valid = best_peaks(scores, peaks, count, n.nms_radius)  # (B, count)
        logits = scores.flatten(1).gather(1, index).float()
        if n.detection_threshold:
            valid = valid & (logits.sigmoid() > n.detection_threshold)
        y = index // width
        xy = torch.stack([index - y * width, y], dim=-1).float()  # not index % width, which has no ONNX export
        if n.subpixel:
            xy = xy + subpixel_offsets(scores.float(), index)
        return Keypoints(xy.masked_fill(~valid[..., None], 0), logits.masked_fill(~valid, -torch.inf), valid)


def check(n: KeypointNumbers, flags: KeypointNumbers | None = None) -> None:
    """Raises ValueError on numbers with which there are no keypoints. ``flags`` are their names on the command line."""
    names = flags or KeypointNumbers(*KeypointNumbers._fields)
    if n.num_keypoints < 1:
        raise ValueError(f"{names.num_keypoints} must be at least 1, not {n.num_keypoints}")
    if n.nms_radius < 0:
        raise ValueError(f"{names.nms_radius} must be at least 0 pixels, not {n.nms_radius}")
    if n.remove_borders < 0:
        raise ValueError(f"{names.remove_borders} must be at least 0 pixels, not {n.remove_borders}")
    if not 0 <= n.detection_threshold < 1:
        raise ValueError(f"{names.detection_threshold} must be in [0, 1), not {n.detection_threshold}")


def peak_mask(scores: Tensor, radius: int) -> Tensor:
    """True (B, 1, H, W) where a score is the greatest of its window and greater than all that come before it there.

    The window is a square of 2 * radius + 1 pixels; "before" is meant in raster order. -inf is never a peak.
    """
    finite = scores > -torch.inf
    if radius == 0:
        return finite
    side = 2 * radius + 1
    rows = F.max_pool2d(scores, (1, side), stride=1, padding=(0, radius))
    window = F.max_pool2d(rows, (side, 1), stride=1, padding=(radius, 0))
    above = F.pad(rows, (0, 0, radius, 0), value=-torch.inf)[..., :-1, :]  # the row y - radius is now at y
    left = F.pad(scores, (radius, 0), value=-torch.inf)[..., :-1]
    first = scores > F.max_pool2d(above, (radius, 1), stride=1)
    return finite & (scores >= window) & first & (scores > F.max_pool2d(left, (1, radius), stride=1))


def inner_mask(scores: Tensor, border: int) -> Tensor:
    """True (1, 1, H, W) for pixels ``border`` pixels or more from the edge of maps (B, 1, H, W)."""
    height, width = scores.shape[-2:]
    y, x = torch.arange(height, device=scores.device), torch.arange(width, device=scores.device)
    rows, columns = (y >= border) & (y < height - border), (x >= border) & (x < width - border)
    return (rows[:, None] & columns)[None, None]


def best_peaks(scores: Tensor, peaks: Tensor, count: int, radius: int) -> tuple[Tensor, Tensor]:
    """The pixels (B, count) of the best peaks, and whether there are so many, bool; of equal scores the first pixel.

    Two peaks are more than ``radius`` pixels apart in x or in y. So a block of radius + 1 pixels a side has one at
    most, and the blocks are sorted instead of the pixels.
    """
    side = radius + 1
    height, width = scores.shape[-2:]
    padded = F.pad(scores.masked_fill(~peaks, -torch.inf), (0, -width % side, 0, -height % side), value=-torch.inf)
    blocks = padded[:, 0].unflatten(1, (-1, side)).unflatten(3, (-1, side)).transpose(2, 3)  # (B, h, w, side, side)
    best, place = blocks.flatten(3).max(dim=3)  # (B, h, w)
    rows, columns = (torch.arange(n, device=scores.device) * side for n in best.shape[1:])
    pixel = (rows[:, None] + place // side) * width + columns + place % side
    best, pixel = (
        F.pad(values.flatten(1), (0, count), value=fill) for values, fill in ((best, -torch.inf), (pixel, 0))
    )
    pixel = pixel.masked_fill(best == -torch.inf, 0)  # a block without a peak may lie outside the image
    pixel, raster = pixel.sort(dim=1)
    best, order = best.gather(1, raster).sort(dim=1, descending=True, stable=True)
    return pixel.gather(1, order[:, :count]), best[:, :count] > -torch.inf
