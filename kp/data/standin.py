"""A stand-in for HPatches, to time and try commands without a download: its number of sequences, its image sizes.

It shows the built-in photographs, mirrored to fill the larger images. Scores measured on it are not scores on HPatches.
"""

from collections.abc import Callable
from pathlib import Path

import cv2

from kp.data.hpatches import HPatchesError
from kp.data.photographs import FILES, folder, make_sequence
from kp.geometry.coords import Size
from kp.support.files import write_file

COUNT = 116  # sequences: 57 with split i, then 59 with split v, as in HPatches
_ILLUMINATION_COUNT = 57
# (H, W) in pixels, used in turn. Eight sequences have _LARGE_SIZE; HPatches has eight above 1200x1600.
_SIZES: tuple[Size, ...] = ((480, 640), (512, 765), (600, 800), (640, 800), (700, 1000), (768, 1024), (900, 1200))
_LARGE_SIZE: Size = (1500, 2000)
_LARGE_PERIOD, _FIRST_LARGE = 15, 7  # sequences 7, 22, 37, ...


def write(root: Path, count: int = COUNT, step: Callable[[], object] = lambda: None) -> None:
    """Write the first ``count`` sequences into a new folder and call ``step`` after each.

    Raises:
        HPatchesError: the folder is there already and has files in it.
        FileError: a file cannot be written.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise HPatchesError(f"{root} is there already: name a new folder")
    data = folder()
    for number in range(count):
        split = "i" if number < _ILLUMINATION_COUNT else "v"
        size = _LARGE_SIZE if number % _LARGE_PERIOD == _FIRST_LARGE else _SIZES[number % len(_SIZES)]
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
