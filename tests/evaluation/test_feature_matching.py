"""What matches of complete features are worth: points and descriptors by hand."""

import math
from types import SimpleNamespace

import cv2
import numpy as np
import poselib
import pytest
import torch
from skimage import data

import kp
from kp.evaluation.feature_benchmark import measure_sequence
from kp.evaluation.feature_matching import matched, matching_score, measure_pair, true_matches
from kp.evaluation.features import describer, make_features
from kp.features.describe import Described
from kp.geometry.coords import resize, resize_matrix

SHIFT = torch.tensor([[1.0, 0, 10], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)  # 10 px to the right
SIZE = (100, 100)


def described(xy, codes, length=200):
    """Points whose descriptors are unit vectors along the axes ``codes``; a code of None is a zero descriptor."""
    descriptors = torch.zeros(len(xy), length)
    for row, code in zip(descriptors, codes, strict=True):
        if code is not None:
            row[code] = 1
    return Described(torch.tensor(xy, dtype=torch.float32).reshape(-1, 2), descriptors)


def test_shares_of_right_matches_by_hand():
    """Four matches with errors of 0.5, 2, 4 and 12 px."""
    xy0 = [(10, 10), (20, 50), (60, 20), (70, 80)]
    xy1 = [(20.5, 10), (30, 52), (70, 24), (80, 92)]
    scores = measure_pair(described(xy0, range(4)), described(xy1, range(4)), SHIFT, SIZE, SIZE, 100)
    shares = [scores[f"matching_accuracy_{t}px"] for t in range(1, 11)]
    assert shares == [0.25, 0.5, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75]
    assert (scores["matches"], scores["right_matches"], scores["keypoints"], scores["dimensions"]) == (4, 2, 4, 200)
    assert scores["matching_score"] == 0.5


def test_only_the_first_points_count():
    """Of the best two of each view only one is matched, though all four would be."""
    xy0, xy1 = [(10, 10), (20, 50), (60, 20), (70, 80)], [(20, 10), (70, 20), (30, 50), (80, 80)]
    both = described(xy0, [0, 1, 2, 3]), described(xy1, [0, 2, 1, 3])
    assert measure_pair(*both, SHIFT, SIZE, SIZE, 4)["right_matches"] == 4
    scores = measure_pair(*both, SHIFT, SIZE, SIZE, 2)
    assert (scores["keypoints"], scores["right_matches"], scores["matching_score"]) == (2, 1, 0.5)


def test_refined_matches_are_measured_where_the_pictures_fit():
    """Half of 40 matches are 1.2 px beside a shift that the pictures show, half are where no place looks alike."""
    image0 = torch.from_numpy(data.camera()[100:220, 100:260]).float()[None, None] / 255
    image1 = torch.from_numpy(data.camera()[95:215, 90:250]).float()[None, None] / 255  # by (10, 5)
    shift = torch.tensor([[1.0, 0, 10], [0, 1, 5], [0, 0, 1]], dtype=torch.float64)
    xy0 = kp.Extractor(max_num_keypoints=40, remove_borders=30).extract(image0)["keypoints"][0]
    assert len(xy0) == 40
    xy1 = xy0 + torch.tensor([10.0, 5])
    xy1[:20] += torch.tensor([0.8, -0.9])
    xy1[20:] = xy1[20:].roll(1, 0)
    both = described(xy0.tolist(), range(40)), described(xy1.tolist(), range(40))
    size = tuple(image0.shape[-2:])
    rough = measure_pair(*both, shift, size, size, 40)
    found = measure_pair(*both, shift, size, size, 40, (image0, image1))
    assert (rough["matching_accuracy_1px"], rough["matching_accuracy_3px"]) == (0, 0.5)
    assert 0.4 < found["matching_accuracy_1px"] <= 0.55
    assert found["corner_error_magsac"] < 0.3 < 1.1 < rough["corner_error_magsac"]


def test_own_descriptors_are_matched_with_context_where_they_are_refined():
    images = [data.camera()[100:300, 100:300], cv2.GaussianBlur(data.camera(), (0, 0), 3)[95:295, 90:290]]
    greys = [torch.from_numpy(image).float()[None, None] / 255 for image in images]
    features = [kp.Extractor("described").extract(image) for image in images]
    names = ("keypoints", "descriptors", "scaled_descriptors", "turn", "tilts")
    both = [Described(*(each[name][0] for name in names)) for each in features]
    shift = torch.tensor([[1.0, 0, 10], [0, 1, 5], [0, 0, 1]], dtype=torch.float64)
    counts = []
    for context, given in ((False, None), (True, tuple(greys))):
        counts.append(len(kp.match(*features, context=context)["matches"]))
        assert measure_pair(*both, shift, (200, 200), (200, 200), 2000, given)["matches"] == counts[-1]
    assert counts[0] != counts[1]


def test_refined_matches_are_those_of_a_second_look():
    """Two thirds of the size, which is none of those that are compared at first; an oracle needs no look."""
    image0 = torch.from_numpy(data.camera()[:360, :420]).float()[None, None] / 255
    image1 = resize(image0, (240, 280)).clamp(0, 1)
    H_0to1 = resize_matrix((360, 420), (240, 280))
    feature = make_features(["described"], 300)[0]["described"]
    both, sizes = (feature(image0), feature(image1)), ((360, 420), (240, 280))
    by = describer(feature)
    first, second = (measure_pair(*both, H_0to1, *sizes, 300, (image0, image1), False, each) for each in (None, by))
    assert second["right_matches"] > first["right_matches"]
    assert second["matching_accuracy_3px"] > first["matching_accuracy_3px"]
    rough = measure_pair(*both, H_0to1, *sizes, 300, None, False, by)
    assert rough == measure_pair(*both, H_0to1, *sizes, 300)
    oracle = [measure_pair(*both, H_0to1, *sizes, 300, (image0, image1), True, each) for each in (None, by)]
    assert oracle[0] == oracle[1]


def test_a_benchmark_gives_a_second_look_to_refined_features_alone(monkeypatch):
    """Of one sequence of two images: which of the names are told how to describe."""
    asked = {}

    def measured(*given):
        asked[len(asked)] = given[6:]
        return {}

    monkeypatch.setattr("kp.evaluation.feature_benchmark.measure_pair", measured)
    pictures = [torch.rand((1, 1, 64, 64), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    sequence = SimpleNamespace(
        name="v_a",
        split="v",
        kind="",
        images=[lambda: pictures[0], lambda: pictures[1]],
        homography=lambda *_: SHIFT[None],
    )
    names = ["kp+rootsift", "kp+rootsift+refined", "sift+refined", "kp+oracle+refined"]
    measure_sequence(sequence, make_features(names, 9)[0], [9])
    assert [(images is not None, oracle) for images, oracle, _ in asked.values()] == [
        (False, False),
        (True, False),
        (True, False),
        (True, True),
    ]
    by = [each[2] for each in asked.values()]
    assert by[2] is None
    xy = torch.full((3, 2), 30.0)
    assert by[1](pictures[0], xy)["descriptors"].shape == (3, 128)


def test_an_oracle_matches_as_many_points_as_it_can():
    """Point 0 is where A is, but 1 has no other than A, and B is within 3 px of 0. 4 px are too far, 3 px are not."""
    xy0 = torch.tensor([[10.0, 10], [10, 12.9], [50, 50], [80, 20], [30, 80]])
    xy1 = torch.tensor([[20.0, 10], [20, 7.1], [60, 52.5], [61, 50], [90, 24], [43, 80]])  # A, B, ...
    assert true_matches(xy0, xy1, SHIFT).tolist() == [[0, 1], [1, 0], [2, 3], [4, 5]]
    assert true_matches(xy1, xy0, SHIFT.inverse()).tolist() == [[0, 1], [1, 0], [3, 2], [5, 4]]
    none = Described(xy0, torch.zeros(5, 0)), Described(xy1, torch.zeros(6, 0))
    scores = measure_pair(*none, SHIFT, SIZE, SIZE, 9, oracle=True)
    assert (scores["matches"], scores["right_matches"], scores["dimensions"]) == (4, 4, 0)
    assert (scores["matching_accuracy_1px"], scores["matching_accuracy_3px"]) == (0.25, 1)
    assert measure_pair(*none, SHIFT, SIZE, SIZE, 1, oracle=True)["matches"] == 1  # of the best of each view


def test_of_equal_sets_an_oracle_takes_the_nearest():
    xy0, xy1 = torch.tensor([[10.0, 10], [12, 10]]), torch.tensor([[20.5, 10], [22.5, 10]])
    assert true_matches(xy0, xy1, SHIFT).tolist() == [[0, 0], [1, 1]]


def test_an_oracle_matches_no_point_behind_the_camera_and_none_of_an_empty_view():
    H = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-0.02, 0, 1]], dtype=torch.float64)  # x = 50 is the horizon
    xy0, xy1 = torch.tensor([[10.0, 0], [100, 20]]), torch.tensor([[12.5, 0], [-100, -20], [100, 20]])
    assert true_matches(xy0, xy1, H).tolist() == [[0, 0]]
    assert true_matches(xy0[1:], xy1, H).shape == (0, 2)
    assert true_matches(xy0, xy1[:0], H).shape == (0, 2)
    assert true_matches(xy0[:0], xy1[:0], H).shape == (0, 2)


