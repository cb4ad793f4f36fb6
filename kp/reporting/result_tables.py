"""The tables of each kind of result: an evaluation, sweeps, an ablation, scores, costs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from kp.evaluation.compare import separated
from kp.evaluation.protocols import THRESHOLDS
from kp.evaluation.summary import SPLITS
from kp.models.cost import SIZE
from kp.reporting.tables import Column, Row, Table

Result = Mapping[str, Any]

SPLIT_NAMES = {"i": "illumination", "v": "viewpoint", "all": "all"}
_PRINTED_BY_SPLIT = {
    "repeatability": ("repeatability", 3),
    "chance": ("chance", 3),
    "localisation_error": ("loc. error (px)", 2),
}
_PRINTED_ONCE = {
    "repeatability_1px": ("1 px", 3),
    "repeatability_5px": ("5 px", 3),
    "one_to_one": ("1 to 1", 3),
    "coverage": ("cover", 2),
    "common": ("points", 0),
    "homography_3px": ("H 3px", 3),
    "matching_accuracy_3px": ("MMA", 3),
}
_ALL_MEASURES = {
    **{f"repeatability_{n}px": Column(f"{n} px", 3, "repeated within") for n in THRESHOLDS},
    "one_to_one": Column("one-to-one", 3),
    "localisation_error": Column("loc. error (px)", 2),
    "common": Column("common points", 0),
    "coverage": Column("coverage", 2),
    "chance": Column("chance", 3),
    **{f"homography_{n}px": Column(f"{n} px", 3, "homography right to") for n in THRESHOLDS},
    "homography_auc_5px": Column("AUC 5 px", 3, "homography right to"),
    **{f"matching_accuracy_{n}px": Column(f"{n} px", 3, "matches right to (MMA)") for n in THRESHOLDS},
    "matches": Column("matches", 0),
    "pairs": Column("pairs", 0),
}
_NOT_RANKED = ("common", "chance", "homography_auc_5px", "matches", "pairs")  # measures without a best value
_SWEEP_UNITS = {"rotation": "degrees", "scale": "pixels of view 1 per pixel of view 0"}
_ABLATION_SCORES = (
    *("i_25", "v_25", "i_75", "v_75", "i_300", "v_300"),
    *("error_75", "rotation_45/rotation_0", "scale_0.5", "synthetic", "shift"),
)
_DESCRIPTOR_SCORES = (
    *("mma_i", "mma_v", "mma", "homography_auc_i", "homography_auc_v", "homography_auc", "right_matches"),
    "synthetic_mma",
)


def printed_results(rows: Sequence[Result], skipped: Mapping[str, str]) -> str:
    """One protocol's rows as text: a line for each detector, and the reason for each detector that was skipped."""
    reasons = [f"{name}  skipped: {reason}" for name, reason in skipped.items()]
    if not rows:
        return "\n".join([*reasons, "nothing was measured"])
    splits, cells = _splits(rows), _cells(rows)
    by_split = [(measure, split) for measure in _PRINTED_BY_SPLIT for split in splits]
    columns = []
    for measure, split in by_split:
        title, digits = _PRINTED_BY_SPLIT[measure]
        columns.append(Column(split, digits, title))
    group = f"of {splits[-1]}"
    columns += [Column("95 %", group=group), *(Column(*show, group) for show in _PRINTED_ONCE.values())]
    lines = []
    for name in _detectors(rows):
        last = cells.get((name, splits[-1]), {})
        values = [cells.get((name, split), {}).get(measure) for measure, split in by_split]
        lines.append((name, [*values, _interval(last), *map(last.get, _PRINTED_ONCE)]))
    counts = {split: max(row["pairs"] for row in rows if row["split"] == split) for split in splits}
    pairs = "pairs: " + ", ".join(f"{split} {count}" for split, count in counts.items())
    return Table("detector", columns, lines, footnotes=[*reasons, pairs]).text()


