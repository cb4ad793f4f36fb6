"""Mobile encoders by name, cut at a stride: torchvision's MobileNetV3 and timm's MobileNetV4, for one grey channel."""

import hashlib
import re
from pathlib import Path
from urllib.error import URLError

import timm
import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn

from kp.support.errors import one_line

_TORCHVISION = {
    "mobilenet_v3_small": torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1,
    "mobilenet_v3_large": torchvision.models.MobileNet_V3_Large_Weights.IMAGENET1K_V2,
}
_TIMM = {
    "mobilenetv4_conv_small": "mobilenetv4_conv_small.e2400_r224_in1k",
    "mobilenetv4_conv_medium": "mobilenetv4_conv_medium.e500_r256_in1k",
}
_HUB = "https://huggingface.co/timm/{tag}/resolve/main/model.safetensors"


class PretrainedError(RuntimeError):
    """Pretrained weights that cannot be had; the message names the file and where to put it."""


class Encoder(nn.Module):
    """Grey images (B, 1, H, W) -> one feature map (B, C_s, ceil(H / s), ceil(W / s)) for each stride s.

    The strides are 2, 4, ... up to ``stride``, 8 or 16, and the stages beyond it are dropped; ``channels[i]`` is C of
    the i-th map. A feature i of stride s is centred on pixel s * i. With ``pretrained`` it has ImageNet weights;
    raises PretrainedError where they cannot be had.
    """

    def __init__(self, name: str, stride: int = 8, pretrained: bool = False) -> None:
        super().__init__()
        if stride not in (8, 16):
            raise ValueError(f"the encoder is cut at stride 8 or 16, not {stride}")
        layers = _grey(_layers(name, pretrained))
        stages, channels = _stages(layers, stride)
        self.stages = nn.ModuleList(stages)
        self.channels = channels

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            image = stage(image)
            maps.append(image)
        return maps


def _layers(name: str, pretrained: bool) -> list[nn.Module]:
    """The layers of the encoder in order, up to the classifier. Raises ValueError on a name that does not exist."""
    if name in _TORCHVISION:
        model = torchvision.models.get_model(name, weights=None)
        if pretrained:
            _load(model, _TORCHVISION[name])
        return list(model.features)
    if name in _TIMM:
        if not pretrained:
            model = timm.create_model(_TIMM[name])
        else:
            path = _timm_file(_TIMM[name])
            try:
                model = timm.create_model(_TIMM[name], pretrained=True, pretrained_cfg_overlay={"file": str(path)})
            except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, AssertionError) as error:
                raise _damaged(path, error) from error
        return [nn.Sequential(model.conv_stem, model.bn1), *model.blocks]
    raise ValueError(f"unknown encoder {name}; there are {', '.join([*_TORCHVISION, *_TIMM])}")


def _grey(layers: list[nn.Module]) -> list[nn.Module]:
    """Let the first convolution read one channel: the sum of its weights over red, green and blue is what grey sees."""
    first = next(m for m in layers[0].modules() if isinstance(m, nn.Conv2d))
    first.weight = nn.Parameter(first.weight.detach().sum(1, keepdim=True))
    first.in_channels = 1
    return layers


def _stages(layers: list[nn.Module], stride: int) -> tuple[list[nn.Sequential], list[int]]:
    """Group layers by the stride of what they return; drop those beyond ``stride``. Also the channels of each group."""
    probe = torch.zeros(1, 1, 64, 64)
    stages: dict[int, list[nn.Module]] = {}
    channels: dict[int, int] = {}
    for layer in layers:
        layer.eval()
        with torch.no_grad():
            probe = layer(probe)
        layer.train()
        at = 64 // probe.shape[-1]
        if at > stride:
            break
        stages.setdefault(at, []).append(layer)
        channels[at] = probe.shape[1]
    return [nn.Sequential(*group) for group in stages.values()], list(channels.values())


def _load(model: nn.Module, weights: torchvision.models.WeightsEnum) -> None:
    """Load torchvision's weights, downloaded if they are not there yet.

    Torchvision's own loader unpickles any object of the file, and believes a file that is there already. Here the file
    is read with ``weights_only``, so that it cannot run code, and its hash is checked each time.
    """
    path = _checkpoints() / weights.url.rsplit("/", 1)[-1]
    _fetch(weights.url, path)
    try:
        _check_hash(path)
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(path, error) from error


def _check_hash(path: Path) -> None:
    """Raises ValueError where a file's SHA-256 does not begin with the digits that end its name, as torch.hub's do."""
    expected = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if expected and not hashlib.sha256(path.read_bytes()).hexdigest().startswith(expected[1]):
        raise ValueError("its SHA-256 is not the one in its name")


def _timm_file(tag: str) -> Path:
    """Where the weights of a timm model lie, downloaded if they are not there yet."""
    path = _checkpoints() / f"{tag}.safetensors"
    _fetch(_HUB.format(tag=tag), path)
    return path


def _fetch(url: str, path: Path) -> None:
    """Download a file unless it is there. Raises PretrainedError, which says where to put it by hand."""
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=True)
    except (URLError, OSError, RuntimeError, ValueError) as error:
        raise _missing(url, path, error) from error


def _checkpoints() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _damaged(path: Path, error: Exception) -> PretrainedError:
    return PretrainedError(f"{path} does not hold the weights ({one_line(error)}): delete it to download it again")


def _missing(url: str, path: Path, error: Exception) -> PretrainedError:
    return PretrainedError(f"no pretrained weights ({one_line(error)}): download {url} and put it at {path}")
