"""From the records of pairs of complete features to means, intervals and paired differences.

Every measure is taken of a set of pairs. Bootstrap draws sequences with replacement, and takes the measure of all their
pairs: so also of the area under the curve, which is no mean over pairs. Two features are compared on the same draws.
"""

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from kp.evaluation.compare import verdict
from kp.evaluation.feature_matching import ACCURACY_THRESHOLDS, ESTIMATORS
from kp.evaluation.features import is_oracle
from kp.evaluation.protocols import THRESHOLDS
from kp.evaluation.summary import RESAMPLES, SPLITS

MEANS = (
    *("dimensions", "keypoints", "matches", "right_matches", "matching_score"),
    *(f"matching_accuracy_{pixels}px" for pixels in ACCURACY_THRESHOLDS),
)
HOMOGRAPHIES = tuple(
    f"homography_{kind}{pixels}px_{name}" for name in ESTIMATORS for kind in ("", "auc_") for pixels in THRESHOLDS
)
MEASURES = (*MEANS, *HOMOGRAPHIES)
COMPARED = (  # measures of which differences are taken
    *("matching_accuracy_3px", "matching_score", "right_matches"),
    *(f"homography_{kind}px_{name}" for name in ESTIMATORS for kind in ("3", "auc_5")),
)

Records = Sequence[dict[str, Any]]


class _Sums(NamedTuple):
    """Of each sequence (S,): the sum of a measure's values, what the last point of a curve adds, the count of pairs."""

    total: np.ndarray
    last: np.ndarray
    count: np.ndarray

    def of(self, drawn: np.ndarray) -> np.ndarray:
        """The measure (R,) of each of R sets of sequences (R, D), given by their indices."""
        return (self.total[drawn].sum(1) + self.last[drawn].max(1)) / self.count[drawn].sum(1)

    def whole(self) -> float:
        """The measure of all pairs."""
        return float(self.of(np.arange(len(self.count))[None])[0])

    def drawn(self) -> np.ndarray:
        """The measure (RESAMPLES,) of sets of as many sequences, drawn with replacement: always the same sets."""
        return self.of(_draws(len(self.count)))


@cache
def _draws(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, count, (RESAMPLES, count))


def summarise_features(records: Records, split: str = "all") -> list[dict[str, Any]]:
    """A row for each feature, number of points and split that were measured.

    A row has ``feature``, ``points``, ``split``, ``pairs`` (a count), the measures ``MEASURES``, and ``intervals``: by
    measure, its 95 % interval [low, high]; None with one sequence.
    """
    rows = []
    for name, points in dict.fromkeys((r["feature"], r["points"]) for r in records):
        for part in SPLITS if split == "all" else (split,):
            if ours := chosen(records, name, points, part):
                sums = {measure: _sums(ours, measure) for measure in MEASURES}
                row = {"feature": name, "points": points, "split": part, "pairs": len(ours)}
                row |= {measure: each.whole() for measure, each in sums.items()}
                rows.append(row | {"intervals": {measure: _interval(each) for measure, each in sums.items()}})
    return rows


def feature_differences(records: Records, split: str = "all") -> list[dict[str, Any]]:
    """How much more the first feature measures than each of the others, over the same pairs.

    A dict for each of the others (``other``), number of points, split and measure of ``COMPARED``: also ``feature``,
    and what :func:`difference` says.
    """
    found = []
    first, *others = dict.fromkeys(r["feature"] for r in records) or [None]
    for other in others:
        for points in dict.fromkeys(r["points"] for r in records):
            for part in SPLITS if split == "all" else (split,):
                ours, theirs = (chosen(records, name, points, part) for name in (first, other))
                for measure in COMPARED:
                    if numbers := difference(ours, theirs, measure):
                        named = {"feature": first, "other": other, "points": points, "split": part, "measure": measure}
                        found.append(named | numbers)
    return found