def all_results(rows: Sequence[Result], splits: Sequence[str], records: Sequence[Result] = ()) -> Table:
    """A line per detector: its repeatability on each of these splits, and all other measures on the last of them.

    ``records`` are those of the pairs of the rows: a value is bold where they tell that detector from all others.
    """
    cells = _cells(rows)
    group = "repeatability, 95 % interval"
    columns = [
        Column(SPLIT_NAMES[split], 3, group, separated(records, "repeatability", split) if records else None)
        for split in splits
    ]
    for measure, column in _ALL_MEASURES.items():
        ranked = bool(records) and measure not in _NOT_RANKED
        columns.append(replace(column, best=separated(records, measure, splits[-1]) if ranked else None))
    lines: list[Row] = []
    for name in _detectors(rows):
        values = []
        for split in splits:
            row = cells.get((name, split))
            values.append(row and (row["repeatability"], _interval(row)))
        last = cells.get((name, splits[-1]), {})
        lines.append((name, [*values, *map(last.get, _ALL_MEASURES)]))
    return Table("detector", columns, lines)


def results_by_kind(rows: Sequence[Result], records: Sequence[Result] = ()) -> Table:
    """A line per detector and a column per kind of change, with its number of pairs: repeatability and its interval.

    ``rows`` are those of :func:`kp.evaluation.summary.summarise_kinds`, ``records`` as for :func:`all_results`.
    """
    counts = {row["kind"]: row["pairs"] for row in rows}
    found = {(row["detector"], row["kind"]): (row["repeatability"], _interval(row)) for row in rows}
    columns = []
    for kind, count in counts.items():
        ours = [r for r in records if r["split"] == "i" and r["kind"] == kind]
        columns.append(Column(f"{kind} ({count})", 3, best=separated(ours, "repeatability")))
    return Table("detector", columns, [(n, [found.get((n, kind)) for kind in counts]) for n in _detectors(rows)])


def printed_kinds(rows: Sequence[Result]) -> list[str]:
    """The lines of one protocol's table of :func:`results_by_kind`, with a title; none if there are no rows."""
    return ["repeatability by kind (pairs), i", results_by_kind(rows).text()] if rows else []


def difference_lines(differences: Sequence[Result]) -> list[str]:
    """A line for each of our detectors and floor, all splits in it, of :func:`kp.evaluation.compare.above_floors`."""
    lines: dict[tuple[str, str], list[str]] = {}
    for found in differences:
        low_high = ", ".join(f"{end:+.3f}" for end in found["interval"] or ())
        span = f"[{low_high}]" if low_high else "(one sequence, no interval)"
        part = f"{found['split']} {found['difference']:+.3f} {span} {found['verdict']}"
        lines.setdefault((found["detector"], found["floor"]), []).append(part)
    return [f"{ours} - {floor}: {'; '.join(parts)}" for (ours, floor), parts in lines.items()]


