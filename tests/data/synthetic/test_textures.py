"""Textures have the spectrum, the waves and the cells that they say."""

import numpy as np
import pytest
import torch

from kp.data.synthetic.random import Draw
from kp.data.synthetic.textures import fractal, grating, voronoi


def draw(batch, seed=0):
    return Draw(batch, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0, 3.0])
def test_the_power_of_fractal_noise_falls_as_it_should(slope):
    noise = fractal((128, 128), draw(16), torch.full((16,), slope))[:, 0].numpy()
    assert np.allclose(noise.mean((1, 2)), 0, atol=1e-3)
    assert np.allclose(noise.std((1, 2)), 1, atol=1e-3)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(0)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    band = (f > 0.03) & (f < 0.4)
    found = np.polyfit(np.log(f[band]), np.log(power[band]), 1)[0]
    assert abs(found + slope) < 0.1


def test_each_image_has_its_own_slope_and_grain():
    noise = fractal((64, 64), draw(2), torch.tensor([0.5, 3.0]))[:, 0]
    rough = noise.diff(dim=1).std((1, 2))
    assert rough[0] > 3 * rough[1]
    grainy = fractal((64, 64), draw(8), torch.full((8,), 2.0), torch.tensor([[0.2, 1.0]]).expand(8, 2))[:, 0]
    assert grainy.diff(dim=2).std() > 1.5 * grainy.diff(dim=1).std()  # pressed together in x


def test_gratings_repeat_after_a_period():
    waves = grating((60, 60), draw(20), 8, 20)[:, 0].numpy()
    assert np.abs(waves).max() <= 1
    for wave in waves:
        power = np.abs(np.fft.fft2(wave - wave.mean(), (240, 240)))
        y, x = np.unravel_index(power[:, :121].argmax(), (240, 121))
        period = 240 / np.hypot(min(y, 240 - y), x)
        assert 7 < period < 23


def test_cells_have_one_tone_and_borders_between_them():
    border, tone = (maps[0, 0].numpy() for maps in voronoi((80, 90), draw(1), 16))
    assert (border >= 0).all()
    across = np.abs(np.diff(tone, axis=1)) > 0
    assert 0.02 < across.mean() < 0.3
    assert np.minimum(border[:, 1:], border[:, :-1])[across].max() < 1.5, "the tone changes away from a border"
    assert border.max() > 5
    assert 15 < len(np.unique(tone)) < 60
