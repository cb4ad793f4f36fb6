"""What a step of training does with a detector that has an encoder: the loss of the score maps of pairs of views."""

from typing import Any

import torch
from torch import Tensor, nn

from kp.config import RunSettings
from kp.data.pairs import PrefetchedPairs, ViewPair
from kp.training.losses import corner_loss, repeatability_losses


def loss_terms(pair: ViewPair, scores0: Tensor, scores1: Tensor, **choices: float) -> dict[str, Tensor]:
    """Every term of the loss by name, the mean of its two directions; ``choices``: see repeatability_losses."""
    corner = corner_loss(scores0, pair.corners0, pair.corner_mask0, pair.valid0, pair.ignore0)
    forward = {"corner": corner} | repeatability_losses(pair, scores0, scores1, **choices)
    corner = corner_loss(scores1, pair.corners1, pair.corner_mask1, pair.valid1, pair.ignore1)
    backward = {"corner": corner} | repeatability_losses(pair.swap(), scores1, scores0, **choices)
    return {name: (forward[name] + backward[name]) / 2 for name in forward}


class ScoreMapStep:
    """The loss of the score maps of pairs.

    Args:
        pairs: what a step looks at.
        network: the detector that is trained, or what shares its gradients among the ranks.
        half: in what it computes under autocast; None: in float32.
    """

    def __init__(
        self, settings: RunSettings, pairs: PrefetchedPairs, network: nn.Module, half: torch.dtype | None
    ) -> None:
        self.settings, self.pairs, self.network, self.half = settings, pairs, network, half
        self.images_per_step = 2 * settings.train.batch

    def look(self, pair: ViewPair) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the terms, and the terms. Raises FloatingPointError on scores that are not finite."""
        train = self.settings.train
        images = torch.cat([pair.image0, pair.image1]).to(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, dtype=self.half, enabled=self.half is not None):
            scores = self.network(images)
        if not scores.isfinite().all():
            raise FloatingPointError("the scores, and so every loss, are not finite")
        choices = {name: getattr(train, name) for name in ("keypoints_per_megapixel", "match_radius", "temperature")}
        terms = loss_terms(pair, *scores.chunk(2), **choices)
        return sum(getattr(train, f"{name}_weight") * term for name, term in terms.items()), terms

    def update(self) -> None:
        """Nothing: all that is learnt has a gradient."""

    def state(self) -> list[Any]:
        """Nothing: what is learnt is in the weights."""
        return []

    def load_state(self, state: list[Any]) -> None:
        """Go on from nothing."""
