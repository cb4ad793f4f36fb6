"""ONNX: onnxruntime gives the keypoints and score maps of torch, at sizes other than that of the export."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from kornia.filters import gaussian_blur2d

import kp
from kp import __version__, load_detector
from kp.cli.errors import ERROR
from kp.cli.main import main
from kp.config import DESCRIBED
from kp.data import photographs
from kp.data.hpatches import read_image
from kp.features.graph import KeypointGraph
from kp.features.onnx import DESCRIPTORS, IMAGE, KEYPOINT_SCORES, KEYPOINTS, SCORES, VALID, to_onnx
from kp.models.detector import Detector


@pytest.fixture(scope="module")
def exported(onnx_file):
    return onnxruntime.InferenceSession(onnx_file)


@pytest.mark.parametrize("shape", [(1, 240, 320), (3, 97, 65), (1, 123, 457), (1, 31, 33), (2, 7, 9)])
def test_score_maps_are_torchs(exported, shape):
    batch, height, width = shape
    images = torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(height))
    with torch.inference_mode():
        expected = load_detector()(images).numpy()
    (scores,) = exported.run([SCORES], {IMAGE: images.numpy()})
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert expected.std() > 0.1


def test_keypoints_on_photographs_are_torchs(exported):
    same = total = 0
    for file in photographs.FILES:
        image = read_image(photographs.folder() / file)
        with torch.inference_mode():
            expected = load_detector().keypoints(image, 1024, nms_size=9, border=4, subpixel=True)
        keep = expected.valid & (expected.scores.sigmoid() > 0.105)
        keypoints, scores, valid = exported.run([KEYPOINTS, KEYPOINT_SCORES, VALID], {IMAGE: image.numpy()})
        assert valid.sum() > 500
        assert abs(int(valid.sum()) - int(keep.sum())) <= 1
        assert (np.diff(scores) <= 0).all()
        assert not keypoints[~valid].any()
        assert not scores[~valid].any()
        apart = torch.cdist(expected.xy[keep].double(), torch.from_numpy(keypoints[valid]).double()).amin(1)
        same, total = same + int((apart < 0.01).sum()), total + len(apart)
    assert same >= 0.999 * total


def test_everything_learnt_is_torchs_in_images_of_any_size():
    """Keypoints in the order of the ranker and their descriptors, in sizes other than that of torch's example."""
    detector = load_detector(DESCRIBED)
    graph = KeypointGraph(detector, 100)
    exported = onnxruntime.InferenceSession(to_onnx(graph, {}))
    outputs = {value.name: value.shape for value in exported.get_outputs()}
    assert list(outputs) == [KEYPOINTS, KEYPOINT_SCORES, VALID, DESCRIPTORS, SCORES]
    assert outputs[DESCRIPTORS] == ["batch", 100, 128]
    photo = read_image(photographs.folder() / photographs.FILES[0])
    for image in (photo[..., :97, :131], photo[..., 1:, :-2], photo[..., 40:70, :]):
        keypoints, valid, descriptors = exported.run([KEYPOINTS, VALID, DESCRIPTORS], {IMAGE: image.numpy()})
        with torch.inference_mode():
            wanted, _, there, _ = graph(image)
            expected = detector.describe(image, torch.from_numpy(keypoints))
        assert valid.sum() > 20
        apart = torch.cdist(wanted[there].double(), torch.from_numpy(keypoints[valid]).double()).amin(1)
        assert (apart < 0.01).sum() >= len(apart) - 2  # ties at the last place
        np.testing.assert_allclose(descriptors[valid], expected.numpy()[valid], atol=2e-3)
        assert not descriptors[~valid].any()


def test_each_image_of_a_batch_has_its_own_keypoints(exported):
    images = torch.rand(3, 1, 61, 80, generator=torch.Generator().manual_seed(1)).numpy()
    together = exported.run([KEYPOINTS, VALID], {IMAGE: images})
    alone = [exported.run([KEYPOINTS, VALID], {IMAGE: image[None]}) for image in images]
    for found, each in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(found, np.concatenate(each), atol=2e-3)


