"""Every setting: its default, its unit and the reason for it, once. Command line and checkpoints both read it here.

Only the scripts and this module know settings objects; every other function takes plain values.
"""

import argparse
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any, TypeVar, get_args, get_origin

ENCODERS = ("mobilenet_v3_small", "mobilenet_v3_large", "mobilenetv4_conv_small", "mobilenetv4_conv_medium")
DETECTORS = ("kp", "harris", "shi-tomasi", "fast", "sift", "orb", "random")

T = TypeVar("T")


def setting(default: Any, help: str, choices: tuple | None = None, metavar: str | None = None) -> Any:
    """A dataclass field that also knows its command-line help, choices and placeholder."""
    return field(default=default, metadata={"help": help, "choices": choices, "metavar": metavar})


@dataclass(frozen=True)
class EvaluateSettings:
    """How ``evaluate.py`` measures."""

    detectors: tuple[str, ...] = setting(DETECTORS, "what to measure, in this order", DETECTORS)
    split: str = setting("all", "i (illumination), v (viewpoint) or all", ("i", "v", "all"))
    max_keypoints: int = setting(300, "best keypoints of each view that count, among those the other view sees")
    threshold: float = setting(3.0, "pixels within which a keypoint of the other view repeats a keypoint")
    nms_size: int = setting(9, "non-maximum suppression of every detector: odd kernel in pixels (9 is a radius of 4)")
    border: int = setting(4, "pixels at the edge of an image where no detector has keypoints")
    subpixel: bool = setting(False, "refine our keypoints to a fraction of a pixel (not with --export)")
    seed: int = setting(0, "seed of the random detector and of the built-in sequences")
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps")


def add_flags(parser: argparse.ArgumentParser, cls: type) -> None:
    """One flag for every field of a settings class, in a group of its own, with the field's help and default."""
    group = parser.add_argument_group(cls.__doc__.strip().splitlines()[0].replace("``", ""))
    for f in fields(cls):
        name, flag = f.name, "--" + f.name.replace("_", "-")
        text = f"{f.metadata['help']} (default: {_show(f)})".replace("%", "%%")
        common = {"dest": name, "help": text, "default": f.default}
        if f.type is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        else:
            kind, nargs = _kind_and_nargs(f)
            metavar = f.metadata["metavar"]
            group.add_argument(flag, type=kind, nargs=nargs, choices=f.metadata["choices"], metavar=metavar, **common)


def from_args(cls: type[T], args: argparse.Namespace) -> T:
    """The settings of one class out of parsed arguments."""
    values = {f.name: getattr(args, f.name) for f in fields(cls)}
    return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def to_dict(settings: Any) -> dict[str, Any]:
    """Plain values that JSON keeps: what a checkpoint records."""
    return asdict(settings)


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Settings from what a checkpoint recorded. Raises ValueError on a name that this version does not know."""
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"unknown settings {', '.join(unknown)}: written by another version of kp?")
    return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def _kind_and_nargs(f: Field) -> tuple[type, str | int | None]:
    if get_origin(f.type) is not tuple:
        return next((t for t in get_args(f.type) if t is not type(None)), f.type), None
    kinds = get_args(f.type)
    return kinds[0], "+" if kinds[-1] is Ellipsis else len(kinds)


def _show(f: Field) -> str:
    assert f.default is not MISSING
    if isinstance(f.default, tuple):
        return " ".join(str(v) for v in f.default)
    return "none" if f.default is None else str(f.default)
