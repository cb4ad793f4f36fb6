"""Measure interest-point detectors on HPatches sequences, or on the built-in photographs. See --help."""

import signal
import sys
from argparse import Namespace
from pathlib import Path

from kp import evaluation, hpatches, ranks, session
from kp.compare import compare
from kp.config import EvaluateSettings, OutputSettings, Parser, add_flags, from_args
from kp.download import DownloadError


def parse(argv: list[str] | None) -> Namespace:
    """The command line."""
    parser = Parser("evaluate.py", description=evaluation.__doc__, epilog=evaluation.EXAMPLES)
    text = f"HPatches sequences ({hpatches.FOLDER} if ROOT is left out); without this flag, the built-in photographs"
    parser.add_argument("--hpatches", nargs="?", const=Path(hpatches.FOLDER), type=Path, metavar="ROOT", help=text)
    text = f"fetch HPatches first, to ROOT or {hpatches.FOLDER}, unless it is there"
    parser.add_argument("--download", action="store_true", help=text)
    text = "measure nothing: say what differs between two files written with --json, and whether by more than chance"
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help=text)
    for group in (OutputSettings, EvaluateSettings):
        add_flags(parser, group)
    return parser.parse_args(argv)


def run(args: Namespace) -> None:
    """What the command line asks for. Raises ValueError with a message of one line."""
    output = from_args(OutputSettings, args)
    if args.compare:
        if any(vars(output).values()):
            raise ValueError("--compare only prints: leave out --json, --report and --export")
        print(compare(*args.compare))
        return
    root = Path(hpatches.FOLDER) if args.download and args.hpatches is None else args.hpatches
    session.run(root, args.download, from_args(EvaluateSettings, args), output)


def attempt(args: Namespace) -> int:
    """The exit code of a run; an error is one line, by one rank."""
    try:
        run(args)
        return 0
    except (ValueError, OSError, DownloadError) as error:
        code, message = 2, f"error: {error}"
    except KeyboardInterrupt:
        code, message = 130, "interrupted: the numbers cover the sequences that were done; a download goes on next time"
    if ranks.rank() == 0:
        print(f"evaluate.py: {message}", file=sys.stderr)
    return code


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    with ranks.together():
        return attempt(args)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a cluster or a container sends: as Ctrl-C
    sys.exit(main())
