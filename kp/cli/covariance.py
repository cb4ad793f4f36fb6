"""How far keypoints are off, and whether the covariances that kp gives them say so."""

import argparse
import json
from argparse import Namespace
from pathlib import Path

from kp.config import WEIGHTS
from kp.data import hpatches
from kp.evaluation.results import versions
from kp.experiments import covariance
from kp.models.checkpoint import load_detector
from kp.models.corner import CornerDetector
from kp.reporting.result_tables import covariances
from kp.support.files import check_writable, write_file


def add(parser: argparse.ArgumentParser) -> None:
    """The flags of kp covariance."""
    parser.description = covariance.__doc__
    parser.add_argument("--weights", default=WEIGHTS, metavar="NAME|FILE", help=f"(default: {WEIGHTS})")
    text = "folder of real sequences, as evaluate.py --hpatches, measured beside the synthetic pairs"
    parser.add_argument("--hpatches", type=Path, metavar="ROOT", help=text)
    text = "batches of 8 synthetic pairs; the scale is of one half, and is tried on the other (default: 8)"
    parser.add_argument("--batches", type=int, default=8, metavar="N", help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")


def run(args: Namespace) -> None:
    """The scale that fits, and a line of numbers for each set of pairs."""
    check_writable(args.json)
    if args.batches < 2:
        raise ValueError(f"--batches must be at least 2, not {args.batches}")
    detector = load_detector(args.weights)
    if not isinstance(detector, CornerDetector):
        raise ValueError(f"{args.weights} has no covariances, only detectors without an encoder have")
    real = [] if args.hpatches is None else hpatches.read(args.hpatches)
    pairs = covariance.synthetic(args.batches)
    sets = {"synthetic, fitted": pairs[::2], "synthetic": pairs[1::2]}
    if real:
        sets |= {s: [each for each in real if each.split == s] for s in sorted({each.split for each in real})}
    rows, used = {}, detector.settings.covariance_scale
    for name, sequences in sets.items():
        errors = covariance.repeated_keypoints(detector, sequences)
        if len(errors.error) < covariance.PARTS:
            raise ValueError(f"{name}: only {len(errors.error)} keypoints are repeated, too few to say anything")
        if not rows:
            print(f"scale that fits: {covariance.scale_that_fits(errors) * used:.4f}; used: {used:g}")
        rows[name] = {
            "keypoints": len(errors.error),
            "nse_mean": covariance.nse(errors).mean().item(),
            "nse_median": covariance.nse(errors).median().item(),
            "by_size": covariance.by_size(errors),
        }
    print(covariances(rows).text())
    if args.json is not None:
        content = {"weights": str(args.weights), "scale": used, "rows": rows, "versions": versions()}
        write_file(args.json, (json.dumps(content, indent=1) + "\n").encode())


COMMANDS = {"covariance": (add, run)}
