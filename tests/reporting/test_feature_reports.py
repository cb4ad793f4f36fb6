"""Tables, lines and pages of complete features: cells by hand."""

import json
from datetime import datetime

import pytest

from kp.cli.main import main
from kp.evaluation.feature_matching import ACCURACY_THRESHOLDS
from kp.evaluation.feature_results import content, settings
from kp.reporting import feature_tables, pages, plots
from kp.reporting.comparison import compare_files
from kp.reporting.feature_page import make_feature_page


def record(feature, sequence, right, error, points=300):
    numbers = {"dimensions": 64, "keypoints": 280.0, "matches": 100, "right_matches": right, "matching_score": 0.25}
    numbers |= {f"matching_accuracy_{t}px": right / 100 + t / 100 for t in ACCURACY_THRESHOLDS}
    key = {"feature": feature, "points": points, "sequence": sequence, "split": sequence[0], "image": 2}
    return key | numbers | {"corner_error_magsac": error, "corner_error_poselib": error and error + 2}


@pytest.fixture
def results():
    """``ours`` is right more often than ``theirs`` by 10 of 100 in every sequence; the homographies are the same."""
    records = [
        record(name, f"{split}_{n}", right + n, error, points)
        for points in (300, 1000)
        for name, right in (("ours", 50), ("theirs", 40))
        for split, error in (("i", 2.0), ("v", None))
        for n in range(2)
    ]
    return content(records, settings("here", (300, 1000), split="all"), None, {"gone": "why"}, True)


def cells(markdown):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]


def test_the_short_table(results):
    head, _, ours, theirs = cells(feature_tables.short(results["rows"], 300, results["pairs"]).markdown())
    assert head[:8] == ["feature", "D", "points", "MMA 3 px: i", "MMA 3 px: v", "MMA 3 px: all", "M.score", "right"]
    assert head[8:10] == ["H 3 px: MAGSAC", "H 3 px: PoseLib"]
    assert ours[:8] == ["ours", "64", "280", "**0.535**", "**0.535**", "**0.535**", "0.250", "**50**"]
    assert ours[8:10] == ["0.500", "0.000"], "2 px by MAGSAC and 4 px by PoseLib in i, none in v"
    assert head[10:] == [*(f"AUC 5 px, MAGSAC: {split}" for split in ("i", "v", "all")), "AUC 5 px, PoseLib"]
    assert ours[10:12] == ["0.700", "0.000"], "from (0, 0) by (2, 1/2) up to (2, 1), then flat: 3.5 of 5"
    assert ours[12].startswith("0.350 (0.000 to "), "from (0, 0) by (2, 1/4) up to (2, 1/2), then flat: 1.75 of 5"
    assert theirs[3] == "0.435"


def test_the_full_table_has_a_heading_for_each_split(results):
    head, _, *lines = cells(feature_tables.full(results["rows"], 1000).markdown())
    assert [line[0] for line in lines] == [
        word for split in ("illumination", "viewpoint", "all") for word in (split, "ours", "theirs")
    ]
    assert len(head) == 1 + 5 + 3 + 2 * 2 * 3
    assert lines[1][head.index("MMA: 5 px")] == "0.555 (0.550 to 0.560)"
    assert lines[2][head.index("right")] == "40 (40 to 41)"
    assert lines[1][head.index("H, PoseLib: 5 px")] == "1.000 (1.000 to 1.000)"


def test_lines_of_differences(results):
    lines = feature_tables.difference_lines(results["differences"], 300, ["matching_accuracy_3px", "right_matches"])
    same = "{} +{} [+{}, +{}] better".format
    assert lines == [
        f"ours - theirs, MMA 3 px: {'; '.join(same(s, *['0.100'] * 3) for s in ('i', 'v', 'all'))}",
        f"ours - theirs, right matches: {'; '.join(same(s, *['10.0'] * 3) for s in ('i', 'v', 'all'))}",
    ]


def test_lines_of_accuracy_go_through_every_threshold(results):
    rows = [row for row in results["rows"] if (row["points"], row["split"]) == (300, "all")]
    figure = plots.accuracy_lines(rows, {"ours": "red", "theirs": "blue"})
    drawn = {line.get_color(): line.get_xydata() for line in figure.axes[0].lines}
    for colour, first in (("red", 0.505), ("blue", 0.405)):
        assert drawn[colour].ravel().tolist() == pytest.approx(
            [number for t in range(1, 11) for number in (t, first + t / 100)]
        )


