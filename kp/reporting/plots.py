"""Figures of an evaluation's rows.

Each function takes rows, one for each detector, and a colour for each detector, and returns a new matplotlib Figure.
A detector has the same colour in all figures.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from kp.evaluation.feature_matching import ACCURACY_THRESHOLDS
from kp.evaluation.features import REFINED
from kp.evaluation.protocols import THRESHOLDS

Row = Mapping[str, Any]
# Colours that colour-blind readers can distinguish: Okabe and Ito (2008) without yellow, which is too pale for a line,
# then some of Tol's muted colours, then some of his other schemes
_OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_TOL = ("#882255", "#999933", "#332288", "#AA4499", "#117733", "#661100", "#44AA99", "#CC6677", "#6699CC", "#888888")
_MORE = ("#774411", "#BBCC33", "#EE3377", "#004488", "#EE8866", "#77AADD", "#BB5566", "#225522", "#99DDFF", "#7F7F00")
_WIDTH = 4.6  # inches; a page shows an inch as about 90 pixels
_GREY = "#666666"
_OPACITIES = (0.9, 0.4, 0.25)  # of the bars of 1, 3 and 5 px, which lie on each other
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "kp",  # the same figure gives the same file
    "text.parse_math": False,  # a name may have dollars
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": "#333333",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
}
_styled = matplotlib.rc_context(_STYLE)  # texts keep the style in which they were made
_TITLES = {
    "repeatability": "repeatability",
    "homography_3px": "homographies right to 3 px",
    "rotation": "rotation (degrees)",
    "scale": "scale (pixels of view 1 per pixel of view 0)",
}


def palette(detectors: Sequence[str]) -> dict[str, str]:
    """A colour for each detector, in this order. A detector added at the end does not change the other colours."""
    return dict(zip(dict.fromkeys(detectors), cycle(_OKABE_ITO + _TOL + _MORE), strict=False))


@_styled
def repeatability_bars(rows: Sequence[Row], colours: Mapping[str, str]) -> Figure:
    """A bar per detector with its 95 % interval, and a dashed tick at its chance level."""
    figure, axes = _bar_axes(rows, "repeatability")
    places = range(len(rows))
    for y, row in enumerate(rows):
        axes.barh(y, row["repeatability"], 0.7, color=colours[row["detector"]], alpha=0.75)
        axes.text(row["interval"][1] + 0.02, y, f"{row['repeatability']:.2f}", va="center", fontsize=8)
    axes.hlines(places, *zip(*(row["interval"] for row in rows), strict=True), color="#222222", lw=1.6, label="95 %")
    chance = [row["chance"] for row in rows]
    ends = [y - 0.45 for y in places], [y + 0.45 for y in places]
    axes.vlines(chance, *ends, color=_GREY, lw=1.6, linestyles="dotted", label="chance")
    _explain(figure, axes.collections)
    return figure


@_styled
def homography_bars(rows: Sequence[Row], colours: Mapping[str, str]) -> Figure:
    """A bar per detector: the share of homographies right to 1 px (dark), to 3 px (paler) and to 5 px (palest)."""
    figure, axes = _bar_axes(rows, "homographies right to 1, 3 and 5 px")
    for y, row in enumerate(rows):
        for pixels, alpha in list(zip(THRESHOLDS, _OPACITIES, strict=True))[
            ::-1
        ]:  # the longest bar first, so that it lies below
            axes.barh(y, row[f"homography_{pixels}px"], 0.7, color=colours[row["detector"]], alpha=alpha)
    _explain(
        figure, [Patch(color=_GREY, alpha=a, label=f"{n} px") for n, a in zip(THRESHOLDS, _OPACITIES, strict=True)]
    )
    return figure


@_styled
def use_scatter(rows: Sequence[Row], colours: Mapping[str, str]) -> Figure:
    """A point per detector: the share of homographies right to 3 px against repeatability."""
    figure, axes = _line_axes("repeatability", _TITLES["homography_3px"])
    for row in rows:
        place = row["repeatability"], row["homography_3px"]
        axes.scatter(*place, s=45, color=colours[row["detector"]], edgecolor="white", zorder=3, clip_on=False)
    _name_at_right(axes, {r["detector"]: (r["repeatability"], r["homography_3px"]) for r in rows}, colours)
    return figure


@_styled
def threshold_lines(rows: Sequence[Row], colours: Mapping[str, str]) -> Figure:
    """A line per detector: repeatability within 1, 3 and 5 px."""
    figure, axes = _line_axes("threshold (px)", "repeatability")
    ends = {}
    for row in rows:
        values = [row[f"repeatability_{pixels}px"] for pixels in THRESHOLDS]
        axes.plot(THRESHOLDS, values, "o-", ms=4, color=colours[row["detector"]], clip_on=False)
        ends[row["detector"]] = (THRESHOLDS[-1], values[-1])
    axes.xaxis.set_major_locator(FixedLocator(THRESHOLDS))
    _name_at_right(axes, ends, colours)
    return figure


@_styled
def accuracy_lines(rows: Sequence[Row], colours: Mapping[str, str]) -> Figure:
    """A line per complete feature: the mean matching accuracy over thresholds of 1 to 10 px. Rows are of one split.

    That of refined matches is dashed.
    """
    figure, axes = _line_axes("threshold (px)", "right matches, share")
    ends = {}
    for row in rows:
        values = [row[f"matching_accuracy_{pixels}px"] for pixels in ACCURACY_THRESHOLDS]
        style = "o--" if row["feature"].endswith(REFINED) else "o-"
        axes.plot(ACCURACY_THRESHOLDS, values, style, ms=3, lw=1.4, color=colours[row["feature"]], clip_on=False)
        ends[row["feature"]] = (ACCURACY_THRESHOLDS[-1], values[-1])
    axes.xaxis.set_major_locator(FixedLocator(ACCURACY_THRESHOLDS))
    _name_at_right(axes, ends, colours)
    return figure


@_styled
def curve_lines(rows: Sequence[Row], measure: str, colours: Mapping[str, str]) -> Figure:
    """A line per detector over the values of one sweep. Repeatability also has 95 % intervals and a line for chance."""
    sweep, values = rows[0]["sweep"], sorted({row["value"] for row in rows})
    figure, axes = _line_axes(_TITLES[sweep], _TITLES[measure])
    ends = {}
    for name in dict.fromkeys(row["detector"] for row in rows):
        ours = sorted((row for row in rows if row["detector"] == name), key=lambda row: row["value"])
        x, y = [row["value"] for row in ours], [row[measure] for row in ours]
        axes.plot(x, y, "o-", ms=3, lw=1.4, color=colours[name], clip_on=False)
        ends[name] = (x[-1], y[-1])
        if measure == "repeatability":
            low, high = zip(*(row["interval"] for row in ours), strict=True)
            axes.fill_between(x, low, high, color=colours[name], alpha=0.12, lw=0)
    if measure == "repeatability":
        chance = [[row["chance"] for row in rows if row["value"] == value] for value in values]
        axes.plot(values, [sum(c) / len(c) for c in chance], "--", color=_GREY, label="chance")
        _explain(figure, axes.lines[-1:])
    if sweep == "scale":
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 1.5, 3, 4.5, 10]))
    _name_at_right(axes, ends, colours)
    return figure


@_styled
def cost_lines(costs: Sequence[Row], colours: Mapping[str, str]) -> Figure:
    """A line per detector: milliseconds against the pixels of the image. Rows without milliseconds are left out."""
    figure = Figure((6.4, 5.2), layout="constrained")
    axes = figure.add_subplot(xlabel="pixels of the image", ylabel="milliseconds", xscale="log", yscale="log")
    axes.grid()
    ends = {}
    for name in dict.fromkeys(cost["name"] for cost in costs if cost["milliseconds"] is not None):
        ours = [cost for cost in costs if cost["name"] == name and cost["milliseconds"] is not None]
        x, y = zip(*sorted((cost["size"][0] * cost["size"][1], cost["milliseconds"]) for cost in ours), strict=True)
        axes.plot(x, y, "o--" if ours[0]["descriptors"] else "o-", ms=3, lw=1.4, color=colours[name])
        ends[name] = (x[-1], y[-1])
    sizes = {cost["size"][0] * cost["size"][1]: "{}x{}".format(*cost["size"]) for cost in costs}
    axes.set_xticks(list(sizes), list(sizes.values()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    _explain(figure, [Line2D([], [], color=_GREY, ls="--", label="with descriptors")])
    _name_at_right(axes, ends, colours)
    return figure


@_styled
def svg(figure: Figure) -> bytes:
    """The figure as an SVG file. Its text is shown in the system's font. The same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().replace(b"'DejaVu Sans'", b"system-ui, 'DejaVu Sans', sans-serif")


