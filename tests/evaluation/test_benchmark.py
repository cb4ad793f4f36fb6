"""The loop, its means, its table and its JSON; and the exported files read back by a reader that shares no code."""

import doctest
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from forked import CONTEXT
from sequence_folders import write_root

from kp.data.hpatches import HPatchesError, ImageSequence
from kp.evaluation import results
from kp.evaluation.benchmark import collect, evaluate, exporter, read_sequences
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.registry import KeypointFiles, make_detectors, score_maps
from kp.evaluation.results import settings
from kp.evaluation.summary import interval, summarise, summarise_kinds
from kp.models.keypoints import Keypoints, extract_keypoints
from kp.support import parallel

NATIVE = PROTOCOLS["native"]
SIZES = ((97, 131), (88, 120), (101, 119))


def scene(name, seed, sizes=SIZES):
    """A sequence of blurred noise, its view changed by OpenCV; images of odd and even sizes."""
    rng = np.random.default_rng(seed)
    canvas = cv2.GaussianBlur(rng.random((160, 200)), (0, 0), 1.5)
    canvas = (canvas - canvas.min()) / np.ptp(canvas)
    images, homographies = [], []
    for number, size in enumerate(sizes):
        H = np.array([[1, 0.02, -20], [-0.03, 1, -15], [1e-4, 0, 1]])
        if name.startswith("v"):
            H[:, :2] += rng.normal(size=(3, 2)) * number * [[0.1], [0.1], [2e-4]]
        homographies.append(H)
        view = cv2.warpPerspective(canvas, H, size[::-1]) + rng.normal(size=size) * 0.03 * number
        images.append(torch.from_numpy(view.clip(0, 1)).float()[None, None])
    relative = tuple(torch.from_numpy(H @ np.linalg.inv(homographies[0])) for H in homographies[1:])
    return ImageSequence(name, name[0], tuple((lambda image=image: image) for image in images), relative)


def saturated_logits(image):
    """A score map with what makes ranks hard to keep: plateaus, sigmoids of exactly 1, and ones below any float."""
    return ((image - 0.6) * 400).round() - 30 * (image < 0.4)


def detectors_of(**scores):
    return {name: lambda image, f=f: extract_keypoints(f(image), None, 5, 3) for name, f in scores.items()}


def read_back(folder, k, count, threshold):
    """Repeatability of images 1 and k from the exported files alone, in plain numpy."""
    H = np.loadtxt(folder / f"H_1_{k}")
    maps = [np.load(folder / f"{i}_det.npy") for i in (1, k)]

    def project(M, points):
        projected = np.c_[points, np.ones(len(points))] @ M.T
        return projected[:, :2] / projected[:, 2:]

    def best(own, other, M):
        y, x = np.nonzero(own > 0)
        places = project(M, np.c_[x, y])
        seen = ((places >= -0.5) & (places <= np.array(other.shape[::-1]) - 0.5)).all(1)
        order = np.argsort(own[y, x][seen])  # not stable: only distinct scores are safe
        return np.c_[x, y][seen][order][-count:]

    points0, points1 = best(maps[0], maps[1], H), best(maps[1], maps[0], np.linalg.inv(H))
    if not len(points0) or not len(points1):
        return 0.0
    distance = np.linalg.norm(project(H, points0)[:, None] - points1[None], axis=2)
    near = (distance.min(1) <= threshold).sum() + (distance.min(0) <= threshold).sum()
    return near / (len(points0) + len(points1))


