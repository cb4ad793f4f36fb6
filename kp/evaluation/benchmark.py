"""Measure how often detectors find the same points again in another picture of the same scene.

A keypoint of image 1 counts when the homography sends it inside image k, a keypoint of image k when the inverse sends
it inside image 1; then the best --max-keypoints of each count. Repeatability is the share of all these points that have
a point of the other image within --threshold pixels; it is 0 if either image has none. The localisation error is how
far, in pixels of image k, that nearest point is on average; common points is how many points count. One-to-one is the
repeatability when no point may be the neighbour of two, coverage how much of the shared view lies near a point (0.63 if
points are strewn at random), chance the repeatability of as many points strewn evenly. Because repeatability alone does
not predict use, H 3px is the share of pairs whose homography moves the image's corners right to 3 px on average, and
MMA the share of matches that are right to 3 px. The homography is fitted to matches of one descriptor for all detectors
(Kornia's SIFT, mutual nearest neighbours) by OpenCV's MAGSAC, followed by least squares on its inliers. Every detector
gets the same non-maximum suppression; numbers are means over pairs (1, k), for illumination (i) and viewpoint (v)
sequences apart and together, with 95 % intervals by bootstrap over sequences.

The detector corner is the corner response with nothing learnt: the floor for all that is learnt. Below the table stands
how much kp is above it and above harris, with paired 95 % intervals. OpenCV's Harris and Shi-Tomasi (harris,
shi-tomasi) sum over 4x4 pixels, which shifts them by half a pixel; this is in their localisation error.
harris-gaussian has a round window, no shift, and kp's thinning.

The repeatability of i sequences is also shown by kind of change where there are several kinds. The kind of a sequence
is read from a table in ROOT/INDEX.md, in Markdown: the first cell of a row is the sequence's name, the last one says
exposure, webcam, blur or JPEG. Without it, the public sequences of Oxford and TILDE are known; the rest are "other".
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kp.data import hpatches, photographs
from kp.data.detection_maps import export_sequence
from kp.data.download import D2NET_LEFT_OUT, fetch_hpatches
from kp.data.hpatches import DOWNLOAD, HPatchesError, ImageSequence
from kp.evaluation import matching, metrics
from kp.evaluation.detected_pairs import detected_pairs
from kp.evaluation.kinds import VIEWPOINT, kinds
from kp.evaluation.protocols import PROTOCOLS, Protocol, carry, describe_all, prepare
from kp.evaluation.registry import OURS, FindKeypoints, KeypointFiles
from kp.features.describe import rootsift
from kp.geometry.coords import Size, covisible_mask, invert
from kp.models.keypoints import Keypoints
from kp.support.errors import named
from kp.support.files import check_writable
from kp.support.parallel import map_items

EXAMPLES = f"""protocols, each of which people call "HPatches repeatability":
{describe_all()}

examples:
  python evaluate.py                     every detector on the built-in photographs, nothing to download
  python evaluate.py --download          fetch HPatches (1.3 GB), then measure every detector on it
  python evaluate.py --hpatches ROOT     every detector on HPatches, in the folder ROOT
  python evaluate.py --hpatches ROOT --protocol native 240x320 480x640 --workers 4
  python evaluate.py --hpatches ROOT --curves --report page     a page to look at: page/index.html
  python evaluate.py --hpatches ROOT --keypoints DIR            your own keypoints, DIR/SEQUENCE/1.npz, as "mine"
  python evaluate.py --hpatches ROOT --features kp+rootsift sift xfeat --points 1000 --workers 2
  python evaluate.py --compare before.json after.json           what changed, and whether chance explains it
  python evaluate.py --hpatches ROOT --detectors kp harris --weights mine.safetensors --json table.json --export maps

