"""Two files that ``evaluate.py --features ... --json`` wrote, a and b, side by side as text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kp.evaluation.compare import differences, short_fingerprint
from kp.evaluation.feature_results import checked
from kp.evaluation.feature_summary import COMPARED, chosen, difference
from kp.reporting.feature_tables import digits, measures_text
from kp.reporting.tables import Column, Row, Table

_COLUMNS = (
    *(Column("", left=True), Column("a"), Column("b"), Column("b - a"), Column("95 % of b - a")),
    *(Column("", left=True), Column("pairs", 0)),
)


def compare_features(paths: tuple[str | Path, str | Path], contents: tuple[Any, Any]) -> str:
    """The comparison of the contents of two files. Raises ValueError as :func:`kp.evaluation.results.read` does."""
    a, b = (checked(*each) for each in zip(paths, contents, strict=True))
    lines = []
    for name, path, content in zip("ab", paths, (a, b), strict=True):
        source, version = content["settings"]["source"], content["versions"]["kp"]
        lines.append(f"{name}: {path}: {source}, kp {version}, weights {short_fingerprint(content)}")
    keys_a, keys_b = (dict.fromkeys((r["feature"], r["points"]) for r in content["rows"]) for content in (a, b))
    lines += differences(a | {"rows": []}, b | {"rows": []})  # what stands in rows is of detectors
    for name, ours, theirs in (("a", keys_a, keys_b), ("b", keys_b, keys_a)):
        if alone := [f"{feature} ({points})" for feature, points in ours if (feature, points) not in theirs]:
            lines.append(f"only in {name}: {', '.join(alone)}")
    blocks = [_block(a, b, *key) for key in keys_a if key in keys_b] or ["nothing is in both files"]
    return "\n\n".join(["\n".join(lines), *blocks])


def _block(a: dict[str, Any], b: dict[str, Any], feature: str, points: int) -> str:
    """The table of a feature with so many points: a line per split and measure."""
    keys = [(row["split"]) for row in a["rows"] if (row["feature"], row["points"]) == (feature, points)]
    lines: list[Row] = []
    for split in keys:
        lines += _lines(a, b, feature, points, split)
    return f"{feature}, {points} points\n{Table('', _COLUMNS, lines).text()}"


def _lines(a: dict[str, Any], b: dict[str, Any], feature: str, points: int, split: str) -> Iterator[Row]:
    """A line for each measure of a split that both files have."""
    key = {"feature": feature, "points": points, "split": split}
    rows = [next((row for row in content["rows"] if key.items() <= row.items()), None) for content in (a, b)]
    if None in rows:
        return
    ours, theirs = (chosen(content["pairs"], feature, points, split) for content in (a, b))
    shown = split
    for measure in COMPARED:
        found = difference(theirs, ours, measure) or {"verdict": "no common pair", "pairs": 0}
        places = 1 if measure == "right_matches" else digits(measure)
        span = " to ".join(f"{end:+.{places}f}" for end in found.get("interval") or ()) or "-"
        change = f"{found['difference']:+.{places}f}" if "difference" in found else "-"
        numbers = [row[measure] for row in rows]
        yield shown, [measures_text(measure), *numbers, change, span, found["verdict"], found["pairs"]]
        shown = ""
