"""The commands that draw the data and the training: kp preview, statistics, views, lighting and curves."""

import argparse
import io
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import matplotlib
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from kp.config import ENCODER_DEFAULTS
from kp.data import hpatches
from kp.experiments import dataset_statistics, lighting, viewpoints
from kp.models.checkpoint import load_detector
from kp.reporting.images import pair_sheet
from kp.reporting.tables import Column, Table
from kp.reporting.training_curves import draw_curves, read_log
from kp.support.files import check_writable, write_file
from kp.support.process import progress_interval
from kp.training.validation import Validation

matplotlib.use("Agg")  # figures go to files, so no window system is needed

STATISTICS = f"""Compare synthetic images of every family, and of the mixture used in training, with photographs.

spectral slope      exponent a of power ~ 1/f^a: photographs have about 2, white noise 0; fitted from
                    {dataset_statistics.BAND[0]} to {dataset_statistics.BAND[1]} cycles/pixel
gradient kurtosis   of the differences between neighbours: Gaussian noise has 3, smooth areas with sharp edges far more
Harris corners      per megapixel: a right angle counts from a contrast of 0.10; weak noise has none
contrast            standard deviation, as a share of the grey range

Synthetic images have {" x ".join(map(str, dataset_statistics.SIZE))} pixels; photographs are shrunk to that short side.
Every number is the median of a group of images; in brackets is the range of the middle 80 %. The last lines say
if the range of the mixture contains the median of the photographs, and which share of them: 80 % if they are alike.
"""


def add_preview(parser: argparse.ArgumentParser) -> None:
    """The flags of kp preview."""
    text = "draw the keypoints and score maps of a detector on held-out pairs instead of the corners"
    parser.add_argument("--weights", metavar="NAME|FILE", help=text)
    _add_out(parser)


def add_statistics(parser: argparse.ArgumentParser) -> None:
    """The flags of kp statistics."""
    parser.description = STATISTICS
    text = "also measure image 1 of each HPatches sequence in this folder"
    parser.add_argument("--hpatches", type=Path, metavar="ROOT", help=text)
    parser.add_argument("--images", type=int, default=24, metavar="N", help="images of each family (default: 24)")
    _add_out(parser)


def add_views(parser: argparse.ArgumentParser) -> None:
    """The flags of kp views."""
    parser.description = viewpoints.__doc__
    parser.add_argument("--hpatches", type=Path, metavar="ROOT", help="also show the v_* sequences in this folder")
    parser.add_argument("--pairs", type=int, default=2000, metavar="N", help="number of training pairs (default: 2000)")
    _add_out(parser)


def add_lighting(parser: argparse.ArgumentParser) -> None:
    """The flags of kp lighting."""
    parser.description = lighting.__doc__
    text = "also the sequences in this folder, by what changes in them (its INDEX.md, or known names)"
    parser.add_argument("--hpatches", type=Path, metavar="ROOT", help=text)
    parser.add_argument("--scenes", type=int, default=100, metavar="N", help="synthetic scenes (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic scenes (default: 0)")


