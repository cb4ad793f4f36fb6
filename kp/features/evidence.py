"""Whether a homography or a fundamental matrix fits more matches than chance explains.

Any four matches have a homography, so some homography fits a few matches of any two images. The number of false alarms
(Moisan and Stival, IJCV 2004) says how many would fit as many if each place of image 0 were matched with any place of
image 1. Matches are taken as they were found: places that were moved to where the images fit are no independent
measurements of a homography that decided where they were sought. Nor are matches of a second look, in which one image
was seen by a homography: those of the first count.

Nor are matches quite independent otherwise: descriptors near the edge of an image see the edge, so places at the right
edge of one are matched with such of the other. The bound is far below 1 for this.
"""

import math
import sys

import torch
from kornia.geometry.conversions import convert_points_to_homogeneous
from torch import Tensor

_MOST = -10.0  # log10 of the number of false alarms, see above
_EXACT = 3.0  # pixels: places are not found more exactly, so no smaller error is asked of them
_SMOOTH = 8.0  # thresholds, within which places are counted: detectors keep them farther apart than one
_PLACES = 2000  # keypoints and matches, at most, whose places are counted
_MATCHES = {"homography": 4, "fundamental": 7}  # that one matrix is made of
_MATRICES = {"homography": 1, "fundamental": 3}  # at most, that so many matches have


def evidence(
    xy0: Tensor, xy1: Tensor, H_0to1: Tensor | None, F_0to1: Tensor | None, threshold: float, keypoints1: Tensor
) -> dict[str, bool]:
    """Whether more matches (M, 2), (M, 2), as they were found, fit than by chance.

    Args:
        H_0to1, F_0to1: (3, 3), the homography and the fundamental matrix, or None, see :func:`kp.match_pair`.
        threshold: largest error of a match that fits, in pixels, but not less than 3.
        keypoints1: all of image 1, (N, 2).

    Returns:
        ``verified_H``: the homography has less than 10^-10 false alarms. ``verified``: it has, or the fundamental
        matrix has and fits two thirds of all matches.
    """
    threshold = max(threshold, _EXACT)
    flat = H_0to1 is not None and log_false_alarms(H_0to1, xy0, xy1, threshold, keypoints1) < _MOST
    return {"verified": flat or _verifies(F_0to1, xy0, xy1, threshold, keypoints1), "verified_H": flat}


def _verifies(F_0to1: Tensor | None, xy0: Tensor, xy1: Tensor, threshold: float, keypoints1: Tensor) -> bool:
    """Whether a fundamental matrix (3, 3) is evidence; see :func:`evidence`."""
    if F_0to1 is None:
        return False
    errors = _errors(F_0to1, *(xy.cpu().double() for xy in (xy0, xy1)), "fundamental")
    if 3 * int((errors < threshold).sum()) < 2 * len(xy0):
        return False  # places in a row fit one, too
    return log_false_alarms(F_0to1, xy0, xy1, threshold, keypoints1, "fundamental") < _MOST


def log_false_alarms(
    matrix: Tensor, xy0: Tensor, xy1: Tensor, threshold: float, keypoints1: Tensor, model: str = "homography"
) -> float:
    """The logarithm (base 10) of how many matrices would fit as many matches (M, 2), (M, 2), or more, by chance.

    By chance a match fits as often as the matched places and the keypoints of image 1 lie where the matrix puts the
    places of image 0 that fit, so a homography that squeezes all into a corner with many keypoints is no evidence.

    Args:
        matrix: the homography (3, 3), pixels of image 0 to pixels of image 1; or, if this is the ``model``, the
            fundamental matrix (3, 3).
        threshold: largest error of a match that fits, in pixels: the Sampson distance for a fundamental matrix.
        keypoints1: all of image 1, (N, 2).

    Returns:
        infinity where no more matches fit than any matrix fits.
    """
    matrix, xy0, xy1, keypoints1 = (each.cpu().double() for each in (matrix, xy0, xy1, keypoints1))
    xy0, xy1 = torch.unique(torch.cat([xy0, xy1], dim=1), dim=0).split(2, dim=1)  # repeated matches are no more of them
    if model == "homography":
        matrix = _in_front(matrix, xy0, xy1, threshold)
    fits = (_errors(matrix, xy0, xy1, model) < threshold).nonzero()[:, 0]
    count, least = len(xy0), _MATCHES[model]
    if len(fits) <= least or len(keypoints1) < 2:
        return math.inf
    share = _chance(matrix, xy0, xy1, fits, threshold, keypoints1, model)
    tests = math.log(_MATRICES[model] * (count - least)) + _log_choices(count, len(fits))
    tests += _log_choices(len(fits), least)
    return (tests + (len(fits) - least) * math.log(share)) / math.log(10)


def _chance(
    matrix: Tensor, xy0: Tensor, xy1: Tensor, fits: Tensor, threshold: float, keypoints1: Tensor, model: str
) -> float:
    """How often a place of image 1 fits a place of image 0 of the matches ``fits`` (K,) that is not matched with it.

    The mean over these places of the share of the other matches, or of all keypoints, where that is more.
    """
    fits, at1 = _few(fits), _few(torch.arange(len(xy1)))
    expected = xy0[fits][:, None]
    others = _errors(matrix, expected, xy1[at1], model).masked_fill(fits[:, None] == at1, math.inf)
    keypoints = _errors(matrix, expected, _few(keypoints1), model)
    if model == "fundamental":  # a line passes enough places
        within = [(errors < threshold).double().mean(1) for errors in (others, keypoints)]
        return max(1 / len(xy0), float(torch.maximum(*within).mean()))
    around = [(errors < _SMOOTH * threshold).double().mean(1) / _SMOOTH**2 for errors in (others, keypoints)]
    share = torch.stack([*around, (others < threshold).double().mean(1)]).amax(0).mean()
    area = float((keypoints1.amax(0) - keypoints1.amin(0)).clamp(min=1).prod())
    return min(1.0, max(float(share), math.pi * threshold * (threshold / area), sys.float_info.min))


def _few(values: Tensor) -> Tensor:
    """At most ``_PLACES`` of them, evenly chosen."""
    return values[:: max(1, math.ceil(len(values) / _PLACES))]


def _in_front(H_0to1: Tensor, xy0: Tensor, xy1: Tensor, threshold: float) -> Tensor:
    """The homography with the sign that has most matches that it fits in front of the camera."""
    fits = [(_errors(sign * H_0to1, xy0, xy1, "homography") < threshold).sum() for sign in (1, -1)]
    return H_0to1 if fits[0] >= fits[1] else -H_0to1


def _errors(matrix: Tensor, xy0: Tensor, xy1: Tensor, model: str) -> Tensor:
    """How far places (..., 2) of image 1 are from where the matrix has those (..., 2) of image 0, in pixels: (...).

    Infinite where a homography has a place at or behind the horizon.
    """
    one, two = (convert_points_to_homogeneous(xy) for xy in (xy0, xy1))
    there = one @ matrix.mT
    if model == "homography":
        away = (there[..., :2] / there[..., 2:] - xy1).norm(dim=-1)
        return away.where(there[..., 2] > 0, math.inf)
    back = two @ matrix
    lines = there[..., :2].square().sum(-1) + back[..., :2].square().sum(-1)
    return (there * two).sum(-1).abs() / lines.sqrt()


def _log_choices(count: int, chosen: int) -> float:
    """The logarithm of how many ways there are to choose so many of a number."""
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)
