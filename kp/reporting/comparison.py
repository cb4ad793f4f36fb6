"""Two files that ``evaluate.py --json`` wrote, a and b, side by side as text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kp.evaluation.compare import MEASURES, change, differences, partners, short_fingerprint
from kp.evaluation.feature_results import is_of_features
from kp.evaluation.results import load, read
from kp.reporting.feature_comparison import compare_features
from kp.reporting.tables import Column, Row, Table

MIN_SEQUENCES = 6  # all of 5 sequences change in one direction by chance more than once in 20 times: 2 * 0.5**5 > 0.05
_COLUMNS = (
    Column("", left=True),
    Column("a"),
    Column("b"),
    Column("b - a"),
    Column("95 % of b - a"),
    Column("", left=True),
    Column("pairs", 0),
    Column("each 95 %", left=True),
)

Records = Sequence[dict[str, Any]]


def compare_files(path_a: str | Path, path_b: str | Path) -> str:
    """The comparison of two files. Raises ValueError as :func:`kp.evaluation.results.read` does."""
    loaded = load(path_a), load(path_b)
    if any(map(is_of_features, loaded)):
        if not all(map(is_of_features, loaded)):
            raise ValueError(f"of {path_a} and {path_b} one is of --features, the other is not: compare two of a kind")
        return compare_features((path_a, path_b), loaded)
    a, b = read(path_a), read(path_b)
    couples, alone = partners(a["rows"], b["rows"])
    head = []
    for name, path, content in (("a", path_a, a), ("b", path_b, b)):
        source, version = content["settings"]["source"], content["versions"]["kp"]
        head.append(f"{name}: {path}: {source}, kp {version}, weights {short_fingerprint(content)}")
    blocks = [_block(a, b, *couple) for couple in couples] or ["nothing is in both files"]
    return "\n\n".join(["\n".join(head + differences(a, b) + alone), *blocks])


def _block(a: dict[str, Any], b: dict[str, Any], protocol: str, ours: str, theirs: str) -> str:
    """The table of one protocol, for detector ``ours`` of a and ``theirs`` of b: a line per split and measure."""
    (rows_a, pairs_a), (rows_b, pairs_b) = (
        [[r for r in content[kind] if (r["protocol"], r["detector"]) == (protocol, name)] for kind in ("rows", "pairs")]
        for content, name in ((a, ours), (b, theirs))
    )
    lines: list[Row] = []
    for row_a, row_b in ((x, y) for x in rows_a for y in rows_b if x["split"] == y["split"]):
        parts = ([r for r in pairs if row_a["split"] in ("all", r["split"])] for pairs in (pairs_a, pairs_b))
        lines += _lines(row_a, row_b, *parts)
    title = f"{protocol}: {ours}" if ours == theirs else f"{protocol}: {ours} of a v. {theirs} of b"
    return f"{title}\n{Table('', _COLUMNS, lines, footnotes=list(_notes(pairs_a, pairs_b))).text()}"


def _lines(row_a: dict[str, Any], row_b: dict[str, Any], pairs_a: Records, pairs_b: Records) -> Iterator[Row]:
    """A line for each measure of a split. The first line also says whether the two intervals overlap."""
    (low_a, high_a), (low_b, high_b) = row_a["interval"], row_b["interval"]
    split, overlap = row_a["split"], "apart" if high_a < low_b or high_b < low_a else "overlap"
    for measure, title in MEASURES.items():
        alone = {"a": row_a[measure], "b": row_b[measure], "verdict": "no common pair", "pairs": 0}
        found = change(pairs_a, pairs_b, measure) or alone
        span = " to ".join(_signed(value) for value in found.get("interval") or [None])
        numbers = [found["a"], found["b"], _signed(found.get("change")), span]
        yield split, [title, *numbers, found["verdict"], found["pairs"], overlap]
        split = overlap = ""


def _notes(pairs_a: Records, pairs_b: Records) -> Iterator[str]:
    """What a reader must know about the number of common pairs and of sequences."""
    keys_a, keys_b = ({(r["split"], r["sequence"], r["image"]) for r in pairs} for pairs in (pairs_a, pairs_b))
    common = keys_a & keys_b
    if common and keys_a != keys_b:
        counts = f"{len(common)} common pairs of a's {len(keys_a)} and b's {len(keys_b)}"
        yield f"note: all but the last column rests on the {counts}"
    sequences = {split: len({sequence for part, sequence, _ in common if part == split}) for split in "iv"}
    if few := ", ".join(f"{split} {count}" for split, count in sequences.items() if 0 < count < MIN_SEQUENCES):
        yield f"note: few sequences ({few}): the intervals of so few are too narrow"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 3) + 0.0:+.3f}"  # + 0.0: a zero without a minus
