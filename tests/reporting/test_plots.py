"""What figures show is read back from matplotlib's own objects, and from the SVG file."""

from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from kp.evaluation.registry import MINE, NAMES
from kp.reporting import plots

SVG = "{http://www.w3.org/2000/svg}"


def row(detector, value, **changes):
    numbers = {"repeatability": value, "chance": value / 8, "interval": [value - 0.05, value + 0.03]}
    numbers |= {f"repeatability_{n}px": value * n / 5 for n in (1, 3, 5)}
    numbers |= {f"homography_{n}px": 0.1 + value * n / 8 for n in (1, 3, 5)}
    return {"detector": detector} | numbers | changes


ROWS = [row("kp", 0.5), row("harris", 0.25), row("random", 0.0625)]
COLOURS = plots.palette([r["detector"] for r in ROWS])


def curve(detector, value, repeatability, chance=0.1, sweep="rotation"):
    known = {"sweep": sweep, "value": value, "homography_3px": repeatability / 2, "chance": chance}
    return row(detector, repeatability) | known


def segments(axes, number):
    return np.array(axes.collections[number].get_segments())  # (N, 2 ends, xy)


def names_of(axes):
    """The heights of the names beside an axes, by name."""
    return {text.get_text(): text.xyann[1] for text in axes.texts}


def test_every_detector_that_can_be_measured_has_a_colour_of_its_own():
    names = [*NAMES, MINE]
    colours = plots.palette(names)
    assert len(set(colours.values())) == len(names)
    for count in range(1, len(names)):
        assert plots.palette(names[:count]) == {name: colours[name] for name in names[:count]}
    assert plots.palette(["b", "a", "b"]) == dict(zip("ba", plots.palette("xy").values(), strict=True))
    assert set(plots.palette(map(str, range(40)))) == set(map(str, range(40)))


def test_bars_are_as_long_as_repeatability_and_have_intervals_and_chance():
    axes = plots.repeatability_bars(ROWS, COLOURS).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0.25, 0.0625]
    assert [bar.get_facecolor()[:3] for bar in axes.patches] == [to_rgb(c) for c in COLOURS.values()]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["kp", "harris", "random"]
    low, high = axes.get_ylim()
    assert low > high, "the first detector is not on top"
    expected = [[[value - 0.05, y], [value + 0.03, y]] for y, value in enumerate([0.5, 0.25, 0.0625])]
    assert segments(axes, 0) == pytest.approx(np.array(expected))
    assert segments(axes, 1)[:, 0, 0] == pytest.approx([0.5 / 8, 0.25 / 8, 0.0625 / 8])
    assert segments(axes, 1)[:, :, 1].mean(1) == pytest.approx([0, 1, 2])


def test_an_interval_that_a_rounding_error_put_beside_its_mean_is_drawn():
    mean = 0.1 + 0.2
    figure = plots.repeatability_bars([row("kp", mean, interval=[0.3, 0.3])], COLOURS)
    assert segments(figure.axes[0], 0)[0, :, 0].tolist() == [0.3, 0.3]
    assert plots.svg(figure)


def test_bars_of_homographies_lie_over_each_other_the_shortest_on_top():
    axes = plots.homography_bars(ROWS, COLOURS).axes[0]
    assert len(axes.patches) == 9
    for y, value in enumerate([0.5, 0.25, 0.0625]):
        bars = [bar for bar in axes.patches if round(bar.get_y() + bar.get_height() / 2) == y]
        assert [bar.get_width() for bar in bars] == pytest.approx([0.1 + value * n / 8 for n in (5, 3, 1)])
        assert {bar.get_facecolor()[:3] for bar in bars} == {to_rgb(list(COLOURS.values())[y])}
        opaque = [bar.get_facecolor()[3] for bar in bars]
        assert opaque == sorted(set(opaque))


def test_the_scatter_has_a_named_point_for_each_detector():
    axes = plots.use_scatter(ROWS, COLOURS).axes[0]
    places = [collection.get_offsets()[0].tolist() for collection in axes.collections]
    assert places == [[v, 0.1 + v * 3 / 8] for v in (0.5, 0.25, 0.0625)]
    assert {text.get_text(): list(text.xy) for text in axes.texts} == dict(zip(COLOURS, places, strict=True))


def test_threshold_lines_go_through_the_rows_values():
    axes = plots.threshold_lines(ROWS, COLOURS).axes[0]
    assert [line.get_color() for line in axes.lines] == list(COLOURS.values())
    for line, value in zip(axes.lines, [0.5, 0.25, 0.0625], strict=True):
        assert line.get_xydata() == pytest.approx(np.array([[n, value * n / 5] for n in (1, 3, 5)]))
    assert axes.get_xticks().tolist() == [1, 3, 5]


