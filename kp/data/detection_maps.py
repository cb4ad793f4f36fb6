"""Writing the keypoints of a sequence as files: one score map per image, and the homographies."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from kp.data.hpatches import ImageSequence
from kp.geometry.coords import Size
from kp.models.keypoints import Keypoints
from kp.support.files import write_file

_SMALLEST_NORMAL_BITS = 0x00800000  # the smallest normal float32, read as an integer
_LARGEST_FINITE_BITS = 0x7F7FFFFF  # the largest finite float32, read as an integer


def export_sequence(
    directory: str | Path,
    sequence: ImageSequence,
    keypoints: Sequence[Keypoints],
    sizes: Sequence[Size],
    positive: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Write ``directory/<sequence>/<i>_det.npy`` for images 1..N and ``H_1_<k>`` for images 2..N.

    Each file is complete or absent.

    Args:
        directory: a folder, which is made if it is not there.
        sequence: the sequence that was measured.
        keypoints: of each image, B = 1, at whole pixels. All keypoints are written. A reader of the files first removes
            those that the other view does not see, then takes the best.
        sizes: (H, W) of each image.
        positive: see :func:`detection_map`.

    Raises:
        FileError: a file cannot be written.
    """
    folder = Path(directory) / sequence.name
    for number, (points, size) in enumerate(zip(keypoints, sizes, strict=True), start=1):
        buffer = io.BytesIO()
        np.save(buffer, detection_map(points, size, positive))
        write_file(folder / f"{number}_det.npy", buffer.getbuffer())
    for number, H in enumerate(sequence.homographies, start=2):
        text = "\n".join(" ".join(repr(v) for v in row) for row in H.tolist()) + "\n"
        data = sequence.files[number - 2].read_bytes() if sequence.files else text.encode()
        write_file(folder / f"H_1_{number}", data)


def detection_map(keypoints: Keypoints, size: Size, positive: Callable[[Tensor], Tensor] | None = None) -> np.ndarray:
    """A map (H, W), float32, with a score > 0 at each keypoint and 0 at all other pixels.

    No two scores of the map are equal, and they have the order of the keypoints. So a reader who sorts the map gets the
    same best keypoints. If two scores are equal in float32, the later one is made smaller by one bit.

    Args:
        keypoints: B = 1, at whole pixels, best first.
        size: (H, W) of the image.
        positive: an increasing function that makes scores positive, for example the sigmoid for logits. Without it,
            scores are kept if all are positive; otherwise the same number is added to all.
    """
    scores = keypoints.scores[keypoints.valid].cpu().double()
    x, y = keypoints.xy[keypoints.valid].cpu().round().long().T.numpy()
    if positive is not None:
        scores = positive(scores)
    elif len(scores) and scores.min() <= 0:
        scores = scores - scores.min() + 1
    detections = np.zeros(size, dtype=np.float32)
    detections[y, x] = _strictly_decreasing(scores.numpy())
    return detections


def _strictly_decreasing(scores: np.ndarray) -> np.ndarray:
    """Scores (N,), best first, as positive normal float32 numbers. Each is smaller than the one before.

    Positive floats have the same order as their bits read as integers. The integer minus 1 is the next smaller float.
    """
    bits = scores.astype(np.float32).view(np.int32).astype(np.int64)
    ranks = np.arange(len(bits))
    bits = bits.clip(_SMALLEST_NORMAL_BITS, _LARGEST_FINITE_BITS)
    bits = bits.clip(min=_SMALLEST_NORMAL_BITS + ranks[::-1])  # the scores that follow need smaller numbers
    return (np.minimum.accumulate(bits + ranks) - ranks).astype(np.int32).view(np.float32)
