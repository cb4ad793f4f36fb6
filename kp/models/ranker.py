"""The ranker: which of the keypoints will be found again. It moves none of them."""

import torch
from torch import Tensor, nn

from kp.models.keypoints import Keypoints
from kp.models.peak_features import NUM_FEATURES, peak_features

_LARGEST = 4.0  # standard deviations: features beyond it are taken as this


class Ranker(nn.Module):
    """Grey images (B, 1, H, W) and their keypoints (B, K) -> logits (B, K) that another view repeats the keypoint.

    A small network reads :func:`kp.models.peak_features.peak_features` at each keypoint.

    Args:
        width: numbers in each of its two hidden layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(NUM_FEATURES, affine=False)
        self.layers = nn.Sequential(
            nn.Linear(NUM_FEATURES, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1)
        )

    def forward(self, grey: Tensor, keypoints: Keypoints) -> Tensor:
        with torch.autocast(grey.device.type, enabled=False), torch.no_grad():
            features = peak_features(grey.float(), keypoints)
        valid, logits = keypoints.valid, keypoints.scores.new_zeros(keypoints.valid.shape)
        standard = self.normalise(features[valid]).clamp(-_LARGEST, _LARGEST)
        logits[valid] = self.layers(standard)[:, 0].to(logits.dtype)
        return logits


def reranked(keypoints: Keypoints, gain: Tensor) -> Keypoints:
    """Keypoints with ``gain`` (B, K) added to their scores (B, K), best first."""
    scores = (keypoints.scores + gain).masked_fill(~keypoints.valid, -torch.inf)
    changed = Keypoints(keypoints.xy, scores, keypoints.valid)
    return changed.ordered(scores.argsort(dim=1, descending=True, stable=True))
