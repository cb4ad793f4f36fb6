"""Where a corner is, to a few hundredths of a pixel, from the pixels alone: it shares no code with the renderer.

What leaves the corner, edges or strokes, is looked for on circles about it. Then straight lines are fitted by least
squares to the pixels along each, under the exact area that a half-plane covers of a pixel, and intersected.
Coordinates are (x, y) in pixels, (0, 0) at the centre of the top-left pixel. E lines are fitted at once, each to those
of P pixels that are its own. A line is the angle of its normal, its signed distance from the point looked at, the width
if it is a stroke, and the blur.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import cv2
import numpy as np
from numpy import ndarray as Array

_TURN = np.arange(96) * (2 * np.pi / 96)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], -1)
_AROUND = (np.arange(96) + np.array([-3, -2, -1, 1, 2, 3])[:, None]) % 96  # neighbours on a circle
_STOP = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 40, 1e-3)
_BLURS = (3.0, 1.2)  # pixels: where the fits of two passes begin, the second about what the first found
_MOVES, _DAMPING = 4, 0.02  # of Gauss-Newton: the width of a stroke and its blur are hard to tell apart
_MISS = 0.25  # pixels: lines that pass each other by more do not meet
_FAINT = 0.04  # of the grey range: a step smaller than this is no edge
_BAD = 0.15  # of the step: a fit whose residual is larger (root mean square) is of something else


def locate(image: Array, start: Sequence[float], kind: str, radius: float = 9.0) -> tuple[Array, bool]:
    """The corner (x, y) in pixels nearest to ``start`` in a grey image (H, W), and whether there is one of this kind.

    ``vertex``: two or three straight edges meet; ``crossing``: four; ``end``: of a straight stroke, on its axis;
    ``line crossing``: the axes of strokes that cross or meet. ``start`` is within 2 px of it, with no other corner
    within ``radius`` + 2 px. Where there is none, ``start`` comes back.
    """
    start = np.asarray(start, np.float64)
    reach = int(radius) + 3
    left, top = corner = np.maximum(start.round().astype(int) - reach, 0)
    patch = np.ascontiguousarray(image[top : top + 2 * reach + 1, left : left + 2 * reach + 1], np.float32)
    found = _FIND[kind](patch, start - corner, radius)
    if found is None or np.hypot(*(found + corner - start)) > 3:
        return start, False
    return found + corner, True


def isolated(corners: Array, kinds: Array, size: tuple[int, int], gap: float, border: float) -> Array:
    """True (K,) where a corner (K, 2) is of a kind (K,) other than 0, ``gap`` pixels from all such, off the border."""
    real = np.asarray(kinds) != 0
    apart = np.linalg.norm(corners[:, None] - corners[None], axis=-1)
    apart[:, ~real] = np.inf
    np.fill_diagonal(apart, np.inf)
    inside = ((corners >= border) & (corners <= np.array([size[1], size[0]]) - 1 - border)).all(-1)
    return real & inside & (apart.min(1, initial=np.inf) > gap)


def _meeting(
    patch: Array, start: Array, radius: float, looks: Callable, model: Callable, counts: range
) -> Array | None:
    """Where the axes of all that leaves a point meet, if there are as many as ``counts`` says."""
    centre = start if model is _stroke else _refine(patch, start)
    for blur in _BLURS:
        arms = looks(patch, centre, radius)
        if len(arms) not in counts:
            return None
        lines, good = _fit_lines(patch, centre, arms, radius, blur, model)
        step, miss = _intersect(lines)
        centre = centre + step
    return centre if good and miss < _MISS else None


def _end(patch: Array, start: Array, radius: float) -> Array | None:
    """Where the axis of the only stroke that leaves a point begins."""
    centre = start
    for blur in _BLURS:
        arms = _arms(patch, centre, radius)
        if len(arms) != 1:
            return None
        strokes, straight = _fit_lines(patch, centre, arms, radius, blur, _stroke)
        begin, good = _fit_end(patch, centre, strokes, blur)
        cos, sin = np.cos(strokes[0, 0]), np.sin(strokes[0, 0])
        centre = centre + begin * np.array([sin, -cos]) + strokes[0, 1] * np.array([cos, sin])
    return centre if straight and good else None


def _refine(patch: Array, start: Array) -> Array:
    """OpenCV's corner, good to 0.2 px: where to begin."""
    point = start.astype(np.float32).reshape(1, 1, 2)
    point = cv2.cornerSubPix(patch, point, (3, 3), (-1, -1), _STOP)[0, 0].astype(np.float64)
    return point if np.hypot(*(point - start)) < 3 else start


