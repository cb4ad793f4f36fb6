"""Rows as aligned text, for people at a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from kp.evaluation.summary import SPLITS

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


def table(rows: Sequence[dict[str, Any]], skipped: Mapping[str, str] | None = None) -> str:
    """Rows of one protocol as aligned text: a line for each detector, and for each that was skipped, why."""
    first = max(map(len, ["detector", *(row["detector"] for row in rows), *(skipped or {})]))
    reasons = [f"{name:{first}}  skipped: {reason}" for name, reason in (skipped or {}).items()]
    if not rows:
        return "\n".join([*reasons, "nothing was measured"])
    splits = [split for split in SPLITS if any(row["split"] == split for row in rows)]
    cells = {(row["detector"], row["split"]): row for row in rows}
    width = 7 * len(splits)
    heads = [" " * first + "".join(f"  {title:>{max(width, 15)}}" for title, _ in _BY_SPLIT.values())]
    heads.append(f"{'detector':{first}}" + ("  " + "".join(f"{s:>7}" for s in splits).rjust(15)) * len(_BY_SPLIT))
    heads[1] += "".join(f"{title:>{_width(measure)}}" for measure, (title, _) in _OVER_ALL.items())
    heads[0] += f"{'of ' + splits[-1]:>{len(heads[1]) - len(heads[0])}}"
    lines = heads + [_line(name, first, cells, splits) for name in dict.fromkeys(row["detector"] for row in rows)]
    counts = {split: max(row["pairs"] for row in rows if row["split"] == split) for split in splits}
    return "\n".join([*lines, *reasons, "pairs: " + ", ".join(f"{split} {count}" for split, count in counts.items())])


def _line(name: str, first: int, cells: dict[tuple[str, str], dict[str, Any]], splits: Sequence[str]) -> str:
    line = f"{name:{first}}"
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
