"""One detector copied by its state, and one used by several threads at once, find the same keypoints."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest
import torch

from kp.models.build import make_detector
from kp.models.checkpoint import find_weights, load_detector, read_metadata, read_weights

NAMES = ("default", "ranked", "mobilenet_v3_small")


def found(detector, image):
    with torch.no_grad():
        keypoints = detector.keypoints(image, 50, subpixel=True)
    return torch.cat([keypoints.xy, keypoints.scores[..., None]], dim=-1)


def saved_and_loaded(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_goes_there_and_back(name):
    torch.manual_seed(0)
    image, first = torch.rand(1, 1, 96, 120), load_detector(name)
    expected = found(first, image)
    other = make_detector(first.settings, pretrained=False)
    other.settle()
    other.load_state_dict(saved_and_loaded(first.state_dict()))
    assert torch.equal(found(other.eval(), image), expected)
    trained = make_detector(first.settings, pretrained=False)  # as it is while it is trained
    trained.load_state_dict(saved_and_loaded(read_weights(find_weights(name))[0]))
    again = make_detector(first.settings, pretrained=False)
    again.load_state_dict(saved_and_loaded(trained.state_dict()))
    assert torch.allclose(found(again.eval(), image), expected, atol=1e-4)
    assert read_metadata(find_weights(name))["settings"]["detector"]["encoder"] == first.settings.encoder
    for copy in (deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert torch.equal(found(copy, image), expected)


@pytest.mark.parametrize("name", NAMES)
def test_several_threads_find_what_one_finds(name):
    torch.manual_seed(0)
    images = [torch.rand(1, 1, 90 + 7 * n, 130 - 5 * n) for n in range(6)] * 3
    detector = load_detector(name)
    expected = [found(detector, image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: found(detector, image), images))
    assert all(torch.equal(a, b) for a, b in zip(together, expected, strict=True))
