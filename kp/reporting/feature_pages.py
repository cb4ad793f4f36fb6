"""What the pages of this project say of complete features: tables of the files features_*.json in notebooks/results."""

from collections.abc import Sequence

from kp.config import DESCRIBED
from kp.reporting.feature_tables import difference_lines, full, short
from kp.reporting.page_tables import Content, MissingResult, Read

SETS = ("test", "validation")
_SHORT_POINTS = 1000  # of the short section


def section(read: Read) -> str:
    """Every table of every set whose file is there; nothing without any file."""
    contents = {name: content for name in SETS if (content := _content(read, name))}
    return "\n\n".join(_of_set(name, content) for name, content in contents.items())


def short_section(read: Read, name: str = "test") -> str:
    """The table and the differences of one set with 1000 points; nothing without its file."""
    content = _content(read, name)
    return "\n\n".join(_table_and_differences(content, _SHORT_POINTS)) if content else ""


def beside_rootsift(read: Read) -> str:
    """How much the shipped descriptors differ from RootSIFT at the same keypoints, as a list; of the validation."""
    content = _content(read, "validation")
    lines = difference_lines(content["differences"], _SHORT_POINTS) if content else []
    wanted = [line for line in lines if line.startswith(f"{DESCRIBED} - kp+rootsift, ")]
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
    parts = [f"## Features, {name}", f"Detectors with descriptors, as users run them: `{command}`."]
    for number in numbers:
        parts += [f"### {number} points", *_table_and_differences(content, number)]
        parts += ["All measures, with 95 % intervals:", full(content["rows"], number).markdown()]
    return "\n\n".join(parts)


def _table_and_differences(content: Content, points: int) -> Sequence[str]:
    lines = difference_lines(content["differences"], points)
    parts = [short(content["rows"], points, content["pairs"]).markdown()]
    return [*parts, "\n".join(f"- {line}" for line in lines)] if lines else parts
