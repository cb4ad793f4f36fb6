"""The tables of README.md and the reports, made of the files in notebooks/results: one function for each table."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from statistics import fmean
from typing import Any

from kp.config import DESCRIBED, WEIGHTS
from kp.evaluation import ablation_results
from kp.evaluation.compare import change, separated
from kp.evaluation.summary import SPLITS
from kp.reporting import result_tables
from kp.reporting.tables import Column, Table

Content = Mapping[str, Any]
Read = Callable[[str], Any]  # the content of a file of notebooks/results, by its name


class MissingResult(ValueError):
    """There is no such file in notebooks/results."""


def rows(content: Content, protocol: str = "native") -> dict[str, dict[str, Content]]:
    """Means over pairs by detector and split."""
    found: dict[str, dict[str, Content]] = {}
    for row in content["rows"]:
        if row["protocol"] == protocol:
            found.setdefault(row["detector"], {})[row["split"]] = row
    if not found:
        raise ValueError(f"the results have no row of protocol {protocol}")
    return found


def _pairs(content: Content, shown: Mapping[str, str], protocol: str = "native") -> list[dict[str, Any]]:
    """The records of pairs of the detectors that a table shows, under the names that it gives them."""
    pairs = [pair for pair in content.get("pairs", []) if pair["protocol"] == protocol and pair["detector"] in shown]
    return [pair | {"detector": shown[pair["detector"]]} for pair in pairs]


def measured(content: Content, protocol: str = "native", without: Collection[str] = ()) -> Table:
    """One protocol: a line per detector, but for those named in ``without``."""
    found = rows(content, protocol)
    names = [name for name in found if name not in without]
    best = partial(separated, _pairs(content, dict(zip(names, names, strict=True)), protocol))
    columns = [Column(f"`{split}`", best=best("repeatability", split)) for split in SPLITS[:2]]
    columns += [Column("all (95 %)", best=best("repeatability"))]
    columns += [Column("chance `i`"), Column("chance `v`"), Column("chance, all")]
    columns += [Column("one-to-one", best=best("one_to_one"))]
    columns += [Column("error (px)", 2, best=best("localisation_error"))]
    lines = []
    for name in names:
        row, over_all = found[name], found[name]["all"]
        interval = " to ".join(f"{end:.3f}" for end in over_all["interval"])
        values = [row[split]["repeatability"] for split in SPLITS[:2]] + [(over_all["repeatability"], interval)]
        values += [row[split]["chance"] for split in SPLITS]
        lines.append((name, values + [over_all[key] for key in ("one_to_one", "localisation_error", "homography_3px")]))
    return Table("detector", [*columns, Column("H 3 px", best=best("homography_3px"))], lines)


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
    return Table("detector", [Column(f"{value:.3g}") for value in values], lines)


def models(costs: list[Content], content: Content) -> Table:
    """What the shipped detectors cost (``python -m kp models --json``) and how repeatable they are.

    Weights with descriptors have the ranked keypoints.
    """
    same = {WEIGHTS: "kp", DESCRIBED: "ranked"}  # keypoints
    measured_as = {cost["name"]: same.get(cost["name"], cost["name"]) for cost in costs}
    first = {detector: name for name, detector in reversed(measured_as.items())}
    best = partial(separated, _pairs(content, first))
    columns = [Column("parameters", 0), Column("GMAC", 2), Column("KB", 0), Column("ms", 0)]
    columns += [Column(split, best=best("repeatability", split)) for split in SPLITS]
    columns += [Column("error (px)", 2, best=best("localisation_error"))]
    lines = []
    for cost in costs:
        row = rows(content)[measured_as[cost["name"]]]
        values = [cost[key] for key in ("parameters", "gmac", "kilobytes", "ms")]
        values += [row[split]["repeatability"] for split in SPLITS]
        lines.append((cost["name"], [*values, row["all"]["localisation_error"]]))
    return Table("weights", columns, lines)


def kinds(content: Content) -> Table:
    """Repeatability by kind of what changes: a line per detector."""
    return result_tables.results_by_kind(content["kinds"], content["pairs"])


def above_by_kind(content: Content, detector: str, floor: str) -> str:
    """How much a detector is above a floor for each kind of change, in a line, with 95 % intervals and pairs."""
    native = [pair for pair in content["pairs"] if pair["protocol"] == "native"]
    parts = []
    for kind in dict.fromkeys(pair["kind"] for pair in native):
        of_kind = [pair for pair in native if pair["kind"] == kind]
        both = ([pair for pair in of_kind if pair["detector"] == name] for name in (floor, detector))
        found = change(*both, "repeatability")
        low_high = ", ".join(f"{end:+.3f}" for end in found["interval"] or ())
        span = f" [{low_high}]" if low_high else ""
        parts.append(f"{kind} {found['change']:+.3f}{span} ({found['pairs']} pairs)")
    return "; ".join(parts)


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
    for name, file in (("test", "test.json"), ("built-in photographs", "builtin.json")):
        for detector in ("kp", "corner", "harris"):
            given = [rows(read(file))[detector][split]["localisation_error"] for split in SPLITS]
            lines.append((f"{detector}, {name}", [*given, *(refitted(read(file), detector, s) for s in SPLITS)]))
    return Table("detector", [Column(split, 2, group) for group in groups for split in SPLITS], lines)


def ablation(entries: list[Content]) -> str:
    """A line per variant, below a line that says how long the runs were."""
    if not entries:
        raise ValueError("the ablation has no entries: write some with python -m kp ablate")
    return f"{ablation_results.budget(entries)}\n\n{result_tables.ablation(entries).markdown()}"
