import math
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kp.config import HISTOGRAMS, DetectorSettings, RunSettings, TrainSettings, WorldSettings
from kp.data.hpatches import ImageSequence
from kp.data.pairs import ViewPair, as_sequences, held_out_pairs
from kp.data.synthetic.render import render
from kp.geometry.block_filters import at_half_size
from kp.geometry.coords import warp_points
from kp.models.checkpoint import load_checkpoint
from kp.models.corner import CornerDetector
from kp.models.gradient_histograms import gradient_histograms
from kp.training.batches import described_pairs
from kp.training.description import (
    NEAR,
    Places,
    alike,
    description_losses,
    shared_places,
    tilted_histograms,
    view_histograms,
)
from kp.training.matching_validation import by_rootsift, matching_scores
from kp.training.trainer import Trainer, resume
from kp.training.validation import Validation


def unit(seed: int, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def places(valid: Tensor) -> Places:
    xy = torch.zeros(*valid.shape, 2, dtype=torch.float64)
    return Places(xy, xy, valid)


def nothing_alike(valid: Tensor) -> Tensor:
    return torch.eye(valid.shape[1]).bool().expand(len(valid), -1, -1)


# --- the loss of descriptors ---


def test_the_loss_is_the_mean_of_two_cross_entropies_by_hand():
    """Two pairs of two places; one is not valid. Every number by math."""
    d0, d1 = unit(1, 2, 2, 4), unit(2, 2, 2, 4)
    valid = torch.tensor([[True, True], [True, False]])
    logits = torch.tensor([[0.3, -0.2], [1.0, 9.0]], dtype=torch.float64)
    found = description_losses(d0, d1, logits, -logits, places(valid), nothing_alike(valid), 20.0)
    one, two = [d0[0, 0], d0[0, 1], d0[1, 0]], [d1[0, 0], d1[0, 1], d1[1, 0]]
    s = [[20 * sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) for b in two] for a in one]
    rows = [math.log(sum(math.exp(v) for v in s[i])) - s[i][i] for i in range(3)]
    columns = [math.log(sum(math.exp(s[j][i]) for j in range(3))) - s[i][i] for i in range(3)]
    assert found["descriptor"].item() == pytest.approx((sum(rows) + sum(columns)) / 6, rel=1e-9)
    own = [(0, 1), (0, 1), (2,)]  # places of the same pair
    right = [
        all(max(own[i], key=lambda j: v(i, j)) == i for v in (lambda i, j: s[i][j], lambda i, j: s[j][i]))
        for i in range(3)
    ]
    assert found["matched"].item() == pytest.approx(sum(right) / 3)
    said = [0.3, -0.2, 1.0]
    entropy = [
        math.log1p(math.exp(-z if r else z))
        for sign in (1, -1)
        for z, r in zip((sign * v for v in said), right, strict=True)
    ]
    assert found["matchability"].item() == pytest.approx(sum(entropy) / 6, rel=1e-6)


def test_equal_places_are_told_apart_and_random_ones_are_not():
    valid = torch.ones(2, 30, dtype=torch.bool)
    d, other = unit(3, 2, 30, 32), unit(4, 2, 30, 32)
    zeros = torch.zeros(2, 30, dtype=torch.float64)
    good, bad = (description_losses(d, e, zeros, zeros, places(valid), nothing_alike(valid), 20.0) for e in (d, other))
    assert good["matched"] == 1
    assert bad["matched"] < 0.3
    assert good["descriptor"] < 0.1 < math.log(60) - 1 < bad["descriptor"]


def test_a_place_that_looks_the_same_is_no_negative():
    """The second place is a copy of the first: a loss of log 2 if they count as different, none if not."""
    d = unit(5, 1, 1, 16).expand(1, 2, 16)
    valid, zeros = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.float64)
    apart = description_losses(d, d, zeros, zeros, places(valid), nothing_alike(valid), 20.0)
    same = description_losses(d, d, zeros, zeros, places(valid), torch.ones(1, 2, 2).bool(), 20.0)
    assert apart["descriptor"].item() == pytest.approx(math.log(2), rel=1e-6)
    assert same["descriptor"].item() == pytest.approx(0, abs=1e-9)


def test_gradients_are_those_of_differences():
    valid = torch.tensor([[True, True, False]])
    a = torch.randn(1, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(6), requires_grad=True)
    z = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)

    def loss(a: Tensor, z: Tensor) -> Tensor:
        found = description_losses(
            F.normalize(a, dim=2), unit(7, 1, 3, 5), z, z, places(valid), nothing_alike(valid), 3.0
        )
        return found["descriptor"] + found["matchability"]

    assert torch.autograd.gradcheck(loss, (a, z))


def test_no_valid_place_costs_nothing_and_has_a_gradient():
    valid = torch.zeros(1, 4, dtype=torch.bool)
    d = unit(8, 1, 4, 8).requires_grad_()
    zeros = torch.zeros(1, 4, dtype=torch.float64)
    found = description_losses(d, d, zeros, zeros, places(valid), nothing_alike(valid), 20.0)
    found["descriptor"].backward()
    assert found["descriptor"] == 0
    assert d.grad.abs().sum() == 0


