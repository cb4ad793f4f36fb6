"""Tables as text, Markdown and HTML, each read back by a reader that shares no code."""

from html.parser import HTMLParser

import numpy as np
import pytest

from kp.reporting.tables import Column, Table, shade

COLUMNS = [
    Column("i", 3, "repeatability", "kp"),
    Column("v", 3, "repeatability"),
    Column("error (px)", 2, best="<random>"),
]
ROWS = [
    ("harris", [(0.25, "0.2 to 0.3"), 0.5, 1.204]),
    ("kp", [(0.75, "0.7 to 0.8"), None, 1.196]),
    ("<random>", [0.9, 0.1, 0.5]),
]
TABLE = Table("detector", COLUMNS, ROWS, footnotes=["pairs: 3"])


class Cells(HTMLParser):
    """The lines of a table as (text, colspan, rowspan) of each cell, and the texts in bold."""

    def __init__(self, text):
        super().__init__()
        self.lines, self.bold, self.open = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.open.append(tag)
        if tag == "tr":
            self.lines.append([])
        if tag in ("th", "td"):
            self.lines[-1].append(["", int(given.get("colspan", 1)), int(given.get("rowspan", 1))])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.lines[-1][-1][0] += data
        if "strong" in self.open:
            self.bold.append(data)


def test_text_is_aligned():
    assert TABLE.text().splitlines() == [
        "                      repeatability",
        "detector                   i      v  error (px)",
        "harris    0.250 (0.2 to 0.3)  0.500        1.20",
        "kp        0.750 (0.7 to 0.8)      -        1.20",
        "<random>               0.900  0.100        0.50",
        "pairs: 3",
    ]


def test_a_wide_group_widens_its_columns():
    table = Table("name", [Column("a", 0, "a long group"), Column("b", 0, "a long group"), Column("c", 0)], [])
    assert table.text().splitlines() == ["      a long group", "name          a  b  c"]
    assert {len(line) for line in Table("n", table.columns, [("n", [1, 2, 3])]).row_lines()} == {18}


def test_rows_printed_one_by_one_are_the_table():
    columns = [Column("i_25", width=5), Column("v", width=5), Column("what", left=True, width=4)]
    rows = [("harris", [0.5, None, "a"]), ("kp", [0.25, 0.125, "b"])]
    whole = Table("detector", columns, rows)
    lines = [line for row in rows for line in Table("detector", columns, [row]).row_lines()]
    assert [*whole.head_lines(), *lines] == whole.text().splitlines()


def test_markdown_marks_the_best():
    assert TABLE.markdown().splitlines() == [
        "| detector | repeatability: i | repeatability: v | error (px) |",
        "| --- | --- | --- | --- |",
        "| harris | 0.250 (0.2 to 0.3) | 0.500 | 1.20 |",
        "| kp | **0.750 (0.7 to 0.8)** | - | 1.20 |",
        "| <random> | 0.900 | 0.100 | **0.50** |",
        "",
        "pairs: 3",
    ]


def test_html_has_the_same_cells():
    read = Cells(TABLE.html())
    assert read.lines[0] == [["detector", 1, 2], ["repeatability", 2, 1], ["error (px)", 1, 2]]
    assert [text for text, *_ in read.lines[1]] == ["i", "v"]
    assert [[text.strip() for text, *_ in line] for line in read.lines[2:]] == [
        ["harris", "0.2500.2 to 0.3", "0.500", "1.20"],
        ["kp", "0.7500.7 to 0.8", "-", "1.20"],
        ["<random>", "0.900", "0.100", "0.50"],
    ]
    assert read.bold == ["0.750", "0.50"]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1234567, 0, "1,234,567"), (-0.0004, 3, "0.000"), (np.float32(0.5), 2, "0.50"), (None, 3, "-"), ("", 3, "")],
)
def test_values_as_text(value, digits, text):
    assert Table("", [Column("n", digits, width=9)], [("a", [value])]).row_lines() == [f"a  {text:>9}".rstrip()]


def test_nothing_is_bold_unless_it_is_named():
    assert "**" not in Table("", [Column("i"), Column("v", best="c")], [("a", [0.5, 1]), ("b", [0.25, 2])]).markdown()


def test_rows_without_values_are_headings():
    table = Table("sequence", [Column("kp", 2, shade=True)], [("light", []), ("i_a", [0]), ("view", []), ("v_a", [1])])
    read = Cells(table.html())
    assert read.lines == [
        [["sequence", 1, 1], ["kp", 1, 1]],
        [["light", 2, 1]],
        [["i_a", 1, 1], ["0.00", 1, 1]],
        [["view", 2, 1]],
        [["v_a", 1, 1], ["1.00", 1, 1]],
    ]
    assert table.html().count("<tbody>") == table.html().count("</tbody>") == 2
    assert table.text().splitlines()[1:3] == ["light", "i_a       0.00"]


def test_numbers_are_legible_on_every_shade():
    for value in np.linspace(0, 1, 101):
        light, dark = sorted(map(luminance, shade(value)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4


def luminance(colour):
    """The relative luminance that WCAG 2 defines for contrast."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
