"""The ranker: which of the keypoints will be found again. It moves none of them."""

import torch
from torch import Tensor, nn

from kp.models.keypoints import Keypoints
from kp.models.peak_features import NUM_FEATURES, peak_features

_LARGEST = 4.0  # standard deviations: features beyond it are taken as this


class Ranker(nn.Module):
    """Features (..., NUM_FEATURES) of keypoints -> logits (...) that another view repeats the keypoint.

    A small network reads what :func:`kp.models.peak_features.peak_features` says of each keypoint, in units of the mean
    and the standard deviation of all features that :meth:`observe` was given.

    Args:
        width: numbers in each of its two hidden layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(NUM_FEATURES, affine=False, momentum=None)  # None: of all batches alike
        self.layers = nn.Sequential(
            nn.Linear(NUM_FEATURES, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        n = self.normalise
        standard = (features - n.running_mean) * (n.running_var + n.eps).rsqrt()
        return self.layers(standard.clamp(-_LARGEST, _LARGEST))[..., 0]

    def observe(self, features: Tensor) -> None:
        """Take features (M, NUM_FEATURES), M at least 2, into the mean and the standard deviation."""
        self.normalise.train()(features)

    def judge(self, grey: Tensor, keypoints: Keypoints) -> Tensor:
        """Grey images (B, 1, H, W) and their keypoints (B, K) -> logits (B, K), 0 where there is no keypoint."""
        with torch.autocast(grey.device.type, enabled=False):
            with torch.no_grad():
                features = peak_features(grey.float(), keypoints)
            return self.of_valid(features, keypoints)

    def of_valid(self, features: Tensor, keypoints: Keypoints) -> Tensor:
        """Features (B, K, NUM_FEATURES) of keypoints (B, K) -> logits (B, K), 0 where there is no keypoint."""
        return self(features).to(keypoints.scores.dtype).masked_fill(~keypoints.valid, 0)


def reranked(keypoints: Keypoints, gain: Tensor) -> Keypoints:
    """Keypoints with ``gain`` (B, K) added to their scores (B, K), best first."""
    scores = (keypoints.scores + gain).masked_fill(~keypoints.valid, -torch.inf)
    changed = Keypoints(keypoints.xy, scores, keypoints.valid)
    return changed.ordered(scores.argsort(dim=1, descending=True, stable=True))
