"""What a step of training does with the describer: its linear maps are computed anew, its network looks at places."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from kp.config import RunSettings
from kp.data.pairs import ViewPair
from kp.models.describer import TILTS
from kp.models.detector import Detector
from kp.models.gradient_histograms import ORBITS, SIZE, in_own_frame
from kp.training import distributed
from kp.training.description import (
    alike,
    description_losses,
    shared_places,
    tilted_histograms,
    view_histograms,
)
from kp.training.discriminant import Moments, discriminant, merged, tilt_maps


class DescriberStep:
    """The sums over all places that this rank has seen, and the loss of a batch.

    Args:
        models: the detector that is trained, and the average of its weights: both get the same maps.
    """

    def __init__(self, settings: RunSettings, *models: Detector) -> None:
        self.settings, self.models, self.moments = settings, models, Moments(SIZE, len(TILTS))

    def look(self, pair: ViewPair, describer: nn.Module, half: torch.dtype | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the descriptors of places that both views see, and the terms; see kp.training.description.

        Args:
            describer: of the detector that is trained, or what shares its gradients among the ranks.
            half: in what it computes under autocast; None: in float32.
        """
        train, image_size = self.settings.train, self.settings.world.image_size
        count = math.ceil(image_size**2 * train.keypoints_per_megapixel / 1e6)
        places = shared_places(pair, self.models[0], count, torch.default_generator)  # whose state is saved, too
        histograms = view_histograms(pair, places)
        if self.settings.detector.own_frame:
            histograms = tuple(in_own_frame(view) for view in histograms)
        self.moments.add(*(view[places.valid] for view in histograms))
        if self.models[0].describer.network is None:  # a network sees the image as it is, so nothing can be tilted
            tilted = tilted_histograms(pair.image0, places.xy0, TILTS)
            self.moments.add_tilted(histograms[0][places.valid], tilted[:, places.valid])
        self._fit()
        images, xy = torch.cat([pair.image0, pair.image1]), torch.cat([places.xy0, places.xy1])
        with torch.autocast(images.device.type, dtype=half, enabled=half is not None):
            descriptors, logits = describer(images, xy)
        each = (*descriptors.float().chunk(2), *logits.float().chunk(2))
        terms = description_losses(
            *each, places, alike(places, histograms), train.inverse_temperature, train.descriptor_loss
        )
        loss = (
            train.sosr_weight * terms["sosr"]
            + train.descriptor_weight * terms["descriptor"]
            + train.matchability_loss_weight * terms["matchability"]
        )
        if self.models[0].describer.network is None:
            del terms["matchability"], terms["sosr"]  # nothing foretells it
        return loss, terms

    def state(self) -> list[dict[str, Any]]:
        """The sums of every rank, which must all ask."""
        return distributed.gather(self.moments.state_dict())

    def load_state(self, state: list[dict[str, Any]]) -> None:
        """Go on from what :meth:`state` gave; a rank that is new begins with nothing."""
        if distributed.rank() < len(state):
            self.moments.load_state_dict(state[distributed.rank()])

    def _fit(self) -> None:
        """Compute the linear maps from all places so far, of all ranks."""
        moments = merged(distributed.gather(self.moments))
        if not moments.count:
            return
        weight, bias = discriminant(moments, self.settings.detector.descriptor_size, ORBITS)
        side_maps = tilt_maps(moments, weight, bias, ORBITS)
        for model in self.models:
            model.describer.linear.weight.copy_(weight)
            model.describer.linear.bias.copy_(bias)
            model.describer.side_maps.copy_(side_maps)
