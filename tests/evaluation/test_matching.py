"""The homography benchmark: numbers by hand, numeric integration, and a picture that OpenCV turned and grew."""

import math
import warnings

import cv2
import numpy as np
import pytest
import torch

from kp.data.photographs import folder
from kp.evaluation.matching import accuracy, auc, corner_error, mean_matching_accuracy, measure_pair
from kp.evaluation.metrics import repeatability
from kp.features.describe import PATCH, Described, read_patches, rootsift
from kp.features.estimate import fit_homography
from kp.features.match import match
from kp.models.keypoints import Keypoints

SIZE = (240, 320)
IDENTITY = torch.eye(3, dtype=torch.float64)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def keypoints(xy):
    xy = torch.as_tensor(np.asarray(xy, dtype=np.float32)).view(1, -1, 2)
    return Keypoints(xy, -torch.arange(xy.shape[1])[None].float(), torch.ones(xy.shape[:2], dtype=torch.bool))


def project(H, xy):
    carried = np.c_[xy, np.ones(len(xy))] @ np.asarray(H).T
    return carried[:, :2] / carried[:, 2:]


def noise(seed, size=SIZE, sigma=2.0):
    """A smooth picture (1, 1, H, W) in [0, 1] that looks the same nowhere."""
    picture = cv2.GaussianBlur(np.random.default_rng(seed).random(size), (0, 0), sigma)
    return torch.from_numpy((picture - picture.min()) / np.ptp(picture)).float()[None, None]


