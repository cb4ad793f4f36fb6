"""How the light of two views differs: by numbers worked out by hand, and of what training draws."""

import numpy as np
import pytest
import torch

from kp.cli.errors import ERROR
from kp.cli.main import main
from kp.data.hpatches import ImageSequence
from kp.experiments import lighting


def sequence(name, *images):
    return ImageSequence(name, name[0], tuple(lambda image=image: image for image in images), (torch.eye(3),))


def test_quantities_by_hand(tmp_path):
    steps = torch.linspace(0.2, 0.4, 64).repeat(48, 1)[None, None]
    bright = 2 * steps
    bright[..., :16] = 1.0
    found = lighting.real(tmp_path, [sequence("i_leuven", steps, bright)], lambda: None)
    assert list(found) == ["exposure"]
    grey, contrast, noise, clipped = found["exposure"][0].tolist()
    assert grey == pytest.approx(bright.mean().item() - steps.mean().item(), abs=1e-6)
    assert contrast == pytest.approx(np.log2(np.std(bright.numpy(), ddof=1) / np.std(steps.numpy(), ddof=1)), abs=1e-4)
    assert noise == 0  # a ramp has none
    assert clipped == pytest.approx(16 / 64)


def test_noise_is_seen():
    generator = torch.Generator().manual_seed(0)
    grey = torch.full((1, 1, 80, 80), 0.5)
    noisy, noisier = (grey + sigma * torch.randn(grey.shape, generator=generator) for sigma in (0.01, 0.04))
    found = lighting.real(None, [sequence("v_a", noisy, noisier)], lambda: None)["viewpoint"]
    assert found[0, 2].item() == pytest.approx(2, abs=0.1)


def test_training_brackets_its_exposures():
    ticks = []
    found = lighting.training(4, 0, lambda: ticks.append(1))
    assert found.shape == (12, 4)
    assert len(ticks) == 4
    assert found[:, 0].abs().median() > 0.05
    assert torch.equal(found, lighting.training(4, 0, lambda: None))


def test_the_command(capsys):
    assert main(["lighting", "--scenes", "2"]) == 0
    assert "training (6)" in capsys.readouterr().out
    assert main(["lighting", "--scenes", "0"]) == ERROR
    assert "--scenes must be at least 1" in capsys.readouterr().err
