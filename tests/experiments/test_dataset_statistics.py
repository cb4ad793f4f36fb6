"""Statistics of images whose statistics are known: waves, noise, steps and squares, all made here by hand."""

import warnings
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from kp.data import photographs
from kp.data.synthetic.render import FAMILIES
from kp.experiments.dataset_statistics import (
    RINGS,
    STATISTICS,
    Group,
    bracketed,
    contrast,
    corner_density,
    draw,
    gradient_kurtosis,
    measure,
    natural,
    quantiles,
    radial_spectrum,
    spectral_slope,
    synthetic,
)

SIZE = (240, 320)
COUNTED = (240 - 8) * (320 - 8) / 1e6  # megapixels without the border


def waves(exponent, size=SIZE, seed=0):
    """A sum of plane waves, as many in each octave and in every direction, whose power density falls as f^-exponent."""
    rng = np.random.default_rng(seed)
    f, direction = np.exp(rng.uniform(np.log(0.008), np.log(0.5), 4000)), rng.uniform(0, 2 * np.pi, 4000)
    amplitude = f ** (1 - exponent / 2) * np.exp(1j * rng.uniform(0, 2 * np.pi, 4000))
    down = np.exp(2j * np.pi * np.outer(np.arange(size[0]), f * np.sin(direction)))
    across = np.exp(2j * np.pi * np.outer(f * np.cos(direction), np.arange(size[1])))
    image = ((down * amplitude) @ across).real
    return 0.5 + 0.1 * image / image.std()


def noise(deviation, seed=0):
    return np.random.default_rng(seed).normal(0.5, deviation, SIZE)


@pytest.mark.parametrize(("exponent", "size"), [(0.0, SIZE), (2.0, SIZE), (3.0, SIZE), (2.0, (205, 400))])
def test_the_slope_is_the_exponent_that_the_waves_were_made_with(exponent, size):
    slopes = [spectral_slope(waves(exponent, size, seed)) for seed in range(2)]
    assert np.mean(slopes) == pytest.approx(exponent, abs=0.1)
    assert np.max(np.abs(np.array(slopes) - exponent)) < 0.2


def test_white_noise_is_flat_and_gaussian():
    image = noise(0.1)
    assert spectral_slope(image) == pytest.approx(0, abs=0.1)
    assert gradient_kurtosis(image) == pytest.approx(3, abs=0.1)
    assert contrast(image) == pytest.approx(0.1, abs=0.002)
    assert radial_spectrum(image)[8:] == pytest.approx(0.01, rel=0.4)
    assert radial_spectrum(image)[-8:] == pytest.approx(0.01, rel=0.1)


def test_a_slope_across_the_image_does_not_leak_into_its_noise():
    spectrum = radial_spectrum(np.linspace(0, 1, 320) + noise(0.01))
    assert spectrum[-8:] == pytest.approx(1e-4, rel=0.1)