def _ring(patch: Array, centre: Array, radii: Array) -> Array:
    """Grey values (96,) on circles about a point, from the x axis towards the y axis: the mean of all radii."""
    x, y = np.moveaxis(centre + radii[:, None, None] * _CIRCLE, -1, 0).astype(np.float32)
    return cv2.remap(patch, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).mean(0)


def _edges(patch: Array, centre: Array, radius: float) -> Array:
    """Angles (E, 1) in radians at which straight edges leave a point."""
    ring = _ring(patch, centre, np.arange(4, radius))
    change = np.abs(ring[_AROUND[1]] - ring[_AROUND[-2]])  # over 15 degrees
    around = change[_AROUND].max(0)
    return _TURN[(change >= around) & (change > max(_FAINT, 0.25 * change.max()))][:, None]


def _arms(patch: Array, centre: Array, radius: float) -> Array:
    """Angle in radians and width in pixels (E, 2) of what differs from the ground at ``radius`` from a point."""
    ring = _ring(patch, centre, radius + np.arange(-1, 2))
    ring = ring - np.median(ring)
    first = int(np.abs(ring).argmin())
    ring = np.roll(ring, -first)  # begins on the ground
    sign = np.sign(ring) * (np.abs(ring) > max(_FAINT, 0.2 * np.abs(ring).max()))
    borders = np.flatnonzero(np.diff(sign, append=0)) + 1
    runs = [slice(a, b) for a, b in pairwise(borders) if sign[a]]
    angles = [np.average(_TURN[run], weights=np.abs(ring[run])) + _TURN[first] for run in runs]
    return np.array([(angle, (r.stop - r.start) * _TURN[1] * radius) for angle, r in zip(angles, runs, strict=True)])


def _pixels(patch: Array, centre: Array) -> Array:
    """Pixel centres (2, P) of a patch in raster order, from ``centre``."""
    rows, columns = np.indices(patch.shape)
    return np.stack([columns.ravel() - centre[0], rows.ravel() - centre[1]])


def _turned(xy: Array, angles: Array) -> tuple[Array, Array]:
    """Pixels (2, P) along, and aside of, the rays at these angles (E,): two (E, P)."""
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return cos * xy[0] + sin * xy[1], cos * xy[1] - sin * xy[0]


def _covered(distance: Array, angle: Array, blur: Array) -> tuple[Array, Array]:
    """The share of a pixel, ``blur`` wide, behind lines, and its growth for each pixel that they come nearer.

    From the signed distances (E, P) of the pixels to the lines, the angles of the lines' normals and the blurs (E,).
    """
    wide, narrow = (blur * (np.abs([np.cos(angle), np.sin(angle)]) + 0.01))[..., None]
    far, near = (wide + narrow) / 2, (wide - narrow) / 2
    a, b, c, d = (np.maximum(distance + shift, 0) for shift in (far, near, -near, -far))
    return (a * a - b * b - c * c + d * d) / (2 * wide * narrow), (a - b - c + d) / (wide * narrow)


def _edge(xy: Array, line: Array) -> tuple[Array, Array]:
    """Basis (E, P, 2) of the grey values about straight edges (E, 3), its last a unit step; the step's slopes."""
    across, along = _turned(xy, line[:, 0])
    across = across - line[:, 1:2]
    step, growth = _covered(across, line[:, 0], line[:, 2])
    slopes = np.stack([growth * along, -growth, -growth * across / line[:, 2:]], -1)
    return np.stack([np.ones_like(step), step], -1), slopes


def _stroke(xy: Array, line: Array) -> tuple[Array, Array]:
    """Basis (E, P, 3) of the grey values about strokes (E, 4), its last the share under a stroke; its slopes."""
    across, along = _turned(xy, line[:, 0])
    across = across - line[:, 1:2]
    left, right = across + line[:, 2:3] / 2, across - line[:, 2:3] / 2
    (more, rise), (less, fall) = (_covered(side, line[:, 0], line[:, 3]) for side in (left, right))
    blurring = (fall * right - rise * left) / line[:, 3:]
    slopes = np.stack([(rise - fall) * along, fall - rise, (rise + fall) / 2, blurring], -1)
    return np.stack([np.ones_like(across), across / 4, more - less], -1), slopes


def _begin(stripe: Array, along: Array, angle: Array, line: Array) -> tuple[Array, Array]:
    """Basis (1, P, 2) of the grey values about the end of a stroke, its place and blur (1, 2), and the slopes."""
    ahead = along - line[:, :1]
    share, growth = _covered(ahead, angle, line[:, 1])
    slopes = -(stripe * growth)[..., None] * np.stack([np.ones_like(ahead), ahead / line[:, 1:]], -1)
    return np.stack([np.ones_like(stripe), stripe * share], -1), slopes


