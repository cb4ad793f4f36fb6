"""Keypoints in a graph of fixed operations: those of a loop over pixels, ties and all, whatever runs the graph."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

import kp
from kp import load_detector
from kp.config import DESCRIBED
from kp.data import photographs
from kp.data.hpatches import read_image
from kp.features.graph import KeypointGraph
from kp.features.images import to_grey_image
from kp.models.detector import Detector
from kp.models.keypoints import extract_keypoints

AUTO = torch.export.Dim.AUTO


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def graph(count=50, radius=4, border=4, threshold=0.0, subpixel=False):
    return KeypointGraph(load_detector(), count, radius, border, threshold, subpixel)


def by_hand(scores, radius, border, threshold):
    """The keypoints (x, y, score) of a map (H, W), best first: a pixel against each pixel of its window, one by one."""
    height, width = scores.shape
    found = []
    for y in range(border, height - border):
        for x in range(border, width - border):
            others = [
                (scores[v, u], (v, u) < (y, x))
                for v in range(max(0, y - radius), min(height, y + radius + 1))
                for u in range(max(0, x - radius), min(width, x + radius + 1))
                if (v, u) != (y, x)
            ]
            best = all(scores[y, x] > score if before else scores[y, x] >= score for score, before in others)
            if best and scores[y, x] > -np.inf and 1 / (1 + np.exp(-scores[y, x])) > threshold:
                found.append((x, y, scores[y, x]))
    return sorted(found, key=lambda keypoint: -keypoint[2])  # a stable sort: of equal scores the first pixel


@pytest.mark.parametrize(
    ("radius", "border", "threshold", "size"),
    [(4, 4, 0.0, (31, 37)), (2, 0, 0.5, (20, 29)), (1, 1, 0.3, (13, 12)), (0, 2, 0.0, (9, 11)), (3, 5, 0.0, (9, 30))],
)
def test_keypoints_are_those_of_a_loop_over_pixels(radius, border, threshold, size):
    maps = torch.randint(-3, 4, (3, 1, *size), generator=seeded(radius)).float()  # so few values that most are equal
    maps[1] = torch.randn(size, generator=seeded(9))
    maps[torch.rand(maps.shape, generator=seeded(8)) < 0.1] = -torch.inf
    expected = [by_hand(scores[0].double().numpy(), radius, border, threshold) for scores in maps]
    most = max(map(len, expected))
    for count in (most + 3, max(1, most // 2)):
        keypoints, scores, valid = graph(count, radius, border, threshold).keypoints(maps, maps)
        for image, rows in enumerate(expected):
            rows = np.array(rows[:count]).reshape(-1, 3)
            assert valid[image].tolist() == [place < len(rows) for place in range(count)]
            np.testing.assert_array_equal(keypoints[image, : len(rows)], rows[:, :2])
            np.testing.assert_allclose(scores[image, : len(rows)], 1 / (1 + np.exp(-rows[:, 2])), rtol=1e-6)
            assert not keypoints[image, len(rows) :].any()
            assert not scores[image, len(rows) :].any()


def test_a_plateau_gives_one_keypoint_and_nothing_gives_none():
    maps = torch.zeros(2, 1, 40, 40)
    maps[1] = -torch.inf
    keypoints, _, valid = graph(8, border=0).keypoints(maps, maps)
    assert valid.sum(1).tolist() == [1, 0]
    assert keypoints[0, 0].tolist() == [0, 0]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])
def test_images_with_fewer_pixels_than_places(size):
    with torch.inference_mode():
        keypoints, scores, valid = graph(1024, radius=1, border=0)(torch.rand(2, 1, *size, generator=seeded(0)))
    assert keypoints.shape == (2, 1024, 2)
    assert scores.shape == valid.shape == (2, 1024)
    assert valid[:, 0].all()


def test_a_top_between_pixels_is_found():
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    scores = -((x - 17.3) ** 2 + 0.5 * (y - 12.1) ** 2 + 0.4 * (x - 17.3) * (y - 12.1))
    keypoints, _, valid = graph(1, subpixel=True).keypoints(scores[None, None], scores[None, None])
    assert valid.all()
    np.testing.assert_allclose(keypoints[0, 0], (17.3, 12.1), atol=1e-3)


@pytest.mark.parametrize("name", ["default", "mobilenet_v3_small"])
def test_photographs_have_the_detectors_keypoints(name):
    detector = load_detector(name)
    detector.use_opencv = False
    found = KeypointGraph(detector, 400, nms_radius=3, remove_borders=7)
    with torch.inference_mode():
        for file in ("camera.png", "coffee.png"):
            image = read_image(photographs.folder() / file)[..., :301, :402]
            expected = detector.keypoints(image, 400, nms_size=7, border=7, subpixel=True)
            keep = expected.valid & (expected.scores.sigmoid() > 0.105)
            keypoints, scores, valid = found(image)
            assert torch.equal(valid, keep)
            assert valid.sum() > 100
            assert torch.equal(keypoints[keep], expected.xy[keep])
            torch.testing.assert_close(scores[keep], expected.scores[keep].sigmoid())


def test_many_equal_scores_are_as_in_the_detector():
    maps = torch.randint(0, 3, (2, 1, 97, 120), generator=seeded(3)).float()
    expected = extract_keypoints(maps, 200, nms_size=9, border=4, subpixel=True)
    keypoints, _, valid = graph(200, subpixel=True).keypoints(maps, maps)
    assert torch.equal(keypoints, expected.xy)
    assert torch.equal(valid, expected.valid)


@pytest.mark.exact  # the ONNX file is made of such an export, too
def test_torch_exports_it_for_any_size():
    module = graph(64, threshold=0.105, subpixel=True)
    sizes = ({0: AUTO, 2: AUTO, 3: AUTO},)
    program = torch.export.export(module, (torch.zeros(2, 1, 65, 97),), dynamic_shapes=sizes, strict=False)
    check_same(module, program.module(), [(1, 80, 61), (3, 34, 120), (1, 19, 19)])


def compiled(module, **choices):
    return torch.compile(copy.deepcopy(module), fullgraph=True, backend="eager", **choices)


def test_torch_compiles_it_in_one_graph():
    module = graph(64, threshold=0.105, subpixel=True)
    check_same(module, compiled(module, dynamic=False), [(3, 80, 61)])


class Plain(Detector):
    """Scores that are the grey levels: the corner response takes most of a minute to compile for any size."""

    def at_one_scale(self, grey):
        return 20 * grey - 10


def test_torch_compiles_the_search_for_keypoints_in_one_graph_for_any_size():
    module = KeypointGraph(Plain().eval(), 64, subpixel=True)
    check_same(module, compiled(module, dynamic=True), [(2, 80, 61), (3, 33, 120)])


@pytest.mark.exact
def test_torch_compiles_all_of_it_in_one_graph_for_any_size():
    module = graph(64, threshold=0.105, subpixel=True)
    check_same(module, compiled(module, dynamic=True), [(2, 80, 61), (3, 33, 120)])


def check_same(module, other, shapes):
    """The two find the same keypoints to 0.01 px: what is rounded differently may change a keypoint in a thousand."""
    found, missing = 0, 0
    for batch, *size in shapes:
        images = torch.rand(batch, 1, *size, generator=seeded(size[0]))
        with torch.no_grad():
            pairs = zip(module(images)[::2], other(images)[::2], strict=True)
        (keypoints, keypoints_too), (valid, valid_too) = pairs
        assert valid.any(1).all()
        for a, b in zip(keypoints.split(1), keypoints_too.split(1), strict=True):
            a, b = a[valid[:1]].double(), b[valid_too[:1]].double()
            valid, valid_too = valid[1:], valid_too[1:]
            found += len(a)
            missing += int((torch.cdist(a, b).amin(1) > 0.01).sum())
    assert found > 100
    assert missing <= 1


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        ({"num_keypoints": 0}, "num_keypoints"),
        ({"nms_radius": -1}, "nms_radius"),
        ({"remove_borders": -1}, "remove_borders"),
        ({"detection_threshold": 1.0}, "detection_threshold"),
        ({"detection_threshold": float("nan")}, "detection_threshold"),
    ],
)
def test_numbers_without_keypoints_are_refused(numbers, name):
    with pytest.raises(ValueError, match=name):
        KeypointGraph(load_detector(), **numbers)


def test_a_detector_is_not_changed():
    detector = load_detector()
    KeypointGraph(detector)
    assert detector.use_opencv


def distances(xy, wanted):
    """Pixels (K,) from keypoints (1, K, 2) to the nearest of an extractor's."""
    return torch.cdist(xy[0].double(), wanted["keypoints"][0].double()).amin(1)


