"""The numbers between the markers of README.md and the reports: tables by hand, pages in a folder, the real pages."""

import json
import re
from xml.etree import ElementTree

import pytest

from kp.cli.main import main
from kp.reporting import page_tables, pages


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
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.markdown().splitlines()]


def pairs_of(detector, values, protocol="native"):
    """A pair for each of the sequences i_0, i_1, ..., v_0, ..., from lists of repeatability by split."""
    return [
        {"protocol": protocol, "detector": detector, "split": split, "sequence": f"{split}_{n}", "image": 2}
        | {"repeatability": value, "one_to_one": 0.5, "localisation_error": 2 - value, "corner_error": 1.0}
        for split, row in values.items()
        for n, value in enumerate(row)
    ]


def test_differences_by_kind_of_change_are_paired_and_say_of_how_many():
    """kp is above harris by .25 in both exposures, and below it by .125 in the only pair of a webcam."""
    kinds = {"i_0": "exposure", "i_1": "exposure", "v_0": "webcam"}
    pairs = pairs_of("kp", {"i": [0.5, 0.75], "v": [0.25]}) + pairs_of("harris", {"i": [0.25, 0.5], "v": [0.375]})
    pairs = [pair | {"kind": kinds[pair["sequence"]]} for pair in pairs]
    pairs += [pair | {"repeatability": 0.0, "protocol": "other"} for pair in pairs]
    found = page_tables.above_by_kind({"pairs": pairs}, "kp", "harris")
    assert found == "exposure +0.250 [+0.250, +0.250] (2 pairs); webcam -0.125 (1 pairs)"


def test_the_best_of_a_column_is_bold_only_where_pairs_tell_it_from_all_others():
    """kp is better in both i sequences; in v it is better in one, worse in the other; random does not compete."""
    head, _, kp, harris, random = cells(page_tables.measured(CONTENT))
    titles = ["`i`", "`v`", "all (95 %)", "chance `i`", "chance `v`", "chance, all"]
    assert head == ["detector", *titles, "one-to-one", "error (px)", "H 3 px"]
    chance = ["0.100"] * 3
    assert kp == ["kp", "0.500", "0.250", "0.375 (0.250 to 0.750)", *chance, "0.400", "0.90", "0.500"]
    assert harris[1:4] == ["0.400", "0.400", "0.400 (0.250 to 0.750)"]
    assert (random[1], random[8]) == ("0.900", "-")
    pairs = pairs_of("kp", {"i": [0.5, 0.75], "v": [0.5, 0.25]}) + pairs_of("random", {"i": [1, 1], "v": [1, 1]})
    pairs += pairs_of("harris", {"i": [0.25, 0.5], "v": [0.25, 0.75]})
    _, _, kp, harris, random = cells(page_tables.measured(CONTENT | {"pairs": pairs}))
    assert kp[:3] == ["kp", "**0.500**", "0.250"]
    assert sum("**" in cell for cell in kp + harris + random) == 1
    assert [line[0] for line in cells(page_tables.measured(CONTENT, without=["harris"]))[2:]] == ["kp", "random"]
    alone = cells(page_tables.measured(CONTENT | {"pairs": pairs}, without=["harris"]))
    assert not any("**" in cell for line in alone for cell in line), "it is bold beside a detector that is not shown"


def test_refitted_errors_are_those_given_where_none_could_be_fitted():
    errors = [("i", 0.5, 0.8), ("v", None, 2.0), ("v", 1.0, 1.4), ("v", None, None)]
    names = "split", "refitted_error", "localisation_error"
    pairs = [{"protocol": "native", "detector": "kp"} | dict(zip(names, values, strict=True)) for values in errors]
    assert page_tables.refitted({"pairs": pairs}, "kp", "i") == 0.5
    assert page_tables.refitted({"pairs": pairs}, "kp", "v") == 1.5
    assert page_tables.refitted({"pairs": pairs}, "kp", "all") == pytest.approx(3.5 / 3)
    with pytest.raises(ValueError, match="no error of harris"):
        page_tables.refitted({"pairs": pairs}, "harris", "all")


def test_curves_have_a_column_for_each_value():
    assert cells(page_tables.swept(CONTENT, "rotation"))[0] == ["detector", "0", "45"]
    assert cells(page_tables.swept(CONTENT, "rotation"))[2] == ["kp", "0.750", "0.750"]
    with pytest.raises(ValueError, match="no scale curve"):
        page_tables.swept(CONTENT, "scale")


