"""The tables of results: every number stands in its column."""

import pytest

from kp.models import cost
from kp.models.checkpoint import SHIPPED
from kp.reporting import result_tables


def result(detector, split, value, error, pairs=1):
    """A row in which most measures are ``value`` and the others are told apart by their number."""
    names = ["repeatability", "repeatability_1px", "repeatability_5px", "one_to_one", "coverage", "chance"]
    row = dict.fromkeys([*names, "homography_3px", "matching_accuracy_3px"], value) | {"common": 300.4}
    return (
        row
        | {"detector": detector, "split": split, "localisation_error": error, "pairs": pairs}
        | {
            "interval": [value - 0.1, value + 0.1],
            "homography_3px": 0.987,
            "chance": value / 5,
        }
    )


def test_printed_results_have_every_number():
    rows = [result("harris", "i", 0.25, 0.5), result("harris", "v", 0.75, 1.5), result("harris", "all", 0.5, 1, 2)]
    rows += [result("shi-tomasi", "i", 0.125, None), result("shi-tomasi", "all", 0.125, None)]
    lines = result_tables.printed_results(rows, {"disk": "no network"}).splitlines()
    assert lines[0].split() == ["repeatability", "chance", "loc.", "error", "(px)", "of", "all"]
    titles = ["95", "%", "1", "px", "5", "px", "1", "to", "1", "cover", "points", "H", "3px", "MMA"]
    assert lines[1].split() == ["detector", *["i", "v", "all"] * 3, *titles]
    by_split = ["0.250", "0.750", "0.500", "0.050", "0.150", "0.100", "0.50", "1.50", "1.00"]
    values = ["0.400", "to", "0.600", "0.500", "0.500", "0.500", "0.50", "300", "0.987", "0.500"]
    assert lines[2].split() == ["harris", *by_split, *values]
    by_split = ["0.125", "-", "0.125", "0.025", "-", "0.025", "-", "-", "-"]
    assert lines[3].split()[:11] == ["shi-tomasi", *by_split, "0.025"]
    assert lines[4:] == ["disk  skipped: no network", "pairs: i 1, v 1, all 2"]
    assert result_tables.printed_results([], {}) == "nothing was measured"


def test_repeatability_by_kind_has_a_column_for_each_kind_with_its_pairs():
    values = {("kp", "blur"): 0.5, ("kp", "exposure"): 0.25, ("harris", "exposure"): 0.125}
    rows = [
        {
            "detector": name,
            "kind": kind,
            "repeatability": value,
            "interval": [0, 1],
            "pairs": 7 if kind == "blur" else 3,
        }
        for (name, kind), value in values.items()
    ]
    title, head, kp, harris = "\n".join(result_tables.printed_kinds(rows)).splitlines()
    assert title == "repeatability by kind (pairs), i"
    assert head.split() == ["detector", "blur", "(7)", "exposure", "(3)"]
    assert kp.split() == ["kp", "0.500", "(0.000", "to", "1.000)", "0.250", "(0.000", "to", "1.000)"]
    assert harris.split() == ["harris", "-", "0.125", "(0.000", "to", "1.000)"]
    assert result_tables.printed_kinds([]) == []


def test_differences_are_one_line_for_each_detector_and_floor():
    numbers = [
        ("kp", "corner", "i", -0.0041, [-0.0204, 0.0123], "no difference"),
        ("kp", "corner", "v", -0.0538, [-0.0864, -0.0226], "worse"),
        ("kp", "harris", "v", 0.25, None, "no difference"),
    ]
    keys = "detector", "floor", "split", "difference", "interval", "verdict"
    assert result_tables.difference_lines([dict(zip(keys, line, strict=True)) for line in numbers]) == [
        "kp - corner: i -0.004 [-0.020, +0.012] no difference; v -0.054 [-0.086, -0.023] worse",
        "kp - harris: v +0.250 (one sequence, no interval) no difference",
    ]


def test_printed_sweeps_show_each_number_under_its_value():
    names = ("kp", "harris")
    rows = [
        {"sweep": kind, "value": value, "detector": name, "repeatability": (100 * sweep + 10 * at + who) / 1000}
        for sweep, (kind, values) in enumerate((("rotation", (0.0, 15.0, 180.0)), ("scale", (0.25, 2**-0.5, 4.0))))
        for at, value in enumerate(values)
        for who, name in enumerate(names)
    ]
    rotation, scale = (part.splitlines() for part in result_tables.printed_sweeps(rows).split("\n\n"))
    assert "degrees" in rotation[0]
    assert [line.split() for line in rotation[1:]] == [
        ["rotation", "0", "15", "180"],
        ["kp", "0.000", "0.010", "0.020"],
        ["harris", "0.001", "0.011", "0.021"],
    ]
    assert [line.split() for line in scale[1:]] == [
        ["scale", "0.25", "0.707", "4"],
        ["kp", "0.100", "0.110", "0.120"],
        ["harris", "0.101", "0.111", "0.121"],
    ]


def test_an_ablation_shows_means_and_half_ranges():
    entries = [
        {"variant": "a", "seed": seed, "flags": ["--ema", "0.9"]}
        | {"scores": {"i_75": value, "rotation_0": 0.8, "rotation_45": 0.4}}
        for seed, value in enumerate((0.25, 0.75))
    ]
    entries.append({"variant": "b", "seed": 0, "flags": None, "scores": {"i_75": 0.75, "shift": 0.125}})
    head, a, b = (line.split() for line in result_tables.ablation(entries).text().splitlines())
    a, b = (dict(zip(head, line, strict=True)) for line in (a, b))
    assert (a["variant"], a["seeds"], a["i_75"]) == ("a", "2", "0.500±0.250")
    assert (a["rotation_45/rotation_0"], a["v_75"]) == ("0.500±0.000", "-")
    assert (b["variant"], b["seeds"], b["i_75"], b["shift"]) == ("b", "1", "0.750", "0.125")


def test_the_default_comes_first_and_variants_without_training_last():
    flags = {"b": ["--ema", "0.9"], "z": None, "a": [], "c": ["--match-radius", "2"]}
    entries = [{"variant": name, "flags": given, "seed": 0, "scores": {}} for name, given in flags.items()]
    assert [name for name, _ in result_tables.ablation(entries).rows] == ["a", "b", "c", "z"]


def test_every_shipped_detector_has_a_line_of_costs(monkeypatch):
    monkeypatch.setattr(cost, "SIZE", (64, 96))
    monkeypatch.setattr(cost, "milliseconds", lambda detector: 1.0)
    table = result_tables.costs(cost.describe(SHIPPED))
    lines = [line.split() for line in table.text().splitlines()]
    assert lines[0] == ["model", "parameters", "GMAC", "KB", "ms", "steps", "minutes", "code"]
    assert [line[0] for line in lines[1:-1]] == list(SHIPPED)
    for line, path in zip(lines[1:-1], SHIPPED.values(), strict=True):
        assert float(line[3].replace(",", "")) == pytest.approx(path.stat().st_size / 1e3, abs=0.5)
        assert line[4] == "1"
