"""From the records of an evaluation to rows, a table for people and a JSON file for programs."""

import hashlib
import json
from collections.abc import Sequence as Series
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import kornia
import torch

import kp
from kp.hpatches import write_file

MEASURES = ("repeatability", "localisation_error", "common")
SPLITS = ("i", "v", "all")


def summarise(records: Series[dict[str, Any]], splits: Series[str] = SPLITS) -> list[dict[str, Any]]:
    """Means over pairs, by detector and split: rows with ``detector``, ``split``, the measures and ``pairs`` (a count).

    A split without a pair has no row. The localisation error is the mean over the pairs that have one, or None.
    """
    rows = []
    for name in dict.fromkeys(record["detector"] for record in records):
        for split in splits:
            pairs = [r for r in records if r["detector"] == name and split in ("all", r["split"])]
            if pairs:
                means = {measure: _mean([r[measure] for r in pairs]) for measure in MEASURES}
                rows.append({"detector": name, "split": split, **means, "pairs": len(pairs)})
    return rows


def table(rows: Series[dict[str, Any]]) -> str:
    """Rows as aligned text: a line for each detector, the splits side by side under each measure."""
    if not rows:
        return "nothing was measured"
    splits = [split for split in SPLITS if any(row["split"] == split for row in rows)]
    cells = {(row["detector"], row["split"]): row for row in rows}
    width = 7 * len(splits)
    titles = ("repeatability", "loc. error (px)", "common points")
    lines = [" " * 12 + "".join(f"  {title:>{max(width, 15)}}" for title in titles)]
    lines.append(f"{'detector':12}" + ("  " + "".join(f"{s:>7}" for s in splits).rjust(15)) * len(MEASURES))
    for name in dict.fromkeys(row["detector"] for row in rows):
        line = f"{name:12}"
        for measure, digits in zip(MEASURES, (3, 2, 0), strict=True):
            values = [cells.get((name, split), {}).get(measure) for split in splits]
            texts = (f"{'-' if v is None else format(v, f'.{digits}f'):>7}" for v in values)
            line += "  " + "".join(texts).rjust(15)
        lines.append(line)
    counts = {split: max(row["pairs"] for row in rows if row["split"] == split) for split in splits}
    return "\n".join([*lines, "pairs: " + ", ".join(f"{split} {count}" for split, count in counts.items())])


def describe(max_keypoints: int, threshold: float, nms_size: int, border: int) -> str:
    """The protocol in a line, to stand above a table."""
    return (
        f"best {max_keypoints} keypoints that the other view sees, repeated within {threshold:g} px, either way; "
        f"native size; NMS {nms_size}x{nms_size}, border {border} px; means over pairs"
    )


def protocol(source: str, split: str, subpixel: bool, seed: int, **settings: float) -> dict[str, Any]:
    """Everything that decides the numbers, settings and wording, for the JSON file."""
    return {
        "summary": describe(**settings),
        "source": source,
        "split": split,
        **settings,
        "subpixel": subpixel,
        "seed": seed,
        "images": "gray, 8 bits, at the size they have on disk",
        "counted": "keypoints whose place in the other view, by the homography, is in front of the camera and within "
        "[-0.5, W - 0.5] x [-0.5, H - 0.5]; of these the best max_keypoints by score, in each view",
        "repeatability": "(points of view 0 with a point of view 1 at most threshold away + points of view 1 with one "
        "of view 0) / (points of both views); neighbours may be shared; distances in view 1; 0 if a view has no point",
        "localisation_error": "mean distance (px of view 1) of the points that have a neighbour to the nearest one; "
        "mean over the pairs that have one",
        "common": "counted points, mean of the two views",
    }


def versions() -> dict[str, str]:
    """The versions of what the numbers rest on."""
    return {"kp": kp.__version__, "torch": torch.__version__, "kornia": kornia.__version__, "opencv": cv2.__version__}


def report(
    records: list[dict[str, Any]], protocol: dict[str, Any], weights: Path | None, complete: bool = True
) -> dict[str, Any]:
    """What the JSON file holds; ``weights`` is the file that ``kp`` was read from, None if it was not measured."""
    splits = SPLITS if protocol["split"] == "all" else (protocol["split"],)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest() if weights else None
    return {
        "protocol": protocol,
        "complete": complete,
        "rows": summarise(records, splits),
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
