"""The results of complete features as one HTML page. The page needs no other file and no network."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from kp.evaluation.feature_summary import COMPARED
from kp.evaluation.features import REFINED
from kp.evaluation.summary import SPLITS
from kp.reporting import feature_tables, plots
from kp.reporting.html import PAGE, Image, figure_image
from kp.reporting.result_tables import SPLIT_NAMES
from kp.reporting.tables import TEMPLATES, Table
from kp.support.files import write_file


class Budget(NamedTuple):
    """What the page shows of one number of points."""

    points: int
    short: Table
    full: Table
    differences: list[str]
    figures: list[Image]


def write_feature_page(directory: Path, content: Mapping[str, Any]) -> Path:
    """Write the file ``PAGE`` into a folder, complete or not at all, and return its path. Raises FileError.

    Args:
        content: that of :func:`kp.evaluation.feature_results.content`.
    """
    path = directory / PAGE
    write_file(path, make_feature_page(content, datetime.now().astimezone()).encode(errors="replace"))
    return path


def make_feature_page(content: Mapping[str, Any], when: datetime) -> str:
    """The page as text; ``when`` is the time that its head shows."""
    rows, records = content["rows"], content["pairs"]
    found = {row["feature"]: row["feature"].removesuffix(REFINED) for row in rows}
    by_found = plots.palette(list(found.values()))
    colours = {name: by_found[base] for name, base in found.items()}  # that of refined matches is the same
    budgets = []
    for points in dict.fromkeys(row["points"] for row in rows):
        tables = feature_tables.short(rows, points, records), feature_tables.full(rows, points)
        lines = feature_tables.difference_lines(content["differences"], points, COMPARED)
        budgets.append(Budget(points, *tables, lines, _figures(rows, points, colours)))
    measured = {(pair["sequence"], pair["image"]) for pair in records}
    return TEMPLATES.get_template("features.html.j2").render(
        content=content,
        when=f"{when:%Y-%m-%d %H:%M %Z}",
        extent=f"{len({name for name, _ in measured})} sequences, {len(measured)} pairs of images",
        budgets=budgets,
        definitions={name.replace("_", " "): str(value) for name, value in content["settings"].items()},
    )


def _figures(rows: Sequence[Mapping[str, Any]], points: int, colours: Mapping[str, str]) -> list[Image]:
    """The mean matching accuracy over the threshold, for each split."""
    figures = []
    for split in SPLITS:
        ours = [row for row in rows if (row["points"], row["split"]) == (points, split)]
        if ours:
            values = ", ".join(f"{row['feature']} {row['matching_accuracy_3px']:.3f}" for row in ours)
            text = f"Mean matching accuracy, {SPLIT_NAMES[split]}: share of matches right to so many px."
            figures.append(figure_image(plots.accuracy_lines(ours, colours), text, f"At 3 px: {values}"))
    return figures
