"""The curves' pairs: true to their homographies, borderless, repeatable; and every record counted at its own value."""

import pickle
from itertools import cycle

import cv2
import numpy as np
import pytest
import torch

from kp.data import photograph_changes, photographs
from kp.data.photograph_changes import SWEEPS, swept_sequence, swept_sequences
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.sweeps import measure
from kp.models.keypoints import Keypoints

ALL = [(kind, value) for kind, values in SWEEPS.items() for value in values]
CANVASES = [(480, 480), (480, 719), (611, 480)]


def sequences(kind, seed=0, values=None):
    """The pairs of a sweep with their values."""
    return list(zip(cycle(values or SWEEPS[kind]), swept_sequences(kind, seed, values), strict=False))


@pytest.fixture
def same_light(monkeypatch):
    monkeypatch.setattr(photograph_changes, "change_photometry", lambda image, generator, strength: image)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(photographs, "FILES", ("camera.png", "coffee.png"))


def canvas_of(image):
    return torch.from_numpy(image).float()[None, None]


def numpy_images(sequence):
    return [load()[0, 0].numpy() for load in sequence.images]


def project(H, points):
    projected = np.c_[points, np.ones(len(points))] @ H.T
    return projected[:, :2] / projected[:, 2:]


def middle(image):
    return (np.array(image.shape[::-1]) - 1) / 2


def spotted(size, spacing=40, sigma=5.0):
    """Round spots, so that the centre of mass of each tells where it is, in a picture of any scale and rotation."""
    y, x = np.mgrid[: size[0], : size[1]]
    cells = np.stack([x, y]) % spacing - spacing / 2 + 0.3
    return np.exp(-(cells**2).sum(0) / (2 * sigma**2))


def spots(image, radius):
    """Centres (N, 2) of the spots that lie wholly in an image: of mass, in a disc about each peak, by plain numpy."""
    reach, found = int(radius) + 2, []
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    peaks = (image > 0.7) & (image == cv2.dilate(image, np.ones((2 * int(radius) + 1,) * 2)))
    for row, column in np.argwhere(peaks[reach:-reach, reach:-reach]) + reach:
        patch, place = image[row - reach : row + reach + 1, column - reach : column + reach + 1], np.zeros(2)
        for _ in range(10):
            weight = patch * ((x - place[0]) ** 2 + (y - place[1]) ** 2 <= radius**2)
            place = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        found.append(np.add(place, (column, row)))
    return np.array(found)


def test_the_values_are_those_that_are_promised():
    assert SWEEPS["rotation"] == (0, 15, 30, 45, 60, 75, 90, 105, 120, 135, 150, 165, 180)
    assert SWEEPS["scale"][::2] == (0.25, 0.5, 1, 2, 4)
    assert np.diff(np.log2(SWEEPS["scale"])) == pytest.approx(np.full(8, 0.5))


@pytest.mark.parametrize(("kind", "value"), ALL)
def test_homographies_keep_the_centre_and_turn_or_magnify_by_the_value(kind, value, same_light):
    sequence = swept_sequence(torch.rand(1, 1, 480, 719), "v_a", kind, value)
    H, centres = sequence.homographies[0].numpy(), [middle(image) for image in numpy_images(sequence)]
    assert H.dtype == np.float64
    centre, right, down = project(H, centres[0] + np.array([[0, 0], [1, 0], [0, 1]]))
    angle, length = (np.deg2rad(value), 1) if kind == "rotation" else (0, value)
    assert centre == pytest.approx(centres[1], abs=1e-9)
    assert right - centre == pytest.approx(length * np.array([np.cos(angle), np.sin(angle)]), abs=1e-9)
    assert down - centre == pytest.approx(length * np.array([-np.sin(angle), np.cos(angle)]), abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "value", "size"),
    [(*place, (480, 719)) for place in ALL] + [("scale", v, (611, 480)) for v in (0.25, 2**0.5, 4.0)],
)
def test_spots_land_where_the_homography_says(kind, value, size, same_light):
    sequence = swept_sequence(canvas_of(spotted(size)), "v_a", kind, value)
    H = sequence.homographies[0].numpy()
    zooms = (1, 1) if kind == "rotation" else (min(1, 1 / value), min(1, value))
    found = [spots(image, 18 * zoom) for image, zoom in zip(numpy_images(sequence), zooms, strict=True)]
    away = np.linalg.norm(project(H, found[0])[:, None] - found[1], axis=2)
    matched = away.min(1) < 5 * zooms[1]  # a spot's sigma; the next spot is eight away
    assert matched.sum() >= 12
    assert away.min(1)[matched].max() < 0.1 * max(1, zooms[1] / zooms[0])  # found to 0.1 px in the coarser view


