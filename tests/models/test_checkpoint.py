"""Files of weights and checkpoints: what is none is told in one line; those of earlier versions load."""

import json
import os
from dataclasses import replace

import pytest
import torch

from kp.config import DetectorSettings, RunSettings
from kp.models.checkpoint import (
    SHIPPED,
    CheckpointError,
    load_checkpoint,
    load_detector,
    read_metadata,
    save_checkpoint,
    save_weights,
)
from kp.models.mobile import MobileDetector
from kp.support.settings import from_dict, to_dict

THREE_SCALES = {"derivative_sigmas": (0.7, 1.4, 2.8), "window_sigmas": (1.5, 2.0, 4.0), "half_size_scales": 0}
EARLIER = RunSettings(
    detector=DetectorSettings(
        **THREE_SCALES, encoder="mobilenet_v3_small", ranker_width=0, ranker_weight=0.0, descriptor_size=0
    )
)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_weights_that_are_none(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        load_detector(path)


def test_weights_of_something_else(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="no weights of kp"):
        load_detector(path)
    settings = to_dict(DetectorSettings())
    save_weights(path, MobileDetector(), {"detector": settings | {"encoder": "mobilenet_v3_large"}})
    with pytest.raises(CheckpointError, match="does not fit"):
        load_detector(path)
    del settings["mix_blur"]
    save_weights(path, MobileDetector(), {"detector": settings})
    with pytest.raises(CheckpointError, match="mix_blur are missing"):
        load_detector(path)
    save_weights(path, MobileDetector(), {"detector": {"colour": "blue"}})
    with pytest.raises(CheckpointError, match="unknown settings colour"):
        load_detector(path)


def earlier(settings):
    """The settings of a run, by group, as versions before the ten packages recorded them."""
    names = {
        "image_size": "crop",
        "illumination_only": "same_view",
        "viewpoint_only": "same_light",
        "prefetch_steps": "ahead",
        "keypoints_per_megapixel": "density",
        "match_radius": "slack",
        "temperature": "softness",
        "localization_weight": "repeatability_weight",
        "repeatability_weight": "ranking_weight",
    }
    groups = {group: {names.get(k, k): v for k, v in values.items()} for group, values in to_dict(settings).items()}
    network = ("encoder", "stride", "width", "symmetric", "normalised", "mix_blur", "darkness", "pretrained")
    groups["detector"] = {name: groups["detector"][name] for name in network}
    groups["detector"] |= {"prior": "corner", "shuffled": False, "scales": 1, "thinned": True}
    groups["train"] |= {"pooling": 0.0, "policy": False}
    del groups["camera"]
    for name in ("views", "still", "detail"):
        groups["world"].pop(name, None)
    groups["world"] |= {"views": 2}
    return groups


def test_weights_of_earlier_versions_load(tmp_path):
    torch.manual_seed(0)
    path, detector, image = (
        tmp_path / "w.safetensors",
        MobileDetector(EARLIER.detector).eval(),
        torch.rand(1, 1, 40, 48),
    )
    save_weights(path, detector, earlier(EARLIER))
    with torch.no_grad():
        assert torch.equal(load_detector(path)(image), detector(image))
    expected = json.loads(json.dumps(to_dict(EARLIER)))
    found = read_metadata(path)["settings"]
    assert found == {group: {name: expected[group][name] for name in found[group]} for group in found}
    assert set(found["detector"]) == set(expected["detector"])


def test_weights_older_than_dark_spots_have_none(tmp_path):
    torch.manual_seed(0)
    path, older, image = (
        tmp_path / "w.safetensors",
        MobileDetector(**THREE_SCALES, darkness=0.0).eval(),
        torch.rand(1, 1, 40, 48),
    )
    settings = earlier(EARLIER)
    del settings["detector"]["darkness"]
    save_weights(path, older, settings)
    with torch.no_grad():
        assert torch.equal(load_detector(path)(image), older(image))


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [("detector", "prior", "none"), ("detector", "shuffled", True), ("train", "pooling", 0.5)],
)
def test_a_removed_option_is_named(tmp_path, group, name, value):
    settings = earlier(EARLIER)
    settings[group][name] = value
    save_weights(tmp_path / "w.safetensors", MobileDetector(), settings)
    with pytest.raises(CheckpointError, match=f"{name} {value} is an option that only earlier versions have"):
        load_detector(tmp_path / "w.safetensors")


def test_a_checkpoint_of_earlier_versions_has_the_settings_by_their_names_of_today(tmp_path):
    settings = replace(EARLIER, train=replace(EARLIER.train, match_radius=2.0, localization_weight=0.5))
    save_checkpoint(tmp_path / "checkpoint.pt", {"settings": earlier(settings)})
    found = load_checkpoint(tmp_path / "checkpoint.pt")["settings"]
    assert from_dict(RunSettings, found) == settings


def test_shipped_weights_are_of_an_earlier_version_or_of_this_one():
    for path in SHIPPED.values():
        assert set(read_metadata(path)["settings"]["detector"]) == set(to_dict(DetectorSettings()))


def test_an_image_is_looked_at_in_as_many_sizes_as_asked():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 40, 48)
    with torch.no_grad():
        assert not torch.equal(load_detector(num_scales=2)(image), load_detector()(image))
    with pytest.raises(ValueError, match="at least one size, not 0"):
        load_detector(num_scales=0)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/owned",)

    torch.save({"step": 1, "evil": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="no file of plain weights") as refused:
        load_checkpoint(tmp_path / "checkpoint.pt")
    assert "weights_only" not in str(refused.value), "torch's advice to run it"
    assert not (tmp_path / "owned").exists()
