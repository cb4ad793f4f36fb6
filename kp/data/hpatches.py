"""HPatches sequences (Balntas et al., CVPR 2017) on disk, and the files of the exercise this project grew from."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from kp.data.download import FOLDER, URL
from kp.geometry.coords import Size
from kp.models.keypoints import Keypoints
from kp.support.errors import one_line
from kp.support.files import write_file

DOWNLOAD = f"add --download, or get {FOLDER}.zip of vbalnt/hpatches ({URL}), unpack it and pass the folder {FOLDER}"

_SUFFIXES = (".ppm", ".png", ".jpg", ".jpeg")  # in this order, should an image be there twice
_TINY = 0x00800000  # the bits of the smallest normal float32
_HUGE = 0x7F7FFFFF  # of the greatest finite one
_SILENT = 0  # OpenCV's log level


class HPatchesError(ValueError):
    """Sequences that cannot be read or written; the message is one line that says what to do."""


@dataclass(frozen=True)
class ImageSequence:
    """One scene: images 1..N, of which image 1 is the reference, and homographies from image 1 to each other one.

    ``images``: N functions without arguments, each giving a gray image (1, 1, H, W) in [0, 1]. ``homographies``: N - 1
    matrices (3, 3), float64, pixels of image 1 -> pixels of image 2..N. ``split``: ``i`` or ``v``. ``files``: the
    homographies' texts as they are on disk, or empty for a sequence made in memory.
    """

    name: str
    split: str
    images: tuple[Callable[[], Tensor], ...]
    homographies: tuple[Tensor, ...]
    files: tuple[Path, ...] = ()

    def homography(self, number: int, size1: Size) -> Tensor:
        """H_0to1 (1, 3, 3), float64, of image 1 (of size1) and image ``number``, scaled to w = 1 at image 1's centre.

        A homography means the same when multiplied by any number; with this one, what is in front has w > 0.
        """
        H = self.homographies[number - 2]
        centre = torch.tensor([(size1[1] - 1) / 2, (size1[0] - 1) / 2, 1], dtype=H.dtype)
        w = H[2] @ centre
        if w == 0:
            raise HPatchesError(f"{self.name}/H_1_{number} sends the centre of image 1 to infinity: restore the file")
        return (H / w)[None]


def read(root: str | Path, split: str = "all") -> list[ImageSequence]:
    """The sequences in a folder of ``i_*`` and ``v_*`` folders, by name, those of one split (``i``, ``v``) or ``all``.

    Each has images ``1.ppm``, ``2.ppm``, ... (also png and jpg) and texts ``H_1_2``, ``H_1_3``, ... Homographies are
    read and checked now, images when asked for. ``root`` may also be the folder above, or a single sequence. Raises
    HPatchesError.
    """
    folders = [f for f in _sequence_folders(Path(root)) if split in ("all", f.name[0])]
    if not folders:
        raise HPatchesError(f"{root} has no {split}_* sequence: choose another split")
    return [_read_sequence(folder) for folder in folders]


def _sequence_folders(root: Path) -> list[Path]:
    if not root.exists():
        raise HPatchesError(f"{root} does not exist: {DOWNLOAD}, or measure the built-in photographs: no --hpatches")
    if not root.is_dir():
        raise HPatchesError(f"{root} is not a folder: unpack the archive and pass the folder {FOLDER}")
    if _is_sequence(root):
        return [root]
    folders = [f for f in sorted(root.iterdir()) if _is_sequence(f)]
    if not folders and (root / FOLDER).is_dir():
        return _sequence_folders(root / FOLDER)
    if (not folders and any(root.glob("[iv]_*/ref.png"))) or (root / "ref.png").exists():
        raise HPatchesError(f"{root} is the patches release, not the sequences: {DOWNLOAD}")
    if not folders:
        raise HPatchesError(f"{root} has no folder i_* or v_* with images and H_1_* files: {DOWNLOAD}")
    return folders


def _is_sequence(folder: Path) -> bool:
    """A folder named like a sequence with at least one file of one; a folder of something else is left alone."""
    return (
        re.match(r"[iv]_.", folder.name) is not None
        and folder.is_dir()
        and bool(_numbered_images(folder) or any(folder.glob("H_1_*")))
    )


def _numbered_images(folder: Path) -> dict[int, Path]:
    """Image files by number."""
    files = [f for f in folder.iterdir() if f.stem.isdecimal() and f.suffix.lower() in _SUFFIXES]
    return {int(f.stem): f for f in sorted(files, key=lambda f: _SUFFIXES.index(f.suffix.lower()), reverse=True)}


def _read_sequence(folder: Path) -> ImageSequence:
    images = _numbered_images(folder)
    homographies = {int(f.name[4:]): f for f in folder.glob("H_1_*") if f.name[4:].isdecimal()}
    count = max(images.keys() | homographies.keys(), default=0)
    if count < 2:
        raise HPatchesError(f"{folder} has only one image: a sequence needs at least images 1 and 2, and H_1_2")
    for number in range(1, count + 1):
        if number not in images:
            raise HPatchesError(f"{folder} lacks image {number} (.ppm, .png or .jpg): unpack the archive again")
        if number > 1 and number not in homographies:
            raise HPatchesError(f"{folder} lacks H_1_{number}: unpack the archive again")
    files = tuple(homographies[number] for number in range(2, count + 1))
    loaders = tuple(partial(read_image, images[number]) for number in range(1, count + 1))
    return ImageSequence(folder.name, folder.name[0], loaders, tuple(read_homography(f) for f in files), files)


def read_homography(path: Path) -> Tensor:
    """A text of 3 x 3 numbers, apart by any white space, as float64 (3, 3). Raises HPatchesError."""
    try:
        values = [float(word) for word in path.read_text().split()]
    except (ValueError, OSError) as e:
        raise HPatchesError(f"{path} cannot be read as 3x3 numbers ({one_line(e)}): unpack the archive again") from None
    if len(values) != 9:
        raise HPatchesError(f"{path} has {len(values)} numbers, not 3x3: unpack the archive again")
    H = torch.tensor(values, dtype=torch.float64).view(3, 3)
    if not H.isfinite().all():
        raise HPatchesError(f"{path} has numbers that are not finite: unpack the archive again")
    if torch.linalg.matrix_rank(H) < 3:
        raise HPatchesError(f"{path} is a singular matrix, which no camera makes: unpack the archive again")
    return H


def read_image(path: Path) -> Tensor:
    """An image file as gray (1, 1, H, W) in [0, 1], float32. Raises HPatchesError on a file that is not whole.

    Gray by OpenCV (ITU-R BT.601 weights), 8 bits, so that every detector sees the same pixels.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise HPatchesError(f"{path} cannot be read ({one_line(e)}): unpack the archive again") from None
    image = _decode(data) if _is_whole(data) else None
    if image is None:
        raise HPatchesError(f"{path} is truncated or no image: unpack the archive again")
    return torch.from_numpy(image)[None, None].float() / 255


