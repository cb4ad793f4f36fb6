"""Complete features by name: what OpenCV and Kornia say when called directly, and mixes of one with another."""

import pickle

import cv2
import numpy as np
import pytest
import torch
from kornia.feature import ALIKED, DISK, XFeat
from skimage import data
from torch import nn
from torch.nn.functional import normalize

import kp
from kp.evaluation import learned_baselines
from kp.evaluation.feature_matching import matched
from kp.evaluation.features import COMPLETE, UPRIGHT, Where, check_names, describer, make_features
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.registry import make_detectors, score_maps

SIZE = (101, 143)  # XFeat must change it: 32 divides neither side
LEARNED = ("xfeat", "aliked-n16", "aliked-t16", "disk")


@pytest.fixture(scope="module")
def image():
    picture = cv2.GaussianBlur(np.random.default_rng(0).random(SIZE), (0, 0), 1.5)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).round()
    return torch.from_numpy(picture / 255).float()[None, None]


def gray8(image):
    return (image[0, 0] * 255).round().byte().numpy()


@pytest.fixture(scope="module")
def models():
    """Kornia's networks with random weights, whose scores differ enough for some points."""
    torch.manual_seed(0)
    models = {"xfeat": XFeat(), "disk": DISK(), **{n: ALIKED(n) for n in ("aliked-n16", "aliked-t16")}}
    with torch.no_grad():
        models["xfeat"].net.keypoint_head[-1].weight *= 100
    for model in models.values():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 1.5)
    return {name: model.eval() for name, model in models.items()}


@pytest.fixture(scope="module")
def where(models, tmp_path_factory):
    """The weights of these networks as files."""
    folder = tmp_path_factory.mktemp("weights")
    states = {name: model.state_dict() for name, model in models.items() if name.startswith("aliked")}
    states |= {"xfeat": models["xfeat"].net.state_dict(), "disk": {"extractor": models["disk"].state_dict()}}
    for name, state in states.items():
        torch.save(state, folder / learned_baselines.FILES["aliked" if name == "aliked-n16" else name])
    return Where(baseline_weights=folder)


def one(name, count, where=Where()):  # noqa: B008
    """A feature that can run here, as a worker process gets it."""
    made, skipped = make_features([name], count, where)
    assert not skipped
    return pickle.loads(pickle.dumps(made[name]))


def test_sift_is_opencvs_by_response_and_its_root(image):
    points, values = cv2.SIFT_create(40).detectAndCompute(gray8(image), None)
    order = sorted(range(len(points)), key=lambda n: -points[n].response)[:40]
    found = one("sift", 40)(image)
    assert found.xy.tolist() == [list(points[n].pt) for n in order]
    expected = np.sqrt(values[order] / values[order].sum(1, keepdims=True))
    assert np.abs(found.descriptors.numpy() - expected).max() < 1e-6
    assert found.descriptors.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)


