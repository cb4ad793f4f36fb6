"""A figure of training runs from their logs: loss terms and validation scores over time."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_STEPS_PER_POINT = 50  # a point of a loss curve is the mean of this number of steps
_COLUMNS = 4  # panels beside each other
_ALSO_OVER_STEPS = "repeatability"  # this score is shown over steps too, so that runs on different machines compare

Log = Sequence[Mapping[str, Any]]


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``log.jsonl``. Raises ValueError on another file, or if it has no step yet."""
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
    """A figure with a panel for each loss term (smoothed) and each validation score, over minutes.

    Repeatability also has a panel over steps. Each run is a line. Several runs are named in the first panel.
    """
    losses, scores = (_names(logs, kind) for kind in ("loss", "validation"))
    panels = [("loss", name, "minutes") for name in losses]
    for name in scores:
        panels += [("validation", name, over) for over in ("minutes", "steps")[: 1 + (name == _ALSO_OVER_STEPS)]]
    columns = min(len(panels), _COLUMNS)
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.2 * columns, 2.8 * rows), squeeze=False)
    for empty in axes.flat[len(panels) :]:
        figure.delaxes(empty)
    for axis, (kind, name, over) in zip(axes.flat, panels, strict=False):
        for run, log in logs.items():
            _draw(axis, log, run, (kind, name, over))
        axis.set_title(f"{kind}: {name.replace('_', ' ')}", fontsize="small")
        axis.set_xlabel(over)
        axis.grid(alpha=0.3)
    if len(logs) > 1:
        axes[0, 0].legend(fontsize="small")
    figure.tight_layout()
    return figure


def _names(logs: Mapping[str, Log], kind: str) -> list[str]:
    """The names of all loss terms, or of all validation scores, of the runs."""
    return list(dict.fromkeys(name for log in logs.values() for line in log for name in line.get(kind, ())))


def _draw(axis: Axes, log: Log, run: str, what: tuple[str, str, str]) -> None:
    """Draw one run in one panel. A run without values gets an empty line, so that each run keeps its colour."""
    kind, name, over = what
    lines = [line for line in log if name in line.get(kind, ())]
    values = np.array([line[kind][name] for line in lines])
    places = np.array([line["step"] if over == "steps" else line["seconds"] / 60 for line in lines])
    if kind == "loss":
        places, values = _average(places), _average(values)
    axis.plot(places, values, ".-" if kind == "loss" else "o-", label=run)


def _average(values: np.ndarray) -> np.ndarray:
    """Means of parts of about _STEPS_PER_POINT values."""
    if not len(values):
        return values
    return np.array([part.mean() for part in np.array_split(values, max(1, len(values) // _STEPS_PER_POINT))])
