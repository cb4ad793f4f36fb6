"""Features in files: hloc's h5, npz, csv and json; and what a user of OpenCV takes."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from kp.support.errors import one_line
from kp.support.files import check_writable, locked, replaced, write_file

SUFFIXES = (".h5", ".npz", ".csv", ".json")

SETTINGS = "kp_settings"  # attribute of an h5
_H5_NAMES = {"keypoints": "keypoints", "scores": "keypoint_scores", "descriptors": "descriptors"}
_H5_NAMES |= {"image_size": "image_size", "covariances": "keypoint_covariances"}
_H5_NAMES |= {"scaled_descriptors": "scaled_descriptors", "turn": "turn", "tilts": "tilts"}
_ARRAYS = tuple(_H5_NAMES.values())
_OF_IMAGES = ("image_size", "turn", "tilts")  # the others have a value for each keypoint

Features = Mapping[str, Tensor]


def save(path: str | Path, name: str, features: Features) -> None:
    """Write the features of the image ``name``: h5 (one file for many images), npz, csv or json, by the suffix.

    h5 has hloc's layout: a group for each image, with ``keypoints`` (N, 2) float32, ``scores`` (N,), ``image_size``
    (width, height) and, if there are any, ``descriptors`` (D, N), ``scaled_descriptors`` (N, S, D), ``turn`` (D, D),
    ``tilts`` (T, D, D) and ``covariances`` (N, 2, 2). Other images of the file stay, and the same name is replaced; a
    file of ``kp detect`` does not say any more how it was made. npz has the names of the features, without the leading
    1; csv the columns x, y, score and d0, d1, ... only; json has all. Positions are (x, y) in pixels, (0, 0) is the
    centre of the top-left pixel (COLMAP adds 0.5).

    Raises:
        ValueError: the suffix is none of these, or the features are not those of one image.
        FileError: (an OSError) the file cannot be written; what was there stays.

    Example:
        >>> save("features.h5", "photos/a.jpg", extractor.extract("photos/a.jpg"))
        >>> load("features.h5", "photos/a.jpg")["keypoints"].shape  # (1, N, 2)
    """
    save_all(path, {name: features}, add=True)


def save_all(
    path: str | Path, features: Mapping[str, Features], add: bool = False, settings: Mapping[str, Any] | None = None
) -> None:
    """Write the features of images by name, as :func:`save`; of several images only into h5 or json.

    Args:
        add: leave the other images of an h5; else the file holds these images only.
        settings: for JSON, what the features depend on: an attribute of an h5.
    """
    path = Path(path)
    suffix = check_suffix(path)
    plain = {name: _plain(each) for name, each in features.items()}
    if suffix == ".h5":
        _write_h5(path, plain, add, settings)
    elif suffix == ".json":
        images = {name: {key: value.tolist() for key, value in each.items()} for name, each in plain.items()}
        write_file(path, (json.dumps(images) + "\n").encode())
    elif len(plain) != 1:
        raise ValueError(f"{path} holds the features of one image: for several choose .h5 or .json")
    else:
        ((name, each),) = plain.items()
        write_file(path, _npz(each | {"name": np.array(name)}) if suffix == ".npz" else _csv(each))


def load(path: str | Path, name: str | None = None) -> dict[str, Tensor]:
    """The features of one image that :func:`save` wrote, with a leading 1. Also reads the h5 of hloc.

    Args:
        name: of the image; may be left out where the file has one only. A csv has no name: any will do.

    Raises:
        ValueError: there is no such file or image, or it is damaged. The message is one line.
    """
    path = Path(path)
    readers = {".h5": _read_h5, ".npz": _read_npz, ".csv": _read_csv, ".json": _read_json}
    reader = readers[check_suffix(path)]
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        arrays = reader(path, name)
    except Exception as error:  # a damaged file can raise anything
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is damaged, or no file of features: {one_line(error)}") from error
    found = {key: torch.from_numpy(np.ascontiguousarray(value, np.float32))[None] for key, value in arrays.items()}
    if "keypoints" not in found or found["keypoints"].shape[-1:] != (2,):
        raise ValueError(f"{path} holds no keypoints (N, 2)")
    return found


def names_in(path: str | Path) -> list[str]:
    """The images in a file of features, in order of their names; of npz and csv none."""
    path = Path(path)
    if path.suffix.lower() == ".json":
        return sorted(json.loads(path.read_text()))
    if path.suffix.lower() != ".h5":
        return []
    import h5py

    with h5py.File(path, "r") as file:
        return _images(file)


def to_opencv(features: Features, size: float = 4.0) -> list[cv2.KeyPoint]:
    """The keypoints as OpenCV's, best first, to give to the ``compute`` of any of its descriptors.

    Args:
        size: pixels, the diameter of each. SIFT describes a square of 6 sizes, turned by no angle.

    Example:
        >>> points = to_opencv(features)
        >>> points, descriptors = cv2.SIFT_create().compute(grey8, points)
    """
    features = placed(features)
    keypoints, scores = features["keypoints"][0].tolist(), features["keypoint_scores"][0].tolist()
    return [cv2.KeyPoint(x, y, size, -1, score) for (x, y), score in zip(keypoints, scores, strict=True)]


def placed(features: Features) -> Features:
    """Features without the places of a batch that have no keypoint (``valid``). Raises ValueError on several images."""
    if "keypoints" in features and len(features["keypoints"]) != 1:
        raise ValueError(
            f"features of one image are wanted: keypoints (1, N, 2), not {tuple(features['keypoints'].shape)}"
        )
    if "valid" not in features:
        return features
    keep = features["valid"][0]
    return {k: v if k in _OF_IMAGES else v[:, keep] for k, v in features.items() if k != "valid"}


def check_suffix(path: Path) -> str:
    """The suffix of a file of features. Raises ValueError on any other."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    return path.suffix.lower()


