"""What a detector scores while it is trained, with the real metric; and which weights of a run are kept.

Real sequences decide, where a folder of them is given. Scores on synthetic pairs and on changed photographs are shown,
but decide nothing: both rose while the repeatability on real sequences fell. No photograph is trained on.
"""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from kp.data import hpatches, photographs
from kp.data.hpatches import HPatchesError
from kp.data.pairs import ViewPair, as_sequences, held_out_pairs
from kp.evaluation.baselines import ScoreMap
from kp.evaluation.detected_pairs import score_sequences
from kp.evaluation.metrics import counted, nearest_distances
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.registry import make_detectors
from kp.geometry.coords import Size
from kp.models.corner import floor_detector
from kp.models.detector import Detector, describes
from kp.models.keypoints import Keypoints
from kp.reporting.images import keypoint_picture, score_picture, sheet
from kp.training.matching_validation import RealMatches, by_rootsift, describer, matching_scores

_SEED = 3  # of the photographs' changes; other than the seeds of kp.evaluation.scorecard and of evaluate.py
_KEYPOINTS = {"synthetic": (300,), "hard": (75,)}  # of a view that count, by kind of sequence
_SHOWN = 4  # pairs of the picture
_THRESHOLD = 3.0  # pixels within which a keypoint is found again


class RealSequences:
    """Real sequences, and how much above the floor a detector is there.

    The floor is the corner response with nothing learnt, see :func:`kp.models.corner.floor_detector`.

    Raises:
        HPatchesError: there are no sequences in ``root``.
    """

    def __init__(self, root: Path, device: torch.device) -> None:
        self.sequences, self.device = hpatches.read(root), device
        self.floor = self._scores(floor_detector().to(device))

    def measure(self, detector: ScoreMap) -> dict[str, float]:
        """``validation`` and ``real_repeatability``, the mean over pairs, and ``above_floor_i``, ``_v`` and ``_all``.

        That of the best 300 keypoints within 3 px, refined, as protocol ``native`` of evaluate.py.
        """
        scores = self._scores(detector)
        above = {f"above_floor_{part}": value - self.floor[part] for part, value in scores.items()}
        return {"validation": scores["all"], "real_repeatability": scores["all"]} | above

    @torch.inference_mode()
    def _scores(self, detector: ScoreMap) -> dict[str, float]:
        """Mean repeatability by split: ``i``, ``v``, ``all``."""
        protocol = PROTOCOLS["native"]
        find = make_detectors({"kp": detector}, protocol, True, self.device)["kp"]
        counts = (protocol.max_keypoints,)
        found: dict[str, list[float]] = {"i": [], "v": [], "all": []}
        for sequence in self.sequences:  # one by one: the keypoints of large images are not kept
            for record in score_sequences([sequence], find, lambda _: counts, protocol.threshold):
                for part in (sequence.split, "all"):
                    found[part].append(record["repeatability"])
        return {part: fmean(values) for part, values in found.items() if values}


class Real:
    """Real sequences, measured by what a detector is for: the matches of its descriptors, or its repeatability.

    Raises:
        HPatchesError: there are no sequences in ``root``.
    """

    def __init__(self, root: Path, device: torch.device) -> None:
        self._root, self._device = root, device
        hpatches.read(root)

    def measure(self, detector: ScoreMap) -> dict[str, float]:
        """What :class:`RealMatches` or :class:`RealSequences` measures; each is made when it is first needed."""
        return (self._matches if describes(detector) else self._sequences).measure(detector)

    @cached_property
    def _matches(self) -> RealMatches:
        return RealMatches(self._root)

    @cached_property
    def _sequences(self) -> RealSequences:
        return RealSequences(self._root, self._device)


