"""Descriptors of the weights themselves: extract, match_pair, the commands, the files."""

import json

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import rotate

import kp
from kp.cli.main import main
from kp.config import DESCRIBED, DetectorSettings, RunSettings
from kp.models.checkpoint import save_weights
from kp.models.corner import CornerDetector
from kp.support.settings import to_dict


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A describer before any training: a random linear map of gradient histograms describes already."""
    torch.manual_seed(0)
    settings = DetectorSettings(ranker_width=0)
    path = tmp_path_factory.mktemp("weights") / "described.safetensors"
    detector = CornerDetector(settings).eval()
    save_weights(path, detector, to_dict(RunSettings(detector=settings)), step=1, seconds=0.0, scores={})
    return path


@pytest.fixture(scope="module")
def extractor(weights):
    return kp.Extractor(weights, max_num_keypoints=200)


@pytest.fixture(scope="module")
def photo():
    return data.camera()[100:300, 120:360]


def test_extract_gives_what_the_detector_describes(extractor, photo):
    features = extractor.extract(photo)
    grey = torch.from_numpy(photo).float()[None, None] / 255
    wanted = extractor.detector.describe(grey, features["keypoints"])
    assert features["descriptors"].shape == (1, features["keypoints"].shape[1], 128)
    assert torch.allclose(features["descriptors"], wanted, atol=1e-5)


def test_keypoints_are_the_same_without_descriptors(weights, extractor, photo):
    alone = kp.Extractor(weights, max_num_keypoints=200, descriptors=False).extract(photo)
    assert "descriptors" not in alone
    assert torch.equal(alone["keypoints"], extractor.extract(photo)["keypoints"])


def test_a_batch_has_the_same_descriptors_and_zeros_without_a_keypoint(extractor, photo):
    black = np.zeros_like(photo)
    batch = extractor({"image": torch.from_numpy(np.stack([photo, black]))[:, None]})
    features = extractor.extract(photo)
    count = features["keypoints"].shape[1]
    assert batch["descriptors"].shape == (2, 200, 128)
    assert torch.allclose(batch["descriptors"][0, :count], features["descriptors"][0], atol=1e-5)
    assert not batch["descriptors"][~batch["valid"]].any()
    assert not batch["valid"][1].any()


def test_an_image_without_keypoints_has_no_descriptors(extractor):
    assert extractor.extract(np.zeros((80, 90), np.uint8))["descriptors"].shape == (1, 0, 128)
    assert extractor.extract(np.zeros((4, 4), np.uint8))["descriptors"].shape == (1, 0, 128)


def test_descriptors_belong_to_places_of_the_resized_image(weights, photo):
    half = kp.Extractor(weights, max_num_keypoints=50, resize=120)
    features = half.extract(photo)
    assert features["descriptors"].shape[1] == features["keypoints"].shape[1] > 10
    assert torch.allclose(features["descriptors"].norm(dim=2), torch.ones(1, 1), atol=1e-5)


def test_match_pair_takes_them_and_finds_a_rotation_of_ten_degrees(extractor, photo):
    turned = (rotate(photo, 10, preserve_range=True)).astype(np.uint8)
    found = kp.match_pair(photo, turned, extractor)
    assert found["features0"]["descriptors"].shape[2] == 128
    assert found["inliers"].sum() > 40
    centre = np.array([(photo.shape[1] - 1) / 2, (photo.shape[0] - 1) / 2])
    angle = np.deg2rad(10)  # counter-clockwise on the screen
    offset = np.array([40.0, 0.0])
    wanted = centre + np.array([offset[0] * np.cos(angle), -offset[0] * np.sin(angle)])
    moved = found["H_0to1"].numpy() @ np.array([*(centre + offset), 1])
    assert np.abs(moved[:2] / moved[2] - wanted).max() < 1.5


@pytest.mark.parametrize("descriptor", ["rootsift", "orb"])
def test_another_descriptor_can_be_asked_for(extractor, photo, descriptor):
    found = kp.match_pair(photo, photo, extractor, descriptor)["features0"]
    assert torch.equal(found["descriptors"], kp.describe(photo, found, descriptor))


def test_they_are_written_and_read(extractor, photo, tmp_path):
    features = extractor.extract(photo)
    for name in ("f.h5", "f.npz"):
        kp.save(tmp_path / name, "photo", features)
        again = kp.load(tmp_path / name, "photo")
        assert torch.allclose(torch.as_tensor(again["descriptors"]), features["descriptors"], atol=2e-3)


# --- commands ---


def test_kp_match_takes_them_and_says_where_there_are_none(weights, tmp_path, capsys):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    for path in (first, second):
        cv2.imwrite(str(path), data.camera()[100:300, 120:360])
    assert main(["match", str(first), str(second), "--weights", str(weights), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert np.abs(np.array(found["H_0to1"]) - np.eye(3)).max() < 1e-3
    assert main(["match", str(first), str(second), "--weights", "ranked", "--descriptors", "own"]) != 0
    assert "--descriptors own: the weights ranked have none" in capsys.readouterr().err


def test_kp_detect_writes_them_only_if_asked(weights, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), data.camera()[100:300, 120:360])
    for words, wanted in (([], False), (["--descriptors", "own"], True)):
        out = tmp_path / f"{wanted}.h5"
        assert main(["detect", str(tmp_path / "a.png"), "--weights", str(weights), "--out", str(out), *words]) == 0
        assert ("descriptors" in kp.load(out, "a.png")) == wanted


def test_the_shipped_weights_with_descriptors_have_the_ranked_keypoints(photo):
    described, ranked = (kp.Extractor(name, max_num_keypoints=300).extract(photo) for name in (DESCRIBED, "ranked"))
    assert torch.equal(described["keypoints"], ranked["keypoints"])
    assert described["descriptors"].shape[2] == 128


def test_the_shipped_descriptors_match_a_turned_photograph_in_other_light(photo):
    turned = rotate(0.5 * photo + 20, 15, preserve_range=True).astype(np.uint8)
    found = kp.match_pair(photo, turned, kp.Extractor(DESCRIBED, max_num_keypoints=300))
    assert found["inliers"].float().mean() > 0.7
    assert found["inliers"].sum() > 80


@pytest.mark.parametrize("options", [{}, {"resize": 200}, {"descriptor_scales": 1}, {"resize": 500}])
def test_places_are_described_as_the_extractors_own_are(options):
    extractor = kp.Extractor("described", max_num_keypoints=50, **options)
    picture = data.camera()[:300, :400]
    found = extractor.extract(picture)
    again = extractor.describe(picture, found)
    assert again.keys() == found.keys() - {"keypoints", "keypoint_scores", "image_size"}
    for name, values in again.items():
        assert values.shape == found[name].shape
        assert torch.allclose(values, found[name], atol=1e-3), name
    elsewhere = extractor.describe(picture, {"keypoints": found["keypoints"] + 9.0})
    assert not torch.allclose(elsewhere["descriptors"], found["descriptors"], atol=0.1)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    shuffled = extractor.describe(picture, {"keypoints": found["keypoints"][:, order]})
    assert torch.allclose(shuffled["descriptors"], again["descriptors"][:, order], atol=1e-4)


def test_no_places_and_places_that_are_not_valid():
    extractor = kp.Extractor("described")
    picture = data.camera()[:100, :120]
    none = extractor.describe(picture, {"keypoints": torch.zeros(1, 0, 2)})
    assert none["descriptors"].shape == (1, 0, 128)
    valid = torch.tensor([[True, False]])
    found = extractor.describe(picture, {"keypoints": torch.tensor([[[40.0, 30], [60, 50]]]), "valid": valid})
    assert torch.equal(found["descriptors"].any(2), valid)
    assert torch.equal(found["scaled_descriptors"].flatten(2).any(2), valid)


@pytest.mark.parametrize(
    ("weights", "features", "message"),
    [
        ("ranked", {"keypoints": torch.zeros(1, 1, 2)}, "these weights give no descriptors"),
        ("described", {}, 'the shape \\(1, N, 2\\): give them as {"keypoints": xy}'),
        ("described", [[10.0, 20], [30, 40]], 'the shape \\(1, N, 2\\): give them as {"keypoints": xy}'),
        ("described", {"keypoints": [cv2.KeyPoint(1, 2, 3)]}, "of OpenCV's make np.float32"),
        ("described", {"keypoints": torch.zeros(4, 2)}, "\\(1, N, 2\\), not \\(4, 2\\): give xy\\[None\\]"),
        ("described", {"keypoints": torch.zeros(1, 4, 3)}, "the shape \\(1, N, 2\\), not \\(1, 4, 3\\)"),
        ("described", {"keypoints": torch.full((1, 1, 2), torch.nan)}, "NaN or infinite"),
        ("described", {"keypoints": torch.zeros(1, 1, 2), "image_size": torch.tensor([[9.0, 9]])}, "of another size"),
    ],
)
def test_places_that_cannot_be_described_are_refused(weights, features, message):
    with pytest.raises(ValueError, match=message):
        kp.Extractor(weights).describe(np.zeros((64, 80), np.uint8), features)
