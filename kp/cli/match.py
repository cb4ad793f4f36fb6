"""Match two images, or the pairs in a list, and fit a homography and a fundamental matrix.

kp match a.jpg b.jpg --draw matches.png          fit a homography: green, a fundamental matrix: blue, neither: orange
kp match a.jpg b.jpg --json                      all numbers, for another program
kp match --pairs pairs.txt --images photos/ --out matches.h5     hloc's layout: photos/ and a line "a.jpg b.jpg" each
kp match --pairs pairs.txt --images photos/ --out database.db    for COLMAP: keypoints, descriptors and matches
kp match --pairs pairs.txt --features photos.h5 --out matches.h5 --unrefined     of what kp detect has found; no images

Keypoints that are mutual nearest neighbours by their descriptors are matches. A homography fits a plane, or a camera
that only turns; a fundamental matrix fits any scene that stands still. Where too few first matches, as they were found,
fit to 3 px or --error to be told from chance (Moisan and Stival, IJCV 2004), this is said, "verified" is false (of the
homography "verified_H"), and no line is drawn as if it fitted; mirrored images and repeating patterns can fit all the
same. Pictures may be turned by any angle, and one may be taken from up to four times nearer, or from the side: a plane
may look up to three times narrower. Once a homography says how, one picture is described as the other sees it, too.

A run with --out that was interrupted goes on with the same command. A pair that cannot be matched is told and left out,
and the exit code is then 1; the same command tries it again, and pairs that were added to the list or whose images were
changed since. Until all are matched, .NAME.pairs beside --out NAME holds what was matched so far; then --overwrite
matches all anew. An empty .NAME.lock may stay.
"""

import argparse
import json
from collections.abc import Mapping
from contextlib import ExitStack, closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from kp.cli.match_features import check_features, check_size, described_as_in_file, features_of_file, recorded_settings
from kp.cli.use import (
    add_extractor_flags,
    extractor_settings,
    features_of,
    make_extractor,
    one_line_warnings,
    say,
)
from kp.config import DESCRIBED, DESCRIPTOR_SCALES
from kp.support.errors import named, one_line
from kp.support.files import digest

_KEPT_IMAGES = 8  # of the last pairs
_KEPT_FEATURES = 1000  # images, of the last pairs: 2 GB of 1024 keypoints each with own descriptors
_VERSION = 3  # of the matches that the same flags give


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("pair", nargs="*", type=Path, metavar="IMAGE", help="two images")
    text = "a file with a pair of images a line, separated by a space, or by a tab where names have spaces"
    parser.add_argument("--pairs", type=Path, metavar="FILE", help=text)
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images that are named")
    text = "match what is in this .h5 of kp detect, or of hloc, in place of keypoints found anew: kp detect --weights "
    text += "described --descriptors own --descriptor-scales 3 writes all that is compared here, and how images are "
    text += "turned; if weights of your own described it, --weights names them"
    parser.add_argument("--features", type=Path, metavar="FILE", help=text)
    text = "write the matches: .h5 as hloc, .json, or .db for COLMAP; the .h5 holds indices of keypoints: those of "
    text += "--features, or those that kp detect --weights described finds with the same flags"
    parser.add_argument("--out", type=Path, metavar="FILE", help=text)
    parser.add_argument("--overwrite", action="store_true", help="begin anew where --out is there already")
    parser.add_argument("--draw", type=Path, metavar="m.png", help="draw matches of two images, 150 at most")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    text = "a match must be so many times nearer than the next best, in (0, 1]; or 0, the default: no such test"
    parser.add_argument("--ratio", type=float, default=0.0, metavar="R", help=text)
    text = "pixels: largest error of a match that fits (default: 3)"
    parser.add_argument("--error", type=float, default=3.0, metavar="PX", help=text)
    text = "compare own descriptors as they are; by default as many matches as can be are looked for in all turns of "
    text += "the images, in steps of 11 degrees, as if one were 2 or 4 times smaller, and as if either were seen from "
    text += "the side"
    parser.add_argument("--upright", action="store_true", help=text)
    text = "take the first matches as they are, for speed. By default there are two steps more. An image that a "
    text += "homography shows to be seen otherwise, as turned or from the side, is described once more, as the "
    text += "other sees it, and both descriptions count (not with --upright, nor with --features of another program, "
    text += "which do not say how they were described). And keypoints of the "
    text += "second image move to where the pictures fit, to parts of a pixel, from a corner near the right one to "
    text += "that, in what is printed, drawn and written as .json; own descriptors are compared in two sizes at "
    text += "once for this. In .h5 and .db keypoints are named, and stay"
    parser.add_argument("--unrefined", action="store_true", help=text)
    text = "of the matrices (default: poselib where it is installed)"
    parser.add_argument("--estimator", choices=("poselib", "opencv"), help=text)
    add_extractor_flags(parser, None, DESCRIBED)


