"""The commands that time this machine: kp bench, and kp standin, which writes data to time evaluate.py with."""

import argparse
import json
from pathlib import Path

import torch

from kp.cli.pictures import check_numbers, progress
from kp.data import standin
from kp.evaluation import results
from kp.experiments import inference
from kp.experiments.speed import benchmark, default_batch, profile
from kp.reporting import result_tables
from kp.support.device import choose_device
from kp.support.files import check_writable, write_file


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The flags of kp bench."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--batch", type=int, help="images or pairs made together (default: 16, on CUDA 128)")
    parser.add_argument("--threads", type=int, nargs="+", help="CPU threads, one run each (default: as torch chooses)")
    text = "instead, what 1000 keypoints cost, in time and memory, beside XFeat, Harris, FAST, ORB and SIFT"
    parser.add_argument("--inference", action="store_true", help=text)
    text = "of the image, with --inference (default: 480 640)"
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help=text)
    text = "write these numbers, with --inference"
    parser.add_argument("--json", type=Path, metavar="FILE", help=text)
    parser.add_argument("--profile", action="store_true", help="also list the slowest operations")


def add_standin(parser: argparse.ArgumentParser) -> None:
    """The flags of kp standin."""
    parser.description = standin.__doc__
    parser.add_argument("root", type=Path, metavar="ROOT", help="a new folder; 2 GB for all sequences")
    text = f"sequences to write (default: {standin.COUNT}, as many as HPatches has)"
    parser.add_argument("--sequences", type=int, default=standin.COUNT, metavar="N", help=text)


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


COMMANDS = {"bench": (add_bench, time_parts), "standin": (add_standin, write_standin)}
