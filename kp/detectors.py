"""Every detector that can be measured, by name, behind one call: image -> keypoints, all with the same suppression."""

from collections.abc import Callable
from collections.abc import Sequence as Series
from functools import partial
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from kp.baselines import BASELINES, random_scores
from kp.checkpoint import load_detector
from kp.keypoints import Keypoints, extract_keypoints

Detector = Callable[[Tensor], Keypoints]  # image (1, 1, H, W) in [0, 1] -> all keypoints, after NMS and border, B = 1


def make_detectors(
    names: Series[str],
    *,
    weights: Path,
    nms_size: int,
    border: int,
    subpixel: bool,
    seed: int,
    device: torch.device,
) -> dict[str, Detector]:
    """The named detectors behind one call, all with the same NMS; ``kp`` runs the network of ``weights``.

    Raises ValueError on a name that is none, CheckpointError on weights that cannot be used.
    """
    scores = BASELINES | {"random": partial(_random_scores, seed=seed)}
    if "kp" in names:
        scores["kp"] = load_detector(weights, device)
    if unknown := [name for name in names if name not in scores]:
        raise ValueError(f"no detector is called {unknown[0]}: there are kp, {', '.join(scores)}")
    settings = {"nms_size": nms_size, "border": border, "device": device}
    return {
        name: partial(_detect, scores=scores[name], subpixel=subpixel and name == "kp", **settings) for name in names
    }


def _random_scores(image: Tensor, seed: int) -> Tensor:
    """Chance, drawn afresh for every image but the same whenever it is seen: no order of images changes it."""
    drawn = crc32(image.numpy(force=True).tobytes()) + seed
    return random_scores(image, torch.Generator().manual_seed(drawn))


@torch.inference_mode()
def _detect(
    image: Tensor,
    *,
    scores: Callable[[Tensor], Tensor],
    nms_size: int,
    border: int,
    subpixel: bool,
    device: torch.device,
) -> Keypoints:
    """All keypoints of an image (1, 1, H, W), on the CPU; the score map is made, and searched, on the device."""
    found = extract_keypoints(scores(image.to(device)).to(device), None, nms_size, border, subpixel)
    return Keypoints(found.xy.cpu(), found.scores.cpu(), found.valid.cpu())
