"""From the records of an evaluation to rows, a table for people and a JSON file for programs."""

import hashlib
import json
import math
from collections.abc import Mapping
from collections.abc import Sequence as Series
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import kornia
import numpy as np
import torch

import kp
from kp import downstream
from kp.hpatches import write_file
from kp.protocols import THRESHOLDS, Protocol

MEASURES = (
    "repeatability",
    "localisation_error",
    "common",
    "repeatability_1px",
    "repeatability_3px",
    "repeatability_5px",
    "one_to_one",
    "coverage",
    "chance",
    "matches",
    "matching_accuracy_1px",
    "matching_accuracy_3px",
    "matching_accuracy_5px",
)
SPLITS = ("i", "v", "all")
_RESAMPLES = 1000
# measure -> title and digits of its column; the first two show every split, the others all pairs only
_BY_SPLIT = {"repeatability": ("repeatability", 3), "localisation_error": ("loc. error (px)", 2)}
_OVER_ALL = {
    "interval": ("95 %", 3),
    "repeatability_1px": ("1 px", 3),
    "repeatability_5px": ("5 px", 3),
    "one_to_one": ("1 to 1", 3),
    "coverage": ("cover", 2),
    "chance": ("chance", 3),
    "common": ("points", 0),
    "homography_3px": ("H 3px", 3),
    "matching_accuracy_3px": ("MMA", 3),
}


def summarise(records: Series[dict[str, Any]], split: str = "all") -> list[dict[str, Any]]:
    """Means over pairs, by protocol, detector and split: rows with these, the measures and ``pairs`` (a count).

    ``split`` is what was measured: if one, there is one row. ``interval`` is the 95 % interval of the repeatability by
    bootstrap over sequences. A split without a pair has no row. The localisation error is the mean over the pairs that
    have one, or None.
    """
    rows, splits = [], SPLITS if split == "all" else (split,)
    for protocol, name in dict.fromkeys((record["protocol"], record["detector"]) for record in records):
        ours = [r for r in records if (r["protocol"], r["detector"]) == (protocol, name)]
        for part in splits:
            pairs = [r for r in ours if part in ("all", r["split"])]
            if pairs:
                means = {measure: _mean([r[measure] for r in pairs]) for measure in MEASURES}
                row = {"protocol": protocol, "detector": name, "split": part}
                rows.append(row | means | homographies(pairs) | {"interval": interval(pairs), "pairs": len(pairs)})
    return rows


def homographies(pairs: Series[dict[str, Any]]) -> dict[str, float]:
    """The shares of pairs whose fitted homography is right to 1, 3 and 5 px, and the area under that curve to 5 px."""
    errors = [math.inf if r["corner_error"] is None else r["corner_error"] for r in pairs]
    shares = downstream.accuracy(errors, THRESHOLDS)
    named = {f"homography_{pixels}px": float(share) for pixels, share in zip(THRESHOLDS, shares, strict=True)}
    return named | {"homography_auc_5px": float(downstream.auc(errors, [5])[0])}


def interval(pairs: Series[dict[str, Any]], measure: str = "repeatability") -> list[float]:
    """The 95 % interval of the mean over pairs, were other sequences of the same kind measured: [low, high].

    Percentile bootstrap over sequences, whose pairs are not independent; the same records give the same interval.
    """
    sequences = list(dict.fromkeys(r["sequence"] for r in pairs))
    values = [[r[measure] for r in pairs if r["sequence"] == name] for name in sequences]
    total, count = (np.array([f(v) for v in values], float) for f in (sum, len))
    drawn = np.random.default_rng(0).integers(0, len(sequences), (_RESAMPLES, len(sequences)))
    return np.quantile(total[drawn].sum(1) / count[drawn].sum(1), [0.025, 0.975]).tolist()


