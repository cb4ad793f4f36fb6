"""Protocols by name: how an image is looked at, how many keypoints count, and how near one must be to repeat another.

The same weights score 0.38, 0.50 or 0.62 on HPatches' viewpoint sequences under protocols that all are called
"HPatches repeatability"; a number without its protocol says nothing.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kp.geometry.coords import Size, resize, resize_matrix, translation

NMS = ("window", "greedy")  # kinds of non-maximum suppression, see Protocol
THRESHOLDS = (1, 3, 5)  # pixels: what is always measured, beside a protocol's own threshold; those of published tables


@dataclass(frozen=True)
class Protocol:
    """What decides the numbers of a table, beside the detectors.

    ``size``: (H, W) in pixels that every image is brought to, or None for its own; ``crop``: cover the size and cut off
    what sticks out on either side, instead of squashing the whole image into it. ``max_keypoints`` of each view that
    the other view sees count; ``nms_size`` (odd, pixels) and ``border`` (pixels) are every detector's. ``nms`` is
    ``window``, where a keypoint is the best pixel of its window, or ``greedy``, where it is the best but for pixels
    that a better keypoint suppresses: this leaves more keypoints.
    """

    name: str
    about: str
    size: Size | None
    crop: bool
    max_keypoints: int
    nms_size: int = 9
    border: int = 4
    threshold: float = 3.0
    nms: str = "window"

    def describe(self) -> str:
        """The whole protocol in a line, to stand above a table."""
        suppression = "greedy NMS" if self.nms == "greedy" else "NMS"
        return (
            f"{self.name}: {self.about}; best {self.max_keypoints} keypoints that the other view sees, repeated within "
            f"{self.threshold:g} px, either way, many-to-one; {suppression} {self.nms_size}x{self.nms_size}, border "
            f"{self.border} px; means over pairs"
        )


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("native", "images as they are", None, False, 300),
        Protocol("240x320", "images cover 240x320, cut out at the centre, as rpautrat's do", (240, 320), True, 300),
        Protocol("480x640", "images cover 480x640, cut out at the centre, as rpautrat's do", (480, 640), True, 1000),
        Protocol("squash", "whole images squashed to 240x320, as KP2D's, but with NMS", (240, 320), False, 300),
    )
}


def describe_all() -> str:
    """A line for each protocol."""
    return "\n".join(f"  {protocol.describe()}" for protocol in PROTOCOLS.values())


def choose(name: str, **changes: float | str | None) -> Protocol:
    """The protocol of that name, with those fields changed that are not None.

    Raises ValueError, naming the flag, on an unknown name or a value with which nothing can be measured.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"--protocol: no protocol is called {name}: there are {', '.join(PROTOCOLS)}")
    protocol = replace(PROTOCOLS[name], **{field: value for field, value in changes.items() if value is not None})
    if protocol.max_keypoints < 1:
        raise ValueError(f"--max-keypoints must be at least 1, not {protocol.max_keypoints}")
    if not 0 <= protocol.threshold < math.inf:
        raise ValueError(f"--threshold must be 0 pixels or more, not {protocol.threshold}")
    if protocol.nms_size < 1 or protocol.nms_size % 2 == 0:
        raise ValueError(f"--nms-size must be odd and positive, not {protocol.nms_size}")
    if protocol.nms not in NMS:
        raise ValueError(f"--nms must be {' or '.join(NMS)}, not {protocol.nms}")
    if protocol.border < 0:
        raise ValueError(f"--border must be 0 pixels or more, not {protocol.border}")
    return protocol


def prepare(image: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """An image (1, C, H, W) in [0, 1] as a protocol looks at it, and the homography (3, 3) to there, float64.

    Shrunk with a filter and rounded to 8 bits, like an image from a file. The homography is exact: of the size that the
    image really got, with the half pixel of resizing and the offset of the crop.
    """
    size0 = tuple(image.shape[-2:])
    if protocol.size is None or protocol.size == size0:
        return image, torch.eye(3, dtype=torch.float64)
    size1 = _covering(size0, protocol.size) if protocol.crop else protocol.size
    top, left = ((whole - part) // 2 for whole, part in zip(size1, protocol.size, strict=True))
    resized = (resize(image, size1).clamp(0, 1) * 255).round() / 255
    cropped = resized[..., top : top + protocol.size[0], left : left + protocol.size[1]]
    return cropped.contiguous(), translation(-left, -top) @ resize_matrix(size0, size1)


def carry(H_0to1: Tensor, to0: Tensor, to1: Tensor) -> Tensor:
    """H_0to1 (B, 3, 3) between two images as the same between what :func:`prepare` made of them, by its matrices."""
    return to1 @ H_0to1 @ torch.linalg.inv(to0)


def _covering(size: Size, target: Size) -> Size:
    """The smallest size of about the same aspect that has no side shorter than the target's."""
    scale = max(part / whole for whole, part in zip(size, target, strict=True))
    return tuple(max(part, round(whole * scale)) for whole, part in zip(size, target, strict=True))
