"""The command ``train_homographic.py``."""

import argparse
import time
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

from kp.cli.errors import exit_code
from kp.config import RunSettings, complete, parts
from kp.data import hpatches
from kp.data.photograph_scenes import PhotographScenes
from kp.models.checkpoint import SHIPPED, load_checkpoint
from kp.models.encoders import PretrainedError
from kp.support.flags import Parser, add_flags, from_args, given
from kp.support.settings import by_flag, from_dict
from kp.training import distributed
from kp.training.choices import check, check_given
from kp.training.initial import check_agrees, read_initial
from kp.training.run_folder import CHECKPOINT_FILE, WEIGHTS_FILE, claimed
from kp.training.trainer import Trainer, TrainingError, resume

DESCRIPTION = """Train on synthetic geometry: no photograph, no download, no flag needed.

Without a flag, a ranker learns which peaks of the corner response are found again in another exposure or view, and a
map of gradient histograms is computed that describes them (the weights "described" are such a run). With --encoder, a
mobile network learns the whole score map.

  python train_homographic.py                               as the shipped weights "described" were
  python train_homographic.py --descriptor-size 0           the ranker alone: "ranked"
  python train_homographic.py --ranker-width 0              descriptors alone, in half of the time
  python train_homographic.py --encoder mobilenet_v3_small  a score map, as shipped weights of an earlier version
  python train_homographic.py --minutes 5 --out runs/first  a short run in a folder of its own
  python train_homographic.py --resume runs/first           go on from its last checkpoint
  python train_homographic.py --init ranked --images FOLDER  from released weights, on photographs of your own
  torchrun --nproc-per-node 4 train_homographic.py          four processes, each on a GPU if there are any
  tensorboard --logdir runs                                 watch it

The run's folder holds weights.safetensors (for evaluate.py --weights), checkpoint.pt,
log.jsonl and TensorBoard's events. Ctrl-C saves.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = Parser("train_homographic.py", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/<date>-<time>)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="folder of a run to go on with, in its own settings")
    text = f"weights to begin with: shipped ones ({', '.join(SHIPPED)}) or a file; the detector is theirs"
    text += ", and a map of descriptors is computed anew"
    parser.add_argument("--init", metavar="NAME|FILE", help=text)
    text = "train on the photographs of this folder, of whatever kind, instead of drawn scenes; no labels are needed"
    parser.add_argument("--images", type=Path, metavar="FOLDER", help=text)
    text = "folder of real sequences, as evaluate.py --hpatches: the weights that score best there are kept (by the "
    text += "repeatability of keypoints; of descriptors alone by MMA), without it the last ones; the floor, the corner "
    text += "response and RootSIFT, with which nothing is learnt, is measured beside them"
    parser.add_argument("--validation", type=Path, metavar="ROOT", help=text)
    for group in fields(RunSettings):
        add_flags(parser, group.type)
    return parser


def make_trainer(parser: argparse.ArgumentParser, held: ExitStack) -> Trainer:
    """From the command line; ``held`` keeps the run's folder for this process."""
    chosen = given(parser)
    if {"steps", "minutes"} <= chosen:
        parser.error("the length of a run is --steps or --minutes: choose one")
    length = {other: None for one, other in (("minutes", "steps"), ("steps", "minutes")) if one in chosen}
    parser.set_defaults(**length)
    args = parser.parse_args()
    if args.validation is not None:
        hpatches.read(args.validation)  # an error is told before the work begins
    if args.resume is None:
        return _begin(parser, args, chosen, held)
    if args.out is not None:
        parser.error("--resume goes on in the folder of its run: leave out --out")
    return _go_on(parser, args, chosen, length, held)


def _begin(parser: argparse.ArgumentParser, args: argparse.Namespace, chosen: set[str], held: ExitStack) -> Trainer:
    """The trainer of a new run."""
    settings, initial = from_args(RunSettings, args), None
    if args.init is not None:
        initial = distributed.first(lambda: read_initial(args.init))
        check_agrees(initial, settings.detector, chosen)
        settings = replace(settings, detector=initial.detector)
        if "describer" in parts(settings.detector):
            print("the ranker goes on; the map of descriptors is computed anew, from the pairs of this run", flush=True)
    check(settings)
    check_given(chosen, settings.detector, photographs=args.images is not None)
    folder = args.out or Path("runs") / distributed.gather(time.strftime("%Y%m%d-%H%M%S"))[0]
    distributed.alone(lambda: held.enter_context(claimed(folder)))
    if (folder / CHECKPOINT_FILE).exists():
        parser.error(f"{folder} holds a run: go on with --resume {folder}, or choose another --out")
    photographs = _photographs(args.images, settings)
    return Trainer(settings, folder, validation=args.validation, initial=initial, photographs=photographs)


def _go_on(
    parser: argparse.ArgumentParser, args: argparse.Namespace, chosen: set[str], length: dict, held: ExitStack
) -> Trainer:
    """The trainer of a run that goes on; its flags change the settings that the checkpoint recorded."""
    checkpoint = args.resume / CHECKPOINT_FILE
    state = distributed.first(lambda: load_checkpoint(checkpoint))
    images = state.get("images")
    began = from_dict(RunSettings, state["settings"])
    check_given(chosen, began.detector, goes_on=True, photographs=images is not None)
    parser.set_defaults(**by_flag(began) | length)
    settings = from_args(RunSettings, parser.parse_args())
    check(settings)
    distributed.alone(lambda: held.enter_context(claimed(args.resume)))
    state = distributed.first(lambda: load_checkpoint(checkpoint))  # another run may just have ended there
    photographs = _photographs(args.images or (Path(images["folder"]) if images else None), settings)
    return resume(state, settings, args.resume, args.validation, photographs)


def _photographs(folder: Path | None, settings: RunSettings) -> PhotographScenes | None:
    """The photographs of a folder, of which a line is printed; None without a folder."""
    if folder is None:
        return None
    side = complete(settings).world.image_size
    photographs = distributed.agreed(lambda: PhotographScenes(folder, (side, side)))
    print(photographs.summary(), flush=True)
    return photographs


@distributed.together()
def main() -> int:
    """Run the command; returns its exit code. An error is one line, printed by one rank."""
    trainer = None

    def run() -> None:
        nonlocal trainer
        with ExitStack() as held:
            trainer = make_trainer(make_parser(), held)
            print(f"training on {trainer.learner.device}, writing to {trainer.folder}", flush=True)
            trainer.run()
        for line in trainer.summary():
            print(line)
        print(f"done: python evaluate.py --weights {trainer.folder / WEIGHTS_FILE}")

    def interrupted() -> str:
        saved = trainer is not None and (trainer.folder / CHECKPOINT_FILE).exists()
        return f"interrupted{f': go on with --resume {trainer.folder}' if saved else ''}"

    try:
        return exit_code("train_homographic.py", run, (PretrainedError, TrainingError), interrupted)
    except SystemExit as end:  # of the command line; the ranks still meet at the end of ``together``
        return end.code
