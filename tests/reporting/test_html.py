"""The page, read back by a parser of HTML: it is one file, it has every number, and no name becomes markup."""

import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from kp.evaluation import results
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.results import settings, versions
from kp.reporting.html import write_page
from kp.reporting.images import Example, Marks
from kp.support.files import FileError

VOID = {"meta", "img", "br"}
EVIL = '<script>alert("1")</script>'
SINGLE = ["common", "coverage", "chance", "one_to_one", "matches"]
PIXELS = ["repeatability", "matching_accuracy"]


class Reader(HTMLParser):
    """Tags with their attributes, the text, and tables as lists of lists of cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.tables, self.bold = [], [], [], [], []
        self.feed(text)
        assert not self.open, "a tag is not closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data + (" " if "small" not in self.open else "")
        if "strong" in self.open:
            self.bold.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def record(detector, sequence, image, value, protocol="native", **changes):
    """All numbers of a pair, all different."""
    named = {"protocol": protocol, "detector": detector, "sequence": sequence, "split": sequence[0], "image": image}
    numbers = {name: value / (3 + i) for i, name in enumerate(SINGLE)}
    numbers |= {f"{name}_{n}px": value * n / (7 + i) for i, name in enumerate(PIXELS) for n in (1, 3, 5)}
    numbers |= {"common": 300 * value, "matches": 100 * value, "corner_error": 4 * value, "repeated": 1.0}
    return named | {"repeatability": value, "localisation_error": 1 + value} | numbers | changes


def content(records, protocols=("native",), complete=True, skipped=None, split="all", **others):
    protocol = settings("the source", [PROTOCOLS[name] for name in protocols], split=split)
    return results.content(records, protocol, None, skipped, complete) | others


def several():
    values = {"kp": 0.75, "harris": 0.5, "random": 0.0625}
    found = [(name, s, k) for name in values for s in ("i_a", "i_b", "v_c") for k in (2, 3)]
    return [record(name, s, k, values[name] * (1 - 0.1 * k - 0.05 * (s == "v_c"))) for name, s, k in found]


def example(**changes):
    marks = Marks(np.zeros((3, 2)), np.zeros((2, 2)), np.zeros((7, 2)))
    other = Marks(np.zeros((4, 2)), np.zeros((1, 2)), np.zeros((0, 2)))
    pictures = tuple(np.full((48, 64, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 30, 200)))
    return replace(Example("best", "native", "kp", "v_c", 3, 0.625, (marks, other), pictures), **changes)


def curves():
    return [
        {"sweep": sweep, "value": value, "detector": name, "repeatability": 0.5, "localisation_error": None}
        | {"chance": 0.1, "common": 3.0, "homography_3px": 0.25, "interval": [0.4, 0.6], "pairs": 2}
        for sweep in ("rotation", "scale")
        for value in (1.0, 2.0)
        for name in ("kp", "harris")
    ]


def read(tmp_path, *args):
    path = write_page(tmp_path / "deep" / "report", *args)
    assert list(path.parent.iterdir()) == [path]
    assert path.name == "index.html"
    return Reader(path.read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A page with all parts, its text, and the content that it shows."""
    folder, made = tmp_path_factory.mktemp("whole"), content(several(), curves=curves(), checks=["see https://a.org"])
    page = read(folder, made, [example()])
    return page, next((folder / "deep" / "report").iterdir()).read_text(), made


def svgs(page):
    sources = [attributes["src"] for attributes in page.all("img")]
    data = [source.removeprefix("data:image/svg+xml;base64,") for source in sources if "svg" in source[:20]]
    return [ElementTree.fromstring(b64decode(text, validate=True)) for text in data]


def test_the_page_needs_no_other_file_and_no_network(whole):
    page, text, _ = whole
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base"}
    sources = [attributes["src"] for attributes in page.all("img")]
    assert len(sources) == 3 + 3 + 4 + 2  # bars of splits; other plots; curves; a pair
    assert all(source.startswith("data:image/") for source in sources)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {a["href"] for a in page.all("a")} == {f"#{name}" for name in ids}
    assert not re.search(r"url\(|@import|srcset|\son\w+=", text)
    assert "see https://a.org" in page.text


def test_pictures_say_what_they_show(whole):
    page = whole[0]
    assert all(len(attributes["alt"]) > 20 for attributes in page.all("img"))
    assert all("scope" in attributes for attributes in page.all("th"))
    assert len(page.all("figcaption")) == len(page.all("figure"))
    assert page.all("html") == [{"lang": "en"}]