def test_of_equal_scores_the_first_pixel_comes_first(exported):
    # A checked board: equal corners, which the runtime has to sort as torch does.
    board = np.kron(np.indices((6, 8)).sum(0) % 2, np.ones((16, 16))).astype(np.float32)[None, None]
    keypoints, scores, valid = exported.run([KEYPOINTS, KEYPOINT_SCORES, VALID], {IMAGE: board})
    keypoints, scores = keypoints[valid], scores[valid]
    equal = np.flatnonzero(np.diff(scores) == 0)
    assert len(equal) > 5
    pixels = np.round(keypoints)
    assert (pixels[equal, 1] * 128 + pixels[equal, 0] < pixels[equal + 1, 1] * 128 + pixels[equal + 1, 0]).all()


@pytest.mark.exact
def test_sizes_are_exported_too(monkeypatch):
    # A blur replaces the network: the file would hold the network once for each size, which takes minutes to export.
    monkeypatch.setattr(Detector, "at_one_scale", lambda self, grey: gaussian_blur2d(20 * grey - 10, (7, 7), (1, 1)))
    detector = Detector(num_scales=3).eval()  # larger, as it is, smaller
    exported = onnxruntime.InferenceSession(to_onnx(KeypointGraph(detector, 20), {}))
    for size in ((97, 66), (123, 240)):
        image = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = detector(image).numpy()
        np.testing.assert_allclose(exported.run([SCORES], {IMAGE: image.numpy()})[0], expected, atol=1e-3)


@pytest.mark.exact
def test_a_detector_with_an_encoder_is_exported_too():
    detector = load_detector("mobilenet_v3_small")
    exported = onnxruntime.InferenceSession(to_onnx(KeypointGraph(detector, 20), {}))
    images = torch.rand(2, 1, 97, 65, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = detector(images).numpy()
    np.testing.assert_allclose(exported.run([SCORES], {IMAGE: images.numpy()})[0], expected, atol=1e-3)


def test_names_and_facts(exported):
    assert [value.name for value in exported.get_inputs()] == [IMAGE]
    assert exported.get_inputs()[0].shape == ["batch", 1, "height", "width"]
    shapes = {value.name: value.shape for value in exported.get_outputs()}
    assert list(shapes) == [KEYPOINTS, KEYPOINT_SCORES, VALID, SCORES]
    assert shapes[KEYPOINTS] == ["batch", 1024, 2]
    assert shapes[KEYPOINT_SCORES] == shapes[VALID] == ["batch", 1024]
    assert shapes[SCORES] == ["batch", 1, "height", "width"]
    facts = exported.get_modelmeta().custom_metadata_map
    assert json.loads(facts["kp"]) == __version__
    assert json.loads(facts["settings"])["train"]["seed"] == 0
    assert json.loads(facts["num_keypoints"]) == 1024
    assert json.loads(facts["detection_threshold"]) == 0.105


def test_the_file_holds_no_path_of_this_machine(onnx_file):
    assert str(Path(kp.__file__).parents[1]).encode() not in onnx_file.read_bytes()


@pytest.mark.parametrize(
    "flags",
    [["--keypoints", "0"], ["--nms-radius", "-1"], ["--border", "-1"], ["--threshold", "1"], ["--threshold", "nan"]],
)
def test_bad_numbers_are_told_before_any_work(flags, tmp_path, capsys):
    assert main(["export", str(tmp_path / "new" / "a.onnx"), *flags, "--weights", "none"]) == ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert flags[0] in line
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_exported_is_one_line(tmp_path, capsys):
    assert main(["export", str(tmp_path / "a.onnx"), "--weights", str(tmp_path / "none")]) == ERROR
    assert "no weights at" in capsys.readouterr().err
    (tmp_path / "folder.onnx").mkdir()
    assert main(["export", str(tmp_path / "folder.onnx")]) == ERROR
    assert len(capsys.readouterr().err.splitlines()) == 1


class Branching(Detector):
    """What torch has no graph for: it depends on values."""

    def score_map(self, image):
        return image if image.sum() > 0 else -image


class Unknown(Detector):
    """What ONNX has no operator for."""

    def score_map(self, image):
        return torch.linalg.eigvals(image[..., :8, :8]).real[..., None]


@pytest.mark.parametrize("kind", [Branching, pytest.param(Unknown, marks=pytest.mark.exact)])
def test_what_torch_cannot_export_is_one_line(kind):
    with pytest.raises(ValueError, match=r"cannot export this: [^\n]+$"):
        to_onnx(KeypointGraph(kind()), {})
