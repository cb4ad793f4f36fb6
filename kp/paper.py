"""The report as a PDF: Pandoc turns its Markdown into Typst, which sets the pages; both come as Python packages."""

from pathlib import Path

_STYLE = """
#set page(paper: "a4", margin: (x: 1.6cm, y: 1.2cm), numbering: none)
#set text(font: "Libertinus Serif", size: 9pt, lang: "en")
#set par(justify: true, leading: 0.5em, spacing: 0.75em)
#set list(spacing: 0.5em)
#set table(stroke: none, inset: (x: 2pt, y: 1pt))
#show heading: set block(above: 0.9em, below: 0.5em)
#show heading.where(level: 1): set text(size: 14pt)
#show heading.where(level: 2): set text(size: 10.5pt)
#show figure: set block(above: 0.7em, below: 0.7em, breakable: true)
#show figure.where(kind: image): set figure(supplement: none, numbering: none)
#show table.cell.where(x: 0): set align(left)
#show table: set text(size: 6.5pt)
#show table: set par(justify: false)
#show raw: set text(font: "DejaVu Sans Mono", size: 0.86em)
#let horizontalrule = line(length: 100%, stroke: 0.4pt)
"""


def pdf(markdown: str, folder: Path) -> bytes:
    """The content of a PDF file; pictures are found from ``folder``.

    Only typefaces that come with Typst are used, and no date is noted, so that every machine gives the same. Raises
    ValueError, in one line, where a package is missing or a picture is.
    """
    try:
        import pypandoc
        import typst
    except ImportError as error:
        raise ValueError(f"a PDF needs the package {error.name}: pip install pypandoc_binary typst") from None
    try:
        body = pypandoc.convert_text(markdown, "typst", format="gfm+tex_math_dollars+implicit_figures")
        return typst.compile((_STYLE + body).encode(), root=folder, ignore_system_fonts=True, timestamp=0)
    except RuntimeError as error:
        raise ValueError(f"the report cannot be set: {str(error).splitlines()[0]}") from error
