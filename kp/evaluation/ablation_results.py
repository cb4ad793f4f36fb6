"""The JSON file that keeps the scores of many runs, one entry for each variant and seed, and tables of it.

entries     ``variant``, ``seed``; ``flags`` that the variant changes, null if it needs no training; ``steps``,
            ``seconds``, ``batch`` (pairs) and ``image_size`` (pixels) of the training; ``scores``, see
            :mod:`kp.evaluation.scorecard`; ``weights``: ``path`` and ``sha256``; ``kp`` (version) and ``revision`` of
            git, see :func:`kp.models.checkpoint.revision`, of the scores
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kp.support.files import write_file

Entry = Mapping[str, Any]

_COLUMNS = (
    *("i_25", "v_25", "i_75", "v_75", "i_300", "v_300"),
    *("error_75", "rotation_45/rotation_0", "scale_0.5", "synthetic", "shift"),
)


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of a file; none if it is not there. Raises ValueError, in one line, on anything else."""
    try:
        entries = json.loads(path.read_bytes())["entries"]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path} is damaged, or not what python -m kp ablate --json writes: remove it") from None
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise ValueError(f"{path} has an entry that python -m kp ablate --json did not write: remove it")
    return entries


def scored(path: Path) -> list[dict[str, Any]]:
    """The entries of a file that must have some. Raises ValueError, in one line, where there are none."""
    entries = read(path)
    if not entries:
        raise ValueError(f"{path} holds no scores: write some with python -m kp ablate --json {path}")
    return entries


def put(path: Path, entry: Entry) -> None:
    """Add an entry to a file, in place of the one of its variant and seed; others keep their order.

    The file is read afresh and replaced in one step, so two processes may share it and nothing is ever half written.
    """
    entries = {_key(old): old for old in read(path)} | {_key(entry): entry}
    write_file(path, (json.dumps({"entries": list(entries.values())}, indent=1, allow_nan=False) + "\n").encode())


def find(entries: Sequence[Entry], variant: str, seed: int) -> Entry | None:
    """The entry of a variant and seed, if there is one."""
    return next((entry for entry in entries if _key(entry) == (variant, seed)), None)


def markdown(entries: Sequence[Entry]) -> str:
    """All entries as a Markdown table, a line a variant: means over seeds and, if several, half their range."""
    head, *lines = _cells(entries)
    rule = ["---"] * len(head)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))
    return f"{budget(entries)}\n\n{table}"


def aligned(entries: Sequence[Entry]) -> str:
    """The same for people at a terminal."""
    lines = _cells(entries)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]) for cells in lines]
    return "\n".join([budget(entries), *rows])


def budget(entries: Sequence[Entry]) -> str:
    """How long the runs were: not comparable where that differs."""
    parts, trained = [], [entry for entry in entries if entry.get("flags") is not None]
    for name, unit in (("steps", "steps"), ("batch", "pairs a step"), ("image_size", "pixels a side")):
        values = sorted({entry[name] for entry in trained if entry.get(name) is not None})
        if values:
            parts.append(f"{values[0]} {unit}" if len(values) == 1 else f"{values[0]} to {values[-1]} {unit}")
    return "Training: " + (", ".join(parts) or "none") + "."


def _cells(entries: Sequence[Entry]) -> list[list[str]]:
    """The default first, then what changes it, then what needs no training."""
    lines = [["variant", "seeds", *_COLUMNS]]
    ordered = sorted(entries, key=lambda entry: (entry.get("flags") is None, entry.get("flags") != []))
    for variant in dict.fromkeys(entry["variant"] for entry in ordered):
        ours = [entry for entry in entries if entry["variant"] == variant]
        lines.append([variant, str(len(ours)), *(_mean_and_range(ours, column) for column in _COLUMNS)])
    return lines


def _mean_and_range(entries: Sequence[Entry], column: str) -> str:
    values = [value for entry in entries if (value := _value(entry["scores"], column)) is not None]
    if not values:
        return "-"
    mean = f"{fmean(values):.3f}"
    return mean if len(entries) == 1 else f"{mean}±{(max(values) - min(values)) / 2:.3f}"


def _value(scores: Mapping[str, float], column: str) -> float | None:
    """A score, or the quotient of two."""
    over, _, under = column.partition("/")
    if over not in scores or (under and not scores.get(under)):
        return None
    return scores[over] / scores[under] if under else scores[over]


def _key(entry: Entry) -> tuple[str, int]:
    return entry["variant"], entry["seed"]


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("variant"), str)
        and all(isinstance(entry.get(name, "none"), int | None) for name in ("steps", "batch", "image_size"))
        and isinstance(entry.get("seed"), int)
        and isinstance(entry.get("weights"), dict)
        and isinstance(entry.get("scores"), dict)
        and all(isinstance(score, int | float) for score in entry["scores"].values())
    )
