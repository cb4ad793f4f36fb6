"""Inspect the synthetic images, the data, the detectors and training runs, or time this machine.

python -m kp preview OUT.png       draw labelled pairs of every family
python -m kp statistics OUT.png    compare statistics of synthetic images and photographs
python -m kp views OUT.png         draw overlap, scale, tilt and rotation between the views of a pair
python -m kp curves RUN OUT.png    draw loss and validation of training runs
python -m kp models                the detectors that come with kp, and what they cost
python -m kp export OUT.onnx       a detector for onnxruntime and others
python -m kp score [WEIGHTS]       the numbers that settings and weights are chosen by
python -m kp ablate [NAME]         train and score variants of the training, each with one change
python -m kp report                fill README.md and the report with the stored results
python -m kp bench                 time pairs, score maps and training steps on this machine
python -m kp standin ROOT          write a folder of the layout and size of HPatches, to time evaluate.py
"""

import argparse
import io
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import matplotlib
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from kp.cli import weights
from kp.cli.errors import exit_code
from kp.config import ENCODER_DEFAULTS
from kp.data import hpatches, standin
from kp.evaluation import results
from kp.experiments import dataset_statistics, inference, viewpoints
from kp.experiments.speed import benchmark, default_batch, profile
from kp.models.checkpoint import load_detector
from kp.reporting import result_tables
from kp.reporting.images import pair_sheet
from kp.reporting.tables import Column, Table
from kp.reporting.training_curves import draw_curves, read_log
from kp.support.device import choose_device
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


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("kp", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    preview = commands.add_parser("preview", help="draw labelled pairs of every family")
    text = "draw the keypoints and score maps of a detector on held-out pairs instead of the corners"
    preview.add_argument("--weights", metavar="NAME|FILE", help=text)
    raw = argparse.RawTextHelpFormatter
    text = "compare statistics of synthetic images and photographs"
    world = commands.add_parser("statistics", help=text, description=STATISTICS, formatter_class=raw)
    text = "also measure image 1 of each HPatches sequence in this folder"
    world.add_argument("--hpatches", type=Path, metavar="ROOT", help=text)
    world.add_argument("--images", type=int, default=24, metavar="N", help="images of each family (default: 24)")
    text = "draw how far apart the views of a pair are"
    views = commands.add_parser("views", help=text, description=viewpoints.__doc__, formatter_class=raw)
    views.add_argument("--hpatches", type=Path, metavar="ROOT", help="also show the v_* sequences in this folder")
    views.add_argument("--pairs", type=int, default=2000, metavar="N", help="number of training pairs (default: 2000)")
    for command in (preview, world, views):
        command.add_argument("out", type=Path, metavar="OUT.png")
        command.add_argument("--seed", type=int, default=0, help="seed of the synthetic images or pairs (default: 0)")
    curves = commands.add_parser("curves", help="draw loss and validation of training runs")
    curves.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    curves.add_argument("out", type=Path, metavar="OUT.png")
    bench = commands.add_parser("bench", help="time pairs, score maps and training steps on this machine")
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    bench.add_argument("--batch", type=int, help="images or pairs made together (default: 16, on CUDA 128)")
    bench.add_argument("--threads", type=int, nargs="+", help="CPU threads, one run each (default: as torch chooses)")
    text = "instead, what 1000 keypoints cost, in time and memory, beside XFeat, Harris, FAST, ORB and SIFT"
    bench.add_argument("--inference", action="store_true", help=text)
    text = "of the image, with --inference (default: 480 640)"
    bench.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help=text)
    text = "write these numbers, with --inference"
    bench.add_argument("--json", type=Path, metavar="FILE", help=text)
    bench.add_argument("--profile", action="store_true", help="also list the slowest operations")
    text = "write a folder of the layout and size of HPatches, without a download"
    like = commands.add_parser("standin", help=text, description=standin.__doc__)
    like.add_argument("root", type=Path, metavar="ROOT", help="a new folder; 2 GB for all sequences")
    text = f"sequences to write (default: {standin.COUNT}, as many as HPatches has)"
    like.add_argument("--sequences", type=int, default=standin.COUNT, metavar="N", help=text)
    weights.add_commands(commands)
    return parser


def draw_preview(args: argparse.Namespace) -> None:
    check_picture(args.out)
    check_seed(args.seed)
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


def draw_runs(args: argparse.Namespace) -> None:
    check_picture(args.out)
    save_figure(draw_curves({str(run): read_log(run / "log.jsonl") for run in args.runs}), args.out)


def time_parts(args: argparse.Namespace) -> None:
    if args.inference:
        time_inference(args)
        return
    device = choose_device(args.device)
    batch = default_batch(device) if args.batch is None else args.batch
    if batch < 1 or min(args.threads or [1]) < 1:
        raise ValueError("--batch and --threads must be at least 1")
    for threads in args.threads or [torch.get_num_threads()]:
        torch.set_num_threads(threads)
        print(f"{device}, {threads} CPU threads, batches of {batch}, torch {torch.__version__}", flush=True)
        for name, value, unit in benchmark(device, batch):
            print(f"  {name:66} {value:10.2f} {unit}", flush=True)
    if args.profile:
        print(profile(device, batch))


def time_inference(args: argparse.Namespace) -> None:
    """A table for each number of threads: time, its ratio to XFeat's, memory."""
    if min(args.size) < 64 or min(args.threads or [1]) < 1:
        raise ValueError("--size must be at least 64 64, and --threads at least 1")
    check_writable(args.json)
    found = []
    for threads in args.threads or [1, torch.get_num_threads()]:
        costs = inference.measure(tuple(args.size), threads)
        found += [cost._asdict() for cost in costs]
        print(result_tables.inference(found[-len(costs) :], inference.REFERENCE).text() + "\n", flush=True)
    if args.json:
        content = {
            "size": list(args.size),
            "reference": inference.REFERENCE,
            "costs": found,
            "versions": results.versions(),
        }
        write_file(args.json, (json.dumps(content, indent=1) + "\n").encode())


def write_standin(args: argparse.Namespace) -> None:
    check_numbers(args, "sequences")
    with progress(args.sequences, "sequence") as bar:
        standin.write(args.root, args.sequences, bar.update)
    print(f"python evaluate.py --hpatches {args.root}")


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


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    args = make_parser().parse_args(argv)
    commands = {"preview": draw_preview, "statistics": measure_world, "views": draw_views}
    commands |= {"curves": draw_runs, "bench": time_parts, "standin": write_standin}
    return exit_code("kp", lambda: (commands | weights.COMMANDS)[args.command](args))