def test_orb_has_the_distances_of_hamming(image):
    points, values = cv2.ORB_create(30).detectAndCompute(gray8(image), None)
    order = sorted(range(len(points)), key=lambda n: -points[n].response)[:30]
    found = one("orb", 30)(image)
    assert found.xy.tolist() == [list(points[n].pt) for n in order]
    hamming = [[cv2.norm(values[a], values[b], cv2.NORM_HAMMING) for b in order] for a in order]
    squared = torch.cdist(found.descriptors, found.descriptors, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    assert (64 * squared).numpy() == pytest.approx(np.array(hamming), abs=1e-2)


@torch.inference_mode()
def called(models, name, image, count):
    """Points, descriptors and scores of Kornia's class, called as its documentation says, best first."""
    model, rgb = models[name], image.expand(-1, 3, -1, -1)
    if name == "xfeat":
        found = model.detectAndCompute(image, top_k=count)[0]
        return found["keypoints"], found["descriptors"]
    if name == "disk":
        found = model(rgb, count, pad_if_not_divisible=True)[0]
        scores = found.detection_scores
    else:
        found = model(rgb)[0]
        scores = found.keypoint_scores
    best = scores.argsort(descending=True)[:count]
    return found.keypoints[best], found.descriptors[best]


@pytest.mark.parametrize("name", LEARNED)
def test_learned_features_are_kornias(models, where, image, name):
    xy, descriptors = called(models, name, image, 25)
    found = one(name, 25, where)(image)
    assert len(xy) == 25
    assert (found.xy - xy).abs().max() < 1e-3
    assert (found.descriptors - descriptors).abs().max() < 1e-4


@pytest.mark.parametrize("name", LEARNED)
def test_learned_descriptors_elsewhere_are_the_same_at_their_own_points(models, where, image, name):
    xy, descriptors = called(models, name, image, 25)
    describe = one(f"harris+{name}", 25, where).describe
    assert (describe(image, xy.float()) - descriptors).norm(dim=1).max() < 2e-4
    assert (describe(image, xy.float() + 5) - descriptors).norm(dim=1).median() > 2e-3, "it reads elsewhere"
    assert describe(image, xy[:0].float()).shape[0] == 0


def test_disk_is_read_at_the_nearest_pixel(models, where, image):
    padded = nn.functional.pad(image.expand(-1, 3, -1, -1), (0, 1, 0, 11))  # to 112 x 144
    with torch.inference_mode():
        dense = models["disk"].heatmap_and_dense_descriptors(padded)[1][0]
    describe = one("harris+disk", 25, where).describe
    found = describe(image, torch.tensor([[30.4, 20.4], [29.6, 99.7], [142.4, 100.4]]))
    for row, (x, y) in zip(found, [(30, 20), (30, 100), (142, 100)], strict=True):
        assert (row - normalize(dense[:, y, x], dim=0)).abs().max() < 1e-5


def test_points_of_kp_are_those_of_the_extractor(image):
    features = kp.Extractor(max_num_keypoints=50).extract(image)
    found = one("kp+rootsift", 50)(image)
    assert found.xy.tolist() == features["keypoints"][0].tolist()
    assert found.descriptors.tolist() == kp.describe(image, features, "rootsift")[0].tolist()
    ranked = kp.Extractor("ranked", max_num_keypoints=50).extract(image)["keypoints"][0]
    assert one("ranked+orb", 50)(image).xy.tolist() == ranked.tolist()


def test_points_of_other_detectors_are_those_of_the_benchmark(image):
    maps, _ = score_maps(["harris"], weights=None, baseline_weights=None, seed=0, device=torch.device("cpu"))
    keypoints = make_detectors(maps, PROTOCOLS["native"], True, torch.device("cpu"))["harris"](image)
    best = keypoints.scores[0].masked_fill(~keypoints.valid[0], -torch.inf).argsort(descending=True, stable=True)[:9]
    assert one("harris+sift", 9)(image).xy.tolist() == keypoints.xy[0, best].tolist()


def test_the_points_of_a_complete_feature_are_its_own(image):
    """OpenCV's SIFT has several points at a place; the detector of the benchmark suppresses all but one."""
    assert one("sift+rootsift", 40)(image).xy.tolist() == one("sift", 40)(image).xy.tolist()


def test_weights_that_describe_are_measured_with_their_own_descriptors(image, monkeypatch):
    extract = kp.Extractor.extract

    def describing(self, picture):
        found = extract(self, picture)
        return found | {"descriptors": torch.ones(1, found["keypoints"].shape[1], 64) / 8}

    monkeypatch.setattr(kp.Extractor, "extract", describing)
    found = one("kp", 20)(image)
    assert found.descriptors.tolist() == (torch.ones(20, 64) / 8).tolist()
    assert found.xy.tolist() == extract(kp.Extractor(max_num_keypoints=20), image)["keypoints"][0].tolist()


def test_an_oracle_has_the_points_of_its_detector_and_no_descriptors():
    picture = torch.from_numpy(data.camera()[100:340, 100:340]).float()[None, None] / 255
    for name in ("kp", "sift", "harris"):
        found = one(f"{name}+oracle", 50)(picture)
        assert torch.equal(found.xy, one(f"{name}+rootsift", 50)(picture).xy)
        assert found.descriptors.shape == (len(found.xy), 0)
        assert len(found.xy) > 10


def test_upright_descriptors_are_the_same_and_are_not_turned():
    picture = torch.from_numpy(data.camera()[100:340, 100:340]).float()[None, None] / 255
    turned = torch.rot90(picture, 1, (2, 3))
    own, upright = one("described", 200), one(f"described+{UPRIGHT}", 200)
    for image in (picture, turned):
        assert torch.equal(own(image).descriptors, upright(image).descriptors)
    matches = [matched(feature(picture), feature(turned))["matches"] for feature in (own, upright)]
    assert len(matches[0]) > 2 * len(matches[1])


@pytest.mark.parametrize("name", ["kp", "kp+rootsift", "kp+orb", *LEARNED, *(f"kp+{name}" for name in LEARNED)])
def test_places_of_other_images_are_described_in_the_same_way(where, image, name):
    feature = one(name, 20, where._replace(weights="described"))
    found = feature(image)
    again = describer(feature)(image, found.xy)
    assert torch.allclose(again["descriptors"], found.descriptors, atol=1e-3)
    if name == "kp":
        assert torch.allclose(again["scaled_descriptors"], found.scaled_descriptors, atol=1e-3)


@pytest.mark.parametrize("name", ["sift", "orb", f"kp+{UPRIGHT}"])
def test_what_cannot_or_shall_not_describe_again(name):
    assert describer(one(name, 20, Where("described"))) is None


def test_a_refined_feature_is_the_same_feature_made_once(tmp_path):
    names = ["xfeat+refined", "orb", "orb+refined", "xfeat"]
    made, skipped = make_features(names, 9, Where("ranked", tmp_path))
    assert list(made) == ["orb", "orb+refined"]
    assert made["orb"] is made["orb+refined"]
    assert list(skipped) == ["xfeat+refined", "xfeat"]
    assert len(set(skipped.values())) == 1


def test_what_cannot_run_is_skipped_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("kp.features.describe.KF.HardNet", lambda **_: (_ for _ in ()).throw(OSError("no network")))
    made, skipped = make_features(["orb", "ranked", "xfeat", "kp+xfeat"], 9, Where("ranked", tmp_path))
    assert list(made) == ["orb"]
    assert "give no descriptors" in skipped["ranked"]
    assert "no weights at" in skipped["xfeat"]
    assert "xfeat.pt" in skipped["kp+xfeat"]
    made, skipped = make_features(["kp+hardnet"], 9)
    assert "no weights of hardnet" in skipped["kp+hardnet"]


@pytest.mark.parametrize(
    "name",
    [
        "no",
        "kp+no",
        "no+orb",
        "harris",
        "corner+own",
        "harris+upright",
        "kp+",
        "+orb",
        "kp+orb+sift",
        "",
        "+refined",
        "refined",
        "harris+refined",
        "sift+refined+refined",
    ],
)
def test_a_name_that_is_no_feature_says_what_there_is(name):
    with pytest.raises(ValueError, match=r"there is no feature .*: there are kp, .*DETECTOR\+DESCRIPTOR") as error:
        check_names(["sift", name])
    assert "\n" not in str(error.value)


def test_every_complete_feature_and_mix_has_a_name():
    check_names([*COMPLETE, *(f"{name}+own" for name in COMPLETE), "harris+aliked-t16", "xfeat+rootsift", "fast+disk"])
    check_names(["described+refined", "described+upright+refined", "kp+rootsift+refined", "xfeat+refined"])
    check_names(["kp+oracle", "harris+oracle+refined", "sift+oracle"])


@pytest.mark.parametrize("name", ["sift", "orb", "kp+rootsift", "kp+orb", "harris+rootsift"])
def test_an_even_picture_has_no_features(name):
    found = one(name, 10)(torch.full((1, 1, 80, 80), 0.5))
    assert found.xy.shape == (0, 2)
    assert len(found.descriptors) == 0
