"""Features and matches into a database of COLMAP, by pycolmap."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
from torch import Tensor

from kp.features.files import placed
from kp.support.files import replaced

_FOCAL_LENGTH = 1.2  # in longer sides of an image: COLMAP's own guess where the file says nothing
_SIFT_STEPS = 512  # of a unit RootSIFT descriptor in 8 bits, as COLMAP stores it
_HALF_PIXEL = 0.5  # COLMAP's (0, 0) is the corner of the top-left pixel, ours its centre

Pairs = Mapping[tuple[str, str], Tensor]


def write_colmap(database: str | Path, features: Mapping[str, Mapping[str, Tensor]], matches: Pairs) -> None:
    """Write keypoints, descriptors and matches into a COLMAP database, which is replaced as a whole.

    Each image gets a camera of its own (``SIMPLE_RADIAL``, focal length 1.2 of the longer side, as COLMAP guesses).
    ``colmap matches_importer``, or ``pycolmap.verify_matches``, then verifies the matches, and ``colmap mapper``
    reconstructs.

    Args:
        features: for each image's name (its path from COLMAP's image folder) what :meth:`kp.Extractor.extract` gave;
            ``descriptors`` may be there. Those of 128 numbers, none negative, are stored as SIFT, others as float32.
        matches: for pairs of names, indices (M, 2), as :func:`kp.match` gives. Of a pair that is there both
            ways the first counts.

    Raises:
        ValueError: pycolmap is not installed, features have no ``image_size``, or a pair names what is not there.
        FileError: (an OSError) the file cannot be written; what was there stays.

    Example:
        >>> write_colmap("database.db", {"a.jpg": f0, "b.jpg": f1}, {("a.jpg", "b.jpg"): found["matches"]})
    """
    pycolmap = require_pycolmap()
    if unknown := [name for name, each in features.items() if "image_size" not in each]:
        raise ValueError(f"the features of {unknown[0]} have no image_size, which a camera needs")
    for pair, indices in matches.items():
        _check(pair, indices, features)
    with replaced(Path(database)) as path:
        path.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            temporary = Path(folder) / "database.db"
            with pycolmap.Database.open(temporary) as opened:
                ids = {name: _add_image(opened, name, each) for name, each in features.items()}
                for (name0, name1), indices in _one_way(matches).items():
                    opened.write_matches(ids[name0], ids[name1], indices.cpu().numpy().astype(np.uint32))
            temporary.replace(path)


def require_pycolmap() -> ModuleType:
    """Raises ValueError where it is not installed."""
    try:
        import pycolmap
    except ImportError:
        raise ValueError("a COLMAP database needs pycolmap: pip install pycolmap") from None
    return pycolmap


def _one_way(matches: Pairs) -> Pairs:
    """The pairs without those that are there the other way round already: COLMAP knows a pair once."""
    kept: dict[tuple[str, str], Tensor] = {}
    for pair, indices in matches.items():
        if pair[::-1] not in kept:
            kept[pair] = indices
    return kept


def _check(pair: tuple[str, str], indices: Tensor, features: Mapping[str, Mapping[str, Tensor]]) -> None:
    if missing := [name for name in pair if name not in features]:
        raise ValueError(f"there are no features of {missing[0]}, which a pair names")
    if pair[0] == pair[1]:
        raise ValueError(f"{pair[0]} is matched with itself")
    if indices.ndim != 2 or indices.shape[1] != 2:
        raise ValueError(f"matches are pairs (M, 2), not {tuple(indices.shape)}")
    for name, column in zip(pair, indices.T, strict=True):
        count = features[name]["keypoints"].shape[1]
        if len(column) and (int(column.min()) < 0 or int(column.max()) >= count):
            raise ValueError(f"matches of {name} name keypoints that are not among its {count}")


def _add_image(database: object, name: str, features: Mapping[str, Tensor]) -> int:
    """The number of the image in the database."""
    import pycolmap

    features = placed(features)
    width, height = (round(side) for side in features["image_size"][0].tolist())
    camera = pycolmap.Camera.create_from_model_name(
        0, "SIMPLE_RADIAL", _FOCAL_LENGTH * max(width, height), width, height
    )
    camera_id = database.write_camera(camera)
    camera.camera_id = camera_id
    rig = pycolmap.Rig()
    rig.add_ref_sensor(camera.sensor_id)
    rig_id = database.write_rig(rig)
    image = pycolmap.Image(name=name, camera_id=camera_id)
    image.image_id = database.write_image(image)
    frame = pycolmap.Frame()
    frame.rig_id = rig_id
    frame.add_data_id(image.data_id)
    database.write_frame(frame)
    keypoints = features["keypoints"][0].cpu().numpy().astype(np.float32) + np.float32(_HALF_PIXEL)
    database.write_keypoints(image.image_id, keypoints)
    if "descriptors" in features:
        database.write_descriptors(image.image_id, _descriptors(features["descriptors"][0].cpu().numpy()))
    return image.image_id


def _descriptors(values: np.ndarray) -> object:
    import pycolmap

    if values.shape[1] == 128 and (values >= 0).all():
        kind, stored = pycolmap.FeatureExtractorType.SIFT, (values * _SIFT_STEPS).round().clip(0, 255).astype(np.uint8)
    else:
        kind, stored = pycolmap.FeatureExtractorType.UNDEFINED, values.astype(np.float32).view(np.uint8)
    return pycolmap.FeatureDescriptors(kind, np.ascontiguousarray(stored))
