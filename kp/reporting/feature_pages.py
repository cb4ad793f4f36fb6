"""What the pages of this project say of complete features: tables of the files features_*.json in notebooks/results."""

from collections.abc import Sequence
from pathlib import PurePath

from kp.config import DESCRIBED
from kp.evaluation.feature_matching import ESTIMATORS
from kp.evaluation.feature_summary import chosen, difference, ratio
from kp.evaluation.features import REFINED, UPRIGHT
from kp.evaluation.summary import SPLITS
from kp.reporting.feature_tables import AUC, TITLES, difference_lines, digits, full, short
from kp.reporting.page_tables import Content, MissingResult, Read
from kp.reporting.tables import Column, Table

SETS = ("test", "validation")
_SHORT_POINTS = 1000  # of the short section


def section(read: Read) -> str:
    """Every table of every set whose file is there; nothing without any file."""
    contents = {name: content for name in SETS if (content := _content(read, name))}
    return "\n\n".join(_of_set(name, content) for name, content in contents.items())


def brief(read: Read) -> str:
    """A line for each feature on the test set with 1000 points: what matters most, over all pairs; 95 % intervals.

    The areas of its refined matches stand beside its own. What is compared upright is left out. Nothing without its
    file.
    """
    content = _content(read, "test")
    if content is None:
        return ""
    shown = {"dimensions": "D", "matching_accuracy_3px": "MMA 3 px", "right_matches": "right matches"}
    shown |= {f"homography_auc_5px_{name}": f"AUC 5 px, {title}" for name, title in TITLES.items()}
    columns = [Column(title, digits(measure)) for measure, title in shown.items()]
    rows = _rows(content)
    more = AUC if any(name.endswith(REFINED) for name in rows) else ()
    columns += [Column(TITLES[name], 3, "AUC 5 px, refined") for name in ESTIMATORS if more]
    lines = []
    for name in (name for name in rows if not name.endswith((REFINED, f"+{UPRIGHT}"))):
        cells = [_cell(rows[name], measure) for measure in shown]
        lines.append((name, cells + [_cell(rows.get(name + REFINED), measure) for measure in more]))
    return Table("feature", columns, lines).markdown()


def refined(read: Read, name: str) -> str:
    """What :func:`kp.refine` changes for each feature with 1000 points, over all pairs of a set, as a table."""
    content = _content(read, name)
    if content is None:
        return ""
    rows, lines = _rows(content), []
    for feature in (feature for feature in rows if feature + REFINED in rows):
        pair = rows[feature], rows[feature + REFINED]
        cells = [row[f"matching_accuracy_{pixels}px"] for pixels in (1, 3) for row in pair]
        for measure in AUC:
            cells += [*(row[measure] for row in pair), _difference(content, feature + REFINED, feature, measure)]
        lines.append((feature, cells))
    if not lines:
        return ""
    groups = {"MMA 1 px": 2, "MMA 3 px": 2} | {f"AUC 5 px, {title}": 3 for title in TITLES.values()}
    titles = ("as found", "refined", "difference")
    columns = [Column(title, 3, group) for group, count in groups.items() for title in titles[:count]]
    return Table("feature", columns, lines).markdown()


def same_points(read: Read, name: str) -> str:
    """The shipped descriptors, and others of 1000 of the same points, on a set: right matches and AUC, as a table."""
    content = _content(read, name)
    if content is None:
        return ""
    columns = [Column("all", 0, "right matches")]
    columns += [Column(split, 3, f"AUC 5 px, {title}") for title in TITLES.values() for split in SPLITS]
    rows, lines = {split: _rows(content, split) for split in SPLITS}, []
    for feature in (feature for feature in rows["all"] if feature.startswith((DESCRIBED, "kp+"))):
        areas = [rows[split].get(feature, {}).get(measure) for measure in AUC for split in SPLITS]
        lines.append((feature, [rows["all"][feature]["right_matches"], *areas]))
    return Table("feature", columns, lines).markdown() if lines else ""


def gain(read: Read, other: str) -> str:
    """How much larger the AUC of the shipped feature, refined, is than another's: test set, 1000 points, in words."""
    content = _content(read, "test")
    if content is None or not {DESCRIBED + REFINED, other} <= _rows(content).keys():
        return ""
    parts = [
        f"{_difference(content, DESCRIBED + REFINED, other, measure)} by {TITLES[name]}"
        for name, measure in zip(TITLES, AUC, strict=True)
    ]
    return " and ".join(parts)


def right(read: Read, name: str) -> str:
    """How many times as many right matches the shipped descriptors have as RootSIFT at 1000 keypoints, in words."""
    content = _content(read, name)
    if content is None:
        return ""
    found = []
    for suffix, title in (("", "as found"), (REFINED, "refined")):
        pairs = [
            chosen(content["pairs"], f"{each}{suffix}", _SHORT_POINTS, "all") for each in (DESCRIBED, "kp+rootsift")
        ]
        if (times := ratio(*pairs, "right_matches")) is not None:
            value, (low, high) = times
            found.append(f"{value:.2f} [{low:.2f}, {high:.2f}] {title}")
    return " and ".join(found)


def _difference(content: Content, ours: str, other: str, measure: str) -> str:
    found = difference(*(chosen(content["pairs"], name, _SHORT_POINTS, "all") for name in (ours, other)), measure)
    low, high = found["interval"]
    return f"{found['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _rows(content: Content, split: str = "all") -> dict[str, Content]:
    """The rows of a split with 1000 points, by feature."""
    rows = (row for row in content["rows"] if (row["points"], row["split"]) == (_SHORT_POINTS, split))
    return {row["feature"]: row for row in rows}


def _cell(row: Content | None, measure: str) -> float | tuple[float, str] | None:
    if row is None:
        return None
    if digits(measure) == 0:
        return row[measure]
    low, high = row["intervals"][measure]
    return row[measure], f"{low:.3f} to {high:.3f}"


def beside(read: Read, name: str, other: str) -> str:
    """How much the shipped descriptors differ from others at the same keypoints, as a list; of one set."""
    content = _content(read, name)
    lines = difference_lines(content["differences"], _SHORT_POINTS) if content else []
    wanted = [line for line in lines if line.startswith(f"{DESCRIBED} - {other}, ")]
    return "\n".join(f"- {line}" for line in wanted)


def _content(read: Read, name: str) -> Content | None:
    try:
        return read(f"features_{name}.json")
    except MissingResult:
        return None


def _of_set(name: str, content: Content) -> str:
    """A chapter: the command, and for each number of points what was measured."""
    features = " ".join([*dict.fromkeys(row["feature"] for row in content["rows"]), *content["skipped"]])
    numbers = list(dict.fromkeys(row["points"] for row in content["rows"]))
    points = " ".join(map(str, numbers))
    command = f"python evaluate.py --hpatches ROOT --features {features} --points {points} --baseline-weights PEERS"
    if content["weights"]:
        command += f" --weights {PurePath(content['weights']['path']).stem}"
    parts = [f"## Features, {name}", f"Detectors with descriptors, as users run them: `{command}`."]
    for number in numbers:
        parts += [f"### {number} points", *_table_and_differences(content, number)]
        parts += ["All measures, with 95 % intervals:", full(content["rows"], number).markdown()]
    return "\n\n".join(parts)


def _table_and_differences(content: Content, points: int) -> Sequence[str]:
    lines = difference_lines(content["differences"], points)
    parts = [short(content["rows"], points, content["pairs"]).markdown()]
    return [*parts, "\n".join(f"- {line}" for line in lines)] if lines else parts
