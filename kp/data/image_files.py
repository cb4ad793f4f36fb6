"""Image files: names and types, the pixels as they are stored, and one conversion to gray for every use.

What their containers say: :mod:`kp.data.image_containers`.
"""

import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from kp.data.image_containers import is_whole, orientation, turned, without_orientation
from kp.models.detector import to_grey
from kp.support.errors import one_line

SUFFIXES = (".ppm", ".png", ".jpg", ".jpeg", ".pgm", ".bmp", ".tif", ".tiff", ".webp")

_UNSUPPORTED = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".exr", ".hdr", ".psd", ".dng", ".cr2", ".nef")
_NAME = re.compile(r"(?:img|image)?[-_]?([0-9]{1,9})", re.IGNORECASE)
_LOG_LEVEL_SILENT = 0  # of OpenCV
_NO_DATA = (-9999.0, -32767.0, -32768.0)  # what maps of heights hold where there is no value
_NO_DATA_BEYOND = 1e30
_TAILS = (0.1, 99.9)  # percent of the pixels: values beyond are clipped where the range of values is not known
_LEAST_RANGE = 1 / 8  # of the range of a bit depth: an image that uses less of it is stretched


class ImageError(ValueError):
    """An image cannot be read. The message is one line that says what to do."""


class HPatchesError(ImageError):
    """A sequence cannot be read. The message is one line that says what to do."""


class Pixels(NamedTuple):
    """An image: ``values`` (H, W, C), C = 1 or 3 (RGB), float32 in [0, 1], and ``valid`` (H, W) bool or None for all.

    Not valid are pixels without a value (NaN) and transparent ones.
    """

    values: np.ndarray
    valid: np.ndarray | None = None


def numbered_images(paths: Iterable[Path]) -> dict[int, Path]:
    """The image file of each number. Names are ``1.ppm``, ``01.png``, ``img1.ppm``, ... with any suffix of an image.

    If an image is there twice, the type that comes first in ``SUFFIXES`` is read. Types that cannot be read come last;
    :func:`check_suffix` refuses them.
    """
    order = {suffix: i for i, suffix in enumerate(SUFFIXES + _UNSUPPORTED)}
    found = [(m, f) for f in paths if f.suffix.lower() in order and (m := _NAME.fullmatch(f.stem))]
    found.sort(key=lambda pair: (order[pair[1].suffix.lower()], len(pair[1].name), pair[1].name), reverse=True)
    return {int(match[1]): path for match, path in found}


def image_paths(folder: Path, others: Sequence[str] = ()) -> list[Path]:
    """The files in a folder and in all folders in it that are images by their name, sorted; hidden ones are left out.

    Types of images that cannot be read are among them: whoever reads them tells.

    Args:
        others: suffixes of further files.
    """
    known = (*SUFFIXES, *_UNSUPPORTED, *others)
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in known and not _is_hidden(p, folder) and p.is_file()
    )


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def check_suffix(path: Path) -> None:
    """Raise HPatchesError if the type of an image cannot be read."""
    if path.suffix.lower() not in SUFFIXES:
        raise HPatchesError(f"{path} is an unsupported image type {path.suffix}: convert it to .png")


def read_image(path: Path) -> Tensor:
    """An image file as gray (1, 1, H, W) in [0, 1], float32: 0.299 red + 0.587 green + 0.114 blue, not rounded.

    Raises:
        HPatchesError: the file cannot be read, is truncated, is not an image, or is of a type that is not supported.
    """
    try:
        values = read_pixels(path).values
    except ImageError as error:
        advice = "" if "convert it" in str(error) else ": unpack the archive again"
        raise HPatchesError(f"{error}{advice}") from None
    return to_grey(torch.from_numpy(values).permute(2, 0, 1)[None])


def read_pixels(path: Path, upright: bool = False) -> Pixels:
    """The pixels of an image file, in the order in which they are stored.

    Warns where the file says that a viewer should turn the image, and where values were scaled (:func:`scaled`).

    Args:
        upright: turn or mirror the image as its EXIF orientation says.

    Raises:
        ImageError: the file cannot be read, is truncated, is not an image, or is of a type that is not supported.
    """
    data, image = _stored(path)
    if (tag := orientation(data)) != 1:
        tell_orientation(str(path), tag, upright)
        image = turned(image, tag) if upright else image
    return scaled(image, str(path))


def tell_orientation(name: str, tag: int, upright: bool) -> None:
    """Warn that an image has an EXIF orientation, and whether it is turned as that says."""
    warnings.warn(f"{name} is {'' if upright else 'not '}turned as its EXIF orientation {tag} says", stacklevel=3)


def read_mask(path: Path) -> np.ndarray:
    """A mask file as bool (H, W): not black, or for JPEG, whose black is not even, brighter than a half.

    Raises:
        ImageError: the file cannot be read.
    """
    data, image = _stored(path)
    least = 127 if data[:3] == b"\xff\xd8\xff" else 0
    return (image if image.ndim == 2 else image[..., :3].max(2)) > least


