"""The images that a command line names: files, folders, patterns, videos."""

import glob
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from kp.data.image_files import SUFFIXES, ImageError, image_paths

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")


class Item(NamedTuple):
    """An image: its ``name`` in the output, and what to extract from: a path, or a function that gives a frame."""

    name: str
    image: Path | Callable[[], np.ndarray]


def find_images(inputs: Sequence[str]) -> list[tuple[str, Path]]:
    """What the inputs name, as (name, path), videos included.

    A folder is searched with its folders, and names begin within it; hidden files are left out. A pattern has ``*``,
    ``?`` or ``[...]``, and ``**`` for any folders. A file goes by its own name.

    Raises:
        ImageError: an input names nothing, or two images would have one name.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        for name, path in _expanded(given):
            if found.setdefault(name, path).resolve() != path.resolve():
                raise ImageError(f"{found[name]} and {path} would both be {name!r}: name the folder above them")
    return list(found.items())


def _expanded(given: str) -> list[tuple[str, Path]]:
    path = Path(given)
    if path.is_dir():
        files = image_paths(path, VIDEO_SUFFIXES)
        if not files:
            raise ImageError(f"{path} has no image or video: known are {', '.join(SUFFIXES + VIDEO_SUFFIXES)}")
        return [(file.relative_to(path).as_posix(), file) for file in files]
    if path.exists():
        return [(path.name, path)]
    if not glob.has_magic(given):
        raise ImageError(f"there is no file or folder {given}")
    matched = sorted(Path(name) for name in glob.glob(given, recursive=True) if _is_input(Path(name)))
    if not matched:
        raise ImageError(f"no image or video matches {given}")
    root = Path(given[: min(given.index(mark) for mark in "*?[" if mark in given)] + "x").parent
    return [(file.relative_to(root).as_posix(), file) for file in matched]


def _is_input(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts if part not in (".", ".."))
    return path.suffix.lower() in SUFFIXES + VIDEO_SUFFIXES and not hidden


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def count_frames(path: Path, every: int) -> int:
    """How many images a file gives; of a video what its header says, one in ``every``."""
    if not is_video(path):
        return 1
    video = cv2.VideoCapture(str(path))
    frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    return max(-(-frames // every), 0)


def items(files: Sequence[tuple[str, Path]], every: int = 1) -> Iterator[Item]:
    """Each image; of a video one frame in ``every``, as ``NAME/000012`` (its number, from 0).

    A video that cannot be read is one item, whose image raises ImageError.
    """
    for name, path in files:
        if is_video(path):
            yield from _frames(name, path, every)
        else:
            yield Item(name, path)


def _frames(name: str, path: Path, every: int) -> Iterator[Item]:
    video = cv2.VideoCapture(str(path))
    number = 0
    try:
        while video.isOpened() and video.grab():
            if number % every == 0:
                yield Item(f"{name}/{number:06d}", lambda: _decoded(video, path))
            number += 1
    finally:
        video.release()
    if number == 0:
        yield Item(name, lambda: _refuse(path))


def _decoded(video: cv2.VideoCapture, path: Path) -> np.ndarray:
    """The frame that was last grabbed, (H, W, 3), RGB."""
    good, frame = video.retrieve()
    if not good:
        raise ImageError(f"{path} has a damaged frame")
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _refuse(path: Path) -> np.ndarray:
    raise ImageError(f"{path} is no video that OpenCV can read")
