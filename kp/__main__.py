"""Look at the synthetic world or at a run, or time this machine.

python -m kp preview OUT.png       labelled pairs of every family
python -m kp curves RUN OUT.png    loss and validation of a training run
python -m kp bench                 pairs, score maps and training steps a second
"""

import argparse
import io
import sys
from pathlib import Path

import cv2
import matplotlib
import torch

from kp.benchmark import benchmark
from kp.checkpoint import load_detector
from kp.curves import draw_curves, read_log
from kp.detector import choose_device
from kp.files import write_atomically
from kp.preview import pair_sheet
from kp.validation import Validation

matplotlib.use("Agg")  # pictures go to files: no window is opened, and none is needed


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m kp", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    preview = commands.add_parser("preview", help="draw labelled pairs of every family")
    preview.add_argument("out", type=Path, metavar="OUT.png")
    preview.add_argument("--seed", type=int, default=0, help="of the pairs (default: 0)")
    text = "draw what a detector finds in held-out pairs, and its score maps, instead of the corners"
    preview.add_argument("--weights", type=Path, metavar="FILE", help=text)
    curves = commands.add_parser("curves", help="draw loss and validation of a training run")
    curves.add_argument("run", type=Path, metavar="RUN", help="its folder")
    curves.add_argument("out", type=Path, metavar="OUT.png")
    bench = commands.add_parser("bench", help="time the parts on this machine")
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    bench.add_argument("--batch", type=int, default=16, help="images at a time (default: 16)")
    bench.add_argument("--threads", type=int, nargs="+", help="of the CPU, one run each (default: as torch chooses)")
    return parser


def draw_preview(args: argparse.Namespace) -> None:
    suffix = args.out.suffix.lower()
    if suffix not in (".png", ".jpg"):
        raise ValueError(f"{args.out} must end in .png or .jpg")
    if args.weights is None:
        picture = pair_sheet(args.seed)
    else:
        picture = Validation(torch.device("cpu"), batches=1).picture(load_detector(args.weights))
    _, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    write_atomically(args.out, data.tobytes())


def draw_run(args: argparse.Namespace) -> None:
    buffer = io.BytesIO()
    draw_curves(read_log(args.run / "log.jsonl")).savefig(buffer, dpi=120)
    write_atomically(args.out, buffer.getbuffer())


def time_parts(args: argparse.Namespace) -> None:
    device = choose_device(args.device)
    if args.batch < 1 or min(args.threads or [1]) < 1:
        raise ValueError("--batch and --threads must be at least 1")
    for threads in args.threads or [torch.get_num_threads()]:
        torch.set_num_threads(threads)
        print(f"{device}, {threads} CPU threads, batches of {args.batch}, torch {torch.__version__}")
        for name, rate, unit in benchmark(device, args.batch):
            print(f"  {name:60} {rate:10.1f} {unit}", flush=True)


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    try:
        {"preview": draw_preview, "curves": draw_run, "bench": time_parts}[args.command](args)
    except (ValueError, OSError) as error:
        print(f"python -m kp: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
