"""Kornia's complete learned features: their own points with their own descriptors, or their descriptors elsewhere.

Each runs as Kornia's users run it: XFeat's ``detectAndCompute``, ``forward`` of ALIKED and of DISK, with Kornia's
thresholds and suppression, in float32, on the image at its own size. The weights come from where
:mod:`kp.evaluation.learned_baselines` finds them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from kornia.color import grayscale_to_rgb
from kornia.feature import ALIKED, DISK, XFeat
from torch import Tensor, nn
from torch.nn.functional import normalize

from kp.evaluation import learned_baselines
from kp.features.describe import Described

_CPU = torch.device("cpu")


class _Spec(NamedTuple):
    """A feature: its name among the learned baselines, and what it does with an image (1, C, H, W).

    ``build`` makes Kornia's class, which keeps so many points, of the network with its weights. ``find`` gives points
    (K, 2), descriptors (K, D) and scores (K,). ``describe`` gives descriptors (K, D) at points (K, 2).
    """

    baseline: str
    build: Callable[[nn.Module, int], nn.Module]
    find: Callable[[Any, Tensor], tuple[Tensor, Tensor, Tensor]]
    describe: Callable[[Any, Tensor, Tensor], Tensor]


def make(name: str, count: int, directory: Path | None = None, device: torch.device = _CPU) -> Callable:
    """The feature of that name: an image (1, C, H, W) -> ``Described``, at most ``count`` points, best first.

    Its method ``describe`` is that of :func:`make_describer`. Raises Unavailable where its weights cannot be had.
    """
    return _Learned(_load(name, count, directory, device), _SPECS[name])


def make_describer(name: str, directory: Path | None = None, device: torch.device = _CPU) -> Callable:
    """The descriptor of that feature: an image (1, C, H, W) and points (K, 2) in its pixels -> (K, D).

    XFeat's map is read as XFeat reads it, bicubically; DISK's at the nearest pixel, because its own points are whole
    pixels; ALIKED samples its map around each point. Raises Unavailable where the weights cannot be had.
    """
    return make(name, 1, directory, device).describe


def _load(name: str, count: int, directory: Path | None, device: torch.device) -> nn.Module:
    spec = _SPECS[name]
    return spec.build(learned_baselines.load(spec.baseline, directory, device), count).eval().to(device)


@dataclass(frozen=True)
class _Learned:
    model: nn.Module
    spec: _Spec

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Described:
        xy, descriptors, scores = self.spec.find(self.model, _to_model(image, self.model))
        order = scores.argsort(descending=True, stable=True)
        return Described(xy[order].float().cpu(), descriptors[order].float().cpu())

    @torch.inference_mode()
    def describe(self, image: Tensor, xy: Tensor) -> Tensor:
        if not len(xy):
            return torch.zeros(0, 1)
        image = _to_model(image, self.model)
        return normalize(self.spec.describe(self.model, image, xy.to(image)), dim=1).cpu()


def _to_model(image: Tensor, model: nn.Module) -> Tensor:
    """(1, 3, H, W) on the model's device: a grey image three times."""
    image = image.to(next(model.parameters()))
    return image if image.shape[1] == 3 else grayscale_to_rgb(image)


def _xfeat(network: nn.Module, count: int) -> XFeat:
    model = XFeat(top_k=count)
    model.net = network
    return model


def _find_xfeat(model: XFeat, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """XFeat averages the channels itself."""
    found = model.detectAndCompute(image)[0]
    return found["keypoints"], found["descriptors"], found["scores"]


def _xfeat_at(model: XFeat, image: Tensor, xy: Tensor) -> Tensor:
    """XFeat shrinks the image to sides that 32 divides, and multiplies the places there by the ratios of the sides."""
    shrunk, ratio_y, ratio_x = model._preprocess_tensor(image)  # no public method does this, with XFeat's own filter
    places = xy / xy.new_tensor([ratio_x, ratio_y])
    feature_map = normalize(model.net(shrunk)[0], dim=1)  # (1, 64, H' / 8, W' / 8)
    return model.interpolator(feature_map, places[None], *shrunk.shape[-2:])[0]


def _aliked(network: nn.Module, count: int) -> ALIKED:
    model = ALIKED(network.model_name, max_num_keypoints=count)
    model.load_state_dict(network.state_dict())
    return model


def _find_aliked(model: ALIKED, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = model(image)[0]
    return found.keypoints, found.descriptors, found.keypoint_scores


def _aliked_at(model: ALIKED, image: Tensor, xy: Tensor) -> Tensor:
    """ALIKED's places go from -1 to 1, the centres of the first and the last pixel."""
    height, width = image.shape[-2:]
    places = 2 * xy / xy.new_tensor([width - 1, height - 1]) - 1
    return model.desc_head(model.extract_dense_map(image)[0], [places])[0][0]


class _Disk(nn.Module):
    """DISK with the number of points that it keeps."""

    def __init__(self, network: DISK, count: int) -> None:
        super().__init__()
        self.network, self.count = network, count

    def forward(self, image: Tensor) -> Any:
        return self.network(image, self.count, pad_if_not_divisible=True)[0]


def _find_disk(model: _Disk, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = model(image)
    return found.keypoints, found.descriptors, found.detection_scores


def _disk_at(model: _Disk, image: Tensor, xy: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    padded = nn.functional.pad(image, (0, -width % 16, 0, -height % 16))
    descriptors = model.network.heatmap_and_dense_descriptors(padded)[1]  # (1, 128, H, W)
    x, y = xy.round().long().unbind(1)
    return descriptors[0, :, y.clamp(0, height - 1), x.clamp(0, width - 1)].T


_SPECS: Mapping[str, _Spec] = {
    "xfeat": _Spec("xfeat", _xfeat, _find_xfeat, _xfeat_at),
    "aliked-n16": _Spec("aliked", _aliked, _find_aliked, _aliked_at),
    "aliked-t16": _Spec("aliked-t16", _aliked, _find_aliked, _aliked_at),
    "disk": _Spec("disk", _Disk, _find_disk, _disk_at),
}
NAMES = tuple(_SPECS)
