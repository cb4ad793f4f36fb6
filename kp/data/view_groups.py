"""Groups of views of one plane under a camera: what the ranker of keypoints, and in part the describer, see."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from kp.config import CameraSettings
from kp.data.camera import bracket
from kp.data.pairs import ViewPair, canvas_size
from kp.data.synthetic.render import render
from kp.data.synthetic.scene import Scene
from kp.geometry.coords import Size
from kp.geometry.homography import RandomHomography, compose


@dataclass(frozen=True)
class ViewGroup:
    """``images`` (B, V, 1, H, W) in [0, 1]: V views of each scene; ``H`` (B, V, 3, 3): pixels of the scene -> view."""

    images: Tensor
    H: Tensor

    def pair(self) -> ViewPair:
        """The first two views; which corners they show is not known."""
        return ViewPair(self.images[:, 0], self.images[:, 1], compose(self.H[:, 1], self.H[:, 0]))

    def every(self, first: int, step: int) -> "ViewGroup":
        """Every ``step``-th scene from the ``first`` on."""
        return ViewGroup(**{f.name: getattr(self, f.name)[first::step] for f in fields(self)})


def view_groups(
    batch: int,
    views: int,
    size: Size,
    generator: torch.Generator,
    *,
    render: Callable[[int, Size, torch.Generator], Scene] = render,
    camera: CameraSettings = CameraSettings(),
    still: float = 0.8,
    detail: int = 2,
    **ranges: float,
) -> Iterator[ViewGroup]:
    """Yield groups without end, on the device of ``generator``, which makes every draw.

    Args:
        batch: scenes of a group.
        views: photographs of each scene.
        size: (H, W) of a view.
        render: draws the scenes: (batch, size, generator) -> Scene.
        still: share of the scenes whose views are all from one place, as a tripod's; the others move between views.
        detail: scenes are drawn so many times as large, and reduced, so that they have as much detail as photographs.
        **ranges: limits of :func:`kp.geometry.homography.random_homographies`.
    """
    look = RandomHomography(size, padding="reflection", antialias=True, generator=generator, **ranges)
    canvas = tuple(detail * side for side in canvas_size(size))
    while True:
        scene = render(batch, canvas, generator).image
        scene = F.avg_pool2d(scene, detail) if detail > 1 else scene
        look.strength = torch.rand(batch, generator=generator, device=generator.device)
        moves = torch.rand(batch, generator=generator, device=generator.device) >= still
        seen, places = look(scene), look.transform_matrix.clone()
        images, matrices = [seen], [places]
        for _ in range(views - 1):
            other = look(scene)
            images.append(torch.where(moves[:, None, None, None], other, seen))
            matrices.append(torch.where(moves[:, None, None], look.transform_matrix, places))
        yield ViewGroup(bracket(torch.stack(images, dim=1), generator, camera), torch.stack(matrices, dim=1))
