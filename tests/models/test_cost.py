"""What a detector costs: operations counted by hand, and the table of the shipped ones."""

import pytest
import torch
from torch import nn

from kp.models import cost
from kp.models.corner import CornerDetector
from kp.models.mobile import MobileDetector


def test_operations_are_counted_as_by_hand():
    conv = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.Conv2d(8, 4, 1))
    found = cost.cost(conv, (100, 200))
    assert found["parameters"] == 8 * 9 + 8 * 4 + 4
    assert found["gmac"] == pytest.approx(100 * 200 * (8 * 9 + 8 * 4) / 1e9)
    strided = nn.Conv2d(1, 6, 3, stride=2, padding=1, groups=1)
    assert cost.cost(strided, (100, 200))["gmac"] == pytest.approx(50 * 100 * 6 * 9 / 1e9)


@pytest.mark.parametrize("make", [CornerDetector, MobileDetector])
def test_a_detector_is_within_its_budget(make):
    """At most 1 M parameters and 1.5 GMAC at 480x640."""
    found = cost.cost(make().eval())
    assert found["parameters"] < 1e6
    assert 0.01 < found["gmac"] < 1.5


def test_time_is_the_median(monkeypatch):
    clock = iter([0, 9, 9, 10, 10, 13, 13, 15])  # seconds: the first is a warm-up; then 1, 3 and 2
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert cost.milliseconds(nn.Conv2d(1, 1, 1), (8, 8), repeats=3) == 2000
    assert torch.is_grad_enabled()
