"""Find keypoints in images, folders, patterns and videos, and write them.

kp detect photo.jpg                              keypoints.h5, in hloc's layout
kp detect photos/ --out photos.h5 --draw seen    every image in the folder, and pictures of what was found
kp detect photos/ --out points --format csv      points/NAME.csv: x, y, score
kp detect film.mp4 --every 10 --draw film-kp.mp4
kp detect 'photos/**/*.png' --out database.db --descriptors rootsift   for COLMAP

Positions are (x, y) in pixels of the image; (0, 0) is the centre of the top-left pixel (COLMAP's file has 0.5 more).
A run that was interrupted goes on with the same command; images that were changed since are looked at again. An image
that cannot be read is told and left out, and the exit code is then 1.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kp.cli.use import add_extractor_flags, extractor_settings, features_of, make_extractor, one_line_warnings, say

FORMATS = {".h5": "h5", ".json": "json", ".db": "colmap"}  # of a file, by its suffix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder, pattern ('*.png') or video")
    text = "file (.h5, .json, .db) or, with --format npz or csv, folder (default: keypoints.h5)"
    parser.add_argument("--out", type=Path, metavar="FILE|DIR", help=text)
    text = "of the output (default: as the suffix of --out says): h5 as hloc, npz, csv, json, or a database of COLMAP"
    parser.add_argument("--format", choices=("h5", "npz", "csv", "json", "colmap"), help=text)
    text = "folder of masks, by the names of the images (with any suffix): not black where there may be keypoints"
    parser.add_argument("--masks", type=Path, metavar="DIR", help=text)
    text = "also draw the keypoints: into a folder, or for a video into one of .mp4"
    parser.add_argument("--draw", type=Path, metavar="DIR|FILE.mp4", help=text)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of a video, one frame in N (default: 1)")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where --out is there already")
    add_extractor_flags(parser, "none")
    text = "with own descriptors: describe keypoints in N sizes of the image, each half of the one before, so that kp "
    text += "match --features finds those of pictures from nearer; 3 is what kp match does (default: 1)"
    parser.add_argument("--descriptor-scales", type=int, default=1, metavar="N", help=text)
    text = "also how far each keypoint may be off (2x2, px^2), for h5, npz and json; see kp covariance"
    parser.add_argument("--covariances", action="store_true", help=text)


def run(args: argparse.Namespace) -> None:
    """Find, write, draw. Raises ValueError at the end if an image could not be read."""
    from kp.features.sources import count_frames, find_images
    from kp.features.store import Store
    from kp.support.process import print_line

    if args.every < 1:
        raise ValueError(f"--every must be at least 1, not {args.every}")
    out, form = _output(args)
    if args.covariances and form in ("csv", "colmap"):
        raise ValueError(f"--covariances: {form} has no place for them: take h5, npz or json")
    files = find_images(args.inputs)
    draw = _drawer(args.draw, files)
    if args.masks is not None and not args.masks.is_dir():
        raise ValueError(f"--masks {args.masks} is not a folder")
    if args.descriptor_scales < 1:
        raise ValueError(f"--descriptor-scales must be at least 1, not {args.descriptor_scales}")
    extractor = make_extractor(args, args.descriptor_scales)
    if args.descriptor_scales > 1 and not extractor.describes:
        raise ValueError("--descriptor-scales is for own descriptors: --weights described --descriptors own")
    store = Store(out, form, _settings(args), args.overwrite)
    total = sum(count_frames(path, args.every) for _, path in files)
    seen, failed, found, new = 0, 0, 0, 0
    with closing(store), one_line_warnings(), _bar(total) as bar, draw as show:
        for name, features, error in _each(files, args, extractor, store, show):
            bar.update()
            seen += 1
            if error is not None:
                failed += 1
                say(error)
            if features is not None:
                try:
                    store.put(name, features)
                except (UnicodeError, ValueError) as wrong:
                    failed += 1
                    say(f"{name!r} cannot be written: {wrong}")
                    continue
                new, found = new + 1, found + features["keypoints"].shape[1]
        if not store.names:
            raise ValueError(f"none of {failed} images could be read: nothing is written")
        store.finish()
    earlier = len(store.names) - new
    images = f"{new} image{'' if new == 1 else 's'}"
    print_line(f"{found} keypoints in {images}{f', {earlier} were there' if earlier else ''}: {out}")
    if failed:
        what = "read" if args.draw is None else "read or drawn"
        raise ValueError(f"{failed} of {seen} images could not be {what}; the others are written")


def _bar(total: int) -> tqdm:
    from kp.support.process import progress_interval

    return tqdm(total=total, unit="image", leave=False, dynamic_ncols=True, mininterval=progress_interval())


def _each(files: Any, args: argparse.Namespace, extractor: Any, store: Any, show: Callable[..., None]) -> Iterator[Any]:
    """For each image its name, its features, or None if they are there already, and what is wrong with it or None."""
    from kp.data.image_files import ImageError, read_pixels
    from kp.features.draw import picture_of
    from kp.features.sources import items
    from kp.support.errors import named

    for name, image in items(files, args.every):
        there = store.is_current(name, image if isinstance(image, Path) else None)
        if there and args.draw is None:
            yield name, None, None
            continue
        features = error = None
        try:
            with named(name):
                image = image if isinstance(image, Path) else image()
                mask = None if args.masks is None else _mask(args.masks, name)
                features = features_of(extractor, image, mask, args.descriptors)
                if args.draw is not None:
                    whole = read_pixels(image, args.exif == "apply").values if isinstance(image, Path) else image / 255
                    show(name, picture_of(whole), features)
        except ValueError as wrong:
            error = str(wrong.__cause__ if isinstance(wrong.__cause__, ImageError) else wrong)
        yield name, None if there else features, error


def _output(args: argparse.Namespace) -> tuple[Path, str]:
    """Where to write, and in which format. Raises ValueError."""
    if args.out is None:
        folder = args.format in ("npz", "csv")
        suffix = {"colmap": ".db", "json": ".json"}.get(args.format, ".h5")
        return Path("keypoints" if folder else f"keypoints{suffix}"), args.format or "h5"
    form = args.format or FORMATS.get(args.out.suffix.lower())
    if form is None:
        raise ValueError(f"--out {args.out} must end in {', '.join(FORMATS)}; for a folder choose --format npz or csv")
    if form in ("h5", "json", "colmap") and FORMATS.get(args.out.suffix.lower()) != form:
        raise ValueError(f"--out {args.out} must end in {next(end for end, of in FORMATS.items() if of == form)}")
    return args.out, form


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the features depend on."""
    masks = None if args.masks is None else str(args.masks)
    covariances = {"covariances": True} if args.covariances else {}  # files of before this flag have none
    sizes = {} if args.descriptor_scales == 1 else {"descriptor_scales": args.descriptor_scales}
    return extractor_settings(args) | {"masks": masks, "every": args.every} | covariances | sizes