def _bar_axes(rows: Sequence[Row], title: str) -> tuple[Figure, Axes]:
    """Axes for one horizontal bar per row, from 0 to 1, the first row on top."""
    figure = Figure((_WIDTH, 0.9 + 0.27 * len(rows)), layout="constrained")
    axes = figure.add_subplot(xlabel=title, xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    axes.set_yticks(range(len(rows)), [row["detector"] for row in rows])
    axes.tick_params("y", length=0)
    axes.grid(axis="x")
    return figure, axes


def _line_axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure((_WIDTH, 3.2), layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y, ylim=(0, 1.02))
    axes.grid()
    return figure, axes


def _explain(figure: Figure, artists: Sequence[Artist]) -> None:
    figure.legend(handles=artists, loc="outside lower center", ncols=len(artists), frameon=False, fontsize=8)


def _name_at_right(axes: Axes, points: Mapping[str, tuple[float, float]], colours: Mapping[str, str]) -> None:
    """Write each name at the right of the axes, near the height of its point, and join name and point by a line."""
    names = list(points)[::-1]  # of points with equal heights, the first is on top
    names.sort(key=lambda name: points[name][1])
    to_axes = axes.transData - axes.transAxes
    heights = _spaced([to_axes.transform(points[name])[1] for name in names], 0.065)
    for name, height in zip(names, heights, strict=True):
        line = {"arrowstyle": "-", "lw": 0.7, "color": colours[name], "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 4}
        place = {"xytext": (1.06, height), "textcoords": "axes fraction", "va": "center", "annotation_clip": False}
        axes.annotate(name, points[name], **place, arrowprops=line)


def _spaced(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights in [0, 1], moved so that neighbours are at least ``gap`` apart, or less if there is no room.

    The sum of the squared moves is least: isotonic regression by pooling neighbours (Ayer et al., 1955).
    """
    gap = min(gap, 1 / max(len(heights) - 1, 1))
    pools = []  # (sum, count) of the heights of a pool, each less the gaps below it
    for i, height in enumerate(heights):
        pools.append((height - i * gap, 1))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            (sum0, count0), (sum1, count1) = pools.pop(), pools.pop()
            pools.append((sum0 + sum1, count0 + count1))
    free = [total / count for total, count in pools for _ in range(count)]
    return [min(max(low, 0), 1 - gap * (len(free) - 1)) + i * gap for i, low in enumerate(free)]
