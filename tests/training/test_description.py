import math
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kp.config import DetectorSettings, RunSettings, TrainSettings, WorldSettings
from kp.data.hpatches import ImageSequence
from kp.data.pairs import ViewPair, as_sequences, held_out_pairs
from kp.data.synthetic.render import render
from kp.geometry.block_filters import at_half_size
from kp.geometry.coords import warp_points
from kp.models.checkpoint import load_checkpoint, save_checkpoint
from kp.models.corner import CornerDetector
from kp.models.gradient_histograms import gradient_histograms
from kp.support.settings import from_dict
from kp.training.batches import described_pairs
from kp.training.description import (
    NEAR,
    Places,
    alike,
    matched_share,
    shared_places,
    tilted_histograms,
    view_histograms,
)
from kp.training.matching_validation import by_rootsift, matching_scores
from kp.training.trainer import Trainer, resume
from kp.training.validation import Validation


def unit(seed: int, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def nothing_alike(valid: Tensor) -> Tensor:
    return torch.eye(valid.shape[1]).bool().expand(len(valid), -1, -1)


# --- which places are matched ---


def test_the_share_of_matched_places_by_hand():
    """Of image 0 two of three valid places, of image 1 the only one: the neighbours are those of its own image."""
    angles0 = torch.tensor([[0.0, 40.0, 90.0, 0.0], [40.0, 200.0, 300.0, 10.0]], dtype=torch.float64)
    angles1 = torch.tensor([[5.0, 85.0, 95.0, 0.0], [200.0, 40.0, 300.0, 10.0]], dtype=torch.float64)
    d0, d1 = (torch.stack([(a * math.pi / 180).cos(), (a * math.pi / 180).sin()], dim=2) for a in (angles0, angles1))
    valid = torch.tensor([[True, True, True, False], [False, True, False, False]])
    found = matched_share(d0, d1, valid, nothing_alike(valid))
    # image 0: 0 <-> 5 right; 40 -> 5, wrong; 90 is as far from 85 as from 95, the first counts: wrong
    assert found.item() == pytest.approx(2 / 4)


def test_a_place_that_looks_the_same_is_no_wrong_match():
    """Places 0 and 1 are copies of each other: each is matched where the other does not count."""
    d = unit(5, 1, 1, 16).expand(1, 2, 16)
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert matched_share(d, d, valid, nothing_alike(valid)).item() == 0.5
    assert matched_share(d, d, valid, torch.ones(1, 2, 2).bool()).item() == 1


def test_equal_places_are_told_apart_and_random_ones_are_not():
    valid = torch.ones(2, 30, dtype=torch.bool)
    d, other = unit(3, 2, 30, 32), unit(4, 2, 30, 32)
    good, bad = (matched_share(d, e, valid, nothing_alike(valid)) for e in (d, other))
    assert good == 1
    assert bad < 0.3


def test_no_valid_place_is_no_match():
    d, valid = unit(8, 1, 4, 8), torch.zeros(1, 4, dtype=torch.bool)
    assert matched_share(d, d, valid, nothing_alike(valid)) == 0


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
    detector=DetectorSettings(ranker_width=0),
    world=WorldSettings(image_size=96, families=("leaves",), pairs=2),
    train=TrainSettings(steps=4, device="cpu"),
)
BOTH = replace(DESCRIBER, detector=DetectorSettings(), train=replace(DESCRIBER.train, batch=1))


def maps(trainer: Trainer) -> list[Tensor]:
    """The learnt numbers of the describer and, if there is one, of the ranker."""
    return [values.clone() for values in trainer.learner.model.state_dict().values()]


@pytest.mark.parametrize("settings", [DESCRIBER, BOTH], ids=["describer", "both"])
@pytest.mark.parametrize("prefetch_steps", [1, 3])
def test_the_describer_goes_on_from_a_checkpoint_with_the_very_next_steps(tmp_path, prefetch_steps, settings):
    settings = replace(settings, train=replace(settings.train, prefetch_steps=prefetch_steps))
    whole = Trainer(settings, tmp_path)
    expected = [whole.take_step() for _ in range(3)]
    broken = Trainer(settings, tmp_path)
    assert broken.take_step() == expected[0]
    broken.save()
    again = resume(load_checkpoint(tmp_path / "checkpoint.pt"), settings, tmp_path)
    assert [again.take_step() for _ in range(2)] == expected[1:]
    assert all(map(torch.equal, maps(again), maps(whole)))
    assert not all(map(torch.equal, maps(again), maps(broken)))


