"""Matches of descriptors; and of two images, with the homography and the fundamental matrix that fit most of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from kornia.feature import match_mnn, match_smnn
from torch import Tensor

from kp.config import DESCRIBED
from kp.features.alignment import Aligned, align
from kp.features.describe import DEFAULT_METHOD, describe
from kp.features.estimate import choose_estimator, estimate
from kp.features.evidence import evidence
from kp.features.extract import Extractor
from kp.features.refine import refine

if TYPE_CHECKING:
    from kp.features.images import Source

# what is compared, and how many axes it has for one image
_COMPARED = {"descriptors": 2, "scaled_descriptors": 3, "turn": 2, "tilts": 3}


@torch.no_grad()
def match(
    features0: Mapping[str, Tensor],
    features1: Mapping[str, Tensor],
    ratio: float | None = None,
    upright: bool = False,
    context: bool = False,
) -> dict[str, Any]:
    """Mutual nearest neighbours of the ``descriptors`` of two images, each (1, N, D) or (N, D), of unit length.

    The descriptors of kp's own weights are compared in the turn of the images, the sizes and the tilt that give most
    matches: one choice for all keypoints (:mod:`kp.features.alignment`).

    Args:
        ratio: in (0, 1]: the nearest descriptor must be so many times nearer than the second nearest, both ways (Lowe,
            IJCV 2004, uses 0.8). None: no such test.
        upright: compare them as they are, which is faster: for images turned by less than 20 degrees, or less than 5
            where most edges are straight and parallel, less than 1.5 times nearer and less than 1.5 times narrower.
        context: compare those of both images at half of these sizes, too, if there are any, unless ``upright`` or
            fewer matches would be clear, as of images that overlap little: more are right, but some only to several
            pixels, so it is for matches that :func:`kp.refine` moves.

    Returns:
        ``matches`` (M, 2), indices of keypoints of image 0, in order, and of image 1; ``scores`` (M,), the cosine of
        each pair, with ``context`` the mean of both; ``rotation``, in steps of 11.25 degrees from the x axis to the y
        axis, ``scale``, a power of two, and ``tilt``: how image 0 was turned, enlarged and, along one direction, made
        narrower to look like image 1. A tilt below 1 made image 1 narrower.

    Raises:
        ValueError: there are no descriptors, or they are of different lengths.

    Example:
        >>> found = match(features0, features1, ratio=0.9)
        >>> features0["keypoints"][0, found["matches"][:, 0]]  # (M, 2)
    """
    if ratio is not None and not 0 < ratio <= 1:
        raise ValueError(f"ratio must be in (0, 1], not {ratio}")
    each = [_of_descriptors(features) for features in (features0, features1)]
    one, two = (features["descriptors"] for features in each)
    pairs = torch.empty(0, 2, dtype=torch.long, device=one.device)
    if not min(len(one), len(two)):  # files may not say how long the descriptors of no keypoints are
        return {"matches": pairs, "scores": one.new_zeros(0)} | _chosen(Aligned(one, two))
    if one.shape[1] != two.shape[1]:
        raise ValueError(f"descriptors of {one.shape[1]} and of {two.shape[1]} numbers cannot be matched")
    aligned = Aligned(one, two.to(one.device)) if upright else align(*each, context)
    one, two = aligned.descriptors0, aligned.descriptors1
    at0, at1 = (each.any(1).nonzero()[:, 0] for each in (one, two))  # zero: not described
    one, two = one[at0], two[at1]
    if ratio is None and len(one) and len(two):
        pairs = match_mnn(one, two)[1]
    elif min(len(one), len(two)) >= 2:
        pairs = match_smnn(one, two, ratio)[1]
    pairs = pairs[pairs[:, 0].argsort()]
    scores = (one[pairs[:, 0]] * two[pairs[:, 1]]).sum(1)
    matches = torch.stack([at0[pairs[:, 0]], at1[pairs[:, 1]]], dim=1)
    return {"matches": matches, "scores": scores} | _chosen(aligned)


def match_pair(
    image0: "Source",
    image1: "Source",
    extractor: Extractor | None = None,
    descriptor: str | None = None,
    ratio: float | None = None,
    threshold: float = 3.0,
    estimator: str | None = None,
    upright: bool = False,
    refined: bool = True,
) -> dict[str, Any]:
    """Two images' matches, and the homography and fundamental matrix that fit most of them.

    Args:
        extractor: None: one with the weights ``described``, else as by default.
        descriptor: see :func:`describe`. None: that of the extractor's weights; RootSIFT where they have none.
        ratio, upright: see :func:`match`.
        threshold: pixels: largest error of a match that fits.
        estimator: ``poselib`` or ``opencv``; None: PoseLib where it is installed.
        refined: match with ``context`` (see :func:`match`), and move the keypoints of image 1 to where the pictures fit
            (:func:`kp.refine`). The indices of such matches may name a keypoint beside the right one.

    Returns:
        ``keypoints0``, ``keypoints1`` (M, 2), matched, in pixels, and ``scores`` (M,); ``matches`` (M, 2), indices into
        ``features0``, ``features1``, whose keypoints are as they were found; ``H_0to1`` (3, 3), float64, pixels of
        image 0 to pixels of image 1, or None, with ``inliers`` (M,) bool; ``F_0to1`` (3, 3), x1' F x0 = 0, or None,
        with ``inliers_F``. A homography fits a plane, or a camera that only turns; a fundamental matrix any scene that
        stands still. ``verified``: whether either fits more matches than chance explains (see
        :mod:`kp.features.evidence`); ``verified_H``: whether the homography does. Where nothing does, the images may
        have nothing in common.

    Raises:
        ValueError: an image cannot be read, or an argument is out of bounds.

    Example:
        >>> result = match_pair("a.jpg", "b.jpg")
        >>> if result["verified"]:
        ...     print(result["H_0to1"], result["inliers"].sum())
    """
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0 pixels, not {threshold}")
    estimator = choose_estimator(estimator)
    extractor = extractor or Extractor(DESCRIBED)
    found = []
    for image in (image0, image1):
        features = extractor.extract(image)
        if descriptor is not None or "descriptors" not in features:
            method = descriptor or DEFAULT_METHOD
            features["descriptors"] = describe(image, features, method, exif=extractor.exif)
        found.append(features)
    paired = match(*found, ratio, upright, context=refined)
    at0, at1 = paired["matches"].unbind(1)
    xy0, xy1 = found[0]["keypoints"][0, at0], found[1]["keypoints"][0, at1]
    as_found = xy1
    if refined:
        xy1 = refine(image0, image1, xy0, xy1, paired["rotation"], paired["scale"], estimator, extractor.exif)
    fits = fitted(xy0, xy1, as_found, found[1]["keypoints"][0], threshold, estimator)
    return paired | fits | {"keypoints0": xy0, "keypoints1": xy1, "features0": found[0], "features1": found[1]}


def fitted(
    xy0: Tensor, xy1: Tensor, as_found: Tensor, keypoints1: Tensor, threshold: float, estimator: str
) -> dict[str, Any]:
    """The homography and the fundamental matrix that fit most matches, as of :func:`match_pair`, from ``H_0to1`` on.

    Args:
        xy0, xy1: the matches, (M, 2) each, in pixels.
        as_found: (M, 2), the places in image 1 before they were refined: of these it is said what is evidence.
        keypoints1: all of image 1, (N, 2).
    """
    H_0to1, inliers = estimate(xy0, xy1, threshold, "homography", estimator)
    F_0to1, inliers_F = estimate(xy0, xy1, threshold, "fundamental", estimator)
    found = {"H_0to1": H_0to1, "inliers": inliers, "F_0to1": F_0to1, "inliers_F": inliers_F}
    return found | evidence(xy0, as_found, H_0to1, F_0to1, threshold, keypoints1)


def _chosen(aligned: Aligned) -> dict[str, float]:
    return {name: getattr(aligned, name) for name in ("rotation", "scale", "tilt")}


def _of_descriptors(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries that descriptors are compared by, of one image: without the axis of images, float32."""
    if "descriptors" not in features:
        advice = 'take kp.Extractor("described"), or features["descriptors"] = kp.describe(image, features)'
        raise ValueError(f"there are no descriptors: {advice}")
    found = {}
    for name, axes in _COMPARED.items():
        if name in features:
            values = torch.as_tensor(features[name])
            found[name] = (values[0] if values.ndim == axes + 1 and len(values) == 1 else values).float()
    if found["descriptors"].ndim != 2:
        shape = tuple(features["descriptors"].shape)
        raise ValueError(f"descriptors of one image have the shape (1, N, D) or (N, D), not {shape}")
    return found