def expected_line(rows, name, splits):
    """The cells of a detector's line, written out by hand."""
    of = {row["split"]: row for row in rows if row["detector"] == name}
    line = [f"{of[s]['repeatability']:.3f} {of[s]['interval'][0]:.3f} to {of[s]['interval'][1]:.3f}" for s in splits]
    row = of[splits[-1]]
    line += [f"{row[f'repeatability_{n}px']:.3f}" for n in (1, 3, 5)]
    line += [f"{row['one_to_one']:.3f}", f"{row['localisation_error']:.2f}", f"{row['common']:.0f}"]
    line += [f"{row['coverage']:.2f}", f"{row['chance']:.3f}"]
    line += [f"{row[f'homography_{n}px']:.3f}" for n in (1, 3, 5)] + [f"{row['homography_auc_5px']:.3f}"]
    line += [f"{row[f'matching_accuracy_{n}px']:.3f}" for n in (1, 3, 5)]
    return [name, *line, f"{row['matches']:.0f}", str(row["pairs"])]


def test_every_rows_numbers_are_on_the_page(whole):
    page, _, made = whole
    for table, splits in zip(page.tables, (["i", "v", "all"], ["i"], ["v"]), strict=False):
        for name, line in zip(("kp", "harris", "random"), table[2:], strict=True):
            assert [cell.strip() for cell in line] == expected_line(made["rows"], name, splits)
    for split, image in zip(("i", "v", "all"), page.all("img"), strict=False):
        values = [f"{r['detector']} {r['repeatability']:.3f}" for r in made["rows"] if r["split"] == split]
        assert image["alt"].endswith(", ".join(values))


def test_what_is_better_in_every_sequence_is_bold_and_a_small_error_is_better(tmp_path):
    """a repeats twice as much as b in both sequences and is half as exact; nobody competes with random."""
    values = {"a": 0.5, "b": 0.25, "random": 1.0}
    errors = {"a": 2.0, "b": 1.25, "random": 0.5}
    records = [record(n, s, 2, v, localisation_error=errors[n]) for n, v in values.items() for s in ("i_a", "i_b")]
    page = read(tmp_path, content(records, split="i"))
    of_a = ["0.500", "0.071", "0.214", "0.357", "0.083", "0.12", "0.062", "0.188", "0.312"]  # 0.5, / 7, 6, 4 and 8 * px
    of_b = ["1.25", "1.000"]  # its corners are off by 1 px, those of a by 2
    assert sorted(page.bold) == sorted(of_a + of_b)
    for few in (records[:2], records[:1] + records[2:3]):  # one detector, one sequence
        assert not read(tmp_path, content(few, split="i")).bold
    won_and_lost = [records[0], records[1] | {"repeatability": 0.125}, *records[2:]]
    assert "0.312" in page.bold
    bold = read(tmp_path, content(won_and_lost, split="i")).bold
    assert "0.312" in bold
    assert len(bold) == len(page.bold) - 1, "the mean of a is above that of b, but not in both sequences"


def test_kinds_and_differences_are_on_the_page(tmp_path):
    values = {"kp": {"i_a": 0.5, "i_b": 0.75}, "harris": {"i_a": 0.25, "i_b": 0.25}}
    kinds = {"i_a": "blur", "i_b": "exposure"}
    records = [record(n, s, 2, v, kind=kinds[s]) for n, of in values.items() for s, v in of.items()]
    page = read(tmp_path, content(records, split="i"))
    table = [[" ".join(cell.split()) for cell in line] for line in page.tables[1]]
    assert table == [
        ["detector", "blur (1)", "exposure (1)"],
        ["kp", "0.500 0.500 to 0.500", "0.750 0.750 to 0.750"],
        ["harris", "0.250 0.250 to 0.250", "0.250 0.250 to 0.250"],
    ]
    [line] = [text for text in page.text if text.startswith("kp - harris")]
    assert line == "kp - harris: i +0.375 [+0.250, +0.500] better"
    same = read(tmp_path, content([r | {"kind": "blur"} for r in records], split="i"))
    assert not any("by kind" in a.get("aria-label", "") for a in same.all("div"))
    assert any("by kind" in a.get("aria-label", "") for a in page.all("div"))


def test_sequences_are_shaded_in_groups_with_means_over_their_pairs(tmp_path):
    records = [record("a", "v_z", 2, 0.25), record("a", "v_z", 3, 0.75), record("b", "i_y", 2, 1.0)]
    page = read(tmp_path, content([*records, record("a", "i_y", 2, 0.0)]))
    table = [[cell.strip() for cell in line] for line in page.tables[-1]]
    assert table == [
        ["sequence", "a", "b"],
        ["illumination"],
        ["i_y", "0.00", "1.00"],
        ["viewpoint"],
        ["v_z", "0.50", "-"],
    ]
    styles = [dict(part.split(":") for part in a["style"].split(";")) for a in page.all("td") if "style" in a]
    lights = [sum(int(style["background"][i : i + 2], 16) for i in (1, 3, 5)) for style in styles]
    assert lights[0] > lights[2] > lights[1], "0, 0.5 and 1 get darker"


