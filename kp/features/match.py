"""Mutual nearest neighbours of the descriptors of two images."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kp.features.alignment import Aligned, align
from kp.features.neighbours import mutual_neighbours

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
        ValueError: there are no descriptors, they are of different lengths or not finite, or there are more or fewer
            than keypoints.

    Example:
        >>> found = match(features0, features1, ratio=0.9)
        >>> features0["keypoints"][0, found["matches"][:, 0]]  # (M, 2)
    """
    check_ratio(ratio)
    return nearest(first_look(compared(features0), compared(features1), upright, context), ratio)


def check_ratio(ratio: float | None) -> None:
    """Raises ValueError where it is out of bounds."""
    if ratio is not None and not 0 < ratio <= 1:
        raise ValueError(f"ratio must be in (0, 1], not {ratio}")


def first_look(
    features0: Mapping[str, Tensor], features1: Mapping[str, Tensor], upright: bool = False, context: bool = False
) -> Aligned:
    """What :func:`match` compares, and how, of what :func:`compared` gives of each image.

    Raises:
        ValueError: the descriptors are of different lengths.
    """
    one, two = features0["descriptors"], features1["descriptors"]
    if not min(len(one), len(two)):
        return Aligned(one, two)
    if one.shape[1] != two.shape[1]:
        raise ValueError(f"descriptors of {one.shape[1]} and of {two.shape[1]} numbers cannot be matched")
    return Aligned(one, two.to(one.device)) if upright else align(features0, features1, context)


def nearest(aligned: Aligned, ratio: float | None = None) -> dict[str, Any]:
    """What :func:`match` gives of what it compares."""
    pairs, scores = mutual_neighbours([(aligned.descriptors0, aligned.descriptors1)], ratio)
    chosen = {name: getattr(aligned, name) for name in ("rotation", "scale", "tilt")}
    return {"matches": pairs, "scores": scores} | chosen


def compared(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of one image that are compared, without the axis of images, float32. Raises ValueError if none."""
    if "descriptors" not in features:
        advice = 'take kp.Extractor("described"), or features["descriptors"] = kp.describe(image, features)'
        raise ValueError(f"there are no descriptors: {advice}")
    found = {}
    for name, axes in _COMPARED.items():
        if name in features:
            values = torch.as_tensor(features[name])
            found[name] = (values[0] if values.ndim == axes + 1 and len(values) == 1 else values).float()
    descriptors = found["descriptors"]
    if descriptors.ndim != 2:
        shape = tuple(features["descriptors"].shape)
        raise ValueError(f"descriptors of one image have the shape (1, N, D) or (N, D), not {shape}")
    count = len(descriptors) if "keypoints" not in features else torch.as_tensor(features["keypoints"]).shape[-2]
    if count != len(descriptors):
        raise ValueError(f"there are {count} keypoints, but descriptors of {len(descriptors)}")
    if not all(values.isfinite().all() for values in found.values()):
        raise ValueError("descriptors have values that are NaN or infinite")
    return found
