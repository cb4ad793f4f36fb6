"""What changed between two results, a and b, or differs between two detectors, and whether by more than chance."""

import json
import re
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from kp.evaluation.registry import OURS
from kp.evaluation.summary import SPLITS, interval

MEASURES = {  # what is compared, and the title of its line
    "repeatability": "repeatability",
    "repeatability_1px": "1 px",
    "one_to_one": "1 to 1",
    "localisation_error": "loc. error (px)",
    "homography_3px": "H 3px",
    "matching_accuracy_3px": "MMA",
}
FLOORS = ("corner", "harris")  # what each of our detectors is compared with
UNRANKED = ("random",)  # chance is never the best
NOT_SEPARATED = "not separated"
NOTHING = 1e-6  # a smaller change is a machine's rounding

Records = Sequence[dict[str, Any]]


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """A line for whatever differs between two contents of :func:`read`, beside the numbers."""
    lines = [f"warning: {text}: the numbers may not be comparable" for text in _changed(a["settings"], b["settings"])]
    for name in dict.fromkeys(row["protocol"] for row in a["rows"]):
        changed = _changed(*(content["settings"]["protocols"].get(name, {}) for content in (a, b)))
        lines += [f"warning: protocol {name}: {text}: the numbers are not comparable" for text in changed]
    lines += [f"note: version of {text}" for text in _changed(a["versions"], b["versions"])]
    weights = [short_fingerprint(content) for content in (a, b)]
    lines += [f"note: weights differ: {weights[0]} v. {weights[1]}"] if weights[0] != weights[1] else []
    shipped = [{name: facts["sha256"][:8] for name, facts in content.get("shipped", {}).items()} for content in (a, b)]
    lines += [f"note: weights of {text}" for text in _changed(*shipped)]
    incomplete = [name for name, content in (("a", a), ("b", b)) if not content["complete"]]
    return lines + [f"note: {name} is incomplete: its measuring was stopped" for name in incomplete]


def partners(a: Records, b: Records) -> tuple[list[tuple[str, str, str]], list[str]]:
    """From the rows of two files: (protocol, detector of a, detector of b) to compare, and lines that name the rest.

    A detector is compared with its namesake; where each file has only one, these are compared whatever their names.
    """
    ours, theirs = (list(dict.fromkeys((row["protocol"], row["detector"]) for row in rows)) for rows in (a, b))
    names, others = ({detector for _, detector in keys} for keys in (ours, theirs))
    renamed = dict(zip(names, others, strict=True)) if len(names) == len(others) == 1 else {}
    couples = [(p, d, renamed.get(d, d)) for p, d in ours if (p, renamed.get(d, d)) in theirs]
    met = {(p, d) for p, d, _ in couples}, {(p, d) for p, _, d in couples}
    lines = []
    for file, keys, done in zip("ab", (ours, theirs), met, strict=True):
        alone = [key for key in keys if key not in done]
        for protocol in dict.fromkeys(protocol for protocol, _ in alone):
            lines.append(f"only in {file}: {protocol}: {', '.join(d for p, d in alone if p == protocol)}")
    return couples, lines


def change(a: Records, b: Records, measure: str) -> dict[str, Any] | None:
    """How a measure changed from records a to records b, over the pairs (sequence, image) of both; None if none is.

    ``a``, ``b``, ``change``: the means and b - a. ``interval``: the 95 % interval of b - a, paired, by bootstrap over
    sequences; None if there is one sequence. ``verdict``: a word, ``pairs``: how many. A pair in which either lacks the
    measure is left out. The order of records does not matter.
    """
    ours, theirs = ({(r["sequence"], r["image"]): _value(r, measure) for r in records} for records in (a, b))
    common = sorted(key for key, value in ours.items() if value is not None and theirs.get(key) is not None)
    if not common:
        return None
    changes = [{"sequence": key[0], "change": theirs[key] - ours[key]} for key in common]
    span = interval(changes, "change") if len({key[0] for key in common}) > 1 else None
    means = {"a": fmean(map(ours.get, common)), "b": fmean(map(theirs.get, common))}
    means["change"] = fmean(each["change"] for each in changes)
    return means | {"interval": span, "verdict": verdict(span, measure), "pairs": len(common)}