def test_what_models_cost_stands_beside_what_they_do():
    cost = {"parameters": 16600, "gmac": 0.694, "kilobytes": 80.2, "ms": 61.0}
    pairs = pairs_of("kp", {"i": [0.5, 0.75], "v": [0.5, 0.25]})
    pairs += pairs_of("harris", {"i": [0.25, 0.5], "v": [0.75, 0.5]})
    pairs += pairs_of("random", {"i": [1, 1], "v": [1, 1]})
    _, _, kp, harris = cells(
        page_tables.models(
            [{"name": page_tables.WEIGHTS} | cost, {"name": "harris"} | cost], CONTENT | {"pairs": pairs}
        )
    )
    assert kp == [page_tables.WEIGHTS, "16,600", "0.69", "80", "61", "**0.500**", "0.250", "0.375", "0.90"]
    assert harris[5:] == ["0.400", "**0.400**", "0.400", "1.00"]


def test_kinds_have_a_column_each():
    rows_ = [row("kp", "i", value) | {"kind": kind, "pairs": 5} for kind, value in (("webcam", 0.5), ("blur", 0.25))]
    head, _, kp = cells(page_tables.kinds({"kinds": rows_, "pairs": []}))
    assert head == ["detector", "webcam (5)", "blur (5)"]
    assert [cell.split(" ")[0] for cell in kp] == ["kp", "0.500", "0.250"]


def test_differences_are_a_list_and_single_numbers(root):
    """Of kp and the floor, for i and v."""
    both = [
        {
            "detector": "kp",
            "floor": "corner",
            "split": split,
            "difference": value,
            "interval": [value - 0.5, value + 0.5],
        }
        | {"verdict": "no difference"}
        for split, value in (("i", 0.25), ("v", -0.125))
    ]
    (root / pages.RESULTS / "test.json").write_text(json.dumps({"differences": both}))
    (root / "page.md").write_text(
        "<!-- kp:differences-test -->\n<!-- /kp -->\nand <!-- kp:kp-corner-v-test -->0<!-- /kp -->\n"
    )
    assert main(["report"]) == 0
    text = (root / "page.md").read_text()
    assert "- kp - corner: i +0.250 [-0.250, +0.750] no difference; v -0.125 [-0.625, +0.375] no difference" in text
    assert "-->-0.125 [-0.625, +0.375]<!--" in text


def cost(name, milliseconds, size=(480, 640), skipped=""):
    numbers = {"name": name, "size": list(size), "threads": 1, "milliseconds": milliseconds, "repeats": 5}
    return numbers | {"bytes_per_pixel": 9, "descriptors": name == "xfeat", "skipped": skipped}


COSTS = [
    cost("xfeat", 80),
    cost("default", 20),
    cost("xfeat", None, (2160, 3840), "it is too large"),
    cost("default", 540, (2160, 3840)),
]


def test_time_is_a_share_of_that_of_xfeat(root):
    write_costs(root, COSTS)
    names = "ratio-default-1 -->0<!-- /kp -->", "inference -->\n<!-- /kp -->", "inference-sizes -->\n<!-- /kp -->"
    (root / "page.md").write_text("\n".join(f"<!-- kp:{name}" for name in names))
    assert main(["report"]) == 0
    text = (root / "page.md").read_text()
    assert "-->0.25<!--" in text
    assert "| default | 20.0 | 0.25 | 9 | 5 | no |" in text
    assert "| milliseconds | 1 thread: 480x640 | 1 thread: 2160x3840 |" in text
    assert "| xfeat | 80.0 | - |" in text
    assert "| default | 20.0 | 540.0 |" in text
    assert text.count("xfeat skipped (2160x3840, 1 thread): it is too large") == 1


def test_the_figure_of_costs_is_drawn_when_they_change(root, monkeypatch):
    figure = root / "figure.svg"
    monkeypatch.setattr(pages, "FIGURES", {figure.name: pages._inference_figure})
    write_costs(root, COSTS)
    assert main(["report"]) == 0
    first = figure.read_text()
    assert {"default", "xfeat", "480x640"} <= {node.text for node in ElementTree.fromstring(first).iter()}
    figure.write_text(first.replace("<svg", "<svg ", 1))  # as another matplotlib would write it
    assert main(["report", "--check"]) == 0
    write_costs(root, [*COSTS, cost("sift", 50)])
    assert main(["report", "--check"]) == 1
    assert main(["report"]) == 0
    assert ">sift<" in figure.read_text()