def test_neither_part_depends_on_the_other(tmp_path):
    """A ranker and a describer that are trained together are those that are trained alone."""
    ranker = replace(BOTH, detector=DetectorSettings(descriptor_size=0))
    states = []
    for settings in (BOTH, ranker, DESCRIBER):
        trainer = Trainer(settings, tmp_path)
        for _ in range(3):
            trainer.take_step()
        states.append(trainer.learner.average.module.state_dict())
    both, *alone = states
    for part in alone:
        assert all(torch.equal(values, both[name]) for name, values in part.items())
    assert sorted(both) == sorted(name for part in alone for name in part)


def test_a_computed_map_takes_no_step(tmp_path):
    learner = Trainer(DESCRIBER, tmp_path).learner
    loss, terms = learner.look(learner.draw())
    learner.update(loss, 1e-3)
    assert set(terms) == {"matched"}
    assert not loss.requires_grad
    for name in ("linear.weight", "side_maps"):
        maps = [model.describer.state_dict()[name] for model in (learner.model, learner.average.module)]
        assert torch.equal(*maps)
        assert all(values.abs().max() > 0 for values in (maps[0] if name == "side_maps" else maps))
    assert learner.step == 1


def earlier_checkpoint(trainer: Trainer, settings: RunSettings) -> dict:
    """What versions that trained one part wrote of a run with a describer, which knew no tilts."""
    state = trainer.state_dict()
    for name in ("model", "average"):
        state[name] = {key: values for key, values in state[name].items() if not key.endswith("side_maps")}
    (part,) = state.pop("parts").values()
    sums = [{k: v for k, v in each["moments"].items() if k not in ("fronts", "sides")} for each in part["seen"]]
    detector = vars(settings.detector) | {"ranker_width": 48, "describer": "histograms"}
    detector |= {"describer_width": 64, "describer_hidden": 256, "matchability_weight": 0.0}
    train = state["settings"]["train"] | {"descriptor_weight": 1.0, "inverse_temperature": 20.0}
    train |= {"matchability_loss_weight": 0.1, "batch": 3, "keypoints_per_megapixel": 9000.0}
    del train["described_per_megapixel"]
    world = {name: value for name, value in state["settings"]["world"].items() if name != "pairs"}
    recorded = state["settings"] | {"detector": detector, "train": train, "world": world}
    return state | part | {"seen": sums, "settings": recorded}


def test_a_run_that_knew_no_tilts_goes_on(tmp_path):
    trainer = Trainer(DESCRIBER, tmp_path)
    trainer.take_step()
    save_checkpoint(tmp_path / "checkpoint.pt", earlier_checkpoint(trainer, DESCRIBER))
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    settings = from_dict(RunSettings, state["settings"])
    assert settings.detector == DESCRIBER.detector
    assert (settings.world.pairs, settings.train.described_per_megapixel) == (3, 9000.0), "it sees as much as before"
    again = resume(state, settings, tmp_path)
    describer = again.learner.model.describer
    assert not describer.side_maps.any()
    again.take_step()
    assert describer.side_maps.any()


@pytest.mark.parametrize("share", [0.0, 1.0, 0.33])
def test_a_share_of_the_steps_differs_as_day_and_night(share):
    """The exposures of other pairs differ at random; those of day and night are automatic, in every step drawn."""
    world = WorldSettings(image_size=64, families=("leaves",), relit_pairs=share, pairs=1)
    settings = replace(DESCRIBER, world=world, train=DESCRIBER.train)
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


def test_training_matches_more(tmp_path):
    """Places of a batch that was never learnt from, after one step and after eight."""
    trainer = Trainer(DESCRIBER, tmp_path)
    learner, other = trainer.learner, Trainer(replace(DESCRIBER, train=replace(DESCRIBER.train, seed=5)), tmp_path)
    pairs, step = [other.learner.draw()[0] for _ in range(4)], learner.parts["describer"]

    def matched() -> float:
        shares = []
        for pair in pairs:
            places = shared_places(pair, learner.model, 40, torch.Generator().manual_seed(2))
            histograms = view_histograms(pair, places)
            descriptors = [learner.model.describer.of_histograms(view) for view in histograms]
            shares.append(matched_share(*descriptors, places.valid, alike(places, histograms)).item())
        return sum(shares) / len(shares)

    step.look(next(step.pairs))
    step.update()
    early = matched()
    for _ in range(12):
        step.look(next(step.pairs))
    step.update()
    assert matched() > early + 0.02


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
    validation = Validation(torch.device("cpu"), 1, 1, (64, 80), files=(), root=tmp_path, parts=("describer",))
    scores = validation.measure(detector)
    assert validation.duration(detector) > 0
    assert scores["validation"] == scores["mma"] > 0.8
    assert abs(scores["above_floor_mma"]) < 0.2
    assert set(scores) >= {"synthetic_mma", "synthetic_right_matches", "homography_auc", "above_floor_homography_auc"}
