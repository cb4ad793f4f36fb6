"""README.md and the report say what the stored results say: tables worked out by hand, and the pages that are there."""

import json

import pytest

from kp.cli.main import main
from kp.reporting import pages


def row(detector, split, repeatability, **more):
    numbers = {"one_to_one": 0.4, "chance": 0.1, "localisation_error": 1.0, "homography_3px": 0.5}
    key = {"protocol": "native", "detector": detector, "split": split, "repeatability": repeatability}
    return key | {"interval": [0.25, 0.75]} | numbers | more


CONTENT = {
    "rows": [
        *(row("kp", split, value) for split, value in (("i", 0.5), ("v", 0.25))),
        row("kp", "all", 0.375, localisation_error=0.9),
        *(row("harris", split, 0.4) for split in ("i", "v", "all")),
        *(row("random", split, 0.9, localisation_error=None, one_to_one=0.4) for split in ("i", "v", "all")),
    ],
    "curves": [
        {"sweep": "rotation", "value": value, "detector": name, "repeatability": score}
        for name, score in (("kp", 0.75), ("harris", 0.5))
        for value in (0.0, 45.0)
    ],
}


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_best_of_a_column_is_bold_unless_it_is_chance():
    head, _, kp, harris, random = cells(pages.measured(CONTENT))
    assert head == ["detector", "`i`", "`v`", "all (95 %)", "one-to-one", "chance", "error (px)", "H 3 px"]
    assert kp == ["kp", "**0.500**", "0.250", "0.375 (0.250 to 0.750)", "**0.400**", "0.100", "**0.90**", "**0.500**"]
    assert harris[1:4] == ["0.400", "**0.400**", "**0.400 (0.250 to 0.750)**"]
    assert random[1] == "0.900"
    assert random[6] == "-"
    assert random[4] == "0.400"  # as good as the best, but chance


def test_refitted_errors_are_those_given_where_none_could_be_fitted():
    errors = [("i", 0.5, 0.8), ("v", None, 2.0), ("v", 1.0, 1.4), ("v", None, None)]
    names = "split", "refitted_error", "localisation_error"
    pairs = [{"protocol": "native", "detector": "kp"} | dict(zip(names, values, strict=True)) for values in errors]
    assert pages.refitted({"pairs": pairs}, "kp", "i") == 0.5
    assert pages.refitted({"pairs": pairs}, "kp", "v") == 1.5
    assert pages.refitted({"pairs": pairs}, "kp", "all") == pytest.approx(3.5 / 3)
    with pytest.raises(ValueError, match="no error of harris"):
        pages.refitted({"pairs": pairs}, "harris", "all")


def test_curves_and_protocols_have_a_column_for_each_step_and_split():
    assert cells(pages.swept(CONTENT, "rotation"))[0] == ["detector", "0", "45"]
    assert cells(pages.swept(CONTENT, "rotation"))[2] == ["kp", "**0.750**", "**0.750**"]
    head, _, kp, *_ = cells(pages.protocols(CONTENT, ["native"]))
    assert head == ["detector", "native: i", "native: v", "native: all", "native: H"]
    assert kp == ["kp", "**0.500**", "0.250", "0.375", "**0.500**"]


def test_what_models_cost_stands_beside_what_they_do():
    cost = {"name": "kp", "parameters": 16600, "gmac": 0.694, "kilobytes": 80.2, "ms": 61.0}
    _, _, kp = cells(pages.models([cost], CONTENT))
    assert kp == ["kp", "16,600", "0.69", "80", "61", "**0.500**", "**0.250**", "**0.375**", "**0.90**"]


def test_scores_at_full_size_have_a_column_for_each_kind():
    names = ("light", "relit", "focus", "zoom", "tilt", "hard", "all")
    ours = dict.fromkeys(names, 0.5) | {f"{name}_error": 0.75 for name in names}
    theirs = ours | {"zoom": 0.625, "zoom_error": 1.0}
    del theirs["focus_error"]  # nothing matched
    head, _, first, second = cells(pages.kinds({"ours": ours, "theirs": theirs}))
    assert head == ["detector", *names]
    assert (first[4], second[4]) == ("0.500", "**0.625**")
    _, _, first, second = cells(pages.kinds({"ours": ours, "theirs": theirs}, "_error"))
    assert first[3:5] == ["**0.75**", "**0.75**"]
    assert second[3:5] == ["-", "1.00"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(pages, "PAGES", {"page.md": "page.md"})
    for folder in (pages.TEMPLATES, pages.RESULTS):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / pages.TEMPLATES / "page.md").write_text("{{ stored('a.json').x | digits }} px\n")
    (tmp_path / pages.RESULTS / "a.json").write_text(json.dumps({"x": 0.12345}))
    return tmp_path


def test_a_page_is_written_when_its_numbers_change(root, capsys):
    assert main(["report", "--check"]) == 1
    assert "run python -m kp report" in capsys.readouterr().err
    assert main(["report"]) == 0
    assert (root / "page.md").read_text() == "0.123 px\n"
    assert main(["report", "--check"]) == 0
    (root / pages.RESULTS / "a.json").write_text(json.dumps({"x": 2}))
    assert main(["report", "--check"]) == 1


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ stored('none.json') }}", "none.json cannot be read"),
        ("{{ stored('a.json').y | digits }}", "no attribute 'y'"),
        ("{{ unknown }}", "'unknown' is undefined"),
        ("{{ trials('none.json') }}", "none.json holds no scores"),
        ("{{ swept({'curves': []}, 'scale') }}", "no scale curve"),
        ("{{ measured({'rows': []}) }}", "no row of protocol native"),
        ("{{ models([{'name': 'a'}], {'rows': [{'protocol': 'native', 'detector': 'b', 'split': 'i'}]}) }}", "'a'"),
        ("{% if %}", "Expected an expression"),
    ],
)
def test_a_page_that_cannot_be_filled_is_one_line(root, capsys, template, message):
    (root / pages.TEMPLATES / "page.md").write_text(template)
    assert main(["report"]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (root / "page.md").exists()


def test_the_pages_say_what_the_results_say():
    assert pages.differing(pages.fill()) == [], "run python -m kp report"