def test_names_of_users_are_text_everywhere(tmp_path):
    records = [record(EVIL, f"v_{EVIL}", 2, 0.5), record("b", "i_a", 2, 0.25)]
    made = content(records, skipped={EVIL: EVIL}, checks=[EVIL], curves=[c | {"detector": EVIL} for c in curves()])
    made["settings"]["source"] = EVIL
    made["weights"] = {"path": EVIL, "sha256": "0"}
    page = read(tmp_path, made, [example(sequence=EVIL, detector=EVIL)])
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script" not in next((tmp_path / "deep" / "report").iterdir()).read_text()
    assert sum(text.count(EVIL) for text in page.text) >= 12
    texts = ["".join(node.itertext()) for svg in svgs(page) for node in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert EVIL in texts


def test_a_run_that_was_stopped_has_a_banner_and_another_none(tmp_path):
    banners = [read(tmp_path, content([], complete=done)).all("p") for done in (True, False)]
    assert [sum(a.get("class") == "banner" for a in found) for found in banners] == [0, 1]


def test_where_the_numbers_come_from_is_on_the_page(tmp_path):
    (tmp_path / "weights").write_bytes(b"abc")
    names = ["native", "squash"]
    protocol = settings("some place", [PROTOCOLS[name] for name in names], split="all", subpixel=True, seed=7)
    records = [record("kp", "i_a", 2, 0.5, name) for name in names]
    page = read(
        tmp_path, results.content(records, protocol, results.fingerprint(tmp_path / "weights"), {"disk": "no network"})
    )
    text = " ".join(page.text)
    # FIPS 180-2, appendix B.1
    for part in ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "Weights of kp: weights,"):
        assert part in text
    assert "disk was skipped: no network" in text
    assert all(f"{name} {version}" in text for name, version in versions().items())
    assert all(PROTOCOLS[name].describe() in page.text for name in names)
    assert all(value in page.text for value in protocol.values() if isinstance(value, str))
    assert len(page.tables) == 2 * 3  # all, illumination, by sequence


def test_examples_are_shown_with_their_numbers(tmp_path):
    page = read(tmp_path, content([]), [example(), example(kind="worst", sequence="i_b")])
    text = " ".join(page.text)
    # 3 + 4 of 5 + 5 points, see example()
    assert "repeatability 0.700 (the sequence's mean is 0.625). Found again: 3 of 5 and 4 of 5 keypoints." in text
    assert text.index("best sequences of kp") < text.index("worst sequences of kp")
    sources = [a["src"] for a in page.all("img") if a["src"].startswith("data:image/jpeg")]
    decoded = [np.frombuffer(b64decode(s.split(",")[1], validate=True), np.uint8) for s in sources]
    pictures = [cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1] for data in decoded]
    assert [p.shape for p in pictures] == [(48, 64, 3)] * 4
    assert np.abs(pictures[0].astype(int) - [200, 30, 30]).max() < 10
    assert np.abs(pictures[1].astype(int) - [30, 30, 200]).max() < 10


@pytest.mark.parametrize(
    "records",
    [
        [],
        [record("kp", "v_a", 2, 0.5)],
        [record("kp", "v_a", 2, 0.0, localisation_error=None, corner_error=None, common=0.0)],
        [record("a", "v_a", 2, 0.5), record("b", "v_a", 2, 0.5, localisation_error=None)],
    ],
    ids=["nothing", "one detector", "no keypoint", "one without an error"],
)
def test_what_is_missing_is_left_out(tmp_path, records):
    page = read(tmp_path, content(records))
    found = sum(a["src"].startswith("data:image/svg") for a in page.all("img"))
    splits = 2 if records else 0
    assert found == splits + 3 * bool(records)
    assert ("Nothing was measured." in page.text) == (not records)
    assert "Rotation and scale" not in page.text
    errors = [line[6 + splits - 1].strip() for line in page.tables[0][2:]] if records else []
    wanted = ["-" if r["localisation_error"] is None else f"{r['localisation_error']:.2f}" for r in records]
    assert errors == wanted


def test_a_page_replaces_the_one_before_and_says_where_it_cannot_be_written(tmp_path):
    write_page(tmp_path, content([], skipped={"harris": "why"}))
    path = write_page(tmp_path, content([], skipped={"kp": "why"}))
    assert "kp was skipped" in path.read_text()
    assert "harris" not in path.read_text()
    with pytest.raises(FileError, match="cannot be written"):
        write_page(path, content([]))


def test_whole_hpatches_stays_small(tmp_path):
    names = [f"{split}_{n}" for split in "iv" for n in range(58)]
    records = [record(f"d{d}", name, 2, 0.5) for d in range(12) for name in names]
    path = write_page(tmp_path, content(records))
    assert path.stat().st_size < 1.5e6  # to which the pictures of six pairs add two to three
    assert len(Reader(path.read_text()).tables[-1]) == 1 + 2 + 116
