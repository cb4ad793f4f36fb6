"""Descriptors by name, matches, the matrices that fit them; Kornia's and OpenCV's side."""

import sys

import cv2
import kornia.feature as KF
import numpy as np
import pytest
import torch
from skimage import data

import kp
from kp.features.describe import METHODS
from kp.features.estimate import choose_estimator, estimate
from kp.geometry.coords import warp_points

H_0TO1 = np.array([[0.9, 0.1, 10], [-0.1, 0.95, 20], [1e-4, 0, 1]])
IMAGE0 = data.astronaut()[:300, :400]
IMAGE1 = cv2.warpPerspective(IMAGE0, H_0TO1, (400, 320), borderMode=cv2.BORDER_REFLECT)
OFFLINE = ("rootsift", "sift", "orb")


@pytest.fixture(scope="module")
def features():
    extractor = kp.Extractor(max_num_keypoints=300)
    return [extractor.extract(image) for image in (IMAGE0, IMAGE1)]


def errors(xy0, xy1, H):
    """Pixels of view 1, by OpenCV."""
    there = cv2.perspectiveTransform(xy0.double().numpy()[:, None], np.asarray(H))[:, 0]
    return np.linalg.norm(there - xy1.double().numpy(), axis=1)


@pytest.mark.parametrize("method", OFFLINE)
def test_most_matches_of_a_warped_picture_are_right(features, method):
    described = [
        f | {"descriptors": kp.describe(i, f, method)} for f, i in zip(features, (IMAGE0, IMAGE1), strict=True)
    ]
    for each, (name, length) in zip(described, [(method, 256 if method == "orb" else 128)] * 2, strict=True):
        values = each["descriptors"]
        assert values.shape == (1, each["keypoints"].shape[1], length), name
        norms = values[0].norm(dim=1)
        assert ((norms - 1).abs() < 1e-4).logical_or(norms == 0).all()
    found = kp.match(*described)
    at0, at1 = found["matches"].unbind(1)
    off = errors(features[0]["keypoints"][0, at0], features[1]["keypoints"][0, at1], H_0TO1)
    assert len(off) > 100
    assert (off < 3).mean() > 0.8
    assert found["scores"].shape == (len(off),)
    assert found["scores"].mean() > 0.5


@pytest.mark.parametrize("turned", [90, 180, 45])
@pytest.mark.parametrize("method", OFFLINE)
def test_descriptors_do_not_mind_a_turn(method, turned):
    centre = (199.5, 149.5)
    H = np.vstack([cv2.getRotationMatrix2D(centre, turned, 1), [0, 0, 1]])
    other = cv2.warpPerspective(IMAGE0, H, (400, 300), flags=cv2.INTER_CUBIC)
    xy = kp.Extractor(max_num_keypoints=None).extract(IMAGE0)["keypoints"][0]
    xy = xy[(xy - torch.tensor(centre)).norm(dim=1) < 110]
    there = torch.from_numpy(cv2.perspectiveTransform(xy.double().numpy()[:, None], H)[:, 0]).float()
    one, two = (
        {"descriptors": kp.describe(i, {"keypoints": p[None]}, method)} for i, p in ((IMAGE0, xy), (other, there))
    )
    pairs = kp.match(one, two)["matches"]
    assert (pairs[:, 0] == pairs[:, 1]).float().mean() > 0.9
    assert len(pairs) > 0.6 * len(xy)


def test_matches_by_hand():
    one = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0.6, 0.8]])
    two = torch.tensor([[0, 0.96, 0.28], [0.8, 0.6, 0], [0, 0, 0]])
    found = kp.match({"descriptors": one[None]}, {"descriptors": two[None]})
    assert found["matches"].tolist() == [[0, 1], [1, 0]]  # 3 prefers 0 too, which prefers 1; zeros match nothing
    assert found["scores"].tolist() == pytest.approx([0.8, 0.96])
    # distances: one[1] to two[0] 0.28 and to two[1] 0.89; two[0] to one[3] 0.63; one[0] to two[1] 0.63, its next 1.41
    assert kp.match({"descriptors": one}, {"descriptors": two}, ratio=0.45)["matches"].tolist() == [[1, 0]]


def test_nothing_to_match():
    none, some = torch.zeros(1, 0, 128), torch.nn.functional.normalize(torch.rand(1, 5, 128), dim=2)
    for pair in ((none, some), (some, none), (none, none)):
        for ratio in (None, 0.8):
            found = kp.match(*({"descriptors": each} for each in pair), ratio=ratio)
            assert found["matches"].shape == (0, 2)
            assert found["scores"].shape == (0,)


@pytest.mark.parametrize("method", OFFLINE)
def test_an_image_without_keypoints_has_no_descriptors(method):
    black = np.zeros((50, 60), np.uint8)
    assert kp.describe(black, kp.Extractor().extract(black), method).shape[:2] == (1, 0)


