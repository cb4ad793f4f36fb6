"""What a step of training does with the describer: its linear maps are computed anew from all pairs so far."""

import math
from typing import Any

import torch
from torch import Tensor

from kp.config import RunSettings
from kp.data.pairs import PrefetchedPairs, ViewPair
from kp.models.describer import TILTS
from kp.models.detector import Detector
from kp.models.gradient_histograms import ORBITS, SIZE
from kp.training import distributed
from kp.training.description import alike, matched_share, shared_places, tilted_histograms, view_histograms
from kp.training.discriminant import Moments, discriminant, merged, tilt_maps


class DescriberStep:
    """The sums over all places that this rank has seen, and the maps that follow from those of all ranks.

    Args:
        pairs: what a step looks at.
        models: the detector that is trained, and the average of its weights: both get the same maps.
    """

    def __init__(self, settings: RunSettings, pairs: PrefetchedPairs, *models: Detector) -> None:
        self.settings, self.pairs, self.models = settings, pairs, models
        self.images_per_step = 2 * settings.world.pairs
        self.moments = Moments(SIZE, len(TILTS))
        self.noise = torch.Generator().manual_seed(settings.train.seed)  # of the places

    def look(self, pair: ViewPair) -> tuple[Tensor, dict[str, Tensor]]:
        """Take the pairs into the sums. There is no loss, so it is 0; logged is the share of places matched right.

        By the maps of the steps before, which have not seen these pairs. No rank waits for another here, so an error of
        one can be told to all.
        """
        image_size = self.settings.world.image_size
        count = math.ceil(image_size**2 * self.settings.train.described_per_megapixel / 1e6)
        places = shared_places(pair, self.models[0], count, self.noise)
        histograms = view_histograms(pair, places)
        self.moments.add(*(view[places.valid] for view in histograms))
        tilted = tilted_histograms(pair.image0, places.xy0, TILTS)
        self.moments.add_tilted(histograms[0][places.valid], tilted[:, places.valid])
        describe = self.models[0].describer.of_histograms
        matched = matched_share(*(describe(view) for view in histograms), places.valid, alike(places, histograms))
        return torch.zeros_like(matched), {"matched": matched}

    def state(self) -> list[dict[str, Any]]:
        """The sums of every rank, which must all ask, and its chance."""
        return distributed.gather({"moments": self.moments.state_dict(), "noise": self.noise.get_state()})

    def load_state(self, state: list[dict[str, Any]]) -> None:
        """Go on from what :meth:`state` gave; a rank that is new begins with nothing."""
        if distributed.rank() < len(state):
            own = state[distributed.rank()]
            self.moments.load_state_dict(own.get("moments", own))  # earlier versions knew only these
            self.noise.set_state(own.get("noise", self.noise.get_state()))

    def update(self) -> None:
        """Compute the linear maps from all places so far, of all ranks, which must all ask."""
        moments = merged(distributed.gather(self.moments))
        if not moments.count:
            return
        weight, bias = discriminant(moments, self.settings.detector.descriptor_size, ORBITS)
        side_maps = tilt_maps(moments, weight, bias, ORBITS)
        for model in self.models:
            model.describer.linear.weight.copy_(weight)
            model.describer.linear.bias.copy_(bias)
            model.describer.side_maps.copy_(side_maps)
