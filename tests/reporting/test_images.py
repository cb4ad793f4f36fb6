"""Pictures of sequences: which are shown, how their keypoints are counted, and where the marks are drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kp.data.hpatches import ImageSequence
from kp.evaluation.benchmark import evaluate
from kp.evaluation.protocols import PROTOCOLS
from kp.models.keypoints import Keypoints, extract_keypoints
from kp.reporting.images import COLOURS, LONGEST, Marks, classify, draw_marks, examples

NATIVE = PROTOCOLS["native"]
SIZE = (60, 100)
SHIFT = torch.tensor([[[1, 0, 20], [0, 1, 0], [0, 0, 1]]], dtype=torch.float64)  # 20 px to the right


def keypoints(*points):
    """Keypoints, best first, and one invalid place."""
    xy = torch.tensor([*points, (0, 0)], dtype=torch.float32)[None]
    scores = -torch.arange(xy.shape[1], dtype=torch.float32)[None]
    valid = torch.ones_like(scores, dtype=torch.bool)
    valid[:, -1] = False
    return Keypoints(xy, scores.masked_fill(~valid, -torch.inf), valid)


def kinds(marks):
    return {kind: sorted(map(tuple, points.tolist())) for kind, points in vars(marks).items()}


def test_keypoints_are_told_apart_as_they_were_placed():
    view0 = keypoints((90, 10), (10, 10), (40, 30), (95, 50), (50, 50), (60, 20))
    view1 = keypoints((31, 10), (5, 5), (73, 50), (80, 40))
    marks0, marks1 = classify(view0, view1, SHIFT, SIZE, SIZE, 3, 3.0)
    # (90, 10) goes to (110, 10), outside; (95, 50) does too, but is not among the best 3, nor is (60, 20) of those seen
    assert kinds(marks0) == {"repeated": [(10, 10), (50, 50)], "missed": [(40, 30)], "unseen": [(90, 10)]}
    assert kinds(marks1) == {"repeated": [(31, 10), (73, 50)], "missed": [(80, 40)], "unseen": [(5, 5)]}
    marks0, marks1 = classify(view0, view1, SHIFT, SIZE, SIZE, 3, 2.9)
    assert kinds(marks0) == {"repeated": [(10, 10)], "missed": [(40, 30), (50, 50)], "unseen": [(90, 10)]}
    assert kinds(marks1) == {"repeated": [(31, 10)], "missed": [(73, 50), (80, 40)], "unseen": [(5, 5)]}


def test_without_a_keypoint_in_one_view_those_of_the_other_are_missed():
    marks0, marks1 = classify(keypoints((10, 10)), keypoints(), SHIFT, SIZE, SIZE, 3, 3.0)
    assert kinds(marks0) == {"repeated": [], "missed": [(10, 10)], "unseen": []}
    assert kinds(marks1) == {"repeated": [], "missed": [], "unseen": []}


def scene(name, seed, count=3, size=(70, 90)):
    """Images that show shifted parts of one noise image, each with noise added."""
    rng = np.random.default_rng(seed)
    canvas, images = rng.random((100, 130)), []
    for k in range(count):
        part = canvas[k : k + size[0], 4 * k : 4 * k + size[1]] + 0.2 * k * rng.random(size)
        images.append(torch.from_numpy(part / part.max()).float()[None, None])
    moves = [torch.tensor([[1, 0, -4 * k], [0, 1, -k], [0, 0, 1]], dtype=torch.float64) for k in range(1, count)]
    return ImageSequence(name, name[0], tuple((lambda image=image: image) for image in images), tuple(moves))


def detect(image):
    return extract_keypoints(image, None, 5, 3)


def blind(image):
    return extract_keypoints(torch.full_like(image, -torch.inf))


@pytest.mark.parametrize("protocol", [replace(NATIVE, max_keypoints=40, threshold=1.5), PROTOCOLS["240x320"]])
def test_the_drawn_keypoints_give_the_repeatability_of_the_table(protocol):
    sequences = [scene(name, seed) for seed, name in enumerate(("i_a", "v_b", "v_c"))]
    records = list(evaluate(sequences, lambda: {"a": detect, "blind": blind}, protocol))
    shown = examples(sequences, records, "a", detect, protocol)
    assert len(shown) == 3
    for example in shown:
        ours = [r for r in records if (r["detector"], r["sequence"]) == ("a", example.sequence)]
        (record,) = (r for r in ours if r["image"] == example.image)
        assert 0 < record["repeatability"] < 1
        assert example.repeatability == pytest.approx(record["repeatability"], abs=1e-9)
        assert sum(len(m.repeated) + len(m.missed) for m in example.marks) == 2 * record["common"]
        assert example.mean == pytest.approx(np.mean([r["repeatability"] for r in ours]))
        assert (example.detector, example.protocol) == ("a", protocol.name)


def test_a_detector_that_finds_nothing_has_examples_too():
    sequences = [scene("v_b", 0)]
    records = list(evaluate(sequences, lambda: {"blind": blind}))
    (example,) = examples(sequences, records, "blind", blind, NATIVE)
    assert example.repeatability == example.mean == 0
    assert all(len(points) == 0 for marks in example.marks for points in vars(marks).values())


def record(sequence, image, value, detector="a", protocol="native"):
    named = {"protocol": protocol, "detector": detector, "sequence": sequence, "image": image}
    return named | {"repeatability": value}


@pytest.mark.parametrize(
    ("means", "best", "worst"),
    [
        ([0.5], "0", ""),
        ([0.5, 0.7], "1", "0"),
        ([0.1, 0.2, 0.3], "21", "0"),
        ([0.5, 0.4, 0.9, 0.1, 0.3], "20", "34"),
        ([0.5, 0.4, 0.9, 0.1, 0.3, 0.8, 0.2], "25", "36"),
    ],
)
def test_best_and_worst_are_ranked_by_their_means_and_none_comes_twice(means, best, worst):
    sequences = [scene(f"v_{i}", i, 2, (40, 50)) for i in range(len(means))]
    records = [record(f"v_{i}", 2, mean) for i, mean in enumerate(means)]
    records += [record(f"v_{i}", 2, 1 - mean, "b") for i, mean in enumerate(means)]
    records += [record(f"v_{i}", 2, 1 - mean, protocol="squash") for i, mean in enumerate(means)]
    shown = examples(sequences, records, "a", detect, NATIVE, count=2)
    for kind, expected in (("best", best), ("worst", worst)):
        assert "".join(e.sequence.removeprefix("v_") for e in shown if e.kind == kind) == expected
    assert [e.kind for e in shown] == sorted(e.kind for e in shown)


def test_the_pair_shown_is_the_one_nearest_to_the_mean_and_only_it_is_detected():
    sequence = scene("v_a", 0, count=4)
    records = [record("v_a", 2, 0.9), record("v_a", 3, 0.5), record("v_a", 4, 0.4)]  # mean 0.6
    seen = []
    shown = examples([sequence], records, "a", lambda image: seen.append(image) or detect(image), NATIVE)
    assert [(e.image, e.mean) for e in shown] == [(3, pytest.approx(0.6))]
    assert [torch.equal(image, sequence.images[i]()) for image, i in zip(seen, (0, 2), strict=True)] == [True, True]


def test_sequences_that_were_not_measured_are_not_shown():
    sequences = [scene("v_a", 0), scene("v_b", 1)]
    assert [e.sequence for e in examples(sequences, [record("v_b", 2, 0.5)], "a", detect, NATIVE)] == ["v_b"]
    assert examples(sequences, [], "a", detect, NATIVE) == []


@pytest.mark.parametrize("size", [(240, 320), (321, 200), (960, 1280)])
@pytest.mark.parametrize("kind", ["repeated", "missed", "unseen"])
def test_a_mark_is_drawn_in_its_colour_about_its_keypoint(kind, size):
    place = np.array([[size[1] * 0.4, size[0] * 0.7]])
    marks = Marks(**{name: place if name == kind else np.zeros((0, 2)) for name in COLOURS})
    picture = draw_marks(torch.full((1, 1, *size), 0.5), torch.ones(1, 1, *size, dtype=torch.bool), marks)
    assert max(picture.shape) == LONGEST
    assert picture.dtype == np.uint8
    scale = LONGEST / max(size)
    y, x = np.nonzero(np.abs(picture.astype(int) - COLOURS[kind]).max(2) < 20)
    assert len(x) > 10
    # the edges of pixels align: pixel 0 of the image has its centre (scale - 1) / 2 into the picture
    assert [x.mean(), y.mean()] == pytest.approx((place[0] + 0.5) * scale - 0.5, abs=0.5)
    dx, dy = np.abs(x - x.mean()), np.abs(y - y.mean())
    hollow = not np.any((dx < 1) & (dy < 1))
    angular = np.minimum(dx, dy).max() > 0.8 * np.maximum(dx, dy).max()  # cos 45 degrees of a ring's radius
    assert hollow == (kind != "missed"), "a cross has a middle"
    assert not hollow or angular == (kind == "unseen"), "a ring has no corners, a square has"
    others = [np.abs(picture.astype(int) - COLOURS[name]).max(2) < 20 for name in COLOURS if name != kind]
    assert not np.any(others)


def test_what_the_other_view_does_not_see_is_darker_than_anything_it_sees():
    image, shared = torch.rand(1, 1, 64, 64), torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    image[..., 5, :] = torch.linspace(0, 1, 64)
    shared[..., :32] = True
    picture = draw_marks(image, shared, Marks(*(np.zeros((0, 2)),) * 3))
    assert picture[:, LONGEST // 2 + 10 :].max() < picture[:, : LONGEST // 2 - 10].min()
