"""From the records of pairs to rows: means over pairs, by protocol, detector and split, and how sure they are."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from kp.evaluation import matching
from kp.evaluation.kinds import OTHER
from kp.evaluation.protocols import THRESHOLDS

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
RESAMPLES = 1000  # of the bootstrap


def summarise(records: Sequence[dict[str, Any]], split: str = "all") -> list[dict[str, Any]]:
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
                rows.append({"protocol": protocol, "detector": name, "split": part} | _means(pairs))
    return rows


def summarise_kinds(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as of :func:`summarise` with ``kind`` in place of ``split``: one for each kind of change among split i.

    Empty if these are all of one kind. The kinds come in the order of the alphabet, ``other`` last.
    """
    light = [r for r in records if r["split"] == "i" and r.get("kind")]
    kinds = sorted({r["kind"] for r in light}, key=lambda kind: (kind == OTHER, kind.lower()))
    rows = []
    for protocol, name in dict.fromkeys((r["protocol"], r["detector"]) for r in light if len(kinds) > 1):
        for kind in kinds:
            pairs = [r for r in light if (r["protocol"], r["detector"], r["kind"]) == (protocol, name, kind)]
            if pairs:
                rows.append({"protocol": protocol, "detector": name, "kind": kind} | _means(pairs))
    return rows


def _means(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    means = {measure: _mean([r[measure] for r in pairs]) for measure in MEASURES}
    return means | homographies(pairs) | {"interval": interval(pairs), "pairs": len(pairs)}


def homographies(pairs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The shares of pairs whose fitted homography is right to 1, 3 and 5 px, and the area under that curve to 5 px."""
    errors = [math.inf if r["corner_error"] is None else r["corner_error"] for r in pairs]
    shares = matching.accuracy(errors, THRESHOLDS)
    named = {f"homography_{pixels}px": float(share) for pixels, share in zip(THRESHOLDS, shares, strict=True)}
    return named | {"homography_auc_5px": float(matching.auc(errors, [5])[0])}


def interval(pairs: Sequence[dict[str, Any]], measure: str = "repeatability") -> list[float]:
    """The 95 % interval of the mean over pairs, were other sequences of the same kind measured: [low, high].

    Percentile bootstrap over sequences, whose pairs are not independent; the same records give the same interval.
    """
    sequences = list(dict.fromkeys(r["sequence"] for r in pairs))
    values = [[r[measure] for r in pairs if r["sequence"] == name] for name in sequences]
    total, count = (np.array([f(v) for v in values], float) for f in (sum, len))
    drawn = np.random.default_rng(0).integers(0, len(sequences), (RESAMPLES, len(sequences)))
    return np.quantile(total[drawn].sum(1) / count[drawn].sum(1), [0.025, 0.975]).tolist()


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