@pytest.mark.parametrize("size", CANVASES)
def test_the_finer_view_is_the_middle_of_the_canvas_pixel_by_pixel(size, same_light):
    pixels = np.random.default_rng(0).integers(0, 256, size)
    top, left = (size[0] - 240) // 2, (size[1] - 320) // 2
    window = pixels[top : top + 240, left : left + 320]
    canvas = canvas_of(pixels / 255)
    finer = [swept_sequence(canvas, "v_a", kind, v).images[kind == "scale" and v > 1] for kind, v in ALL]
    for load in finer:
        assert np.array_equal((load()[0, 0].numpy() * 255).round(), window)
    upside_down = swept_sequence(canvas, "v_a", "rotation", 180.0).images[1]()[0, 0].numpy()
    assert np.array_equal((upside_down * 255).round(), window[::-1, ::-1])


@pytest.mark.parametrize(
    ("size", "value", "expected"),
    [
        ((480, 480), 0.25, (120, 120)),
        ((480, 480), 4.0, (120, 120)),
        ((480, 480), 0.5, (240, 240)),
        ((480, 480), 2**-0.5, (240, 320)),
        ((480, 720), 0.25, (120, 180)),
        ((480, 720), 2.0, (240, 320)),
        ((720, 480), 4.0, (180, 120)),
    ],
)
def test_the_coarser_view_is_as_large_as_the_canvas_lets_it(size, value, expected):
    images = swept_sequence(torch.rand(1, 1, *size), "v_a", "scale", value).images
    assert [tuple(load().shape[-2:]) for load in images][:: 1 if value < 1 else -1] == [(240, 320), expected]


@pytest.mark.parametrize("size", CANVASES)
def test_no_view_sees_beyond_the_canvas(size, same_light):
    for kind, value in ALL:
        for load in swept_sequence(torch.ones(1, 1, *size), "v_a", kind, value).images:
            assert (load() == 1).all(), (kind, value)


@pytest.mark.parametrize("value", [0.25, 0.5, 2.0, 4.0])
def test_a_coarser_view_is_filtered_and_a_finer_one_is_not(value, same_light):
    stripes = np.zeros((480, 640))
    stripes[:, ::2] = 1  # one pixel wide: gray, once averaged
    coarse, fine = numpy_images(swept_sequence(canvas_of(stripes), "v_a", "scale", value))[:: 1 if value > 1 else -1]
    assert np.abs(coarse[:, 2:-2] - 0.5).max() < 0.01
    assert set(np.unique(fine)) == {0, 1}


