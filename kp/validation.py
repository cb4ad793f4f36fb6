"""How good a detector is while it trains: the real metric on held-out synthetic pairs, always the same ones."""

import numpy as np
import torch
from torch import Tensor, nn

from kp.draw import keypoint_picture, score_picture, sheet
from kp.geometry import Size
from kp.keypoints import Keypoints, extract_keypoints
from kp.metrics import repeatability
from kp.pairs import view_pairs
from kp.views import ViewPair

_SEED = 20_000_003  # far from the seeds that people train with, so that no validation pair is ever trained on
_SHOWN = 4  # pairs of the picture


class Validation:
    """Fixed synthetic pairs of views of one size, kept on ``device``, and what a detector scores on them."""

    def __init__(self, device: torch.device, batches: int = 8, batch: int = 8, size: Size = (240, 320)) -> None:
        # Drawn on the CPU: the pairs are then the same for every device.
        pairs = view_pairs(batch, size, torch.Generator().manual_seed(_SEED))
        self.pairs = [next(pairs).to(device) for _ in range(batches)]

    @torch.inference_mode()
    def measure(self, detector: nn.Module, max_keypoints: int = 300, threshold: float = 3.0) -> dict[str, float]:
        """Mean repeatability within ``threshold`` pixels of the best ``max_keypoints``; localisation error (pixels)."""
        scored = []
        for pair in self.pairs:
            keypoints0, keypoints1 = _keypoints(detector, pair)
            scored.append(
                repeatability(keypoints0, keypoints1, pair.H_0to1, pair.size0, pair.size1, max_keypoints, threshold)
            )
        error = torch.cat([s.localisation_error for s in scored])
        return {
            "repeatability": torch.cat([s.repeatability for s in scored]).mean().item(),
            "localisation_error": error.nanmean().item(),
        }

    @torch.inference_mode()
    def picture(self, detector: nn.Module) -> np.ndarray:
        """Views, keypoints (green: repeated) and score maps of the first pairs: an RGB array (H, W, 3) of uint8."""
        shown = self.pairs[0]
        rows = []
        scores0, scores1 = detector(shown.image0), detector(shown.image1)
        keypoints0, keypoints1 = _keypoints(detector, shown)
        for b in range(_SHOWN):
            row = []
            for image, points, scores in ((shown.image0, keypoints0, scores0), (shown.image1, keypoints1, scores1)):
                one = Keypoints(points.xy[b : b + 1], points.scores[b : b + 1], points.valid[b : b + 1])
                best = one.select(one.valid, 100)
                row += [keypoint_picture(image[b], best), score_picture(scores[b])]
            rows.append(row)
        return sheet(rows)


def _keypoints(detector: nn.Module, pair: ViewPair) -> tuple[Keypoints, Keypoints]:
    """All keypoints of both views where they show the scene."""

    def keypoints(image: Tensor, valid: Tensor | None) -> Keypoints:
        return extract_keypoints(detector(image), mask=valid)

    return keypoints(pair.image0, pair.valid0), keypoints(pair.image1, pair.valid1)
