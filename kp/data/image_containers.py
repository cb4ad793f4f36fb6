"""What the container of an image file says, before its pixels are decoded: whether it is whole, how it is turned."""

import io
import re
import struct
from contextlib import suppress

import numpy as np

ORIENTATION = 0x0112  # tag of EXIF: 1 is upright

_PNM_HEADER = re.compile(rb"P([56])(?:\s|#.*\n)+(\d{1,9})(?:\s|#.*\n)+(\d{1,9})(?:\s|#.*\n)+(\d{1,5})\s")
_TIFF_TYPES = {3: "H", 4: "I", 16: "Q"}


def orientation(data: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where the file has none."""
    has_exif = b"Exif" in data[: 1 << 16] or b"eXIf" in data or (data[8:12] == b"WEBP" and b"EXIF" in data)
    if not has_exif and data[:2] not in (b"II", b"MM"):
        return 1
    from PIL import Image  # imported here, because most files need it not

    with suppress(Exception):  # a damaged tag can raise anything
        value = int(Image.open(io.BytesIO(data)).getexif().get(ORIENTATION, 1))
        return value if 1 <= value <= 8 else 1
    return 1


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image as a viewer shows it: mirrored for 2, 4, 5 and 7, then turned by quarters (EXIF 2.3, table 4.6.4)."""
    if orientation in (2, 4, 5, 7):
        image = image[:, ::-1]
    quarters = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(image, quarters))


def is_whole(data: bytes) -> bool:
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


def without_orientation(data: bytes) -> bytes:
    """The data of a TIFF whose first image is upright: OpenCV else turns it. Other data as they are."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return data
    order = "<" if data[:1] == b"I" else ">"
    with suppress(struct.error):
        (directory,) = struct.unpack_from(order + "I", data, 4)
        (entries,) = struct.unpack_from(order + "H", data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            if struct.unpack_from(order + "H", data, entry)[0] == ORIENTATION:
                return data[: entry + 8] + struct.pack(order + "H", 1) + data[entry + 10 :]
    return data


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
