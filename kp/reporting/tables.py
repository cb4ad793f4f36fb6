"""A table of numbers, written as aligned text, as Markdown or as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.colors import to_hex

Value = float | str | tuple[float | str | None, str] | None
Row = tuple[str, Sequence[Value]]
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("kp", "reporting"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_GAP = "  "  # between two columns of text


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    title   its heading
    digits  after the decimal point
    group   a heading that neighbouring columns with the same group share
    best    the name of the row whose value is marked as the best; None marks no value
    left    True aligns text at the left
    shade   True gives each cell a background: white for 0, dark blue for 1 (HTML only)
    width   the least number of characters (text only)
    """

    title: str
    digits: int = 3
    group: str = ""
    best: str | None = None
    left: bool = False
    shade: bool = False
    width: int = 0


@dataclass(frozen=True)
class Cell:
    """What a cell shows: a text, a second text beside it, whether it is the best, and its CSS style."""

    text: str
    note: str = ""
    best: bool = False
    style: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclass(frozen=True)
class Table:
    """Rows with a name and a value for each column.

    A value is a number, a text, None (shown as "-"), or a pair of a number and a text that is shown beside it. A row
    without values is a heading for the rows below it.

    Example:
        >>> table = Table("detector", [Column("error (px)", digits=2, best="kp")], [("kp", [0.9]), ("harris", [1])])
        >>> print(table.text())
        detector  error (px)
        kp              0.90
        harris          1.00

    title      heading of the column of names
    footnotes  lines below the table
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    footnotes: Sequence[str] = ()

    def text(self) -> str:
        """The table for a terminal. The best values are not marked."""
        return "\n".join([*self.head_lines(), *self.row_lines(), *self.footnotes])

    def head_lines(self) -> list[str]:
        """The headings as text: one line, or two if a column has a group."""
        first, *widths = self._widths  # a copy: groups take from it below
        lines = [self._line(self.title, [column.title for column in self.columns])]
        if any(column.group for column in self.columns):
            groups = " " * first
            for members in _by_group(self.columns):
                room = sum(widths[: len(members)]) + len(_GAP) * (len(members) - 1)
                groups += _GAP + members[0].group.rjust(room)
                del widths[: len(members)]
            lines.insert(0, groups.rstrip())
        return lines

    def row_lines(self) -> list[str]:
        """The rows as text. Where columns have a ``width``, tables of one row each print the rows one by one."""
        return [self._line(name, [str(cell) for cell in cells]) for name, cells in self.cells]

    def markdown(self) -> str:
        """The table as Markdown. The best value of a column is bold."""
        heads = [f"{column.group}: {column.title}" if column.group else column.title for column in self.columns]
        lines = [[self.title, *heads], ["---"] * (len(heads) + 1)]
        for name, cells in self.cells:
            shown = [f"**{cell}**" if cell.best else str(cell) for cell in cells] or [""] * len(heads)
            lines.append([name, *shown])
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([table, *self.footnotes])

    def html(self) -> Markup:
        """The table as an HTML element. The best value of a column is bold."""
        return Markup(TEMPLATES.get_template("table.html.j2").render(table=self, groups=_by_group(self.columns)))

    @cached_property
    def cells(self) -> list[tuple[str, list[Cell]]]:
        """Each row's name and what its cells show."""
        lines = []
        for name, values in self.rows:
            best = [column.best == name for column in self.columns]
            lines.append((name, list(map(_cell, self.columns, values, best))))
        return lines

    @cached_property
    def _widths(self) -> list[int]:
        """Characters of the column of names and of each column: room for cells, titles and groups."""
        rows = self.cells
        shown = [[str(cell) for cell in cells] for _, cells in rows if cells]
        widths = [
            max([column.width, len(column.title), *(len(line[i]) for line in shown)])
            for i, column in enumerate(self.columns)
        ]
        at = 0
        for members in _by_group(self.columns):
            room = sum(widths[at : at + len(members)]) + len(_GAP) * (len(members) - 1)
            widths[at] += max(0, len(members[0].group) - room)
            at += len(members)
        return [max(map(len, [self.title, *(name for name, _ in rows)])), *widths]

    def _line(self, name: str, texts: Sequence[str]) -> str:
        first, *widths = self._widths
        aligned = [
            text.ljust(width) if column.left else text.rjust(width)
            for text, column, width in zip(texts, self.columns, widths, strict=False)  # a heading has no texts
        ]
        return _GAP.join([name.ljust(first), *aligned]).rstrip()


def shade(value: float) -> tuple[str, str]:
    """A background for a share in [0, 1], from white to dark blue, and the colour of text that is legible on it."""
    rgb = matplotlib.colormaps["Blues"](value)[:3]
    luminance = sum(weight * part**2.2 for weight, part in zip((0.2126, 0.7152, 0.0722), rgb, strict=True))
    return to_hex(rgb), "#ffffff" if luminance < 0.18 else "#111111"  # at 0.18, white and black contrast alike


def _by_group(columns: Sequence[Column]) -> list[list[Column]]:
    """Neighbouring columns that share a group; a column without a group stands alone."""
    keys = [column.group or f"column {i}" for i, column in enumerate(columns)]
    return [[columns[i] for i in members] for _, members in groupby(range(len(columns)), key=keys.__getitem__)]


def _number(value: Value) -> Value:
    """The value without the text beside it."""
    return value[0] if isinstance(value, tuple) else value


def _format(value: float | str | None, digits: int) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "-"
    return f"{round(value, digits) + 0.0:,.{digits}f}"  # + 0.0: a zero without a minus


def _cell(column: Column, value: Value, best: bool) -> Cell:
    number = _number(value)
    text = _format(number, column.digits)
    style = ""
    if column.shade and number is not None:
        background, colour = shade(number)
        style = f"background:{background};color:{colour}"
    return Cell(text, value[1] if isinstance(value, tuple) else "", best, style)
