"""The self-check: when it speaks, and when it warns."""

from dataclasses import replace

import pytest

from kp.data.download import D2NET_LEFT_OUT
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.published import check

PROTOCOL = PROTOCOLS["240x320"]
# read off https://github.com/rpautrat/SuperPoint, README, "Detector evaluation"; illumination, viewpoint
README = {"harris": ("0.630", "0.755"), "fast": ("0.576", "0.625"), "shi-tomasi": ("0.584", "0.629")}


def record(detector, sequence, image, protocol="240x320"):
    return {
        "protocol": protocol,
        "detector": detector,
        "sequence": sequence,
        "split": sequence[0],
        "image": image,
        "repeatability": 0.1,
    }


def whole(*detectors):
    """The records of all 580 pairs of HPatches."""
    large = sorted(D2NET_LEFT_OUT)  # some names of its own
    names = [n for n in large if n[0] == "i"] + [f"i_{n}" for n in range(57 - sum(n[0] == "i" for n in large))]
    names += [n for n in large if n[0] == "v"] + [f"v_{n}" for n in range(59 - sum(n[0] == "v" for n in large))]
    made = [record(d, name, k) for name in names for d in detectors for k in range(2, 7)]
    assert len(made) == 580 * len(detectors)
    return made


def rows(off=0.0, detectors=tuple(README), splits=("i", "v", "all"), protocol="240x320"):
    """Rows that are ``off`` from the README's values."""
    made = []
    for name in detectors:
        i, v = (float(value) for value in README.get(name, ("0.5", "0.5")))
        values = {"i": i + off, "v": v + off, "all": 0.5}
        made += [{"protocol": protocol, "detector": name, "split": s, "repeatability": values[s]} for s in splits]
    return made


def test_each_value_stands_beside_the_published_one():
    lines = check(rows(-0.002), whole(*README), PROTOCOL)
    assert len(lines) == 6
    assert lines[0] == "harris i: measured 0.628, rpautrat/SuperPoint's README 0.630"
    for name, published in README.items():
        for split, value in zip("iv", published, strict=True):
            found = [line for line in lines if line.startswith(f"{name} {split}: measured {float(value) - 0.002:.3f},")]
            assert len(found) == 1
            assert found[0].endswith(f"README {value}")


@pytest.mark.parametrize(
    ("off", "warned"), [(0.019, 0), (-0.019, 0), (0.02, 0), (-0.02, 0), (0.021, 6), (-0.021, 6), (0.3, 6)]
)
def test_a_difference_beyond_the_tolerance_is_a_warning(off, warned):
    lines = check(rows(off), whole(*README), PROTOCOL)
    assert len(lines) == 6
    assert sum(line.startswith("WARNING: ") for line in lines) == warned
    assert sum(line.endswith(": differs by more than 0.02") for line in lines) == warned


def test_a_single_value_that_is_off_is_the_only_warning():
    made = rows()
    next(r for r in made if (r["detector"], r["split"]) == ("fast", "v"))["repeatability"] = 0.5
    found = [line for line in check(made, whole(*README), PROTOCOL) if "WARNING" in line]
    assert found == ["WARNING: fast v: measured 0.500, rpautrat/SuperPoint's README 0.625: differs by more than 0.02"]


def test_only_published_detectors_that_were_measured_have_lines():
    lines = check(rows(detectors=("kp", "harris", "sift")), whole("kp", "harris", "sift"), PROTOCOL)
    assert [line.split(":")[0] for line in lines] == ["harris i", "harris v"]
    assert check(rows(detectors=("kp",)), whole("kp"), PROTOCOL) == []
    assert check([], [], PROTOCOL) == []


def test_the_other_tables_of_the_same_run_do_not_count():
    made = rows(detectors=("harris",)) + rows(0.1, ("harris",), protocol="native")
    records = [*whole("harris"), record("harris", "i_0", 2, "native")]
    lines = check(made, records, PROTOCOL)
    assert len(lines) == 2
    assert not any("WARNING" in line for line in lines)


@pytest.mark.parametrize(
    "protocol",
    [
        replace(PROTOCOL, threshold=2.0),
        replace(PROTOCOL, max_keypoints=1000),
        replace(PROTOCOL, nms_size=5),
        replace(PROTOCOL, border=0),
        replace(PROTOCOLS["native"], name="240x320"),
    ],
    ids=["threshold", "max_keypoints", "nms_size", "border", "size"],
)
def test_a_changed_protocol_is_not_compared(protocol):
    assert check(rows(), whole(*README), protocol) == []


def test_a_stand_in_of_the_same_size_is_not_compared():
    renamed = [r | {"sequence": r["sequence"].replace(min(D2NET_LEFT_OUT), "i_other")} for r in whole(*README)]
    assert check(rows(), renamed, PROTOCOL) == []


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "240x320"])
def test_another_protocol_is_not_compared(name):
    records = [r | {"protocol": name} for r in whole(*README)]
    assert check(rows(protocol=name), records, PROTOCOLS[name]) == []


@pytest.mark.parametrize(
    "kept",
    [
        lambda r: r["sequence"] != "i_3",
        lambda r: r["sequence"] != "v_55",
        lambda r: r["split"] == "i",
        lambda r: r["split"] == "v",
        lambda r: (r["sequence"], r["image"]) != ("v_3", 6),
        lambda r: r["image"] < 6,
        lambda r: False,
    ],
    ids=["no i_3", "no v_55", "only i", "only v", "one pair less", "four pairs each", "none"],
)
def test_part_of_hpatches_is_not_compared(kept):
    assert check(rows(), [r for r in whole(*README) if kept(r)], PROTOCOL) == []


@pytest.mark.parametrize(
    "more", [record("harris", "i_57", 2), record("harris", "v_0", 7), record("harris", "v_0", 6)], ids=str
)
def test_more_than_hpatches_is_not_compared(more):
    assert check(rows(detectors=("harris",)), [*whole("harris"), more], PROTOCOL) == []


def test_images_of_other_numbers_are_not_compared():
    records = [r | {"image": r["image"] + 1} for r in whole("harris")]
    assert check(rows(detectors=("harris",)), records, PROTOCOL) == []


def test_a_detector_that_was_stopped_early_has_no_line():
    records = [r for r in whole("harris", "fast") if (r["detector"], r["sequence"]) != ("fast", "v_55")]
    lines = check(rows(detectors=("harris", "fast")), records, PROTOCOL)
    assert [line.split(":")[0] for line in lines] == ["harris i", "harris v"]


def test_a_split_without_a_row_has_no_line():
    lines = check(rows(detectors=("harris",), splits=("v", "all")), whole("harris"), PROTOCOL)
    assert [line.split(":")[0] for line in lines] == ["harris v"]
