"""Every detector that can be measured, by name, behind one call: image -> keypoints, all with the same suppression."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from kp.config import MODELS
from kp.evaluation import baselines, learned_baselines
from kp.evaluation.baselines import BASELINES, OwnPoints, ScoreMap, random_scores
from kp.evaluation.keypoint_files import ReadKeypoints, suppress
from kp.evaluation.protocols import Protocol
from kp.geometry.coords import Size, inside, warp_points
from kp.models.checkpoint import load_detector
from kp.models.corner import floor_detector
from kp.models.detector import Detector
from kp.models.keypoints import Keypoints, extract_keypoints

OURS = ("kp", *MODELS)  # their score maps are logits
NAMES = (*OURS, "corner", *BASELINES, *learned_baselines.NAMES, "random")  # of all detectors that can be measured
MINE = "mine"  # the detector whose keypoints are read from files
WHOLE_PIXELS = ("fast", "random")  # whose keypoints are never refined: their maps have no slopes

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

    ``kp`` is the detector of ``weights``, and shipped ones go by their names, each in ``scales`` sizes of the image;
    ``corner`` is the corner response with nothing learnt; learned baselines read their weights from the folder
    ``baseline_weights``, or Kornia fetches them. Raises ValueError on a name that is none, CheckpointError on weights
    of ours that cannot be used.
    """
    makers = {name: partial(baselines.make, name) for name in BASELINES}
    makers |= {name: partial(load_detector, name, device, scales) for name in MODELS}
    makers |= {
        "corner": lambda: floor_detector().to(device),
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
    """The detectors of these score maps, all with the protocol's NMS.

    With ``subpixel`` every keypoint is moved by half a pixel at most: to the place that the detector itself gives where
    it has points of its own (``OwnPoints``), else to the top of a quadric through the 3x3 scores around it. Those of
    ``WHOLE_PIXELS`` stay where they are.
    """
    settings = {"nms_size": protocol.nms_size, "border": protocol.border, "greedy": protocol.nms == "greedy"}
    return {
        name: partial(
            _detect, scores=score_map, subpixel=subpixel and name not in WHOLE_PIXELS, device=device, **settings
        )
        for name, score_map in scores.items()
    }


@dataclass(frozen=True)
class KeypointFiles:
    """The detector ``mine``: keypoints of files, under a protocol like those of any other detector.

    Points are suppressed greedily in the protocol's window; without ``subpixel`` they are first moved to the nearest
    pixel.
    """

    read: ReadKeypoints
    protocol: Protocol
    subpixel: bool = True

    def find(self, sequence: str, number: int, file_size: Size, H_file_to_image: Tensor, size: Size) -> Keypoints:
        """All keypoints of image ``number`` of a sequence, B = 1, in the pixels of the image that is measured.

        Args:
            file_size: (H, W) of the image's file, in whose pixels the points of the files are.
            H_file_to_image: (3, 3), as :func:`kp.evaluation.protocols.prepare` gives it.
            size: (H, W) of the image that is measured.
        """
        found = self.read(sequence, number, file_size)
        xy = warp_points(found.xy.double(), H_file_to_image[None])[0].float()
        keep = inside(xy, size)
        if not self.subpixel:
            xy = xy.round().clamp(torch.zeros(2), torch.tensor([size[1] - 1.0, size[0] - 1.0]))
        kept = suppress(Keypoints(xy, found.scores, found.valid & keep), self.protocol.nms_size, size)
        return kept.select(inside(kept.xy, size, self.protocol.border))


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
    greedy: bool,
    subpixel: bool,
    device: torch.device,
) -> Keypoints:
    """All keypoints of an image (1, 1, H, W), on the CPU; the score map is made, and searched, on the device."""
    options = {"nms_size": nms_size, "border": border, "greedy": greedy}
    if isinstance(scores, Detector):
        return scores.keypoints(image.to(device), subpixel=subpixel, **options).to("cpu")
    own = subpixel and isinstance(scores, OwnPoints)
    score_map, places = scores.with_places(image) if own else (scores(image.to(device)), None)
    found = extract_keypoints(score_map.to(device), subpixel=subpixel and not own, **options).to("cpu")
    if not own:
        return found
    x, y = found.xy[0].long().unbind(-1)
    xy = places[:, y, x].to(found.xy).masked_fill(~found.valid[..., None], 0)
    return Keypoints(xy, found.scores, found.valid)
