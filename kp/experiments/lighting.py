"""How the light of two views differs: under the camera that the ranker is trained with, and for real pairs by kind.

grey        mean grey of view 1 less that of view 0
contrast    standard deviation of grey, view 1 over view 0, in powers of 2
noise       of neighbouring pixels, view 1 over view 0, in powers of 2 (Immerkaer, CVIU 1996: its Laplacian's median)
clipped     share of the pixels at or beyond 0.02 or 0.98, in the view that has more of them

The numbers are of whole views. Real pairs are images 1 and k of a sequence, by what changes in it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from kp.config import RunSettings, complete
from kp.data.hpatches import ImageSequence
from kp.data.synthetic.render import render
from kp.data.view_groups import view_groups
from kp.evaluation.kinds import kinds
from kp.geometry.block_filters import noise

QUANTITIES = ("grey", "contrast", "noise", "clipped")
_WHITE, _BLACK = 0.98, 0.02
_LEAST = 1e-3  # grey: less contrast, or noise, is taken as this


def training(groups: int, seed: int, tick: Callable[[], object]) -> Tensor:
    """The quantities (groups * (V - 1), 4) of the first and each other view of synthetic scenes, as training draws."""
    world = complete(RunSettings()).world
    generator = torch.Generator().manual_seed(seed)
    size = (world.image_size, world.image_size)
    drawn = view_groups(
        1,
        world.views,
        size,
        generator,
        render=partial(render, families=world.families),
        still=world.still,
        detail=world.detail,
        **world.ranges(),
    )
    rows = []
    for group in islice(drawn, groups):
        first, *others = (_of_view(view[None]) for view in group.images[0])
        rows += [_change(first, other) for other in others]
        tick()
    return torch.stack(rows)


def real(root: Path, sequences: Sequence[ImageSequence], tick: Callable[[], object]) -> dict[str, Tensor]:
    """The quantities (B, 4) of the pairs of sequences in ``root``, by kind."""
    kind, rows = kinds(root, [sequence.name for sequence in sequences]), {}
    for sequence in sequences:
        first, *others = (_of_view(load()) for load in sequence.images)
        rows.setdefault(kind[sequence.name], []).extend(_change(first, other) for other in others)
        tick()
    return {name: torch.stack(rows[name]) for name in sorted(rows, key=lambda name: -len(rows[name]))}


def quantiles(values: Tensor) -> tuple[float, float, float]:
    """10 % quantile, median and 90 % quantile of values (B,)."""
    return tuple(torch.quantile(values, values.new_tensor([0.1, 0.5, 0.9])).tolist())


def _of_view(image: Tensor) -> Tensor:
    """Mean, standard deviation, noise and share of clipped pixels of an image (1, 1, H, W): (4,)."""
    clipped = ((image >= _WHITE) | (image <= _BLACK)).float().mean()
    return torch.stack([image.mean(), image.std(), noise(image).median(), clipped]).double()


def _change(view0: Tensor, view1: Tensor) -> Tensor:
    """The quantities (4,) of a pair."""
    (grey0, contrast0, noise0, clipped0), (grey1, contrast1, noise1, clipped1) = view0, view1
    ratios = [
        torch.log2(b.clamp(min=_LEAST) / a.clamp(min=_LEAST)) for a, b in ((contrast0, contrast1), (noise0, noise1))
    ]
    return torch.stack([grey1 - grey0, *ratios, torch.maximum(clipped0, clipped1)])