def _fit_lines(
    patch: Array, centre: Array, arms: Array, radius: float, blur: float, model: Callable
) -> tuple[Array, bool]:
    """The lines that leave a point along arms, (E, 1) edges or (E, 2) strokes, and whether they all do."""
    xy = _pixels(patch, centre)
    along, aside = _turned(xy, arms[:, 0])
    aside = np.abs(aside) - arms[:, 1:].sum(1, keepdims=True) / 2
    others = (along > -1) & (aside < 1.3)
    own = (along > 2.5) & (along < radius + 1) & (aside < 2.5) & (others.sum(0) - others == 0)
    used, one = own.any(0), np.ones(len(arms))
    start = np.column_stack([arms[:, 0] + np.pi / 2, 0 * one, arms[:, 1:], blur * one])
    return _fit(partial(model, xy[:, used]), start, patch.ravel()[used], own[:, used])


def _fit_end(patch: Array, centre: Array, strokes: Array, blur: float) -> tuple[float, bool]:
    """How far from the centre's foot on its axis the only one of strokes (1, 4) begins, and whether it does."""
    xy, angle = _pixels(patch, centre), strokes[:, 0] - np.pi / 2
    along, across = _turned(xy, angle)
    own = ((np.abs(across - strokes[:, 1:2]) < strokes[:, 2:3] / 2 + 1.5) & (np.abs(along) < 5))[0]
    stripe = _stroke(xy[:, own], strokes)[0][..., -1]
    model = partial(_begin, stripe, along[:, own], angle)
    begin, good = _fit(model, np.array([[0.0, blur]]), patch.ravel()[own], own[None, own])
    return float(begin[0, 0]), good


def _fit(model: Callable, at: Array, grey: Array, own: Array) -> tuple[Array, bool]:
    """Gauss-Newton on the pixels ``grey`` (P,), each line on its ``own`` (E, P): the lines (E, Q), and if all fit well.

    ``model(lines)`` gives a basis (E, P, L), the last of which is the step, and the slopes (E, P, Q) of the step. A
    faint step, a large residual, fewer than 12 pixels or a stroke not 1 to 9 pixels wide are a bad fit.
    """
    for _ in range(_MOVES):
        basis, slopes = model(at)
        weights = _solve(np.concatenate([basis, slopes], -1), grey, own, at.shape[1])[..., 0]
        step = weights[:, -at.shape[1] - 1, None]
        at = at + np.clip(weights[:, -at.shape[1] :] / np.where(step == 0, np.inf, step), -0.7, 0.7)
        at[:, -1] = at[:, -1].clip(1, 6)
    basis, _ = model(at)
    weights = _solve(basis, grey, own)
    residual = ((grey - (basis @ weights)[..., 0]) ** 2 * own).sum(-1) / own.sum(-1).clip(1)
    step = np.abs(weights[:, -1, 0])
    good = (step > _FAINT) & (residual < (_BAD * step) ** 2) & (own.sum(-1) >= 12)
    if at.shape[1] == 4:
        good &= (at[:, 2] > 1) & (at[:, 2] < 9)
    return at, bool(good.all())


def _solve(basis: Array, grey: Array, own: Array, damped: int = 0) -> Array:
    """Least squares (E, L, 1) on each line's own pixels, by the normal equations, the last columns damped."""
    weighted = basis.swapaxes(1, 2) * own[:, None]
    ridge = np.full(basis.shape[2], 1e-6)
    ridge[len(ridge) - damped :] = _DAMPING
    return np.linalg.solve(weighted @ basis + np.diag(ridge), weighted @ grey[:, None])


def _intersect(lines: Array) -> tuple[Array, float]:
    """Where lines (E, ...) intersect, by least squares, and by how much the worst misses that; inf if parallel."""
    normals = np.stack([np.cos(lines[:, 0]), np.sin(lines[:, 0])], -1)
    scatter = normals.T @ normals
    if np.linalg.eigvalsh(scatter)[0] < 0.06:  # two lines 20 degrees apart
        return np.zeros(2), np.inf
    point = np.linalg.solve(scatter, normals.T @ lines[:, 1])
    return point, float(np.abs(normals @ point - lines[:, 1]).max())


_FIND = {
    "vertex": partial(_meeting, looks=_edges, model=_edge, counts=range(2, 4)),
    "crossing": partial(_meeting, looks=_edges, model=_edge, counts=range(4, 5)),
    "end": _end,
    "line crossing": partial(_meeting, looks=_arms, model=_stroke, counts=range(2, 7)),
}
