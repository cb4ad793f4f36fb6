"""The self-check against published values: what others measured on HPatches, beside what was measured here.

They are of https://github.com/rpautrat/SuperPoint, README, "Detector evaluation": 300 points seen by both images, of
which images cover 240x320, repeated within 3 px.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from kp.data.download import D2NET_LEFT_OUT
from kp.evaluation.protocols import PROTOCOLS, Protocol

SOURCE = "rpautrat/SuperPoint's README"
REPEATABILITY = {
    "harris": {"i": 0.630, "v": 0.755},
    "fast": {"i": 0.576, "v": 0.625},
    "shi-tomasi": {"i": 0.584, "v": 0.629},
}
SEQUENCES = {"i": 57, "v": 59}  # of the whole of HPatches
IMAGES = [2, 3, 4, 5, 6]  # of every sequence, each paired with image 1
TOLERANCE = 0.02  # of repeatability, for implementations that differ in their suppression


def check(rows: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]], protocol: Protocol) -> list[str]:
    """A line for each published repeatability with the one measured, a warning where they are not about the same.

    ``rows`` and ``records`` (one per pair) as in the JSON file. No line unless the protocol is 240x320, nothing of it
    changed, and the detector measured every pair of HPatches.
    """
    if protocol != PROTOCOLS["240x320"]:
        return []
    ours = [record for record in records if record["protocol"] == protocol.name]
    whole = [name for name in REPEATABILITY if _is_whole([r for r in ours if r["detector"] == name])]
    measured = {(r["detector"], r["split"]): r["repeatability"] for r in rows if r["protocol"] == protocol.name}
    return [
        _line(f"{name} {split}", measured[name, split], value)
        for name in whole
        for split, value in REPEATABILITY[name].items()
        if (name, split) in measured
    ]


def _is_whole(records: Sequence[dict[str, Any]]) -> bool:
    """Whether one detector's records are of all pairs of HPatches, once each."""
    images = defaultdict(list)
    for record in records:
        images[record["split"], record["sequence"]].append(record["image"])
    counts = {split: sum(part == split for part, _ in images) for split in SEQUENCES}
    known = set(D2NET_LEFT_OUT) <= {sequence for _, sequence in images}  # a stand-in has names of its own
    return known and counts == SEQUENCES and all(sorted(numbers) == IMAGES for numbers in images.values())


def _line(what: str, measured: float, value: float) -> str:
    text = f"{what}: measured {measured:.3f}, {SOURCE} {value:.3f}"
    differs = round(abs(measured - value), 9) > TOLERANCE  # rounded, or 0.65 - 0.63 would be greater than 0.02
    return f"WARNING: {text}: differs by more than {TOLERANCE}" if differs else text
