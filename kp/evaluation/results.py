"""The file that ``evaluate.py --json`` writes: what it holds, written and read.

settings    ``source``, ``split``, ``subset``, ``seed``, ``subpixel``, ``scales``;
            ``protocols``: by name, every field of a Protocol; and what each measure is, in words
skipped     detectors that could not run, by name: the reason
complete    false if the run was stopped
rows        means over pairs: ``protocol``, ``detector``, ``split`` (i, v or all), ``pairs`` (how many), the measures,
            ``homography_1px``, ``_3px``, ``_5px``, ``homography_auc_5px`` and ``interval`` ([low, high], 95 %, of the
            repeatability)
kinds       the same for each kind of change among the i sequences, if there are several: ``kind`` (exposure, webcam,
            blur, JPEG or other) in place of ``split``
differences of the repeatability of kp and the shipped detectors minus that of corner and of harris (``floor``), over
            the same pairs: ``protocol``, ``detector``, ``floor``, ``split``, ``difference`` (the mean), ``interval``
            ([low, high], 95 %, paired; null with one sequence), ``verdict`` (better, worse or no difference), ``pairs``
pairs       every pair's numbers: ``protocol``, ``detector``, ``sequence``, ``split``, ``kind``, ``image`` (the other
            one, 2, 3, ...), the measures, ``corner_error`` and ``refitted_error`` (what would be left of the
            localisation error were the homography the one that fits the repeated points best); null where there is
            none, such as an error without a match
curves      with --curves, means over the photographs: ``sweep`` (rotation or scale), ``value``, ``detector``, measures
checks      lines of the self-check against published values
versions    of kp, torch, kornia and opencv
weights     of the detector ``kp``, null without it: ``path`` and ``sha256``
shipped     the same of every detector that was measured by the name of shipped weights, by that name

The measures: ``repeatability``, ``repeatability_1px``, ``_3px``, ``_5px``, ``one_to_one``, ``localisation_error``
(pixels), ``common`` (points), ``repeated`` (points; pairs only), ``coverage``, ``chance``, ``matches`` (how many) and
``matching_accuracy_1px``, ``_3px``, ``_5px``.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import kornia
import torch

import kp
from kp.evaluation.compare import above_floors
from kp.evaluation.protocols import Protocol
from kp.evaluation.summary import MEASURES, RESAMPLES, SPLITS, summarise, summarise_kinds
from kp.support.files import write_file


def settings(source: str, protocols: Sequence[Protocol], **choices: Any) -> dict[str, Any]:
    """Everything that decides the numbers, for the JSON file: ``choices`` by their flags' names, and the wording."""
    return {
        "protocols": {p.name: {"summary": p.describe()} | vars(p) for p in protocols},
        "source": source,
        **choices,
        "images": "gray, 0.299 R + 0.587 G + 0.114 B of the stored pixels; OpenCV's detectors get it in 8 bits",
        "places": "with subpixel: the top of a quadric through 3x3 scores; SIFT, ORB and AKAZE their own; FAST and "
        "random whole pixels",
        "counted": "keypoints whose place in the other view, by the homography, is in front of the camera and within "
        "[-0.5, W - 0.5] x [-0.5, H - 0.5]; of these the best max_keypoints by score, in each view",
        "repeatability": "(points of view 0 with a point of view 1 at most threshold away + points of view 1 with one "
        "of view 0) / (points of both views); neighbours may be shared; distances in view 1; 0 if a view has no point",
        "localisation_error": "mean distance (px of view 1) of the points that have a neighbour to the nearest one; "
        "mean over the pairs that have one",
        "one_to_one": "the repeatability when no point may be the neighbour of two: a largest matching",
        "coverage": "share of the shared view within the radius of discs of which max_keypoints have its area",
        "chance": "expected repeatability of as many points strewn evenly over the shared view",
        "common": "counted points, mean of the two views",
        "homography": "shares of pairs whose homography, fitted by OpenCV's MAGSAC to mutual nearest neighbours of "
        "Kornia's SIFT descriptor, moves the corners right to so many px of view 1 on average",
        "matching_accuracy": "share of matches that the true homography sends within so many px",
        "interval": f"95 %, percentile bootstrap over sequences, {RESAMPLES} resamples",
    }


def versions() -> dict[str, str]:
    """The versions of what the numbers rest on."""
    return {"kp": kp.__version__, "torch": torch.__version__, "kornia": kornia.__version__, "opencv": cv2.__version__}


