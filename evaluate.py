"""Measure interest-point detectors on HPatches sequences, or on the built-in photographs. See --help."""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from kp import evaluation, hpatches, photographs, report
from kp.config import EvaluateSettings, add_flags, from_args
from kp.detector import choose_device

WEIGHTS = Path(evaluation.__file__).parent / "weights" / "mobilenet_v3_small.safetensors"
EXAMPLES = f"""examples:
  python evaluate.py                     every detector on the built-in photographs, nothing to download
  python evaluate.py --hpatches ROOT     every detector on HPatches, in the folder ROOT
  python evaluate.py --hpatches ROOT --detectors kp harris --weights mine.safetensors --json table.json --export maps

HPatches: {hpatches.DOWNLOAD}."""


class Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"evaluate.py: error: {message}\n")


def parse(argv: list[str] | None) -> Namespace:
    """The command line."""
    parser = Parser(description=evaluation.__doc__, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter)
    text = f"HPatches sequences ({hpatches.FOLDER} if ROOT is left out); without this flag, the built-in photographs"
    parser.add_argument("--hpatches", nargs="?", const=Path(hpatches.FOLDER), type=Path, metavar="ROOT", help=text)
    text = "weights of the detector kp (default: the shipped ones)"
    parser.add_argument("--weights", type=Path, default=WEIGHTS, metavar="FILE", help=text)
    text = "write DIR/SEQUENCE/N_det.npy and H_1_K: score maps of kp or, without kp, of the one detector measured"
    parser.add_argument("--export", type=Path, metavar="DIR", help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write protocol, rows and every pair's numbers")
    add_flags(parser, EvaluateSettings)
    return parser.parse_args(argv)


def measure(args: Namespace, s: EvaluateSettings) -> None:
    """Check everything, measure, report. Raises ValueError with a message of one line."""
    names = tuple(dict.fromkeys(s.detectors))
    numbers = {f: getattr(s, f) for f in ("max_keypoints", "threshold", "nms_size", "border")}
    evaluation.check(**numbers)
    export = evaluation.exporter(args.export, names, s.subpixel) if args.export else None
    evaluation.check_writable(args.json)
    sequences = hpatches.read(args.hpatches, s.split) if args.hpatches else photographs.read(s.seed, s.split)
    detect = {"weights": args.weights, "subpixel": s.subpixel, "seed": s.seed, "device": choose_device(s.device)}
    detectors = evaluation.make_detectors(names, nms_size=s.nms_size, border=s.border, **detect)
    source = str(args.hpatches or f"the built-in photographs, seed {s.seed}")
    print(f"{source}, {len(sequences)} sequences: {report.describe(**numbers)}", flush=True)
    records, stop = evaluation.collect(evaluation.evaluate(sequences, detectors, s.max_keypoints, s.threshold, export))
    settings = report.protocol(source, s.split, s.subpixel, s.seed, **numbers)
    content = report.report(records, settings, args.weights if "kp" in names else None, complete=stop is None)
    print(report.table(content["rows"]))
    if args.json:
        report.write_json(args.json, content)
    if stop is not None:
        raise stop


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    try:
        measure(args, from_args(EvaluateSettings, args))
        return 0
    except (ValueError, OSError) as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate.py: interrupted: the numbers cover the sequences that were done", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