@pytest.fixture(scope="module")
def views():
    """A photograph, the same turned by 40 degrees and grown by 1.2 about its centre, and H_0to1: by OpenCV alone."""
    camera = cv2.imread(str(folder() / "camera.png"), cv2.IMREAD_GRAYSCALE)
    picture = cv2.resize(camera, SIZE[::-1], interpolation=cv2.INTER_AREA)
    H = np.vstack([cv2.getRotationMatrix2D(((SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2), 40, 1.2), [0, 0, 1]])
    turned = cv2.warpPerspective(picture, H, SIZE[::-1], flags=cv2.INTER_LINEAR)
    return *(torch.from_numpy(p)[None, None].float() / 255 for p in (picture, turned)), torch.from_numpy(H)


def scattered(H, count, low, high, seed=0, whole=False):
    """Points of view 0 in a box, (x, y) from low to high, that view 1 sees 10 px inside, and their places there."""
    rng = np.random.default_rng(seed)
    xy0 = rng.uniform(low, high, (20 * count, 2))
    xy0 = rng.permutation(np.unique(np.rint(xy0), axis=0)) if whole else xy0
    xy1 = project(H, xy0)
    seen = ((xy1 > 10) & (xy1 < np.array(SIZE[::-1]) - 11)).all(1)
    xy0, xy1 = xy0[seen][:count], xy1[seen][:count]
    return xy0, np.rint(xy1) if whole else xy1


def measure(views, xy0, xy1):
    image0, image1, H_0to1 = views
    return measure_pair(rootsift(image0, keypoints(xy0)), rootsift(image1, keypoints(xy1)), H_0to1, SIZE)


def test_a_patch_reads_the_picture_around_its_point():
    """A ramp: each cell of a 32 px patch, cells 1 px apart, must read its own place, at the image's edge the edge's."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    places = torch.tensor([[100.0, 50.0], [101.0, 50.0], [100.0, 51.25], [3.0, 236.0]])
    offset = np.arange(PATCH) - (PATCH - 1) / 2
    for ramp, column in ((x, 0), (y, 1)):
        patches = read_patches(torch.from_numpy(ramp)[None, None], places, torch.zeros(4), PATCH / 2)
        for patch, place in zip(patches[:, 0].numpy(), places.numpy(), strict=True):
            expected = (place[column] + offset).clip(0, ramp.max())
            expected = np.tile(expected, (PATCH, 1)) if column == 0 else np.tile(expected[:, None], (1, PATCH))
            assert np.abs(patch - expected).max() < 2e-3


def test_a_turned_patch_reads_along_its_axis():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    place, angle, radius = torch.tensor([[150.0, 120.0]]), torch.tensor([30.0]), 20.0
    xs, ys = (read_patches(torch.from_numpy(r)[None, None], place, angle, radius)[0, 0] for r in (x, y))
    step = 2 * radius / PATCH
    turn = math.radians(30)
    assert (xs[:, 1:] - xs[:, :-1]).numpy() == pytest.approx(step * math.cos(turn), abs=1e-3)
    assert (ys[:, 1:] - ys[:, :-1]).numpy() == pytest.approx(-step * math.sin(turn), abs=1e-3)  # up on screen
    assert (float(xs.mean()), float(ys.mean())) == pytest.approx((150, 120), abs=1e-3)


def test_a_descriptor_moves_with_the_picture():
    whole = noise(1, (300, 400))
    part = whole[..., 13:253, 29:349]  # another size, so another normalisation of coordinates
    xy = np.random.default_rng(2).uniform(40, 200, (50, 2))
    of_part, of_whole = rootsift(part, keypoints(xy)), rootsift(whole, keypoints(xy + np.array([29, 13])))
    beside = rootsift(whole, keypoints(xy + np.array([30, 13])))
    assert (of_part.descriptors - of_whole.descriptors).norm(dim=1).max() < 0.02
    assert (of_part.descriptors - beside.descriptors).norm(dim=1).median() > 0.05


def test_a_descriptor_turns_with_the_picture():
    """By quarters, where pixels keep their values: a patch off its centre by half a pixel would not be the same."""
    picture = noise(3)
    xy = np.random.default_rng(4).integers(40, 200, (80, 2)).astype(float)
    turned = torch.rot90(picture, 1, (2, 3))  # counter-clockwise: (x, y) -> (y, W - 1 - x)
    straight = rootsift(picture, keypoints(xy)).descriptors
    same = rootsift(turned, keypoints(np.c_[xy[:, 1], SIZE[1] - 1 - xy[:, 0]])).descriptors
    beside = rootsift(turned, keypoints(np.c_[xy[:, 1], SIZE[1] - 1.5 - xy[:, 0]])).descriptors
    assert (straight - same).norm(dim=1).median() < 0.02
    assert (straight - beside).norm(dim=1).median() > 0.05


def test_descriptors_are_of_the_best_keypoints_and_of_unit_length():
    xy = np.random.default_rng(5).uniform(30, 200, (40, 2))
    found = keypoints(xy)
    found = Keypoints(found.xy, found.scores, torch.arange(40)[None] % 2 == 0)
    features = rootsift(noise(6), found, max_keypoints=10)
    assert np.allclose(features.xy, xy[:20:2], atol=1e-4)
    assert features.descriptors.shape == (10, 128)
    assert features.descriptors.norm(dim=1).numpy() == pytest.approx(1, abs=1e-3)
    assert not features.descriptors.requires_grad
    assert len(rootsift(noise(6), found, max_keypoints=30).xy) == 20


def test_matches_are_mutual_nearest_neighbours():
    rng = np.random.default_rng(7)
    for count0, count1 in ((30, 40), (40, 30), (1, 5), (1, 1)):
        a, b = rng.random((count0, 128)), rng.random((count1, 128))
        distance = ((a[:, None] - b) ** 2).sum(2)
        expected = {(i, j) for i, j in enumerate(distance.argmin(1)) if distance[:, j].argmin() == i}
        found = match(*({"descriptors": torch.from_numpy(each)} for each in (a, b)))["matches"]
        assert set(map(tuple, found.tolist())) == expected


def test_corner_error_of_a_translation():
    moved = torch.tensor([[1.0, 0, 3], [0, 1, -4], [0, 0, 1]])
    assert corner_error(moved, IDENTITY, SIZE) == pytest.approx(5, abs=1e-9)
    assert corner_error(-2.5 * moved, 7 * IDENTITY, SIZE) == pytest.approx(5, abs=1e-9)  # any multiple is the same
    assert corner_error(IDENTITY, IDENTITY, SIZE) == 0
    wide = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    assert corner_error(wide, IDENTITY, SIZE) == pytest.approx((0 + 319 + 0 + 319) / 4, abs=1e-9)


def test_corner_error_of_a_perspective():
    """A 101 x 101 image; w = 1 + x / 100 sends (100, 0) to (50, 0) and (100, 100) to (50, 50)."""
    half = torch.tensor([[1, 0, 0], [0, 1, 0], [0.01, 0, 1]], dtype=torch.float64)
    expected = (0 + 50 + 0 + math.hypot(50, 50)) / 4
    assert corner_error(half, IDENTITY, (101, 101)) == pytest.approx(expected, abs=1e-9)
    zoom = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64))  # distances are view 1's pixels
    assert corner_error(zoom @ half, zoom, (101, 101)) == pytest.approx(2 * expected, abs=1e-9)


@pytest.mark.parametrize("entry", [0.02, -0.02, math.nan, math.inf])
def test_corner_error_is_infinite_without_a_homography_before_the_camera(entry):
    behind = torch.tensor([[1, 0, 0], [0, 1, 0], [entry, 0, 1]], dtype=torch.float64)
    behind[2, 2] = 1 - entry * 80  # w = 0 at x = 80 - 1 / entry: 30 or 130, of 320
    assert corner_error(None, IDENTITY, SIZE) == math.inf
    assert corner_error(behind, IDENTITY, SIZE) == math.inf
    assert corner_error(torch.zeros(3, 3), IDENTITY, SIZE) == math.inf
    assert corner_error(torch.diag(torch.tensor([math.nan, 1, 1])), IDENTITY, SIZE) == math.inf


def test_accuracy_counts():
    assert accuracy([0.5, 1.0, 3.5, math.inf], (1, 3, 5)) == [0.5, 0.5, 0.75]
    assert all(math.isnan(share) for share in accuracy([], (1, 3)) + auc([], (1, 3)))


def test_auc_by_hand():
    assert auc([0, 0, 0], (3,)) == [1]
    assert auc([math.inf] * 3, (3,)) == [0]
    assert auc([2.0], (1, 4)) == pytest.approx([0, (2 / 2 + 2) / 4])  # up to 1 at 2 px, then level to 4 px
    assert auc([2.0], (2,)) == [0]
    assert auc([1, math.inf], (2,)) == pytest.approx([(0.25 + 0.5) / 2])


@pytest.mark.parametrize("seed", range(4))
def test_auc_agrees_with_numeric_integration(seed):
    rng = np.random.default_rng(seed)
    errors = np.concatenate([rng.exponential(4, 57), [math.inf] * (5 * seed)])
    rng.shuffle(errors)
    for limit, area in zip((1, 3, 5, 10), auc(errors.tolist(), (1, 3, 5, 10)), strict=True):
        near = np.sort(errors[errors < limit])
        x = (np.arange(200_000) + 0.5) * limit / 200_000
        curve = np.interp(x, np.r_[0, near], np.arange(len(near) + 1) / len(errors))
        assert area == pytest.approx(curve.mean(), abs=1e-6)


def test_matching_accuracy_by_construction():
    H_0to1 = torch.tensor([[1.1, 0.1, 5], [-0.2, 0.9, 9], [1e-4, 2e-4, 1]], dtype=torch.float64)
    xy0 = np.random.default_rng(8).uniform(0, 200, (8, 2))
    far = np.array([0, 0.99, 1.01, 2.9, 2.99, 3.01, 4.9, 50])
    xy1 = project(H_0to1, xy0) + far[:, None] * [0.6, -0.8]
    shares = mean_matching_accuracy(torch.from_numpy(xy0), torch.from_numpy(xy1), H_0to1)
    assert shares == [2 / 8, 5 / 8, 7 / 8]
    behind = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # (200, 0) has w = -1
    assert mean_matching_accuracy(torch.tensor([[200.0, 0]]), torch.tensor([[200.0, 0]]), behind) == [0, 0, 0]


def test_the_fit_bears_wrong_matches_and_says_none_where_there_is_none():
    H = np.array([[1.1, 0.1, 5], [-0.2, 0.9, 9], [1e-4, 2e-4, 1]])
    rng = np.random.default_rng(9)
    xy0, xy1 = rng.uniform(0, 300, (150, 2)), rng.uniform(0, 300, (150, 2))
    xy1[:30] = project(H, xy0[:30]) + rng.normal(size=(30, 2)) * 0.3
    pair = [torch.from_numpy(xy) for xy in (xy0, xy1)]
    assert corner_error(fit_homography(*pair), torch.from_numpy(H), SIZE) < 2
    assert fit_homography(pair[0][:3], pair[1][:3]) is None
    line = torch.arange(60.0)[:, None] * torch.tensor([4.0, 3.0]) + 7
    assert fit_homography(line, line + 2) is None
    assert fit_homography(torch.ones(9, 2), torch.ones(9, 2)) is None


def test_the_fit_is_the_same_whatever_was_drawn_before():
    rng = np.random.default_rng(10)
    pair = [torch.from_numpy(rng.uniform(0, 300, (100, 2))) for _ in range(2)]
    pair[1][:30] = pair[0][:30] + torch.from_numpy(rng.normal(size=(30, 2)))
    first = fit_homography(*pair)
    for seed in range(5):
        cv2.setRNGSeed(seed)
        assert torch.equal(fit_homography(*pair), first)


def test_the_same_scene_points_give_the_homography(views):
    xy0, xy1 = scattered(views[2], 150, (20, 20), (299, 219))
    found = measure(views, xy0, xy1[::-1])  # matched by what they look like, not by their place in the list
    assert found["corner_error"] < 1
    assert found["matches"] > 75
    assert found["matching_accuracy_1px"] > 0.7
    assert found["matching_accuracy_1px"] <= found["matching_accuracy_3px"] <= found["matching_accuracy_5px"] <= 1
    assert measure(views, xy0, xy1[::-1]) == found


def test_unrelated_points_give_none(views):
    rng = np.random.default_rng(11)
    xy0, xy1 = (rng.uniform((20, 20), (299, 219), (60, 2)) for _ in range(2))
    found = measure(views, xy0, xy1)
    assert found["corner_error"] > 20
    assert found["matching_accuracy_1px"] < 0.1


def test_crowded_points_repeat_and_give_a_poor_homography(views):
    """At whole pixels, as detectors give them. ORB's in published tables: high repeatability, poor homographies."""
    results = {}
    for name, low, high in (("spread", (20, 20), (299, 219)), ("crowded", (150, 90), (160, 100))):
        xy0, xy1 = scattered(views[2], 80, low, high, seed=12, whole=True)
        scores = repeatability(keypoints(xy0), keypoints(xy1), views[2][None], SIZE, SIZE)
        assert scores.repeatability == 1
        results[name] = measure(views, xy0, xy1)["corner_error"]
    assert results["spread"] < 1.5
    assert results["crowded"] > 5


@pytest.mark.parametrize("counts", [(0, 0), (0, 50), (50, 0), (1, 1), (1, 50), (3, 3), (3, 50)])
def test_too_few_points_give_none(views, counts):
    pair = [xy[:count] for xy, count in zip(scattered(views[2], 50, (20, 20), (299, 219)), counts, strict=True)]
    found = measure(views, *pair)
    assert found["corner_error"] == math.inf
    assert found["matches"] <= min(counts)
    if 0 in counts:
        assert set(found.values()) == {0, math.inf}


def test_points_on_a_line_are_of_no_use(views):
    """All but for rounding, that is: where it makes them not quite a line, any homography fits."""
    xy0 = np.c_[np.linspace(60, 250, 50), np.linspace(80, 150, 50)]
    found = measure(views, xy0, project(views[2], xy0))
    assert found["matches"] > 10
    assert found["corner_error"] > 20


def test_points_at_the_border_are_described(views):
    xy = [(0, 0), (319, 0), (0, 239), (319, 239), (-0.5, 100), (319.5, 100), (160, -0.5), (160, 239.5)]
    features = rootsift(views[0], keypoints(xy))
    assert features.descriptors.isfinite().all()
    assert measure((views[0], views[0], IDENTITY), xy, xy)["corner_error"] < 0.01


def test_an_empty_picture_gives_none():
    flat = torch.full((1, 1, *SIZE), 0.5)
    xy = np.random.default_rng(13).uniform(0, 239, (50, 2))
    features = rootsift(flat, keypoints(xy))
    assert features.descriptors.isfinite().all()
    assert measure((flat, flat, IDENTITY), xy, xy)["corner_error"] == math.inf


def test_a_picture_smaller_than_a_patch():
    features = rootsift(noise(14, (9, 7)), keypoints([(3, 4), (0, 0)]))
    assert features.descriptors.isfinite().all()


def test_features_of_other_sizes_match():
    """Images of a pair need not have one size: the corners are view 0's."""
    large = noise(15, (300, 400))
    small, H_0to1 = large[..., 40:240, 50:300], torch.tensor([[1.0, 0, -50], [0, 1, -40], [0, 0, 1]])
    xy1 = np.random.default_rng(16).uniform(20, 180, (60, 2))
    pair = rootsift(large, keypoints(xy1 + np.array([50, 40]))), rootsift(small, keypoints(xy1))
    assert all(isinstance(features, Described) for features in pair)
    assert measure_pair(*pair, H_0to1, (300, 400))["corner_error"] < 0.1