def _plain(features: Features) -> dict[str, np.ndarray]:
    """Arrays without the leading 1 and without empty places, float32."""
    features = placed(features)
    if "keypoints" not in features or features["keypoints"].ndim != 3 or len(features["keypoints"]) != 1:
        raise ValueError("features of one image are wanted: keypoints (1, N, 2)")
    return {key: torch.as_tensor(features[key][0]).float().cpu().numpy() for key in _ARRAYS if key in features}


def read_settings(path: Path) -> dict[str, Any]:
    """What :func:`save_all` recorded in an h5; nothing, where it did not. Raises ValueError if it is no h5."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get(SETTINGS, "{}")
    except OSError as error:
        raise ValueError(f"{path} is damaged, or no h5: {one_line(error)}") from error
    try:
        return dict(json.loads(text) or {})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its attribute {SETTINGS} cannot be read") from error


def _write_h5(
    path: Path, images: Mapping[str, Mapping[str, np.ndarray]], add: bool, settings: Mapping[str, Any] | None
) -> None:
    import h5py

    check_writable(path)
    with locked(path), replaced(path) as temporary, h5py.File(temporary, "a" if add else "w") as file:
        for name, arrays in images.items():
            _put(file, name, arrays)
        if settings is not None:
            file.attrs[SETTINGS] = json.dumps(settings)
        elif SETTINGS in file.attrs:
            del file.attrs[SETTINGS]


def _put(file: Any, name: str, arrays: Mapping[str, np.ndarray]) -> None:
    group = file.require_group(_group(name))
    for stored, key in _H5_NAMES.items():
        if stored in group:
            del group[stored]
        if key in arrays:
            value = arrays[key]
            group.create_dataset(stored, data=value.T if key == "descriptors" else value)


def _group(name: str | Path) -> str:
    """The group of an image in an h5: its name without a leading ``/`` or ``./``. Raises ValueError if it is empty."""
    parts = [part for part in str(name).split("/") if part not in ("", ".")]
    if not parts:
        raise ValueError("an image needs a name")
    return "/".join(parts)


def _images(file: Any) -> list[str]:
    """The groups of an h5 that hold keypoints."""
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if hasattr(item, "keys") and "keypoints" in item else None)
    return sorted(found)


def _one(names: Sequence[str], name: str | None, path: Path) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    raise ValueError(f"{path} has {'no image ' + repr(name) if name else 'several images'}: it has {shown or 'none'}")


def _read_h5(path: Path, name: str | None) -> dict[str, np.ndarray]:
    import h5py

    with h5py.File(path, "r") as file:
        group = None if name is None else file.get(_group(name))
        if not hasattr(group, "keys") or "keypoints" not in group:  # names are listed only then: there may be thousands
            group = file[_one(_images(file), None if name is None else _group(name), path)]
        names = _H5_NAMES | {"keypoint_scores": "keypoint_scores"}  # hloc's wrappers of DISK and ALIKED
        found = {key: group[stored][()] for stored, key in names.items() if stored in group}
    if "descriptors" in found:
        found["descriptors"] = found["descriptors"].T
    return found


def _npz(arrays: Mapping[str, np.ndarray]) -> memoryview:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getbuffer()


def _read_npz(path: Path, name: str | None) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        if "name" in file:
            _one([str(file["name"])], name, path)
        return {key: file[key] for key in _ARRAYS if key in file}


def _csv(arrays: Mapping[str, np.ndarray]) -> bytes:
    columns = [arrays["keypoints"], arrays["keypoint_scores"][:, None]]
    names = ["x", "y", "score"]
    if "descriptors" in arrays:
        columns.append(arrays["descriptors"])
        names += [f"d{index}" for index in range(arrays["descriptors"].shape[1])]
    text = io.StringIO()
    text.write(",".join(names) + "\n")
    np.savetxt(text, np.concatenate(columns, axis=1), fmt="%.9g", delimiter=",")
    return text.getvalue().encode()


def _read_csv(path: Path, _: str | None) -> dict[str, np.ndarray]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        names, *rows = csv.reader(file)
    if [name.strip().lower() for name in names[:3]] != ["x", "y", "score"]:
        raise ValueError(f"{path} must begin with the line x,y,score")
    values = np.array(rows, dtype=np.float32).reshape(len(rows), len(names))
    found = {"keypoints": values[:, :2], "keypoint_scores": values[:, 2]}
    return found | ({"descriptors": values[:, 3:]} if len(names) > 3 else {})


def _read_json(path: Path, name: str | None) -> dict[str, np.ndarray]:
    images = json.loads(path.read_text())
    if not isinstance(images, dict) or not all(isinstance(image, dict) for image in images.values()):
        raise ValueError(f"{path} holds no images by name")
    image = images[_one(sorted(images), name, path)]
    found = {key: np.array(image[key], dtype=np.float32) for key in _ARRAYS if key in image}
    found["keypoints"] = found.get("keypoints", np.zeros(0)).reshape(-1, 2)
    if not len(found["keypoints"]):  # lists without entries do not say how long these would be
        empty = {"descriptors": (0, 0), "scaled_descriptors": (0, 0, 0), "keypoint_covariances": (0, 2, 2)}
        found |= {key: np.zeros(shape) for key, shape in empty.items() if key in found}
    return found
