"""Pictures of keypoints and matches. A picture is an RGB array (H, W, 3) of uint8."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from kp.data.image_files import ImageError, read_pixels
from kp.support.files import write_file

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_RING, _DISC = (255, 255, 255), (0, 158, 115)  # white around bluish green (Okabe and Ito, 2008): seen on any ground
_FITS = ((213, 94, 0), (86, 180, 233), (0, 158, 115))  # matches that fit nothing, a fundamental matrix, a homography
_SHARPNESS = 4  # bits of a fraction of a pixel, for OpenCV
_GAP = 8  # pixels between two pictures


def read_picture(path: Path, exif: str = "ignore") -> np.ndarray:
    """An image file as a picture. Raises ImageError."""
    return picture_of(read_pixels(path, upright=exif == "apply").values)


def picture_of(values: np.ndarray) -> np.ndarray:
    """Values (H, W, 1 or 3) in [0, 1] as a picture."""
    picture = (values * 255).round().astype(np.uint8)
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture.copy()


def draw_keypoints(picture: np.ndarray, features: Mapping[str, Tensor]) -> np.ndarray:
    """A copy of a picture with a disc at each keypoint (1, N, 2): the better the score, the larger."""
    picture, scores = picture.copy(), features["keypoint_scores"][0]
    thick = max(1, round(max(picture.shape[:2]) / 1000))
    for index in range(len(scores) - 1, -1, -1):  # the best on top
        place = features["keypoints"][0, index].tolist()
        radius = thick * (2 + 2 * (1 - index / max(len(scores), 1)))
        _disc(picture, place, radius + thick, _RING)
        _disc(picture, place, radius, _DISC)
    return picture


def draw_matches(
    picture0: np.ndarray,
    picture1: np.ndarray,
    xy0: Tensor,
    xy1: Tensor,
    inliers: Tensor,
    epipolar: Tensor | None = None,
    max_lines: int = 150,
) -> np.ndarray:
    """Two pictures side by side with lines between matches (M, 2), (M, 2).

    Args:
        inliers: (M,), the matches that fit the homography: green; the others are orange.
        epipolar: (M,), those that fit the fundamental matrix: light blue where they do not fit the homography, as in a
            scene that is not flat.
        max_lines: draw so many at most, evenly out of all.
    """
    height, (width0, width1) = max(p.shape[0] for p in (picture0, picture1)), (p.shape[1] for p in (picture0, picture1))
    both = np.full((height, width0 + _GAP + width1, 3), 255, np.uint8)
    both[: picture0.shape[0], :width0], both[: picture1.shape[0], width0 + _GAP :] = picture0, picture1
    thick = max(1, round(max(both.shape) / 1500))
    fits = [
        2 if flat else 1 if deep else 0
        for flat, deep in zip(inliers, inliers if epipolar is None else epipolar, strict=True)
    ]
    chosen = np.linspace(0, len(xy0) - 1, min(len(xy0), max_lines)).astype(int)
    for index in sorted(chosen, key=lambda i: fits[i]):  # those that fit on top
        colour = _FITS[fits[index]]
        start, end = xy0[index].tolist(), (xy1[index] + xy1.new_tensor([width0 + _GAP, 0])).tolist()
        cv2.line(both, _fixed(start), _fixed(end), colour, thick, cv2.LINE_AA, _SHARPNESS)
        for place in (start, end):
            _disc(both, place, 2.5 * thick, colour)
    return both


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture, of the type that the suffix names. Raises ImageError on another, FileError."""
    check_picture_suffix(path)
    _, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    write_file(path, data.tobytes())


def check_picture_suffix(path: Path) -> None:
    """Raises ImageError if no picture can have this name."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise ImageError(f"{path} must end in {', '.join(PICTURE_SUFFIXES[:-1])} or {PICTURE_SUFFIXES[-1]}")


def _disc(picture: np.ndarray, place: list[float], radius: float, colour: tuple[int, int, int]) -> None:
    cv2.circle(picture, _fixed(place), round(radius * 2**_SHARPNESS), colour, cv2.FILLED, cv2.LINE_AA, _SHARPNESS)


def _fixed(place: list[float]) -> tuple[int, int]:
    """A place in OpenCV's fixed-point numbers."""
    return tuple(round(value * 2**_SHARPNESS) for value in place)
