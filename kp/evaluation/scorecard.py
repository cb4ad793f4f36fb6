"""Numbers of a detector without real test sequences: on changed photographs and on synthetic pairs.

NMS 9x9, a border of 4 px, repeated means within 3 px. Names of the numbers, means over pairs:

i_300, v_300        repeatability of the best 300 keypoints on the built-in photographs (:mod:`kp.data.photographs`)
i_25, v_25          of the best 25: in 240x320 as dense as 300 of 0.9 megapixels, which is what protocol native sees
i_75, v_75          of the best 75, between the two and with less noise
error_75            localisation error of the best 75, i and v, in pixels
hard_25 to _300     the same numbers where the light changes as in training and every view is warped, the first too
hard_error          localisation error of the best 75 there, in pixels
rotation_0 to _180  repeatability of the best 75 as the photographs are turned, in degrees
scale_0.5, scale_2  of the best 300 as they are shrunk and magnified
synthetic           of the best 75 on the held-out synthetic pairs (:mod:`kp.data.pairs`)
shift               how much the score map changes as the image moves by a pixel, as a share of its standard deviation:
                    0 if the map moves with the image. A network that is tied to the lattice of its strides scores too
                    well where only the light changes, because both images then share the lattice.

At full size: repeatability of the best 300 for each kind of change of :mod:`kp.data.photograph_changes` (light, relit,
focus, zoom, tilt, hard) and over all kinds, and with ``_error`` the localisation error in pixels.

A number that does not exist is left out: an error where nothing matched, a shift of a map that is -inf nearly
everywhere.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from statistics import fmean

import torch
from torch import Tensor
from tqdm import tqdm

from kp.data import photographs
from kp.data.hpatches import ImageSequence
from kp.data.pairs import as_sequences, held_out_pairs
from kp.data.photograph_changes import KINDS, full_size_sequences, swept_sequences
from kp.evaluation.baselines import ScoreMap
from kp.evaluation.detected_pairs import score_sequences
from kp.evaluation.protocols import PROTOCOLS
from kp.evaluation.registry import make_detectors
from kp.support.process import progress_interval

SEEDS = (1, 2)  # of the photographs' changes; what evaluate.py shows without --hpatches is seed 0
SWEPT = {"rotation": (0.0, 45.0, 90.0, 180.0), "scale": (0.5, 2.0)}
ERROR = "_error"
NAMES = (
    *("i_25", "v_25", "i_75", "v_75", "i_300", "v_300", "error_75"),
    *("hard_25", "hard_75", "hard_300", "hard_error"),
    *(f"{kind}_{value:g}" for kind, values in SWEPT.items() for value in values),
    *("synthetic", "shift"),
)
FULL_SIZE_NAMES = tuple(f"{kind}{ending}" for kind in (*KINDS, "all") for ending in ("", ERROR))
_ERROR_COUNT = 75  # best keypoints of which the localisation error is taken
_COUNTS = {"i": (25, 75, 300), "v": (25, 75, 300), "hard": (25, 75, 300)}  # best keypoints that count
_COUNTS |= {"rotation": (75,), "scale": (300,), "synthetic": (75,)}
_EDGE = 32  # pixels from the edge of an image where a shift of the image is felt
_SHIFTS = ((0, 0), (1, 0), (0, 1))  # (x, y) pixels
_LEAST_SHARE = 0.1  # of the pixels that must have a score in both maps for a shift to mean anything


def scorecard(
    detector: ScoreMap,
    full_size: bool = False,
    subpixel: bool = False,
    device: torch.device | str = "cpu",
    seeds: Sequence[int] = SEEDS,
) -> dict[str, float]:
    """The numbers of a detector, by NAMES or FULL_SIZE_NAMES.

    Args:
        detector: a network in evaluation mode, or any function of an image (1, 1, H, W) that returns a score map.
        full_size: measure the photographs at their own size (some minutes), with a progress bar on stderr.
        subpixel: refine the keypoints.
        seeds: of the changes of the photographs; not used with ``full_size``.

    Raises:
        HPatchesError: scikit-image is not installed.
    """
    find = make_detectors({"kp": detector}, PROTOCOLS["native"], subpixel, torch.device(device))["kp"]
    if full_size:
        records = list(score_sequences(_full_size(), find, lambda _: (PROTOCOLS["native"].max_keypoints,)))
        scores = _full_size_means(records)
        return {name: scores[name] for name in FULL_SIZE_NAMES if math.isfinite(scores[name])}
    sequences = _sequences(tuple(seeds), photographs.FILES)
    records = list(score_sequences(sequences, find, lambda s: _COUNTS[s.kind.split("_")[0]]))
    scores = _means(records)
    references = [sequence.images[0]() for sequence in sequences if sequence.kind == "i"][: len(photographs.FILES)]
    scores["shift"] = _mean(shift(detector, image.to(device)) for image in references)
    return {name: scores[name] for name in NAMES if math.isfinite(scores.get(name, math.nan))}


def _means(records: Iterable[dict]) -> dict[str, float]:
    """Repeatability by kind and, where a kind has several, number of keypoints; and the localisation errors."""
    found: dict[str, list[float]] = {"error_75": [], "hard_error": []}
    for record in records:
        kind, count = record["kind"], record["count"]
        name = f"{kind}_{count}" if len(_COUNTS[kind.split("_")[0]]) > 1 else kind
        found.setdefault(name, []).append(record["repeatability"])
        if kind in ("i", "v", "hard") and count == _ERROR_COUNT:
            found["hard_error" if kind == "hard" else "error_75"].append(record["localisation_error"])
    return {name: _mean(values) for name, values in found.items()}


def _full_size_means(records: Sequence[dict]) -> dict[str, float]:
    means = {}
    for ending, measure in (("", "repeatability"), (ERROR, "localisation_error")):
        for kind in KINDS:
            means[f"{kind}{ending}"] = _mean(record[measure] for record in records if record["kind"] == kind)
        means[f"all{ending}"] = _mean(means[f"{kind}{ending}"] for kind in KINDS)
    return means


@torch.inference_mode()
def shift(detector: ScoreMap, image: Tensor) -> float:
    """How much a score map changes as the image (1, 1, H, W) moves by a pixel, in units of its standard deviation.

    The mean of a move to the left and one upwards, over the interior; NaN where fewer than a tenth of the pixels have a
    score.
    """
    height, width = (n - 1 for n in image.shape[-2:])
    maps = [detector(image[..., y : y + height, x : x + width]) for x, y in _SHIFTS]
    inner, changes = slice(_EDGE, -_EDGE), []
    for moved, (x, y) in zip(maps[1:], _SHIFTS[1:], strict=True):
        before = maps[0][..., y:, x:][..., inner, inner]
        after = moved[..., : height - y, : width - x][..., inner, inner]
        both = before.isfinite() & after.isfinite()
        if both.double().mean() < _LEAST_SHARE:
            return math.nan
        changed = (before[both].double() - after[both].double()).std()
        changes.append(changed.item() / max(before[both].double().std().item(), 1e-12))
    return fmean(changes)


@cache
def _sequences(seeds: tuple[int, ...], files: tuple[str, ...]) -> list[ImageSequence]:
    """All sequences of the card: of the photographs ``files``, and synthetic ones. Made once in a process."""
    made = []
    for seed in seeds:
        made += photographs.read(seed)
        made += [photographs.make_sequence(photographs.folder() / file, "hard", seed) for file in files]
        for kind, values in SWEPT.items():
            made += swept_sequences(kind, seed, values)
    return made + [sequence for pair in held_out_pairs() for sequence in as_sequences(pair)]


def _full_size() -> Iterator[ImageSequence]:
    data = photographs.folder()
    for file in tqdm(photographs.FILES, unit="photograph", leave=False, mininterval=progress_interval()):
        yield from full_size_sequences(data / file)


def _mean(values: Iterable[float]) -> float:
    """The mean of the values that are finite; NaN where none is."""
    known = [value for value in values if math.isfinite(value)]
    return fmean(known) if known else math.nan
