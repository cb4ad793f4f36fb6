"""The file that ``evaluate.py --features ... --json`` writes: what it holds, and how it is read.

settings    ``measures``: "features"; ``source``, ``split``, ``subset``, ``seed``, ``points``; what each measure is, in
            words
skipped     features that could not run, by name: the reason
complete    false if the run was stopped
rows        of :func:`kp.evaluation.feature_summary.summarise_features`
differences of :func:`kp.evaluation.feature_summary.feature_differences`
pairs       of :func:`kp.evaluation.feature_benchmark.evaluate_features`
versions    of kp, torch, kornia, opencv and poselib
weights     of ``kp``, null without it: ``path`` and ``sha256``
shipped     the same of the other weights that come with kp
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kp.evaluation import results
from kp.evaluation.feature_matching import ESTIMATORS
from kp.evaluation.feature_summary import COMPARED, MEASURES, feature_differences, summarise_features
from kp.evaluation.summary import RESAMPLES, SPLITS

KIND = "features"  # what ``settings["measures"]`` says


def settings(source: str, points: Sequence[int], **choices: Any) -> dict[str, Any]:
    """Everything that decides the numbers: ``choices`` by their flags' names, and the wording."""
    return {
        "measures": KIND,
        "source": source,
        "points": list(points),
        **choices,
        "images": "gray, 0.299 R + 0.587 G + 0.114 B of the stored pixels, at their own size; networks that want "
        "colour get it three times, OpenCV's features get 8 bits",
        "features": "kp and shipped weights: kp.Extractor with its defaults; sift: OpenCV's, as RootSIFT; orb: "
        "OpenCV's; xfeat, aliked, disk: Kornia's, with their own thresholds; DETECTOR+DESCRIPTOR: the places of one, "
        "described by the other",
        "counted": "the best points of each image, by the feature's own scores, seen by the other view or not",
        "matches": "mutual nearest neighbours of descriptors, no ratio test; those of kp's own weights in the turn, "
        "the sizes and the tilt of the two images in which most have a clear match; NAME+upright: as they are",
        "oracle": "DETECTOR+oracle: the most pairs of points within 3 px by the given homography, one to one",
        "refined": "NAME+refined: descriptors of kp's own weights are compared at half the size, too; where a "
        "homography of the first matches is evidence that the images are not seen alike, one is described anew as the "
        "other sees it, too (not by the complete features sift and orb, NAME+upright and oracles); the matched points "
        "of image k are moved to where the pictures fit, by kp.refine, and count there",
        "matching_accuracy": "share of matches that the true homography sends within so many px of view 1; 0 without a "
        "match",
        "right_matches": "matches right to 3 px",
        "matching_score": "right matches of points that the other view sees / points that the other view sees; mean of "
        "the two views",
        "homography": "shares of pairs whose homography, fitted with a threshold of 3 px by OpenCV's MAGSAC or by "
        "PoseLib, moves the corners right to so many px of view 1 on average; auc: area under the curve of that share "
        "from 0, divided by the threshold",
        "intervals": f"95 %, percentile bootstrap over sequences, {RESAMPLES} resamples; of differences: the same "
        "sequences for both",
    }


def content(
    records: list[dict[str, Any]],
    settings: dict[str, Any],
    weights: Mapping[str, str] | None,
    skipped: Mapping[str, str],
    complete: bool,
) -> dict[str, Any]:
    """What the file holds; ``weights``: the :func:`kp.evaluation.results.fingerprint` of those of ``kp``, or None."""
    return {
        "settings": settings,
        "skipped": dict(skipped),
        "complete": complete,
        "rows": summarise_features(records, settings["split"]),
        "differences": feature_differences(records, settings["split"]),
        "pairs": records,
        "versions": results.versions() | {"poselib": version("poselib")},
        "weights": weights,
    }


def is_of_features(content: Any) -> bool:
    """Whether the content of a file is that of complete features; if not, it may be of detectors."""
    settings = content.get("settings") if isinstance(content, dict) else None
    return isinstance(settings, dict) and settings.get("measures") == KIND


def checked(path: str | Path, content: Any) -> dict[str, Any]:
    """The content of a file, with all that a comparison needs. Raises ValueError as :func:`results.read` does."""
    return results.checked(path, content, _FORM)


def _is_points(value: Any) -> bool:
    return type(value) is int and value > 0


_KEY = {"feature": results.is_text, "points": _is_points, "split": SPLITS.__contains__}
_FORM = {
    "settings": {"source": results.is_text},
    "complete": lambda value: isinstance(value, bool),
    "versions": {"kp": results.is_text},
    "weights": lambda value: value is None or results.is_fingerprint(value),
    "rows": [_KEY | dict.fromkeys(MEASURES, results.is_number)],
    "pairs": [
        _KEY
        | {"sequence": results.is_text, "image": results.is_number}
        | {name: results.is_number for name in COMPARED if not name.startswith("homography")}
        | {f"corner_error_{name}": lambda v: v is None or (type(v) in (int, float) and v >= 0) for name in ESTIMATORS}
    ],
}
