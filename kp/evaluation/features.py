"""Complete features by name: image (1, 1, H, W) in [0, 1] -> points with descriptors, best first.

A name is a feature, or DETECTOR+DESCRIPTOR: the points of one with the descriptors of another. ``kp+rootsift`` are the
points of ``kp`` with RootSIFT.

As a feature, and as the points of a mix, each runs as its users run it: ``kp`` and the shipped weights by
``kp.Extractor`` with its defaults; OpenCV's SIFT and ORB by ``detectAndCompute`` with OpenCV's defaults, their own
sizes and angles, ordered by response; XFeat, ALIKED and DISK as Kornia runs them. The other detectors are those of
:mod:`kp.evaluation.registry`, under the suppression of its protocol ``native``. ``described+upright`` are the shipped
descriptors compared as they are, in no other turn, size or tilt of the images. The descriptor of a mix gets the places
only: ``rootsift``, ``sift``, ``orb``, ``hardnet``, ``sosnet`` and ``hynet`` are those of ``kp.describe``.
``NAME+refined`` is the same feature, whose matches :mod:`kp.evaluation.feature_benchmark` refines. ``DETECTOR+oracle``
are the points of one, matched by the given homography: no descriptor has more right matches as found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from kp.config import MODELS, WEIGHTS
from kp.evaluation import learned_features, registry
from kp.evaluation.baselines import Unavailable, available, to_gray8
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.registry import OURS, FindKeypoints
from kp.features.describe import METHODS, Described, describe, of_bits
from kp.features.extract import Extractor
from kp.features.match_pair import describer as own_describer
from kp.features.second_look import Describe
from kp.support.errors import one_line

Feature = Callable[[Tensor], Described]

OWN = "own"  # the descriptor that comes with the points
REFINED = "+refined"  # after a name: the matches are moved to where the pictures fit
UPRIGHT = "upright"  # that of kp, compared as it is: in no other turn, size or tilt of the images
ORACLE = "oracle"  # no descriptor: points are matched by the given homography
OPENCV = ("sift", "orb")
COMPLETE = (*OURS, *OPENCV, *learned_features.NAMES)
DETECTORS = tuple(dict.fromkeys((*COMPLETE, *registry.NAMES)))
DESCRIPTORS = tuple(dict.fromkeys((OWN, UPRIGHT, ORACLE, *METHODS, *learned_features.NAMES)))

_TRIAL_SIZE = (64, 64)  # pixels


class Where(NamedTuple):
    """Where features have their weights, and run: ``weights`` of ``kp``, the folder of the learned ones, the device."""

    weights: str | Path = WEIGHTS
    baseline_weights: Path | None = None
    device: torch.device = torch.device("cpu")


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError, in one line that says what there is, where a name is no feature."""
    for name in names:
        detector, descriptor = _parts(name)
        if (
            detector not in DETECTORS
            or descriptor not in DESCRIPTORS
            or (descriptor == OWN and detector not in COMPLETE)
            or (descriptor == UPRIGHT and detector not in OURS)
        ):
            raise ValueError(
                f"--features: there is no feature {name}: there are {', '.join(COMPLETE)}, and DETECTOR+DESCRIPTOR "
                f"with a detector of these or {', '.join(d for d in DETECTORS if d not in COMPLETE)}, and a descriptor "
                f"of {', '.join(DESCRIPTORS)}; each also as NAME{REFINED}"
            )


def is_oracle(name: str) -> bool:
    """Whether the points of a feature are matched by the given homography."""
    return _parts(name)[1] == ORACLE


def make_features(
    names: Sequence[str],
    count: int,
    where: Where = Where(),  # noqa: B008
) -> tuple[dict[str, Feature], dict[str, str]]:
    """The named features, each with at most ``count`` points; and of those that cannot run, the reason in a line.

    Raises ValueError on a name that is none, CheckpointError on weights of ours that cannot be used.
    """
    check_names(names)
    found = {name: name.removesuffix(REFINED) for name in names}
    made, skipped = available({name: partial(_make, *_parts(name), count, where) for name in found.values()})
    return tuple({name: each[base] for name, base in found.items() if base in each} for each in (made, skipped))


@dataclass(frozen=True)
class Mix:
    """The points (K, 2) that one function finds in an image, with the descriptors (K, D) of another there."""

    find: Callable[[Tensor], Tensor]
    describe: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, image: Tensor) -> Described:
        xy = self.find(image)
        return Described(xy, self.describe(image, xy))


@dataclass(frozen=True)
class _Ours:
    """What an extractor finds in an image; ``upright``: to be compared as it is."""

    extractor: Extractor
    upright: bool = False

    def __call__(self, image: Tensor) -> Described:
        found = self.extractor.extract(image)
        if "descriptors" not in found:
            raise ValueError(
                "these weights give no descriptors: choose others, or describe their points, as kp+rootsift"
            )
        found = {name: values[0].float().cpu() for name, values in found.items()}
        names = ("keypoints", "descriptors") + (() if self.upright else ("scaled_descriptors", "turn", "tilts"))
        return Described(*(found.get(name) for name in names))