def _decode(data: bytes) -> np.ndarray | None:
    """A gray image (H, W), 8 bits, or None; OpenCV would else write lines of its own, or raise on a huge size."""
    set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # of OpenCV 4, and of 5
    before = set_log_level(_SILENT)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        return None
    finally:
        set_log_level(before)


def _is_whole(data: bytes) -> bool:
    """False for an empty or cut-off file, of which OpenCV may return a partly gray picture without a word."""
    if data[:2] in (b"P5", b"P6"):
        header = re.match(rb"P[56](?:\s|#.*\n)+(\d{1,9})(?:\s|#.*\n)+(\d{1,9})(?:\s|#.*\n)+(\d{1,5})\s", data)
        if header is None:
            return False
        width, height, most = (int(n) for n in header.groups())
        channels, depth = 3 if data[1:2] == b"6" else 1, 2 if most > 255 else 1
        return len(data) - header.end() >= width * height * channels * depth
    if data[:3] == b"\xff\xd8\xff":
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")  # end of image after start of scan
    return b"IEND" in data[-64:] if data[:4] == b"\x89PNG" else bool(data)


def export_sequence(
    directory: str | Path,
    sequence: ImageSequence,
    keypoints: Sequence[Keypoints],
    sizes: Sequence[Size],
    positive: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Write ``directory/<sequence>/<i>_det.npy`` for images 1..N and ``H_1_<k>`` for 2..N: the exercise's files.

    ``keypoints``: of each image, B = 1, at whole pixels, all of them: who reads the files takes the best after leaving
    out what the other view does not see. ``sizes``: (H, W) of each image. ``positive``: see :func:`detection_map`.
    Each file is complete or absent. Raises HPatchesError where the folder cannot be written.
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
    """Keypoints (B = 1) at whole pixels as a float32 map (H, W): the score, > 0, at each keypoint, 0 elsewhere.

    ``positive`` is an increasing function that makes scores positive (sigmoid for logits); without one, scores are
    kept, or moved up where some are not positive. No two are equal and their order is that of the keypoints,
    so that whoever sorts the map gets the same best ones: where float32 would make two equal, the later one is lowered
    by one bit.
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
    """Scores (N,), best first, as positive normal float32 numbers that each are less than the one before.

    The bits of positive floats, read as integers, are ordered like the floats: one less is the next smaller float.
    """
    bits = scores.astype(np.float32).view(np.int32).astype(np.int64)
    places = np.arange(len(bits))
    bits = bits.clip(_TINY, _HUGE).clip(min=_TINY + places[::-1])  # leaves room below for those that follow
    return (np.minimum.accumulate(bits + places) - places).astype(np.int32).view(np.float32)
