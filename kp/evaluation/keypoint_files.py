"""Keypoints that another program found, read from one file for each image, to be measured like those of a detector.

``DIR/SEQUENCE/NUMBER.npz`` holds ``keypoints`` (N, 2) and ``scores`` (N,), or ``x``, ``y`` and ``score`` (N,) each.
``DIR/SEQUENCE/NUMBER.csv`` has a line x,y,score for each keypoint, and may begin with the names of its columns.
Positions are in pixels, (0, 0) is the centre of the top-left pixel, and a higher score is better.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

from kp.geometry.coords import Size, inside
from kp.models.keypoints import Keypoints
from kp.support.errors import one_line

WANTED = "an npz of keypoints (N, 2) and scores (N,), or of x, y and score, or a csv with the columns x,y,score"

_SCORES = ("score", "scores", "keypoint_scores")  # what the scores may be called; the first that is there counts

ReadKeypoints = Callable[[str, int, Size], Keypoints]  # sequence, number and size (H, W) of an image -> its keypoints


def file_finder(directory: Path) -> ReadKeypoints:
    """What reads the keypoints of an image from its file in a directory. It can be sent to another process.

    Raises ValueError if the directory does not exist; the function that is returned, as ``read_keypoints`` does.
    """
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a folder: wanted is a folder of SEQUENCE/NUMBER.npz or .csv")
    return partial(_find_and_read, directory)


def _find_and_read(directory: Path, sequence: str, number: int, size: Size) -> Keypoints:
    return read_keypoints(keypoint_file(directory, sequence, number), size)


def keypoint_file(directory: Path, sequence: str, number: int) -> Path:
    """The file of image ``number`` of a sequence: ``1.npz`` or ``1.csv``, or with the image's suffix, ``1.ppm.npz``.

    Raises ValueError if there is none, or more than one.
    """
    folder = directory / sequence
    pattern = re.compile(rf"{number}(\.(ppm|pgm|png|jpe?g))?\.(npz|csv)", re.IGNORECASE)
    found = sorted(path for path in folder.glob(f"{number}.*") if pattern.fullmatch(path.name))
    if not found:
        raise ValueError(f"{folder / str(number)}.npz does not exist, nor as .csv: wanted is {WANTED}")
    if len(found) > 1:
        raise ValueError(f"{found[0]} and {found[1].name} are of the same image: wanted is one file for each image")
    return found[0]


def read_keypoints(path: Path, size: Size) -> Keypoints:
    """The keypoints of a file of an image of size (H, W), B = 1: all of them, best first, float32.

    Of equal scores the first in the file is the better. Raises ValueError, whose message is one line that names the
    file, if it cannot be read, lacks a column, has numbers that are not finite, or a point outside the image.

    Example:
        >>> keypoints = read_keypoints(Path("mine/v_graf/1.npz"), size=(640, 800))
        >>> keypoints.xy.shape  # (1, N, 2)
    """
    try:
        rows = _read_csv(path) if path.suffix.lower() == ".csv" else _read_npz(path)  # (N, 3) x, y, score
        return _checked(rows[np.argsort(-rows[:, 2], kind="stable")], size)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {one_line(error)}: wanted is {WANTED}") from error


def _checked(rows: np.ndarray, size: Size) -> Keypoints:
    """Rows x, y, score (N, 3), best first, as keypoints."""
    with np.errstate(over="ignore"):
        values = torch.from_numpy(rows.astype(np.float32))[None]
    if not values.isfinite().all():
        raise ValueError("it has numbers that are NaN or infinite")
    xy, scores = values[..., :2].contiguous(), values[..., 2].contiguous()
    outside = xy[~inside(xy, size)]
    if len(outside):
        x, y = outside[0].tolist()
        raise ValueError(f"its point x = {x:g}, y = {y:g} is outside the image of {size[1]} x {size[0]} pixels")
    return Keypoints(xy, scores, torch.ones_like(scores, dtype=torch.bool))


def _read_npz(path: Path) -> np.ndarray:
    entries = _entries(path, ("keypoints", "x", "y", *_SCORES))
    scores = [entries[name] for name in _SCORES if name in entries]
    if not scores:
        raise ValueError("it has no scores")
    if "keypoints" in entries:
        xy = entries["keypoints"]
        if xy.ndim != 2 or xy.shape[1] != 2:
            raise ValueError(f"its keypoints have the shape {xy.shape}")
        return _columns(xy[:, 0], xy[:, 1], scores[0])
    if "x" in entries and "y" in entries:
        return _columns(entries["x"], entries["y"], scores[0])
    raise ValueError("it has neither keypoints nor x and y")


def _entries(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The entries of an npz that have one of these names. Nothing in it is unpickled, and the others are not read."""
    path.stat()  # what the operating system says of a file that does not exist
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file}
    except Exception as error:  # a damaged archive can raise anything
        raise ValueError("it is damaged, or no npz of plain numbers") from error


