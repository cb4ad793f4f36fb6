"""The corner oracle against truth by brute force: 256 point samples a pixel, noise, and starts that are 2 px off."""

import numpy as np
import pytest
from corner_oracle import isolated, locate

_SIDE, _SAMPLES = 33, 16  # pixels on a side of an image; samples on a side of a pixel
FEW, MANY = 30, 160  # images of each kind in the normal and in the long run
_AT = ((np.arange(_SIDE * _SAMPLES) + 0.5) / _SAMPLES - 0.5).astype(np.float32)
KINDS = ("vertex", "crossing", "end", "line crossing")


def frame(xy, turn):
    """Every sample's coordinates along and aside of an axis through a point."""
    cos, sin, x, y = np.cos(turn), np.sin(turn), _AT[None] - xy[0], _AT[:, None] - xy[1]
    return cos * x + sin * y, cos * y - sin * x


def photograph(samples, rng):
    """Pixels are the mean of their samples, and noise."""
    pixels = samples.reshape(_SIDE, _SAMPLES, _SIDE, _SAMPLES).mean((1, 3), dtype=np.float64)
    return pixels + rng.normal(0, 0.005, pixels.shape)


def draw(kind, rng):
    """An image (H, W) and the point (x, y) in its middle that is meant. Contrasts are 0.2 or more, angles 30 to 150."""
    xy, turn = _SIDE // 2 + rng.uniform(-0.5, 0.5, 2), rng.uniform(0, 2 * np.pi)
    along, aside = frame(xy, turn)
    away, beside = frame(xy, turn + np.radians(rng.uniform(30, 150)))
    first, second = (np.abs(aside) < rng.uniform(1, 3)), (np.abs(beside) < rng.uniform(1, 3))  # strokes 2 to 6 px wide
    ground = rng.uniform()
    tone, another = (ground + rng.uniform(0.2, 0.8, 2)) % 1
    layers = {
        "flat": [],
        "edge": [(aside > 0, tone)],
        "stroke": [(first, tone)],
        "vertex": [((aside > 0) & (beside < 0), tone)],
        "crossing": [((aside > 0) ^ (beside > 0), tone)],
        "end": [(first & (along > 0), tone)],
        "line crossing": [(first, tone), (second & ((away > 0) | (rng.uniform() < 0.5)), another)],
    }[kind]
    samples = np.full(aside.shape, ground, np.float32)
    for shown, grey in layers:
        samples[shown] = grey
    return photograph(samples, rng), xy


def start(xy, rng):
    """A point up to 2 px away, in any direction."""
    turn = rng.uniform(0, 2 * np.pi)
    return xy + 2 * np.sqrt(rng.uniform()) * np.array([np.cos(turn), np.sin(turn)])


def found_offsets(kind, count, seed=0):
    """Found minus true point, of those of ``count`` images where one is found."""
    rng = np.random.default_rng(seed)
    offsets = []
    for _ in range(count):
        image, xy = draw(kind, rng)
        found, there = locate(image, start(xy, rng), kind)
        if there:
            offsets.append(found - xy)
    return np.array(offsets)


RATES = {"vertex": 0.97, "crossing": 0.97, "end": 0.97, "line crossing": 0.75}  # share of corners that are found


def check(kind, count, bias):
    offsets = found_offsets(kind, count)
    errors = np.linalg.norm(offsets, axis=1)
    assert len(errors) > RATES[kind] * count
    assert np.median(errors) < 0.04
    assert np.quantile(errors, 0.9) < 0.12
    assert np.abs(offsets.mean(0)).max() < bias, "a bias"


@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_corners_to_a_few_hundredths_of_a_pixel(kind):
    check(kind, FEW, bias=0.04)


@pytest.mark.exact
@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_many_corners_to_a_few_hundredths_of_a_pixel(kind):
    check(kind, MANY, bias=0.02)


@pytest.mark.parametrize(
    ("what", "kind"), [(w, k) for w in ("flat", "edge", "stroke", *KINDS) for k in KINDS if w != k]
)
def test_it_finds_nothing_of_another_kind(what, kind):
    rng = np.random.default_rng(1)
    for _ in range(6):
        image, xy = draw(what, rng)
        began = start(xy, rng)
        found, there = locate(image, began, kind)
        assert not there
        assert np.array_equal(found, began)


@pytest.mark.parametrize("kind", KINDS)
def test_it_tells_a_label_that_is_half_a_pixel_off(kind):
    offsets = found_offsets(kind, 20, seed=2) - np.array([0.3, 0.4])
    assert 0.45 < np.median(np.linalg.norm(offsets, axis=1)) < 0.55


def test_it_looks_up_to_the_border_of_a_larger_image():
    rng = np.random.default_rng(3)
    image, xy = draw("vertex", rng)
    larger = np.pad(image, ((5, 40), (60, 0)), mode="edge")
    found, there = locate(larger, xy + np.array([60.5, 5.5]), "vertex")
    assert there
    assert np.linalg.norm(found - xy - np.array([60, 5])) < 0.2
    assert not locate(image, (0.0, 0.0), "vertex")[1]


def test_corners_that_stand_alone():
    corners = np.array([[20.0, 20], [25, 20], [60, 20], [62, 21], [60, 60], [5, 50], [90, 50]])
    kinds = np.array([1, 2, 1, 0, 3, 1, 1])
    alone = isolated(corners, kinds, size=(80, 100), gap=12, border=10)
    assert alone.tolist() == [False, False, True, False, True, False, False]