@pytest.mark.parametrize("name", ["kp", "noise"])
@pytest.mark.parametrize(("count", "threshold"), [(1, 3.0), (40, 1.0), (40, 3.0), (10_000, 2.0)])
def test_the_exported_files_give_the_same_repeatability(tmp_path, name, count, threshold):
    others = {"noise": lambda image: image.round(decimals=1) - 0.5}  # ties, and scores that are not positive
    detectors = detectors_of(**({"kp": saturated_logits} | others if name == "kp" else others))
    sequences = [scene("v_a", 0), scene("i_b", 1)]
    protocol = replace(NATIVE, max_keypoints=count, threshold=threshold)
    records = list(evaluate(sequences, lambda: detectors, protocol, exporter(tmp_path, tuple(detectors))))
    records = [record for record in records if record["detector"] == name]
    assert len(records) == 4
    assert any(record["repeatability"] > 0 for record in records)
    for record in records:
        expected = read_back(tmp_path / record["sequence"], record["image"], count, threshold)
        assert record["repeatability"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["240x320", "squash", "480x640"])
def test_exported_files_of_a_protocol_give_the_same_repeatability(tmp_path, name):
    protocol = replace(PROTOCOLS[name], max_keypoints=40)
    detectors = detectors_of(a=lambda image: image - 0.5)
    sequences = [scene("v_a", 0, ((297, 331), (188, 420), (301, 219))), scene("i_b", 1)]
    for record in evaluate(sequences, lambda: detectors, protocol, exporter(tmp_path, ("a",))):
        folder = tmp_path / record["sequence"]
        assert np.load(folder / "1_det.npy").shape == protocol.size
        expected = read_back(folder, record["image"], 40, 3.0)
        assert record["repeatability"] == pytest.approx(expected, abs=1e-9)


def corners_of_view(sequence, number):
    """A perfect detector: the scene's own points, projected by the true homography, best first."""
    rng = np.random.default_rng(7)
    points = rng.random((200, 2)) * [130, 96]
    if number > 1:
        H = sequence.homographies[number - 2].numpy()
        points = np.c_[points, np.ones(200)] @ H.T
        points = points[:, :2] / points[:, 2:]
    height, width = SIZES[number - 1]
    valid = ((points >= -0.5) & (points <= [width - 0.5, height - 0.5])).all(1)
    return Keypoints(torch.from_numpy(points)[None], -torch.arange(200.0)[None], torch.from_numpy(valid)[None])


def test_a_perfect_detector_scores_one_and_a_blind_one_zero():
    sequence = scene("v_a", 2)
    numbers = iter([1, 2, 3])
    detectors = {
        "perfect": lambda image: corners_of_view(sequence, next(numbers)),
        "blind": lambda image: extract_keypoints(torch.full_like(image, -torch.inf)),
    }
    records, stop = collect(evaluate([sequence], lambda: detectors))
    assert stop is None
    perfect, blind = records[:2], records[2:]
    assert [r["repeatability"] for r in perfect] == [1, 1]
    assert all(r["localisation_error"] < 1e-9 for r in perfect)
    assert all(r["repeatability"] == r["common"] == 0 and r["localisation_error"] is None for r in blind)
    assert summarise(blind)[-1]["localisation_error"] is None


def test_each_image_is_loaded_and_detected_once():
    loads, calls = [], []
    images = tuple(lambda i=i: loads.append(i) or torch.zeros(1, 1, 20, 20 + i) for i in range(4))
    sequence = ImageSequence("i_a", "i", images, (torch.eye(3, dtype=torch.float64),) * 3)

    def detector(image):
        calls.append(image.shape[-1])
        return extract_keypoints(image)

    records = list(evaluate([sequence], lambda: {"a": detector, "b": detector}))
    assert loads == [0, 1, 2, 3]
    assert calls == [20, 21, 22, 23] * 2
    assert [(r["detector"], r["image"]) for r in records] == [(d, k) for d in "ab" for k in (2, 3, 4)]


def record(detector, split, value, error=1.0, common=300.0, sequence="a", protocol="native"):
    others = dict.fromkeys(
        ("repeatability_1px", "repeatability_3px", "repeatability_5px", "one_to_one", "coverage", "chance"), 0.125
    )
    others |= {f"matching_accuracy_{n}px": 0.125 for n in (1, 3, 5)} | {"matches": 9.0, "corner_error": 2.0}
    named = {"protocol": protocol, "detector": detector, "split": split, "sequence": sequence}
    return named | {"repeatability": value, "localisation_error": error, "common": common} | others


