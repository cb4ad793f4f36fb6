"""One run of ``evaluate.py --features``: measure complete features, print, write."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kp.config import MODELS, EvaluateSettings, OutputSettings
from kp.data.hpatches import ImageSequence
from kp.evaluation import benchmark, feature_results, results
from kp.evaluation.feature_benchmark import evaluate_features
from kp.evaluation.features import COMPLETE, DESCRIPTORS, REFINED, Where, check_names, make_features
from kp.features.estimate import choose_estimator
from kp.models.checkpoint import find_weights
from kp.reporting.feature_page import write_feature_page
from kp.reporting.feature_tables import printed_features
from kp.support.device import choose_device
from kp.support.flags import Parser, given
from kp.support.process import print_line

NAMES = f"features: {', '.join(COMPLETE)}, and DETECTOR+DESCRIPTOR, with a descriptor of {', '.join(DESCRIPTORS)}"
NAMES += f" (oracle: the true matches); each also as NAME{REFINED}"
OF_DETECTORS = (  # settings that say how detectors are measured, in the order of their flags
    *("detectors", "protocol", "max_keypoints", "threshold", "nms_size", "nms", "border", "scales", "keypoints"),
    *("subpixel", "curves", "export"),
)


def check_given(parser: Parser, argv: list[str] | None) -> None:
    """Ends the program with an error where a command line has --features and a flag of detectors, or only --points."""
    found = given(parser, argv)
    clash = [name for name in OF_DETECTORS if name in found]
    if "features" in found and clash:
        flag = "--" + clash[0].replace("_", "-")
        parser.error(f"{flag} is for detectors: with --features leave it out, and measure them in another run")
    if "points" in found and "features" not in found:
        parser.error("--points is for --features: detectors take --max-keypoints")


def check(s: EvaluateSettings) -> None:
    """Raises ValueError where a name is no feature, or an estimator is not installed."""
    check_names(s.features)
    choose_estimator("poselib")


def measure(sequences: Sequence[ImageSequence], source: str, s: EvaluateSettings, output: OutputSettings) -> None:
    """Measure what the settings say on the sequences; print and write it.

    ``source`` is the name of the data in the results. Raises ValueError with a message of one line; what was measured
    is written before it is raised.
    """
    names, points = tuple(dict.fromkeys(s.features)), tuple(sorted(set(s.points)))
    path = find_weights(s.weights)
    features, skipped = make_features(names, max(points), Where(path, s.baseline_weights, choose_device(s.device)))
    if not features:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in skipped.items()))
    print_line(f"{source}, {len(sequences)} sequences, features: best points of each image, mutual nearest neighbours")
    started = time.perf_counter()
    records, stop = benchmark.collect(evaluate_features(sequences, features, points, s.workers))
    settings = feature_results.settings(source, points, split=s.split, subset=s.subset, seed=s.seed)
    weights = results.fingerprint(path) if any(_detector(name) == "kp" for name in features) else None
    content = feature_results.content(records, settings, weights, skipped, stop is None)
    used = dict.fromkeys(map(_detector, features))
    content["shipped"] = {name: results.fingerprint(find_weights(name)) for name in used if name in MODELS}
    print_line(f"{printed_features(content)}\n{time.perf_counter() - started:.0f} s")
    _write(content, output)
    if stop is not None:
        raise stop


def _detector(name: str) -> str:
    return name.partition("+")[0]


def _write(content: dict[str, Any], output: OutputSettings) -> None:
    """The files that were asked for: what goes wrong with one does not keep the other from being written."""
    try:
        if output.json:
            results.write(output.json, content)
    finally:
        if output.report:
            print_line(f"see {write_feature_page(Path(output.report), content)}")
