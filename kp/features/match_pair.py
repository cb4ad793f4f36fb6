"""Two images' matches, with the homography and the fundamental matrix that fit most of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kp.config import DESCRIBED
from kp.features.describe import DEFAULT_METHOD, describe
from kp.features.estimate import FIT, choose_estimator, estimate
from kp.features.evidence import evidence
from kp.features.extract import Extractor
from kp.features.images import to_grey_image
from kp.features.match import check_ratio, compared, first_look, nearest
from kp.features.refine import refine_by
from kp.features.second_look import Describe, both_looks, second_look

if TYPE_CHECKING:
    from kp.features.images import Source


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
        refined: match with ``context`` (see :func:`match`); where a homography is evidence that the images are not seen
            alike, describe one of them as the other sees it, too, unless ``upright`` (:mod:`kp.features.second_look`);
            and move the keypoints of image 1 to where the pictures fit (:func:`kp.refine`). The indices of such matches
            may name a keypoint beside the right one.

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
    check_ratio(ratio)
    estimator = choose_estimator(estimator)
    extractor = extractor or Extractor(DESCRIBED)
    images, found = [to_grey_image(image, extractor.exif) for image in (image0, image1)], []
    for image in images:
        features = extractor.extract(image)
        if descriptor is not None or "descriptors" not in features:
            features["descriptors"] = describe(image, features, descriptor or DEFAULT_METHOD)
        found.append(features)
    features, greys, by = (found[0], found[1]), None, None
    if refined:
        greys, by = (images[0].grey, images[1].grey), describer(extractor, descriptor)
    paired = match_places(features, greys, by, ratio, upright, refined, estimator)
    return fitted(paired, features, threshold, estimator) | {"features0": found[0], "features1": found[1]}


def match_places(
    features: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    images: tuple[Tensor, Tensor] | None = None,
    by: Describe | None = None,
    ratio: float | None = None,
    upright: bool = False,
    context: bool = True,
    estimator: str = "opencv",
) -> dict[str, Any]:
    """What :func:`kp.match` returns, and the matched places ``keypoints0``, ``keypoints1`` (M, 2), in pixels, refined
    where there are images, and ``first_matches`` (L, 2), those of the first look.

    Args:
        features: of each image, ``keypoints`` (1, N, 2) and what :func:`kp.match` compares.
        images: grey, (1, 1, H, W) each. None: matches are not refined.
        by: describes places of an image as the keypoints were. None: no image is looked at again.
        ratio, upright, context: see :func:`kp.match`.
        estimator: see :func:`match_pair`.
    """
    one, two = (compared(each) for each in features)
    first = first_look(one, two, upright, context)
    found = nearest(first, ratio)
    found["first_matches"] = found["matches"]
    keypoints = (features[0]["keypoints"][0], features[1]["keypoints"][0])
    xy0, xy1 = _matched(keypoints, found["matches"])
    if images is None:
        return found | {"keypoints0": xy0, "keypoints1": xy1}
    fit = estimate(xy0, xy1, FIT, "homography", estimator)
    if by is not None and not upright:
        both = one | {"keypoints": keypoints[0]}, two | {"keypoints": keypoints[1]}
        second = second_look(images, both, found["matches"], fit, by, context)
        if second is not None:
            found |= both_looks(first, second, keypoints, ratio, estimator)
            xy0, xy1 = _matched(keypoints, found["matches"])
            fit = estimate(xy0, xy1, FIT, "homography", estimator)
    greys = (image.to(xy0.device) for image in images)
    xy1 = refine_by(fit, *greys, xy0, xy1, found["rotation"], found["scale"])
    return found | {"keypoints0": xy0, "keypoints1": xy1}


def _matched(keypoints: tuple[Tensor, Tensor], matches: Tensor) -> tuple[Tensor, Tensor]:
    """The places (M, 2) in both images, in pixels, of index pairs (M, 2)."""
    return keypoints[0][matches[:, 0]], keypoints[1][matches[:, 1]]


def fitted(
    found: dict[str, Any], features: tuple[Mapping[str, Tensor], Mapping[str, Tensor]], threshold: float, estimator: str
) -> dict[str, Any]:
    """What :func:`match_pair` returns, but ``features0`` and ``features1``.

    Args:
        found: what :func:`match_places` gives of the features.
        threshold: pixels: largest error of a match that fits.
    """
    xy0, xy1 = found["keypoints0"], found["keypoints1"]
    H_0to1, inliers = estimate(xy0, xy1, threshold, "homography", estimator)
    F_0to1, inliers_F = estimate(xy0, xy1, threshold, "fundamental", estimator)
    fits = {"H_0to1": H_0to1, "inliers": inliers, "F_0to1": F_0to1, "inliers_F": inliers_F}
    keypoints0, keypoints1 = (each["keypoints"][0] for each in features)
    at0, at1 = found["first_matches"].unbind(1)  # those of a second look are not independent of a homography
    fits |= evidence(keypoints0[at0], keypoints1[at1], H_0to1, F_0to1, threshold, keypoints1)
    return {name: values for name, values in found.items() if name != "first_matches"} | fits


def describer(extractor: Extractor | None, descriptor: str | None = None) -> Describe:
    """What describes places (N, 2) of a grey image (1, 1, H, W) by the ``descriptor`` of :func:`match_pair`.

    Only descriptors of weights need an extractor.
    """

    def of_weights(image: Tensor, xy: Tensor) -> dict[str, Tensor]:
        found = extractor.describe(image, {"keypoints": xy[None]})
        return {name: found[name][0] for name in ("descriptors", "scaled_descriptors") if name in found}

    def by_name(image: Tensor, xy: Tensor) -> dict[str, Tensor]:
        return {"descriptors": describe(image, {"keypoints": xy[None]}, descriptor or DEFAULT_METHOD)[0]}

    own = extractor is not None and extractor.describes and descriptor is None
    return of_weights if own else by_name
