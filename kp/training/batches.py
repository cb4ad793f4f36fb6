"""What a step of training looks at, as the settings say: pairs of views, or groups of views under a camera."""

from collections.abc import Callable

import torch

from kp.config import RunSettings
from kp.data.pairs import PrefetchedPairs, view_pairs
from kp.data.synthetic.scene import Scene
from kp.data.view_groups import view_groups
from kp.geometry.coords import Size
from kp.support.settings import to_dict

DrawScenes = Callable[[int, Size, torch.Generator], Scene]  # (batch, size, generator) -> scenes


def random_pairs(
    settings: RunSettings, generator: torch.Generator, prefetch_steps: int, scenes: DrawScenes
) -> PrefetchedPairs:
    """Pairs of views without end, for a detector with an encoder; ``scenes`` draws what they look at."""
    world, light = settings.world, to_dict(settings.light)
    draw = view_pairs(
        settings.train.batch * prefetch_steps,
        (world.image_size, world.image_size),
        generator,
        render=scenes,
        photometric=light.pop("photometric"),
        light=light,
        illumination_only=world.illumination_only,
        viewpoint_only=world.viewpoint_only,
        **world.ranges(),
    )
    return PrefetchedPairs(draw, generator, prefetch_steps)


def random_groups(
    settings: RunSettings, generator: torch.Generator, prefetch_steps: int, scenes: DrawScenes
) -> PrefetchedPairs:
    """Groups of views without end, for the ranker; ``scenes`` draws what they look at."""
    world = settings.world
    draw = view_groups(
        settings.train.batch * prefetch_steps,
        world.views,
        (world.image_size, world.image_size),
        generator,
        render=scenes,
        camera=settings.camera,
        still=world.still,
        detail=world.detail,
        **world.ranges(),
    )
    return PrefetchedPairs(draw, generator, prefetch_steps)
