"""Measure how often detectors find the same points again in another picture of the same scene.

A keypoint of image 1 counts when the homography sends it inside image k, a keypoint of image k when the inverse sends
it inside image 1; then the best --max-keypoints of each count. Repeatability is the share of all these points that have
a point of the other image within --threshold pixels; it is 0 if either image has none. The localisation error is how
far, in pixels of image k, that nearest point is on average; common points is how many points count. One-to-one is the
repeatability when no point may be the neighbour of two, coverage how much of the shared view lies near a point (0.63 if
points are strewn at random), chance the repeatability of as many points strewn evenly. Every detector gets the same
non-maximum suppression; numbers are means over pairs (1, k), for illumination (i) and viewpoint (v) sequences apart and
together, with 95 % intervals by bootstrap over sequences.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Series
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from kp import hpatches, photographs
from kp.baselines import BASELINES, random_scores
from kp.checkpoint import load_detector
from kp.download import D2NET_LEFT_OUT, fetch_hpatches
from kp.geometry import Size
from kp.hpatches import DOWNLOAD, HPatchesError, Sequence, export_sequence, write_file
from kp.keypoints import Keypoints, extract_keypoints
from kp.metrics import measure_pair
from kp.protocols import PROTOCOLS, Protocol, carry, describe_all, prepare

EXAMPLES = f"""protocols, each of which people call "HPatches repeatability":
{describe_all()}

examples:
  python evaluate.py                     every detector on the built-in photographs, nothing to download
  python evaluate.py --download          fetch HPatches (1.3 GB), then measure every detector on it
  python evaluate.py --hpatches ROOT     every detector on HPatches, in the folder ROOT
  python evaluate.py --hpatches ROOT --protocol native 240x320 480x640
  python evaluate.py --hpatches ROOT --detectors kp harris --weights mine.safetensors --json table.json --export maps