def describer(feature: Feature) -> Describe | None:
    """How a feature describes places of other images; None where it cannot, as OpenCV's, or shall not."""
    if isinstance(feature, _Ours):
        return None if feature.upright else own_describer(feature.extractor)
    if not hasattr(feature, "describe"):
        return None
    return lambda image, xy: {"descriptors": feature.describe(image, xy)}


def _parts(name: str) -> tuple[str, str]:
    """The detector and the descriptor of a name."""
    detector, plus, descriptor = name.removesuffix(REFINED).partition("+")
    return detector, descriptor if plus else OWN


def _make(detector: str, descriptor: str, count: int, where: Where) -> Feature:
    if descriptor == OWN:
        feature = _complete(detector, count, where)
        return _tried(feature) if detector in OURS else feature
    if descriptor == UPRIGHT:
        return _tried(_Ours(_extractor(detector, count, where, descriptor_scales=1), upright=True))
    find = _points(detector, count, where)
    if descriptor == ORACLE:
        return Mix(find, _undescribed)
    if descriptor in METHODS:
        return _tried(Mix(find, partial(_by_method, method=descriptor)))
    return Mix(find, learned_features.make_describer(descriptor, where.baseline_weights, where.device))


def _complete(name: str, count: int, where: Where) -> Feature:
    if name in OURS:
        return _Ours(_extractor(name, count, where))
    if name in OPENCV:
        return partial({"sift": _sift, "orb": _orb}[name], count=count)
    return learned_features.make(name, count, where.baseline_weights, where.device)


def _points(name: str, count: int, where: Where) -> Callable[[Tensor], Tensor]:
    """What finds the points (K, 2) of a detector, best first."""
    if name in OURS:
        return partial(_our_points, extractor=_extractor(name, count, where))
    if name in COMPLETE:
        return partial(_points_of, feature=_complete(name, count, where))
    places = {"weights": Path(where.weights), "baseline_weights": where.baseline_weights, "device": where.device}
    maps, skipped = registry.score_maps([name], seed=0, **places)
    if skipped:
        raise Unavailable(skipped[name])
    find = registry.make_detectors(maps, PROTOCOLS["native"], True, where.device)[name]
    return partial(_detected, find=find, count=count)


def _tried(feature: Feature) -> Feature:
    """The feature, after it has described a small picture. Raises Unavailable, with its reason, where it cannot."""
    try:
        feature(torch.rand((1, 1, *_TRIAL_SIZE), generator=torch.Generator().manual_seed(0)))
    except ValueError as error:
        raise Unavailable(one_line(error)) from error
    return feature


def _extractor(name: str, count: int, where: Where, **options: Any) -> Extractor:
    weights = name if name in MODELS else where.weights
    return Extractor(weights, max_num_keypoints=count, device=where.device, **options)


def _our_points(image: Tensor, *, extractor: Extractor) -> Tensor:
    return extractor.extract(image)["keypoints"][0].cpu()


def _points_of(image: Tensor, *, feature: Feature) -> Tensor:
    return feature(image).xy


def _detected(image: Tensor, *, find: FindKeypoints, count: int) -> Tensor:
    found = find(image)
    best = found.select(found.valid, count)
    return best.xy[best.valid]


def _undescribed(_: Tensor, xy: Tensor) -> Tensor:
    return xy.new_zeros(len(xy), 0)


def _by_method(image: Tensor, xy: Tensor, *, method: str) -> Tensor:
    return describe(image, {"keypoints": xy[None]}, method)[0]


def _sift(image: Tensor, *, count: int) -> Described:
    """OpenCV's SIFT as RootSIFT (Arandjelovic and Zisserman, CVPR 2012): divided by its sum, then its square root."""
    xy, values = _by_opencv(cv2.SIFT_create(count), image, count, 128)
    return Described(xy, torch.nn.functional.normalize(values, p=1, dim=1).sqrt())


def _orb(image: Tensor, *, count: int) -> Described:
    xy, values = _by_opencv(cv2.ORB_create(count), image, count, 32)
    return Described(xy, of_bits(values))


def _by_opencv(extractor: cv2.Feature2D, image: Tensor, count: int, length: int) -> tuple[Tensor, Tensor]:
    """The best ``count`` points (K, 2) by response, and OpenCV's descriptors (K, length) as float32."""
    points, values = extractor.detectAndCompute(to_gray8(image), None)
    if not points:
        return torch.zeros(0, 2), torch.zeros(0, length)
    order = np.argsort([-point.response for point in points], kind="stable")[:count]
    xy = cv2.KeyPoint_convert(points)[order]
    return torch.from_numpy(xy), torch.from_numpy(values[order].astype(np.float32))
