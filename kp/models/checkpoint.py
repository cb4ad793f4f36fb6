"""Weights for those who use a detector, the shipped ones by name, and checkpoints for those who go on training one.

Weights are safetensors with the settings in their metadata; a checkpoint is a torch file read with ``weights_only``, so
neither can run code.
"""

import io
import json
import pickle
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import kp
from kp.config import WEIGHTS, DetectorSettings
from kp.models.build import make_detector
from kp.models.detector import Detector
from kp.support.device import choose_device
from kp.support.errors import one_line
from kp.support.files import write_file
from kp.support.settings import from_dict, to_dict

SHIPPED = {path.stem: path for path in sorted((Path(__file__).parent / "weights").glob("*.safetensors"))}

_FORMAT, _CHECKPOINT_FORMAT = "kp-detector-1", "kp-checkpoint-1"
_FIRST_MODEL = {  # numbers of the model that weights of before the ten packages do not record
    "stem_channels": 12,
    "contrast_sigma": 8.0,
    "derivative_sigmas": [0.7, 1.4, 2.8],
    "window_sigmas": [1.5, 2.0, 4.0],
    "response_gain": 4.0,
    "dark_slope": 3.0,
    "score_blur": 1.0,
    "surround_sigma": 4.0,
    "surround_weight": 0.9,
    "thinning": 10.0,
}
_SINCE = {  # settings that the first weights of the ten packages do not record
    "half_size_scales": 0,
    "ranker_width": 0,
    "ranker_weight": 0.0,
    "describer": "none",
    "descriptor_size": 64,
    "covariance_scale": 0.017,
}
_UNRECORDED = {"normalised": True, "darkness": 0.0}  # what weights older than these settings were trained with
_OF_DESCRIBER = (  # group and name of a describer's setting, and the one of "train" that it had before
    ("world", "pairs", "batch"),
    ("train", "described_per_megapixel", "keypoints_per_megapixel"),
)
_OF_NETWORK = {  # settings of a network that described keypoints, by group
    "detector": ("describer_width", "describer_hidden", "matchability_weight", "own_frame"),
    "train": (
        *("descriptor_weight", "matchability_loss_weight", "inverse_temperature", "descriptor_loss", "sosr_weight"),
    ),
}
_RENAMED = {
    "world": {"crop": "image_size", "same_view": "illumination_only", "same_light": "viewpoint_only"},
    "train": {
        "ahead": "prefetch_steps",
        "density": "keypoints_per_megapixel",
        "slack": "match_radius",
        "softness": "temperature",
        "repeatability_weight": "localization_weight",
        "ranking_weight": "repeatability_weight",
    },
}
_REMOVED = {  # settings that no longer exist, with the only value that this version can still run
    "detector": {"prior": "corner", "shuffled": False, "scales": 1, "thinned": True},
    "world": {"views": 2},
    "train": {"pooling": 0.0, "policy": False},
}


class CheckpointError(ValueError):
    """A file of weights or a checkpoint that cannot be used; the message says why in one line."""


def save_weights(path: Path, detector: Detector, settings: Mapping[str, Mapping[str, Any]], **facts: Any) -> None:
    """Write a detector's weights with its ``settings`` by group, the code's revision and other facts, as the step."""
    metadata = {"format": _FORMAT, "kp": kp.__version__, "settings": json.dumps(settings)}
    metadata |= {name: json.dumps(fact) for name, fact in (facts | {"revision": revision()}).items()}
    tensors = {name: t.detach().cpu().contiguous() for name, t in detector.state_dict().items()}
    write_file(path, save(tensors, metadata))


def read_metadata(path: Path) -> dict[str, Any]:
    """What :func:`save_weights` recorded beside the weights. Raises CheckpointError."""
    return read_weights(path)[1]


@cache
def revision() -> str | None:
    """The git commit of this code, with ``+`` if files differ from it; None where it is not in a clone of its own."""
    ask = ["git", "-C", str(Path(__file__).parents[2])]
    try:
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*ask, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed.stdout.strip() else "")


def find_weights(weights: Path | str) -> Path:
    """The file of shipped weights of that name, or else the path itself."""
    return SHIPPED.get(str(weights), Path(weights))