def test_the_mean_of_a_small_image_is_no_power():
    image = noise(0.05)[:60, :80]
    assert radial_spectrum(image + 0.4) == pytest.approx(radial_spectrum(image), rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("turned", [False, True])
def test_a_wave_stands_at_its_frequency_in_cycles_a_pixel(turned):
    image = 0.5 + 0.3 * np.cos(2 * np.pi * 0.1 * np.arange(320)) * np.ones((240, 1))
    spectrum = radial_spectrum(image.T if turned else image)
    assert np.nanargmax(spectrum) == np.abs(np.log(RINGS / 0.1)).argmin()


def test_the_kurtosis_of_a_single_step_is_that_of_a_rare_event():
    image = np.zeros((40, 60))
    image[:, 25:] = 1
    p = 40 / (40 * 59 + 39 * 60)  # one difference in each row
    assert gradient_kurtosis(image) == pytest.approx((1 - 3 * p * (1 - p)) / (p * (1 - p)), rel=1e-9)


def test_the_kurtosis_of_laplacian_noise():
    image = np.random.default_rng(0).laplace(size=(1000, 1000))
    assert gradient_kurtosis(image) == pytest.approx(4.5, abs=0.1)  # excess 3, halved by a difference of two


def squares(bright, turn, blur=0.0, side=24):
    """Twelve squares, each turned by so many degrees, far from each other and from the border."""
    image = np.full(SIZE, 0.3)
    box = side / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ cv2.getRotationMatrix2D((0, 0), turn, 1)[:, :2]
    for x in (40, 120, 200, 280):
        for y in (40, 120, 200):
            cv2.fillConvexPoly(image, np.round((box + np.array([x, y])) * 256).astype(np.int32), 0.3 + bright, shift=8)
    return cv2.GaussianBlur(image, (0, 0), blur) if blur else image


@pytest.mark.parametrize(
    ("bright", "turn", "blur"), [(0.5, 0, 0), (-0.2, 0, 0), (0.5, 0, 1), (0.5, 0, 2), (0.5, 30, 1)]
)
def test_a_square_has_four_corners(bright, turn, blur):
    assert corner_density(squares(bright, turn, blur)) * COUNTED == pytest.approx(48, abs=1e-6)


@pytest.mark.parametrize(("side", "corners"), [(6, 4), (4, 4), (2, 1)])
def test_small_squares_have_four_corners_and_dots_one(side, corners):
    assert corner_density(squares(0.5, 0, side=side)) * COUNTED == pytest.approx(12 * corners, abs=1e-6)


@pytest.mark.parametrize(("apart", "peaks"), [(5, 1), (6, 2), (20, 2)])
def test_of_two_dots_in_a_window_only_the_stronger_counts(apart, peaks):
    image = np.full(SIZE, 0.3)
    image[100:102, 100:102], image[100:102, 100 + apart : 102 + apart] = 0.8, 0.7
    assert corner_density(image) * COUNTED == pytest.approx(peaks, abs=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        squares(0.08, 0),
        noise(0.03),
        np.tile(np.linspace(0, 1, 320), (240, 1)),
        (np.arange(320) >= 100) * np.ones((240, 1)),
        np.full(SIZE, 0.5),
    ],
    ids=["faint", "noise", "ramp", "edge", "flat"],
)
def test_what_is_no_corner(image):
    assert corner_density(image) == 0


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_flat_image_has_no_structure_and_raises_no_warning(value):
    image = np.full(SIZE, value, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = measure([lambda: image], lambda: None)
        assert np.isnan(group.values[0, :2]).all()
        assert group.values[0, 2] == 0
        assert group.values[0, 3] == pytest.approx(0, abs=1e-6)
        assert np.isnan(quantiles(group.values[:, 0])).all()
        assert bracketed(group.values[:, 0], group.values[:, 0]) == (False, 0.0)


def test_spread_and_bracketed_by_hand():
    values = np.append(np.arange(11.0), np.nan)
    assert quantiles(values) == pytest.approx([1, 5, 9])
    assert bracketed(values, np.array([0.0, 1.0, 2.0, 30.0])) == (True, 0.5)
    assert bracketed(values, np.array([8.0, 30.0, 40.0])) == (False, 1 / 3)


def test_the_synthetic_world_is_every_family_and_the_mixture():
    first, again, other = (synthetic(2, seed) for seed in (0, 0, 1))
    assert list(first) == [*FAMILIES, "mixture"]
    for name in ("mixture", next(iter(FAMILIES))):
        images = [[load() for load in world[name]] for world in (first, again, other)]
        assert images[0][0].shape == SIZE
        assert all(np.array_equal(a, b) for a, b in zip(images[0], images[1], strict=True))
        assert not np.array_equal(images[0][0], images[0][1])
        assert not np.array_equal(images[0][0], images[2][0])


@pytest.mark.parametrize(("shape", "shown"), [((480, 640), (240, 320)), ((100, 150), (100, 150))])
def test_photographs_are_shrunk_without_aliasing_and_never_enlarged(tmp_path, monkeypatch, shape, shown):
    monkeypatch.setattr(photographs, "FILES", photographs.FILES[:1])
    folder = tmp_path / "i_lines"
    folder.mkdir()
    image = np.zeros(shape, np.uint8)
    image[:, ::2] = 255
    for number in (1, 2):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    (folder / "H_1_2").write_text("1 0 0 0 1 0 0 0 1")
    found = natural(tmp_path)
    assert [len(images) for images in found.values()] == [1, 1]
    assert found["scikit-image"][0]().shape == (240, 240)
    assert found["HPatches"][0]().shape == shown
    away = np.abs(found["HPatches"][0]()[:, 4:-4] - 0.5).max()
    assert away < 0.01 if shape != shown else away == 0.5
    assert list(natural(None)) == ["scikit-image"]


@pytest.mark.parametrize("count", [24])
def test_the_figure_holds_any_number_of_families_without_overlap(count):
    rng = np.random.default_rng(0)
    groups = [Group(rng.uniform(1, 9, (5, len(STATISTICS))), rng.uniform(0, 1, (5, len(RINGS)))) for _ in range(count)]
    groups[0].values[:] = groups[0].spectra[:] = np.nan
    world = {f"a family of number {i}": group for i, group in enumerate(groups)} | {"mixture": groups[1]}
    figure = draw(world, {"scikit-image": groups[1], "HPatches": groups[2]})
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[1].get_yticklabels()]
    assert len(boxes) == count + 3
    assert all(above.y0 > below.y1 for above, below in pairwise(boxes))
    assert min(box.x0 for box in boxes) > figure.axes[0].get_window_extent().x1


def test_nothing_comes_from_the_global_generator():
    before = torch.get_rng_state()
    measure(synthetic(1, 0)["mixture"], lambda: None)
    assert torch.equal(torch.get_rng_state(), before)
