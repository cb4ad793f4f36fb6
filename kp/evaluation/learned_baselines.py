"""Kornia's learned detectors, each as image (1, C, H, W) in [0, 1] -> score map (1, 1, H, W), like
``kp.evaluation.baselines``.

Scores are what the network says of every pixel of the image at its own size, before the network's own suppression and
threshold. The weights are the published ones that Kornia's ``from_pretrained`` fetches, from the same addresses into
the same cache, but only the detector's; or files in a folder, named like the download or as ``_Spec.alias`` says. None
of them is trained here.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kornia.color import grayscale_to_rgb, rgb_to_grayscale
from kornia.core.download import load_state_dict_from_url
from kornia.enhance import normalize
from kornia.feature import ALIKED, DISK, InterpolateSparse2d, KeyNet, XFeat, XFeatModel
from kornia.feature.dedode import dedode
from kornia.feature.dedode.dedode_models import get_detector
from kornia.feature.disk import disk
from kornia.feature.keynet import KeyNet_URL
from torch import Tensor, nn
from torch.nn import functional as F

from kp.evaluation.baselines import ScoreMap, Unavailable
from kp.geometry.coords import pixel_grid
from kp.support.errors import one_line

TIMEOUT = 10.0  # seconds without a byte; Kornia then tries again, three times at each address

_MIN_SIDE = 32  # pixels: the smallest side that all the networks take; smaller images are padded to it
_CPU = torch.device("cpu")
_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # ImageNet's, as Kornia's DeDoDe
_ALIKED_URLS = [  # kornia.feature.aliked.aliked._CHECKPOINT_URLS of kornia 0.9.0, which has no public name for them
    "https://huggingface.co/kornia/aliked/resolve/main/{}.pth",
    "https://github.com/Shiaoming/ALIKED/raw/main/models/{}.pth",
]


@dataclass(frozen=True)
class _Spec:
    """A network of Kornia's, how it scores an image, and where its weights are."""

    build: Callable[[], nn.Module]  # with random weights
    scores: Callable[[nn.Module, Tensor], Tensor]  # of an image (1, channels, H, W): (1, 1, H, W)
    urls: Sequence[str]  # of one file: each is tried if those before it fail, and the first names the file
    alias: str | None = None  # another name of that file, in a folder of weights
    part: str | None = None  # the entry of the file that holds the weights; None: the file is the weights
    channels: int = 3
    stride: int = 1  # pixels that divide the H and W it takes


def make(name: str, directory: Path | None = None, device: torch.device = _CPU) -> ScoreMap:
    """The named detector of ``NAMES`` with its published weights, on a device; it scores in float32.

    They are read from the first file of ``file_names(name)`` in ``directory``, without any network. Without a directory
    they are read from torch.hub's cache, and downloaded into it first if they are not there.

    Raises:
        Unavailable: the weights cannot be had or do not fit. The message names the file and its address.
        ValueError: ``name`` is none of ``NAMES``.
    """
    return partial(_score_map, model=load(name, directory, device), spec=_SPECS[name])


def load(name: str, directory: Path | None = None, device: torch.device = _CPU) -> nn.Module:
    """The network of :func:`make`, as Kornia built it, in evaluation mode. Raises what ``make`` raises."""
    if name not in _SPECS:
        raise ValueError(f"no learned detector is called {name}: there are {', '.join(NAMES)}")
    checkpoint, source = _download(name) if directory is None else _read(name, directory)
    model = _SPECS[name].build()
    try:
        _fill(model, checkpoint, _SPECS[name].part)
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        raise _damaged(name, source, error) from error
    return model.eval().to(device)


