"""What 240x320 pixels cannot tell: photographs at their own size, in pairs of views with one kind of change each.

For every photograph that scikit-image ships (:mod:`kp.data.photographs`; gray, here not shrunk) and every kind there
are three pairs, the change growing from one to the next. A view has four fifths of the photograph's sides, at most
720x960 pixels. View 0, but for ``hard``, is a window of the photograph, which goes on mirrored at its right and below;
what lies farther out is black in view 1, where view 0 does not show it.

light   the light changes, as in the built-in ``i`` sequences
relit   greys are redrawn by a curve that rises and falls at random: edges turn round, as between day and night
focus   the lens is out of focus: a disc with a radius of 2, 4 or 6 pixels
zoom    view 1 is magnified 1.4, 1.9 or 2.5 times, and turned
tilt    the plane is turned away by 40, 55 or 65 degrees, about an axis that turns too
hard    both views are warped, and each is in a light of its own, as in the built-in hard sequences

View 1 of ``relit``, ``focus``, ``zoom`` and ``tilt`` has a little noise. For every kind there is the repeatability of
the best 300 keypoints, as protocol ``native`` counts them, and with ``_error`` the localisation error in pixels.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import torch
from kornia.filters import filter2d
from torch import Tensor
from tqdm import tqdm

from kp.data import photographs
from kp.data.hpatches import read_image
from kp.data.photographs import as_8bit, hard_view
from kp.data.photometric import change_photometry
from kp.evaluation import metrics
from kp.evaluation.baselines import ScoreMap
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.registry import make_detectors
from kp.geometry.coords import Size, invert, resize, resize_matrix, translation, warp_image
from kp.support.process import progress_interval

KINDS = ("light", "relit", "focus", "zoom", "tilt", "hard")
ERROR = "_error"
COLUMNS = (*KINDS, "all")
NAMES = tuple(f"{kind}{ending}" for kind in COLUMNS for ending in ("", ERROR))
_MOST, _SHARE = (720, 960), 0.8  # of a view: pixels, and share of the photograph's sides
_LIGHT = (0.6, 0.9, 1.2)  # strengths of a change of light
_REDRAWN = (0.4, 0.7, 1.0)  # shares of the random curve in a grey; the rest stays
_KNOTS = 12  # of that curve
_DISC = (2.0, 4.0, 6.0)  # pixels
_ZOOM = ((1.4, 20.0), (1.9, -50.0), (2.5, 35.0))  # factor, and degrees in the plane
_TILT = ((40.0, 0.0), (55.0, 90.0), (65.0, 30.0))  # degrees of the plane, and of the direction that it shortens
_HARD, _HARD_REFERENCE = (0.2, 0.4, 0.6), 0.2  # most change of view, and view 0's
_LARGER = 3  # times the sides of a view: no axis then shrinks before the filter
_NOISE = 0.008  # standard deviation, as a share of the range of greys


class Pair(NamedTuple):
    """Views (1, 1, H, W) in [0, 1], in 8 bits and of one size; pixels of view 0 -> of view 1, (3, 3), float64."""

    kind: str
    image0: Tensor
    image1: Tensor
    H_0to1: Tensor


def pairs(photograph: Path, seed: int = 0) -> Iterator[Pair]:
    """The pairs of a photograph, a kind after the other. Those that share a view 0 share the tensor."""
    image = read_image(photograph)
    view = tuple(min(most, int(side * _SHARE)) for most, side in zip(_MOST, image.shape[-2:], strict=True))
    canvas = photographs.mirrored(image, view)
    corner = [(whole - part) // 2 for whole, part in zip(canvas.shape[-2:], view, strict=True)]
    generator = torch.Generator().manual_seed(crc32(photograph.stem.encode()) + seed)
    make = _Maker(canvas, translation(-corner[1], -corner[0]), view, generator)
    plain, same = as_8bit(make.plain(canvas)), torch.eye(3, dtype=torch.float64)
    for strength in _LIGHT:
        yield Pair("light", plain, as_8bit(change_photometry(make.plain(canvas), generator, strength)), same)
    for share in _REDRAWN:
        yield Pair("relit", plain, make.noisy(redrawn(make.plain(canvas), share, generator)), same)
    for radius in _DISC:
        yield Pair("focus", plain, make.noisy(make.plain(out_of_focus(canvas, radius))), same)
    centre = translation((view[1] - 1) / 2, (view[0] - 1) / 2)
    for kind, changes in (("zoom", map(_magnified, _ZOOM)), ("tilt", map(_tilted, _TILT))):
        for change in changes:
            H_0to1 = centre @ change @ invert(centre)
            yield Pair(kind, plain, make.noisy(make.filtered(H_0to1)), H_0to1)
    hard0, H_plain_to_0 = hard_view(canvas, make.H_canvas_to_plain, view, _HARD_REFERENCE, generator)
    hard0 = as_8bit(hard0)
    for strength in _HARD:
        hard1, H_plain_to_1 = hard_view(canvas, make.H_canvas_to_plain, view, strength, generator)
        yield Pair("hard", hard0, as_8bit(hard1), H_plain_to_1 @ invert(H_plain_to_0))


class _Maker(NamedTuple):
    """Makes views of a canvas."""

    canvas: Tensor
    H_canvas_to_plain: Tensor
    view: Size
    generator: torch.Generator

    def plain(self, canvas: Tensor) -> Tensor:
        """The window of view 0, of a canvas that lies as this one does."""
        left, top = (-self.H_canvas_to_plain[:2, 2]).long().tolist()
        return canvas[..., top : top + self.view[0], left : left + self.view[1]]

    def filtered(self, H_plain_to_view: Tensor) -> Tensor:
        """Drawn larger, and shrunk: what one axis shrinks by more than the other, warping alone would not filter."""
        larger = tuple(_LARGER * side for side in self.view)
        H_canvas_to_larger = resize_matrix(self.view, larger) @ H_plain_to_view @ self.H_canvas_to_plain
        return resize(warp_image(self.canvas, H_canvas_to_larger[None].float(), larger), self.view).clamp(0, 1)

    def noisy(self, image: Tensor) -> Tensor:
        return as_8bit((image + _NOISE * torch.randn(image.shape, generator=self.generator)).clamp(0, 1))


def redrawn(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """An image (1, 1, H, W) in [0, 1], its greys by a ``share`` on a random curve from 0 to 1 that need not rise."""
    curve = torch.rand(_KNOTS, generator=generator)
    curve = (curve - curve.min()) / (curve.max() - curve.min())
    place = image * (_KNOTS - 1)
    below = place.long().clamp(0, _KNOTS - 2)
    return (1 - share) * image + share * torch.lerp(curve[below], curve[below + 1], place - below)


def out_of_focus(image: Tensor, radius: float) -> Tensor:
    """An image (1, 1, H, W) through a lens that makes a disc of a point: ``radius`` in pixels, its edge smooth."""
    reach = math.ceil(radius)
    steps = torch.arange(-reach, reach + 1.0)
    disc = (radius + 0.5 - torch.hypot(steps[:, None], steps)).clamp(0, 1)
    return filter2d(image, disc[None], border_type="replicate", normalized=True)


def _magnified(look: tuple[float, float]) -> Tensor:
    factor, degrees = look
    return torch.tensor([factor, factor, 1], dtype=torch.float64).diag() @ _turned(degrees)


def _tilted(look: tuple[float, float]) -> Tensor:
    tilt, direction = look
    shortened = torch.tensor([math.cos(math.radians(tilt)), 1, 1], dtype=torch.float64).diag()
    return _turned(-direction) @ shortened @ _turned(direction)


def _turned(degrees: float) -> Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)


def scorecard(
    detector: ScoreMap, seed: int = 0, subpixel: bool = False, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """The numbers of a detector, by NAMES: a network in evaluation mode, or any image (1, 1, H, W) -> score map.

    Means over pairs, and ``all`` over kinds; an error that there is none of, since nothing matched, is left out. The
    detector runs on ``device``; ``subpixel`` refines the keypoints. Draws a progress bar, over photographs, on stderr.
    Raises HPatchesError where scikit-image is not installed.
    """
    protocol, data = PROTOCOLS["native"], photographs.folder()
    find = make_detectors({"kp": detector}, protocol, subpixel, torch.device(device))["kp"]
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for file in tqdm(photographs.FILES, unit="photograph", leave=False, mininterval=progress_interval()):
        image0 = keypoints0 = None
        for pair in pairs(data / file, seed):
            if pair.image0 is not image0:
                image0, keypoints0 = pair.image0, find(pair.image0)
            size, keypoints1 = tuple(image0.shape[-2:]), find(pair.image1)
            settings = size, size, protocol.max_keypoints, protocol.threshold
            scores = metrics.repeatability(keypoints0, keypoints1, pair.H_0to1[None], *settings)
            found[pair.kind].append(scores.repeatability.item())
            found[f"{pair.kind}{ERROR}"].append(scores.localisation_error.item())
    means = {name: _nanmean(values) for name, values in found.items()}
    for ending in ("", ERROR):
        means[f"all{ending}"] = _nanmean([means[f"{kind}{ending}"] for kind in KINDS])
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}


def _nanmean(values: list[float]) -> float:
    return torch.tensor(values, dtype=torch.float64).nanmean().item()
