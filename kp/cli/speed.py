"""The commands that time this machine: kp bench, and kp standin, which writes data to time evaluate.py with."""

import argparse
import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from kp.cli.pictures import check_numbers, progress
from kp.data import standin
from kp.evaluation import results
from kp.experiments import inference
from kp.experiments.speed import benchmark, default_batch, profile
from kp.geometry.coords import Size
from kp.reporting import inference_tables
from kp.support.device import choose_device
from kp.support.files import check_writable, write_file

_OF_INFERENCE = {"size": ["480x640"], "repeats": inference.REPEATS, "json": None}  # flags and their defaults
_OF_PARTS = {"device": "auto", "batch": None, "profile": False}


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The flags of kp bench."""
    parser.add_argument("--device", default=_OF_PARTS["device"], help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--batch", type=int, help="images or pairs made together (default: 16, on CUDA 128)")
    parser.add_argument("--threads", type=int, nargs="+", help="CPU threads, one run each (default: as torch chooses)")
    text = "instead, what 1000 keypoints cost, in time and memory, beside detectors of Kornia and of OpenCV"
    parser.add_argument("--inference", action="store_true", help=text)
    text = "of the image, one run each, with --inference (default: 480x640)"
    parser.add_argument("--size", nargs="+", default=_OF_INFERENCE["size"], metavar="HxW", help=text)
    text = f"images for each detector, fewer for the slow ones, with --inference (default: {inference.REPEATS})"
    parser.add_argument("--repeats", type=int, default=_OF_INFERENCE["repeats"], metavar="N", help=text)
    text = "write these numbers after each run, with --inference"
    parser.add_argument("--json", type=Path, metavar="FILE", help=text)
    parser.add_argument("--profile", action="store_true", help="also list the slowest operations")


def add_standin(parser: argparse.ArgumentParser) -> None:
    """The flags of kp standin."""
    parser.description = standin.__doc__
    parser.add_argument("root", type=Path, metavar="ROOT", help="a new folder; 2 GB for all sequences")
    text = f"sequences to write (default: {standin.COUNT}, as many as HPatches has)"
    parser.add_argument("--sequences", type=int, default=standin.COUNT, metavar="N", help=text)


def time_parts(args: argparse.Namespace) -> None:
    for name, default in (_OF_PARTS if args.inference else _OF_INFERENCE).items():
        if getattr(args, name) != default:
            raise ValueError(f"--{name} is {'not for' if args.inference else 'for'} --inference: leave it out")
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
    """A table for each size and number of threads: time, its ratio to XFeat's, memory."""
    sizes = [_size(text) for text in args.size]
    if min(args.threads or [1]) < 1 or args.repeats < 1:
        raise ValueError("--threads and --repeats must be at least 1")
    check_writable(args.json)
    threads = dict.fromkeys(args.threads or [1, torch.get_num_threads()])
    content = {"reference": inference.REFERENCE, "costs": [], "versions": _versions()}
    for costs in inference.measure(dict.fromkeys(sizes), threads, args.repeats):
        found = [cost._asdict() for cost in costs]
        content["costs"] += found
        print(inference_tables.one(found, inference.REFERENCE).text() + "\n", flush=True)
        if args.json:
            write_file(args.json, (json.dumps(content, indent=1) + "\n").encode())


def _size(text: str) -> Size:
    """(H, W) of a text like 480x640."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or min(map(int, match.groups())) < 64:
        raise ValueError(f"--size must be like 480x640, height first, and at least 64x64, not {text}")
    return int(match[1]), int(match[2])


def _versions() -> dict[str, str]:
    """Of what is timed."""
    try:
        return {**results.versions(), "onnxruntime": version("onnxruntime")}
    except PackageNotFoundError:
        return results.versions()


def write_standin(args: argparse.Namespace) -> None:
    check_numbers(args, "sequences")
    with progress(args.sequences, "sequence") as bar:
        standin.write(args.root, args.sequences, bar.update)
    print(f"python evaluate.py --hpatches {args.root}")


COMMANDS = {"bench": (add_bench, time_parts), "standin": (add_standin, write_standin)}
