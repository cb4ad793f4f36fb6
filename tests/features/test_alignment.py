"""The turn and the sizes that are chosen for a pair of images, on photographs turned and resized by other libraries."""

import json
import os

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import rescale, rotate

import kp
from kp.cli.main import main
from kp.config import DESCRIBED
from kp.features.alignment import TURNS, align
from kp.models import corner
from kp.models.describer import ContextNetwork, Describer
from kp.models.gradient_histograms import ORBITS, SIZE, gradient_histograms

PHOTO = data.camera()[60:420, 100:460]  # 360 x 360
CENTRE = torch.tensor([179.5, 179.5])


@pytest.fixture(scope="module")
def extractor():
    return kp.Extractor(DESCRIBED, max_num_keypoints=500)


@pytest.fixture(scope="module")
def features(extractor):
    return extractor.extract(PHOTO)


def right(features0, features1, found, to1):
    """How many matches are within 3 px of the truth."""
    at0, at1 = found["matches"].unbind(1)
    xy0, xy1 = features0["keypoints"][0, at0], features1["keypoints"][0, at1]
    return int(((to1(xy0) - xy1).norm(dim=1) < 3).sum())


def clockwise(xy, degrees):
    """Places of the photograph after a turn from the x axis to the y axis about its centre."""
    a = torch.tensor(np.deg2rad(degrees))
    return (xy - CENTRE) @ torch.tensor([[a.cos(), a.sin()], [-a.sin(), a.cos()]]).float() + CENTRE


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_histograms_of_a_turned_image_are_the_same_numbers_elsewhere(quarters):
    image = cv2.GaussianBlur(PHOTO, (0, 0), 2).astype(np.float32) / 255
    half = torch.from_numpy(cv2.resize(image, (180, 180), interpolation=cv2.INTER_AREA))[None, None]
    xy = torch.tensor([[[120.0, 150.3], [179.5, 200.0], [231.7, 140.9]]])
    turned = torch.rot90(half, -quarters, (2, 3))  # clockwise, as from the x axis to the y axis
    found = gradient_histograms(turned, clockwise(xy, 90 * quarters))
    wanted = torch.empty_like(found)
    wanted[..., ORBITS.roll(-2 * quarters, 1)] = gradient_histograms(half, xy)[..., ORBITS]
    assert torch.allclose(found, wanted, atol=2e-4)
    assert sorted(ORBITS.flatten().tolist()) == list(range(SIZE))


def test_the_matrix_turns_descriptors(extractor, features):
    turn = features["turn"][0]
    around = torch.linalg.matrix_power(turn, TURNS)
    assert torch.allclose(around, torch.eye(128), atol=1e-4)
    assert (turn - torch.eye(128)).norm() > 1
    xy = features["keypoints"][:, :100]
    grey = torch.from_numpy(PHOTO).float()[None, None] / 255
    after, _ = extractor.detector.describe(torch.rot90(grey, -1, (2, 3)), clockwise(xy, 90))
    before = features["descriptors"][0, :100]
    assert ((before @ turn.mT @ turn.mT) * after[0]).sum(1).min() > 0.999
    assert (before * after[0]).sum(1).mean() < 0.5


@pytest.mark.parametrize(("degrees", "expected"), [(45, 45), (90, 90), (170, 180), (-60, -45), (-130, -135), (10, 0)])
def test_the_turn_of_a_pair_is_found(extractor, features, degrees, expected):
    turned = rotate(PHOTO, -degrees, preserve_range=True, mode="reflect")  # scikit-image's turns are the other way
    turned = turned.astype(np.uint8)
    other = extractor.extract(turned)
    found = kp.match(features, other)
    assert (found["rotation"], found["scale"]) == (expected, 1)
    hits = right(features, other, found, lambda xy: clockwise(xy, degrees))
    assert hits > 120
    upright = kp.match(features, other, upright=True)
    assert (upright["rotation"], upright["scale"]) == (0, 1)
    if abs(degrees) >= 60:
        assert hits > 2 * right(features, other, upright, lambda xy: clockwise(xy, degrees))


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.8, 0.3])
def test_the_sizes_of_a_pair_are_found(extractor, features, factor):
    resized = (rescale(PHOTO, factor, order=3, anti_aliasing=factor < 1) * 255).round().astype(np.uint8)
    other = extractor.extract(resized)
    found = kp.match(features, other)
    assert found["rotation"] == 0
    assert found["scale"] == pytest.approx(factor, rel=0.25)

    def to1(xy):
        return (xy + 0.5) * resized.shape[0] / 360 - 0.5

    upright = kp.match(features, other, upright=True)
    assert right(features, other, found, to1) > max(40, 1.3 * right(features, other, upright, to1))


