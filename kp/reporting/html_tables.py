"""The numbers of an evaluation as HTML tables, and the HTML elements that they and the page are made of."""

import html
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib
from matplotlib.colors import to_hex

from kp.evaluation.protocols import THRESHOLDS
from kp.evaluation.summary import SPLITS

SPLIT_NAMES = {"i": "illumination", "v": "viewpoint", "all": "all"}


class Html(str):
    """Text that is HTML already; any other text is escaped where it becomes part of an element."""

    __slots__ = ()


def element(name: str, *children: object, **attributes: object) -> Html:
    """An HTML element. Underscores that end an attribute's name (``class_``) are left out, others become hyphens."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(v))}"' for key, v in attributes.items())
    inside = "".join(child if isinstance(child, Html) else html.escape(str(child)) for child in children)
    return Html(f"<{name}{given}>{inside}</{name}>" if name != "img" else f"<img{given}>")


class Column(NamedTuple):
    """A measure as a column: the heading it shares with others, its own, its digits, and which value is the best."""

    group: str
    measure: str
    title: str
    digits: int
    best: Callable[[Sequence[float]], float] | None = None


_COLUMNS = (
    *(Column("repeated within", f"repeatability_{n}px", f"{n} px", 3, max) for n in THRESHOLDS),
    Column("", "one_to_one", "one-to-one", 3, max),
    Column("", "localisation_error", "loc. error (px)", 2, min),
    Column("", "common", "common points", 0),
    Column("", "coverage", "coverage", 2, max),
    Column("", "chance", "chance", 3),
    *(Column("homography right to", f"homography_{n}px", f"{n} px", 3, max) for n in THRESHOLDS),
    Column("homography right to", "homography_auc_5px", "AUC 5 px", 3, max),
    *(Column("matches right to (MMA)", f"matching_accuracy_{n}px", f"{n} px", 3, max) for n in THRESHOLDS),
    Column("", "matches", "matches", 0),
    Column("", "pairs", "pairs", 0),
)


def results(rows: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> Html:
    """A line per detector: its repeatability on each of these splits, and all other measures on the last of them.

    The best value of a column, to the digits shown, is bold, unless there is only one detector.
    """
    group = "repeatability, 95 % interval"
    columns = [(split, Column(group, "repeatability", SPLIT_NAMES[split], 3, max)) for split in splits]
    columns += [(splits[-1], column) for column in _COLUMNS]
    cells = {(row["detector"], row["split"]): row for row in rows}
    names = list(dict.fromkeys(row["detector"] for row in rows))
    best = [_best(column, [cells.get((name, split), {}) for name in names]) for split, column in columns]
    lines = []
    for name in names:
        values = [
            _cell(column, cells.get((name, split), {}), b) for (split, column), b in zip(columns, best, strict=True)
        ]
        lines.append(element("tr", element("th", name, scope="row"), *values))
    return element("table", _head([column for _, column in columns]), element("tbody", *lines))


def _head(columns: Sequence[Column]) -> Html:
    """Two lines: headings that several columns share, and each one's own; one without a shared heading spans both."""
    upper, lower = [element("th", "detector", scope="col", rowspan=2)], []
    for group, members in groupby(columns, key=lambda column: column.group):
        titles = [column.title for column in members]
        if group:
            upper.append(element("th", group, scope="colgroup", colspan=len(titles), class_="group"))
            lower += [element("th", title, scope="col") for title in titles]
        else:
            upper += [element("th", title, scope="col", rowspan=2) for title in titles]
    return element("thead", element("tr", *upper), element("tr", *lower))


def _best(column: Column, rows: Sequence[Mapping[str, Any]]) -> str | None:
    known = [row[column.measure] for row in rows if row.get(column.measure) is not None]
    return f"{column.best(known):.{column.digits}f}" if column.best and len(known) > 1 else None


def _cell(column: Column, row: Mapping[str, Any], best: str | None) -> Html:
    value = row.get(column.measure)
    if value is None:
        return element("td", "-")
    text = f"{value:.{column.digits}f}"
    shown = element("strong", text) if text == best else text
    if column.measure != "repeatability":
        return element("td", shown)
    return element("td", shown, element("small", " to ".join(f"{end:.3f}" for end in row["interval"])))


def by_sequence(pairs: Sequence[Mapping[str, Any]]) -> Html:
    """A line per sequence, those of a split together, a column per detector: mean repeatability, on a shade of blue."""
    found = {}
    for pair in pairs:
        found.setdefault((pair["split"], pair["sequence"]), {}).setdefault(pair["detector"], []).append(pair)
    names = dict.fromkeys(pair["detector"] for pair in pairs)
    heads = [element("th", name, scope="col") for name in ("sequence", *names)]
    bodies = []
    for split in SPLITS:
        title = element("th", SPLIT_NAMES[split], scope="rowgroup", colspan=len(heads), class_="group")
        lines = [
            element("tr", element("th", sequence, scope="row"), *(_shaded(by_name.get(name, [])) for name in names))
            for (part, sequence), by_name in found.items()
            if part == split
        ]
        if lines:
            bodies.append(element("tbody", element("tr", title), *lines))
    return element("table", element("thead", element("tr", *heads)), *bodies)


def _shaded(pairs: Sequence[Mapping[str, Any]]) -> Html:
    if not pairs:
        return element("td", "-")
    value = fmean(pair["repeatability"] for pair in pairs)
    background, text = shade(value)
    return element("td", f"{value:.2f}", style=f"background:{background};color:{text}")


def shade(value: float) -> tuple[str, str]:
    """A background for a share in [0, 1], from white to dark blue, and the colour of text that is read on it."""
    rgb = matplotlib.colormaps["Blues"](value)[:3]
    luminance = sum(weight * part**2.2 for weight, part in zip((0.2126, 0.7152, 0.0722), rgb, strict=True))
    return to_hex(rgb), "#ffffff" if luminance < 0.18 else "#111111"  # where white and black contrast alike
