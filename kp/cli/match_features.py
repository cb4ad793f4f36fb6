"""kp match --features: what a file holds of keypoints and descriptors, in place of those found anew."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kp.cli.use import add_extractor_flags, say
from kp.config import DESCRIBED
from kp.support.errors import named
from kp.support.files import digest

if TYPE_CHECKING:
    from torch import Tensor

    from kp.features.second_look import Describe


def check_features(args: argparse.Namespace) -> None:
    """Raises ValueError where ``--features`` cannot be matched with these flags."""
    if args.features.suffix.lower() != ".h5":
        raise ValueError(f"--features {args.features} must be an .h5, which has images by name")
    if not args.features.is_file():
        raise ValueError(f"there is no file --features {args.features}")
    if args.out is not None and args.out.resolve() == args.features.resolve():
        raise ValueError(f"--out {args.out} would overwrite --features: name another place")
    parser = argparse.ArgumentParser()
    add_extractor_flags(parser, None, DESCRIBED)
    of_use = {"exif", "device"} | ({"weights"} if _looks_again(args) else set())
    for name, value in vars(parser.parse_args([])).items():
        if getattr(args, name) != value and name not in of_use:
            raise ValueError(f"--features has its keypoints: leave out --{name.replace('_', '-')}")


def features_of_file(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Those of an image, by its name. Raises ValueError."""
    from kp.features.files import load

    features = load(args.features, name)
    if "descriptors" not in features:
        flags = "--weights described --descriptors own --descriptor-scales 3"
        raise ValueError(f"{args.features} has no descriptors: kp detect {flags} writes them")
    if "image_size" not in features and args.out is not None and args.out.suffix.lower() == ".db":
        raise ValueError(f"{args.features} does not say how large {name} is, which a camera of {args.out} needs")
    return features


def check_size(name: str, image: "Tensor", features: Mapping[str, "Tensor"]) -> None:
    """Raises ValueError where an image (1, 1, H, W) is not as large as the one in which ``keypoints`` (1, N, 2), in
    pixels, were found.
    """
    from kp.features.images import places_in

    with named(name):
        places_in(image, features)


def recorded_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What kp detect recorded in the file: nothing in that of another program.

    ``exif`` is always there: images are turned as where the keypoints were found. Raises ValueError where the flag says
    otherwise, or this cannot be.
    """
    from kp.features.files import SETTINGS, read_settings
    from kp.features.images import EXIF

    settings = {"exif": args.exif} | read_settings(args.features)
    if settings["exif"] not in EXIF:
        raise ValueError(f"{args.features} is damaged: its attribute {SETTINGS} has no exif of {' or '.join(EXIF)}")
    if args.exif == "apply" and settings["exif"] == "ignore":
        raise ValueError(f"--features {args.features} has keypoints of images as stored: leave out --exif apply")
    return settings


def described_as_in_file(args: argparse.Namespace, settings: dict[str, Any]) -> "Describe | None":
    """What describes places of an image as the keypoints of ``--features`` were, for a second look.

    None where the file does not say how they were, or where this cannot be done here, which is told.

    Args:
        settings: of the file.

    Raises:
        ValueError: the weights that were named cannot be used, or are not those of the file.
    """
    from kp.features.extract import Extractor
    from kp.features.match_pair import describer
    from kp.models.checkpoint import find_weights
    from kp.support.device import choose_device

    if not _looks_again(args):
        return None
    descriptors, weights, given = settings.get("descriptors"), settings.get("weights"), args.weights != DESCRIBED
    if descriptors != "own" or not isinstance(weights, str):
        if given:
            raise ValueError(f"--features {args.features} has no descriptors of weights: leave out --weights")
        return _by_method(descriptors) if isinstance(descriptors, str) else None
    file = find_weights(args.weights)
    if file.is_file() and weights.split(" ")[-1] != digest(file):
        if given:
            raise ValueError(f"--features {args.features} was described by other weights than --weights {args.weights}")
        say(f"no image is looked at again: --weights must name the weights {weights} of {args.features}")
        return None
    sizes, size = settings.get("descriptor_scales", 1), settings.get("resize")
    return describer(Extractor(args.weights, descriptor_scales=sizes, resize=size, device=choose_device(args.device)))


def _by_method(method: str) -> "Describe | None":
    """What describes places by a descriptor of :func:`kp.describe`, if it can: some download weights."""
    import torch

    from kp.features.describe import METHODS, describe
    from kp.features.match_pair import describer

    if method not in METHODS:
        return None
    try:
        describe(torch.zeros(1, 1, 64, 64), {"keypoints": torch.full((1, 1, 2), 32.0)}, method)
    except ValueError as error:
        say(f"no image is looked at again: {error}")
        return None
    return describer(None, method)


def _looks_again(args: argparse.Namespace) -> bool:
    return not (args.unrefined or args.upright)