def fingerprint(path: Path) -> dict[str, str]:
    """What the results say of a file of weights; ask before it can be replaced. Raises OSError.

    The path is relative to the current folder where the file lies below it; elsewhere it is the file's name only.
    """
    whole, here = path.absolute(), Path.cwd()
    shown = whole.relative_to(here).as_posix() if whole.is_relative_to(here) else path.name
    return {"path": shown, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def content(
    records: list[dict[str, Any]],
    settings: dict[str, Any],
    weights: Mapping[str, str] | None,
    skipped: Mapping[str, str] | None = None,
    complete: bool = True,
) -> dict[str, Any]:
    """What the file holds; ``weights``: the :func:`fingerprint` of those of ``kp``, None if it was not measured."""
    return {
        "settings": settings,
        "skipped": dict(skipped or {}),
        "complete": complete,
        "rows": summarise(records, settings["split"]),
        "kinds": summarise_kinds(records),
        "differences": above_floors(records, settings["split"]),
        "pairs": records,
        "versions": versions(),
        "weights": weights,
    }


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write :func:`content` as JSON, complete or not at all. Raises FileError where that is not possible."""
    parts = (f"{json.dumps(name)}: {_laid_out(value)}" for name, value in content.items())
    write_file(path, ("{\n" + ",\n".join(parts) + "\n}\n").encode())


def _laid_out(value: Any) -> str:
    """JSON with one record a line: thousands of them are then neither one line nor a line for every number."""
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(json.dumps(item, allow_nan=False) for item in value) + "\n]"
    return json.dumps(value, allow_nan=False)


def read(path: str | Path) -> dict[str, Any]:
    """The content of a file that ``evaluate.py --json`` wrote, with all that a comparison needs.

    Raises ValueError, in one line with the file's name and what to do, on a file that is missing or anything else.
    """
    return checked(path, load(path), _FORM)


def load(path: str | Path) -> Any:
    """What a JSON file holds, whatever it is. Raises ValueError as :func:`read` does."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(
            f"{str(path)!r} cannot be read ({error.strerror}): write one with evaluate.py --json"
        ) from None
    except (ValueError, RecursionError):
        raise ValueError(f"{str(path)!r} is not JSON: write it again with evaluate.py --json") from None


def checked(path: str | Path, content: Any, form: Any) -> Any:
    """The content of the file if it is of a form, see :func:`_misfits`. Raises ValueError as :func:`read` does."""
    if isinstance(content, dict) and content.get("pairs") == []:
        raise ValueError(f"{str(path)!r} has no pair, nothing was measured: run evaluate.py --json again")
    wrong = next(_misfits(content, form), None)
    if wrong is not None:
        text = f"{wrong or 'the whole'} is missing, empty or not what this version of evaluate.py --json writes"
        raise ValueError(f"{str(path)!r}: {text}: measure again")
    return content


def _misfits(value: Any, form: Any, where: str = "") -> Iterator[str]:
    """Where a value is not of a form: a dict of forms, a list of the form of all items, or a function that tells."""
    if isinstance(form, dict) and isinstance(value, dict):
        for name, part in form.items():
            yield from _misfits(value.get(name, ...), part, f"{where}.{name}".lstrip("."))
    elif isinstance(form, list) and isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _misfits(item, form[0], f"{where}[{number}]")
    elif not callable(form) or not form(value):
        yield where


def is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def is_fingerprint(value: Any) -> bool:
    return isinstance(value, dict) and is_text(value.get("sha256"))


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1e6  # greater than any of ours, and safe to add up


_KEY = {"protocol": is_text, "detector": is_text, "split": SPLITS.__contains__}
_NUMBERS = dict.fromkeys(MEASURES, lambda value: value is None or is_number(value))
_FORM = {
    "settings": {
        "source": is_text,
        "protocols": lambda v: isinstance(v, dict) and all(isinstance(p, dict) for p in v.values()),
    },
    "complete": lambda value: isinstance(value, bool),
    "versions": {"kp": is_text},
    "weights": lambda value: value is None or is_fingerprint(value),
    "shipped": lambda value: value is ... or (isinstance(value, dict) and all(map(is_fingerprint, value.values()))),
    "rows": [
        _KEY
        | _NUMBERS
        | {"homography_3px": is_number}
        | {"interval": lambda v: isinstance(v, list) and len(v) == 2 and all(map(is_number, v))}
    ],
    "pairs": [
        _KEY
        | _NUMBERS
        | {"sequence": is_text, "image": is_number}
        | {"corner_error": lambda v: v is None or (type(v) in (int, float) and v >= 0)}
    ],
}
