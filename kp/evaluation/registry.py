"""Every detector that can be measured, by name, behind one call: image -> keypoints, all with the same suppression."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from kp.config import MODELS
from kp.evaluation import baselines, learned_baselines
from kp.evaluation.baselines import BASELINES, ScoreMap, random_scores
from kp.evaluation.protocols import Protocol
from kp.models.checkpoint import load_detector
from kp.models.keypoints import Keypoints, extract_keypoints

OURS = ("kp", *MODELS)  # their score maps are logits, and their keypoints are refined
NAMES = (*OURS, *BASELINES, *learned_baselines.NAMES, "random")  # of all detectors that can be measured

# image (1, 1, H, W) in [0, 1] -> all keypoints, after NMS and border, B = 1
FindKeypoints = Callable[[Tensor], Keypoints]


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError, in one line that lists all detectors, where a name is not one of ``NAMES``."""
    if unknown := [name for name in names if name not in NAMES]:
        raise ValueError(f"--detectors: no detector is called {unknown[0]}: there are {', '.join(NAMES)}")


def score_maps(
    names: Sequence[str],
    *,
    weights: Path,
    baseline_weights: Path | None,
    seed: int,
    device: torch.device,
    scales: int = 1,
) -> tuple[dict[str, ScoreMap], dict[str, str]]:
    """What each named detector makes of an image, and of those that cannot run here, by name, the reason in a line.

    ``kp`` runs the network of ``weights``, and shipped ones go by their names, each in ``scales`` sizes of the image;
    learned baselines read their weights from the folder ``baseline_weights``, or Kornia fetches them. Raises ValueError
    on a name that is none, CheckpointError on weights of ours that cannot be used.
    """
    makers = {name: partial(baselines.make, name) for name in BASELINES}
    makers |= {name: partial(load_detector, name, device, scales) for name in MODELS}
    makers |= {
        "random": lambda: partial(_random_scores, seed=seed),
        "kp": partial(load_detector, weights, device, scales),
    }
    makers |= {
        name: partial(learned_baselines.make, name, baseline_weights, device) for name in learned_baselines.NAMES
    }
    check_names(names)
    return baselines.available({name: makers[name] for name in names})


def make_detectors(
    scores: Mapping[str, ScoreMap], protocol: Protocol, subpixel: bool, device: torch.device
) -> dict[str, FindKeypoints]:
    """The detectors of these score maps, all with the protocol's NMS; only ours refine keypoints."""
    settings = {"nms_size": protocol.nms_size, "border": protocol.border, "device": device}
    return {
        name: partial(_detect, scores=score_map, subpixel=subpixel and name in OURS, **settings)
        for name, score_map in scores.items()
    }


def _random_scores(image: Tensor, seed: int) -> Tensor:
    """Random scores. An image always gets the same ones, whatever the order of the images."""
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