@pytest.mark.parametrize("estimator", ["poselib", "opencv"])
def test_a_pair_of_images(estimator):
    if estimator == "poselib":
        pytest.importorskip("poselib")
    found = kp.match_pair(IMAGE0, IMAGE1, estimator=estimator)
    corners = torch.tensor([[0.0, 0], [399, 0], [0, 299], [399, 299]])
    there = cv2.perspectiveTransform(corners.double().numpy()[:, None], H_0TO1)[:, 0]
    assert errors(corners, torch.from_numpy(there), found["H_0to1"]).max() < 1
    assert found["H_0to1"][2, 2] == 1
    assert found["inliers"].float().mean() > 0.8
    assert torch.equal(found["keypoints0"], found["features0"]["keypoints"][0, found["matches"][:, 0]])
    lines = torch.cat([found["keypoints0"].double(), torch.ones(len(found["matches"]), 1)], 1) @ found["F_0to1"].T
    points = torch.cat([found["keypoints1"].double(), torch.ones(len(found["matches"]), 1)], 1)
    away = (lines * points).sum(1).abs() / lines[:, :2].norm(dim=1)
    assert away[found["inliers_F"]].median() < 1


@pytest.mark.parametrize("estimator", ["poselib", "opencv"])
@pytest.mark.parametrize("model", ["homography", "fundamental"])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_too_few_or_degenerate_matches_fit_nothing_or_something(estimator, model, count):
    if estimator == "poselib":
        pytest.importorskip("poselib")
    line = torch.arange(count).float()[:, None].expand(-1, 2)
    matrix, inliers = estimate(line, line, 3.0, model, estimator)
    assert inliers.shape == (count,)
    assert (matrix is None) == (not inliers.any())
    if count < {"homography": 4, "fundamental": 8}[model]:
        assert matrix is None


def test_an_estimator_that_is_none_is_refused_with_and_without_poselib(monkeypatch):
    for missing in (False, True):
        if missing:
            monkeypatch.setitem(sys.modules, "poselib", None)
        with pytest.raises(ValueError, match="no estimator is called 'ransac'"):
            choose_estimator("ransac")
    assert choose_estimator() == "opencv"


def test_estimates_are_repeatable():
    found = [kp.match_pair(IMAGE0, IMAGE1) for _ in range(2)]
    assert torch.equal(found[0]["H_0to1"], found[1]["H_0to1"])


def test_opencvs_homography_is_that_of_all_its_inliers():
    """Of 300 matches with errors of half a pixel among 200 wrong ones: nearer to the true one than OpenCV's own."""
    H = torch.tensor([[0.9, 0.1, 10], [-0.1, 0.95, 20], [1e-4, 0, 1]], dtype=torch.float64)
    corners = torch.tensor([[0.0, 0], [0, 400], [400, 0], [400, 400]], dtype=torch.float64)
    ours, opencvs = [], []
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        xy0 = 400 * torch.rand(500, 2, generator=g, dtype=torch.float64)
        xy1 = warp_points(xy0[None], H[None])[0][0] + 0.5 * torch.randn(500, 2, generator=g, dtype=torch.float64)
        xy1[300:] = 400 * torch.rand(200, 2, generator=g, dtype=torch.float64)
        matrix, inliers = estimate(xy0, xy1)
        rough, _ = cv2.findHomography(xy0.numpy(), xy1.numpy(), cv2.USAC_MAGSAC, 3.0, maxIters=10_000)
        for errors, fitted in ((ours, matrix), (opencvs, torch.from_numpy(rough))):
            moved, true = (warp_points(corners[None], m[None])[0][0] for m in (fitted, H))
            errors.append((moved - true).norm(dim=1).mean())
        exact, _ = cv2.findHomography(xy0[inliers].numpy(), xy1[inliers].numpy(), 0)
        assert torch.allclose(matrix, torch.from_numpy(exact))
    assert sum(ours) < sum(opencvs)


def test_without_poselib_opencv_fits(monkeypatch):
    monkeypatch.setitem(sys.modules, "poselib", None)
    assert choose_estimator() == "opencv"
    with pytest.raises(ValueError, match="pip install poselib"):
        choose_estimator("poselib")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: kp.describe(IMAGE0, f, "surf"), "no descriptor is called 'surf': there are rootsift"),
        (lambda f: kp.describe(IMAGE0, f, patch_radius=0), "patch_radius"),
        (lambda f: kp.describe(IMAGE0, {"keypoints": f["keypoints"][0]}), r"\(1, N, 2\)"),
        (lambda f: kp.match(f, f), "kp.describe"),
        (lambda f: kp.match({"descriptors": torch.rand(3, 8)}, {"descriptors": torch.rand(3, 9)}), "8 and of 9"),
        (lambda f: kp.match({"descriptors": torch.rand(2, 3, 8)}, f), r"\(1, N, D\)"),
        (lambda f: kp.match(f, f, ratio=0.0), "ratio"),
        (lambda f: kp.match_pair(IMAGE0, IMAGE1, threshold=0.0), "threshold"),
        (lambda f: kp.match_pair(IMAGE0, IMAGE1, ratio=1.5), "ratio"),
        (lambda f: kp.match_pair(IMAGE0, IMAGE1, estimator="ransac"), "no estimator"),
    ],
)
def test_bad_arguments_are_one_line(features, call, message):
    with pytest.raises(ValueError, match=message):
        call(features[0])