def upgrade(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings of a run, by group, with today's names: those that an earlier version recorded are renamed.

    Raises:
        ValueError: the run used an option that this version does not have any more.
    """
    groups = {group: dict(values) for group, values in settings.items()}
    if "world" in groups:
        groups["world"].setdefault("relit_pairs", 0.0)  # before there were any
    if "stem_channels" in groups.get("detector", _FIRST_MODEL):
        if groups.get("detector", {}).get("describer", "none") != "none":  # what it saw had names of other parts
            for group, now, before in _OF_DESCRIBER:
                if before in groups.get("train", {}) and now not in groups.get(group, {}):
                    groups[group] = groups.get(group, {}) | {now: groups["train"][before]}
        for group in groups.keys() & _OF_NETWORK:
            groups[group] = {name: v for name, v in groups[group].items() if name not in _OF_NETWORK[group]}
        return groups | ({"detector": _with_describer(groups["detector"])} if "detector" in groups else {})
    for group, removed in _REMOVED.items():
        for name, kept in removed.items():
            value = groups.get(group, {}).pop(name, kept)
            if value != kept and name not in ("scales", "thinned"):  # these two change how weights are used only
                raise ValueError(f"{name} {value} is an option that only earlier versions have")
    for group, names in _RENAMED.items():
        if group in groups:
            groups[group] = {names.get(name, name): value for name, value in groups[group].items()}
    groups["detector"] = _with_describer(_FIRST_MODEL | _UNRECORDED | groups["detector"])
    return groups


def _with_describer(detector: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a detector, which an earlier version may have recorded, with its descriptors as of today.

    Raises:
        ValueError: a network described the keypoints.
    """
    if "describer" not in detector and "descriptor_size" in detector:
        return dict(detector)
    settings = _SINCE | dict(detector)
    describer = settings.pop("describer")
    if describer not in ("none", "histograms"):
        raise ValueError(f"describer {describer} is an option that only earlier versions have")
    other = {"descriptor_size": 0} if describer == "none" else {"ranker_width": 0}  # a detector had one or none
    return settings | other


def load_detector(weights: Path | str = WEIGHTS, device: torch.device | str = "cpu", num_scales: int = 1) -> Detector:
    """The detector of a file of weights, or of shipped weights by name, in evaluation mode.

    Args:
        num_scales: sizes in which the detector looks at an image.

    Raises:
        CheckpointError: there are no such weights, or they do not fit this version.
        ValueError: ``num_scales`` is below 1, or there is no such device.
    """
    if num_scales < 1:
        raise ValueError(f"an image is looked at in at least one size, not {num_scales}")
    path = find_weights(weights)
    tensors, facts = read_weights(path)
    settings = detector_settings(path, facts)
    try:
        detector = make_detector(settings, num_scales=num_scales, pretrained=False)
        detector.load_state_dict(tensors)
        detector.settle()
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit this version of kp: {one_line(error)}") from error
    return detector.eval().to(choose_device(str(device)))


def detector_settings(path: Path, facts: Mapping[str, Any]) -> DetectorSettings:
    """The detector's settings among the facts of a file of weights. Raises CheckpointError where some are missing."""
    try:
        recorded = facts["settings"]["detector"]
        settings = from_dict(DetectorSettings, recorded)
        missing = sorted(set(to_dict(settings)) - set(recorded))
        if missing:  # today's defaults are not what it was trained with
            raise ValueError(f"settings {', '.join(missing)} are missing: written by an earlier version?")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit this version of kp: {one_line(error)}") from error
    return settings


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a training run: tensors, numbers, strings, lists and dicts of them."""
    buffer = io.BytesIO()
    torch.save(dict(state) | {"format": _CHECKPOINT_FORMAT}, buffer)
    write_file(path, buffer.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that :func:`save_checkpoint` wrote, on the CPU, its settings with today's names.

    Raises:
        CheckpointError: there is no such file, or it is damaged or of another version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of kp, or is damaged: {one_line(error)}") from error
    if not isinstance(state, dict) or state.pop("format", None) != _CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version of kp")
    try:
        state["settings"] = upgrade(state["settings"])
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit this version of kp: {one_line(error)}") from error
    return state


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a file of weights, as they were trained, and :func:`read_metadata`. Raises CheckpointError."""
    if not path.is_file():
        names = ", ".join(SHIPPED)
        raise CheckpointError(f"no weights at {path}: train some with train_homographic.py, or take {names}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is damaged: {one_line(error)}") from error
    if metadata.pop("format", None) != _FORMAT:
        raise CheckpointError(f"{path} holds no weights of kp")
    version = metadata.pop("kp", None)
    try:
        facts = {"kp": version} | {name: json.loads(text) for name, text in metadata.items()}
    except json.JSONDecodeError as error:
        raise CheckpointError(f"the metadata of {path} is damaged") from error
    settings = facts.get("settings")
    if not isinstance(settings, dict) or not all(isinstance(group, dict) for group in settings.values()):
        raise CheckpointError(f"the metadata of {path} is damaged: it has no settings")
    try:
        facts["settings"] = upgrade(settings)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit this version of kp: {one_line(error)}") from error
    return tensors, facts