# --- places ---


@pytest.fixture(scope="module")
def pair() -> ViewPair:
    return held_out_pairs(1, 2, (120, 140))[0]


def test_places_are_keypoints_carried_by_the_homography(pair):
    detector = CornerDetector(ranker_width=0).eval()
    found = shared_places(pair, detector, 60, torch.Generator().manual_seed(1))
    there, _ = warp_points(found.xy0, pair.H_0to1)
    distances = (there - found.xy1).norm(dim=2)[:, :30][found.valid[:, :30]]
    assert found.xy0.shape == (2, 60, 2)
    assert found.valid.sum() > 20
    assert distances.max() < 3  # the noise: half a pixel in x and in y
    assert 0.3 < distances.mean() < 0.9
    keypoints = detector.keypoints(pair.image0, None, subpixel=True)
    for b in range(2):
        some = found.xy0[b, :30][found.valid[b, :30]]
        assert (some[:, None] - keypoints.xy[b]).norm(dim=2).amin(1).max() < 1e-3


def test_places_near_each_other_are_alike_and_others_are_not(pair):
    detector = CornerDetector(ranker_width=0).eval()
    found = shared_places(pair, detector, 60, torch.Generator().manual_seed(1))
    same = alike(found, view_histograms(pair, found))
    near = (found.xy0[:, :, None] - found.xy0[:, None]).norm(dim=3) < NEAR
    assert same[near].all()
    both = found.valid[:, :, None] & found.valid[:, None]
    assert same[both].float().mean() < 0.5


def test_periodic_places_are_alike():
    """Dots of a grid of 24 pixels look the same, a single bright square does not."""
    image = torch.zeros(1, 1, 200, 200)
    image[..., 4::24, 4::24] = image[..., 5::24, 4::24] = 1
    image[..., 150:170, 140:170] += 0.6
    eye = torch.eye(3)[None]
    xy = torch.tensor([[[76.0, 76.0], [100.0, 76.0], [155.0, 160.0]]])
    three = Places(xy, xy, torch.ones(1, 3).bool())
    same = alike(three, view_histograms(ViewPair(image, image, eye), three))
    assert same[0].tolist() == [[True, True, False], [True, True, False], [False, False, True]]


# --- validation ---


def test_scores_of_matches_are_those_of_matches_by_hand(monkeypatch):
    """An image and itself: every match is right, and the homography exact."""
    image = held_out_pairs(1, 1, (120, 160))[0].image0
    load = image.clone
    eye = torch.eye(3, dtype=torch.float64)
    sequence = ImageSequence("same", "v", (load, load), (eye,), kind="viewpoint")
    scores = matching_scores([sequence], CornerDetector(ranker_width=0).eval(), by_rootsift, 50)
    assert scores["mma"] == 1
    assert scores["homography_auc"] > 0.99
    assert 20 < scores["right_matches"] <= 50


def test_keypoints_outside_the_scene_do_not_count():
    pair = held_out_pairs(1, 1, (120, 160))[0]
    sequence = as_sequences(pair)[0]
    seen = []

    def describe(image, keypoints):
        seen.append(keypoints)
        return by_rootsift(image, keypoints)

    matching_scores([sequence], CornerDetector(ranker_width=0).eval(), describe, 400)
    for keypoints, valid in zip(seen, sequence.valid, strict=True):
        x, y = keypoints.xy[0][keypoints.valid[0]].round().long().unbind(1)
        assert len(x) > 5
        assert valid[0, 0, y, x].all()


# --- training ---

DESCRIBER = RunSettings(
    detector=DetectorSettings(describer="mobilenet_v3_small", describer_width=8, describer_hidden=16),
    world=WorldSettings(image_size=96, families=("leaves",)),
    train=TrainSettings(steps=4, batch=2, keypoints_per_megapixel=4000.0, device="cpu"),
)


def descriptor_losses(trainer: Trainer, steps: int) -> list[float]:
    return [trainer.take_step()["descriptor"] for _ in range(steps)]


@pytest.mark.parametrize("prefetch_steps", [1, 3])
def test_the_describer_goes_on_from_a_checkpoint_with_the_very_next_steps(tmp_path, prefetch_steps):
    settings = replace(DESCRIBER, train=replace(DESCRIBER.train, prefetch_steps=prefetch_steps))
    expected = descriptor_losses(Trainer(settings, tmp_path), 3)
    broken = Trainer(settings, tmp_path)
    assert descriptor_losses(broken, 1) == expected[:1]
    broken.save()
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert descriptor_losses(resume(state, settings, tmp_path), 2) == expected[1:]


def test_every_parameter_of_the_describer_gets_a_gradient(tmp_path):
    learner = Trainer(DESCRIBER, tmp_path).learner
    for _ in range(2):  # the correction begins at zero, so the encoder learns from the second step on
        loss, _ = learner.look(next(learner.pairs))
        learner.update(loss, 1e-3)
    learnt = [(name, p) for name, p in learner.describer.named_parameters() if not name.startswith("linear.")]
    assert not [name for name, p in learnt if p.grad is None or not p.grad.any()]