def test_features_of_another_image_are_refused(features):
    with pytest.raises(ValueError, match="the image has 100 x 300 pixels, and the features are of another size"):
        kp.describe(IMAGE0[:, :100], features[0])


def test_empty_places_are_never_matched():
    image = torch.from_numpy(IMAGE0[:100, :100] / 255.0).permute(2, 0, 1)[None]
    batch = kp.Extractor(max_num_keypoints=400)({"image": image})
    assert 0 < batch["valid"].sum() < 400
    described = batch | {"descriptors": kp.describe(image, batch)}
    arrays = {name: values.numpy() for name, values in batch.items()}
    assert torch.equal(kp.describe(image, arrays), described["descriptors"])
    found = kp.match(described, described)["matches"]
    assert found[:, 0].tolist() == batch["valid"][0].nonzero()[:, 0].tolist()
    with pytest.raises(ValueError, match="features of one image"):
        kp.to_opencv({"keypoints": torch.zeros(2, 5, 2), "keypoint_scores": torch.zeros(2, 5)})


def test_networks_without_weights_are_one_line(features, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no network")

    monkeypatch.setattr(KF, "HardNet", fail)
    METHODS["hardnet"].__globals__["_network"].cache_clear()
    with pytest.raises(ValueError, match=r"no weights of hardnet \(no network\)"):
        kp.describe(IMAGE0, features[0], "hardnet")


def test_kornia_takes_the_detector(features):
    detector = kp.KorniaDetector(kp.Extractor(max_num_keypoints=300), scale=12.0)
    image = torch.from_numpy(IMAGE0.copy()).permute(2, 0, 1)[None] / 255
    lafs, responses = detector(image)
    assert lafs.shape == (1, 300, 2, 3)
    assert responses.shape == (1, 300, 1)
    torch.testing.assert_close(KF.get_laf_center(lafs), features[0]["keypoints"])
    torch.testing.assert_close(KF.get_laf_scale(lafs), torch.full((1, 300, 1, 1), 12.0))
    described = KF.LocalFeature(detector, KF.LAFDescriptor(KF.SIFTDescriptor(32, rootsift=True), patch_size=32))
    lafs, responses, descriptors = described(image)
    assert descriptors.shape == (1, 300, 128)


def test_padding_never_reaches_kornia():
    batch = torch.stack([torch.zeros(120, 160), torch.from_numpy(IMAGE0[:120, :160, 0] / 255.0).float()])[:, None]
    lafs, responses = kp.KorniaDetector()(batch)
    assert lafs.shape == (2, 0, 2, 3)
    mask = torch.ones(1, 1, 120, 160)
    mask[..., 80:] = 0
    lafs, responses = kp.KorniaDetector()(batch[1:], mask)
    assert lafs.shape[1] > 20
    assert (responses > 0).all()
    assert (KF.get_laf_center(lafs)[..., 0] < 80).all()


def test_opencv_takes_the_keypoints(features):
    points = kp.to_opencv(features[0], size=4.0)
    np.testing.assert_allclose(cv2.KeyPoint_convert(points), features[0]["keypoints"][0], atol=1e-6)
    assert {point.size for point in points} == {4.0}
    assert [point.response for point in points] == pytest.approx(features[0]["keypoint_scores"][0].tolist())
    kept, descriptors = cv2.SIFT_create().compute(cv2.cvtColor(IMAGE0, cv2.COLOR_RGB2GRAY), points)
    assert len(kept) == len(points) == len(descriptors)


def test_an_even_patch_has_no_descriptor_and_no_match():
    even = np.full((80, 90), 0.4, np.float32)
    descriptors = kp.describe(even, {"keypoints": torch.tensor([[[40.0, 40.0], [20.0, 30.0]]])})
    assert (descriptors == 0).all()
    assert kp.match({"descriptors": descriptors}, {"descriptors": descriptors})["matches"].shape == (0, 2)
    with pytest.raises(ValueError, match="NaN or infinite"):
        kp.describe(even, {"keypoints": torch.tensor([[[torch.nan, 4.0]]])})


def test_autocast_does_not_change_descriptors(features):
    expected = kp.describe(IMAGE0, features[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(kp.describe(IMAGE0, features[0]), expected)
