"""Look at the synthetic world, or time this machine.

python -m kp preview OUT.png    labelled pairs of every family
python -m kp bench              pairs, score maps and training steps a second
"""

import argparse
import sys
from pathlib import Path

import cv2
import torch

from kp.benchmark import benchmark
from kp.detector import choose_device
from kp.files import write_atomically
from kp.preview import pair_sheet


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m kp", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    preview = commands.add_parser("preview", help="draw labelled pairs of every family")
    preview.add_argument("out", type=Path, metavar="OUT.png")
    preview.add_argument("--seed", type=int, default=0)
    bench = commands.add_parser("bench", help="time the parts on this machine")
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    bench.add_argument("--batch", type=int, default=16, help="images at a time (default: 16)")
    bench.add_argument("--threads", type=int, nargs="+", help="of the CPU, one run each (default: as torch chooses)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    try:
        if args.command == "preview":
            done, data = cv2.imencode(".png", cv2.cvtColor(pair_sheet(args.seed), cv2.COLOR_RGB2BGR))
            assert done
            write_atomically(args.out, data.tobytes())
            return 0
        device = choose_device(args.device)
        for threads in args.threads or [torch.get_num_threads()]:
            torch.set_num_threads(threads)
            print(f"{device}, {threads} CPU threads, batches of {args.batch}, torch {torch.__version__}")
            for name, rate, unit in benchmark(device, args.batch):
                print(f"  {name:60} {rate:10.1f} {unit}", flush=True)
    except (ValueError, OSError) as error:
        print(f"python -m kp: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