def _columns(x: ArrayLike, y: ArrayLike, score: ArrayLike) -> np.ndarray:
    """Three arrays (N,) of numbers as one (N, 3), float64."""
    columns = [np.asarray(column) for column in (x, y, score)]
    if len({column.shape for column in columns}) > 1 or columns[0].ndim != 1:
        shapes = ", ".join(str(column.shape) for column in columns)
        raise ValueError(f"its x, y and scores have the shapes {shapes}")
    if any(column.dtype.kind not in "iuf" for column in columns):
        raise ValueError("its x, y and scores are not all numbers")
    return np.stack(columns, axis=1).astype(np.float64)


def _read_csv(path: Path) -> np.ndarray:
    lines = [line for line in path.read_text("utf-8-sig", errors="replace").splitlines() if line.strip()]
    if not lines:
        raise ValueError("it is empty; of an image without keypoints it has the line x,y,score")
    names = [cell.strip().lower() for cell in lines[0].lstrip("# ").split(",")]  # numpy.savetxt puts a # before them
    if _is_number(names[0]) or _is_number(names[-1]):
        names = ["x", "y", "score"]
    else:
        del lines[0]
    score = next((name for name in _SCORES if name in names), "score")
    if missing := [name for name in ("x", "y", score) if name not in names]:
        raise ValueError(f"it has no column {missing[0]}")
    if wrong := [line for line in lines if line.count(",") + 1 != len(names)]:
        raise ValueError(f"its line {wrong[0][:40]!r} has not {len(names)} columns")
    if not lines:
        return np.zeros((0, 3))
    chosen = [names.index(name) for name in ("x", "y", score)]
    return np.loadtxt(lines, delimiter=",", comments=None, usecols=chosen, ndmin=2)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def suppress(keypoints: Keypoints, nms_size: int, size: Size) -> Keypoints:
    """Greedy non-maximum suppression of keypoints (B = 1) that lie anywhere between pixels, still best first.

    From the best on, a point is dropped if ``nms_size // 2`` pixels or less, in x and in y, part it from a better one
    that was kept. Between pixel centres this is the window of ``nms_size`` x ``nms_size`` pixels. As with ``select``,
    the places of dropped points come last and are not valid.

    Args:
        nms_size: an odd window, in pixels. With 1, only points at the very same place suppress each other.
        size: (H, W) of the image.

    Raises:
        ValueError: ``nms_size`` is even or not positive.
    """
    if nms_size % 2 != 1 or nms_size < 1:
        raise ValueError(f"nms_size must be odd and positive, not {nms_size}")
    radius = nms_size // 2
    points = keypoints.xy[0].numpy(force=True).astype(np.float64)
    side = max(radius, 1)  # of the cells: who is within the radius is in the same cell or in one beside it
    stride = size[1] // side + 4  # cells in a row, with some beyond the image
    row_column = np.floor(points[:, ::-1] / side).astype(np.int64)
    cells = row_column @ np.array([stride, 1])
    around = [row * stride + column for row in (-1, 0, 1) for column in (-1, 0, 1)]
    kept: dict[int, list[tuple[float, float]]] = defaultdict(list)
    keep = keypoints.valid[0].tolist()
    for index, (cell, (x, y)) in enumerate(zip(cells.tolist(), points.tolist(), strict=True)):
        near = (point for step in around for point in kept.get(cell + step, ()))
        keep[index] = keep[index] and not any(abs(x - a) <= radius and abs(y - b) <= radius for a, b in near)
        if keep[index]:
            kept[cell].append((x, y))
    return keypoints.select(torch.tensor([keep], dtype=torch.bool, device=keypoints.valid.device))
