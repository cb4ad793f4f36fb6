"""The adapters against the interfaces that hloc, glue-factory and vismatch document, with stand-ins of their bases."""

import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

import kp

IMAGE = torch.from_numpy(data.camera()[100:340, 80:400] / 255.0).float()[None, None]


class Base(nn.Module):
    """What the bases of hloc and glue-factory do with a model: merge the configuration, check the input, call it."""

    def __init__(self, conf):
        super().__init__()
        self.conf = {**self.default_conf, **conf}
        self._init(self.conf)

    def forward(self, inputs):
        wanted = getattr(self, "required_inputs", getattr(self, "required_data_keys", None))
        assert all(key in inputs for key in wanted)
        return self._forward(inputs)


class Matcher(nn.Module):
    """vismatch's base: tensors (3, H, W) in [0, 1]."""

    def __init__(self, device="cpu", **kwargs):
        super().__init__()
        self.device = device

    def forward(self, image0, image1):
        outputs = self._forward(image0, image1)
        assert len(outputs) == 7
        return outputs


@pytest.fixture
def adapter(monkeypatch, request):
    """An adapter's module; the project it is for is a stand-in."""
    name, base = request.param
    for part in ("hloc", "hloc.utils", "gluefactory", "gluefactory.models", "vismatch"):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    for part in ("hloc.utils.base_model", "gluefactory.models.base_model", "vismatch.base_matcher"):
        monkeypatch.setitem(sys.modules, part, SimpleNamespace(BaseModel=base, BaseMatcher=base))
    monkeypatch.delitem(sys.modules, f"kp.features.adapters.{name}", raising=False)
    yield import_module(f"kp.features.adapters.{name}")
    sys.modules.pop(f"kp.features.adapters.{name}")


def models(module, base):
    """The classes that hloc and glue-factory would find in a file: those of the base that are defined there."""
    found = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, base)]
    return [c for c in found if c.__module__ == module.__name__]


@pytest.mark.parametrize("adapter", [("hloc", Base)], indirect=True)
def test_hloc(adapter):
    (model,) = models(adapter, Base)
    found = model({"max_keypoints": 100})({"image": IMAGE})
    expected = kp.Extractor("described", max_num_keypoints=100).extract(IMAGE)
    assert all(isinstance(value, list) and len(value) == 1 for value in found.values())
    assert torch.equal(found["keypoints"][0], expected["keypoints"][0])
    assert found["scores"][0].shape == (100,)
    own = kp.Extractor("described", max_num_keypoints=100).extract(IMAGE)
    assert torch.equal(found["descriptors"][0], own["descriptors"][0].T)
    rootsift = model({"max_keypoints": 100, "descriptor": "rootsift"})({"image": IMAGE})
    assert rootsift["descriptors"][0].shape == (128, 100)
    plain = model({"max_keypoints": 100, "weights": "default"})({"image": IMAGE})
    assert plain["descriptors"][0].shape == (128, 100)
    # as hloc writes them: the scale of its preprocessing, then numpy
    assert np.isfinite({k: v[0].cpu().numpy() for k, v in found.items()}["descriptors"]).all()


@pytest.mark.parametrize("adapter", [("gluefactory", Base)], indirect=True)
def test_glue_factory(adapter):
    (model,) = models(adapter, Base)
    batch = torch.cat([IMAGE, torch.zeros_like(IMAGE)])
    found = model({"max_num_keypoints": 50, "detection_threshold": 0.105})({"image": batch})
    assert found["keypoints"].shape == (2, 50, 2)
    assert found["keypoint_scores"].shape == (2, 50)
    assert found["descriptors"].shape == (2, 50, 128)
    plain = model({"max_num_keypoints": 50, "weights": "default"})({"image": batch})
    assert plain["descriptors"].shape == (2, 50, 128)
    assert found["keypoint_valid"].sum(1).tolist() == [50, 0]


@pytest.mark.parametrize("adapter", [("vismatch", Matcher)], indirect=True)
def test_vismatch(adapter):
    (model,) = models(adapter, Matcher)
    moved = IMAGE.roll(7, dims=3)
    matcher = model(device="cpu", max_num_keypoints=200)
    xy0, xy1, all0, all1, descriptors0, descriptors1, scores = matcher(
        *(i[0].expand(3, -1, -1) for i in (IMAGE, moved))
    )
    assert len(all0) == len(descriptors0) == 200
    assert len(all1) == len(descriptors1) == 200
    assert xy0.shape == xy1.shape == (len(scores), 2)
    off = (xy1 - xy0 - torch.tensor([7.0, 0])).norm(dim=1)
    assert (off < 1).float().mean() > 0.8
    assert off.median() < 0.05
    assert len(model(max_num_keypoints=200, descriptor="rootsift")(*(i[0] for i in (IMAGE, moved)))[0]) > 100
    black = torch.zeros(3, 60, 80)
    assert [len(value) for value in matcher(black, black)] == [0] * 7
