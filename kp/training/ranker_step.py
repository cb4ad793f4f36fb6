"""What a step of training does with the ranker: it sees new views, and learns from keypoints of all steps so far."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kp.config import RunSettings
from kp.data.pairs import PrefetchedPairs
from kp.data.view_groups import ViewGroup
from kp.evaluation.metrics import repeatability
from kp.geometry.coords import Size
from kp.geometry.homography import compose
from kp.models.corner import CANDIDATES_PER_KEYPOINT, unranked
from kp.models.detector import Detector
from kp.models.keypoints import Keypoints, resized
from kp.models.peak_features import NUM_FEATURES, peak_features
from kp.models.ranker import reranked
from kp.training import distributed
from kp.training.ranking import repeated_shares

_KEPT = 0.1  # of the keypoints of a step, which resemble each other


class PeakMemory:
    """Features (M, NUM_FEATURES) and shares (M,) of keypoints, in half precision, at most ``capacity``.

    All random numbers are torch's own, on the CPU. Where it is full, new keypoints take the places of random old ones.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.features, self.shares = torch.empty(0, NUM_FEATURES).half(), torch.empty(0).half()

    def add(self, features: Tensor, shares: Tensor) -> None:
        """Keep a random tenth, but at least one, of keypoints (N, NUM_FEATURES), (N,)."""
        some = torch.randperm(len(features))[: min(math.ceil(_KEPT * len(features)), self.capacity)]
        stay = torch.randperm(len(self.features))[: self.capacity - len(some)]
        self.features = torch.cat([self.features[stay], features[some.to(features.device)].half().cpu()])
        self.shares = torch.cat([self.shares[stay], shares[some.to(shares.device)].half().cpu()])

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Features (count, NUM_FEATURES) and shares (count,) of keypoints, some of them more than once. Float32.

        None of either, (0, NUM_FEATURES) and (0,), where nothing is remembered.
        """
        known = len(self.features)
        chosen = torch.randint(known, (count,)) if known else torch.empty(0, dtype=torch.long)
        return self.features[chosen].float(), self.shares[chosen].float()


class RankerStep:
    """The keypoints that this rank remembers, and the loss of a batch of them.

    Args:
        pairs: groups of views, what a step looks at.
        model: the detector that is trained.
        ranker: its ranker, or what shares its gradients among the ranks.
    """

    def __init__(self, settings: RunSettings, pairs: PrefetchedPairs, model: Detector, ranker: nn.Module) -> None:
        self.settings, self.pairs, self.model, self.ranker = settings, pairs, model, ranker
        self.images_per_step = settings.train.batch * settings.world.views
        self.memory = PeakMemory(max(1, settings.train.remembered // distributed.ranks()))

    def look(self, group: ViewGroup) -> tuple[Tensor, dict[str, Tensor]]:
        """The ranking loss; and beside it the repeatability of the views, as ranked now and as by score alone."""
        train, views = self.settings.train, group.images.shape[1]
        size = tuple(group.images.shape[-2:])
        count = math.ceil(size[0] * size[1] * train.keypoints_per_megapixel / 1e6)
        images = group.images.flatten(0, 1)  # (B * V, 1, H, W)
        found = resized(unranked(self.model, images), CANDIDATES_PER_KEYPOINT * count)
        shares, seen = repeated_shares(_views(found, views), group.H, size, train.keypoints_per_megapixel)
        shares, seen = (values.transpose(0, 1).flatten(0, 1) for values in (shares, seen))  # (B * V, K)
        features = peak_features(images, found)
        self._remember(features[seen], shares[seen])
        drawn, targets = (values.to(images.device) for values in self.memory.draw(train.ranked_peaks))
        loss = F.binary_cross_entropy_with_logits(self.ranker(drawn), targets, reduction="sum") / max(1, len(targets))
        with torch.no_grad():
            logits = self.model.ranker.of_valid(features, found)
        ranked = reranked(found, self.settings.detector.ranker_weight * logits)
        metrics = {
            f"repeatability{name}": _repeatability(points, group.H, size, count)
            for name, points in (("", ranked), ("_by_score", found))
        }
        return loss, {"ranking": loss} | metrics

    def update(self) -> None:
        """Nothing: all that is learnt has a gradient."""

    def state(self) -> list[dict[str, Any]]:
        """What every rank remembers; all must ask."""
        return distributed.gather({"features": self.memory.features, "shares": self.memory.shares})

    def load_state(self, state: list[dict[str, Any]]) -> None:
        """Go on from what :meth:`state` gave; a rank that is new remembers nothing."""
        if distributed.rank() < len(state):
            own = state[distributed.rank()]
            self.memory.features, self.memory.shares = own["features"], own["shares"]

    def _remember(self, features: Tensor, shares: Tensor) -> None:
        if len(features) > 1:
            self.model.ranker.observe(features)
            self.memory.add(features, shares)


def _views(keypoints: Keypoints, views: int) -> list[Keypoints]:
    """Keypoints (B * V, K) of V views of B scenes as V of (B, K)."""
    return [keypoints.each(slice(view, None, views)) for view in range(views)]


def _repeatability(keypoints: Keypoints, H: Tensor, size: Size, count: int) -> Tensor:
    """Mean repeatability within 3 px of the best ``count`` keypoints (B * V, K) of view 0 and each other view."""
    first, *others = _views(keypoints, H.shape[1])
    H_0tok = [compose(H[:, view].double(), H[:, 0].double()) for view in range(1, H.shape[1])]
    scores = [repeatability(first, other, H, size, size, count) for other, H in zip(others, H_0tok, strict=True)]
    return torch.stack([score.repeatability for score in scores]).mean()
