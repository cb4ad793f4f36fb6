"""What the ranker learns: shares of repeated keypoints, counted by hand."""

import torch

from kp.geometry.coords import translation
from kp.models.keypoints import Keypoints
from kp.training.ranking import repeated_shares


def points(*xy):
    xy = torch.tensor([xy], dtype=torch.float32)
    return Keypoints(
        xy, -torch.arange(xy.shape[1], dtype=torch.float32)[None], torch.ones(xy.shape[:2], dtype=torch.bool)
    )


def test_a_keypoint_is_repeated_by_the_share_of_views_that_have_one_within_3_px():
    first = points((10, 10), (30, 30), (50, 50))
    second = points((12, 12), (30, 34), (80, 80))  # 2.8 px; 4 px; none
    third = points((10, 10), (31, 30), (52, 52))
    H = torch.eye(3).expand(1, 3, 3, 3)
    shares, seen = repeated_shares([first, second, third], H, (100, 100), 1000)
    assert shares[:, 0].tolist() == [[1, 0.5, 0.5], [1, 0, 0], [1, 0.5, 0.5]]
    assert seen.all()


def test_only_the_best_of_a_view_count_as_many_as_the_shared_area_asks_for():
    first, second = points((10, 10), (50, 50), (30, 80)), points((90, 90), (10, 10), (50, 50))
    H = torch.eye(3).expand(1, 2, 3, 3)
    few, _ = repeated_shares([first, second], H, (100, 100), 100)  # one keypoint of a hundredth of a megapixel
    all_, _ = repeated_shares([first, second], H, (100, 100), 300)
    assert few[0, 0].tolist() == [0, 0, 0]
    assert all_[0, 0].tolist() == [1, 1, 0]


def test_places_that_no_view_sees_do_not_count():
    H = torch.stack([torch.eye(3), translation(60, 0).float()])[None]
    first, second = points((10, 10), (80, 10)), points((70, 10), (5, 5))
    shares, seen = repeated_shares([first, second], H, (100, 100), 1000)
    assert seen[0, 0].tolist() == [True, False]
    assert seen[1, 0].tolist() == [True, False]
    assert shares[0, 0, 0] == shares[1, 0, 0] == 1
