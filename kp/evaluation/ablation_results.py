"""The JSON file that keeps the scores of many runs, one entry for each variant and seed.

entries     ``variant``, ``seed``; ``flags`` that the variant changes, null if it needs no training; ``steps``,
            ``seconds``, ``batch`` (pairs) and ``image_size`` (pixels) of the training; ``scores``, see
            :mod:`kp.evaluation.scorecard`; ``weights``: ``path`` and ``sha256``; ``kp`` (version) and ``revision`` of
            git, see :func:`kp.models.checkpoint.revision`, of the scores
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kp.support.files import locked, write_file

Entry = Mapping[str, Any]


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

    The file is locked, read again and replaced in one step: two processes may share it, and nothing is half written.
    """
    with locked(path):
        entries = {_key(old): old for old in read(path)} | {_key(entry): entry}
        write_file(path, (json.dumps({"entries": list(entries.values())}, indent=1, allow_nan=False) + "\n").encode())


def find(entries: Sequence[Entry], variant: str, seed: int) -> Entry | None:
    """The entry of a variant and seed, if there is one."""
    return next((entry for entry in entries if _key(entry) == (variant, seed)), None)


def budget(entries: Sequence[Entry]) -> str:
    """How long the runs were: not comparable where that differs."""
    parts, trained = [], [entry for entry in entries if entry.get("flags") is not None]
    for name, unit in (("steps", "steps"), ("batch", "pairs a step"), ("image_size", "pixels a side")):
        values = sorted({entry[name] for entry in trained if entry.get(name) is not None})
        if values:
            parts.append(f"{values[0]} {unit}" if len(values) == 1 else f"{values[0]} to {values[-1]} {unit}")
    return "Training: " + (", ".join(parts) or "none") + "."


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
