"""Two views' features -> how many matches are right, and how well they fix the homography.

An image's best points count, seen by the other view or not. Matches are mutual nearest neighbours of descriptors
(:func:`kp.features.match.match`), without a ratio test; kp's own are compared in the turn, the sizes and the tilt of
the images that give most. An oracle matches them by the true homography. Distances are pixels of view 1.
"""

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kp.evaluation.matching import accuracy, corner_error, match_errors
from kp.features.describe import Described
from kp.features.estimate import estimate
from kp.features.match_pair import match_places
from kp.features.refine import refine
from kp.features.second_look import Describe
from kp.geometry.coords import Size, covisible, invert, warp_points

ACCURACY_THRESHOLDS = tuple(range(1, 11))  # pixels: of the mean matching accuracy, as D2-Net plots it
RIGHT = 3.0  # pixels within which a match is right; also the estimators' threshold
ESTIMATORS = {"magsac": "opencv", "poselib": "poselib"}  # in the names of measures: in those of kp.features.estimate


def measure_pair(
    features0: Described,
    features1: Described,
    H_0to1: Tensor,
    size0: Size,
    size1: Size,
    count: int,
    images: tuple[Tensor, Tensor] | None = None,
    oracle: bool = False,
    describe: Describe | None = None,
) -> dict[str, float]:
    """What the best ``count`` points of each view give, against the true H_0to1 (3, 3), as plain numbers.

    With ``images`` (1, 1, H, W) the matches are made with context, with ``describe`` by a second look, too
    (:mod:`kp.features.second_look`), and refined by :func:`kp.refine`. ``oracle``: they are the true ones, by
    :func:`true_matches`, and refined.

    ``dimensions`` of the descriptor; ``keypoints``, the mean of the two views; ``matches``; ``right_matches``, within
    3 px; ``matching_score``; ``matching_accuracy_1px`` to ``_10px``, the share of matches that are right, 0 without a
    match; ``corner_error_magsac`` and ``_poselib``, see :func:`kp.evaluation.matching.corner_error`, of the homography
    that each estimator fits with 3 px, infinite without one.
    """
    one, two = features0.best(count), features1.best(count)
    if oracle:
        pairs = true_matches(one.xy, two.xy, H_0to1)
        xy0, xy1 = one.xy[pairs[:, 0]], two.xy[pairs[:, 1]]
        xy1 = xy1 if images is None else refine(*images, xy0, xy1, estimator="poselib")
    else:
        found = matched(one, two, images, describe)
        pairs, xy0, xy1 = (found[name] for name in ("matches", "keypoints0", "keypoints1"))
    errors = match_errors(xy0, xy1, H_0to1)
    right = errors <= RIGHT
    shares = accuracy(errors.tolist(), ACCURACY_THRESHOLDS) if len(errors) else [0.0] * len(ACCURACY_THRESHOLDS)
    scores = {
        "dimensions": max(each.descriptors.shape[1] if len(each.xy) else 0 for each in (one, two)),
        "keypoints": (len(one.xy) + len(two.xy)) / 2,
        "matches": len(pairs),
        "right_matches": int(right.sum()),
        "matching_score": matching_score(one.xy, two.xy, pairs[right], H_0to1, size0, size1),
    }
    scores |= {f"matching_accuracy_{t}px": share for t, share in zip(ACCURACY_THRESHOLDS, shares, strict=True)}
    for name, estimator in ESTIMATORS.items():
        H_found, _ = estimate(xy0, xy1, RIGHT, "homography", estimator)
        scores[f"corner_error_{name}"] = corner_error(H_found, H_0to1, size0)
    return scores


def matched(
    features0: Described,
    features1: Described,
    images: tuple[Tensor, Tensor] | None = None,
    describe: Describe | None = None,
) -> dict[str, Any]:
    """What :func:`kp.match_pair` says of matches, with ``images`` refined: ``matches`` (M, 2), index pairs, and their
    places. A point whose descriptor is zero has none.
    """
    both = tuple({"keypoints": each.xy[None]} | each.features() for each in (features0, features1))
    return match_places(both, images, describe, context=images is not None, estimator="poselib")


def true_matches(xy0: Tensor, xy1: Tensor, H_0to1: Tensor) -> Tensor:
    """The index pairs (M, 2) of an oracle that knows H_0to1 (3, 3).

    As many pairs of points within 3 px as there can be when none is matched twice; of all such sets the nearest (the
    assignment problem). So no descriptor has more right matches as found.
    """
    places, in_front = warp_points(xy0[None].cpu().double(), H_0to1[None].cpu().double())
    distances = torch.cdist(places, xy1[None].cpu().double(), compute_mode="donot_use_mm_for_euclid_dist")[0]
    near = (distances <= RIGHT) & in_front[0, :, None]
    costs = torch.where(near, distances - 2 * RIGHT * max(near.shape), 0.0)  # one pair more is worth any distances
    matches = torch.from_numpy(np.stack(linear_sum_assignment(costs.numpy()), axis=1))
    return matches[near[matches[:, 0], matches[:, 1]]]


def matching_score(xy0: Tensor, xy1: Tensor, right: Tensor, H_0to1: Tensor, size0: Size, size1: Size) -> float:
    """The share of the points that both views see which are rightly matched, in [0, 1]: the mean of the two views.

    Of a view: its right matches whose point the other view sees, divided by its points that the other view sees, 0
    without any. As DeTone et al., SuperPoint, CVPRW 2018, appendix: the ratio of the correspondences that the whole
    pipeline recovers to the features proposed in the shared region, in both directions, averaged.

    Args:
        xy0, xy1: all points of the views, (K0, 2) and (K1, 2).
        right: index pairs (M, 2) of the matches that are right.
    """
    H_0to1 = H_0to1.double()[None]
    seen0 = covisible(xy0.double()[None], H_0to1, size1)[0]  # (K0,)
    seen1 = covisible(xy1.double()[None], invert(H_0to1), size0)[0]
    recovered = seen0[right[:, 0]].sum().item(), seen1[right[:, 1]].sum().item()
    proposed = seen0.sum().item(), seen1.sum().item()
    return sum(hits / all_ if all_ else 0.0 for hits, all_ in zip(recovered, proposed, strict=True)) / 2
