"""What the shipped detectors cost, and where they are from: a line for each file of weights."""

import time
from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kp.config import DESCRIPTOR_SCALES
from kp.geometry.coords import Size
from kp.models.checkpoint import load_detector, read_metadata
from kp.models.detector import Detector, describes

_COUNT = 1000  # keypoints of which the time is taken
SIZE: Size = (480, 640)  # pixels: what the field quotes operations for


def cost(detector: nn.Module, size: Size = SIZE) -> dict[str, float]:
    """Parameters, and billions of multiplications with addition (GMAC) for one image: convolutions, blurs included.

    With a describer also those of the descriptors of 1000 keypoints.
    """
    plain = deepcopy(detector)
    if isinstance(plain, Detector):
        plain.settle()  # torch's counter does not know parametrised weights
        plain.use_opencv = False  # nor OpenCV
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        plain(torch.zeros(1, 1, *size))
        if describes(plain):
            image, xy = torch.zeros(1, 1, *size), torch.zeros(1, _COUNT, 2)
            plain.describe(image, xy)
            plain.describe_smaller(image, xy, DESCRIPTOR_SCALES - 1)  # in this thread: the counter sees no other
    learnt = [*detector.parameters(), *([detector.describer.side_maps] if describes(detector) else [])]
    return {
        "parameters": sum(values.numel() for values in learnt),
        "gmac": counter.get_total_flops() / 2e9,
    }


@torch.inference_mode()
def milliseconds(detector: nn.Module, size: Size = SIZE, repeats: int = 9) -> float:
    """The median time of 1000 refined keypoints on this CPU, with as many threads as torch has.

    With a describer that of keypoints and descriptors.
    """
    image, times = torch.rand(1, 1, *size), []
    find = partial(find_and_describe, detector, count=_COUNT) if isinstance(detector, Detector) else detector
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        find(image)
        times.append(1e3 * (time.perf_counter() - begun))
    return median(times[1:])


def find_and_describe(detector: Detector, image: torch.Tensor, count: int) -> object:
    """The refined keypoints of an image (1, 1, H, W), and their descriptors in all sizes if it has a describer."""
    found = detector.keypoints(image, max_keypoints=count, subpixel=True)
    return (found, detector.describe_in_sizes(image, found.xy, DESCRIPTOR_SCALES)) if describes(detector) else found


def describe(weights: Mapping[str, Path]) -> list[dict[str, Any]]:
    """A row for each file by name: cost, size, time here, and what its metadata says. Raises CheckpointError."""
    rows = []
    for name, path in weights.items():
        detector, facts = load_detector(path), read_metadata(path)
        row = {"name": name} | cost(detector) | {"kilobytes": path.stat().st_size / 1e3}
        row |= {"ms": milliseconds(detector), "threads": torch.get_num_threads()}
        row |= {"steps": facts["step"], "minutes": facts["seconds"] / 60, **facts["scores"]}
        rows.append(row | {"revision": facts.get("revision")})
    return rows