def test_names_sizes_bits_and_light(few):
    for kind in SWEEPS:
        swept = sequences(kind, 3)
        assert [value for value, _ in swept] == [*SWEEPS[kind]] * 2
        assert len({sequence.name for _, sequence in swept}) == len(swept)
        for at, (value, sequence) in enumerate(swept):
            assert sequence.name.startswith(("v_camera", "v_coffee")[at // len(SWEEPS[kind])])
            assert (sequence.split, len(sequence.images), len(sequence.homographies)) == ("v", 2, 1)
            if value in (0, 1, 2):
                images = [load() for load in sequence.images]
                assert all(image.dtype == torch.float32 and 0 <= image.min() < image.max() <= 1 for image in images)
                assert all(torch.equal((image * 255).round() / 255, image) for image in images)
                assert value == 2 or (images[0] - images[1]).abs().mean() > 1e-3


def test_the_same_seed_gives_the_same_images_whatever_else_is_made(few, monkeypatch):
    first, other = dict(sequences("rotation", 0)), dict(sequences("rotation", 1))
    monkeypatch.setattr(photographs, "FILES", ("coffee.png",))
    monkeypatch.setitem(SWEEPS, "rotation", (90.0, 45.0))
    alone = dict(sequences("rotation", 0))
    asked = dict(sequences("rotation", 0, (45.0,)))
    assert list(asked) == [45]
    assert asked[45].name == alone[45].name
    assert torch.equal(asked[45].images[1](), alone[45].images[1]())
    carried = pickle.loads(pickle.dumps(alone[45]))  # to another process
    for number in range(2):
        image = first[45].images[number]()
        assert torch.equal(image, alone[45].images[number]())
        assert torch.equal(image, carried.images[number]())
        assert not torch.equal(image, other[45].images[number]())


class Scene:
    """A detector that knows the pairs it will be shown, in order, and finds true points but where it is blind."""

    def __init__(self, blind=()):
        self.shown = iter([(k, v, s, i) for k in SWEEPS for v, s in sequences(k) for i in range(2)])
        self.blind = blind

    def __call__(self, image):
        kind, value, sequence, number = next(self.shown)
        assert torch.equal(image, sequence.images[number]())
        H, angle = sequence.homographies[0].numpy(), np.arange(20.0)
        spiral = angle[:, None] * np.c_[np.cos(angle), np.sin(angle)]
        points = middle(sequence.images[0]()[0, 0]) + spiral  # at most 19 px from the centre: both views see all
        points = torch.from_numpy(project(H, points) if number else points)[None]
        seen = torch.full((1, 20), not (number and (kind, value) in self.blind))
        return Keypoints(points, -torch.arange(20.0)[None], seen)


def test_true_points_repeat_at_every_value_and_each_row_is_its_own_values(monkeypatch):
    monkeypatch.setattr(photographs, "FILES", ("coffee.png",))
    places = [("rotation", v) for v in (0, 45, 180)] + [("scale", v) for v in (0.25, 1, 2, 4)]
    for kind in SWEEPS:
        monkeypatch.setitem(SWEEPS, kind, tuple(value for k, value in places if k == kind))
    blind = [("rotation", 45), ("rotation", 180), ("scale", 2)]
    rows = measure(lambda: {"true": Scene(), "partly blind": Scene(blind)}, seed=0)
    assert [(row["sweep"], row["value"], row["detector"]) for row in rows] == [
        (*place, name) for place in places for name in ("true", "partly blind")
    ]
    for row in rows:
        sees = row["detector"] == "true" or (row["sweep"], row["value"]) not in blind
        assert (row["repeatability"], row["pairs"], row["interval"]) == (sees, 1, [sees, sees])
        assert row["common"] == (20 if sees else 10)
        assert row["localisation_error"] == (pytest.approx(0, abs=1e-9) if sees else None)
        assert 0 <= row["homography_3px"] <= 1
        assert (row["chance"] > 0) == sees
    chance = {row["value"]: row["chance"] for row in rows if row["sweep"] == "scale" and row["detector"] == "true"}
    seen = {0.25: 60 * 80, 1: 240 * 320, 4: 240 * 320}  # square pixels of view 1 that view 0 sees
    for value, area in seen.items():
        assert chance[value] == pytest.approx(1 - (1 - np.pi * 3**2 / area) ** 20, rel=0.05)


def test_only_images_as_they_are_are_measured():
    with pytest.raises(ValueError, match="squash"):
        measure(dict, PROTOCOLS["squash"])