def test_a_computed_map_foretells_nothing_and_takes_no_step(tmp_path):
    detector = DetectorSettings(describer=HISTOGRAMS)
    learner = Trainer(replace(DESCRIBER, detector=detector), tmp_path).learner
    loss, terms = learner.look(next(learner.pairs))
    learner.update(loss, 1e-3)
    assert set(terms) == {"descriptor", "matched"}
    assert not loss.requires_grad
    for name in ("linear.weight", "side_maps"):
        maps = [model.describer.state_dict()[name] for model in (learner.model, learner.average.module)]
        assert torch.equal(*maps)
        assert all(values.abs().max() > 0 for values in (maps[0] if name == "side_maps" else maps))
    assert learner.step == 1


def test_a_run_that_knew_no_tilts_goes_on(tmp_path):
    settings = replace(DESCRIBER, detector=DetectorSettings(describer=HISTOGRAMS))
    trainer = Trainer(settings, tmp_path)
    trainer.take_step()
    trainer.save()
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    for name in ("model", "average"):
        state[name] = {key: values for key, values in state[name].items() if not key.endswith("side_maps")}
    for sums in state["seen"]:
        del sums["fronts"], sums["sides"]
    again = resume(state, settings, tmp_path)
    assert not again.learner.describer.side_maps.any()
    again.take_step()
    assert again.learner.describer.side_maps.any()


@pytest.mark.parametrize("share", [0.0, 1.0, 0.33])
def test_a_share_of_the_steps_differs_as_day_and_night(share):
    """The exposures of other pairs differ at random; those of day and night are automatic, in every step drawn."""
    world = WorldSettings(image_size=64, families=("leaves",), relit_pairs=share)
    settings = replace(DESCRIBER, world=world, train=replace(DESCRIBER.train, batch=1))
    steps, scenes = 18, partial(render, families=world.families)
    drawn = described_pairs(settings, torch.Generator().manual_seed(0), steps, scenes)
    kinds = [next(drawn).corners0 is None for _ in range(steps)]  # of groups they are not known
    assert all(kinds) if share == 1 else sum(kinds) == 0 if share == 0 else 2 <= sum(kinds) <= 10


def test_histograms_of_tilts_are_those_of_narrow_images():
    image = F.interpolate(torch.rand(2, 1, 20, 30, generator=torch.Generator().manual_seed(4)), scale_factor=8)
    xy = torch.tensor([[[100.0, 80.0], [140.5, 70.25]], [[120.0, 90.0], [90.0, 60.0]]])
    found = tilted_histograms(image, xy, (2.0, 4.0))
    assert found.shape[:3] == (2, 2, 2)
    for tilt, histograms in zip((2, 4), found, strict=True):
        narrow = [cv2.resize(each[0].numpy(), (240 // tilt, 160), interpolation=cv2.INTER_AREA) for each in image]
        half = at_half_size(torch.from_numpy(np.stack(narrow))[:, None])
        wanted = gradient_histograms(half, (xy + 0.5) / torch.tensor([tilt, 1.0]) - 0.5)
        assert (histograms * wanted).sum(2).min() > 0.98  # two filters
        elsewhere = gradient_histograms(half, (xy + 0.5) / torch.tensor([tilt, 1.0]) + torch.tensor([6.0, 0]))
        assert (histograms * elsewhere).sum(2).max() < 0.95


def test_training_lowers_the_loss(tmp_path):
    """Eight steps with one batch."""
    learner = Trainer(DESCRIBER, tmp_path).learner
    batch = next(learner.pairs)
    terms = []
    for _ in range(8):
        loss, found = learner.look(batch)
        learner.update(loss, 3e-3)
        terms.append(found["descriptor"])
    assert terms[-1] < 0.7 * terms[0]


def test_validation_compares_with_rootsift_at_the_same_keypoints(tmp_path):
    """Two views of the same image, one of them half as bright, in a folder of sequences."""
    folder = tmp_path / "v_same"
    folder.mkdir()
    image = (held_out_pairs(1, 1, (120, 160))[0].image0[0, 0] * 255).byte().numpy()
    cv2.imwrite(str(folder / "1.png"), image)
    cv2.imwrite(str(folder / "2.png"), image // 2)
    (folder / "H_1_2").write_text("1 0 0\n0 1 0\n0 0 1\n")
    torch.manual_seed(0)
    detector = CornerDetector(DESCRIBER.detector).eval()
    validation = Validation(torch.device("cpu"), 1, 1, (64, 80), files=(), root=tmp_path, descriptors=True)
    scores = validation.measure(detector)
    assert validation.duration(detector) > 0
    assert scores["validation"] == scores["mma"] > 0.8
    assert abs(scores["above_floor_mma"]) < 0.2
    assert set(scores) >= {"synthetic_mma", "synthetic_right_matches", "homography_auc", "above_floor_homography_auc"}
