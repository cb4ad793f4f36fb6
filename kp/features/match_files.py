"""Matches in files: the h5 of hloc."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kp.features.files import SETTINGS
from kp.support.files import replaced


def check_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Raises ValueError where two pairs of names would be one group of the file of :func:`save_matches`."""
    seen: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        if (other := seen.setdefault(_pair_group(pair), pair)) != pair:
            raise ValueError(f"the pairs {' '.join(other)} and {' '.join(pair)} have one name in an h5: write a .json")


def _pair_group(names: Sequence[str]) -> str:
    return "/".join(name.replace("/", "-") for name in names)


def save_matches(
    path: str | Path, results: Sequence[Mapping[str, Any]], settings: Mapping[str, Any] | None = None
) -> None:
    """Write matches as hloc's h5, anew: a group NAME0/NAME1 (``/`` in a name is ``-``) for each pair.

    It holds ``matches0`` (N0,), the index of the keypoint of image 1 or -1, and ``matching_scores0`` (N0,).

    Args:
        results: for each pair ``names`` (two), ``matches`` (M, 2), ``scores`` (M,), ``counts`` (keypoints of each).
        settings: for JSON, what the matches depend on: an attribute.
    """
    import h5py

    with replaced(Path(path)) as temporary, h5py.File(temporary, "w") as file:
        for result in results:
            group = file.create_group(_pair_group(result["names"]))
            at0, at1 = result["matches"].cpu().numpy().T
            matches = np.full(result["counts"][0], -1, np.int32)
            scores = np.zeros(result["counts"][0], np.float32)
            matches[at0], scores[at0] = at1, result["scores"].cpu().numpy()
            group.create_dataset("matches0", data=matches)
            group.create_dataset("matching_scores0", data=scores)
        if settings is not None:
            file.attrs[SETTINGS] = json.dumps(settings)
