"""Other uses of a trained detector, and what can stand in its place: ablations for which nothing is trained."""

from collections.abc import Callable
from copy import deepcopy

from torch import nn

from kp.evaluation.baselines import BASELINES, ScoreMap
from kp.models.corner import CornerDetector, floor_detector
from kp.models.detector import Detector, thin
from kp.models.mobile import MobileDetector

STEEPNESS = 10.0  # strength of the thinning; see :func:`kp.models.detector.thin`


def harris(_: ScoreMap) -> ScoreMap:
    """OpenCV's Harris response."""
    return BASELINES["harris"]


def floor(scores: ScoreMap) -> ScoreMap:
    """The corner response at three scales, thinned, with nothing learnt."""
    return floor_detector().to(next(scores.parameters()).device)


def untrained(scores: ScoreMap) -> ScoreMap:
    """A detector with an encoder before its first step: finest corner response and dark spots."""
    return MobileDetector(thinning=0.0).eval().to(next(scores.parameters()).device)


def corner_response_alone(scores: ScoreMap) -> ScoreMap:
    """The corner response without dark spots, before the first step."""
    return MobileDetector(darkness=0.0, thinning=0.0).eval().to(next(scores.parameters()).device)


def thinned(scores: ScoreMap) -> ScoreMap:
    """Score maps that are thinned, as detectors are used outside training."""
    return lambda image: thin(scores(image), STEEPNESS)


def four_sizes(scores: Detector) -> ScoreMap:
    """The image looked at in four sizes: 1.41, 1, 0.71 and 0.5 of its own."""
    detector = deepcopy(scores)
    detector.num_scales = 4
    return detector


def mixed_alike(scores: Detector) -> ScoreMap:
    """The weights of the maps replaced by their means over the image: without what the encoder tells apart."""
    detector = deepcopy(scores)
    detector.mix.register_forward_hook(lambda *call: call[-1].mean((-2, -1), keepdim=True).expand_as(call[-1]))
    return detector


def histograms_alone(detector: CornerDetector) -> CornerDetector:
    """Descriptors without their linear map: the gradient histograms themselves."""
    same, size = deepcopy(detector), detector.describer.linear.in_features
    same.describer.linear = nn.Linear(size, size, bias=False).requires_grad_(False)
    nn.init.eye_(same.describer.linear.weight)
    same.describer.side_maps.zero_()
    return same


def no_tilts(detector: CornerDetector) -> CornerDetector:
    """Descriptors that are compared in the turns and sizes of two images, but not as seen from the side."""
    same = deepcopy(detector)
    same.describer.side_maps.zero_()
    return same


def upright(detector: CornerDetector) -> CornerDetector:
    """Descriptors that are compared in no turn, nor from the side."""
    same = no_tilts(detector)
    same.describer.turn = lambda: None
    return same


def unchanged(scores: ScoreMap) -> ScoreMap:
    """The score maps as they are; the others are compared with this."""
    return scores


def refined(scores: ScoreMap) -> ScoreMap:
    """The same score maps, with keypoints refined to a fraction of a pixel."""
    return scores


TEST_TIME: dict[str, Callable[[ScoreMap], ScoreMap]] = {  # of given weights, which are not trained
    "harris": harris,
    "floor": floor,
    "untrained": untrained,
    "corner response": corner_response_alone,
    "given weights": unchanged,
    "thinned": thinned,
    "four sizes": four_sizes,
    "mixed alike everywhere": mixed_alike,
    "sub-pixel": refined,
    "histograms alone": histograms_alone,
    "no tilts": no_tilts,
    "descriptors, compared upright": upright,
}
_OF_DESCRIPTORS = ("histograms alone", "no tilts", "descriptors, compared upright")


def applies(name: str, described: bool) -> bool:
    """Whether a use in ``TEST_TIME`` says something of weights with descriptors, or of weights without."""
    return name == "given weights" or (name in _OF_DESCRIPTORS) == described