def test_curves_are_in_order_of_their_values_with_intervals_and_mean_chance():
    rows = [curve("kp", 90.0, 0.25, 0.1), curve("kp", 0.0, 0.75, 0.2), curve("harris", 0.0, 0.5, 0.4)]
    axes = plots.curve_lines(rows, "repeatability", COLOURS).axes[0]
    kp, harris, chance = axes.lines
    assert kp.get_xydata().tolist() == [[0, 0.75], [90, 0.25]]
    assert harris.get_xydata().tolist() == [[0, 0.5]]
    assert chance.get_xydata() == pytest.approx(np.array([[0, 0.3], [90, 0.1]]))
    assert chance.get_linestyle() == "--"
    assert len(axes.collections) == 2
    corners = {tuple(np.round(corner, 9)) for corner in axes.collections[0].get_paths()[0].vertices}
    assert corners == {(0, 0.7), (0, 0.78), (90, 0.2), (90, 0.28)}
    assert axes.get_xscale() == "linear"


def test_curves_of_another_measure_have_no_chance_and_scale_is_logarithmic():
    rows = [curve("kp", value, 0.5, sweep="scale") for value in (0.25, 0.5, 1.0, 2.0, 4.0)]
    figure = plots.curve_lines(rows, "homography_3px", COLOURS)
    axes = figure.axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.25] * 5]
    assert not axes.collections
    assert axes.xaxis.get_transform().base == 2
    texts = [node.text for node in ElementTree.fromstring(plots.svg(figure)).iter(f"{SVG}text")]
    assert {"0.25", "0.5", "1", "2", "4"} <= set(texts)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 2, 9, 16])
def test_names_of_equal_values_stand_apart_beside_the_axes(count, value):
    names = [f"d{i}" for i in range(count)]
    axes = plots.threshold_lines([row(name, value) for name in names], plots.palette(names)).axes[0]
    found = names_of(axes)
    heights = [found[name] for name in names]  # the first is on top
    assert np.all(-np.diff(heights) > 0.06)
    assert min(heights) >= -1e-9
    assert max(heights) <= 1 + 1e-9


def test_names_stay_at_their_points_where_there_is_room_and_share_the_way_where_not():
    at = {"a": 0.2, "b": 0.5, "c": 0.51}
    found = names_of(plots.threshold_lines([row(n, v) for n, v in at.items()], plots.palette(at)).axes[0])
    top = 1.02
    assert found["a"] == pytest.approx(0.2 / top)
    assert found["b"] + found["c"] == pytest.approx(1.01 / top)
    assert found["c"] - found["b"] == pytest.approx(0.065)


def test_costs_are_lines_over_pixels_and_dashed_with_descriptors():
    sizes, times = [(200, 300), (100, 100)], {"kp": [6, 1], "xfeat": [None, 4]}
    costs = [
        {"name": name, "size": size, "milliseconds": value, "descriptors": name == "xfeat"}
        for name, values in times.items()
        for size, value in zip(sizes, values, strict=True)
    ]
    figure = plots.cost_lines(costs, plots.palette(list(times)))
    axes = figure.axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[10000, 1], [60000, 6]], [[10000, 4]]]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["200x300", "100x100"]
    heights = names_of(axes)
    assert heights["kp"] > heights["xfeat"]
    assert b"with descriptors" in plots.svg(figure)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", r"$\nosuchmacro{$", "a & 'b' \"c\""])
@pytest.mark.parametrize("draw", [plots.repeatability_bars, plots.use_scatter, plots.homography_bars])
def test_any_name_is_text_in_the_file(draw, name):
    data = plots.svg(draw([row(name, 0.5)], plots.palette([name])))
    root = ElementTree.fromstring(data)
    assert name in ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]
    assert not list(root.iter(f"{SVG}script"))


def test_the_same_figure_is_the_same_file_and_no_setting_of_matplotlib_changes():
    before = dict(matplotlib.rcParams)
    first, second = (plots.svg(plots.repeatability_bars(ROWS, COLOURS)) for _ in range(2))
    assert first == second
    with matplotlib.rc_context({"font.family": "serif", "font.size": 30, "svg.fonttype": "path"}):
        assert plots.svg(plots.repeatability_bars(ROWS, COLOURS)) == first
    assert dict(matplotlib.rcParams) == before
