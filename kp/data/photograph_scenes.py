"""Scenes for the training out of a user's own photographs, in the place of drawn ones: no corner of them is known.

Every scene is a window of a photograph, drawn at random in place and scale: from a pixel for a pixel to the whole.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from kp.data.image_files import SUFFIXES, image_paths, read_image
from kp.data.pairs import CANVAS, canvas_size
from kp.data.photographs import mirrored
from kp.data.synthetic.scene import Kind, Scene
from kp.geometry.coords import Size, resize
from kp.support.errors import one_line
from kp.support.process import progress_interval

CACHE_BYTES = 2**30  # of photographs that a process keeps in memory; the others are read again when they are drawn
MIN_SIDE = 64  # pixels: a photograph with a shorter side has too little to see
_DETAIL = 2  # short side of a photograph that is kept, at most, for one of a scene
_THREADS = 4  # that read at once


class PhotographScenes:
    """The photographs of a folder and of all folders in it, as grey of 8 bits; ``render`` draws scenes of them.

    All files are read once at the start, to know those that are of no use. A photograph that is smaller than a scene
    is continued by its mirror image. One that is much larger is reduced.

    Args:
        folder: searched for files of the types of images; hidden ones are left out.
        view: (H, W) of the training views in pixels.
        cache_bytes: of photographs that are kept in memory.

    Raises:
        ValueError: it is not a folder, or no file of it is of use; one line that says why.
    """

    def __init__(self, folder: Path, view: Size, cache_bytes: int = CACHE_BYTES) -> None:
        if not folder.is_dir():
            raise ValueError(f"--images: {folder} is not a folder")
        self.folder, self.canvas = folder, canvas_size(view)
        self.files: list[Path] = []
        self.left_out: list[str] = []  # name and reason of each
        self._cache: dict[Path, Tensor] = {}
        self._free = cache_bytes
        for path, image in self._read_all():
            if isinstance(image, Tensor):
                self.files.append(path)
                self._keep(path, image)
            else:
                self.left_out.append(f"{path.relative_to(folder).as_posix()} ({image})")
        if not self.files:
            why = f": {self.left_out[0]}" if self.left_out else f", of any type of {' '.join(SUFFIXES)}"
            raise ValueError(f"--images: {folder} has no photograph that can be read{why}")

    def summary(self) -> str:
        """How many photographs there are, and how many files are left out, with the first of them: one line."""
        text = f"{len(self.files)} photographs in {self.folder}"
        if self.left_out:
            text += f"; {len(self.left_out)} files cannot be used: {'; '.join(self.left_out[:3])}"
            text += "; ..." if len(self.left_out) > 3 else ""
        return text

    def record(self) -> dict[str, Any]:
        """What weights say of the photographs: the folder's name, how many, and a hash of their names and sizes."""
        listing = sha256()
        for path in self.files:
            listing.update(f"{path.relative_to(self.folder).as_posix()} {path.stat().st_size}\n".encode())
        return {"name": self.folder.resolve().name, "files": len(self.files), "sha256": listing.hexdigest()}

    def render(self, batch: int, size: Size, generator: torch.Generator) -> Scene:
        """Scenes (B, 1, *size), on the device of ``generator``, which makes every draw; all corners are unknown."""
        drawn = torch.rand(batch, 4, generator=generator, device=generator.device).tolist()
        image = torch.cat([self._window(*numbers, size) for numbers in drawn]).to(generator.device)
        corners = image.new_zeros(batch, 1, 2)
        kinds = torch.full((batch, 1), int(Kind.NONE), device=image.device)
        return Scene(image, corners, kinds, torch.ones_like(image, dtype=torch.bool))

    def _window(self, which: float, zoom: float, x: float, y: float, size: Size) -> Tensor:
        """A window (1, 1, *size) of a photograph; all numbers in [0, 1)."""
        grey = mirrored(self._photograph(self.files[int(which * len(self.files))]), tuple(n / CANVAS for n in size))
        whole = grey.shape[-2:]
        least = max(part / have for part, have in zip(size, whole, strict=True))
        scale = math.exp(zoom * math.log(least))  # log-uniform from 1 down to the whole
        height, width = (min(have, round(part / scale)) for part, have in zip(size, whole, strict=True))
        top, left = int(y * (whole[0] - height + 1)), int(x * (whole[1] - width + 1))
        part = grey[..., top : top + height, left : left + width].float() / 255
        return part if (height, width) == tuple(size) else resize(part, size).clamp(0, 1)

    def _photograph(self, path: Path) -> Tensor:
        """A photograph (1, 1, H, W), uint8, out of memory or read again."""
        return self._cache[path] if path in self._cache else _reduced(read_image(path), self.canvas)

    def _keep(self, path: Path, image: Tensor) -> None:
        if image.numel() <= self._free:
            self._cache[path] = image
            self._free -= image.numel()

    def _read_all(self) -> Iterator[tuple[Path, Tensor | str]]:
        """Each file with the type of an image, sorted, and what it shows or why it cannot be used."""
        paths = image_paths(self.folder)
        style = {"unit": "photograph", "leave": False, "mininterval": progress_interval(), "dynamic_ncols": True}
        with ThreadPoolExecutor(_THREADS) as pool:
            for first in tqdm(range(0, len(paths), 2 * _THREADS), **style):  # few at once: they may be large
                some = paths[first : first + 2 * _THREADS]
                yield from zip(some, pool.map(self._try, some), strict=True)

    def _try(self, path: Path) -> Tensor | str:
        try:
            image = read_image(path)
        except (ValueError, OSError) as error:
            return one_line(error).replace(str(path), "it")
        if min(image.shape[-2:]) < MIN_SIDE:
            return f"a side is shorter than {MIN_SIDE} pixels"
        return _reduced(image, self.canvas)


def _reduced(image: Tensor, canvas: Size) -> Tensor:
    """An image (1, 1, H, W) in [0, 1] as uint8, its short side at most twice that of a scene."""
    size = image.shape[-2:]
    scale = _DETAIL * max(canvas) / min(size)
    if scale < 1:
        image = resize(image, tuple(max(1, round(scale * side)) for side in size)).clamp(0, 1)
    return (image * 255).round().byte()
