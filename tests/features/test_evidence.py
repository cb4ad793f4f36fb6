"""Whether more matches fit than by chance: numbers worked out by hand, random matches, photographs of other things."""

import math

import pytest
import torch

import kp
from kp.data import photographs
from kp.data.hpatches import read_image
from kp.features.estimate import estimate
from kp.features.evidence import evidence, log_false_alarms
from kp.geometry.coords import resize

ANY = torch.eye(3, dtype=torch.float64)
SIDEWAYS = torch.tensor([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)  # matches keep their row
FAR = torch.tensor([[0.0, 0], [1000, 1000]])  # keypoints that span 1000 x 1000 pixels, near no match
GRID = 100 * torch.cartesian_prod(torch.arange(1.0, 4), torch.arange(1.0, 5))  # 12 places, 100 px from each other
AWAY = torch.tensor([0.0, 40])  # px, so a match fits neither the homography nor the fundamental matrix


def test_a_homography_of_places_that_are_far_from_each_other():
    """By chance a place is within 3 px of another in 9 pi / 1000^2 of all cases.

    Of 10 matches 6 fit: 6 x 210 x 15 x 0.00002827^2 = 0.0000151; 7: 6 x 120 x 35 x 0.00002827^3; all 5 of 5: 5 x it.
    """
    moved = GRID[:10].clone()
    moved[6:] += AWAY
    assert log_false_alarms(ANY, GRID[:10], moved, 3.0, FAR) == pytest.approx(-4.8207, abs=1e-3)
    moved[6] = GRID[6]
    assert log_false_alarms(ANY, GRID[:10], moved, 3.0, FAR) == pytest.approx(-9.2446, abs=1e-3)
    assert log_false_alarms(ANY, GRID[:10], moved, 6.0, FAR) == pytest.approx(-9.2446 + 3 * math.log10(4), abs=1e-3)
    assert log_false_alarms(ANY, GRID[:5], GRID[:5], 3.0, FAR) == pytest.approx(-3.8496, abs=1e-3)


def test_repeated_matches_count_once():
    """As of files that have a keypoint in several sizes or turns at one place."""
    moved = GRID[:10].clone()
    moved[6:] += AWAY
    found = log_false_alarms(ANY, GRID[:10].repeat(30, 1), moved.repeat(30, 1), 3.0, FAR)
    assert found == pytest.approx(-4.8207, abs=1e-3)


def test_the_bound():
    """Of 10 matches 7 fit: 10^-9.24, which is not enough; 8: 6 x 45 x 70 x 0.00002827^4 = 10^-13.9."""
    moved = GRID[:10].clone()
    moved[7:] += AWAY
    assert not evidence(GRID[:10], moved, ANY, None, 3.0, FAR)["verified"]
    moved[7] = GRID[7]
    assert log_false_alarms(ANY, GRID[:10], moved, 3.0, FAR) == pytest.approx(-13.9179, abs=1e-3)
    assert evidence(GRID[:10], moved, ANY, None, 3.0, FAR)["verified_H"]


def test_what_is_behind_the_camera_fits_nothing():
    """H sends x to 1e4 / (x - 250): 8 of 12 places are left of the horizon, 4 right of it. Its sign does not matter."""
    H = torch.tensor([[0.0, 0, 1e4], [0, 1, 0], [1, 0, -250]], dtype=torch.float64)
    h = torch.cat([GRID, torch.ones(12, 1)], dim=1).double() @ H.T
    there = h[:, :2] / h[:, 2:]
    for sign in (1, -1):
        all_fit = log_false_alarms(sign * H, GRID[:8], there[:8], 0.01, 100 * FAR)
        behind = log_false_alarms(sign * H, GRID, there, 0.01, 100 * FAR)
        assert all_fit < behind - math.log10(8 / 4 * 495) + 0.01  # 8 of 12 fit: C(12, 8) = 495


def test_of_many_keypoints_some_are_taken_from_all():
    """Of 6000 keypoints, the last half at the place of each match: 1 / 2 / 64 of them within 3 px of it."""
    xy0 = torch.cat([GRID[0] + torch.tensor([4.0, 0]) * torch.arange(6.0)[:, None], GRID[6:10]])
    moved = xy0.clone()
    moved[6:] += AWAY
    keypoints = torch.cat([FAR.repeat(1500, 1), GRID[0].expand(3000, 2)])
    expected = math.log10(6 * 210 * 15 * (1 / 2 / 64) ** 2)
    assert log_false_alarms(ANY, xy0, moved, 3.0, keypoints) == pytest.approx(expected, abs=1e-3)


def test_a_homography_that_gathers_places_where_there_are_many():
    """Of 10 matches 6 fit, 4 to 20 px from each other: 5 of 10 are other ones within 8 x 3 px of each place, 1 / 64 of
    them within 3 px: 6 x 210 x 15 x (5 / 10 / 64)^2 = 1.15. Of 4 keypoints 2 are near: the same; 3 are: 2.60.
    """
    xy0 = torch.cat([GRID[0] + torch.tensor([4.0, 0]) * torch.arange(6.0)[:, None], GRID[6:10]])
    moved = xy0.clone()
    moved[6:] += AWAY
    assert log_false_alarms(ANY, xy0, moved, 3.0, FAR) == pytest.approx(0.0620, abs=1e-3)
    for near, expected in ((2, 0.0620), (3, 0.4142)):
        keypoints = torch.cat([FAR[: 4 - near], GRID[0].expand(near, 2)])
        assert log_false_alarms(ANY, xy0, moved, 3.0, keypoints) == pytest.approx(expected, abs=1e-3)


def test_a_fundamental_matrix():
    """Of 12 matches in rows 100 px apart 10 fit, so by chance one in 12 does: 3 x 5 x 66 x 120 / 12^3 = 68.75. With
    10 of 12 keypoints in the row of all 10: 3 x 5 x 66 x 120 x (10 / 12)^3.
    """
    rows = torch.stack([torch.arange(12.0) * 7, torch.arange(12.0) * 100], dim=1)
    moved = rows + torch.tensor([30.0, 0])
    moved[10:] += AWAY
    found = log_false_alarms(SIDEWAYS, rows, moved, 3.0, rows[11:].expand(2, 2) + AWAY, "fundamental")
    assert found == pytest.approx(1.8373, abs=1e-3)
    rows, moved = rows.clone(), moved.clone()
    rows[:10, 1] = moved[:10, 1] = 0.0
    found = log_false_alarms(SIDEWAYS, rows, moved, 3.0, rows, "fundamental")
    assert found == pytest.approx(math.log10(3 * 5 * 66 * 120 * (10 / 12) ** 3), abs=1e-3)


def test_the_error_of_a_fundamental_matrix_is_the_sampson_distance():
    """A row is missed by the distance in y, shared by both images: 4 px are 4 / sqrt(2) = 2.83."""
    rows = torch.stack([torch.arange(8.0), torch.arange(8.0) * 100], dim=1)
    for off, fits in ((4.0, True), (4.5, False)):
        moved = rows + torch.tensor([0.0, off])
        found = log_false_alarms(SIDEWAYS, rows, moved, 3.0, rows, "fundamental")
        assert math.isfinite(found) == fits


@pytest.mark.parametrize("threshold", [1e-300, 3.0, 1e200])
def test_what_any_matrix_fits_is_no_evidence(threshold):
    nothing = torch.zeros(0, 2)
    assert log_false_alarms(ANY, GRID[:4], GRID[:4], threshold, FAR) == math.inf
    assert log_false_alarms(ANY, nothing, nothing, threshold, nothing) == math.inf
    assert log_false_alarms(ANY, GRID, GRID, threshold, FAR[:1]) == math.inf
    once = GRID[:1].expand(300, 2)
    assert log_false_alarms(ANY, once, once, threshold, GRID) > 0
    assert log_false_alarms(SIDEWAYS, GRID[:7], GRID[:7], threshold, FAR, "fundamental") == math.inf
    for matrices in ((None, None), (ANY, None), (None, SIDEWAYS), (ANY, SIDEWAYS)):
        assert not any(evidence(nothing, nothing, *matrices, threshold, nothing).values())
        assert not any(evidence(GRID[:4], GRID[:4], *matrices, threshold, FAR).values())


def test_matches_are_not_asked_to_be_more_exact_than_keypoints_are():
    """Places as they were found, each off by 2 px, and a homography that was fitted to better ones, to 0.5 px."""
    moved = GRID + torch.tensor([2.0, 0])
    assert log_false_alarms(ANY, GRID, moved, 0.5, FAR) == math.inf
    assert evidence(GRID, moved, ANY, None, 0.5, FAR) == {"verified": True, "verified_H": True}


@pytest.mark.parametrize("estimator", ["opencv", "poselib"])
@pytest.mark.parametrize("spread", ["even", "clustered"])
def test_random_matches_are_no_evidence(spread, estimator):
    """Also where all places but one lie in a small part of image 1; with 20 right matches more they are."""
    if estimator == "poselib":
        pytest.importorskip("poselib")
    g = torch.Generator().manual_seed(0)
    for count in (600, 200, 5, 20, 40):
        for _ in range(4):
            xy0, xy1 = (torch.rand(count, 2, generator=g) * torch.tensor([640.0, 480]) for _ in range(2))
            if spread == "clustered":
                xy1[1:] = 60 * torch.rand(count - 1, 2, generator=g)
            matrices = [estimate(xy0, xy1, 3.0, model, estimator)[0] for model in ("homography", "fundamental")]
            assert not evidence(xy0, xy1, *matrices, 3.0, xy1)["verified"], count
            if spread == "even":
                right = torch.rand(20, 2, generator=g) * torch.tensor([640.0, 480])
                more = torch.cat([xy0, right]), torch.cat([xy1, right])
                assert evidence(*more, ANY, None, 3.0, more[1])["verified_H"], count
    right = torch.rand(20, 2, generator=g) * torch.tensor([640.0, 480])
    xy0, xy1 = torch.cat([xy0, right]), torch.cat([xy1, right])
    matrices = [estimate(xy0, xy1, 3.0, model, estimator)[0] for model in ("homography", "fundamental")]
    assert evidence(xy0, xy1, *matrices, 3.0, xy1)["verified_H"]


def test_a_scene_with_depth_is_evidence():
    """Two cameras and points at random depths: few fit a homography, all a fundamental matrix; it needs two thirds."""
    g = torch.Generator().manual_seed(0)
    points = torch.rand(60, 3, generator=g) * torch.tensor([4.0, 3, 4]) - torch.tensor([2.0, 1.5, -3])
    one, two = (500 * (points - c)[:, :2] / points[:, 2:] + 300 for c in (torch.zeros(3), torch.tensor([0.8, 0.1, 0])))
    _, fits = estimate(one, two, 3.0, "homography", "poselib")
    F, _ = estimate(one, two, 3.0, "fundamental", "poselib")
    assert fits.sum() < 20
    assert evidence(one, two, ANY, F, 3.0, two) == {"verified": True, "verified_H": False}
    for wrong, verified in ((20, True), (21, False)):
        off = two.clone()
        off[:wrong] += 200 * torch.rand(wrong, 2, generator=g) + 50
        errors = (torch.cat([one, torch.ones(60, 1)], 1).double() @ F.T * torch.cat([off, torch.ones(60, 1)], 1)).sum(1)
        off[:wrong][errors[:wrong].abs() < errors.abs().median()] += 100  # none fits by chance
        assert evidence(one, off, None, F, 3.0, off)["verified"] == verified, wrong


# scikit-image's photographs, and the longer side of each: before places as they were found were counted, beside chance
# where the homography puts them, these were said to show the same
OTHER_THINGS = [("astronaut.png", 480, "chelsea.png", 480), ("hubble_deep_field.jpg", 256, "cell.png", 256)]
OTHER_THINGS += [("coffee.png", 480, "cell.png", 640), ("clock_motion.png", 640, "cell.png", 480)]


@pytest.mark.parametrize(("name0", "side0", "name1", "side1"), OTHER_THINGS)
def test_photographs_of_other_things_are_no_evidence(name0, side0, name1, side1):
    pair = []
    for name, side in ((name0, side0), (name1, side1)):
        image = read_image(photographs.folder() / name)
        pair.append(resize(image, [round(n * side / max(image.shape)) for n in image.shape[-2:]]).clamp(0, 1))
    found = kp.match_pair(*pair)
    assert found["inliers"].sum() >= 8
    assert not found["verified"]
