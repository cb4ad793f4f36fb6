"""The command ``train_homographic.py``."""

import argparse
import sys
import time
from dataclasses import fields
from pathlib import Path

from kp.cli.errors import exit_code
from kp.config import RunSettings, by_flag, from_dict
from kp.models.checkpoint import load_checkpoint
from kp.models.encoders import PretrainedError
from kp.support.flags import add_flags, from_args
from kp.training import distributed
from kp.training.trainer import WEIGHTS_FILE, Trainer, TrainingError, resume

DESCRIPTION = """Train on synthetic geometry: no photograph, no download, no flag needed.

Without a flag, a ranker learns which peaks of the corner response are found again in another exposure or view (the
weights "ranked" are such a run). With --encoder, a mobile network learns the whole score map.

  python train_homographic.py                               as the shipped weights "ranked" were
  python train_homographic.py --encoder mobilenet_v3_small  as the shipped weights of that name were
  python train_homographic.py --minutes 5 --out runs/first  a short run in a folder of its own
  python train_homographic.py --resume runs/first           go on from its last checkpoint
  torchrun --nproc-per-node 4 train_homographic.py          four processes, each on a GPU if there are any
  tensorboard --logdir runs                                 watch it

The run's folder holds weights.safetensors (for evaluate.py --weights), checkpoint.pt,
log.jsonl and TensorBoard's events. Ctrl-C saves.
"""


def make_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "train_homographic.py", description=DESCRIPTION, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/<date>-<time>)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="folder of a run to go on with, in its own settings")
    text = "folder of real sequences, as evaluate.py --hpatches: the weights that score best there are kept, without "
    text += "it the last ones; the floor, the corner response with nothing learnt, is measured beside them"
    parser.add_argument("--validation", type=Path, metavar="ROOT", help=text)
    for group in fields(RunSettings):
        add_flags(parser, group.type)
    return parser


def make_trainer(parser: argparse.ArgumentParser) -> Trainer:
    """From the command line; with --resume its flags change the settings that the checkpoint recorded."""
    given = {word.split("=")[0] for word in sys.argv}
    if {"--steps", "--minutes"} <= given:
        parser.error("the length of a run is --steps or --minutes: choose one")
    length = {other: None for one, other in (("--minutes", "steps"), ("--steps", "minutes")) if one in given}
    parser.set_defaults(**length)
    args = parser.parse_args()
    if args.resume is None:
        folder = args.out or Path("runs") / distributed.gather(time.strftime("%Y%m%d-%H%M%S"))[0]
        if (folder / "checkpoint.pt").exists():
            parser.error(f"{folder} holds a run: go on with --resume {folder}, or choose another --out")
        return Trainer(from_args(RunSettings, args), folder, validation=args.validation)
    if args.out is not None:
        parser.error("--resume goes on in the folder of its run: leave out --out")
    state = distributed.first(lambda: load_checkpoint(args.resume / "checkpoint.pt"))
    parser.set_defaults(**by_flag(from_dict(RunSettings, state["settings"])) | length)
    return resume(state, from_args(RunSettings, parser.parse_args()), args.resume, args.validation)


@distributed.together()
def main() -> int:
    """Run the command; returns its exit code. An error is one line, printed by one rank."""
    trainer = None

    def run() -> None:
        nonlocal trainer
        trainer = make_trainer(make_parser())
        print(f"training on {trainer.learner.device}, writing to {trainer.folder}", flush=True)
        trainer.run()
        for line in trainer.summary():
            print(line)
        print(f"done: python evaluate.py --weights {trainer.folder / WEIGHTS_FILE}")

    def interrupted() -> str:
        saved = trainer is not None and (trainer.folder / "checkpoint.pt").exists()
        return f"interrupted{f': go on with --resume {trainer.folder}' if saved else ''}"

    try:
        return exit_code("train_homographic.py", run, (PretrainedError, TrainingError), interrupted)
    except SystemExit as end:  # of the command line; the ranks still meet at the end of ``together``
        return end.code