HPatches: {DOWNLOAD}."""

Detector = Callable[[Tensor], Keypoints]  # image (1, 1, H, W) in [0, 1] -> all keypoints, after NMS and border, B = 1
Export = Callable[[Sequence, dict[str, list[Keypoints]], list[Size]], None]


def read_sequences(root: Path | None, split: str, subset: str, seed: int, download: bool) -> list[Sequence]:
    """HPatches in a folder, fetched first if asked for; without a folder, the built-in photographs.

    ``subset`` ``d2net`` leaves out the eight sequences of very large images. Raises HPatchesError, DownloadError.
    """
    if root is None:
        return photographs.read(seed, split)
    sequences = hpatches.read(fetch_hpatches(root) if download else root, split)
    kept = [s for s in sequences if subset == "all" or s.name not in D2NET_LEFT_OUT]
    if not kept:
        raise HPatchesError(f"{root} has only sequences that --subset {subset} leaves out")
    return kept


def make_detectors(
    names: Series[str],
    *,
    weights: Path,
    nms_size: int,
    border: int,
    subpixel: bool,
    seed: int,
    device: torch.device,
) -> dict[str, Detector]:
    """The named detectors behind one call, all with the same NMS; ``kp`` runs the network of ``weights``.

    Raises ValueError on a name that is none, CheckpointError on weights that cannot be used.
    """
    scores = BASELINES | {"random": partial(random_scores, generator=torch.Generator().manual_seed(seed))}
    if "kp" in names:
        scores["kp"] = load_detector(weights, device)
    if unknown := [name for name in names if name not in scores]:
        raise ValueError(f"no detector is called {unknown[0]}: there are kp, {', '.join(scores)}")
    settings = {"nms_size": nms_size, "border": border, "device": device}
    return {
        name: partial(_detect, scores=scores[name], subpixel=subpixel and name == "kp", **settings) for name in names
    }


@torch.inference_mode()
def _detect(
    image: Tensor,
    *,
    scores: Callable[[Tensor], Tensor],
    nms_size: int,
    border: int,
    subpixel: bool,
    device: torch.device,
) -> Keypoints:
    """All keypoints of an image (1, 1, H, W), on the CPU; the score map is made, and searched, on the device."""
    found = extract_keypoints(scores(image.to(device)).to(device), None, nms_size, border, subpixel)
    return Keypoints(found.xy.cpu(), found.scores.cpu(), found.valid.cpu())


def evaluate(
    sequences: Series[Sequence],
    detectors: Mapping[str, Detector],
    protocol: Protocol = PROTOCOLS["native"],
    export: Export | None = None,
) -> Iterator[dict[str, Any]]:
    """Measure every pair (image 1, image k) of each sequence by each detector: one plain dict per pair and detector.

    A record has ``protocol``, ``detector``, ``sequence``, ``split``, ``image`` (k), and what
    :func:`kp.metrics.measure_pair` says (None where nothing matched). They come a sequence at a time, so that all
    detectors have measured the same pairs whenever it stops. ``export`` gets each sequence once, as the protocol sees
    it, with every detector's keypoints in each image. Draws a progress bar, over images, on stderr.
    """
    total = len(detectors) * sum(len(sequence.images) for sequence in sequences)
    often = 0.1 if sys.stderr.isatty() else 30.0  # seconds: a log file needs no moving picture
    with tqdm(total=total, unit="image", leave=False, mininterval=often, dynamic_ncols=True) as bar:
        for sequence in sequences:
            bar.set_postfix_str(sequence.name, refresh=False)
            images, sequence = _prepared(sequence, protocol)
            sizes = [tuple(image.shape[-2:]) for image in images]
            keypoints, records = {name: [] for name in detectors}, []
            for name, detector in detectors.items():
                for image in images:
                    keypoints[name].append(detector(image))
                    bar.update()
                records += _pairs(sequence, name, keypoints[name], sizes, protocol)
            if export is not None:
                export(sequence, keypoints, sizes)
            yield from records


def _prepared(sequence: Sequence, protocol: Protocol) -> tuple[list[Tensor], Sequence]:
    """The images as the protocol looks at them, and the sequence with the homographies between these."""
    prepared = [prepare(load(), protocol) for load in sequence.images]
    images = [image for image, _ in prepared]
    if protocol.size is None:
        return images, sequence
    to1 = prepared[0][1]
    homographies = tuple(carry(H, to1, tok) for H, (_, tok) in zip(sequence.homographies, prepared[1:], strict=True))
    return images, replace(sequence, homographies=homographies, files=())


def _pairs(
    sequence: Sequence, name: str, keypoints: list[Keypoints], sizes: list[Size], protocol: Protocol
) -> Iterator[dict[str, Any]]:
    settings = protocol.max_keypoints, protocol.threshold
    for k in range(2, len(keypoints) + 1):
        H_0to1 = sequence.homography(k, sizes[0])
        scores = measure_pair(keypoints[0], keypoints[k - 1], H_0to1, sizes[0], sizes[k - 1], *settings)
        yield {
            "protocol": protocol.name,
            "detector": name,
            "sequence": sequence.name,
            "split": sequence.split,
            "image": k,
            **{field: _number(value) for field, value in scores.items()},
        }


def collect(records: Iterator[dict[str, Any]]) -> tuple[list[dict[str, Any]], BaseException | None]:
    """All records, or those that came before Ctrl-C or bad input; and what stopped the measuring, or None."""
    done = []
    try:
        for record in records:
            done.append(record)
    except (KeyboardInterrupt, ValueError) as stop:
        return done, stop
    return done, None


def exporter(directory: Path, names: Series[str], subpixel: bool = False, protocols: int = 1) -> Export:
    """Write the exercise's files of ``kp`` or, without it, of the one detector there is. Raises ValueError."""
    if protocols != 1:
        raise ValueError("--export writes the keypoints of one protocol: choose one")
    if subpixel:
        raise ValueError("--export writes keypoints at whole pixels: leave out --subpixel")
    if "kp" not in names and len(names) != 1:
        raise ValueError(f"--export writes one detector: choose one of {', '.join(names)}, or kp")
    name = "kp" if "kp" in names else names[0]
    check_writable(directory / "file")

    def export(sequence: Sequence, keypoints: dict[str, list[Keypoints]], sizes: list[Size]) -> None:
        export_sequence(directory, sequence, keypoints[name], sizes, torch.sigmoid if name == "kp" else None)

    return export


def check_writable(path: Path | None) -> None:
    """Make the folder of a file to be written, if any, and try to write there. Raises HPatchesError."""
    if path is None:
        return
    if path.is_dir():
        raise HPatchesError(f"{path} is a folder: name a file in it")
    probe = path.with_name(f".{path.name}.probe")
    write_file(probe, b"")
    probe.unlink()


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
