"""Reading HPatches sequences (Balntas et al., CVPR 2017) from disk."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from kp.data.download import FOLDER, URL
from kp.geometry.coords import Size
from kp.support.errors import one_line

DOWNLOAD = f"add --download, or get {FOLDER}.zip of vbalnt/hpatches ({URL}), unpack it and pass the folder {FOLDER}"

_SUFFIXES = (".ppm", ".png", ".jpg", ".jpeg")  # if an image is there twice, the first of these is read
_LOG_LEVEL_SILENT = 0  # of OpenCV


class HPatchesError(ValueError):
    """A sequence cannot be read. The message is one line that says what to do."""


@dataclass(frozen=True)
class ImageSequence:
    """One scene: images 1..N, and the homographies from image 1 (the reference) to each other image.

    Attributes:
        name: the name of the folder, for example ``v_wall``.
        split: ``i`` (the light changes) or ``v`` (the viewpoint changes).
        images: N functions without arguments. Each returns a gray image (1, 1, H, W) in [0, 1].
        homographies: N - 1 matrices (3, 3), float64, pixels of image 1 -> pixels of image 2..N.
        files: the N - 1 files of the homographies, or empty for a sequence made in memory.
        kind: what changes, for sequences made in memory: ``i``, ``v``, ``hard``, ``rotation_45``, ``zoom``, ...
        valid: N masks (1, 1, H, W), the pixels that show the scene; empty where all pixels do.
    """

    name: str
    split: str
    images: tuple[Callable[[], Tensor], ...]
    homographies: tuple[Tensor, ...]
    files: tuple[Path, ...] = ()
    kind: str = ""
    valid: tuple[Tensor, ...] = ()

    def homography(self, number: int, size1: Size) -> Tensor:
        """H_0to1 (1, 3, 3), float64, pixels of image 1 -> pixels of image ``number``, with w = 1 at image 1's centre.

        A homography times a number is the same homography. With this scale, points in front of the camera have w > 0.

        Args:
            number: 2..N.
            size1: (H, W) of image 1.
        """
        H = self.homographies[number - 2]
        centre = torch.tensor([(size1[1] - 1) / 2, (size1[0] - 1) / 2, 1], dtype=H.dtype)
        w = H[2] @ centre
        if w == 0:
            raise HPatchesError(f"{self.name}/H_1_{number} sends the centre of image 1 to infinity: restore the file")
        return (H / w)[None]


def read(root: str | Path, split: str = "all") -> list[ImageSequence]:
    """The sequences of a folder, sorted by name.

    A sequence is a folder ``i_*`` or ``v_*`` with images ``1.ppm``, ``2.ppm``, ... (or png, jpg) and texts ``H_1_2``,
    ``H_1_3``, ... Homographies are read and checked now. Images are read when they are used.

    Args:
        root: the folder of the sequences, the folder above it, or a single sequence.
        split: ``i``, ``v`` or ``all``.

    Raises:
        HPatchesError: there are no sequences, or one is incomplete or damaged.
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
    """True for a folder with the name of a sequence and at least one image or homography."""
    return (
        re.match(r"[iv]_.", folder.name) is not None
        and folder.is_dir()
        and bool(_numbered_images(folder) or any(folder.glob("H_1_*")))
    )


def _numbered_images(folder: Path) -> dict[int, Path]:
    """The image file of each number."""
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
    """A homography (3, 3), float64, from a text of nine numbers with any white space between them.

    Raises:
        HPatchesError: the file cannot be read, or the numbers are not a homography.
    """
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
    """An image file as gray (1, 1, H, W) in [0, 1], float32.

    OpenCV converts to gray with 8 bits (ITU-R BT.601 weights), so that every detector gets the same pixels.

    Raises:
        HPatchesError: the file cannot be read, is truncated or is not an image.
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
    """A gray image (H, W), uint8, or None if the data are not an image. OpenCV's own messages are switched off."""
    set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # OpenCV 4, OpenCV 5
    before = set_log_level(_LOG_LEVEL_SILENT)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # for example, the header says that the image is huge
        return None
    finally:
        set_log_level(before)


def _is_whole(data: bytes) -> bool:
    """False for an empty or truncated file. OpenCV may decode such a file to a partly gray image without an error."""
    if data[:2] in (b"P5", b"P6"):
        header = re.match(rb"P[56](?:\s|#.*\n)+(\d{1,9})(?:\s|#.*\n)+(\d{1,9})(?:\s|#.*\n)+(\d{1,5})\s", data)
        if header is None:
            return False
        width, height, max_value = (int(n) for n in header.groups())
        channels, bytes_per_value = 3 if data[1:2] == b"6" else 1, 2 if max_value > 255 else 1
        return len(data) - header.end() >= width * height * channels * bytes_per_value
    if data[:3] == b"\xff\xd8\xff":
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")  # end of image after start of scan
    return b"IEND" in data[-64:] if data[:4] == b"\x89PNG" else bool(data)