def row(*values, pairs, **changes):
    """The row that a record would make, but for its interval."""
    named = {k: v for k, v in record(*values).items() if k not in ("sequence", "corner_error")}
    homographies = {"homography_1px": 0.0, "homography_3px": 1.0, "homography_5px": 1.0}
    return named | homographies | {"homography_auc_5px": pytest.approx((3 + 1 / pairs) / 5), "pairs": pairs} | changes


def without_interval(rows):
    return [{k: v for k, v in r.items() if k != "interval"} for r in rows]


def test_rows_are_means_over_pairs():
    records = [record("a", "i", 0.2), record("a", "i", 0.4, 2.0), record("a", "v", 0.9, None, 30.0)]
    i, v, both = without_interval(summarise(records))
    assert i == row("a", "i", pytest.approx(0.3), 1.5, pairs=2)
    assert v == row("a", "v", 0.9, None, 30.0, pairs=1)
    assert both == row("a", "all", pytest.approx(0.5), 1.5, 210.0, pairs=3)


def test_protocols_have_rows_of_their_own():
    rows = summarise([record("a", "i", 0.2), record("a", "i", 0.6, protocol="squash")])
    assert [(r["protocol"], r["split"], r["repeatability"]) for r in rows] == [
        (name, split, value) for name, value in (("native", 0.2), ("squash", 0.6)) for split in ("i", "all")
    ]


def test_the_interval_is_that_of_the_sequences_not_of_their_pairs():
    """Two kinds of sequences, half each: of n of them the mean has the deviation of n throws of a coin."""
    n = 64
    pairs = [record("a", "i", float(s % 2), sequence=str(s)) for s in range(n) for _ in range(5)]
    low, high = interval(pairs)
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / n**0.5, abs=0.025)
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / n**0.5, abs=0.025)
    assert interval(pairs) == [low, high]
    assert interval(pairs[:5]) == [0, 0]


def test_a_split_without_pairs_has_no_row():
    assert [row["split"] for row in summarise([record("a", "v", 0.5)])] == ["v", "all"]
    content = results.content([record("a", "v", 0.5)], settings("here", [NATIVE], split="v"), None)
    assert [row["split"] for row in content["rows"]] == ["v"]
    assert summarise([]) == []