HPatches: {DOWNLOAD}."""

STOPS = (KeyboardInterrupt, Exception)  # end the measuring, but lose nothing that was measured: whatever the class
Export = Callable[[ImageSequence, dict[str, list[Keypoints]], list[Size]], None]


def read_sequences(
    root: Path | None, split: str = "all", subset: str = "all", seed: int = 0, download: bool = False
) -> list[ImageSequence]:
    """HPatches in a folder, fetched first if asked for; without a folder, the built-in photographs.

    ``subset`` ``d2net`` leaves out the eight sequences of very large images. The ``kind`` of each is one of
    :mod:`kp.evaluation.kinds`. Raises HPatchesError, DownloadError.
    """
    if root is None:
        return _with_kinds(photographs.read(seed, split), None)
    sequences = hpatches.read(fetch_hpatches(root) if download else root, split)
    kept = [s for s in sequences if subset == "all" or s.name not in D2NET_LEFT_OUT]
    if not kept:
        raise HPatchesError(f"{root} has only sequences that --subset {subset} leaves out")
    return _with_kinds(kept, root)


def _with_kinds(sequences: Sequence[ImageSequence], root: Path | None) -> list[ImageSequence]:
    found = kinds(root, [s.name for s in sequences])
    return [replace(s, kind=VIEWPOINT if s.split == "v" else found[s.name]) for s in sequences]


def evaluate(
    sequences: Sequence[ImageSequence],
    make: Callable[[], Mapping[str, FindKeypoints | KeypointFiles]],
    protocol: Protocol = PROTOCOLS["native"],
    export: Export | None = None,
    workers: int = 1,
) -> Iterator[dict[str, Any]]:
    """Measure every pair (image 1, image k) of each sequence by each detector: one plain dict per pair and detector.

    A record has ``protocol``, ``detector``, ``sequence``, ``split``, ``kind``, ``image`` (k), and what ``measure_pair``
    of :mod:`kp.evaluation.metrics` and of :mod:`kp.evaluation.matching` say (None where nothing matched). They come a
    sequence at a time, so that all detectors have measured the same pairs whenever it stops. ``make`` gives the
    detectors by name; ``export`` gets each sequence once, as the protocol sees it, with every detector's keypoints in
    each image. With more ``workers`` than one, processes share the sequences, see
    :func:`kp.support.parallel.map_items`, and both must be picklable; the records are the same, in the same order.
    Draws a progress bar, over sequences, on stderr.

    A detector is a function of an image (1, 1, H, W) that gives Keypoints, B = 1. All of them count as they are: it is
    the detector that suppresses those that are close to a better one, as :func:`kp.models.keypoints.extract_keypoints`
    does for score maps and :func:`kp.evaluation.keypoint_files.suppress` for points.

    Example, with a detector ``find`` of your own, and ``summarise`` of :mod:`kp.evaluation.summary`:
        >>> sequences = read_sequences(Path("hpatches-sequences-release"))
        >>> records = list(evaluate(sequences, lambda: {"my detector": find}))
        >>> rows = summarise(records)  # means over the pairs of i, of v and of all, with intervals
    """
    work = partial(_measurer, make, protocol, export)
    for records in map_items(work, sequences, workers, name=attrgetter("name"), unit="sequence"):
        yield from records


def _measurer(
    make: Callable[[], Mapping[str, FindKeypoints | KeypointFiles]], protocol: Protocol, export: Export | None
) -> Callable[[ImageSequence], list[dict[str, Any]]]:
    return partial(measure_sequence, detectors=make(), protocol=protocol, export=export)


def measure_sequence(
    sequence: ImageSequence,
    detectors: Mapping[str, FindKeypoints | KeypointFiles],
    protocol: Protocol,
    export: Export | None = None,
) -> list[dict[str, Any]]:
    """The records of one sequence, see :func:`evaluate`. Each image is loaded once, and each detector sees it once."""
    prepared, sequence = prepared_sequence(sequence, protocol)
    images = [each.image for each in prepared]
    sizes = [tuple(image.shape[-2:]) for image in images]
    keypoints = {name: _find_all(f"{name} on {sequence.name}", find, prepared) for name, find in detectors.items()}
    if export is not None:
        export(sequence, keypoints, sizes)
    between = views(sequence, sizes)
    records = []
    for name, found in keypoints.items():
        with named(f"{name} on {sequence.name}"):
            features = [rootsift(*seen, protocol.max_keypoints) for seen in zip(images, found, strict=True)]
            for pair, shared in zip(detected_pairs(sequence, images, found), between, strict=True):
                scores = metrics.measure_pair(
                    pair.keypoints0, pair.keypoints1, pair.H_0to1, shared, protocol.max_keypoints, protocol.threshold
                )
                described = features[0], features[pair.number - 1]
                scores |= matching.measure_pair(*described, pair.H_0to1[0], pair.size0)
                records.append(_record(sequence, name, protocol, pair.number, scores))
    return records


def _record(
    sequence: ImageSequence, name: str, protocol: Protocol, number: int, scores: Mapping[str, float]
) -> dict[str, Any]:
    facts = {"protocol": protocol.name, "detector": name, "sequence": sequence.name, "split": sequence.split}
    return facts | {"kind": sequence.kind, "image": number} | {field: _number(value) for field, value in scores.items()}


def _find_all(what: str, find: FindKeypoints | KeypointFiles, prepared: Sequence["PreparedImage"]) -> list[Keypoints]:
    with named(what):
        return [find_in(each, find) for each in prepared]


class PreparedImage(NamedTuple):
    """An image (1, 1, H, W) as the protocol looks at it, which one it is, and how it came from its file.

    ``file_size`` is the (H, W) of the file's image, and ``H_file_to_image`` (3, 3) sends its pixels here.
    """

    image: Tensor
    sequence: str
    number: int
    file_size: Size
    H_file_to_image: Tensor


def prepared_sequence(sequence: ImageSequence, protocol: Protocol) -> tuple[list[PreparedImage], ImageSequence]:
    """The images as the protocol looks at them, and the sequence with the homographies between these."""
    prepared = []
    for number, load in enumerate(sequence.images, start=1):
        loaded = load()
        image, H_file_to_image = prepare(loaded, protocol)
        size = tuple(loaded.shape[-2:])
        prepared.append(PreparedImage(image, sequence.name, number, size, H_file_to_image))
    if protocol.size is None:
        return prepared, sequence
    to1, *others = (each.H_file_to_image for each in prepared)
    homographies = tuple(carry(H, to1, tok) for H, tok in zip(sequence.homographies, others, strict=True))
    return prepared, replace(sequence, homographies=homographies, files=())


def find_in(prepared: PreparedImage, find: FindKeypoints | KeypointFiles) -> Keypoints:
    """All keypoints of an image, found in it or read from its file."""
    if not isinstance(find, KeypointFiles):
        return find(prepared.image)
    image, *place = prepared
    return find.find(*place, tuple(image.shape[-2:]))


def views(sequence: ImageSequence, sizes: list[Size]) -> list[tuple[Tensor, Tensor]]:
    """The pixels (1, 1, H, W) of either view of every pair that the other view sees."""
    found = []
    for k, size1 in enumerate(sizes[1:], start=2):
        H_0to1 = sequence.homography(k, sizes[0])
        found.append((covisible_mask(H_0to1, sizes[0], size1), covisible_mask(invert(H_0to1), size1, sizes[0])))
    return found


def collect(records: Iterator[dict[str, Any]]) -> tuple[list[dict[str, Any]], BaseException | None]:
    """All records, or those that came before Ctrl-C or an error; and what stopped the measuring, or None."""
    done = []
    try:
        for record in records:
            done.append(record)
    except STOPS as stop:
        return done, stop
    return done, None


def exporter(directory: Path, names: Sequence[str], protocols: int = 1) -> Export:
    """Write the exercise's files of ``kp`` or, without it, of the one detector there is. Raises ValueError."""
    if protocols != 1:
        raise ValueError("--export writes the keypoints of one protocol: choose one")
    if "kp" not in names and len(names) != 1:
        raise ValueError(f"--export writes one detector: choose one of {', '.join(names)}, or kp")
    name = "kp" if "kp" in names else names[0]
    check_writable(directory / "file")
    return partial(_export, directory=directory, name=name)


def _export(
    sequence: ImageSequence, keypoints: dict[str, list[Keypoints]], sizes: list[Size], *, directory: Path, name: str
) -> None:
    export_sequence(directory, sequence, keypoints[name], sizes, torch.sigmoid if name in OURS else None)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