def difference(ours: Records, theirs: Records, measure: str) -> dict[str, Any] | None:
    """A measure of ours minus that of theirs, over the pairs (sequence, image) of both; None without any.

    ``difference``; ``interval``, 95 %, of the same sequences drawn for both, None with one sequence; ``verdict``, of
    :func:`kp.evaluation.compare.verdict`; ``pairs``, how many.
    """
    if (sums := _of_both(ours, theirs, measure)) is None:
        return None
    a, b = sums
    span = np.quantile(a.drawn() - b.drawn(), [0.025, 0.975]).tolist() if len(a.count) > 1 else None
    change = a.whole() - b.whole()
    return {"difference": change, "interval": span, "verdict": verdict(span, measure), "pairs": round(a.count.sum())}


def ratio(ours: Records, theirs: Records, measure: str) -> tuple[float, list[float] | None] | None:
    """A measure of ours divided by that of theirs, over the pairs of both, and its 95 % interval: see `difference`."""
    if (sums := _of_both(ours, theirs, measure)) is None or not sums[1].whole():
        return None
    a, b = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        span = np.quantile(a.drawn() / b.drawn(), [0.025, 0.975]).tolist() if len(a.count) > 1 else None
    return a.whole() / b.whole(), span


def best_feature(records: Records, points: int, split: str, measure: str) -> str | None:
    """The feature that is better than every other, each by a paired difference whose 95 % interval excludes 0.

    Oracles are left out.
    """
    names = dict.fromkeys(r["feature"] for r in records if not is_oracle(r["feature"]))
    parts = {name: part for name in names if (part := chosen(records, name, points, split))}
    if len(parts) < 2:
        return None
    first, *others = sorted(parts, key=lambda name: _sums(parts[name], measure).whole(), reverse=True)
    found = (difference(parts[first], parts[name], measure) for name in others)
    return first if all(each and each["verdict"] == "better" for each in found) else None


def chosen(records: Records, feature: str, points: int, split: str) -> list[dict[str, Any]]:
    """The records of a feature, a number of points and a split, "all" for both."""
    ours = [r for r in records if (r["feature"], r["points"]) == (feature, points)]
    return [r for r in ours if split in ("all", r["split"])]


def _of_both(ours: Records, theirs: Records, measure: str) -> tuple[_Sums, _Sums] | None:
    """Those of the pairs (sequence, image) of both; None without any."""
    by_key = [{(r["sequence"], r["image"]): r for r in records} for records in (ours, theirs)]
    if not (common := sorted(by_key[0].keys() & by_key[1].keys())):
        return None
    a, b = (_sums([records[key] for key in common], measure) for records in by_key)
    return a, b


def _interval(sums: _Sums) -> list[float] | None:
    return np.quantile(sums.drawn(), [0.025, 0.975]).tolist() if len(sums.count) > 1 else None


def _sums(records: Records, measure: str) -> _Sums:
    """Of each sequence, in the order of the records."""
    places = {name: at for at, name in enumerate(dict.fromkeys(r["sequence"] for r in records))}
    sums = _Sums(*(np.zeros(len(places)) for _ in range(3)))
    for record in records:
        at = places[record["sequence"]]
        value, last = _value(record, measure)
        sums.total[at] += value
        sums.last[at] = max(sums.last[at], last)
        sums.count[at] += 1
    return sums


def _value(record: dict[str, Any], measure: str) -> tuple[float, float]:
    """What a pair adds to a measure, and what it adds if it is the last point of the curve below the threshold.

    The area under the curve of :func:`kp.evaluation.matching.auc`, of errors e, to a threshold t: steps would have the
    mean of max(0, 1 - e / t). The straight lines from step to step add e / 2t of the largest e below t, divided by the
    number of pairs.
    """
    found = re.fullmatch(r"homography_(auc_)?(\d+)px_(\w+)", measure)
    if not found:
        return record[measure], 0.0
    error, limit = record[f"corner_error_{found[3]}"], int(found[2])
    error = math.inf if error is None else error
    if not found[1]:
        return float(error <= limit), 0.0
    return (1 - error / limit, error / (2 * limit)) if error < limit else (0.0, 0.0)
