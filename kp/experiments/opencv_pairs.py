"""A pipeline of pairs on the CPU with numpy and OpenCV. The benchmark compares the speed of the torch pipeline with it.

It follows the steps of published generators, without needless cost. A shape of the classic catalogue (DeTone et al.,
"SuperPoint", CVPRW 2018, section 4.1) is drawn at 960x1280 in whole pixels over blurred blobs. The image is shrunk to
240x320 and warped twice by ``cv2.warpPerspective``. Points are (x, y) in pixels, (0, 0) at the centre of the top-left
pixel.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import numpy as np
from numpy import ndarray as Array
from numpy.random import Generator

SIZE = (240, 320)  # (H, W) of a view in pixels
_SHRINK = 4  # side of the drawing over the side of the image
_NUM_BLOBS = 100
_MIN_CONTRAST = 40  # grey levels between a shape and the ground


def pairs(seed: int, shapes: tuple[str, ...] | None = None) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Yield pairs without end: views 0 and 1 (240, 320) uint8, H_0to1 (3, 3), and the corners (K, 2) inside view 0.

    Each pair shows one of ``shapes`` at random (None: all of SHAPES).
    """
    rng = np.random.default_rng(seed)
    names = tuple(SHAPES) if shapes is None else shapes
    while True:
        image, corners = draw(names[rng.integers(len(names))], rng)
        H0, H1 = _homography(rng), _homography(rng)
        view0, view1 = (cv2.warpPerspective(image, H, SIZE[::-1], flags=cv2.INTER_LINEAR) for H in (H0, H1))
        corners0 = cv2.perspectiveTransform(corners[None], H0)[0] if len(corners) else corners
        yield view0, view1, H1 @ np.linalg.inv(H0), corners0[_inside(corners0, SIZE)]


def measure(seed: int, seconds: float) -> float:
    """Pairs per second of one worker on one thread. A first pair is not timed."""
    cv2.setNumThreads(1)
    made, count = pairs(seed), 0
    next(made)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or not count:
        next(made)
        count += 1
    return count / (time.perf_counter() - began)


def draw(shape: str, rng: Generator) -> tuple[Array, Array]:
    """An image (240, 320) uint8 of one of SHAPES, and its corners (K, 2)."""
    large = _background(rng)
    corners = np.asarray(SHAPES[shape](large, rng), np.float64).reshape(-1, 2)
    image = cv2.resize(large, SIZE[::-1], interpolation=cv2.INTER_AREA)
    corners = (corners[_inside(corners, large.shape)] + 0.5) / _SHRINK - 0.5
    return cv2.GaussianBlur(image, (3, 3), 0), corners


def _inside(points: Array, size: tuple[int, int]) -> Array:
    return ((points >= 0) & (points <= np.array(size[::-1]) - 1)).all(-1)


def _background(rng: Generator) -> Array:
    """Blurred blobs (960, 1280)."""
    height, width = (_SHRINK * side for side in SIZE)
    image = np.full((height, width), rng.integers(256), np.uint8)
    at, radius = (
        rng.integers(0, (width, height), (_NUM_BLOBS, 2)),
        rng.integers(height // 100, height // 10, _NUM_BLOBS),
    )
    for centre, r, tone in zip(at.tolist(), radius.tolist(), rng.integers(0, 256, _NUM_BLOBS).tolist(), strict=True):
        cv2.circle(image, centre, r, tone, -1)
    return cv2.blur(image, (int(rng.integers(50, 300)),) * 2)


def _homography(rng: Generator) -> Array:
    """A random H (3, 3) of a view: the corners are moved one by one, then all are rotated, scaled and shifted."""
    corners = np.float32([[0, 0], [1, 0], [1, 1], [0, 1]]) * (SIZE[1] - 1, SIZE[0] - 1)
    centre, turn, scale = corners.mean(0), rng.uniform(-np.pi / 4, np.pi / 4), np.exp(rng.uniform(-0.4, 0.4))
    rotation = scale * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    moved = (corners - centre) * rng.uniform(0.75, 1.25, (4, 2)) @ rotation
    moved += centre + rng.uniform(-0.1, 0.1, 2) * SIZE[::-1]
    return cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))


def _tones(image: Array, rng: Generator, count: int) -> list[int]:
    """Random grey levels, at least _MIN_CONTRAST from the mean of the image."""
    ground, tones = cv2.mean(image)[0], rng.integers(0, 256 - 2 * _MIN_CONTRAST, count)
    return np.where(tones < ground - _MIN_CONTRAST, tones, tones + 2 * _MIN_CONTRAST).tolist()