@torch.inference_mode()
def _score_map(image: Tensor, *, model: nn.Module, spec: _Spec) -> Tensor:
    """Scores (1, 1, H, W) of an image (1, C, H, W), on the model's device and in its dtype.

    Where the network wants larger sides the image's last row and column are repeated below and to the right, and the
    scores there are cut off: pixel x keeps its place.
    """
    height, width = image.shape[-2:]
    image = _channels(image.to(next(model.parameters())), spec.channels)
    below, right = (-(-max(side, _MIN_SIDE) // spec.stride) * spec.stride - side for side in (height, width))
    scores = spec.scores(model, F.pad(image, (0, right, 0, below), mode="replicate"))
    return scores[..., :height, :width]


def _channels(image: Tensor, channels: int) -> Tensor:
    """An image (1, C, H, W), C = 1 or 3 (RGB), with 1 channel or 3 equal ones if it has not as many already."""
    if image.shape[1] == channels:
        return image
    return grayscale_to_rgb(image) if channels == 3 else rgb_to_grayscale(image)


def _keynet(model: nn.Module, gray: Tensor) -> Tensor:
    """Key.Net (Barroso-Laguna et al., ICCV 2019): its response at one scale, without the pyramid of its detector.

    The network looks at three levels itself, 1.2 apart. -inf where the response is 0, the least a ReLU gives.
    """
    response = model(gray)
    return response.masked_fill(response <= 0, -torch.inf)


def _disk(model: nn.Module, rgb: Tensor) -> Tensor:
    """DISK (Tyszkiewicz et al., NeurIPS 2020), weights ``depth``: the logits of its heat map."""
    return model.heatmap_and_dense_descriptors(rgb)[0]


def _aliked(model: nn.Module, rgb: Tensor) -> Tensor:
    """ALIKED (Zhao et al., IEEE TIM 2023): its score map, in (0, 1). Kornia pads the image to multiples of 32."""
    return model.extract_dense_map(rgb)[1]


def _aliked_spec(model_name: str) -> _Spec:
    """ALIKED of a size: ``aliked-n16``, normal, or ``aliked-t16``, tiny. Both sample descriptors at 16 places."""
    return _Spec(partial(ALIKED, model_name), _aliked, [url.format(model_name) for url in _ALIKED_URLS])


def _xfeat(model: nn.Module, gray: Tensor) -> Tensor:
    """XFeat (Potje et al., CVPR 2024): the logarithm of keypoint probability times reliability, as Kornia scores it.

    The probability is among the 8x8 pixels of a cell and no keypoint at all; the reliability, of a cell, is read
    between them as ``XFeat.detectAndCompute`` does.
    """
    size = tuple(gray.shape[-2:])
    _, logits, reliability = model(gray)  # (1, 65, H / 8, W / 8), (1, 1, H / 8, W / 8)
    keypoint = F.pixel_shuffle(logits.log_softmax(dim=1)[:, :64], 8)  # (1, 1, H, W)
    reliability = InterpolateSparse2d("bilinear")(reliability, pixel_grid(size, gray), *size)  # (1, H * W, 1)
    return keypoint + reliability.log().view(1, 1, *size)


def _dedode(model: nn.Module, rgb: Tensor) -> Tensor:
    """DeDoDe v2 (Edstedt et al., CVPR workshops 2024), weights ``L-C4-v2``: the logits of its detector.

    Before ``DeDoDe.detect`` weighs them by how many there are around, which spreads its keypoints.
    """
    return model(normalize(rgb, _MEAN.to(rgb), _STD.to(rgb)))


_SPECS = {
    "keynet": _Spec(partial(KeyNet, pretrained=False), _keynet, KeyNet_URL, part="state_dict", channels=1),
    "disk": _Spec(DISK, _disk, disk.urls["depth"], alias="disk-depth-save.pth", part="extractor", stride=16),
    "aliked": _aliked_spec("aliked-n16"),
    "aliked-t16": _aliked_spec("aliked-t16"),
    "xfeat": _Spec(XFeatModel, _xfeat, [XFeat.weights_url], channels=1, stride=32),
    "dedode": _Spec(partial(get_detector, "L", torch.float32), _dedode, dedode.urls["detector"]["L-C4-v2"], stride=8),
}
NAMES = tuple(_SPECS)
URLS = {name: tuple(spec.urls) for name, spec in _SPECS.items()}
FILES = {name: urls[0].rsplit("/", 1)[-1] for name, urls in URLS.items()}  # the names of the downloads


def file_names(name: str) -> list[str]:
    """What the detector's file may be called in a folder of weights; the download's name is the first."""
    alias = _SPECS[name].alias
    return [FILES[name]] if alias is None else [FILES[name], alias]


def _read(name: str, directory: Path) -> tuple[Any, str]:
    """What the detector's file in a folder holds, and its path. Raises Unavailable."""
    first, *others = (directory / file for file in file_names(name))
    path = next((path for path in (first, *others) if path.exists()), first)
    try:
        return torch.load(path, map_location="cpu", weights_only=True), str(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        places = " or ".join([str(first), *(other.name for other in others)])
        raise Unavailable(f"no weights at {places}: download them from {URLS[name][0]}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(name, str(path), error) from error


def _download(name: str) -> tuple[Any, str]:
    """What the detector's file at Kornia's addresses holds, and how to speak of it. Raises Unavailable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one for each failed try: the last reason is enough
            state = load_state_dict_from_url(
                list(URLS[name]), map_location="cpu", file_name=FILES[name], timeout=TIMEOUT, weights_only=True
            )
    except (RuntimeError, OSError, ValueError) as error:
        reason = one_line(error.__cause__ or error)
        advice = f"download {URLS[name][0]} and name its folder by --baseline-weights, the file being {FILES[name]}"
        raise Unavailable(f"no weights ({reason}): {advice}") from error
    return state, f"the download {FILES[name]}"


def _fill(model: nn.Module, checkpoint: Any, part: str | None) -> None:
    """Load all weights of a model. Kornia's ALIKED has one constant that the published file has not."""
    if not isinstance(checkpoint, dict):
        raise TypeError(f"it holds a {type(checkpoint).__name__}, not names and weights")
    state = dict(checkpoint if part is None else checkpoint[part])
    constants = {key: value for key, value in model.state_dict().items() if key == "dkd.hw_grid"}
    model.load_state_dict(constants | state)


def _damaged(name: str, source: str, error: Exception) -> Unavailable:
    return Unavailable(f"{source} does not hold the weights of {name} ({one_line(error)}): download {URLS[name][0]}")
