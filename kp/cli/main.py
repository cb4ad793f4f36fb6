"""Find, describe and match interest points; train and measure the detectors that do it.

kp COMMAND --help says more about each. train_homographic.py trains, evaluate.py measures.
"""

import argparse
import sys
from importlib import import_module

import kp
from kp.cli.errors import exit_code
from kp.support.flags import Parser

GROUPS = {  # module and one line for each command; the module is imported when its command is run
    "your own images": {
        "detect": ("kp.cli.detect", "find keypoints in images, folders and videos"),
        "match": ("kp.cli.match", "match two images, or the pairs in a list"),
        "export": ("kp.cli.export", "write a detector with its keypoints as ONNX, for images of any size"),
    },
    "weights and results": {
        "models": ("kp.cli.weights", "the detectors that come with kp, and what they cost"),
        "score": ("kp.cli.weights", "the numbers that settings and weights are chosen by"),
        "covariance": ("kp.cli.covariance", "how far keypoints are off, and whether their covariances say so"),
        "ablate": ("kp.cli.weights", "train and score variants of the training, each with one change"),
        "report": ("kp.cli.weights", "fill README.md and the report with the stored results"),
    },
    "data and training": {
        "preview": ("kp.cli.pictures", "draw labelled pairs of every family, or what a detector finds in them"),
        "statistics": ("kp.cli.pictures", "compare statistics of synthetic images and photographs"),
        "views": ("kp.cli.pictures", "draw overlap, scale, tilt and rotation between the views of a pair"),
        "lighting": ("kp.cli.pictures", "compare the light of two views, of training and of real sequences by kind"),
        "curves": ("kp.cli.pictures", "draw loss and validation of training runs"),
    },
    "speed": {
        "bench": ("kp.cli.speed", "time pairs, score maps, training steps and keypoints on this machine"),
        "standin": ("kp.cli.speed", "write a folder of the layout and size of HPatches, to time evaluate.py"),
    },
}
MODULES = {name: module for group in GROUPS.values() for name, (module, _) in group.items()}
_TEXTS = {name: text for group in GROUPS.values() for name, (_, text) in group.items()}


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The command line; only the flags of ``command`` are in it, so that no other module is imported."""
    parser = Parser("kp", description=_overview(), usage="kp [-h] [--version] COMMAND ...")
    parser.add_argument("--version", action="version", version=f"kp {kp.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    for name, module in MODULES.items():
        one = commands.add_parser(name, prog=f"kp {name}")
        if name == command:
            loaded = import_module(module)
            one.description = loaded.__doc__ if len(loaded.COMMANDS) == 1 else _TEXTS[name]
            loaded.COMMANDS[name][0](one)
    return parser


def _overview() -> str:
    lines = [__doc__]
    for title, commands in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:12}{text}" for name, (_, text) in commands.items()), ""]
    return "\n".join(lines).rstrip()


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    command = next((word for word in argv if word in MODULES), None)
    args = make_parser(command).parse_args(argv)
    run = import_module(MODULES[args.command]).COMMANDS[args.command][1]
    return exit_code("kp", lambda: run(args))
