"""A stand-in for HPatches: as many sequences and images of as many sizes, to time and try things without a download.

It shows the built-in photographs, mirrored to fill the larger images: numbers measured on it mean nothing else.
"""

from collections.abc import Callable
from pathlib import Path

import cv2

from kp.data.hpatches import HPatchesError
from kp.data.photographs import FILES, folder, make_sequence
from kp.geometry.coords import Size
from kp.support.files import write_file

COUNT = 116  # sequences, of which 57 are i and 59 v, as HPatches has
_FIRST_V = 57
# (H, W) in pixels, taken in turn, but for eight sequences, as many as HPatches has above 1200x1600
_SIZES: tuple[Size, ...] = ((480, 640), (512, 765), (600, 800), (640, 800), (700, 1000), (768, 1024), (900, 1200))
_OVERSIZE: Size = (1500, 2000)
_EVERY, _FROM = 15, 7  # sequences 7, 22, ... are those eight


def write(root: Path, count: int = COUNT, step: Callable[[], object] = lambda: None) -> None:
    """Write the first ``count`` sequences into a new folder, calling ``step`` after each. Raises HPatchesError."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise HPatchesError(f"{root} is there already: name a new folder")
    data = folder()
    for number in range(count):
        split, size = "iv"[number >= _FIRST_V], _OVERSIZE if number % _EVERY == _FROM else _SIZES[number % len(_SIZES)]
        sequence = make_sequence(data / FILES[number % len(FILES)], split, number, size)
        target = root / f"{split}_{number:03d}"
        for k, load in enumerate(sequence.images, start=1):
            gray = (load()[0, 0] * 255).round().byte().numpy()
            _, ppm = cv2.imencode(".ppm", cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))
            write_file(target / f"{k}.ppm", ppm.tobytes())
        for k, H in enumerate(sequence.homographies, start=2):
            text = "\n".join(" ".join(f"{value:.17g}" for value in row) for row in H.tolist())
            write_file(target / f"H_1_{k}", text.encode())
        step()