class Validation:
    """Fixed pairs, and what a detector scores on them.

    Where scikit-image is not installed there are no photographs.

    Args:
        device: of the detector.
        batches: of synthetic pairs.
        batch: synthetic pairs of a batch.
        size: (H, W) of their views.
        files: photographs of :mod:`kp.data.photographs`.
        root: folder of real sequences, or None.
        parts: what of the detector is trained, see :func:`kp.config.parts`: of a describer it is measured what
            descriptors match, of the others how well keypoints repeat.

    Raises:
        HPatchesError: there are no sequences in ``root``.
    """

    def __init__(
        self,
        device: torch.device,
        batches: int = 8,
        batch: int = 8,
        size: Size = (240, 320),
        files: Sequence[str] = photographs.FILES,
        root: Path | None = None,
        parts: Collection[str] = ("score map",),
    ) -> None:
        self.device = device
        self.descriptors, self.keypoints = "describer" in parts, bool(set(parts) - {"describer"})
        self.pairs = held_out_pairs(batches, batch, size)
        self.sequences = [sequence for pair in self.pairs for sequence in as_sequences(pair)]
        try:
            paths = [photographs.folder() / file for file in files]
        except HPatchesError:
            paths = []
        self.sequences += [photographs.make_sequence(path, "hard", _SEED) for path in paths]
        self.real: list[RealMatches | RealSequences] = []
        if root and self.descriptors:
            self.real.append(RealMatches(root))
        if root and self.keypoints:
            self.real.append(RealSequences(root, device))

    def duration(self, detector: Detector) -> float:
        """Seconds that :meth:`measure` will take, by the time of the first synthetic and the first real sequence.

        With the floor of descriptors on the real ones, which is measured once.
        """
        real = self.real[0].sequences if self.real else []
        find = make_detectors({"kp": detector}, PROTOCOLS["native"], False, self.device)["kp"]
        total = 0.0
        for sequences in (self.sequences, real):
            first, began = sequences[:1], time.perf_counter()
            with torch.inference_mode():
                if self.descriptors and first:
                    matching_scores(first, detector, describer(detector))
                if self.descriptors and first and sequences is real:
                    matching_scores(first, detector, by_rootsift)
                if self.keypoints:
                    list(score_sequences(first, find, lambda _: (75,), _THRESHOLD))
            total += (time.perf_counter() - began) * len(sequences)
        return total

    @torch.inference_mode()
    def measure(self, detector: Detector) -> dict[str, float]:
        """``repeatability`` and ``localisation_error`` of the held-out pairs, and ``photographs``, if there are any.

        ``photographs`` is the mean repeatability within 3 px of the best 75 keypoints where the light changes as in
        training and every view is warped. The error is left out where nothing matched.

        Of a describer what :func:`kp.training.matching_validation.matching_scores` measures, named ``synthetic_...``,
        of the held-out pairs, and ``photographs_...``. Of a ranker and a describer both.
        """
        scores = self._measure_matches(detector) if self.descriptors else {}
        scores |= self._measure_keypoints(detector) if self.keypoints else {}
        for real in self.real:  # the last decides which weights are kept: keypoints, if a ranker or encoder is trained
            scores |= real.measure(detector)
        return scores

    def _measure_keypoints(self, detector: Detector) -> dict[str, float]:
        find = make_detectors({"kp": detector}, PROTOCOLS["native"], False, self.device)["kp"]
        records = list(score_sequences(self.sequences, find, lambda sequence: _KEYPOINTS[sequence.kind], _THRESHOLD))
        synthetic, hard = ([r for r in records if r["kind"] == kind] for kind in ("synthetic", "hard"))
        scores = {"repeatability": fmean(r["repeatability"] for r in synthetic)}
        errors = [r["localisation_error"] for r in synthetic if math.isfinite(r["localisation_error"])]
        scores |= {"localisation_error": fmean(errors)} if errors else {}
        return scores | ({"photographs": fmean(r["repeatability"] for r in hard)} if hard else {})

    def _measure_matches(self, detector: Detector) -> dict[str, float]:
        kinds = [[s for s in self.sequences if (s.kind == "synthetic") == synthetic] for synthetic in (True, False)]
        synthetic, photos = (matching_scores(each, detector, describer(detector)) if each else {} for each in kinds)
        scores = {f"synthetic_{name}": value for name, value in synthetic.items()}
        return scores | {f"photographs_{name}": value for name, value in photos.items()}

    @torch.inference_mode()
    def picture(self, detector: Detector, max_keypoints: int = 60) -> np.ndarray:
        """Both views with their best keypoints (green: found in the other, red: not) and dense scores, a pair a row.

        An RGB array (H, W, 3) of uint8, of the first pairs of the first batch.
        """
        pair = self.pairs[0].to(self.device)
        keypoints0, keypoints1 = _keypoints(detector, pair)
        seen0 = counted(keypoints0, pair.H_0to1, pair.size1, max_keypoints)
        seen1 = counted(keypoints1, pair.H_1to0, pair.size0, max_keypoints)
        nearest0, nearest1 = nearest_distances(seen0, seen1, pair.H_0to1)
        scores0, scores1 = detector.dense(pair.image0), detector.dense(pair.image1)
        rows = []
        for b in range(min(_SHOWN, len(pair.image0))):
            row = []
            views = ((pair.image0, seen0, nearest0, scores0), (pair.image1, seen1, nearest1, scores1))
            for image, seen, nearest, scores in views:
                one = Keypoints(seen.xy[b : b + 1], seen.scores[b : b + 1], seen.valid[b : b + 1])
                row += [keypoint_picture(image[b], one, nearest[b : b + 1] <= _THRESHOLD), score_picture(scores[b])]
            rows.append(row)
        return sheet(rows)


def _keypoints(detector: Detector, pair: ViewPair) -> tuple[Keypoints, Keypoints]:
    """All keypoints of both views where they show the scene."""

    def keypoints(image: Tensor, valid: Tensor | None) -> Keypoints:
        return detector.keypoints(image, mask=valid)

    return keypoints(pair.image0, pair.valid0), keypoints(pair.image1, pair.valid1)


def better(scores: Mapping[str, float], kept: Mapping[str, float]) -> bool:
    """Whether weights are to be kept in place of those that scored ``kept``, which is empty where there are none.

    The better ones on the real sequences are; without such scores the later ones, unless the earlier have them.
    """
    if "validation" not in scores or "validation" not in kept:
        return "validation" in scores or "validation" not in kept
    return math.isnan(kept["validation"]) or scores["validation"] > kept["validation"]