def add_curves(parser: argparse.ArgumentParser) -> None:
    """The flags of kp curves."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("out", type=Path, metavar="OUT.png")


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--seed", type=int, default=0, help="seed of the synthetic images or pairs (default: 0)")


def draw_preview(args: argparse.Namespace) -> None:
    check_picture(args.out)
    check_seed(args.seed)
    if args.weights is not None and args.seed:
        raise ValueError("--seed is for pairs without --weights: what weights find is drawn on fixed pairs")
    if args.weights is None:
        picture = pair_sheet(args.seed)
    else:
        picture = Validation(torch.device("cpu"), batches=1, files=()).picture(load_detector(args.weights))
    _, data = cv2.imencode(args.out.suffix.lower(), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    write_file(args.out, data.tobytes())


def measure_world(args: argparse.Namespace) -> None:
    check_picture(args.out)
    check_numbers(args, "images")
    sources = dataset_statistics.synthetic(args.images, args.seed), dataset_statistics.natural(args.hpatches)
    total = sum(len(images) for source in sources for images in source.values())
    with progress(total, "image") as bar, ExitStack() as after:
        after.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)  # for one small image a second thread costs more than it saves
        world, photos = (
            {who: dataset_statistics.measure(i, bar.update) for who, i in source.items()} for source in sources
        )
    rows = []
    for who, group in (world | photos).items():
        medians = [show(dataset_statistics.quantiles(column)) for column in group.values.T]
        rows.append((f"{who} ({len(group.values)})", medians))
    for who, group in photos.items():
        pairs = zip(world["mixture"].values.T, group.values.T, strict=True)
        held = [dataset_statistics.bracketed(*pair) for pair in pairs]
        shares = [f"{'yes' if median else 'no'}, {share:.0%} inside" for median, share in held]
        rows.append((f"bracketed: {who}", shares))
    columns = [Column(name) for name in dataset_statistics.STATISTICS]
    print(Table("images: median (10-90 %)", columns, rows).text())
    save_figure(dataset_statistics.draw(world, photos), args.out)


def draw_views(args: argparse.Namespace) -> None:
    check_picture(args.out)
    check_numbers(args, "pairs")
    sequences = hpatches.read(args.hpatches, "v") if args.hpatches else []
    world = ENCODER_DEFAULTS.world
    ranges = world.ranges()
    size, generator = (world.image_size, world.image_size), torch.Generator().manual_seed(args.seed)
    with progress(args.pairs + sum(len(s.homographies) for s in sequences), "pair") as bar:
        H_0to1 = viewpoints.sample(args.pairs, size, generator, illumination_only=world.illumination_only, **ranges)
        measured = {"training": viewpoints.drawn(H_0to1, size, bar.update)}
        if sequences:
            measured["HPatches v"] = viewpoints.real(sequences, bar.update)
    columns = [Column(name) for name in viewpoints.QUANTITIES]
    rows = [
        (f"{who} ({len(values)})", [show(viewpoints.quantiles(column)) for column in values.T])
        for who, values in measured.items()
    ]
    print(Table("pairs: median (5-95 %)", columns, rows).text())
    save_figure(viewpoints.draw(measured), args.out)


def compare_lighting(args: argparse.Namespace) -> None:
    """Print a row for training, and for each kind of sequence."""
    check_numbers(args, "scenes")
    sequences = hpatches.read(args.hpatches) if args.hpatches else []
    with progress(args.scenes + len(sequences), "scene") as bar, torch.inference_mode():
        measured = {"training": lighting.training(args.scenes, args.seed, bar.update)}
        if sequences:
            measured |= lighting.real(args.hpatches, sequences, bar.update)
    rows = [
        (f"{who} ({len(values)})", [show(lighting.quantiles(column)) for column in values.T])
        for who, values in measured.items()
    ]
    print(Table("pairs: median (10-90 %)", [Column(name) for name in lighting.QUANTITIES], rows).text())


def draw_runs(args: argparse.Namespace) -> None:
    check_picture(args.out)
    save_figure(draw_curves({str(run): read_log(run / "log.jsonl") for run in args.runs}), args.out)


def check_picture(path: Path) -> None:
    """Raise ValueError or OSError if no picture can be written to ``path``. Called before the work begins."""
    if path.suffix.lower() not in (".png", ".jpg"):
        raise ValueError(f"{path} must end in .png or .jpg")
    check_writable(path)


def check_numbers(args: argparse.Namespace, count: str) -> None:
    if getattr(args, count) < 1:
        raise ValueError(f"--{count} must be at least 1, not {getattr(args, count)}")
    check_seed(getattr(args, "seed", 0))


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed must be at least 0 and below 2^63, not {seed}")


def progress(total: int, unit: str) -> tqdm:
    return tqdm(total=total, unit=unit, leave=False, mininterval=progress_interval(), dynamic_ncols=True)


def show(quantiles: Sequence[float]) -> str:
    """The text "median (low to high)" for (low, median, high), with few digits."""
    digits = [3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0 for value in quantiles]
    low, median, high = (f"{value:.{n}f}" for value, n in zip(quantiles, digits, strict=True))
    return f"{median} ({low} to {high})"


def save_figure(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=120)
    write_file(path, buffer.getbuffer())


COMMANDS = {
    "preview": (add_preview, draw_preview),
    "statistics": (add_statistics, measure_world),
    "views": (add_views, draw_views),
    "lighting": (add_lighting, compare_lighting),
    "curves": (add_curves, draw_runs),
}