def table(rows: Series[dict[str, Any]], skipped: Mapping[str, str] | None = None) -> str:
    """Rows of one protocol as aligned text: a line for each detector, and for each that was skipped, why."""
    reasons = [f"{name:12}  skipped: {reason}" for name, reason in (skipped or {}).items()]
    if not rows:
        return "\n".join([*reasons, "nothing was measured"])
    splits = [split for split in SPLITS if any(row["split"] == split for row in rows)]
    cells = {(row["detector"], row["split"]): row for row in rows}
    width = 7 * len(splits)
    heads = [" " * 12 + "".join(f"  {title:>{max(width, 15)}}" for title, _ in _BY_SPLIT.values())]
    heads.append(f"{'detector':12}" + ("  " + "".join(f"{s:>7}" for s in splits).rjust(15)) * len(_BY_SPLIT))
    heads[1] += "".join(f"{title:>{_width(measure)}}" for measure, (title, _) in _OVER_ALL.items())
    heads[0] += f"{'of ' + splits[-1]:>{len(heads[1]) - len(heads[0])}}"
    lines = heads + [_line(name, cells, splits) for name in dict.fromkeys(row["detector"] for row in rows)]
    counts = {split: max(row["pairs"] for row in rows if row["split"] == split) for split in splits}
    return "\n".join([*lines, *reasons, "pairs: " + ", ".join(f"{split} {count}" for split, count in counts.items())])


def _line(name: str, cells: dict[tuple[str, str], dict[str, Any]], splits: Series[str]) -> str:
    line = f"{name:12}"
    for measure, (_, digits) in _BY_SPLIT.items():
        values = [_show(cells.get((name, split), {}).get(measure), digits) for split in splits]
        line += "  " + "".join(f"{value:>7}" for value in values).rjust(15)
    last = cells.get((name, splits[-1]), {})
    return line + "".join(f"{_show(last.get(m), digits):>{_width(m)}}" for m, (_, digits) in _OVER_ALL.items())


def _show(value: float | list[float] | None, digits: int) -> str:
    if isinstance(value, list):
        return " to ".join(f"{v:.{digits}f}" for v in value)
    return "-" if value is None else f"{value:.{digits}f}"


def _width(measure: str) -> int:
    return 17 if measure == "interval" else 8


def settings(source: str, split: str, subpixel: bool, seed: int, protocols: Series[Protocol]) -> dict[str, Any]:
    """Everything that decides the numbers, settings and wording, for the JSON file."""
    return {
        "protocols": {p.name: {"summary": p.describe()} | vars(p) for p in protocols},
        "source": source,
        "split": split,
        "subpixel": subpixel,
        "seed": seed,
        "images": "gray, 8 bits",
        "counted": "keypoints whose place in the other view, by the homography, is in front of the camera and within "
        "[-0.5, W - 0.5] x [-0.5, H - 0.5]; of these the best max_keypoints by score, in each view",
        "repeatability": "(points of view 0 with a point of view 1 at most threshold away + points of view 1 with one "
        "of view 0) / (points of both views); neighbours may be shared; distances in view 1; 0 if a view has no point",
        "localisation_error": "mean distance (px of view 1) of the points that have a neighbour to the nearest one; "
        "mean over the pairs that have one",
        "one_to_one": "the repeatability when no point may be the neighbour of two: a largest matching",
        "coverage": "share of the shared view within the radius of discs of which max_keypoints have its area",
        "chance": "expected repeatability of as many points strewn evenly over the shared view",
        "common": "counted points, mean of the two views",
        "homography": "shares of pairs whose homography, fitted by OpenCV's MAGSAC to mutual nearest neighbours of "
        "Kornia's SIFT descriptor, moves the corners right to so many px of view 1 on average",
        "matching_accuracy": "share of matches that the true homography sends within so many px",
        "interval": "95 %, percentile bootstrap over sequences, 1000 resamples",
    }


def versions() -> dict[str, str]:
    """The versions of what the numbers rest on."""
    return {"kp": kp.__version__, "torch": torch.__version__, "kornia": kornia.__version__, "opencv": cv2.__version__}


def report(
    records: list[dict[str, Any]],
    settings: dict[str, Any],
    weights: Path | None,
    skipped: Mapping[str, str] | None = None,
    complete: bool = True,
) -> dict[str, Any]:
    """What the JSON file holds; ``weights`` is the file that ``kp`` was read from, None if it was not measured."""
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest() if weights else None
    return {
        "settings": settings,
        "skipped": dict(skipped or {}),
        "complete": complete,
        "rows": summarise(records, settings["split"]),
        "pairs": records,
        "versions": versions(),
        "weights": {"path": str(weights), "sha256": sha256} if weights else None,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values as JSON, complete or not at all. Raises HPatchesError where that is not possible."""
    write_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def _mean(values: Series[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