def results_by_sequence(pairs: Sequence[Result]) -> Table:
    """A line per sequence, those of a split together, and a column per detector: mean repeatability on a shade."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for pair in pairs:
        of_sequence = found.setdefault((pair["split"], pair["sequence"]), {})
        of_sequence.setdefault(pair["detector"], []).append(pair["repeatability"])
    names, lines = _detectors(pairs), []
    for split in SPLITS:
        means = [
            (sequence, [fmean(values[name]) if name in values else None for name in names])
            for (part, sequence), values in found.items()
            if part == split
        ]
        lines += [(SPLIT_NAMES[split], []), *means] if means else []
    return Table("sequence", [Column(name, 2, shade=True) for name in names], lines)


def printed_sweeps(rows: Sequence[Result]) -> str:
    """Repeatability as text, a line per detector and a column per value; ``rows`` are those of ``sweeps.measure``."""
    parts = []
    for kind in dict.fromkeys(row["sweep"] for row in rows):
        ours = [row for row in rows if row["sweep"] == kind]
        values = sorted({row["value"] for row in ours})
        cells = {(row["detector"], row["value"]): row["repeatability"] for row in ours}
        lines = [(name, [cells[name, value] for value in values]) for name in _detectors(ours)]
        table = Table(kind, [Column(f"{value:.3g}") for value in values], lines)
        parts.append(f"repeatability by {kind} ({_SWEEP_UNITS[kind]})\n{table.text()}")
    return "\n\n".join(parts)


def ablation(entries: Sequence[Result]) -> Table:
    """A line per variant: means over its seeds and, if there are several seeds, plus or minus half of their range.

    The default comes first, then the variants that change it, then those without a training.
    """
    ordered = sorted(entries, key=lambda entry: (entry.get("flags") is None, entry.get("flags") != []))
    groups = (_ABLATION_SCORES, _DESCRIPTOR_SCORES)
    shown = [name for group in groups if any(set(group) & set(entry["scores"]) for entry in entries) for name in group]
    lines = []
    for variant in dict.fromkeys(entry["variant"] for entry in ordered):
        ours = [entry["scores"] for entry in entries if entry["variant"] == variant]
        lines.append((variant, [len(ours), *(_mean_and_range(ours, score) for score in shown)]))
    return Table("variant", [Column("seeds", 0), *map(Column, shown)], lines)


def costs(rows: Sequence[Result]) -> Table:
    """A line for each row of :func:`kp.models.cost.describe`."""
    columns = {
        "parameters": Column("parameters", 0),
        "gmac": Column("GMAC", 2),
        "kilobytes": Column("KB", 0),
        "ms": Column("ms", 0),
        "steps": Column("steps", 0),
        "minutes": Column("minutes", 1),
    }
    lines = [
        (row["name"], [*(row[measure] for measure in columns), (row["revision"] or "unknown")[:10]]) for row in rows
    ]
    threads = ", ".join(sorted({str(row["threads"]) for row in rows}))
    note = f"GMAC: a score map of {SIZE[0]}x{SIZE[1]}; ms: 1000 keypoints there, CPU threads: {threads}"
    return Table("model", [*columns.values(), Column("code", left=True)], lines, footnotes=[note])


def scores(found: Mapping[str, Mapping[str, float]]) -> Table:
    """A line for each detector of ``kp score``, a column for each number that any of them has."""
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    rows = [(detector, [each.get(name) for name in names]) for detector, each in found.items()]
    return Table("detector", [Column(name) for name in names], rows)


def covariances(rows: Mapping[str, Result]) -> Table:
    """A line for each set of pairs of ``kp covariance``: the normalised squared error, and errors by foretold size."""
    count = len(next(iter(rows.values()))["by_size"])
    columns = [Column("keypoints", 0), Column("NSE mean", 2), Column("median", 2)]
    columns += [Column(f"{part + 1} of {count}", 2, "error (px) by foretold size") for part in range(count)]
    lines = []
    for name, row in rows.items():
        true = [true for _, true in row["by_size"]]
        lines.append((name, [row["keypoints"], row["nse_mean"], row["nse_median"], *true]))
    return Table("pairs", columns, lines)


def _cells(rows: Sequence[Result]) -> dict[tuple[str, str], Result]:
    return {(row["detector"], row["split"]): row for row in rows}


def _detectors(rows: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(row["detector"] for row in rows))


def _splits(rows: Sequence[Result]) -> list[str]:
    return [split for split in SPLITS if any(row["split"] == split for row in rows)]


def _interval(row: Result) -> str | None:
    return " to ".join(f"{end:.3f}" for end in row["interval"]) if row else None


def _mean_and_range(scores: Sequence[Mapping[str, float]], name: str) -> float | str | None:
    values = [value for score in scores if (value := _score(score, name)) is not None]
    if not values or len(scores) == 1:
        return values[0] if values else None
    return f"{fmean(values):.3f}±{(max(values) - min(values)) / 2:.3f}"


def _score(scores: Mapping[str, float], name: str) -> float | None:
    """A score, or the quotient of two scores (``a/b``)."""
    over, _, under = name.partition("/")
    if over not in scores or (under and not scores.get(under)):
        return None
    return scores[over] / scores[under] if under else scores[over]
