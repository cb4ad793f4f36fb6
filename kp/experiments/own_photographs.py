"""What weights are worth on photographs of your own: how well keypoints repeat, and what their descriptors match.

Of every photograph there are three sequences of six views: the light changes (i), the viewpoint does (v), or both do
and every view is warped (hard); see :mod:`kp.data.photographs`. Numbers are means over the pairs of a kind: the
repeatability of the best 300 keypoints within 3 px, refined, and the share of matches that are right to 3 px (MMA).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

import torch

from kp.data.hpatches import ImageSequence
from kp.data.photographs import make_sequence
from kp.evaluation.baselines import ScoreMap
from kp.evaluation.detected_pairs import score_sequences
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.registry import make_detectors
from kp.models.detector import describes
from kp.training.matching_validation import describer, matching_scores

KINDS = ("i", "v", "hard")
NAMES = tuple(f"{name}{kind}" for name in ("", "mma_") for kind in KINDS)
_SEED = 1  # of the changes
_KEYPOINTS = 300


def sequences(files: Iterable[Path]) -> list[ImageSequence]:
    """The sequences of photographs, of 240x320 pixels."""
    return [make_sequence(file, kind, _SEED) for file in files for kind in KINDS]


def measure(detector: ScoreMap, made: Sequence[ImageSequence], device: torch.device) -> dict[str, float]:
    """The numbers, shares in [0, 1], by NAMES; those of descriptors only where there are some."""
    find = make_detectors({"kp": detector}, PROTOCOLS["native"], True, device)["kp"]
    scores = {}
    for kind in KINDS:
        ours = [sequence for sequence in made if sequence.kind == kind]
        scores[kind] = fmean(r["repeatability"] for r in score_sequences(ours, find, lambda _: (_KEYPOINTS,)))
        if describes(detector):
            scores[f"mma_{kind}"] = matching_scores(ours, detector, describer(detector), _KEYPOINTS)["mma"]
    return scores
