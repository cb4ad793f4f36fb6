"""Matches moved to where the pictures fit: each keypoint of image 1 to the place that looks like that of image 0.

The keypoints of two images are found each by itself, so a match is exact to about a pixel. The pictures know more: a
small window about the keypoint of image 0, changed as image 1 sees it, is laid on image 1, and moved by the steps of
Lucas and Kanade (IJCAI 1981) until it fits, in the form of Baker and Matthews (IJCV 2004) that computes derivatives
once. Windows are compared without their mean and contrast. The change of a window is the derivative of the homography
that fits most matches for those that are near its places, the turn and size of the images for the others. Descriptors
see more than a window and often name a corner beside the right one. So a window that does not fit well, and whose match
the homography does not fit either, is looked for in its neighbourhood, by correlation at each pixel, and moved from
there.
"""

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torch.nn.functional import conv2d

from kp.features.estimate import FIT, Fit, choose_estimator, estimate, in_front
from kp.features.images import to_grey_image
from kp.geometry.coords import jacobian, sample_windows, warp_points

if TYPE_CHECKING:
    from kp.features.images import Source

_STEPS = 5  # of each window
_RADIUS = 7  # of a window, in pixels of the image that shows less
_FARTHEST = 3.0  # so far a window moves at most: farther away is another place
_LIKENESS = 0.6  # correlation of two windows: less, and they do not fit
_LIKELY = 0.8  # correlation: a window that fits less well is looked for in its neighbourhood
_NEIGHBOURHOOD = 8  # pixels to each side of the match
_BETTER = 0.05  # more correlation, at least, that a place of the neighbourhood has, if the match fits at all
_SHRINKS = 1.3  # an image that is read in larger steps is blurred first
_LEAST_LIKE = 0.3  # correlation by which steps are divided, at least: with less they would be long
_CONTRAST = 1e-4  # added to that of a window, so that an even one is no division by zero
_SURE = 1e-3  # added to the squares of derivatives, for windows along which little changes
_SIZES = 8.0  # times larger or smaller, at most, an image is expected to show things
_AT_ONCE = 4096  # matches, for the memory of their windows
_FEWEST = 12  # matches that a homography fits, at least: four always have one
_NEAR = 15.0  # pixels of the image that shows less: farther from the homography's place a match is of another plane


@torch.no_grad()
def refine(
    image0: "Source",
    image1: "Source",
    keypoints0: Tensor,
    keypoints1: Tensor,
    rotation: float = 0.0,
    scale: float = 1.0,
    estimator: str | None = None,
    exif: str = "ignore",
) -> Tensor:
    """The places (M, 2), float32, in image 1 that look most like those of the matched keypoints of image 0.

    They may be of any feature, best at corners: a place on a straight edge may slide along it by a pixel. A match moves
    by up to 3 px of the image that shows less. Where it does not fit well, and no homography fits it, the places
    within 8 px to each side are tried, and it moves by up to 3 px from the best. Where nothing looks alike it stays.

    Args:
        keypoints0, keypoints1: the matches, (M, 2) each, tensors or arrays, in pixels.
        rotation, scale: of image 0 to look like image 1, in degrees and times, as :func:`kp.match` gives them: for
            matches that are not near the homography's places.
        estimator: of the homography: see :func:`kp.match_pair`.
        exif: of files and PIL images, ``ignore`` or ``apply``: see :class:`kp.Extractor`.

    Raises:
        ValueError: an image cannot be read, the matches have other shapes, ``scale`` is not above 0, or the estimator
            is not there.

    Example:
        >>> found = kp.match_pair("a.jpg", "b.jpg", refined=False)
        >>> better = kp.refine("a.jpg", "b.jpg", found["keypoints0"], found["keypoints1"])
    """
    keypoints0, keypoints1 = torch.as_tensor(keypoints0), torch.as_tensor(keypoints1)
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be above 0, not {scale}")
    if keypoints0.shape != keypoints1.shape or keypoints0.ndim != 2 or keypoints0.shape[1] != 2:
        shapes = f"{tuple(keypoints0.shape)} and {tuple(keypoints1.shape)}"
        raise ValueError(f"matched keypoints of two images have the shape (M, 2) each, not {shapes}")
    xy0, xy1 = (keypoints.float() for keypoints in (keypoints0, keypoints1.to(keypoints0.device)))
    grey0, grey1 = (to_grey_image(image, exif).grey.to(xy0.device) for image in (image0, image1))
    fit = estimate(xy0, xy1, FIT, "homography", choose_estimator(estimator))
    return refine_by(fit, grey0, grey1, xy0, xy1, rotation, scale)


