"""What settings and checkpoints are chosen by, in a minute on a CPU core: never real test sequences.

Everywhere NMS 9x9, a border of 4 px, and repeated means within 3 px. Names of the numbers, means over pairs:

i_300, v_300        repeatability of the best 300 keypoints on the built-in photographs (:mod:`kp.data.photographs`)
i_25, v_25          of the best 25: in 240x320 as dense as 300 of 0.9 megapixels, which is what protocol ``native`` sees
i_75, v_75          of the best 75, between the two and with less noise
error_75            localisation error of the best 75, i and v, in pixels
hard_25 to _300     the same numbers where the light changes as in training and every view is warped, the first too
hard_error          localisation error of the best 75 there, in pixels
rotation_0 to _180  repeatability of the best 75 as the photographs are turned (:mod:`kp.evaluation.sweeps`), in degrees
scale_0.5, scale_2  of the best 300 as they are shrunk and magnified
synthetic           of the best 75 on the held-out synthetic pairs (:mod:`kp.training.validation`)
shift               how much the score map changes as the image moves by a pixel, as a share of its standard deviation:
                    0 if the map moves with the image. A network that is tied to its strides' lattice cheats where the
                    light changes, because there both images share the lattice.

A number that there is none of is left out: an error where nothing matched, a shift of a map that is -inf nearly
everywhere.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from statistics import fmean

import torch
from torch import Tensor

from kp.data import photographs
from kp.data.hpatches import ImageSequence
from kp.evaluation import metrics, sweeps
from kp.evaluation.baselines import ScoreMap
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.registry import make_detectors
from kp.models.keypoints import Keypoints
from kp.training.validation import Validation

SEEDS = (1, 2)  # of the photographs' changes; what evaluate.py shows without --hpatches is seed 0
SWEPT = {"rotation": (0.0, 45.0, 90.0, 180.0), "scale": (0.5, 2.0)}
NAMES = (
    *("i_25", "v_25", "i_75", "v_75", "i_300", "v_300", "error_75"),
    *("hard_25", "hard_75", "hard_300", "hard_error"),
    *(f"{kind}_{value:g}" for kind, values in SWEPT.items() for value in values),
    *("synthetic", "shift"),
)
_SOME = 75  # keypoints of a view that count where there is one number only
_ALL = (25, _SOME, 300)
_COUNTED = {"i": _ALL, "v": _ALL, "hard": _ALL, "rotation": (_SOME,), "scale": (300,)}
_ERRORS = {"i": "error_75", "v": "error_75", "hard": "hard_error"}
_INTERIOR = 32  # pixels from an image's edge on which a shift of the image is not felt
_MOVES = ((0, 0), (1, 0), (0, 1))  # (x, y) pixels
_ENOUGH = 0.1  # share of the pixels that must have a score in both maps for a shift to mean anything


@dataclass
class _Views:
    """Images (1, 1, H, W), none twice; pairs of them: name, numbers of view 0 and 1, H_0to1 (1, 3, 3); references."""

    images: list[Tensor] = field(default_factory=list)
    pairs: list[tuple[str, int, int, Tensor]] = field(default_factory=list)
    references: list[int] = field(default_factory=list)  # one of each photograph
    _known: dict[bytes, int] = field(default_factory=dict)

    def add(self, name: str, sequence: ImageSequence) -> None:
        """All pairs of a sequence."""
        numbers = [self._number(load()) for load in sequence.images]
        size0 = tuple(self.images[numbers[0]].shape[-2:])
        for k, number in enumerate(numbers[1:], start=2):
            self.pairs.append((name, numbers[0], number, sequence.homography(k, size0)))
        if name == "i" and numbers[0] not in self.references:
            self.references.append(numbers[0])

    def _number(self, image: Tensor) -> int:
        number = self._known.setdefault(sha256(image.numpy().tobytes()).digest(), len(self.images))
        if number == len(self.images):
            self.images.append(image)
        return number


def scorecard(
    detector: ScoreMap, seeds: Sequence[int] = SEEDS, subpixel: bool = False, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """The numbers of a detector, by name: a network in evaluation mode, or any image (1, 1, H, W) -> score map.

    The detector runs on ``device``. Images are made once in a process. ``subpixel`` refines the keypoints. Raises
    HPatchesError where scikit-image is not installed.
    """
    device, views = torch.device(device), _views(tuple(seeds), photographs.FILES)
    find = make_detectors({"kp": detector}, PROTOCOLS["native"], subpixel, device)["kp"]
    scores = _repeatabilities(views, [find(image) for image in views.images])
    one_by_one = _one_by_one(detector)
    scores["synthetic"] = _held_out(device).measure(one_by_one, _SOME, subpixel=subpixel)["repeatability"]
    references = [views.images[number].to(device) for number in views.references]
    scores["shift"] = _mean([shift(detector, image) for image in references])
    return {name: scores[name] for name in NAMES if math.isfinite(scores[name])}


@torch.inference_mode()
def shift(detector: ScoreMap, image: Tensor) -> float:
    """How much a score map changes as the image (1, 1, H, W) moves by a pixel, in units of its standard deviation.

    The mean of a move to the left and one upwards, over the interior; NaN where hardly a pixel has a score.
    """
    height, width = (n - 1 for n in image.shape[-2:])
    maps = [detector(image[..., y : y + height, x : x + width]) for x, y in _MOVES]
    inner, changes = slice(_INTERIOR, -_INTERIOR), []
    for moved, (x, y) in zip(maps[1:], _MOVES[1:], strict=True):
        before = maps[0][..., y:, x:][..., inner, inner]
        after = moved[..., : height - y, : width - x][..., inner, inner]
        both = before.isfinite() & after.isfinite()
        if both.double().mean() < _ENOUGH:
            return math.nan
        changed = (before[both].double() - after[both].double()).std()
        changes.append(changed.item() / max(before[both].double().std().item(), 1e-12))
    return fmean(changes)


@cache
def _views(seeds: tuple[int, ...], files: tuple[str, ...]) -> _Views:
    """The pairs of the photographs ``files``, which must be those that :mod:`kp.data.photographs` has."""
    views = _Views()
    for seed in seeds:
        for sequence in photographs.read(seed):
            views.add(sequence.split, sequence)
        for file in files:
            views.add("hard", photographs.make_hard_sequence(photographs.folder() / file, seed))
        for kind, values in SWEPT.items():
            for value, sequence in sweeps.sequences(kind, seed, values):
                views.add(f"{kind}_{value:g}", sequence)
    return views


@cache
def _held_out(device: torch.device) -> Validation:
    return Validation(device)


def _repeatabilities(views: _Views, keypoints: Sequence[Keypoints]) -> dict[str, float]:
    """Of all pairs, by name; and the errors."""
    found, errors = {}, {name: [] for name in _ERRORS.values()}
    for name, number0, number1, H_0to1 in views.pairs:
        sizes = [tuple(views.images[number].shape[-2:]) for number in (number0, number1)]
        counts = _COUNTED[name.split("_")[0]]
        for count in counts:
            scores = metrics.repeatability(keypoints[number0], keypoints[number1], H_0to1, *sizes, count)
            found.setdefault(f"{name}_{count}" if len(counts) > 1 else name, []).append(scores.repeatability.item())
            if name in _ERRORS and count == _SOME:
                errors[_ERRORS[name]].append(scores.localisation_error.item())
    means = {name: fmean(values) for name, values in found.items()}
    return means | {name: _mean(values) for name, values in errors.items()}


def _mean(values: Sequence[float]) -> float:
    """Of those that are numbers; NaN if none is."""
    known = [value for value in values if math.isfinite(value)]
    return fmean(known) if known else math.nan


def _one_by_one(detector: ScoreMap) -> Callable[[Tensor], Tensor]:
    """The same for a batch: the classical detectors take one image at a time."""
    return lambda images: torch.cat([detector(image[None]).to(images.device) for image in images])
