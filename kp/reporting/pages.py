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
from statistics import fmean
from typing import Any

from kp.config import WEIGHTS, RunSettings
from kp.evaluation import ablation_results
from kp.evaluation.summary import SPLITS
from kp.reporting import result_tables
from kp.reporting.tables import Column, Table

ROOT = Path(__file__).parents[2]
RESULTS = Path("notebooks/results")
PAGES = ("README.md", "notebooks/report.md", "notebooks/results.md")
UNRANKED = ("random",)  # the chance level is never the best
_MARKED = re.compile(r"(<!-- kp:(\S+) -->)(.*?)(<!-- /kp -->)", re.DOTALL)
_MARKER = re.compile(r"<!-- (?:kp:|/kp)[^\n]*?-->")

Content = Mapping[str, Any]
Read = Callable[[str], Any]


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


def rows(content: Content, protocol: str = "native") -> dict[str, dict[str, Content]]:
    """Means over pairs by detector and split."""
    found: dict[str, dict[str, Content]] = {}
    for row in content["rows"]:
        if row["protocol"] == protocol:
            found.setdefault(row["detector"], {})[row["split"]] = row
    if not found:
        raise ValueError(f"the results have no row of protocol {protocol}")
    return found


def measured(content: Content, protocol: str = "native", without: str | None = None) -> Table:
    """One protocol: a line per detector, but for those whose name begins with ``without``."""
    columns = [*(Column(f"`{split}`", best=max) for split in SPLITS[:2]), Column("all (95 %)", best=max)]
    columns += [Column("one-to-one", best=max), Column("chance"), Column("error (px)", 2, best=min)]
    lines = []
    for name, row in rows(content, protocol).items():
        if without and name.startswith(without):
            continue
        over_all = row["all"]
        interval = " to ".join(f"{end:.3f}" for end in over_all["interval"])
        values = [row[split]["repeatability"] for split in SPLITS[:2]] + [(over_all["repeatability"], interval)]
        others = [over_all[key] for key in ("one_to_one", "chance", "localisation_error", "homography_3px")]
        lines.append((name, values + others))
    return Table("detector", [*columns, Column("H 3 px", best=max)], lines, UNRANKED)


def sweep(content: Content, kind: str) -> dict[str, dict[float, Content]]:
    """The points of a curve by detector and value: photographs turned (``rotation``, degrees) or shrunk (``scale``)."""
    found: dict[str, dict[float, Content]] = {}
    for point in content["curves"]:
        if point["sweep"] == kind:
            found.setdefault(point["detector"], {})[point["value"]] = point
    if not found:
        raise ValueError(f"the results have no {kind} curve: measure with --curves")
    return found


def swept(content: Content, kind: str) -> Table:
    """Repeatability along a curve: a line per detector, a column per value."""
    found = sweep(content, kind)
    values = list(next(iter(found.values())))
    lines = [(name, [points[value]["repeatability"] for value in values]) for name, points in found.items()]
    return Table("detector", [Column(f"{value:.3g}", best=max) for value in values], lines, UNRANKED)


def models(costs: list[Content], content: Content) -> Table:
    """What the shipped detectors cost (``python -m kp models --json``) and how repeatable they are."""
    columns = [Column("parameters", 0), Column("GMAC", 2), Column("KB", 0), Column("ms", 0)]
    columns += [*(Column(split, best=max) for split in SPLITS), Column("error (px)", 2, best=min)]
    lines = []
    for cost in costs:
        row = rows(content)["kp" if cost["name"] == WEIGHTS else cost["name"]]
        values = [cost[key] for key in ("parameters", "gmac", "kilobytes", "ms")]
        values += [row[split]["repeatability"] for split in SPLITS]
        lines.append((cost["name"], [*values, row["all"]["localisation_error"]]))
    return Table("weights", columns, lines)


def full_size(read: Read, errors: bool) -> Table:
    """Scores at full size by kind of change: repeatability, or localisation errors in pixels."""
    four = read("full_size_four_sizes.json")["scores"]
    cards = read("full_size.json")["scores"] | {f"{name}, four sizes": card for name, card in four.items()}
    kinds = [kind for kind in next(iter(cards.values())) if not kind.endswith("_error")]
    columns = [Column(kind, 2, best=min) if errors else Column(kind, best=max) for kind in kinds]
    ending = "_error" if errors else ""
    return Table(
        "detector", columns, [(name, [card.get(kind + ending) for kind in kinds]) for name, card in cards.items()]
    )


def sizes(read: Read) -> Table:
    """kp with one size of the image and with four sizes."""
    columns = [*(Column(split, best=max) for split in SPLITS), Column("error of v (px)", 2, best=min)]
    columns += [Column("error (px)", 2, best=min), Column("H 3 px", best=max), Column("all, 240x320", best=max)]
    lines = []
    for name, file in (("one size", "sequences.json"), ("four sizes", "four_sizes.json")):
        row, small = (rows(read(file), protocol)["kp"] for protocol in ("native", "240x320"))
        values = [row[split]["repeatability"] for split in SPLITS]
        values += [row[split]["localisation_error"] for split in ("v", "all")] + [row["all"]["homography_3px"]]
        lines.append((name, [*values, small["all"]["repeatability"]]))
    return Table("kp", columns, lines)


def refitted(content: Content, detector: str, split: str) -> float:
    """The mean localisation error in pixels with the homographies that fit the repeated keypoints best.

    Where too few keypoints are repeated to fit a homography, the error under the given homography counts.
    """
    ours = [pair for pair in content["pairs"] if (pair["protocol"], pair["detector"]) == ("native", detector)]
    errors = [(p["refitted_error"], p["localisation_error"]) for p in ours if split in ("all", p["split"])]
    known = [best if best is not None else given for best, given in errors if given is not None]
    if not known:
        raise ValueError(f"the results have no error of {detector} on {split}")
    return fmean(known)


def errors(read: Read) -> Table:
    """Localisation errors under the given homographies and under refitted ones."""
    groups = ("given homography (px)", "refitted (px)")
    lines = []
    for name, file in (("real sequences", "sequences.json"), ("built-in photographs", "builtin.json")):
        for detector in ("kp", "harris"):
            given = [rows(read(file))[detector][split]["localisation_error"] for split in SPLITS]
            lines.append((f"{detector}, {name}", [*given, *(refitted(read(file), detector, s) for s in SPLITS)]))
    return Table("detector", [Column(split, 2, group) for group in groups for split in SPLITS], lines)


def ablation(entries: list[Content]) -> str:
    """A line per variant, below a line that says how long the runs were."""
    return f"{ablation_results.budget(entries)}\n\n{result_tables.ablation(entries).markdown()}"


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