def run(args: argparse.Namespace) -> None:
    """Match, print, write, draw. Raises ValueError at the end if an image could not be read."""
    from kp.cli.match_text import told
    from kp.features.estimate import choose_estimator
    from kp.features.pair_store import PairStore
    from kp.support.process import print_line

    pairs = _pairs(args)
    _check(args, pairs)
    args.estimator = choose_estimator(args.estimator)
    matcher, plain, failed, earlier = _Matcher(args), [], 0, 0
    with one_line_warnings(), ExitStack() as opened:
        store = None
        if args.out is not None:
            settings = _settings(args, matcher.describe is not None)
            store = opened.enter_context(closing(PairStore(args.out, settings, args.overwrite)))
        for names in pairs:
            read = [] if args.features is not None and args.unrefined else [_path(args, name) for name in names]
            listed = args.pairs is not None and not args.json  # else the result is printed or drawn
            if store is not None and listed and store.is_current(names, read):
                earlier += 1
                continue
            try:
                result = matcher.match(*names)
            except ValueError as error:
                failed += 1
                say(str(error))
                if store is not None:
                    store.drop(names)
                continue
            if store is not None:
                store.put(_plain(result))
            if args.json:
                plain.append(_plain(result))
            else:
                print_line(told(result, args.error, args.estimator, matrix=args.pairs is None))
        if earlier:
            say(f"{earlier} of {len(pairs)} pairs were matched before")
        if args.json:
            print_line(json.dumps(plain if args.pairs else plain[0] if plain else {}))
        if store is not None:
            store.finish(pairs, matcher.features)
    if args.draw is not None and not failed:
        _draw(args, result)
    if failed:
        again = "" if args.pairs is None or args.out is None else "; the same command tries these again"
        raise ValueError(f"{failed} of {len(pairs)} pairs could not be matched{again}")


class _Matcher:
    """Matches images by name; keypoints are found once in each, but for images that are long ago."""

    def __init__(self, args: argparse.Namespace) -> None:
        from kp.features.match_pair import describer

        self.args = args
        scales = 1 if args.upright else DESCRIPTOR_SCALES
        self.extractor = None
        if args.features is None:
            self.extractor = make_extractor(args, scales)
            self.describe = describer(self.extractor, None if args.descriptors == "own" else args.descriptors)
        else:
            settings = recorded_settings(args)
            args.exif = settings["exif"]  # as where the keypoints were found
            self.describe = described_as_in_file(args, settings)
        self.image = lru_cache(_KEPT_IMAGES)(_grey)  # a list of pairs names most images several times
        self.features = lru_cache(_KEPT_FEATURES)(self._features)

    def _features(self, name: str) -> Mapping[str, Any]:
        """Those of an image, by its name. Raises ValueError."""
        args = self.args
        if self.extractor is None:
            return features_of_file(args, name)
        image = self.image(_path(args, name), args.exif)
        return features_of(self.extractor, image, None, args.descriptors)

    def match(self, name0: str, name1: str) -> dict[str, Any]:
        """What :func:`kp.match` and the two matrices give."""
        from kp.features.match_pair import fitted, match_places

        paths = [_path(self.args, name) for name in (name0, name1)]
        f0, f1 = self.features(name0), self.features(name1)
        in_place = self.args.out is not None and self.args.out.suffix.lower() != ".json"  # keypoints count, not places
        context = not (self.args.unrefined or in_place)
        images = None if self.args.unrefined else tuple(self.image(path, self.args.exif).grey for path in paths)
        if images is not None and self.args.features is not None:
            for name, image, features in zip((name0, name1), images, (f0, f1), strict=True):
                check_size(name, image, features)
        choices = self.args.ratio or None, self.args.upright, context, self.args.estimator
        with named(f"{name0} and {name1}"):
            found = match_places((f0, f1), images, self.describe, *choices)
        found = fitted(found, (f0, f1), self.args.error, self.args.estimator)
        found |= {name: found[name].cpu() for name in ("matches", "scores", "keypoints0", "keypoints1")}
        return found | {"names": (name0, name1), "counts": [f["keypoints"].shape[1] for f in (f0, f1)]}