def test_the_line_of_refined_matches_has_the_colour_of_its_feature_and_is_dashed(monkeypatch):
    seen, draw = [], plots.accuracy_lines
    monkeypatch.setattr(plots, "accuracy_lines", lambda *args: seen.append(draw(*args)) or seen[-1])
    names = ("ours", "theirs", "ours+refined", "sift+refined")
    records = [record(name, "i_1", 50 + at, 1.0) for at, name in enumerate(names)]
    make_feature_page(
        content(records, settings("here", (300,), split="all"), None, {}, True), datetime.now().astimezone()
    )
    lines = seen[0].axes[0].lines
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--", "--"]
    colours = [line.get_color() for line in lines]
    assert colours[0] == colours[2]
    assert len(set(colours)) == 3


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(pages, "PAGES", ("page.md",))
    monkeypatch.setattr(pages, "FIGURES", {})
    (tmp_path / pages.RESULTS).mkdir(parents=True)
    (tmp_path / "page.md").write_text(
        "<!-- kp:features -->\n<!-- /kp -->\n\n<!-- kp:features-brief -->\n<!-- /kp -->\n"
    )
    return tmp_path


def test_pages_say_nothing_of_features_until_there_are_results(root, results):
    before = (root / "page.md").read_text()
    assert main(["report", "--check"]) == 0
    (root / pages.RESULTS / "features_validation.json").write_text(json.dumps(results))
    assert main(["report", "--check"]) == 1
    assert main(["report"]) == 0
    text = (root / "page.md").read_text()
    assert "--features ours theirs gone --points 300 1000 --baseline-weights PEERS" in text
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        *("## Features, validation", "### 300 points", "### 1000 points")
    ]
    assert "- ours - theirs, MMA 3 px: i +0.100" in text
    assert text.endswith("<!-- kp:features-brief -->\n<!-- /kp -->\n"), "which is of the test set"
    (root / pages.RESULTS / "features_test.json").write_text(json.dumps(results))
    assert main(["report"]) == 0
    short = (root / "page.md").read_text().split("features-brief -->")[1]
    assert cells(short.strip())[2][:4] == ["ours", "64", "0.535 (0.530 to 0.540)", "50"]
    for name in ("test", "validation"):
        (root / pages.RESULTS / f"features_{name}.json").unlink()
    assert main(["report"]) == 0
    assert (root / "page.md").read_text() == before


def test_refined_matches_stand_beside_those_as_found(root):
    """Errors of 2 px become 1 px by MAGSAC, of 4 px 3 px by PoseLib, of v none: areas by hand."""
    names = {"described": 2.0, "described+refined": 1.0, "xfeat": 2.0, "xfeat+refined": 2.0, "sift": 2.0}
    records = [
        record(name, f"{split}_{n}", 50, error if split == "i" else None, 1000)
        for name, error in names.items()
        for split in ("i", "v")
        for n in range(2)
    ]
    found = content(records, settings("here", (1000,), split="all"), None, {}, True)
    (root / pages.RESULTS / "features_test.json").write_text(json.dumps(found))
    (root / "page.md").write_text(
        "<!-- kp:features-brief -->\n<!-- /kp -->\n\n<!-- kp:refined-test -->\n<!-- /kp -->\n\n"
        "It is <!-- kp:gain-xfeat+refined -->?<!-- /kp --> more.\n"
    )
    assert main(["report"]) == 0
    brief, changes, words = (root / "page.md").read_text().split("<!-- /kp -->")[:3]
    head, _, *lines = cells(brief.split("-->")[1].strip())
    assert head[6:] == ["AUC 5 px, refined: MAGSAC", "AUC 5 px, refined: PoseLib"]
    assert [line[0] for line in lines] == ["described", "xfeat", "sift"]
    assert [cell.split()[0] for cell in lines[0][4:]] == ["0.350", "0.200", "0.425", "0.275"]
    assert lines[2][6:] == ["-", "-"]
    head, _, *lines = cells(changes.split("-->")[1].strip())
    assert len(head) == 1 + 2 + 2 + 3 + 3
    assert lines[0][:7] == ["described", "0.510", "0.510", "0.530", "0.530", "0.350", "0.425"]
    assert lines[0][7].startswith("+0.075 [+0.000, +0.1")
    assert lines[0][8:10] == ["0.200", "0.275"]
    assert lines[1][7] == "+0.000 [+0.000, +0.000]"
    assert len(lines) == 2
    assert words.split("-->")[1].startswith("+0.075 [+0.000, +0.1")
    assert words.endswith("] by PoseLib")
    alone = [each for each in records if not each["feature"].endswith("refined")]
    found = content(alone, settings("here", (1000,), split="all"), None, {}, True)
    (root / pages.RESULTS / "features_test.json").write_text(json.dumps(found))
    assert main(["report"]) == 0
    brief, changes, words = (root / "page.md").read_text().split("<!-- /kp -->")[:3]
    assert len(cells(brief.split("-->")[1].strip())[0]) == 6
    assert changes.split("-->")[1].strip() == words.split("-->")[1] == ""


