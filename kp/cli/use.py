"""What the commands for a user's own images share: flags, the extractor, warnings and messages."""

import argparse
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kp.config import DETECTION_THRESHOLD, MODELS, WEIGHTS
from kp.support.files import digest

DESCRIPTORS = ("own", "none", "rootsift", "sift", "orb", "hardnet", "sosnet", "hynet")


def add_extractor_flags(parser: argparse.ArgumentParser, descriptors: str | None, weights: str = WEIGHTS) -> None:
    """The flags of :class:`kp.Extractor`, and the descriptor by default: None is that of the weights, or RootSIFT, for
    commands that need one.
    """
    group = parser.add_argument_group("keypoints")
    text = f"shipped ones ({', '.join(MODELS)}) or a file that training wrote (default: {weights})"
    group.add_argument("--weights", default=weights, metavar="NAME|FILE", help=text)
    text = "at most so many for each image; 0: all above --threshold (default: 1024)"
    group.add_argument("--max-keypoints", type=int, default=1024, metavar="N", help=text)
    text = "least score of a keypoint, in [0, 1); 0: any (default: %(default)s, above the noise of a camera)"
    group.add_argument("--threshold", type=float, default=DETECTION_THRESHOLD, metavar="T", help=text)
    text = "pixels in x and y within which a keypoint is the best (default: 4)"
    group.add_argument("--nms-radius", type=int, default=4, metavar="N", help=text)
    text = "look at each image with its longer side of N pixels; positions are of the image as it is"
    group.add_argument("--resize", type=int, metavar="N", help=text)
    text = "turn images as their EXIF orientation says: ignore (pixels as stored, as COLMAP does) or apply"
    group.add_argument("--exif", choices=("ignore", "apply"), default="ignore", help=text)
    default = descriptors or "own, or rootsift where the weights have none"
    text = f"of each keypoint (default: {default}); own: the weights'; hardnet, sosnet and hynet download theirs"
    offered = [name for name in DESCRIPTORS if descriptors is not None or name != "none"]
    group.add_argument("--descriptors", choices=offered, default=descriptors, help=text)
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")


def extractor_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the features of an image depend on, for JSON: the weights by their content."""
    from kp.models.checkpoint import find_weights

    names = ("max_keypoints", "threshold", "nms_radius", "resize", "exif", "descriptors")
    weights = f"{Path(args.weights).name} {digest(find_weights(args.weights))}"
    return {"weights": weights} | {name: getattr(args, name) for name in names}


def make_extractor(args: argparse.Namespace, descriptor_scales: int = 1) -> Any:
    """The extractor that the flags describe. Raises ValueError, naming the flag."""
    from kp.features.extract import Extractor
    from kp.support.device import choose_device

    for flag, value, least in (
        ("--max-keypoints", args.max_keypoints, 0),
        ("--nms-radius", args.nms_radius, 0),
        ("--resize", args.resize, 32),
    ):
        if value is not None and value < least:
            raise ValueError(f"{flag} must be at least {least}, not {value}")
    if not 0 <= args.threshold < 1:
        raise ValueError(f"--threshold must be in [0, 1), not {args.threshold}")
    extractor = Extractor(
        args.weights,
        descriptors=args.descriptors in ("own", None),
        descriptor_scales=descriptor_scales,
        covariances=getattr(args, "covariances", False),
        max_num_keypoints=args.max_keypoints or None,
        nms_radius=args.nms_radius,
        detection_threshold=args.threshold,
        resize=args.resize,
        exif=args.exif,
        device=choose_device(args.device),
    )
    if args.descriptors == "own" and not extractor.describes:
        raise ValueError(f"--descriptors own: the weights {args.weights} have none: take rootsift, or other weights")
    return extractor


def features_of(extractor: Any, image: Any, mask: Any, descriptors: str | None) -> dict[str, Any]:
    """The features of an image, with descriptors unless ``none``."""
    from kp.features.describe import DEFAULT_METHOD, describe

    features = extractor.extract(image, mask)
    if descriptors not in ("none", "own") and "descriptors" not in features:
        features["descriptors"] = describe(image, features, descriptors or DEFAULT_METHOD, exif=extractor.exif)
    return features


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Warnings are one line on stderr, and none is told twice."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, UserWarning) and str(message) not in told:
            told.add(str(message))
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def say(line: str) -> None:
    """A line on stderr, above a progress bar."""
    tqdm.write(f"kp: {line}", file=sys.stderr)
