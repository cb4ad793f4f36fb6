"""Which weights of a run are kept: those best on photographs under our own light and homographies.

Scores on held-out synthetic pairs are measured too, but say little of photographs: they may rise while those fall, and
the other way round. No photograph is trained on.
"""

import math
from collections.abc import Mapping
from collections.abc import Sequence as Series

import numpy as np
import torch

from kp import photographs
from kp.detector import Detector
from kp.hpatches import HPatchesError
from kp.keypoints import extract_keypoints
from kp.metrics import repeatability
from kp.validation import Validation

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
        files: Series[str] = photographs.FILES,
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
        every view is warped: ``hard_75`` of :mod:`kp.scorecard`, of other changes.
        """
        scores = self.validation.measure(detector)
        if not self.images:
            return scores
        found = [self._found_again(detector, *s) for s in zip(self.images, self.homographies, strict=True)]
        return scores | {"photographs": torch.cat(found).mean().item()}

    def picture(self, detector: Detector) -> np.ndarray:
        """Some of the held-out pairs: see :meth:`kp.validation.Validation.picture`."""
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