def test_right_matches_beside_rootsift_in_words(root):
    rights = {"described": 60, "described+refined": 90, "kp+rootsift": 40, "kp+rootsift+refined": 45}
    records = [record(feature, f"i_{n}", count, 1.0, 1000) for feature, count in rights.items() for n in range(2)]
    (root / "page.md").write_text("They have <!-- kp:right-test -->?<!-- /kp --> times as many.\n")
    for kept, words in ((rights, "1.50 [1.50, 1.50] as found and 2.00 [2.00, 2.00] refined"), (("described",), "")):
        chosen = [each for each in records if each["feature"] in kept]
        found = content(chosen, settings("here", (1000,), split="all"), None, {}, True)
        (root / pages.RESULTS / "features_test.json").write_text(json.dumps(found))
        assert main(["report"]) == 0
        assert (root / "page.md").read_text().split("-->")[1] == f"{words}<!-- /kp "


def test_descriptors_of_the_same_points_stand_beside_their_bound(root):
    """Errors of 2 px on i and of 1 px on v by MAGSAC, 2 px more by PoseLib; SIFT has other points."""
    rights = {"described": 50, "described+upright": 49, "kp+oracle": 70, "kp+oracle+refined": 71, "sift": 30}
    records = [
        record(name, f"{split}_{n}", right, error, 1000)
        for name, right in rights.items()
        for split, error in (("i", 2.0), ("v", 1.0))
        for n in range(2)
    ]
    found = content(records, settings("here", (1000,), split="all"), None, {}, True)
    (root / pages.RESULTS / "features_test.json").write_text(json.dumps(found))
    (root / "page.md").write_text(
        "<!-- kp:same-points-test -->\n<!-- /kp -->\n\n<!-- kp:features-brief -->\n<!-- /kp -->\n"
    )
    assert main(["report"]) == 0
    table, brief = (root / "page.md").read_text().split("<!-- /kp -->")[:2]
    head, _, *lines = cells(table.split("-->")[1].strip())
    assert head[:3] == ["feature", "right matches: all", "AUC 5 px, MAGSAC: i"]
    assert [line[:2] for line in lines] == [[name, str(right)] for name, right in rights.items() if name != "sift"]
    assert lines[0][2:4] == lines[2][2:4] == ["0.700", "0.850"]
    assert [line[0] for line in cells(brief.split("-->")[1].strip())[2:]] == ["described", "kp+oracle", "sift"]


def test_a_damaged_result_of_features_is_one_line(root, capsys):
    (root / pages.RESULTS / "features_test.json").write_text("{")
    assert main(["report"]) == 1
    err = capsys.readouterr().err
    assert "features_test.json cannot be read" in err
    assert len(err.splitlines()) == 1


def places(value, path=()):
    """The way to every value within a JSON value, itself left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*path, key)
        yield from places(part, (*path, key))


@pytest.mark.parametrize("wrong", [None, "x", -1, {}], ids=str)
def test_whatever_is_wrong_in_a_file_is_a_text_or_one_line(tmp_path, wrong):
    records = [record("ours", f"v_{n}", 5, 1.0) for n in range(2)]
    whole = json.dumps(content(records, settings("here", (300,), split="v"), None, {}, True))
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(whole)
    for path in places(json.loads(whole)):
        holder = damaged = json.loads(whole)
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = wrong
        bad.write_text(json.dumps(damaged))
        try:
            text = compare_files(good, bad)
        except ValueError as error:
            text = str(error)
            assert "\n" not in text, path
        assert "bad.json" in text, path