@pytest.mark.parametrize("name", ["sift", "orb"])
def test_no_descriptor_has_more_right_matches_than_an_oracle(name):
    """SIFT and ORB find some places several times."""
    image0 = torch.from_numpy(data.camera()[100:340, 100:360]).float()[None, None] / 255
    image1 = torch.from_numpy(data.camera()[95:335, 90:350]).float()[None, None] / 255
    shift, size = torch.tensor([[1.0, 0, 10], [0, 1, 5], [0, 0, 1]], dtype=torch.float64), (240, 260)
    feature = make_features([name], 400)[0][name]
    both = feature(image0), feature(image1)
    found = [measure_pair(*both, shift, size, size, 400, oracle=oracle) for oracle in (False, True)]
    assert 100 < found[0]["right_matches"] <= found[1]["right_matches"]


def test_matches_are_mutual_and_never_of_zero_descriptors():
    """Both points 1 and 2 of view 0 are nearest to point 1 of view 1; the zeros would be at distance 0."""
    one = Described(torch.zeros(4, 2), torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.8, 0.6], [0, 0, 0]]))
    two = Described(torch.zeros(3, 2), torch.tensor([[0.0, 0, 0], [0, 1, 0], [1, 0, 0]]))
    assert matched(one, two)["matches"].tolist() == [[0, 2], [1, 1]]