def _mask(folder: Path, name: str) -> Path | None:
    """The file of the mask of an image: with its name, or with another suffix. None: there is none."""
    from kp.data.image_files import SUFFIXES

    path = folder / name
    others = [path.with_name(path.name + suffix) for suffix in SUFFIXES] + [path.with_suffix(s) for s in SUFFIXES]
    return next((file for file in (path, *others) if file.is_file()), None)


def _drawer(target: Path | None, files: Any) -> "_Drawer":
    if target is not None and target.suffix.lower() != ".mp4" and target.exists() and not target.is_dir():
        raise ValueError(f"--draw {target} is a file: name a folder, or a file .mp4")
    if target is not None and target.suffix.lower() == ".mp4" and target.is_dir():
        raise ValueError(f"--draw {target} is a folder: name a file .mp4, or a folder of another name")
    for _, path in files:
        if target is not None and path.resolve() in (target.resolve(), *(target.resolve() / name for name, _ in files)):
            raise ValueError(f"--draw {target} would overwrite {path}: name another place")
    return _Drawer(target)


class _Drawer:
    """Writes pictures with keypoints: into a folder, or as the frames of a video of 25 a second."""

    def __init__(self, target: Path | None) -> None:
        self.target, self.video = target, None
        self.is_video = target is not None and target.suffix.lower() == ".mp4"

    def __enter__(self) -> Callable[..., None]:
        return self.show

    def __exit__(self, *_: object) -> None:
        if self.video is not None:
            self.video.release()

    def show(self, name: str, picture: Any, features: Any) -> None:
        """Draw an image's keypoints."""
        from kp.features.draw import PICTURE_SUFFIXES, draw_keypoints, write_picture

        drawn = draw_keypoints(picture, features)
        if self.is_video:
            self._frame(drawn)
            return
        path = self.target / name
        write_picture(path if path.suffix.lower() in PICTURE_SUFFIXES else path.with_name(path.name + ".png"), drawn)

    def _frame(self, picture: Any) -> None:
        import cv2

        size = (picture.shape[1] - picture.shape[1] % 2, picture.shape[0] - picture.shape[0] % 2)
        if self.video is None:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            video = cv2.VideoWriter(str(self.target), cv2.VideoWriter_fourcc(*"mp4v"), 25, size)
            if not video.isOpened():
                raise ValueError(f"--draw {self.target} cannot be written as a video")
            self.video, self.size = video, size
        if size != self.size:
            raise ValueError(f"--draw {self.target}: the images have different sizes: draw into a folder")
        self.video.write(cv2.cvtColor(picture[: size[1], : size[0]], cv2.COLOR_RGB2BGR))


COMMANDS = {"detect": (add_arguments, run)}
