"""Curves of repeatability as one thing changes: rotation in the plane, and scale.

The pairs are those of :mod:`kp.data.photograph_changes`. Keypoints are found and counted as everywhere
(:mod:`kp.evaluation.benchmark`). Distances are in pixels of view 1, so a threshold of 3 pixels is four times as
generous at scale 0.25 as at 1, also to chance: compare detectors at one value, and each with its ``chance``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kp.data.photograph_changes import SWEEPS, swept_sequences
from kp.evaluation.benchmark import evaluate
from kp.evaluation.protocols import PROTOCOLS, Protocol
from kp.evaluation.registry import FindKeypoints
from kp.evaluation.summary import summarise

_MEASURES = ("repeatability", "localisation_error", "chance", "common", "homography_3px", "interval", "pairs")


def measure(
    make: Callable[[], Mapping[str, FindKeypoints]],
    protocol: Protocol = PROTOCOLS["native"],
    seed: int = 0,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """All sweeps by all detectors: one plain dict for each sweep, value and detector, in this order.

    A row has ``sweep``, ``value``, ``detector`` and, as :func:`kp.evaluation.summary.summarise` means them over the
    photographs, ``repeatability``, ``localisation_error``, ``chance``, ``common``, ``homography_3px``, ``interval`` and
    ``pairs``. ``make`` and ``workers`` as for :func:`kp.evaluation.benchmark.evaluate`. Raises ValueError on a protocol
    that resizes images, HPatchesError where scikit-image is not installed.
    """
    if protocol.size is not None:
        raise ValueError(f"protocol {protocol.name} resizes images: sweeps take native ones")
    swept = {kind: swept_sequences(kind, seed, SWEEPS[kind]) for kind in SWEEPS}
    points = {f"{kind}_{value:g}": (kind, value) for kind in SWEEPS for value in SWEEPS[kind]}
    records = {point: [] for point in points.values()}
    at = {sequence.name: points[sequence.kind] for made in swept.values() for sequence in made}
    for record in evaluate([sequence for made in swept.values() for sequence in made], make, protocol, workers=workers):
        records[at[record["sequence"]]].append(record)
    return [
        {"sweep": kind, "value": value, "detector": row["detector"]} | {name: row[name] for name in _MEASURES}
        for (kind, value), pairs in records.items()
        for row in summarise(pairs, "v")
    ]
