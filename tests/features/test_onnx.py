"""ONNX: onnxruntime gives the score maps of torch, at sizes other than that of the export."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from kornia.filters import gaussian_blur2d

from kp import __version__, load_detector
from kp.cli.errors import ERROR
from kp.cli.main import main
from kp.features.onnx import IMAGE, SCORES, to_onnx
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


def test_sizes_are_exported_too(monkeypatch):
    # A blur replaces the network: the file would hold the network once for each size, which takes minutes to export.
    monkeypatch.setattr(Detector, "at_one_scale", lambda self, grey: gaussian_blur2d(20 * grey - 10, (7, 7), (1, 1)))
    detector = Detector(num_scales=4).eval()
    exported = onnxruntime.InferenceSession(to_onnx(detector, {}))
    for size in ((97, 66), (123, 240)):
        image = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = detector(image).numpy()
        np.testing.assert_allclose(exported.run([SCORES], {IMAGE: image.numpy()})[0], expected, atol=1e-3)


@pytest.mark.exact
def test_a_detector_with_an_encoder_is_exported_too():
    detector = load_detector("mobilenet_v3_small")
    exported = onnxruntime.InferenceSession(to_onnx(detector, {}))
    images = torch.rand(2, 1, 97, 65, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = detector(images).numpy()
    np.testing.assert_allclose(exported.run([SCORES], {IMAGE: images.numpy()})[0], expected, atol=1e-3)


def test_names_and_facts(exported):
    assert [value.name for value in exported.get_inputs()] == [IMAGE]
    assert exported.get_inputs()[0].shape == ["batch", 1, "height", "width"]
    facts = exported.get_modelmeta().custom_metadata_map
    assert json.loads(facts["kp"]) == __version__
    assert json.loads(facts["settings"])["train"]["seed"] == 0


def test_what_cannot_be_exported_is_one_line(tmp_path, capsys):
    assert main(["export", str(tmp_path / "a.onnx"), "--weights", str(tmp_path / "none")]) == ERROR
    assert "no weights at" in capsys.readouterr().err
    (tmp_path / "folder.onnx").mkdir()
    assert main(["export", str(tmp_path / "folder.onnx")]) == ERROR
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(ValueError, match="cannot export this"):
        to_onnx(Unknown(), {})


class Unknown(torch.nn.Module):
    """What ONNX has no operator for."""

    def forward(self, image):
        return torch.linalg.eigvals(image[..., :8, :8]).real