def verdict(span: Sequence[float] | None, measure: str) -> str:
    """What the interval [low, high] of a change says: "better" or "worse" (an error's change is better below 0)."""
    if span is None or (span[0] <= NOTHING and span[1] >= -NOTHING):
        return NOT_SEPARATED
    return "better" if (span[0] > 0) != (measure == "localisation_error") else "worse"


def above_floors(records: Records, split: str = "all") -> list[dict[str, Any]]:
    """How far the repeatability of our detectors is above that of ``FLOORS``, over the same pairs.

    A dict for each protocol, detector of ours, floor and split that were measured: ``protocol``, ``detector``,
    ``floor``, ``split``, ``difference`` (the mean of detector - floor), ``interval`` (95 %, see :func:`change`),
    ``verdict`` (better, worse or "no difference") and ``pairs``. ``split`` as of ``kp.evaluation.summary.summarise``.
    """
    found = []
    names = dict.fromkeys((r["protocol"], r["detector"]) for r in records)
    for protocol, ours in (key for key in names if key[1] in OURS):
        for floor in (name for name in FLOORS if (protocol, name) in names):
            for part in SPLITS if split == "all" else (split,):
                a, b = (_of(records, protocol, name, part) for name in (floor, ours))
                if changed := change(a, b, "repeatability"):
                    word = "no difference" if changed["verdict"] == NOT_SEPARATED else changed["verdict"]
                    named = {"protocol": protocol, "detector": ours, "floor": floor, "split": part}
                    numbers = {"difference": changed["change"], "interval": changed["interval"]}
                    found.append(named | numbers | {"verdict": word, "pairs": changed["pairs"]})
    return found


def separated(records: Records, measure: str, split: str = "all") -> str | None:
    """The detector that is better than every other, each by a paired difference whose 95 % interval excludes 0.

    None if there is no such detector, or only one. ``records`` are of one protocol. Those of ``UNRANKED`` are left out.
    """
    names = dict.fromkeys(r["detector"] for r in records if r["detector"] not in UNRANKED)
    parts = {name: [r for r in records if r["detector"] == name and split in ("all", r["split"])] for name in names}
    parts = {name: part for name, part in parts.items() if any(_value(r, measure) is not None for r in part)}
    if len(parts) < 2:
        return None
    sign = -1 if measure == "localisation_error" else 1
    known = {name: [v for r in part if (v := _value(r, measure)) is not None] for name, part in parts.items()}
    first, *others = sorted(parts, key=lambda name: sign * fmean(known[name]), reverse=True)
    verdicts = ((change(parts[name], parts[first], measure) or {}).get("verdict") for name in others)
    return first if all(word == "better" for word in verdicts) else None


def _of(records: Records, protocol: str, detector: str, split: str) -> list[dict[str, Any]]:
    ours = [r for r in records if (r["protocol"], r["detector"]) == (protocol, detector)]
    return [r for r in ours if split in ("all", r["split"])]


def _value(record: dict[str, Any], measure: str) -> float | None:
    if match := re.fullmatch(r"homography_(\d+)px", measure):
        return float(record["corner_error"] is not None and record["corner_error"] <= int(match[1]))
    return record[measure]


def short_fingerprint(content: dict[str, Any]) -> str:
    """The first 8 digits of the SHA-256 of the weights of ``kp``, or "none"."""
    return content["weights"]["sha256"][:8] if content["weights"] else "none"


def _changed(a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    """What differs of the plain values that both have; not ``summary``, which says again what the others do."""
    for name in (name for name in a if name in b and name != "summary" and name.isprintable()):
        if _is_plain(a[name]) and _is_plain(b[name]) and a[name] != b[name]:
            values = f"{json.dumps(a[name])} v. {json.dumps(b[name])}"
            yield f"{name} differs" + (f": {values}" if len(values) < 70 else "")


def _is_plain(value: Any) -> bool:
    return not any(isinstance(item, dict | list) for item in (value if isinstance(value, list) else [value]))
