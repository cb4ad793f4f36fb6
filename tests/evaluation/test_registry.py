"""Detectors behind one call: the same suppression for all, and places between pixels by a rule for each kind."""

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from kp.evaluation.baselines import OwnPoints
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.registry import NAMES, KeypointFiles, make_detectors, score_maps
from kp.geometry.coords import resize_matrix, translation
from kp.models.keypoints import Keypoints

CPU = torch.device("cpu")
NATIVE = PROTOCOLS["native"]
IMAGE = torch.zeros(1, 1, 30, 40)


def detect(name, scores, subpixel=True, image=IMAGE, **changes):
    """The keypoints (N, 2) of a detector of that name."""
    found = make_detectors({name: scores}, replace(NATIVE, **changes), subpixel, CPU)[name](image)
    return found.xy[found.valid].tolist()


def hill(image):
    """A tilted quadric whose top is at (15.3, 11.8): a quadric through 3x3 of its pixels is the quadric itself."""
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    u, v = x - 15.3, y - 11.8
    return -(u**2 + 0.5 * u * v + 2 * v**2)[None, None]


@pytest.mark.parametrize("name", NAMES)
def test_every_dense_response_is_refined_and_fast_and_random_are_not(name):
    whole = name in ("fast", "random")
    expected = [15, 12] if whole else [15.3, 11.8]
    assert detect(name, hill)[0] == pytest.approx(expected, abs=1e-4)
    assert detect(name, hill, subpixel=False)[0] == [15, 12]


def own(*points):
    return OwnPoints(lambda gray: [cv2.KeyPoint(x, y, 5, -1, response) for x, y, response in points])


POINTS = own((10.375, 10.25, 1.0), (14.625, 10.0, 0.5), (10.0, 13.625, 0.25))


def test_detectors_with_points_of_their_own_keep_their_places_but_are_suppressed_at_pixels():
    """To the pixel the second is 5 px away from the first, and kept; the third is 4 px away."""
    assert detect("sift", POINTS) == [[10.375, 10.25], [14.625, 10.0]]
    assert detect("sift", POINTS, subpixel=False) == [[10, 10], [15, 10]]
    assert detect("sift", POINTS, nms_size=3) == [[10.375, 10.25], [14.625, 10.0], [10.0, 13.625]]
    assert detect("sift", own((3.75, 8.0, 1.0), (3.25, 20.0, 1.0))) == [[3.75, 8.0]], "its pixel is in the border"


def test_missing_places_of_a_fixed_number_are_zero():
    found = make_detectors({"sift": POINTS}, NATIVE, True, CPU)["sift"](IMAGE)
    assert found.xy.shape[1] > 2
    assert (found.xy[~found.valid] == 0).all()


def row_of_peaks(image):
    """The second peak is in the window of the first, the third in that of the second only."""
    scores = torch.full((1, 1, 30, 40), -torch.inf)
    for x, score in ((10, 3.0), (13, 2.0), (16, 1.0)):
        scores[0, 0, 15, x] = score
    return scores


def test_the_protocol_says_whether_suppression_is_greedy():
    assert detect("harris", row_of_peaks, nms_size=7) == [[10, 15]]
    assert detect("harris", row_of_peaks, nms_size=7, nms="greedy") == [[10, 15], [16, 15]]


def test_corner_needs_no_weights_and_its_keypoints_are_the_corners_of_a_square():
    image = np.zeros((60, 80), np.float32)
    image[20:40, 25:55] = 0.9
    image = torch.from_numpy(cv2.GaussianBlur(image, (0, 0), 1.0))[None, None]
    maps, skipped = score_maps(["corner"], weights="nowhere", baseline_weights=None, seed=0, device=CPU)
    assert not skipped
    found = detect("corner", maps["corner"], image=image)[:4]
    corners = [[25, 20], [25, 39], [54, 20], [54, 39]]
    assert np.abs(np.array(sorted(found)) - corners).max() < 2
    assert not (np.array(found) == np.round(found)).all()


def keypoints(*points):
    values = torch.tensor([points], dtype=torch.float32)
    return Keypoints(values[..., :2], values[..., 2], torch.ones(1, len(points), dtype=torch.bool))


class Files:
    """What the files say, and a note of what was asked for."""

    def __init__(self, *points):
        self.points, self.asked = points, []

    def __call__(self, *what):
        self.asked.append(what)
        return keypoints(*self.points)


def read(files, H=None, size=(30, 40), subpixel=True, **changes):
    protocol = replace(NATIVE, **({"nms_size": 5, "border": 0} | changes))
    H = torch.eye(3, dtype=torch.float64) if H is None else H
    found = KeypointFiles(files, protocol, subpixel).find("i_a", 3, (60, 80), H, size)
    return found.xy[found.valid].tolist()


def test_points_of_files_are_suppressed_and_kept_away_from_the_edge():
    files = Files((10.5, 10.0, 5.0), (12.5, 10.0, 4.0), (13.0, 10.0, 3.0), (3.25, 20.0, 2.0), (3.75, 25.0, 1.0))
    assert read(files) == [[10.5, 10.0], [13.0, 10.0], [3.25, 20.0], [3.75, 25.0]]  # the second is 2 px away
    assert files.asked == [("i_a", 3, (60, 80))]
    assert read(files, border=4) == [[10.5, 10.0], [13.0, 10.0], [3.75, 25.0]]  # 4 px: from x = 3.5 on
    assert read(files, nms_size=1)[:3] == [[10.5, 10.0], [12.5, 10.0], [13.0, 10.0]]


def test_points_of_files_go_where_the_image_goes():
    """Halved, pixel edges aligned: x -> x / 2 - 1/4; then 3 columns are cut off at the left, 2 rows at the top."""
    H = translation(-3, -2) @ resize_matrix((60, 80), (30, 40))
    files = Files((20.5, 30.5, 2.0), (5.0, 30.0, 1.0))  # the second goes to x = -0.75, outside
    assert read(files, H, (26, 34)) == [[7.0, 13.0]]
    assert read(files, H, (26, 34), subpixel=False) == [[7.0, 13.0]]


def test_points_of_files_are_whole_without_subpixel():
    files = Files((10.4, 10.0, 5.0), (12.6, 10.2, 4.0), (39.5, 20.0, 3.0))
    assert read(files) == [pytest.approx([10.4, 10.0]), pytest.approx([12.6, 10.2]), [39.5, 20.0]]
    assert read(files, subpixel=False) == [[10, 10], [13, 10], [39, 20]]


def test_detectors_can_be_sent_to_another_process():
    maps, _ = score_maps(["corner", "sift", "random"], weights="nowhere", baseline_weights=None, seed=0, device=CPU)
    made = make_detectors(maps, NATIVE, True, CPU)
    image = torch.rand(1, 1, 50, 60, generator=torch.Generator().manual_seed(0))
    for name, again in pickle.loads(pickle.dumps(made)).items():
        assert torch.equal(again(image).xy, made[name](image).xy)
