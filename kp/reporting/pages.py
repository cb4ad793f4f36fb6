"""README.md, the report and the tables of results, filled in: numbers come from the stored results, none is typed.

Their templates (Jinja) lie in notebooks/templates: change these, then run python -m kp report. The results are what the
commands named there wrote to notebooks/results.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

from kp.config import WEIGHTS, RunSettings
from kp.evaluation import ablation_results, fullsize, results
from kp.evaluation.summary import SPLITS
from kp.reporting import result_tables

ROOT = Path(__file__).parents[2]
TEMPLATES, RESULTS = Path("notebooks/templates"), Path("notebooks/results")
PAGES = {  # by template
    "README.md": "README.md",
    "report.md": "notebooks/report.md",
    "results.md": "notebooks/results.md",
}
CHANCE = "random"  # the detector that is never best

Row = Mapping[str, Any]


def fill() -> dict[Path, str]:
    """The text of every page by its path. Raises ValueError where a template or a result is missing or damaged."""
    loader = jinja2.FileSystemLoader(ROOT / TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True
    )
    environment.globals |= _reading(ROOT / RESULTS) | {
        "settings": RunSettings(),
        "rows": rows,
        "measured": measured,
        "refitted": refitted,
        "sweep": sweep,
        "swept": swept,
        "variants": variants,
        "models": models,
        "kinds": kinds,
    }
    environment.filters["digits"] = lambda value, digits=3: f"{float(value):.{digits}f}"
    try:
        return {ROOT / path: environment.get_template(name).render() for name, path in PAGES.items()}
    except (jinja2.TemplateError, KeyError, TypeError) as error:
        raise ValueError(f"{ROOT / TEMPLATES}: {error}: is a result missing?") from error


def differing(pages: Mapping[Path, str]) -> list[Path]:
    """Those of the pages that are not there or say something else."""
    return [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def _reading(folder: Path) -> dict[str, Callable[[str], Any]]:
    """What templates read files of ``folder`` with."""

    def stored(name: str) -> Any:
        """JSON of any kind."""
        try:
            return json.loads((folder / name).read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / name} cannot be read: {error}") from None

    return {
        "stored": cache(stored),
        "evaluation": cache(lambda name: results.read(folder / name)),
        "trials": cache(lambda name: ablation_results.scored(folder / name)),
    }


def rows(content: Mapping[str, Any], protocol: str = "native") -> dict[str, dict[str, Row]]:
    """Means over pairs by detector and split."""
    found: dict[str, dict[str, Row]] = {}
    for row in content["rows"]:
        if row["protocol"] == protocol:
            found.setdefault(row["detector"], {})[row["split"]] = row
    if not found:
        raise ValueError(f"the results have no row of protocol {protocol}")
    return found


def refitted(content: Mapping[str, Any], detector: str, split: str, protocol: str = "native") -> float:
    """The mean localisation error in pixels, were the homographies those that fit the repeated keypoints best.

    Where too few are repeated to fit one, it is the error as it was.
    """
    ours = [r for r in content["pairs"] if (r["protocol"], r["detector"]) == (protocol, detector)]
    errors = [(r["refitted_error"], r["localisation_error"]) for r in ours if split in ("all", r["split"])]
    known = [best if best is not None else given for best, given in errors if given is not None]
    if not known:
        raise ValueError(f"the results have no error of {detector} on {split}")
    return fmean(known)


def measured(content: Mapping[str, Any], protocol: str = "native") -> str:
    """One protocol as a table in Markdown, the best of each column bold."""
    found = list(rows(content, protocol).values())
    columns = {f"`{split}`": _column(row[split]["repeatability"] for row in found) for split in SPLITS[:2]}
    over_all = [row["all"] for row in found]
    columns["all (95 %)"] = [
        (f"{text} ({row['interval'][0]:.3f} to {row['interval'][1]:.3f})", value)
        for row, (text, value) in zip(over_all, _column(row["repeatability"] for row in over_all), strict=True)
    ]
    columns["one-to-one"] = _column(row["one_to_one"] for row in over_all)
    columns["chance"] = _column((row["chance"] for row in over_all), sign=0)
    columns["error (px)"] = _column((row["localisation_error"] for row in over_all), digits=2, sign=-1)
    columns["H 3 px"] = _column(row["homography_3px"] for row in over_all)
    return _table("detector", list(rows(content, protocol)), columns)


def protocols(content: Mapping[str, Any], names: Sequence[str]) -> str:
    """Several protocols side by side: repeatability of each split, and the share of right homographies."""
    columns = {}
    for name in names:
        found = rows(content, name).values()
        for split in SPLITS:
            columns[f"{name}: {split}"] = _column(row[split]["repeatability"] for row in found)
        columns[f"{name}: H"] = _column(row["all"]["homography_3px"] for row in found)
    return _table("detector", list(rows(content, names[0])), columns)


def sweep(content: Mapping[str, Any], name: str) -> dict[str, dict[float, float]]:
    """Repeatability by detector and step of a sweep: photographs turned (``rotation``, degrees) or ``scale``d."""
    found: dict[str, dict[float, float]] = {}
    for point in content["curves"]:
        if point["sweep"] == name:
            found.setdefault(point["detector"], {})[point["value"]] = point["repeatability"]
    if not found:
        raise ValueError(f"the results have no {name} curve: measure with --curves")
    return found


def swept(content: Mapping[str, Any], name: str) -> str:
    """A sweep as a table, a column for each step."""
    found = sweep(content, name)
    steps = list(next(iter(found.values())))
    return _table("detector", list(found), {f"{n:.3g}": _column(row[n] for row in found.values()) for n in steps})


def models(costs: Sequence[Row], content: Mapping[str, Any]) -> str:
    """What the shipped detectors cost (``python -m kp models --json``) beside how repeatable they are."""
    found = [rows(content)["kp" if row["name"] == WEIGHTS else row["name"]] for row in costs]
    columns = {
        "parameters": _column((row["parameters"] for row in costs), digits=0, sign=0),
        "GMAC": _column((row["gmac"] for row in costs), digits=2, sign=0),
        "KB": _column((row["kilobytes"] for row in costs), digits=0, sign=0),
        "ms": _column((row["ms"] for row in costs), digits=0, sign=0),
        **{split: _column(row[split]["repeatability"] for row in found) for split in SPLITS},
        "error (px)": _column((row["all"]["localisation_error"] for row in found), digits=2, sign=-1),
    }
    return _table("weights", [row["name"] for row in costs], columns)


def variants(entries: Sequence[Row]) -> str:
    """An ablation as a table, a line for each variant, below a line that says how long the runs were."""
    return f"{ablation_results.budget(entries)}\n\n{result_tables.ablation(entries).markdown()}"


def kinds(scores: Mapping[str, Mapping[str, float]], ending: str = "") -> str:
    """Scores at full size (``python -m kp score --full-size --json``) by kind: repeatability, or with ERROR errors."""
    look = {"digits": 2, "sign": -1} if ending == fullsize.ERROR else {}
    columns = {
        kind: _column((card.get(f"{kind}{ending}") for card in scores.values()), **look) for kind in fullsize.COLUMNS
    }
    return _table("detector", list(scores), columns)


def _column(values: Iterable[float | None], digits: int = 3, sign: int = 1) -> list[tuple[str, float | None]]:
    """Cells as text with what they are compared by: greater is better, with ``sign`` -1 less is, with 0 neither."""
    texts = [("-" if value is None else f"{value:,.{digits}f}", value) for value in values]
    return [(text, None if value is None or not sign else round(sign * value, digits)) for text, value in texts]


def _table(first: str, names: Sequence[str], columns: Mapping[str, Sequence[tuple[str, float | None]]]) -> str:
    """Markdown; the best of each column is bold, but for chance."""
    cells = [names]
    for column in columns.values():
        ranked = [None if name == CHANCE else value for name, (_, value) in zip(names, column, strict=True)]
        best = max((value for value in ranked if value is not None), default=math.inf)
        cells.append(
            [f"**{text}**" if value == best else text for value, (text, _) in zip(ranked, column, strict=True)]
        )
    lines = [[first, *columns], ["---"] * len(cells), *zip(*cells, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
