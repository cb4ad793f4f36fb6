"""Write the numbers of the stored results into README.md, notebooks/report.md and notebooks/results.md.

These pages are edited by hand, except between two markers: <!-- kp:NAME --> and <!-- /kp -->. What stands between them
is replaced by what NAME stands for, such as a table. Its numbers come from the files in notebooks/results. An opening
marker that ends its line holds a block; any other marker holds a part of a sentence.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from kp.config import WEIGHTS, RunSettings
from kp.evaluation.summary import SPLITS
from kp.reporting.page_tables import Read, ablation, errors, full_size, measured, models, rows, sizes, sweep, swept

ROOT = Path(__file__).parents[2]
RESULTS = Path("notebooks/results")
PAGES = ("README.md", "notebooks/report.md", "notebooks/results.md")
_MARKED = re.compile(r"(<!-- kp:(\S+) -->)(.*?)(<!-- /kp -->)", re.DOTALL)
_MARKER = re.compile(r"<!-- (?:kp:|/kp)[^\n]*?-->")


def fill() -> dict[Path, str]:
    """The text of every page by its path. Raises ValueError where a page, marker or result is missing or damaged."""
    read = _reader(ROOT / RESULTS)
    return {ROOT / name: fill_text(_text(ROOT / name), name, read) for name in PAGES}


def differing(pages: Mapping[Path, str]) -> list[Path]:
    """The pages whose file does not hold this text."""
    return [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def fill_text(text: str, page: str, read: Read) -> str:
    """The text with what its markers stand for between them. ``page`` is its name in messages of errors."""

    def filled(match: re.Match) -> str:
        opening, name, old, closing = match.groups()
        if _MARKER.search(old):
            raise ValueError(f"{page}: the marker kp:{name} has no end")
        if name not in NAMES:
            raise ValueError(f"{page}: no number or table is called {name}, see kp/reporting/pages.py")
        try:
            new = NAMES[name](read)
        except (KeyError, TypeError, IndexError, AttributeError, StopIteration, ZeroDivisionError) as error:
            raise ValueError(f"{page}: {name}: a result is missing or damaged: {error!r}") from error
        return f"{opening}\n\n{new}\n\n{closing}" if old.startswith("\n") else f"{opening}{new}{closing}"

    if stray := _MARKER.search(_MARKED.sub("", text)):
        raise ValueError(f"{page}: {stray[0]} is half of a pair of markers")
    return _MARKED.sub(filled, text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _reader(folder: Path) -> Read:
    """A function that reads a JSON file of ``folder``, once."""

    def read(name: str) -> Any:
        try:
            return json.loads((folder / name).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{folder / name} cannot be read: {error}") from None

    return cache(read)


def _stored(file: str, *path: str, digits: int = 3) -> Callable[[Read], str]:
    """What reads one number from a file."""

    def number(read: Read) -> str:
        value = read(file)
        for key in path:
            value = value[key]
        return f"{value:.{digits}f}"

    return number


def _row(file: str, split: str, measure: str, digits: int = 3) -> Callable[[Read], str]:
    """What reads one number of the detector kp, protocol native."""
    return lambda read: f"{rows(read(file))['kp'][split][measure]:.{digits}f}"


def _minutes(read: Read) -> str:
    return ", ".join(f"{model['name']} {model['minutes']:.0f}" for model in read("models.json"))


def _turned(read: Read, degrees: float) -> str:
    """Repeatability of kp on turned photographs, as a share of that on photographs that are not turned."""
    points = sweep(read("builtin.json"), "rotation")["kp"]
    return f"{points[degrees]['repeatability'] / points[0.0]['repeatability']:.3f}"


def _halved(read: Read, detector: str, measure: str = "repeatability") -> float:
    return sweep(read("builtin.json"), "scale")[detector][0.5][measure]


_PROTOCOLS = ("native", "240x320", "480x640", "squash")
NAMES: dict[str, Callable[[Read], str]] = {
    **{
        f"table-{name}": lambda read, name=name: measured(read("sequences.json"), name).markdown()
        for name in _PROTOCOLS
    },
    **{
        f"protocol-{name}": lambda read, name=name: read("sequences.json")["settings"]["protocols"][name]["summary"]
        for name in _PROTOCOLS
    },
    "table-short": lambda read: measured(read("sequences.json"), without="kornia-").markdown(),
    "table-builtin": lambda read: measured(read("builtin.json")).markdown(),
    "rotation": lambda read: swept(read("builtin.json"), "rotation").markdown(),
    "scale": lambda read: swept(read("builtin.json"), "scale").markdown(),
    "four-sizes": lambda read: sizes(read).markdown(),
    "full-size": lambda read: full_size(read, errors=False).markdown(),
    "full-size-error": lambda read: full_size(read, errors=True).markdown(),
    "models": lambda read: models(read("models.json"), read("sequences.json")).markdown(),
    "errors": lambda read: errors(read).markdown(),
    "ablation": lambda read: ablation(read("ablation.json")["entries"]),
    "minutes": _minutes,
    "turned-45": lambda read: _turned(read, 45.0),
    "turned-90": lambda read: _turned(read, 90.0),
    "half-scale-kp": lambda read: f"{_halved(read, 'kp'):.3f}",
    "half-scale-harris": lambda read: f"{_halved(read, 'harris'):.3f}",
    "half-scale-points": lambda read: f"{2 * _halved(read, 'kp', 'common') - 300:.0f}",  # of the smaller view
    **{f"h100-{split}": _row("h100.json", split, "repeatability") for split in SPLITS},
    "h100-error": _row("h100.json", "all", "localisation_error", 2),
    "h100-homography": _row("h100.json", "all", "homography_3px"),
    "h100-wall": _stored("h100_training.json", "wall_seconds", digits=0),
    "h100-seconds": _stored("h100_training.json", "many_steps_at_once", "seconds", digits=0),
    "h100-rate": _stored("h100_training.json", "many_steps_at_once", "steps_per_second_after_20", digits=1),
    "h100-rate-one": _stored("h100_training.json", "one_step_at_a_time", "steps_per_second_after_20", digits=1),
    "longer-hard": _stored("longer.json", "scores", "runs/minutes120/weights.safetensors", "hard_75"),
    "shipped-hard": _stored("longer.json", "scores", WEIGHTS, "hard_75"),
    **{
        f"full-{kind}": _stored("full_size.json", "scores", WEIGHTS, f"{kind}_error", digits=2)
        for kind in ("light", "relit", "focus", "zoom", "tilt")
    },
    **{
        f"full-four-{kind}": _stored("full_size_four_sizes.json", "scores", WEIGHTS, f"{kind}_error", digits=2)
        for kind in ("focus", "zoom")
    },
    **{
        f"setting-{name}": lambda _, group=group, name=name: f"{getattr(getattr(RunSettings(), group), name):g}"
        for group, names in {
            "detector": ("stride", "mix_blur"),
            "train": (
                "steps",
                "batch",
                "lr",
                "temperature",
                *(f"{term}_weight" for term in ("repeatability", "localization", "corner")),
            ),
            "world": ("image_size",),
        }.items()
        for name in names
    },
}
