"""The tables of what keypoints cost. A cost is a :class:`kp.experiments.inference.Cost` as a dict."""

from collections.abc import Mapping, Sequence
from typing import Any

from kp.reporting.tables import Column, Table

Cost = Mapping[str, Any]


def one(costs: Sequence[Cost], reference: str) -> Table:
    """A row for each detector, fastest first, of one size and number of threads; a line for each skipped detector."""
    measured = sorted((cost for cost in costs if not cost["skipped"]), key=lambda cost: cost["milliseconds"])
    of_reference = next((cost["milliseconds"] for cost in measured if cost["name"] == reference), None)
    columns = [Column("ms", 1), Column(f"of {reference}", 2), Column("bytes a pixel", 0), Column("images", 0)]
    rows = []
    for cost in measured:
        share = None if of_reference is None else cost["milliseconds"] / of_reference
        values = [cost["milliseconds"], share, cost["bytes_per_pixel"], cost["repeats"]]
        rows.append((cost["name"], [*values, "yes" if cost["descriptors"] else "no"]))
    title = f"{_size(costs[0])}, {_threads(costs[0])}"
    return Table(title, [*columns, Column("descriptors", left=True)], rows, _skipped(costs))


def by_size(costs: Sequence[Cost]) -> Table:
    """Milliseconds: a row for each detector, a column for each number of threads and size."""
    runs: dict[tuple[int, ...], Cost] = {_run(cost): cost for cost in sorted(costs, key=_run)}
    found = {(cost["name"], _run(cost)): cost["milliseconds"] for cost in costs}
    columns = [Column(_size(cost), 1, _threads(cost)) for cost in runs.values()]
    names = dict.fromkeys(cost["name"] for cost in costs)
    rows = [(name, [found.get((name, run)) for run in runs]) for name in names]
    return Table("milliseconds", columns, rows, _skipped(costs))


def _skipped(costs: Sequence[Cost]) -> list[str]:
    """A line for each detector and reason, which names the runs."""
    runs: dict[tuple[str, str], list[str]] = {}
    for cost in costs:
        if cost["skipped"]:
            runs.setdefault((cost["name"], cost["skipped"]), []).append(f"{_size(cost)}, {_threads(cost)}")
    return [f"{name} skipped ({'; '.join(where)}): {reason}" for (name, reason), where in runs.items()]


def _run(cost: Cost) -> tuple[int, ...]:
    return cost["threads"], *cost["size"]


def _size(cost: Cost) -> str:
    return "{}x{}".format(*cost["size"])


def _threads(cost: Cost) -> str:
    return f"{cost['threads']} thread{'s' * (cost['threads'] > 1)}"
