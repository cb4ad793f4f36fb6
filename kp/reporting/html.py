"""The results of an evaluation as one HTML page. The page needs no other file and no network.

``page.html.j2`` lays out the page. This module collects what the template shows.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib.figure import Figure

from kp.evaluation.summary import SPLITS
from kp.reporting import plots
from kp.reporting.images import COLOURS, Example
from kp.reporting.result_tables import (
    SPLIT_NAMES,
    all_results,
    difference_lines,
    results_by_kind,
    results_by_sequence,
)
from kp.reporting.tables import TEMPLATES, Table
from kp.support.files import write_file

PAGE = "index.html"
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 80, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_MARKS = {
    "repeated": ("\N{WHITE CIRCLE}", "found again in the other view"),
    "missed": ("\N{MULTIPLICATION SIGN}", "visible in the other view, but not found there"),
    "unseen": ("\N{WHITE SQUARE}", "among the best, but outside the other view (dark)"),
}

Row = Mapping[str, Any]


class Image(NamedTuple):
    """A picture: its data URL, the text that replaces it, and the text below it."""

    src: str
    alt: str
    caption: str = ""


class NamedTable(NamedTuple):
    """A table and its title."""

    title: str
    table: Table


class Protocol(NamedTuple):
    """The tables and figures of one protocol. ``tables``: first the one of all splits, then one for each split.

    ``kinds`` is None where all i sequences are of one kind. ``differences`` are lines of text.
    """

    name: str
    summary: str
    tables: list[NamedTable]
    kinds: Table | None
    differences: list[str]
    figures: list[Image]


class Pair(NamedTuple):
    """An example as two images and the numbers of keypoints found again, such as "3 of 5"."""

    example: Example
    images: list[Image]
    found: list[str]


def write_page(directory: Path, content: dict[str, Any], examples: Sequence[Example] = ()) -> Path:
    """Write the file ``PAGE`` into a folder, complete or not at all, and return its path. Raises FileError.

    Args:
        content: that of :func:`kp.evaluation.results.content`. It may also have ``curves`` (rows of
            :func:`kp.evaluation.sweeps.measure`) and ``checks`` (messages that stand below the tables). ``kinds`` and
            ``differences`` may be missing.
    """
    path = directory / PAGE
    write_file(path, make_page(content, examples, datetime.now().astimezone()).encode(errors="replace"))
    return path


def make_page(content: dict[str, Any], examples: Sequence[Example], when: datetime) -> str:
    """The page as text, see :func:`write_page`; ``when`` is the time that its head shows."""
    rows, pairs, curves = content["rows"], content["pairs"], content.get("curves", [])
    colours = plots.palette([row["detector"] for row in [*rows, *curves]])
    summaries = content["settings"]["protocols"]
    measured = {(pair["sequence"], pair["image"]) for pair in pairs}
    by_protocol = {name: _by_protocol(content.get(name, [])) for name in ("pairs", "kinds", "differences")}
    protocols = []
    for name, ours in _by_protocol(rows).items():
        records, of_kinds, differences = (found.get(name, []) for found in by_protocol.values())
        kinds = results_by_kind(of_kinds, records) if of_kinds else None
        parts = _tables(name, ours, records), kinds, difference_lines(differences), _figures(ours, colours)
        protocols.append(Protocol(name, summaries[name]["summary"], *parts))
    shown = groupby(examples, key=attrgetter("kind", "detector", "protocol"))
    return TEMPLATES.get_template("page.html.j2").render(
        content={"checks": [], **content},
        when=f"{when:%Y-%m-%d %H:%M %Z}",
        extent=f"{len({name for name, _ in measured})} sequences, {len(measured)} pairs of images",
        protocols=protocols,
        sequences=[NamedTable(name, results_by_sequence(ours)) for name, ours in by_protocol["pairs"].items()],
        curves=_curves(curves, colours),
        legend=[("#{:02x}{:02x}{:02x}".format(*COLOURS[kind]), *text) for kind, text in _MARKS.items()],
        examples=[(*kind, [_pair(example) for example in group]) for kind, group in shown],
        definitions=_definitions(content["settings"]),
    )


def _tables(protocol: str, rows: Sequence[Row], records: Sequence[Row]) -> list[NamedTable]:
    """All columns for the last split with the repeatability of every split, then all columns for each other split."""
    splits = _splits(rows)
    tables = [NamedTable(f"results under {protocol}", all_results(rows, splits, records))]
    for split in splits[:-1]:
        tables.append(NamedTable(f"all columns for {SPLIT_NAMES[split]}", all_results(rows, [split], records)))
    return tables


def _figures(rows: Sequence[Row], colours: Mapping[str, str]) -> list[Image]:
    """Repeatability on each split, then the figures of the last split."""
    splits, figures = _splits(rows), []
    for split in splits:
        part = [row for row in rows if row["split"] == split]
        text = f"Repeatability, {SPLIT_NAMES[split]}: longer is better; a bar that ends at chance is worth nothing. "
        text += "Detectors whose intervals overlap much may have another order on other sequences."
        figures.append(figure_image(plots.repeatability_bars(part, colours), text, _values(part, "repeatability")))
    text = "Homographies fitted to each detector's matches: share of pairs right to 1 px, and to 3 and 5 px (paler)."
    figures.append(figure_image(plots.homography_bars(part, colours), text, _values(part, "homography_3px")))
    text = "Repeatability and use for homographies are different: the detectors at the upper right are good at both."
    figures.append(figure_image(plots.use_scatter(part, colours), text, _values(part, "homography_3px")))
    text = "How exact the repeated keypoints are: a line that rises late is a detector that repeats only roughly."
    figures.append(figure_image(plots.threshold_lines(part, colours), text, _values(part, "repeatability_1px")))
    return figures


def _curves(rows: Sequence[Row], colours: Mapping[str, str]) -> list[Image]:
    """Two figures for each sweep: repeatability, and the share of right homographies."""
    figures = []
    for sweep in dict.fromkeys(row["sweep"] for row in rows):
        ours = [row for row in rows if row["sweep"] == sweep]
        text = f"Repeatability when only {sweep} changes, with 95 % intervals. Dashed: chance, mean of all detectors."
        figures.append(
            figure_image(plots.curve_lines(ours, "repeatability", colours), text, _ranges(ours, "repeatability"))
        )
        text = f"The share of homographies right to 3 px when only {sweep} changes."
        figure = plots.curve_lines(ours, "homography_3px", colours)
        figures.append(figure_image(figure, text, _ranges(ours, "homography_3px")))
    return figures


def _pair(example: Example) -> Pair:
    images = []
    for number, picture, marks in zip((1, example.image), example.pictures, example.marks, strict=True):
        counts = ", ".join(f"{len(getattr(marks, kind))} {kind}" for kind in _MARKS)
        data = cv2.imencode(".jpg", picture[..., ::-1], _JPEG)[1]
        alt = f"Image {number} of {example.sequence} with its keypoints: {counts}"
        images.append(Image(_data_url("jpeg", data), alt))
    found = [f"{len(marks.repeated)} of {len(marks.repeated) + len(marks.missed)}" for marks in example.marks]
    return Pair(example, images, found)


def _definitions(settings: Mapping[str, Any]) -> dict[str, str]:
    """Every setting and its value. The settings also say what each measure is."""
    words = {name.replace("_", " "): str(value) for name, value in settings.items() if name != "protocols"}
    for name, fields in settings["protocols"].items():
        words[f"protocol {name}"] = "; ".join(f"{field}: {value}" for field, value in fields.items())
    return words


def figure_image(figure: Figure, caption: str, values: str) -> Image:
    """A figure with a caption. ``values`` are for readers who cannot see the figure."""
    return Image(_data_url("svg+xml", plots.svg(figure)), f"{caption} {values}", caption)


def _data_url(kind: str, data: bytes | np.ndarray) -> str:
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def _values(rows: Sequence[Row], measure: str) -> str:
    return ", ".join(f"{row['detector']} {row[measure]:.3f}" for row in rows)


def _ranges(rows: Sequence[Row], measure: str) -> str:
    names = dict.fromkeys(row["detector"] for row in rows)
    values = {name: [row[measure] for row in rows if row["detector"] == name] for name in names}
    return ", ".join(f"{name} {min(found):.3f} to {max(found):.3f}" for name, found in values.items())


def _by_protocol(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: [r for r in rows if r["protocol"] == name] for name in dict.fromkeys(r["protocol"] for r in rows)}


def _splits(rows: Sequence[Row]) -> list[str]:
    return [split for split in SPLITS if any(row["split"] == split for row in rows)]