def test_the_matching_score_counts_what_both_views_see():
    """View 1 is 104 px wide: it does not see the point at 95, whose match lies 2 px away, inside view 1.

    View 0: three of four points are seen, two of them rightly matched. View 1: three of five are seen (those at 3 and
    at 8 come from outside view 0), all rightly matched.
    """
    xy0 = torch.tensor([[5.0, 5], [95, 50], [50, 50], [20, 20]])
    xy1 = torch.tensor([[15.0, 5], [60, 50], [103, 50], [3, 50], [8, 9]])
    right = torch.tensor([[0, 0], [2, 1], [1, 2]])
    assert matching_score(xy0, xy1, right, SHIFT, SIZE, (100, 104)) == pytest.approx((2 / 3 + 3 / 3) / 2)
    assert matching_score(xy0[1:2], xy1[3:], right[:0], SHIFT, SIZE, (100, 104)) == 0, "nothing is seen"


def scattered(count, wrong):
    """Points of view 0 and of view 1, of which the last ``wrong`` are anywhere."""
    rng = np.random.default_rng(0)
    xy0 = rng.uniform(0, 90, (count, 2))
    xy1 = xy0 + np.array([10, 0])
    xy1[count - wrong :] = rng.uniform(0, 100, (wrong, 2))
    return described(xy0.tolist(), range(count)), described(xy1.tolist(), range(count))


def test_both_estimators_find_the_homography_among_wrong_matches():
    scores = measure_pair(*scattered(60, 25), SHIFT, SIZE, SIZE, 1000)
    assert scores["corner_error_magsac"] < 0.01
    assert scores["corner_error_poselib"] < 0.01


def test_each_estimator_is_the_one_of_its_name(monkeypatch):
    """PoseLib finds 7 px where there are 10; OpenCV is not asked instead of it."""
    wrong = np.array([[1.0, 0, 7], [0, 1, 0], [0, 0, 1]])
    monkeypatch.setattr(poselib, "estimate_homography", lambda *_: (wrong, {"inliers": [True] * 60}))
    scores = measure_pair(*scattered(60, 25), SHIFT, SIZE, SIZE, 1000)
    assert scores["corner_error_poselib"] == pytest.approx(3)
    assert scores["corner_error_magsac"] < 0.01


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_matches_fix_no_homography(count):
    points = described([(10 * n, 5 * n * n) for n in range(count)], range(count))
    scores = measure_pair(points, points, torch.eye(3, dtype=torch.float64), SIZE, SIZE, 100)
    assert scores["corner_error_magsac"] == scores["corner_error_poselib"] == math.inf
    assert scores["matching_accuracy_3px"] == scores["matching_score"] == (1 if count else 0)
    assert scores["right_matches"] == count
