"""The memory of keypoints that the ranker learns from, and what a step does with it, against numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kp.config import RunSettings, complete
from kp.data.view_groups import ViewGroup
from kp.models.build import make_detector
from kp.models.corner import CANDIDATES_PER_KEYPOINT, unranked
from kp.models.keypoints import resized
from kp.models.peak_features import NUM_FEATURES, peak_features
from kp.models.ranker import Ranker
from kp.training.ranker_step import PeakMemory, RankerStep

SETTINGS = complete(replace(RunSettings(), train=replace(RunSettings().train, ranked_peaks=64, remembered=300)))


def numbered(first, count):
    """Keypoints whose features and shares are their numbers."""
    numbers = torch.arange(first, first + count, dtype=torch.float32)
    return numbers[:, None].expand(-1, NUM_FEATURES), numbers


def group(seed=0, views=3, size=96):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, size // 6, size // 6, generator=generator)
    scene = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    images = torch.stack([scene * 0.5**view for view in range(views)], dim=1)
    return ViewGroup(images, torch.eye(3).expand(1, views, 3, 3))


def test_a_tenth_of_the_keypoints_is_remembered_with_its_own_share():
    torch.manual_seed(0)
    memory = PeakMemory(1000)
    memory.add(*numbered(0, 200))
    memory.add(*numbered(200, 7))
    assert len(memory.features) == 20 + 1
    assert torch.equal(memory.features[:, 0], memory.shares)
    assert len(set(memory.shares.tolist())) == 21
    features, shares = memory.draw(500)
    assert features.shape == (500, NUM_FEATURES)
    assert features.dtype == shares.dtype == torch.float32
    assert torch.equal(features[:, -1], shares)
    assert set(shares.tolist()) <= set(memory.shares.tolist())


def test_a_full_memory_keeps_old_and_new_keypoints():
    torch.manual_seed(0)
    memory = PeakMemory(50)
    for step in range(10):
        memory.add(*numbered(200 * step, 200))
        assert len(memory.shares) == min(50, 20 * (step + 1))
    age = memory.shares // 200
    assert (age == 9).sum() == 20  # all new ones
    assert (age < 8).any()
    memory.add(*numbered(0, 2000))
    assert len(memory.shares) == 50


def test_an_empty_memory_gives_nothing():
    features, shares = PeakMemory(5).draw(10)
    assert features.shape == (0, NUM_FEATURES)
    assert shares.shape == (0,)


def ranker_step():
    """A step of a new detector; what it looks at is given by hand."""
    model = make_detector(SETTINGS.detector).train()
    return RankerStep(SETTINGS, None, model, model.ranker)


def test_the_loss_is_the_cross_entropy_of_what_is_drawn(monkeypatch):
    """Against numpy, from the logits of the ranker for what the memory drew."""
    step, drawn = ranker_step(), []
    draw = PeakMemory.draw
    monkeypatch.setattr(PeakMemory, "draw", lambda self, count: drawn.append(draw(self, count)) or drawn[-1])
    loss, terms = step.look(group())
    shares, logits = drawn[0][1], step.model.ranker(drawn[0][0]).detach().numpy()
    assert len(shares) == 64
    probability, shares = 1 / (1 + np.exp(-logits)), shares.numpy()
    terms_by_hand = -(shares * np.log(probability) + (1 - shares) * np.log(1 - probability))
    assert loss.item() == pytest.approx(terms_by_hand.mean(), rel=1e-5)
    assert set(terms) == {"ranking", "repeatability", "repeatability_by_score"}
    loss.backward()
    assert all(p.grad is not None for p in step.model.ranker.parameters())


def test_views_without_a_keypoint_change_nothing():
    step = ranker_step()
    flat = ViewGroup(torch.full((1, 2, 1, 64, 64), 0.5), torch.eye(3).expand(1, 2, 3, 3))
    seen = replace(flat, H=torch.stack([torch.eye(3), torch.tensor([[1.0, 0, 500], [0, 1, 0], [0, 0, 1]])])[None])
    loss, _ = step.look(seen)
    assert loss.item() == 0
    assert loss.requires_grad
    assert len(step.memory.shares) == 0


def test_features_are_in_units_of_all_that_was_observed():
    """Of two batches: the mean of their means and variances."""
    torch.manual_seed(0)
    ranker, one, two = Ranker(8), 3 + 2 * torch.randn(500, NUM_FEATURES), -1 + 0.5 * torch.randn(500, NUM_FEATURES)
    ranker.observe(one)
    ranker.observe(two)
    n = ranker.normalise
    assert torch.allclose(n.running_mean, (one.mean(0) + two.mean(0)) / 2, atol=1e-4)
    assert torch.allclose(n.running_var, (one.var(0) + two.var(0)) / 2, rtol=1e-3)
    with torch.no_grad():
        expected = ranker.layers(((two - n.running_mean) / n.running_var.sqrt()).clamp(-4, 4))[:, 0]
        for mode in (ranker.train(), ranker.eval()):  # the same in training and in use
            assert torch.allclose(mode(two), expected, atol=1e-3)
    assert torch.allclose(n.running_mean, (one.mean(0) + two.mean(0)) / 2, atol=1e-4)  # reading changes nothing


def test_a_step_remembers_the_keypoints_that_other_views_see():
    step = ranker_step()
    views = group()
    step.look(views)
    images = views.images.flatten(0, 1)
    count = int(np.ceil(96 * 96 * SETTINGS.train.keypoints_per_megapixel / 1e6))
    found = resized(unranked(step.model, images), CANDIDATES_PER_KEYPOINT * count)
    known = {tuple(row) for row in peak_features(images, found)[found.valid].half().tolist()}
    assert {tuple(row) for row in step.memory.features.tolist()} <= known
    assert len(step.memory.shares) == int(np.ceil(0.1 * int(found.valid.sum())))
