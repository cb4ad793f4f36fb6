"""The course of a training run as a picture, from its log."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

_SMOOTH = 50  # steps that a point of a loss curve averages


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``log.jsonl``. Raises ValueError on a file that is none."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError as error:
        raise ValueError(f"no log at {path}: name the folder of a run") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not the log of a run") from error


def draw_curves(log: list[dict[str, Any]]) -> Figure:
    """Loss terms, smoothed, and validation scores against minutes."""
    steps = [line for line in log if "loss" in line]
    validations = [line for line in log if "validation" in line]
    if not steps:
        raise ValueError("the log has no step yet")
    names, scores = list(steps[0]["loss"]), list(validations[0]["validation"]) if validations else []
    figure, axes = plt.subplots(1, len(names) + len(scores), figsize=(3.2 * (len(names) + len(scores)), 2.8))
    for axis, name in zip(axes, [*names, *scores], strict=True):
        kind, lines = ("loss", steps) if name in names else ("validation", validations)
        minutes = np.array([line["seconds"] for line in lines]) / 60
        values = np.array([line[kind][name] for line in lines])
        if kind == "loss":
            minutes, values = _average(minutes), _average(values)
        axis.plot(minutes, values, "-" if kind == "loss" else "o-")
        axis.set(title=f"{kind}: {name.replace('_', ' ')}", xlabel="minutes")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    return figure


def _average(values: np.ndarray) -> np.ndarray:
    """Means of runs of _SMOOTH values, of fewer when there are few."""
    return np.array([part.mean() for part in np.array_split(values, max(1, len(values) // _SMOOTH))])