def test_the_json_file_is_strict_json_with_rows_and_protocol(tmp_path):
    protocol = settings("here", [replace(NATIVE, max_keypoints=7, threshold=2.5)], split="all")
    (tmp_path / "weights").write_bytes(b"abc")
    content = results.content([record("kp", "i", 0.5, None)], protocol, results.fingerprint(tmp_path / "weights"))
    results.write(tmp_path / "deep" / "table.json", content)
    read = json.loads((tmp_path / "deep" / "table.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["rows"][0] == row("kp", "i", 0.5, None, pairs=1, interval=[0.5, 0.5])
    native = read["settings"]["protocols"]["native"]
    assert (native["max_keypoints"], native["threshold"]) == (7, 2.5)
    assert {"kp", "torch", "kornia", "opencv"} <= set(read["versions"])
    # FIPS 180-2, appendix B.1
    assert read["weights"]["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_was_done_before_bad_input_is_kept():
    def broken():
        raise HPatchesError("2.ppm is truncated")

    good, bad = scene("v_a", 0), ImageSequence("v_b", "v", (broken,) * 2, (torch.eye(3, dtype=torch.float64),))
    records, stop = collect(evaluate([good, bad], lambda: detectors_of(a=lambda image: image)))
    assert {r["sequence"] for r in records} == {"v_a"}
    assert str(stop) == "2.ppm is truncated"


def test_ctrl_c_keeps_whole_sequences_only():
    calls = []

    def detector(image):
        calls.append(1)
        if len(calls) == 11:  # the third sequence of three images and one detector ends with the ninth
            raise KeyboardInterrupt
        return extract_keypoints(image)

    records, stop = collect(evaluate([scene(f"v_{c}", 0) for c in "abcde"], lambda: {"a": detector}))
    assert [r["sequence"] for r in records] == ["v_a", "v_a", "v_b", "v_b", "v_c", "v_c"]
    assert isinstance(stop, KeyboardInterrupt)


def make(names, **changed):
    cpu = torch.device("cpu")
    scores, skipped = score_maps(names, weights="nowhere", baseline_weights=None, seed=0, device=cpu)
    assert not skipped
    return make_detectors(scores, replace(NATIVE, **changed), False, cpu)


@pytest.mark.parametrize("name", ["harris", "shi-tomasi", "fast", "sift", "orb", "random"])
@pytest.mark.parametrize(("nms_size", "border"), [(9, 4), (3, 20)])
def test_all_detectors_keep_the_same_distance(name, nms_size, border):
    image = torch.from_numpy(cv2.GaussianBlur(np.random.default_rng(0).random((97, 140)), (0, 0), 1)).float()
    image = ((image - image.mean()) * 2 + 0.5).clamp(0, 1)[None, None]
    found = make([name], nms_size=nms_size, border=border)[name](image)
    xy = found.xy[found.valid]
    assert len(xy) > 5
    apart = (xy[:, None] - xy[None]).abs().amax(-1) + 999 * torch.eye(len(xy))
    assert apart.min() > nms_size // 2
    assert (xy >= border).all()
    assert (xy <= torch.tensor([139, 96]) - border).all()


def test_random_points_score_about_their_chance_level():
    """Chance from the area of a disc of 3 px, for points that keep no distance (NMS of one pixel)."""
    size, n, r = (120, 160), 100, 3
    images = (lambda: torch.rand(1, 1, *size),) * 101
    sequence = ImageSequence("i_a", "i", images, (torch.eye(3, dtype=torch.float64),) * 100)
    protocol = replace(NATIVE, max_keypoints=n, threshold=r)
    records = list(evaluate([sequence], lambda: make(["random"], nms_size=1, border=0), protocol))
    offsets = [(x, y) for x in range(-r, r + 1) for y in range(-r, r + 1) if x * x + y * y <= r * r]
    seen = np.mean([(size[1] - abs(x)) * (size[0] - abs(y)) / (size[0] * size[1]) for x, y in offsets]) * len(offsets)
    expected = 1 - (1 - seen / (size[0] * size[1])) ** n
    assert summarise(records)[0]["repeatability"] == pytest.approx(expected, abs=0.015)
    assert math.isclose(summarise(records)[0]["common"], n)
    assert summarise(records)[0]["chance"] == pytest.approx(expected, abs=0.01)


def test_the_records_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "get_context", lambda method: CONTEXT)
    sequences = [scene(name, i) for i, name in enumerate(("i_a", "v_b", "v_c"))]
    still = [replace(s, images=tuple(partial(torch.Tensor.clone, load()) for load in s.images)) for s in sequences]
    makers = partial(dict, make(["harris", "random"]))
    alone = list(evaluate(still, makers))
    export = exporter(tmp_path, ("harris",))
    assert list(evaluate(still, makers, export=export, workers=2)) == alone
    assert len(alone) == 3 * 2 * 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i_a", "v_b", "v_c"]
    assert list(evaluate(still[::-1], makers))[-4:] == alone[:4], "the order of sequences changes chance"


def test_unknown_detectors_and_missing_weights_are_errors():
    with pytest.raises(ValueError, match="no detector is called surf"):
        make(["surf"])
    with pytest.raises(ValueError, match="no weights at nowhere"):
        make(["kp"])


def test_rows_by_kind_are_those_of_the_i_sequences_of_that_kind():
    values = [("i_a", "webcam", 0.2), ("i_b", "other", 0.4), ("i_c", "webcam", 0.6), ("i_d", "JPEG", 1.0)]
    records = [record("a", "i", value, sequence=name) | {"kind": kind} for name, kind, value in values]
    records += [record("a", "v", 0.9, sequence="v_a") | {"kind": "viewpoint"}]
    rows = summarise_kinds(records)
    assert [(row["kind"], row["repeatability"], row["pairs"]) for row in rows] == [
        ("JPEG", 1.0, 1),
        ("webcam", pytest.approx(0.4), 2),
        ("other", 0.4, 1),
    ]
    assert rows[1]["interval"] == pytest.approx([0.2, 0.6])
    assert set(rows[0]) == set(summarise(records)[0]) - {"split"} | {"kind"}
    one = [r for r in records if r["kind"] in ("webcam", "viewpoint")]
    assert summarise_kinds(one) == [], "all of one kind"
    assert summarise_kinds([{k: v for k, v in r.items() if k != "kind"} for r in records]) == []


def test_sequences_have_the_kind_that_the_index_says(tmp_path):
    root = write_root(tmp_path, ["i_lamp", "i_ubc", "v_wall"])
    (root / "INDEX.md").write_text("| i_lamp | webcam |\n| v_wall | blur |\n")
    assert [s.kind for s in read_sequences(root)] == ["webcam", "JPEG", "viewpoint"]
    records = list(evaluate(read_sequences(root), lambda: detectors_of(a=lambda image: image)))
    assert {(r["sequence"], r["kind"]) for r in records} == {
        ("i_lamp", "webcam"),
        ("i_ubc", "JPEG"),
        ("v_wall", "viewpoint"),
    }


def test_the_example_measures_a_detector_of_your_own(tmp_path, monkeypatch):
    """The three lines of the docstring, for a detector that always finds the same four points."""
    write_root(tmp_path / "hpatches-sequences-release")
    monkeypatch.chdir(tmp_path)

    def find(image):
        xy = torch.tensor([[[20.0, 20.0], [70, 20], [20, 70], [70, 70]]])
        return Keypoints(xy, torch.arange(4.0).flip(0)[None], torch.ones(1, 4, dtype=torch.bool))

    names = {"find": find, "Path": Path, "evaluate": evaluate, "summarise": summarise, "read_sequences": read_sequences}
    lines = [example.source for example in doctest.DocTestParser().get_examples(evaluate.__doc__)]
    assert len(lines) == 3
    exec("".join(lines), names)
    by_split = {row["split"]: row for row in names["rows"]}
    assert {row["detector"] for row in names["rows"]} == {"my detector"}
    assert by_split["i"]["repeatability"] == 1
    assert by_split["v"]["repeatability"] == 0  # its views are shifted by 10 and 20 px, the points are 50 px apart
    assert by_split["i"]["common"] == 4


def test_points_of_files_are_perfect_under_every_protocol():
    """Points of the scene, in the pixels of files of several sizes: all are repeated, to the rounding of float32."""
    sequence = scene("v_a", 2, ((297, 331), (308, 320), (301, 319)))
    inner = np.random.default_rng(7).uniform(60, 220, (60, 2))

    def read(name, number, size):
        H = np.eye(3) if number == 1 else sequence.homographies[number - 2].numpy()
        xy = np.c_[inner, np.ones(60)] @ H.T
        xy = torch.from_numpy(xy[:, :2] / xy[:, 2:]).float()[None]
        assert (name, size) == ("v_a", ((297, 331), (308, 320), (301, 319))[number - 1])
        return Keypoints(xy, -torch.arange(60.0)[None], torch.ones(1, 60, dtype=torch.bool))

    for name in ("native", "240x320", "squash"):
        protocol = replace(PROTOCOLS[name], nms_size=1, border=0)
        records = list(
            evaluate([sequence], lambda protocol=protocol: {"mine": KeypointFiles(read, protocol)}, protocol)
        )
        assert [r["repeatability"] for r in records] == [1, 1]
        assert all(r["localisation_error"] < 1e-3 for r in records)
