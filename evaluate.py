"""Measure interest-point detectors on HPatches sequences, or on the built-in photographs. See --help."""

import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

from kp import evaluation, hpatches, protocols, report
from kp.config import EvaluateSettings, Parser, add_flags, from_args
from kp.detector import choose_device
from kp.detectors import SHIPPED, make_detectors, score_maps
from kp.download import DownloadError


def parse(argv: list[str] | None) -> Namespace:
    """The command line."""
    parser = Parser("evaluate.py", description=evaluation.__doc__, epilog=evaluation.EXAMPLES)
    text = f"HPatches sequences ({hpatches.FOLDER} if ROOT is left out); without this flag, the built-in photographs"
    parser.add_argument("--hpatches", nargs="?", const=Path(hpatches.FOLDER), type=Path, metavar="ROOT", help=text)
    text = f"fetch HPatches first, to ROOT or {hpatches.FOLDER}, unless it is there"
    parser.add_argument("--download", action="store_true", help=text)
    text = "weights of the detector kp (default: the shipped ones)"
    parser.add_argument("--weights", type=Path, default=SHIPPED, metavar="FILE", help=text)
    text = "read the learned baselines' weights from files in DIR and never from the network"
    parser.add_argument("--baseline-weights", type=Path, metavar="DIR", help=text)
    text = "write DIR/SEQUENCE/N_det.npy and H_1_K: score maps of kp or, without kp, of the one detector measured"
    parser.add_argument("--export", type=Path, metavar="DIR", help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write protocol, rows and every pair's numbers")
    add_flags(parser, EvaluateSettings)
    return parser.parse_args(argv)


def measure(args: Namespace, s: EvaluateSettings) -> None:
    """Check everything, measure, report. Raises ValueError with a message of one line."""
    names = tuple(dict.fromkeys(s.detectors))
    changes = {field: getattr(s, field) for field in ("max_keypoints", "threshold", "nms_size", "border")}
    chosen = [protocols.choose(name, **changes) for name in dict.fromkeys(s.protocol)]
    export = evaluation.exporter(args.export, names, s.subpixel, len(chosen)) if args.export else None
    evaluation.check(s.workers)
    evaluation.check_writable(args.json)
    root = Path(hpatches.FOLDER) if args.download and args.hpatches is None else args.hpatches
    sequences = evaluation.read_sequences(root, s.split, s.subset, s.seed, args.download)
    where = {"weights": args.weights, "baseline_weights": args.baseline_weights, "device": choose_device(s.device)}
    maps, skipped = score_maps(names, seed=s.seed, **where)
    source = str(root or f"the built-in photographs, seed {s.seed}")
    records, stop = [], None
    for protocol in chosen:
        make = partial(make_detectors, maps, protocol, s.subpixel, where["device"])
        print(f"{source}, {len(sequences)} sequences, {protocol.describe()}", flush=True)
        found, stop = evaluation.collect(evaluation.evaluate(sequences, make, protocol, export, s.workers))
        print(report.table(report.summarise(found, s.split), skipped), flush=True)
        records += found
        if stop is not None:
            break
    if args.json:
        settings = report.settings(source, s.split, s.subpixel, s.seed, chosen)
        weights = args.weights if "kp" in names else None
        report.write_json(args.json, report.report(records, settings, weights, skipped, stop is None))
    if stop is not None:
        raise stop


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    try:
        measure(args, from_args(EvaluateSettings, args))
        return 0
    except (ValueError, OSError, DownloadError) as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        text = "interrupted: the numbers cover the sequences that were done; a download goes on next time"
        print(f"evaluate.py: {text}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
