"""kp match --features: what a file holds of keypoints and descriptors, in place of those found anew."""

import argparse
from typing import TYPE_CHECKING, Any

from kp.cli.use import add_extractor_flags, say
from kp.config import DESCRIBED
from kp.support.files import digest

if TYPE_CHECKING:
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
    return features


def exif_of_file(args: argparse.Namespace) -> str:
    """How images are turned: as where the keypoints were found, if the file says it."""
    return _settings(args).get("exif", args.exif)


def described_as_in_file(args: argparse.Namespace) -> "Describe | None":
    """What describes places of an image as the keypoints of ``--features`` were, for a second look.

    None where the file does not say how they were, as that of another program, or by weights that are not here.

    Raises:
        ValueError: the weights that were named cannot be used, or are not those of the file.
    """
    from kp.features.describe import METHODS
    from kp.features.extract import Extractor
    from kp.features.match_pair import describer
    from kp.models.checkpoint import find_weights
    from kp.support.device import choose_device

    if not _looks_again(args):
        return None
    settings = _settings(args)
    descriptors, weights = settings.get("descriptors"), str(settings.get("weights", ""))
    named = args.weights != DESCRIBED
    if descriptors != "own":
        if named:
            raise ValueError(f"--features {args.features} has no descriptors of weights: leave out --weights")
        return describer(None, descriptors) if descriptors in METHODS else None
    sizes, size = settings.get("descriptor_scales", 1), settings.get("resize")
    extractor = Extractor(args.weights, descriptor_scales=sizes, resize=size, device=choose_device(args.device))
    if weights.split(" ")[-1] != digest(find_weights(args.weights)):
        if named:
            raise ValueError(f"--features {args.features} was described by other weights than --weights {args.weights}")
        say(f"no image is looked at again: --weights must name the weights {weights} of {args.features}")
        return None
    return describer(extractor)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Those of kp detect in the file, if it has any."""
    from kp.features.files import read_settings

    settings = read_settings(args.features)
    return settings if isinstance(settings, dict) else {}


def _looks_again(args: argparse.Namespace) -> bool:
    return not (args.unrefined or args.upright)
