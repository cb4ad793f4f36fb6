"""How good a detector is while it trains: the real metric on held-out synthetic pairs, always the same ones."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from kp.data import photographs
from kp.data.hpatches import HPatchesError
from kp.data.pairs import ViewPair, view_pairs
from kp.evaluation.metrics import counted, nearest_distances, repeatability
from kp.geometry.coords import Size
from kp.models.detector import Detector
from kp.models.keypoints import Keypoints, extract_keypoints
from kp.reporting.images import keypoint_picture, score_picture, sheet

_SEED = 20_000_003  # far from the seeds that people train with, so that no validation pair is ever trained on
_SHOWN = 4  # pairs of the picture
_THRESHOLD = 3.0  # pixels within which a keypoint is found again


class Validation:
    """Fixed synthetic pairs of views of one size, kept on ``device``, and what a detector scores on them."""

    def __init__(self, device: torch.device, batches: int = 8, batch: int = 8, size: Size = (240, 320)) -> None:
        # Drawn on the CPU: the pairs are then the same for every device.
        pairs = view_pairs(batch, size, torch.Generator().manual_seed(_SEED))
        self.pairs = [next(pairs).to(device) for _ in range(batches)]

    @torch.inference_mode()
    def measure(
        self,
        detector: Callable[[Tensor], Tensor],
        max_keypoints: int = 300,
        threshold: float = _THRESHOLD,
        subpixel: bool = False,
    ) -> dict[str, float]:
        """Mean repeatability within ``threshold`` pixels of the best ``max_keypoints``; localisation error (pixels)."""
        scored = []
        for pair in self.pairs:
            keypoints0, keypoints1 = _keypoints(detector, pair, subpixel)
            scored.append(
                repeatability(keypoints0, keypoints1, pair.H_0to1, pair.size0, pair.size1, max_keypoints, threshold)
            )
        error = torch.cat([s.localisation_error for s in scored]).nanmean().item()
        scores = {"repeatability": torch.cat([s.repeatability for s in scored]).mean().item()}
        return scores if math.isnan(error) else scores | {"localisation_error": error}  # nothing matched: no error

    @torch.inference_mode()
    def picture(self, detector: Detector, max_keypoints: int = 60) -> np.ndarray:
        """Both views with their best keypoints (green: found in the other, red: not) and dense scores, a pair a row.

        An RGB array (H, W, 3) of uint8, of the first pairs of the first batch.
        """
        pair = self.pairs[0]
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


def _keypoints(
    detector: Callable[[Tensor], Tensor], pair: ViewPair, subpixel: bool = False
) -> tuple[Keypoints, Keypoints]:
    """All keypoints of both views where they show the scene."""

    def keypoints(image: Tensor, valid: Tensor | None) -> Keypoints:
        return extract_keypoints(detector(image), mask=valid, subpixel=subpixel)

    return keypoints(pair.image0, pair.valid0), keypoints(pair.image1, pair.valid1)


_SEED = 3  # of the photographs' changes: not kp.scorecard's, nor those that evaluate.py shows
_BEST = 75  # keypoints of a photograph that count
_DECIDES = ("photographs", "repeatability")  # the first of these scores that there is


class Selection:
    """Fixed images on ``device``, and what the weights of a run score on them.

    Where scikit-image is not installed there are no photographs, and the synthetic pairs decide.
    """

    def __init__(
        self,
        device: torch.device,
        validation: Validation | None = None,
        files: Sequence[str] = photographs.FILES,
    ) -> None:
        self.validation = validation or Validation(device)
        try:
            paths = [photographs.folder() / file for file in files]
        except HPatchesError:
            paths = []
        sequences = [photographs.make_hard_sequence(path, _SEED) for path in paths]
        self.images = [torch.cat([load() for load in s.images]).to(device) for s in sequences]
        self.homographies = [torch.stack(s.homographies).to(device) for s in sequences]

    @torch.inference_mode()
    def measure(self, detector: Detector) -> dict[str, float]:
        """``repeatability`` and ``localisation_error`` of the held-out pairs, and ``photographs``, if there are any.

        That is the mean repeatability within 3 px of the best 75 keypoints where the light changes as in training and
        every view is warped: ``hard_75`` of :mod:`kp.evaluation.scorecard`, of other changes.
        """
        scores = self.validation.measure(detector)
        if not self.images:
            return scores
        found = [self._found_again(detector, *s) for s in zip(self.images, self.homographies, strict=True)]
        return scores | {"photographs": torch.cat(found).mean().item()}

    def picture(self, detector: Detector) -> np.ndarray:
        """Some of the held-out pairs: see :meth:`kp.training.validation.Validation.picture`."""
        return self.validation.picture(detector)

    @staticmethod
    def _found_again(detector: Detector, images: torch.Tensor, H_0tok: torch.Tensor) -> torch.Tensor:
        """Repeatability (K,) of the first of images (1 + K, 1, H, W) with each other one."""
        scores, size = detector(images), tuple(images.shape[-2:])
        first, others = extract_keypoints(scores[:1].expand_as(scores[1:])), extract_keypoints(scores[1:])
        return repeatability(first, others, H_0tok, size, size, _BEST).repeatability


def better(scores: Mapping[str, float], kept: Mapping[str, float]) -> bool:
    """Whether weights are to be kept in place of those that scored ``kept``, which is empty where there are none.

    A run may have begun where there are photographs and go on where there are none: only what both have is compared.
    """
    for name in _DECIDES:
        if name in scores and name in kept:
            return math.isnan(kept[name]) or scores[name] > kept[name]
    return not kept
