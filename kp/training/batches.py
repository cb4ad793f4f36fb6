"""What a step of training looks at, as the settings say: pairs of views, or groups of views under a camera."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from kp.config import DAY_AND_NIGHT, CameraSettings, RunSettings
from kp.data.pairs import PrefetchedPairs, ViewPair, view_pairs
from kp.data.synthetic.scene import Scene
from kp.data.view_groups import ViewGroup, view_groups
from kp.geometry.coords import Size
from kp.support.settings import to_dict

DrawScenes = Callable[[int, Size, torch.Generator], Scene]  # (batch, size, generator) -> scenes


def random_pairs(
    settings: RunSettings, generator: torch.Generator, prefetch_steps: int, scenes: DrawScenes
) -> PrefetchedPairs:
    """Pairs of views without end, for a detector with an encoder; ``scenes`` draws what they look at."""
    return PrefetchedPairs(
        _pairs(settings, settings.train.batch * prefetch_steps, generator, scenes), generator, prefetch_steps
    )


def described_pairs(
    settings: RunSettings, generator: torch.Generator, prefetch_steps: int, scenes: DrawScenes
) -> PrefetchedPairs:
    """Pairs of views without end, for descriptors: as :func:`random_pairs`, but in a share of the steps a camera
    photographs each scene under two lights that differ as day and night do.
    """
    count = settings.world.pairs * prefetch_steps
    pairs = _pairs(settings, count, generator, scenes)
    camera = replace(settings.camera, **DAY_AND_NIGHT)
    groups = _groups(settings, count, generator, scenes, 2, camera)

    def draw() -> Iterator[_Steps]:
        while True:
            chance = torch.rand(prefetch_steps, generator=generator, device=generator.device)
            relit = (chance < settings.world.relit_pairs).tolist()
            yield _Steps(relit, next(groups).pair() if any(relit) else None, None if all(relit) else next(pairs))

    return PrefetchedPairs(draw(), generator, prefetch_steps)


@dataclass(frozen=True)
class _Steps:
    """The pairs of several steps, drawn at once: of each step those of one of two kinds."""

    relit: list[bool]
    by_day_and_night: ViewPair | None
    others: ViewPair | None

    def every(self, first: int, step: int) -> ViewPair:
        """The pairs of step ``first``, of ``step`` of them; see :class:`kp.data.pairs.PrefetchedPairs`."""
        kind = self.by_day_and_night if self.relit[first] else self.others
        return kind.every(first, step)


def random_groups(
    settings: RunSettings, generator: torch.Generator, prefetch_steps: int, scenes: DrawScenes
) -> PrefetchedPairs:
    """Groups of views without end, for the ranker; ``scenes`` draws what they look at."""
    count = settings.train.batch * prefetch_steps
    groups = _groups(settings, count, generator, scenes, settings.world.views, settings.camera)
    return PrefetchedPairs(groups, generator, prefetch_steps)


def _pairs(settings: RunSettings, count: int, generator: torch.Generator, scenes: DrawScenes) -> Iterator[ViewPair]:
    world, light = settings.world, to_dict(settings.light)
    return view_pairs(
        count,
        (world.image_size, world.image_size),
        generator,
        render=scenes,
        photometric=light.pop("photometric"),
        light=light,
        illumination_only=world.illumination_only,
        viewpoint_only=world.viewpoint_only,
        **world.ranges(),
    )


def _groups(
    settings: RunSettings,
    count: int,
    generator: torch.Generator,
    scenes: DrawScenes,
    views: int,
    camera: CameraSettings,
) -> Iterator[ViewGroup]:
    world = settings.world
    return view_groups(
        count,
        views,
        (world.image_size, world.image_size),
        generator,
        render=scenes,
        camera=camera,
        still=world.still,
        detail=world.detail,
        **world.ranges(),
    )