def refine_by(
    fit: Fit, grey0: Tensor, grey1: Tensor, xy0: Tensor, xy1: Tensor, rotation: float, scale: float
) -> Tensor:
    """What :func:`refine` returns, of grey images (1, 1, H, W) and matches (M, 2), (M, 2), float32, on one device.

    ``fit`` is the homography that fits most of the matches.
    """
    if not len(xy0):
        return xy1
    turn = math.radians(rotation)
    similarity = scale * xy0.new_tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    changes, sure = _changes(xy0, xy1, similarity, fit)
    size = min(max(float(torch.linalg.det(changes).abs().sqrt().nanmedian()), 1 / _SIZES), _SIZES)
    step = max(1.0, 1 / size)  # pixels of image 0
    grey0, grey1 = _blurred(grey0, step), _blurred(grey1, size * step)
    parts = zip(*(each.split(_AT_ONCE) for each in (xy0, xy1, changes, sure)), strict=True)
    return torch.cat([_registered(grey0, grey1, *part, step) for part in parts])


def _changes(xy0: Tensor, xy1: Tensor, similarity: Tensor, fit: Fit) -> tuple[Tensor, Tensor]:
    """The change of each window (M, 2, 2), in pixels of image 1 per pixel of image 0, and whether the homography fits
    the match (M,).

    Args:
        xy0, xy1: the matches, (M, 2), in pixels.
        similarity: (2, 2), the change for matches that are not near the homography's places.
    """
    changes = similarity.expand(len(xy0), 2, 2)
    H_0to1, fits = fit
    if H_0to1 is None or fits.sum() < _FEWEST:
        return changes, torch.zeros_like(fits, device=xy0.device)
    places0 = xy0.cpu().double()
    H_0to1 = in_front(H_0to1, places0[fits])[None]
    places1, ahead = (each[0].to(xy1.device) for each in warp_points(places0[None], H_0to1))
    of_plane = jacobian(H_0to1, places0[None])[0].to(xy0)
    reach = _NEAR * torch.linalg.det(of_plane).abs().sqrt().clamp(1, _SIZES)  # pixels of image 1
    near = ahead & ((places1 - xy1).norm(dim=1) < reach)
    return torch.where(near[:, None, None], of_plane, changes), fits.to(xy0.device)


class _Windows(NamedTuple):
    """Windows of image 0 to be found in image 1."""

    xy: Tensor  # (M, 2), the matches in image 1, in pixels
    changes: Tensor  # (M, 2, 2), pixels of image 1 per pixel of image 0
    patterns: Tensor  # (3, P, M), normalised, and their derivatives by a move of image 0, all times the weights
    inverse: Tensor  # (M, 2, 2), of the products of derivatives

    def chosen(self, index: Tensor) -> "_Windows":
        return _Windows(self.xy[index], self.changes[index], self.patterns[..., index], self.inverse[index])


def _registered(
    image0: Tensor, image1: Tensor, xy0: Tensor, xy1: Tensor, changes: Tensor, sure: Tensor, step: float
) -> Tensor:
    """The places (M, 2) of matches in image 1, in pixels, moved to where windows fit.

    Args:
        image0, image1: grey, (1, 1, H, W).
        xy0, xy1: the matches, (M, 2), in pixels.
        changes: (M, 2, 2), of each window, pixels of image 1 per pixel of image 0.
        sure: (M,), the matches that are not looked for in their neighbourhood.
        step: pixels of image 0 between the places of a window that are read.
    """
    offsets, weights = _window(xy0, step)  # (P, 2), (P,)
    template, slopes = _templates(image0, xy0, offsets, weights, step)  # (P, M), (2, P, M)
    patterns = torch.stack([template, *slopes]) * weights[:, None]
    xx, xy, yy = ((patterns[1 + i] * slopes[j]).sum(0) + _SURE * (i == j) for i, j in ((0, 0), (0, 1), (1, 1)))
    inverse = torch.stack([yy, -xy, -xy, xx], dim=1).view(-1, 2, 2) / (xx * yy - xy.square())[:, None, None]
    windows = _Windows(xy1, changes, patterns, inverse)
    moved, likeness = _fitted(image1, windows, torch.zeros_like(xy0), offsets, weights, step)
    unlike = ((likeness < _LIKELY) & ~sure).nonzero()[:, 0]
    if len(unlike):
        windows = windows.chosen(unlike)
        start = _likest(image1, windows, weights, step)
        elsewhere, alike = _fitted(image1, windows, start, offsets, weights, step)
        better = alike > likeness[unlike] + _BETTER
        moved[unlike[better]] = elsewhere[better]
    there = xy1 + _times(changes, moved)
    return torch.where(moved.any(1, keepdim=True), there, xy1)  # a change that is not finite moves nothing


