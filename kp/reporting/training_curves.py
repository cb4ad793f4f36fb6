"""The course of training runs as a picture, from their logs: how fast the loss falls, and how soon they are good."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SMOOTH = 50  # steps that a point of a loss curve averages
_TO_QUALITY = "repeatability"  # the score that is shown over the steps too, so that machines can be compared

Log = Sequence[Mapping[str, Any]]


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``log.jsonl``. Raises ValueError on a file that is none, or has no step yet."""
    try:
        log = [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError as error:
        raise ValueError(f"no log at {path}: name the folder of a run") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not the log of a run") from error
    if not any("loss" in line for line in log):
        raise ValueError(f"{path} has no step yet")
    return log


def draw_curves(logs: Mapping[str, Log]) -> Figure:
    """Loss terms, smoothed, and validation scores over the minutes; held-out repeatability over the steps too.

    A line for each of the runs, which are named in the first panel if there are several.
    """
    losses, scores = (_names(logs, kind) for kind in ("loss", "validation"))
    panels = [("loss", name, "minutes") for name in losses]
    for name in scores:
        panels += [("validation", name, over) for over in ("minutes", "steps")[: 1 + (name == _TO_QUALITY)]]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 2.8), squeeze=False)
    for axis, (kind, name, over) in zip(axes[0], panels, strict=True):
        for run, log in logs.items():
            _draw(axis, log, run, (kind, name, over))
        axis.set(title=f"{kind}: {name.replace('_', ' ')}", xlabel=over)
        axis.grid(alpha=0.3)
    if len(logs) > 1:
        axes[0, 0].legend(fontsize="small")
    figure.tight_layout()
    return figure


def _names(logs: Mapping[str, Log], kind: str) -> list[str]:
    """The loss terms or the scores of any of the runs."""
    return list(dict.fromkeys(name for log in logs.values() for line in log for name in line.get(kind, ())))


def _draw(axis: Axes, log: Log, run: str, what: tuple[str, str, str]) -> None:
    """One line, empty where the run has none of it, so that each run has the same colour in all panels."""
    kind, name, over = what
    lines = [line for line in log if name in line.get(kind, ())]
    values = np.array([line[kind][name] for line in lines])
    places = np.array([line["step"] if over == "steps" else line["seconds"] / 60 for line in lines])
    if kind == "loss":
        places, values = _average(places), _average(values)
    axis.plot(places, values, "-" if kind == "loss" else "o-", label=run)


def _average(values: np.ndarray) -> np.ndarray:
    """Means of runs of _SMOOTH values, of fewer when there are few."""
    if not len(values):
        return values
    return np.array([part.mean() for part in np.array_split(values, max(1, len(values) // _SMOOTH))])