def _path(args: argparse.Namespace, name: str | Path) -> Path:
    """Where the image of a name lies."""
    return Path(name) if args.images is None else args.images / name


def _grey(path: Path, exif: str) -> Any:
    """A :class:`kp.features.images.GreyImage`."""
    from kp.features.images import to_grey_image

    return to_grey_image(path, exif)


def _pairs(args: argparse.Namespace) -> list[tuple[str, str]]:
    """The names of the images of each pair. Raises ValueError."""
    if args.pairs is None:
        if len(args.pair) != 2:
            raise ValueError(f"two images are matched, not {len(args.pair)}: kp match A B, or --pairs FILE")
        return [(str(args.pair[0]), str(args.pair[1]))]
    if args.pair:
        raise ValueError("name two images, or --pairs FILE, not both")
    try:
        texts = [line.strip() for line in args.pairs.read_text("utf-8-sig").split("\n")]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--pairs {args.pairs} cannot be read: {one_line(error)}") from error
    lines = [text.split("\t" if "\t" in text else None) for text in texts if text and text[0] != "#"]
    if wrong := [line for line in lines if len(line) != 2]:
        raise ValueError(f"{args.pairs} has the line {' '.join(wrong[0])!r}: wanted are two names a line")
    if not lines:
        raise ValueError(f"{args.pairs} names no pair")
    if same := [one for one, two in lines if one == two]:
        raise ValueError(f"{args.pairs} pairs {same[0]} with itself")
    return list(dict.fromkeys((one, two) for one, two in lines))


def _check(args: argparse.Namespace, pairs: list[tuple[str, str]]) -> None:
    """Raises ValueError on what cannot work, before the work."""
    from kp.features.draw import check_picture_suffix
    from kp.features.match_files import check_pairs
    from kp.features.pair_store import FORMATS
    from kp.support.files import check_writable

    if args.features is not None:
        check_features(args)
        _check_images(args, pairs)
    if args.overwrite and args.out is None:
        raise ValueError("--overwrite replaces --out: name one")
    if not 0 <= args.ratio <= 1:
        raise ValueError(f"--ratio must be in (0, 1], or 0 for no test, not {args.ratio}")
    if not 0 < args.error < float("inf"):
        raise ValueError(f"--error must be above 0 pixels, not {args.error}")
    if args.images is not None and not args.images.is_dir():
        raise ValueError(f"--images {args.images} is not a folder")
    if args.out is not None and args.out.suffix.lower() not in FORMATS:
        raise ValueError(f"--out {args.out} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if args.out is not None and args.out.suffix.lower() == ".h5":
        check_pairs(pairs)
    if args.draw is not None:
        if args.pairs is not None:
            raise ValueError("--draw shows two images: leave out --pairs")
        check_picture_suffix(args.draw)
        if args.draw.resolve() in [_path(args, name).resolve() for name in args.pair]:
            raise ValueError(f"--draw {args.draw} would overwrite an image: name another place")
    check_writable(args.draw)


def _check_images(args: argparse.Namespace, pairs: list[tuple[str, str]]) -> None:
    """Raises ValueError where images are needed beside ``--features`` and are not there."""
    needs = "--draw" if args.draw is not None else None if args.unrefined else "to refine matches"
    if needs is not None and not (path := _path(args, pairs[0][0])).is_file():
        raise ValueError(
            f"there is no image {path}, which is needed {needs}: --images DIR, or --unrefined without --draw"
        )


def _settings(args: argparse.Namespace, looks_again: bool) -> dict[str, Any]:
    """What the matches depend on."""
    names = ("ratio", "error", "upright", "unrefined", "estimator", "exif")
    listed = None if args.pairs is None else str(args.pairs)
    by = extractor_settings(args)
    if args.features is not None:
        by = {"features": f"{args.features} {digest(args.features)}", "second_look": looks_again}
    images = None if args.images is None else str(args.images)
    by |= {"version": _VERSION, "images": images, "pairs": listed}
    return by | {name: getattr(args, name) for name in names}


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    """For JSON."""
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in result.items()}


def _draw(args: argparse.Namespace, result: dict[str, Any]) -> None:
    from kp.features.draw import draw_matches, read_picture, write_picture

    pictures = [read_picture(_path(args, name), args.exif) for name in result["names"]]
    fits = [result["inliers"] & result["verified_H"], result["inliers_F"] & result["verified"]]
    drawn = draw_matches(*pictures, result["keypoints0"], result["keypoints1"], *fits)
    write_picture(args.draw, drawn)


COMMANDS = {"match": (add_arguments, run)}
