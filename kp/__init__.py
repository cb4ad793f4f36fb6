"""kp finds, describes and matches interest points, learnt from synthetic geometry alone.

Public names: ``Extractor``, ``describe``, ``match``, ``match_pair``, ``refine``, ``save``, ``load``,
``to_opencv``, ``KorniaDetector``, ``write_colmap``, and ``load_detector``, which gives score maps.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {  # imported when they are first used, so that ``import kp`` alone is quick
    "Extractor": "kp.features.extract",
    "describe": "kp.features.describe",
    "match": "kp.features.match",
    "match_pair": "kp.features.match_pair",
    "refine": "kp.features.refine",
    "save": "kp.features.files",
    "load": "kp.features.files",
    "to_opencv": "kp.features.files",
    "write_colmap": "kp.features.colmap",
    "KorniaDetector": "kp.features.local_features",
    "ImageError": "kp.data.image_files",
}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'kp' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])


def load_detector(weights=None, device="cpu", scales=1):
    """A trained detector: images (B, 1 or 3, H, W) in [0, 1] -> score logits (B, 1, H, W).

    :func:`kp.models.keypoints.extract_keypoints` makes keypoints of the scores.

    Args:
        weights: a name of ``kp models``, or the path of a file that training wrote. None: the default weights.
        device: of the detector and of the images that it is given.
        scales: sizes in which the detector looks at an image, from 1.41 times its own size down, each 0.71 of the one
            before. Four find more again, and place them better, in large images that are blurred or zoomed, in four
            times the time.

    Raises:
        kp.models.checkpoint.CheckpointError: (a ValueError) there are no such weights.
        ValueError: ``scales`` is below 1.
    """
    from kp.config import WEIGHTS
    from kp.models import checkpoint

    return checkpoint.load_detector(weights or WEIGHTS, device, scales)