def test_a_ranker_gives_the_order_that_the_extractor_gives():
    """In an image in which it sees four candidates for a keypoint, and one so large that it sees more."""
    for photo, count in ((data.camera()[100:350, 80:400], 100), (data.astronaut(), 20)):
        wanted = kp.Extractor("ranked", max_num_keypoints=count).extract(photo)
        grey = to_grey_image(photo)[0]
        with torch.inference_mode():
            xy, scores, valid = KeypointGraph(load_detector("ranked"), count)(grey)
            plain, _, _ = KeypointGraph(load_detector(), count)(grey)
        assert valid.all()
        assert (distances(xy, wanted) < 0.01).sum() >= count - 1  # a tie at the last place
        assert torch.allclose(scores, wanted["keypoint_scores"], atol=1e-3)
        assert (distances(plain, wanted) < 0.01).sum() < 0.97 * count


def test_the_page_in_the_browser_begins_with_the_default_keypoints():
    """The threshold is in its file, which holds for scores before they are ranked; its slider begins at 0."""
    demo = Path(__file__).parents[2] / "notebooks" / "demo"
    page = (demo / "src" / "index.html").read_text()
    assert [float(value) for value in re.findall(r'id="threshold"[^>]* value="([^"]+)"', page)] == [0]
    assert "--threshold" not in (demo / "build.mjs").read_text()


def test_the_graph_of_a_describer_gives_its_descriptors_and_none_without_a_keypoint():
    detector = load_detector(DESCRIBED)
    camera = torch.from_numpy(data.camera()[100:221, 80:257]).float()[None, None] / 255
    images = torch.cat([camera, torch.zeros_like(camera)])
    with torch.inference_mode():
        keypoints, scores, valid, descriptors = KeypointGraph(detector, 60)(images)
        plain = KeypointGraph(load_detector("ranked"), 60)(images)
        expected = detector.describe(images, keypoints)
    assert all(torch.equal(*both) for both in zip(plain, (keypoints, scores, valid), strict=True))
    assert descriptors.shape == (2, 60, 128)
    assert torch.allclose(descriptors[0], expected[0], atol=1e-4)
    assert valid[0].all()
    assert not valid[1].any()
    assert not descriptors[1].any()
