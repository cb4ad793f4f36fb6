"""The detectors whose cost is measured, each as a function of an image that finds its best 1000 keypoints.

The networks of Kornia have random weights, which cost as much as trained ones. A random score map has maxima all over,
so that there are 1000 keypoints. What is timed is what Kornia's users call: ``detectAndCompute`` of XFeat and
``forward`` of ALIKED and DISK, with their descriptors, and ``forward`` of ``KeyNetDetector``: Key.Net's response on a
pyramid of the image, keypoints with a scale and no descriptor, no orientation and no affine shape. Of OpenCV it is
``detect``, and of ORB and SIFT also ``detectAndCompute``.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
from kornia.feature import ALIKED, DISK, KeyNetDetector, XFeat
from torch import Tensor

from kp.config import DESCRIBED, WEIGHTS
from kp.evaluation.baselines import BASELINES, to_gray8
from kp.features import onnx
from kp.features.graph import KeypointGraph
from kp.models.checkpoint import SHIPPED, load_detector
from kp.models.corner import floor_detector
from kp.models.cost import find_and_describe
from kp.models.keypoints import extract_keypoints

REFERENCE = "xfeat"
ONNX, COMPILED = f"{WEIGHTS}, onnxruntime", f"{WEIGHTS}, torch.compile"  # of a graph with the keypoints in it
COUNT = 1000

_OPENCV = {
    "fast": cv2.FastFeatureDetector_create,
    "orb": partial(cv2.ORB_create, COUNT),
    "sift": partial(cv2.SIFT_create, COUNT),
}

Find = Callable[[Tensor], object]  # of a grey image (1, 1, H, W) in [0, 1]


class Timed(NamedTuple):
    """What makes a detector, whether it also computes descriptors, and whether it is compiled for a size of image."""

    make: Callable[[], Find]
    descriptors: bool = False
    compiled: bool = False


def detectors(onnx_file: Path) -> dict[str, Timed]:
    """All detectors by name. ``onnx_file`` is what :func:`export` has written."""
    return {
        REFERENCE: Timed(_xfeat, descriptors=True),
        "aliked": Timed(partial(_aliked, "aliked-n16"), descriptors=True),
        "aliked-t16": Timed(partial(_aliked, "aliked-t16"), descriptors=True),
        "disk": Timed(_disk, descriptors=True),
        "keynet": Timed(_keynet),
        "corner": Timed(partial(_ours, None)),
        **{name: Timed(partial(_ours, name), descriptors=name == DESCRIBED) for name in SHIPPED},
        ONNX: Timed(partial(_onnxruntime, onnx_file)),
        COMPILED: Timed(_compiled, compiled=True),
        "harris": Timed(_harris),
        **{name: Timed(partial(_opencv, name)) for name in _OPENCV},
        **{f"{name}, detectAndCompute": Timed(partial(_opencv, name, True), True) for name in ("orb", "sift")},
    }


def export(onnx_file: Path) -> None:
    """Write the file for onnxruntime. Raises ValueError, in one line, where it cannot be made."""
    onnx_file.write_bytes(onnx.to_onnx(_graph(), {}))


def _graph() -> KeypointGraph:
    return KeypointGraph(load_detector(WEIGHTS), COUNT).eval()


def _ours(name: str | None) -> Find:
    detector = floor_detector() if name is None else load_detector(name)
    return partial(find_and_describe, detector, count=COUNT)


def _onnxruntime(file: Path) -> Find:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # or it would slow the detector after it
    session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    outputs = [onnx.KEYPOINTS, onnx.KEYPOINT_SCORES, onnx.VALID]
    return lambda image: session.run(outputs, {onnx.IMAGE: image.numpy()})


def _compiled() -> Find:
    return torch.compile(_graph(), dynamic=False)


def _xfeat() -> Find:
    network: Any = _random(partial(XFeat, top_k=COUNT, detection_threshold=-1.0))
    return lambda image: network.detectAndCompute(image)


def _aliked(model_name: str) -> Find:
    network = _random(partial(ALIKED, model_name, max_num_keypoints=COUNT))
    return lambda image: network(image.expand(-1, 3, -1, -1))


def _disk() -> Find:
    network = _random(DISK)
    return lambda image: network(image.expand(-1, 3, -1, -1), COUNT, pad_if_not_divisible=True)


def _keynet() -> Find:
    return _random(partial(KeyNetDetector, pretrained=False, num_features=COUNT))


def _random(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """A network with weights of a fixed seed."""
    torch.manual_seed(0)
    return make().eval()


def _harris() -> Find:
    return lambda image: extract_keypoints(BASELINES["harris"](image), COUNT, subpixel=True)


def _opencv(name: str, descriptors: bool = False) -> Find:
    detector = _OPENCV[name]()
    find = detector.detectAndCompute if descriptors else detector.detect
    return lambda image: find(to_gray8(image), None)
