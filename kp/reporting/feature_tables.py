"""The tables of complete features: for a terminal, for Markdown and for the page."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kp.evaluation.feature_matching import ESTIMATORS
from kp.evaluation.feature_summary import COMPARED, best_feature
from kp.evaluation.protocols import THRESHOLDS
from kp.evaluation.summary import SPLITS
from kp.reporting.result_tables import SPLIT_NAMES
from kp.reporting.tables import Column, Row, Table

Result = Mapping[str, Any]

TITLES = {"magsac": "MAGSAC", "poselib": "PoseLib"}  # of the estimators
SHORT_DIFFERENCES = (  # measures whose differences stand below a table
    *("matching_accuracy_3px", "homography_auc_5px_magsac", "homography_auc_5px_poselib"),
)
AUC = tuple(f"homography_auc_5px_{name}" for name in ESTIMATORS)
_COMPARED_TITLES = {
    "matching_accuracy_3px": "MMA 3 px",
    "matching_score": "matching score",
    "right_matches": "right matches",
    **{f"homography_3px_{name}": f"H 3 px {title}" for name, title in TITLES.items()},
    **{f"homography_auc_5px_{name}": f"AUC 5 px {title}" for name, title in TITLES.items()},
}


def measures_text(measure: str) -> str:
    """What the lines of differences call a measure of ``COMPARED``."""
    return _COMPARED_TITLES[measure]


def digits(measure: str) -> int:
    """How many digits after the decimal point a measure is shown with."""
    return {"right_matches": 0, "matches": 0, "keypoints": 0, "dimensions": 0}.get(measure, 3)


def short(rows: Sequence[Result], points: int, records: Sequence[Result] = ()) -> Table:
    """A line per feature with so many points: what matters most, and the 95 % intervals of the AUC.

    ``records`` are those of the pairs: a value is bold where they tell that feature from all others but oracles.
    """
    cells = {(r["feature"], r["split"]): r for r in rows if r["points"] == points}
    splits = [split for split in SPLITS if any(key[1] == split for key in cells)]
    last = splits[-1]
    shown = [("dimensions", last, Column("D", 0)), ("keypoints", last, Column("points", 0))]
    shown += [("matching_accuracy_3px", s, Column(s, 3, "MMA 3 px")) for s in splits]
    shown += [("matching_score", last, Column("M.score", 3)), ("right_matches", last, Column("right", 0))]
    shown += [(f"homography_3px_{name}", last, Column(TITLES[name], 3, "H 3 px")) for name in ESTIMATORS]
    shown += [(AUC[0], s, Column(s, 3, "AUC 5 px, MAGSAC")) for s in splits]
    shown += [(AUC[1], last, Column("AUC 5 px, PoseLib", 3))]
    columns = [_marked(column, records, points, split, measure) for measure, split, column in shown]
    lines: list[Row] = []
    for name in dict.fromkeys(name for name, _ in cells):
        found = [(measure, cells.get((name, split))) for measure, split, _ in shown]
        lines.append((name, [_value(row, measure, measure in AUC and row["split"] == last) for measure, row in found]))
    return Table("feature", columns, lines)


def full(rows: Sequence[Result], points: int, intervals: bool = True) -> Table:
    """All measures with so many points: a line per feature below a heading for each split."""
    shown = [("dimensions", Column("D", 0)), ("keypoints", Column("points", 0)), ("matches", Column("matches", 0))]
    shown += [("right_matches", Column("right", 0)), ("matching_score", Column("M.score"))]
    shown += [(f"matching_accuracy_{t}px", Column(f"{t} px", 3, "MMA")) for t in THRESHOLDS]
    for name, title in TITLES.items():
        for kind, head in (("", "H"), ("auc_", "AUC")):
            group = f"{head}, {title}"
            shown += [(f"homography_{kind}{t}px_{name}", Column(f"{t} px", 3, group)) for t in THRESHOLDS]
    plain = ("dimensions", "keypoints", "matches")
    lines: list[Row] = []
    for split in SPLITS:
        ours = [row for row in rows if (row["points"], row["split"]) == (points, split)]
        lines += [(SPLIT_NAMES[split], [])] if ours else []
        for row in ours:
            values = [_value(row, measure, intervals and measure not in plain) for measure, _ in shown]
            lines.append((row["feature"], values))
    return Table("feature", [column for _, column in shown], lines)


def difference_lines(
    differences: Sequence[Result], points: int, measures: Collection[str] = SHORT_DIFFERENCES
) -> list[str]:
    """A line for each other feature and measure, all splits in it, of ``feature_summary.feature_differences``."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for found in (d for d in differences if d["points"] == points and d["measure"] in measures):
        places = 1 if found["measure"] == "right_matches" else 3
        low_high = ", ".join(f"{end:+.{places}f}" for end in found["interval"] or ())
        span = f"[{low_high}]" if low_high else "(one sequence, no interval)"
        part = f"{found['split']} {found['difference']:+.{places}f} {span} {found['verdict']}"
        lines.setdefault((found["feature"], found["other"], found["measure"]), []).append(part)
    return [f"{a} - {b}, {measures_text(measure)}: {'; '.join(parts)}" for (a, b, measure), parts in lines.items()]


def printed_features(content: Result) -> str:
    """A table and the differences for each number of points, as text, and why features were skipped."""
    reasons = [f"{name}  skipped: {reason}" for name, reason in content["skipped"].items()]
    parts = []
    for points in dict.fromkeys(row["points"] for row in content["rows"]):
        lines = difference_lines(content["differences"], points)
        parts.append("\n".join([f"{points} points", short(content["rows"], points).text(), *lines]))
    counts = {row["split"]: row["pairs"] for row in content["rows"]}
    pairs = "pairs: " + ", ".join(f"{split} {count}" for split, count in counts.items())
    return "\n\n".join([*parts, "\n".join([*reasons, pairs if parts else "nothing was measured"])])


def _marked(column: Column, records: Sequence[Result], points: int, split: str, measure: str) -> Column:
    """The column, with the name of its best feature if it is one of the measures that are compared."""
    if not records or measure not in COMPARED:
        return column
    return Column(column.title, column.digits, column.group, best_feature(records, points, split, measure))


def _value(row: Result | None, measure: str, interval: bool) -> Any:
    """A measure of a row, with its interval beside it."""
    if row is None:
        return None
    span = row["intervals"].get(measure)
    if not interval or span is None:
        return row[measure]
    return row[measure], " to ".join(f"{end:.{digits(measure)}f}" for end in span)
