"""What changes in a sequence beside its split: the light's exposure, a webcam's day and season, blur, JPEG, viewpoint.

Kinds are read from the file ``INDEX.md`` of the folder of sequences, or known for public sequences.
"""

from collections.abc import Sequence
from pathlib import Path

INDEX = "INDEX.md"
VIEWPOINT, OTHER = "viewpoint", "other"
_KEYWORDS = ("exposure", "webcam", "blur", "JPEG")  # the kinds that an index can name; the first one found counts
_PUBLIC = {
    "leuven": "exposure",  # Oxford's (Mikolajczyk et al., IJCV 2005)
    "bikes": "blur",
    "trees": "blur",
    "ubc": "JPEG",
    **dict.fromkeys(("chamonix", "courbevoie", "frankfurt", "mexico", "panorama", "stlouis"), "webcam"),  # TILDE's
}


def kinds(root: Path | None, names: Sequence[str]) -> dict[str, str]:
    """The kind of each named sequence of a folder: of ``v_*`` always ``viewpoint``, where nothing is known ``other``.

    ``INDEX.md`` in the folder is read as Markdown: of a row of a table whose first cell is a sequence's name, the last
    cell says ``exposure``, ``webcam``, ``blur`` or ``JPEG``, in a text of any case. A row that says none, or no row,
    leaves what is known of the public sequences of Oxford and TILDE.
    """
    index = _read_index(root / INDEX) if root is not None and (root / INDEX).is_file() else {}
    return {name: VIEWPOINT if name.startswith("v_") else index.get(name) or _public(name) for name in names}


def _public(name: str) -> str:
    return _PUBLIC.get(name.removeprefix("i_"), OTHER)


def _read_index(path: Path) -> dict[str, str | None]:
    """What the last cell of a row says, by the row's first cell."""
    found = {}
    for line in path.read_text("utf-8", errors="replace").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if "|" in line and len(cells) > 1:
            found[cells[0].strip("`* ")] = next((key for key in _KEYWORDS if key.lower() in cells[-1].lower()), None)
    return found