def test_a_picture_from_four_times_nearer_is_matched(extractor):
    near = cv2.resize(data.coffee(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    far = cv2.resize(near, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    found = [extractor.extract(image) for image in (near, far)]

    def to1(xy):
        return (xy + 0.5) / 4 - 0.5

    wanted, upright = kp.match(*found), kp.match(*found, upright=True)
    assert (wanted["rotation"], wanted["scale"]) == (0, 0.25)
    assert right(*found, wanted, to1) > 40 > 2 * right(*found, upright, to1)


def test_a_second_thread_changes_nothing(extractor, features, monkeypatch):
    grey, xy = torch.from_numpy(PHOTO).float()[None, None] / 255, features["keypoints"]
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with torch.inference_mode():
            found.append(extractor.detector.describe_in_sizes(grey, xy, 3)[0])
    assert torch.equal(*found)
    assert corner._second_thread(os.getpid()) is corner._second_thread(os.getpid())
    assert corner._second_thread(os.getpid()) is not corner._second_thread(-1), "threads do not survive a fork"


def test_the_same_image_is_neither_turned_nor_resized(features):
    found = kp.match(features, features)
    assert (found["rotation"], found["scale"]) == (0, 1)
    assert torch.equal(found["matches"][:, 0], found["matches"][:, 1])
    assert len(found["matches"]) == features["keypoints"].shape[1]


def test_each_size_is_described_in_an_image_half_as_large(extractor, features):
    scaled = features["scaled_descriptors"]
    assert scaled.shape[1:] == (features["keypoints"].shape[1], 3, 128)
    assert torch.equal(scaled[:, :, 0], features["descriptors"])
    grey = torch.from_numpy(PHOTO).float()[None, None] / 255
    for size in (1, 2):
        grey = torch.from_numpy(cv2.resize(grey[0, 0].numpy(), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        grey, xy = grey[None, None], (features["keypoints"] + 0.5) / 2**size - 0.5
        wanted, _ = extractor.detector.describe(grey, xy)
        assert torch.allclose(scaled[:, :, size], wanted, atol=1e-3)


def test_one_size_may_be_enough(features):
    alone = kp.Extractor(DESCRIBED, max_num_keypoints=500, descriptor_scales=1).extract(PHOTO)
    assert "scaled_descriptors" not in alone
    assert torch.equal(alone["descriptors"], features["descriptors"])
    assert kp.match(alone, features)["scale"] == 1
    with pytest.raises(ValueError, match="descriptor_scales must be a whole number of at least 1, not 0"):
        kp.Extractor(DESCRIBED, descriptor_scales=0)


def test_descriptors_put_in_their_place_are_not_turned(features):
    g = torch.Generator().manual_seed(0)
    others = torch.nn.functional.normalize(torch.randn(features["descriptors"].shape, generator=g), dim=2)
    found = kp.match(features | {"descriptors": others}, features | {"descriptors": others @ features["turn"]})
    assert (found["rotation"], found["scale"]) == (0, 1), "the matrix is not theirs"


def test_descriptors_put_in_their_place_are_compared_as_they_are(features):
    g = torch.Generator().manual_seed(0)
    count = features["keypoints"].shape[1]
    others = torch.nn.functional.normalize(torch.randn(1, count, 128, generator=g), dim=2)
    found = kp.match(features | {"descriptors": others}, features | {"descriptors": others})
    assert (found["rotation"], found["scale"]) == (0, 1)
    assert torch.equal(found["matches"][:, 0], found["matches"][:, 1])
    assert len(found["matches"]) == count


def test_a_map_that_is_not_closed_has_no_turn():
    torch.manual_seed(0)
    describer = Describer(64)  # random
    assert describer.turn() is None
    nothing_lost = Describer(SIZE)
    assert nothing_lost.turn().shape == (SIZE, SIZE)
    network = ContextNetwork("mobilenet_v3_small", 8, 8, SIZE)
    assert Describer(SIZE, network).turn() is None, "the network sees the image as it is"


def test_images_without_keypoints_have_no_match(extractor, features):
    empty = extractor.extract(np.zeros((80, 90), np.uint8))
    for pair in ((empty, features), (features, empty), (empty, empty)):
        assert kp.match(*pair)["matches"].shape == (0, 2)


def test_the_chosen_descriptors_are_of_unit_length(features):
    aligned = align(*({name: features[name][0] for name in ("descriptors", "scaled_descriptors", "turn")},) * 2)
    for each in (aligned.descriptors0, aligned.descriptors1):
        assert torch.allclose(each.norm(dim=1), torch.ones(len(each)), atol=1e-4)


def test_files_keep_what_they_are_aligned_by(features, tmp_path):
    for name in ("f.h5", "f.npz", "f.json"):
        kp.save(tmp_path / name, "photo", features)
        again = kp.load(tmp_path / name, "photo")
        for key in ("descriptors", "scaled_descriptors", "turn"):
            assert torch.equal(again[key], features[key]), (name, key)
        assert torch.equal(kp.match(again, features)["matches"], kp.match(features, features)["matches"])


def test_a_batch_is_aligned_as_single_images_are(extractor, features):
    turned = np.ascontiguousarray(np.rot90(PHOTO))
    batch = extractor({"image": torch.from_numpy(np.stack([PHOTO, turned]))[:, None]})
    each = [{name: values[index : index + 1] for name, values in batch.items()} for index in range(2)]
    assert each[0]["turn"].shape == (1, 128, 128)
    found, wanted = kp.match(*each), kp.match(features, extractor.extract(turned))
    assert found["rotation"] == wanted["rotation"] == -90  # numpy: from the y axis to the x axis
    assert torch.equal(found["matches"], wanted["matches"])


def test_kp_match_says_how_the_pictures_are_turned(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), PHOTO)
    cv2.imwrite(str(tmp_path / "b.png"), np.rot90(cv2.resize(PHOTO, (180, 180), interpolation=cv2.INTER_AREA)))
    names = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert main(["match", *names]) == 0
    assert "turned by about -90 degrees, about 0.5 times as large" in capsys.readouterr().out
    found = []
    for words in ([], ["--upright"]):
        assert main(["match", *names, "--json", *words]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [(each["rotation"], each["scale"]) for each in found] == [(-90, 0.5), (0, 1)]
    assert sum(found[0]["inliers"]) > 3 * sum(found[1]["inliers"])
    # pixel (x, y) of the picture is ((y + 0.5) / 2 - 0.5, 179 - (x + 0.5) / 2 + 0.5) of the other
    H = np.array(found[0]["H_0to1"]) / found[0]["H_0to1"][2][2]
    assert np.abs(H - [[0, 0.5, -0.25], [-0.5, 0, 179.25], [0, 0, 1]]).max() < 0.5
