"""What it costs to find the best 1000 keypoints of an image: time beside other detectors, and peak memory.

All detectors take turns in one process, so that a busy machine slows all of them; the median time and its ratio to
XFeat's ``detectAndCompute`` count. The memory is that of a process of its own for each detector.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import cv2
import torch
from kornia.feature import XFeat
from torch import Tensor

from kp.data import photographs
from kp.data.hpatches import read_image
from kp.evaluation.baselines import BASELINES, to_gray8
from kp.geometry.coords import Size, resize
from kp.models.checkpoint import SHIPPED, load_detector
from kp.models.corner import floor_detector
from kp.models.keypoints import extract_keypoints
from kp.support.device import keep_freed_memory
from kp.support.process import peak_memory

REFERENCE = "xfeat"  # descriptors included; random weights cost as much as trained ones
_FILE = "brick.png"  # of the built-in photographs: textured all over, so that every detector has 1000 keypoints
_COUNT = 1000

Find = Callable[[Tensor], object]


class Cost(NamedTuple):
    """The cost of a detector: the median ``milliseconds`` of an image, and the peak ``bytes_per_pixel`` or None."""

    name: str
    threads: int
    milliseconds: float
    bytes_per_pixel: float | None


def measure(size: Size, threads: int, repeats: int = 15, memory: bool = True) -> list[Cost]:
    """The cost of every detector on an image of ``size`` (H, W).

    Args:
        threads: of torch and of OpenCV.
        repeats: images for each detector.
        memory: also measure the peak memory, where ``/proc`` tells it.
    """
    milliseconds = _in_process(_milliseconds, size, threads, repeats)
    names = list(milliseconds)
    can = memory and Path("/proc/self/status").exists()
    peaks = {name: _in_process(_peak, size, threads, name) / (size[0] * size[1]) for name in names} if can else {}
    return [Cost(name, threads, milliseconds[name], peaks.get(name)) for name in names]


def _detectors() -> Mapping[str, Callable[[], Find]]:
    """What makes each detector, by name."""
    makers: dict[str, Callable[[], Find]] = {name: partial(_ours, name) for name in SHIPPED}
    makers |= {name: partial(_classical, name) for name in ("harris", "fast", "orb", "sift")}
    return {REFERENCE: _xfeat, "corner": _floor} | makers


def _ours(name: str) -> Find:
    return partial(load_detector(name).keypoints, max_keypoints=_COUNT, subpixel=True)


def _floor() -> Find:
    return partial(floor_detector().keypoints, max_keypoints=_COUNT, subpixel=True)


def _xfeat() -> Find:
    torch.manual_seed(0)
    network = XFeat(top_k=_COUNT, detection_threshold=-1.0).eval()
    return lambda image: network.detectAndCompute(image)


def _classical(name: str) -> Find:
    if name == "harris":
        return lambda image: extract_keypoints(BASELINES["harris"](image), _COUNT, subpixel=True)
    create = {"fast": cv2.FastFeatureDetector_create, "orb": cv2.ORB_create, "sift": cv2.SIFT_create}[name]
    detector = create() if name == "fast" else create(_COUNT)
    return lambda image: detector.detect(to_gray8(image), None)


def _image(size: Size) -> Tensor:
    return resize(read_image(photographs.folder() / _FILE), size).clamp(0, 1).contiguous()


def _in_process(work: Callable, size: Size, threads: int, choice: object) -> object:
    with ProcessPoolExecutor(1, get_context("spawn"), _prepare, (threads,)) as pool:
        return pool.submit(work, size, choice).result()


def _prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    keep_freed_memory()


@torch.inference_mode()
def _milliseconds(size: Size, repeats: int) -> dict[str, float]:
    image, found = _image(size), {name: make() for name, make in _detectors().items()}
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(repeats + 1):
        for name, find in found.items():
            began = time.perf_counter()
            find(image)
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: median(values[1:]) for name, values in times.items()}


@torch.inference_mode()
def _peak(size: Size, name: str) -> int:
    """Bytes by which one image raises the peak memory of this process. A small image first loads what is needed."""
    find, image = _detectors()[name](), _image(size)
    find(image[..., :64, :64].contiguous())
    before = peak_memory()
    find(image)
    return peak_memory() - before
