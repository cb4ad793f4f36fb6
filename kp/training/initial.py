"""Weights that a training begins from: shipped ones by name, or those of an earlier run."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from kp.config import DetectorSettings, parts
from kp.evaluation.results import fingerprint
from kp.models.checkpoint import SHIPPED, CheckpointError, detector_settings, find_weights, read_weights


class InitialWeights(NamedTuple):
    """A detector's settings and tensors, and what the new run records of them: a name and the file's SHA-256."""

    detector: DetectorSettings
    tensors: dict[str, Tensor]
    record: dict[str, str]


def read_initial(weights: str) -> InitialWeights:
    """The weights of a shipped name or of a file, as they were while they were trained.

    Raises:
        CheckpointError: there are none, or nothing of them can be trained.
    """
    path = find_weights(weights)
    tensors, facts = read_weights(path)
    detector = detector_settings(path, facts)
    learnt = parts(detector)
    if learnt == ("describer",):
        raise CheckpointError(
            f"--init {weights}: its map of descriptors is computed from pairs alone, so nothing of it would be kept: "
            "train anew with --ranker-width 0"
        )
    if not learnt:
        raise CheckpointError(
            f"--init {weights}: nothing of these weights is learnt, so nothing can be trained further"
        )
    name = str(weights) if str(weights) in SHIPPED else Path(weights).name
    return InitialWeights(detector, tensors, {"weights": name, "sha256": fingerprint(path)["sha256"]})


def check_agrees(initial: InitialWeights, asked: DetectorSettings, given: Collection[str]) -> None:
    """Raises ValueError where a flag asks for another detector than that of the weights."""
    name = initial.record["weights"]
    if "pretrained" in given:
        raise ValueError("--pretrained begins with other weights than --init: leave one of them out")
    for field, value in vars(asked).items():
        if field in given and value != getattr(initial.detector, field):
            flag, theirs = "--" + field.replace("_", "-"), getattr(initial.detector, field)
            raise ValueError(f"{flag} is {theirs} in the weights of --init {name}, not {value}: leave it out")