def scaled(image: np.ndarray, name: str) -> Pixels:
    """Stored values (H, W) or (H, W, 1, 2, 3 or 4) of any type as :class:`Pixels`. The last of 2 or 4 is opacity.

    8 bits, and whole numbers of any type up to 255, are divided by 255. Integers of more bits are divided by the
    largest number of the fewest bits that hold them, so that 12 bits are not dark. Where an image uses less than an
    eighth of that range, as thermal cameras do, or has floating-point values outside [0, 1], as maps of heights do,
    the range of its values becomes [0, 1], but for one pixel in a thousand at each end, which are clipped. Such a
    change is a warning.

    Args:
        name: of the image, for the warning.
    """
    image = image[..., None] if image.ndim == 2 else image
    kind, valid = image.dtype, None
    if image.shape[2] in (2, 4):
        opacity = image[..., -1]
        valid, image = (opacity > 0 if (opacity == 0).any() else None), image[..., :-1]
    if kind == np.uint8:
        return Pixels(np.ascontiguousarray(image, np.float32) / 255, valid)
    values = image.astype(np.float32)
    has_value = np.isfinite(values).all(2) & (np.abs(values) < _NO_DATA_BEYOND).all(2)
    if kind != np.uint16:
        has_value &= ~np.isin(values, _NO_DATA).any(2)
    seen = has_value if valid is None else has_value & valid
    values, change = _to_unit_range(values, values[seen], kind)
    if change:
        warnings.warn(f"{name} {change}", stacklevel=2)
    values[~has_value] = 0
    return Pixels(values, None if seen.all() else seen)


def _to_unit_range(values: np.ndarray, seen: np.ndarray, kind: np.dtype) -> tuple[np.ndarray, str]:
    """Values (H, W, C) in [0, 1] by the range of those ``seen`` (N,), and what was done, if it must be told."""
    if not seen.size:
        return np.zeros_like(values), ""
    low, high = np.percentile(seen, _TAILS)
    if np.issubdtype(kind, np.floating):
        if seen.min() >= 0 and seen.max() <= 1:
            return values, ""
        eight_bits = seen.min() >= 0 and seen.max() <= 255 and (seen == seen.round()).all()
        full = 255.0 if eight_bits else 0.0
    else:
        full = 2.0 ** max(8, int(seen.max()).bit_length()) - 1
    if full == 255 and seen.min() >= 0:
        return values / full, ""
    if full and seen.min() >= 0 and high - low >= _LEAST_RANGE * full:
        return values / full, "" if full == 65535 else f"has values up to {int(seen.max())}: {int(full)} is white"
    told = f"has values from {seen.min():g} to {seen.max():g}: {low:g} is black and {high:g} white"
    return np.clip((values - low) / max(high - low, 1e-12), 0, 1).astype(np.float32), told


def _stored(path: Path) -> tuple[bytes, np.ndarray]:
    """The bytes of a file, and its image as it is stored: see :func:`_decode`. Raises ImageError."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ImageError(f"{path} cannot be read ({one_line(e)})") from None
    image = _decode(data) if (whole := is_whole(data)) else None
    if image is None:
        raise ImageError(f"{path} {_why_not(data, whole)}")
    return data, image


def _why_not(data: bytes, whole: bool) -> str:
    if data[4:8] == b"ftyp":  # a phone's photograph, whatever its suffix
        brand = re.sub("[^a-z0-9]", "", data[8:12].decode("latin-1").lower())
        return f"is an unsupported image type, {brand}: convert it to .png"
    if whole and data[:2] in (b"II", b"MM"):
        return "is a TIFF that is damaged or has no pixels of 8, 16 or 32 bits: convert it to .png"
    return "is truncated or no image"


def _decode(data: bytes) -> np.ndarray | None:
    """An image (H, W) or (H, W, 3 or 4), RGB and opacity, as it is stored; None if the data are not an image."""
    data = data + b"\n" if data[:2] in (b"P2", b"P3") else data  # OpenCV refuses a number at the very end
    data = without_orientation(data)
    try:
        with _silent_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # for example, the header says that the image is huge
        return None
    if image is None or image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


_silent_lock, _silent_users = threading.Lock(), []  # the second holds the level to go back to, for each user


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """OpenCV's own messages are off while any thread is inside; afterwards its log level is as before."""
    log = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging  # OpenCV 5, OpenCV 4
    with _silent_lock:
        before = log.setLogLevel(_LOG_LEVEL_SILENT)
        _silent_users.append(_silent_users[0] if _silent_users else before)
    try:
        yield
    finally:
        with _silent_lock:
            level = _silent_users.pop()
            if not _silent_users:
                log.setLogLevel(level)
