"""Image files of sequences: their names, whether they are whole, and their pixels as gray values."""

import re
import struct
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from kp.support.errors import one_line

SUFFIXES = (".ppm", ".png", ".jpg", ".jpeg", ".pgm", ".bmp", ".tif", ".tiff", ".webp")

_UNSUPPORTED = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".exr", ".hdr", ".psd", ".dng", ".cr2", ".nef")
_NAME = re.compile(r"(?:img|image)?[-_]?([0-9]{1,9})", re.IGNORECASE)
_LOG_LEVEL_SILENT = 0  # of OpenCV
_PNM_HEADER = re.compile(rb"P([56])(?:\s|#.*\n)+(\d{1,9})(?:\s|#.*\n)+(\d{1,9})(?:\s|#.*\n)+(\d{1,5})\s")
_TIFF_TYPES = {3: "H", 4: "I", 16: "Q"}


class HPatchesError(ValueError):
    """A sequence cannot be read. The message is one line that says what to do."""


def numbered_images(paths: Iterable[Path]) -> dict[int, Path]:
    """The image file of each number. Names are ``1.ppm``, ``01.png``, ``img1.ppm``, ... with any suffix of an image.

    If an image is there twice, the type that comes first in ``SUFFIXES`` is read. Types that cannot be read come last;
    :func:`check_suffix` refuses them.
    """
    order = {suffix: i for i, suffix in enumerate(SUFFIXES + _UNSUPPORTED)}
    found = [(m, f) for f in paths if f.suffix.lower() in order and (m := _NAME.fullmatch(f.stem))]
    found.sort(key=lambda pair: (order[pair[1].suffix.lower()], len(pair[1].name), pair[1].name), reverse=True)
    return {int(match[1]): path for match, path in found}


def check_suffix(path: Path) -> None:
    """Raise HPatchesError if the type of an image cannot be read."""
    if path.suffix.lower() not in SUFFIXES:
        raise HPatchesError(f"{path} is an unsupported image type {path.suffix}: convert it to .png")


def read_image(path: Path) -> Tensor:
    """An image file as gray (1, 1, H, W) in [0, 1], float32.

    OpenCV converts to gray with 8 bits (ITU-R BT.601 weights), so that every detector gets the same pixels.

    Raises:
        HPatchesError: the file cannot be read, is truncated, is not an image, or is of a type that is not supported.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise HPatchesError(f"{path} cannot be read ({one_line(e)}): unpack the archive again") from None
    image = _decode(data) if (whole := _is_whole(data)) else None
    if image is None and data[4:8] == b"ftyp":  # a phone's photograph, whatever its suffix
        brand = re.sub("[^a-z0-9]", "", data[8:12].decode("latin-1").lower())
        raise HPatchesError(f"{path} is an unsupported image type, {brand}: convert it to .png")
    if image is None and whole and data[:2] in (b"II", b"MM"):
        raise HPatchesError(f"{path} is a TIFF that is damaged or has no pixels of 8 or 16 bits: convert it to .png")
    if image is None:
        raise HPatchesError(f"{path} is truncated or no image: unpack the archive again")
    return torch.from_numpy(image)[None, None].float() / 255


def _decode(data: bytes) -> np.ndarray | None:
    """A gray image (H, W), uint8, or None if the data are not an image. OpenCV's own messages are switched off."""
    set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # OpenCV 4, OpenCV 5
    before = set_log_level(_LOG_LEVEL_SILENT)
    try:
        data = data + b"\n" if data[:2] in (b"P2", b"P3") else data  # OpenCV refuses a number at the very end
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # for example, the header says that the image is huge
        return None
    finally:
        set_log_level(before)


def _is_whole(data: bytes) -> bool:
    """False for an empty or truncated file. OpenCV may decode such a file to a partly gray image without an error.

    OpenCV itself refuses a truncated BMP or WebP, since 4.9 at least.
    """
    if data[:2] in (b"P5", b"P6"):
        return _pnm_is_whole(data)
    if data[:3] == b"\xff\xd8\xff":
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")  # end of image after start of scan
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        try:
            return _tiff_is_whole(data)
        except (struct.error, OverflowError):  # the data end before a place that the header names
            return False
    return b"IEND" in data[-64:] if data[:4] == b"\x89PNG" else bool(data)


def _pnm_is_whole(data: bytes) -> bool:
    """Whether a binary PGM or PPM has as many values as its header says."""
    header = _PNM_HEADER.match(data)
    if header is None:
        return False
    kind, width, height, max_value = map(int, header.groups())
    values = width * height * (3 if kind == 6 else 1)
    return len(data) - header.end() >= values * (2 if max_value > 255 else 1)


def _tiff_is_whole(data: bytes) -> bool:
    """Whether a TIFF or BigTIFF has all strips or tiles of its first image. Raises struct.error at a cut directory.

    The format: Adobe, TIFF 6.0 (1992), section 2. BigTIFF has offsets of 8 bytes instead of 4.
    """
    order, is_big = "<" if data[:1] == b"I" else ">", b"+" in data[:4]
    offset, count, width = ("Q", "Q", 8) if is_big else ("I", "H", 4)
    (directory,) = struct.unpack_from(order + offset, data, width)
    (entries,) = struct.unpack_from(order + count, data, directory)
    begin, step = directory + struct.calcsize(count), 4 + 2 * width
    struct.unpack_from(order + offset, data, begin + entries * step)  # the directory is there to its end
    values = {}
    for entry in range(begin, begin + entries * step, step):
        tag, kind, length = struct.unpack_from(f"{order}HH{offset}", data, entry)
        if tag in (273, 279, 324, 325):  # offsets and sizes of strips, then those of tiles
            form, place = f"{order}{length}{_TIFF_TYPES.get(kind, 'I')}", entry + 4 + width
            if struct.calcsize(form) > width:
                (place,) = struct.unpack_from(order + offset, data, place)
            values[tag] = struct.unpack_from(form, data, place)
    starts, sizes = values.get(273) or values.get(324), values.get(279) or values.get(325)
    return bool(starts) and all(a + n <= len(data) for a, n in zip(starts, sizes or (), strict=False))