def _fitted(
    image: Tensor, windows: _Windows, start: Tensor, offsets: Tensor, weights: Tensor, step: float
) -> tuple[Tensor, Tensor]:
    """Moves (M, 2) of windows, begun at ``start`` (M, 2), in pixels of image 0, and how like the image (M,) they are.

    Where a window does not fit, its move is ``start`` and its likeness 0. ``offsets`` (P, 2) and ``weights`` (P,) are
    those of :func:`_window`.
    """
    moved = start
    for number in range(_STEPS + 1):
        places = windows.xy + _times(windows.changes, moved)
        seen = _normalised(sample_windows(image, places, windows.changes, offsets, "border"), weights)[0]
        likeness, *errors = (windows.patterns * seen).sum(1)  # patterns have no mean
        if number < _STEPS:
            way = _times(windows.inverse, torch.stack(errors, dim=1)) / likeness.clamp(min=_LEAST_LIKE)[:, None]
            moved = moved - way * (step / way.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=1)
    fits = (likeness > _LIKENESS) & ((moved - start).norm(dim=1) < _FARTHEST * step)
    return torch.where(fits[:, None], moved, start), torch.where(fits, likeness, 0)


def _likest(image: Tensor, windows: _Windows, weights: Tensor, step: float) -> Tensor:
    """The moves (M, 2), in pixels of image 0, to the places of the neighbourhood that look most like the windows.

    ``weights`` (P,) are those of :func:`_window`.
    """
    side, across = 2 * _RADIUS + 1, 2 * (_NEIGHBOURHOOD + _RADIUS) + 1
    places = step * _square(_NEIGHBOURHOOD + _RADIUS, weights)
    areas = sample_windows(image, windows.xy, windows.changes, places, "border").T.reshape(-1, 1, across, across)
    areas = areas - areas.mean(dim=(2, 3), keepdim=True)  # so that no digits are lost to a variance
    kernels = windows.patterns[0].T.reshape(-1, 1, side, side)
    square = weights.view(1, 1, side, side)
    line, column = square.sum(2, keepdim=True), square.sum(3, keepdim=True)  # of a Gaussian: their product
    products = conv2d(areas.transpose(0, 1), kernels, groups=len(kernels))[0]  # windows have no mean
    means, squares = (conv2d(conv2d(each, line), column)[:, 0] for each in (areas, areas.square()))
    likeness = products / ((squares - means.square()).clamp(min=0).sqrt() + _CONTRAST)
    return step * _square(_NEIGHBOURHOOD, weights)[likeness.flatten(1).argmax(dim=1)]


def _square(radius: int, like: Tensor) -> Tensor:
    """All places ((2 radius + 1)^2, 2) of whole numbers up to ``radius`` to each side."""
    line = torch.arange(-radius, radius + 1, device=like.device, dtype=like.dtype)
    return torch.cartesian_prod(line, line)


def _window(like: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """The places (P, 2) of a window about its centre, in pixels of image 0, and their weights (P,), whose sum is 1."""
    offsets = _square(_RADIUS, like)
    weights = torch.exp(-2 * offsets.square().sum(1) / _RADIUS**2)
    return step * offsets, weights / weights.sum()


def _templates(image: Tensor, xy: Tensor, offsets: Tensor, weights: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """The normalised windows (P, M) of image 0, and their derivatives (2, P, M) by a move in pixels of image 0.

    The derivatives have no mean and nothing of the window: other light says nothing of a place.
    """
    read = partial(sample_windows, image, changes=torch.eye(2).to(xy).expand(len(xy), 2, 2), offsets=offsets)
    template, contrast = _normalised(read(xy, padding="border"), weights)
    ways = torch.eye(2).to(xy) * step / 2
    slopes = torch.stack([read(xy + way, padding="border") - read(xy - way, padding="border") for way in ways])
    slopes = slopes / (step * contrast)
    slopes = slopes - (weights @ slopes)[:, None]
    along = weights @ (slopes * template) / (weights @ template.square()).clamp(min=_CONTRAST)
    return template, slopes - along[:, None] * template


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Matrices (M, 2, 2) times vectors (M, 2)."""
    return (matrices @ vectors[..., None])[..., 0]


def _normalised(windows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Windows (P, M) without their weighted mean, divided by their contrast (M,), and the contrast."""
    windows = windows - weights @ windows
    contrast = (weights @ windows.square()).sqrt() + _CONTRAST
    return windows / contrast, contrast


def _blurred(image: Tensor, step: float) -> Tensor:
    """An image (1, 1, H, W), blurred if it is read in steps of more than a pixel: by ``step``, in pixels."""
    if step < _SHRINKS:
        return image
    sigma = 0.5 * math.sqrt(step**2 - 1)
    size = 2 * math.ceil(3 * sigma) + 1
    return gaussian_blur2d(image, (size, size), (sigma, sigma), border_type="replicate")
