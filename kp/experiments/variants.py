"""Other uses of a trained detector, and what stands in its place: the ablations for which nothing is trained."""

from collections.abc import Callable
from copy import deepcopy

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from kp.evaluation.baselines import BASELINES, ScoreMap
from kp.geometry.coords import covisible_mask, invert, resize, warp_image
from kp.geometry.homography import random_homographies
from kp.models.detector import Detector, thin
from kp.models.keypoints import local_maxima

_ADAPTED = 8  # random views of an image beside the image itself
_UNSURE = 8  # pixels from the edge of a view where its map is not trusted
_MILD = {"max_translation": 0.1, "max_scale": 1.3, "max_rotation": 30.0, "max_shear": 15.0, "max_perspective": 0.2}


def harris(_: ScoreMap) -> ScoreMap:
    """OpenCV's Harris in its place."""
    return BASELINES["harris"]


def harris_thinned(_: ScoreMap) -> ScoreMap:
    """OpenCV's Harris, its response thinned: what thinning is worth to a detector that has learnt nothing."""

    def thinned_response(image: Tensor) -> Tensor:
        response = BASELINES["harris"](image)
        return thin(response.clamp(min=0)).where(response.isfinite(), -torch.inf)

    return thinned_response


def untrained(scores: ScoreMap) -> ScoreMap:
    """The default detector before its first step: corner response and dark spots."""
    return Detector(thinned=False).eval().to(next(scores.parameters()).device)


def response(scores: ScoreMap) -> ScoreMap:
    """The corner response alone, without dark spots: the first recipe before its first step."""
    return Detector(darkness=0, thinned=False).eval().to(next(scores.parameters()).device)


def thinned(scores: ScoreMap) -> ScoreMap:
    """Score maps thinned, as the shipped detectors' are outside training."""
    return lambda image: thin(scores(image))


def four_sizes(scores: Detector) -> ScoreMap:
    """The odds of an image grown to sqrt(2), as it is, shrunk to 1/sqrt(2) and to 1/2, added up."""
    detector = deepcopy(scores)
    detector.scales = 4
    return detector


def image_pyramid(scores: ScoreMap) -> ScoreMap:
    """The mean of the score maps of an image as it is, shrunk to 1/sqrt(2) and to 1/2."""

    def pyramid(image: Tensor) -> Tensor:
        size, maps = tuple(image.shape[-2:]), [scores(image)]
        for scale in (2**-0.5, 0.5):
            small = tuple(max(1, round(n * scale)) for n in size)
            maps.append(resize(scores(resize(image, small).clamp(0, 1)), size))
        return torch.stack(maps).mean(0)

    return pyramid


def homographic_adaptation(scores: ScoreMap) -> ScoreMap:
    """The mean over an image and eight random views of it, each map carried back (DeTone et al., CVPR workshops 2018).

    A teacher that adapts in this way can teach no more than it finds itself.
    """

    def adapted(image: Tensor) -> Tensor:
        size = tuple(image.shape[-2:])
        views = random_homographies(_ADAPTED, size, size, **_MILD, generator=torch.Generator().manual_seed(0))
        total = scores(image)
        count = torch.ones_like(total)
        for H_0tok in views.to(image.device).split(1):
            seen = covisible_mask(H_0tok, size, size, border=_UNSURE)
            there = scores(warp_image(image, H_0tok, size, padding="border", antialias=True))
            total = total + warp_image(there, invert(H_0tok), size) * seen
            count = count + seen
        return total / count

    return adapted


def sparse(scores: ScoreMap) -> ScoreMap:
    """Suppressed within 8 px, where the benchmark suppresses within 4."""
    return _suppressed(scores, 8)


def dense(scores: ScoreMap) -> ScoreMap:
    """Suppressed within 2 px before the benchmark suppresses within 4: peaks then compete with peaks."""
    return _suppressed(scores, 2)


def _suppressed(scores: ScoreMap, radius: int) -> ScoreMap:
    """Scores that are not the best within ``radius`` pixels, along both axes, are none."""

    def peaks(image: Tensor) -> Tensor:
        found = scores(image)
        return found.where(local_maxima(found, 2 * radius + 1), -torch.inf)

    return peaks


def smoothed(scores: ScoreMap) -> ScoreMap:
    """Score maps blurred by a Gaussian of standard deviation 1 px."""
    return lambda image: gaussian_blur2d(scores(image), (7, 7), (1.0, 1.0), border_type="replicate")


def mixed_alike(scores: Detector) -> ScoreMap:
    """The maps mixed alike everywhere, by the means of their weights: without what the encoder tells apart."""
    detector = deepcopy(scores)
    detector.mix.register_forward_hook(lambda *call: call[-1].mean((-2, -1), keepdim=True).expand_as(call[-1]))
    return detector


def of_the_negative(scores: ScoreMap) -> ScoreMap:
    """Score maps of the negative: what they owe to keypoints that are darker, or brighter, than what is around."""
    return lambda image: scores(1 - image)


def as_they_are(scores: ScoreMap) -> ScoreMap:
    """Nothing changed: what the others are to be compared with."""
    return scores


def refined(scores: ScoreMap) -> ScoreMap:
    """The same score maps, but keypoints are refined to a fraction of a pixel."""
    return scores


TEST_TIME: dict[str, Callable[[ScoreMap], ScoreMap]] = {  # on given weights, which are not trained
    "harris": harris,
    "harris, thinned": harris_thinned,
    "untrained": untrained,
    "corner response": response,
    "given weights": as_they_are,
    "thinned": thinned,
    "four sizes": four_sizes,
    "image pyramid": image_pyramid,
    "homographic adaptation": homographic_adaptation,
    "suppressed within 2 px": dense,
    "suppressed within 8 px": sparse,
    "smoothed scores": smoothed,
    "mixed alike everywhere": mixed_alike,
    "of the negative": of_the_negative,
    "sub-pixel": refined,
}
