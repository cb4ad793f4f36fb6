"""The sections of a report's page: what stands beside each table and figure, and what they show."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from kp.evaluation.summary import SPLITS
from kp.reporting import plots
from kp.reporting.examples import COLOURS, Example
from kp.reporting.html_tables import SPLIT_NAMES, Html, by_sequence, element, results

Row = Mapping[str, Any]
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 80, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_MARKS = {
    "repeated": ("\N{WHITE CIRCLE}", "found again in the other view"),
    "missed": ("\N{MULTIPLICATION SIGN}", "in the other view too, but not found there"),
    "unseen": ("\N{WHITE SQUARE}", "among the best, but where the other view does not look (dark)"),
}


def numbers(content: Mapping[str, Any]) -> list[Html]:
    """Each protocol's tables, and what there is to say about them."""
    parts = []
    for name, rows in _by_protocol(content["rows"]).items():
        splits = _splits(rows)
        parts += [element("h3", name), _quiet(content["settings"]["protocols"][name]["summary"])]
        parts.append(_scroll(f"results under {name}", results(rows, splits)))
        for split in splits[:-1]:
            title = f"all columns for {SPLIT_NAMES[split]}"
            table = _scroll(f"{title}, {name}", results(rows, [split]))
            parts.append(element("details", element("summary", title), table))
    text = "The best of a column is bold. Common points, chance, matches and pairs are no merits, and have no best."
    parts.append(_quiet(text if parts else "Nothing was measured."))
    checks = [element("li", check) for check in content.get("checks", [])]
    return parts + ([element("ul", *checks)] if checks else [])


def plots_of(rows: Sequence[Row], colours: Mapping[str, str]) -> list[Html]:
    """Each protocol's figures."""
    parts = []
    for name, ours in _by_protocol(rows).items():
        parts += [element("h3", name), element("div", *_figures(ours, colours), class_="figures")]
    return parts


def _figures(rows: Sequence[Row], colours: Mapping[str, str]) -> list[Html]:
    splits = _splits(rows)
    figures = []
    for split in splits:
        part = [row for row in rows if row["split"] == split]
        text = f"Repeatability, {SPLIT_NAMES[split]}: longer is better, no better than chance is worth nothing. "
        text += "Detectors whose intervals overlap much may rank otherwise on other sequences."
        figures.append(_figure(plots.repeatability_bars(part, colours), text, _values(part, "repeatability")))
    text = (
        "Homographies fitted to each detector's matches: the share of pairs right to 1 px, and to 3 and 5 px (paler)."
    )
    figures.append(_figure(plots.homography_bars(part, colours), text, _values(part, "homography_3px")))
    text = "Repeating well is one thing, serving well another: the best are at the upper right."
    figures.append(_figure(plots.use_scatter(part, colours), text, _values(part, "homography_3px")))
    text = "How exact the repeated keypoints are: what rises late is repeated only roughly."
    figures.append(_figure(plots.threshold_lines(part, colours), text, _values(part, "repeatability_1px")))
    return figures


def sequences(pairs: Sequence[Row]) -> list[Html]:
    """Each protocol's repeatability, sequence by sequence."""
    parts = []
    for name, ours in _by_protocol(pairs).items():
        text = "Mean repeatability of each sequence's pairs; darker is better. A pale line is a sequence hard for all."
        parts += [
            element("h3", name),
            _quiet(text),
            _scroll(f"repeatability by sequence under {name}", by_sequence(ours)),
        ]
    return parts


def curves(rows: Sequence[Row], colours: Mapping[str, str]) -> list[Html]:
    """What rotation and scale alone do, if that was measured."""
    figures = []
    for sweep in dict.fromkeys(row["sweep"] for row in rows):
        ours = [row for row in rows if row["sweep"] == sweep]
        text = f"Repeatability as only {sweep} changes, with 95 % intervals; dashed: chance, mean of the detectors'."
        figures.append(_figure(plots.curve_lines(ours, "repeatability", colours), text, _ranges(ours, "repeatability")))
        text = f"The share of homographies right to 3 px as only {sweep} changes."
        figures.append(
            _figure(plots.curve_lines(ours, "homography_3px", colours), text, _ranges(ours, "homography_3px"))
        )
    return [element("div", *figures, class_="figures two")] if figures else []


def pictures(examples: Sequence[Example]) -> list[Html]:
    """The best and the worst sequences of a detector, a pair of each, with all keypoints."""
    if not examples:
        return []
    legend = [
        element("li", element("b", sign, style="color:#{:02x}{:02x}{:02x}".format(*COLOURS[kind])), f" {text}")
        for kind, (sign, text) in _MARKS.items()
    ]
    text = "Of each sequence the pair whose repeatability is nearest to the sequence's mean, so a typical one."
    parts = [_quiet(text), element("ul", *legend, class_="legend")]
    for (kind, detector, protocol), group in groupby(examples, key=attrgetter("kind", "detector", "protocol")):
        parts += [element("h3", f"{kind} sequences of {detector} under {protocol}"), *map(_pair, group)]
    return parts


def _pair(example: Example) -> Html:
    images = []
    for number, picture, marks in zip((1, example.image), example.pictures, example.marks, strict=True):
        counts = ", ".join(f"{len(getattr(marks, kind))} {kind}" for kind in _MARKS)
        data = cv2.imencode(".jpg", picture[..., ::-1], _JPEG)[1]
        images.append(_image("jpeg", data, f"Image {number} of {example.sequence} with its keypoints: {counts}"))
    found = [f"{len(m.repeated)} of {len(m.repeated) + len(m.missed)}" for m in example.marks]
    text = f": images 1 and {example.image}, repeatability {example.repeatability:.3f} (the sequence's mean is "
    text += f"{example.mean:.3f}). Found again: {' and '.join(found)} keypoints."
    caption = element("figcaption", element("strong", example.sequence), text)
    return element("figure", element("div", *images, class_="pair"), caption)


def _figure(figure: Figure, caption: str, values: str) -> Html:
    image = _image("svg+xml", plots.svg(figure), f"{caption} {values}")
    return element("figure", image, element("figcaption", caption))


def _image(kind: str, data: bytes | np.ndarray, alt: str) -> Html:
    return element("img", src=f"data:image/{kind};base64,{b64encode(data).decode()}", alt=alt)


def _values(rows: Sequence[Row], measure: str) -> str:
    """For those who cannot see a figure."""
    return ", ".join(f"{row['detector']} {row[measure]:.3f}" for row in rows)


def _ranges(rows: Sequence[Row], measure: str) -> str:
    names = dict.fromkeys(row["detector"] for row in rows)
    values = {name: [row[measure] for row in rows if row["detector"] == name] for name in names}
    return ", ".join(f"{name} {min(found):.3f} to {max(found):.3f}" for name, found in values.items())


def _by_protocol(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: [r for r in rows if r["protocol"] == name] for name in dict.fromkeys(r["protocol"] for r in rows)}


def _splits(rows: Sequence[Row]) -> list[str]:
    return [split for split in SPLITS if any(row["split"] == split for row in rows)]


def _quiet(text: str) -> Html:
    return element("p", text, class_="quiet")


def _scroll(label: str, table: Html) -> Html:
    """A table in a window of its own, which scrolls, with the keyboard too, while the page does not."""
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)