def _place(image: Array, rng: Generator, *shape: int, margin: int = 0) -> Array:
    """Random points (*shape, 2) of the image in whole pixels, ``margin`` percent of its sides from its edge."""
    size = np.array(image.shape[::-1])
    return rng.integers(size * margin // 100, size * (100 - margin) // 100, (*shape, 2))


def _round_points(rng: Generator, centre: Array, radius: float, count: int) -> Array:
    """The vertices (count, 2) of a convex polygon around a centre, in whole pixels."""
    angle = 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    return np.round(centre + radius * np.stack([np.cos(angle), np.sin(angle)], -1)).astype(np.int32)


def _apart(image: Array, rng: Generator, tries: int, largest: float) -> list[tuple[Array, int]]:
    """Centres and radii of circles that do not overlap."""
    circles: list[tuple[Array, int]] = []
    for centre in _place(image, rng, tries):
        radius = int(rng.integers(30, round(largest * min(image.shape))))
        if all(np.hypot(*(centre - other)) > radius + r for other, r in circles):
            circles.append((centre, radius))
    return circles


def lines(image: Array, rng: Generator) -> list[Array]:
    """Lines that do not cross."""
    kept: list[Array] = []
    for segment, tone in zip(_place(image, rng, 10, 2), _tones(image, rng, 10), strict=True):
        if not any(_cross(segment, other) for other in kept):
            kept.append(segment)
            cv2.line(image, *segment.tolist(), tone, int(rng.integers(2 * _SHRINK, 6 * _SHRINK)))
    return kept


def _cross(a: Array, b: Array) -> bool:
    """True if segments a and b (2, 2) cross: each has its ends on both sides of the other."""
    sides = [[(q[1] - q[0], end - q[0]) for end in p] for p, q in ((a, b), (b, a))]
    return bool((np.linalg.det(sides).prod(1) <= 0).all())


def polygon(image: Array, rng: Generator, tries: int = 1, largest: float = 0.45) -> Array:
    """Polygons of 3 to 6 vertices that do not overlap, or only one."""
    circles = _apart(image, rng, tries, largest)
    vertices = [_round_points(rng, *circle, int(rng.integers(3, 7))) for circle in circles]
    for one, tone in zip(vertices, _tones(image, rng, len(vertices)), strict=True):
        cv2.fillPoly(image, [one], tone)
    return np.concatenate(vertices)


def ellipses(image: Array, rng: Generator) -> list[Array]:
    """Ellipses that do not overlap: no corners."""
    circles = _apart(image, rng, 30, 0.3)
    for (centre, radius), tone in zip(circles, _tones(image, rng, len(circles)), strict=True):
        axes, turn = (radius, int(rng.integers(10, radius))), float(rng.uniform(0, 180))
        cv2.ellipse(image, centre.tolist(), axes, turn, 0, 360, tone, -1)
    return []


def star(image: Array, rng: Generator) -> Array:
    """Strokes from one point. Corners are this point and the other ends."""
    centre = _place(image, rng, margin=25)
    ends = _round_points(rng, centre, rng.uniform(0.2, 0.5) * min(image.shape), int(rng.integers(3, 7)))
    for end, tone in zip(ends.tolist(), _tones(image, rng, len(ends)), strict=True):
        cv2.line(image, centre.tolist(), end, tone, int(rng.integers(2 * _SHRINK, 6 * _SHRINK)))
    return np.concatenate([centre[None], ends])


def _board(image: Array, rng: Generator, tones: Array) -> Array:
    """Draw cells of grey levels (rows, columns) in perspective; returns the crossings of their lines (K, 2)."""
    rows, columns = tones.shape
    square = np.float32([[0, 0], [columns, 0], [columns, rows], [0, rows]])
    outline = _round_points(rng, _place(image, rng, margin=25), 0.5 * min(image.shape), 4)
    H = cv2.getPerspectiveTransform(square, outline.astype(np.float32))
    lattice = np.indices((rows + 1, columns + 1))[::-1].transpose(1, 2, 0).astype(np.float64)
    lattice = np.round(cv2.perspectiveTransform(lattice, H)).astype(np.int32)
    for y, x in np.ndindex(rows, columns):
        cv2.fillConvexPoly(image, lattice[[y, y, y + 1, y + 1], [x, x + 1, x + 1, x]], int(tones[y, x]))
    return lattice.reshape(-1, 2)


def checkerboard(image: Array, rng: Generator) -> Array:
    """A chessboard in perspective, of slightly uneven tones."""
    parity = np.indices(rng.integers(4, 9, 2)).sum(0) % 2
    return _board(image, rng, 40 + 150 * parity + rng.integers(-30, 30, parity.shape))


def stripes(image: Array, rng: Generator) -> Array:
    """Parallel stripes in perspective."""
    return _board(image, rng, np.where(np.arange(rng.integers(4, 9)) % 2, 190, 40)[None] + rng.integers(-40, 40))


def cube(image: Array, rng: Generator) -> Array:
    """A box in a random pose. Corners are its seven visible vertices."""
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    axes *= np.where(axes[:, 2:] < 0, -1, 1) * rng.uniform(0.12, 0.35, (3, 1)) * min(image.shape)  # towards the viewer
    x, y, z = axes[:, :2]
    near = _place(image, rng, margin=25)
    (tone,) = _tones(image, rng, 1)
    for face, (u, v) in enumerate(((x, y), (y, z), (z, x))):
        corners = np.round([near, near - u, near - u - v, near - v]).astype(np.int32)
        cv2.fillConvexPoly(image, corners, int(np.clip(tone + 50 * (face - 1), 0, 255)))
    return np.stack([near, near - x, near - y, near - z, near - x - y, near - y - z, near - z - x])


def noise(image: Array, rng: Generator) -> list[Array]:
    """Noise: no corners."""
    image[:] = rng.integers(0, 256, image.shape, np.uint8)
    return []


SHAPES: dict[str, Callable] = {
    f.__name__: f for f in (checkerboard, cube, star, lines, stripes, polygon, ellipses, noise)
} | {"polygons": partial(polygon, tries=30, largest=0.3)}