def write_costs(root, costs):
    again = [cost("default", 99)]  # what the first file has is not taken from another
    for file, part in (
        *(("inference.json", costs[:-1]), ("inference_sizes.json", again), ("inference_4k.json", costs[-1:])),
    ):
        (root / pages.RESULTS / file).write_text(json.dumps({"reference": "xfeat", "costs": part}))


PAGE = "Text of *hand*, kp:x.\n\n<!-- kp:rotation -->\nold\n<!-- /kp -->\n\nBut {} is inline.\n".format(
    "<!-- kp:minutes -->7<!-- /kp -->"
)
FILLED = """Text of *hand*, kp:x.

<!-- kp:rotation -->

| detector | 0 | 45 |
| --- | --- | --- |
| kp | 0.750 | 0.750 |
| harris | 0.500 | 0.500 |

<!-- /kp -->

But <!-- kp:minutes -->ranked 54<!-- /kp --> is inline.
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(pages, "PAGES", ("page.md",))
    monkeypatch.setattr(pages, "FIGURES", {})
    (tmp_path / pages.RESULTS).mkdir(parents=True)
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / pages.RESULTS / "builtin.json").write_text(json.dumps(CONTENT))
    (tmp_path / pages.RESULTS / "models.json").write_text(json.dumps([{"name": "ranked", "steps": 1, "minutes": 54.1}]))
    return tmp_path


def test_only_what_is_between_markers_changes(root):
    assert main(["report"]) == 0
    assert (root / "page.md").read_text() == FILLED
    assert main(["report"]) == 0
    assert (root / "page.md").read_text() == FILLED


def test_check_writes_nothing(root, capsys):
    assert main(["report", "--check"]) == 1
    assert "run python -m kp report" in capsys.readouterr().err
    assert (root / "page.md").read_text() == PAGE
    assert main(["report"]) == 0
    assert main(["report", "--check"]) == 0
    (root / pages.RESULTS / "models.json").write_text(json.dumps([{"name": "ranked", "steps": 1, "minutes": 2}]))
    assert main(["report", "--check"]) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- kp:nothing --><!-- /kp -->", "no number or table is called nothing"),
        ("<!-- kp:table-test -->\n<!-- /kp -->", "test.json cannot be read"),
        ("<!-- kp:models -->\n<!-- /kp -->", "test.json cannot be read"),
        ("<!-- kp:scale -->\n<!-- /kp -->", "no scale curve"),
        ("<!-- kp:rotation -->", "half of a pair"),
        ("7<!-- /kp -->", "half of a pair"),
        ("<!-- kp:rotation --> <!-- kp:minutes -->7<!-- /kp -->", "kp:rotation has no end"),
    ],
)
def test_a_page_that_cannot_be_filled_is_one_line(root, capsys, text, message):
    (root / "page.md").write_text(text)
    assert main(["report"]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert (root / "page.md").read_text() == text


def test_a_missing_page_and_a_damaged_result_are_one_line(root, capsys):
    (root / pages.RESULTS / "builtin.json").write_text("{")
    assert main(["report"]) == 1
    assert "builtin.json cannot be read" in capsys.readouterr().err
    (root / "page.md").unlink()
    assert main(["report"]) == 1
    err = capsys.readouterr().err
    assert "page.md cannot be read" in err
    assert len(err.splitlines()) == 1


def test_the_pages_say_what_the_results_say():
    assert pages.differing(pages.fill()) == [], "run python -m kp report"


@pytest.mark.parametrize("page", pages.PAGES)
def test_inline_markers_are_within_a_line(page):
    """Markdown takes a line that begins with a comment as HTML and does not format it."""
    for line in (pages.ROOT / page).read_text().splitlines():
        assert not re.match(r" *<!--", line) or re.fullmatch(r"<!-- [^>]+ -->", line), line


def test_every_name_is_used():
    text = "".join((pages.ROOT / page).read_text() for page in pages.PAGES)
    assert set(re.findall(r"<!-- kp:(\S+) -->", text)) == set(pages.NAMES)
