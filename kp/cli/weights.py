"""The commands about trained weights: kp models, score, ablate and report."""

import argparse
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from kp.config import ENCODERS, WEIGHTS, EvaluateSettings
from kp.data import hpatches, photograph_changes
from kp.data.photograph_scenes import PhotographScenes
from kp.data.photographs import VIEW
from kp.evaluation import ablation_results, results, scorecard
from kp.evaluation.baselines import ScoreMap
from kp.evaluation.registry import NAMES, OURS, score_maps
from kp.experiments import ablation, own_photographs
from kp.experiments.ablation import VARIANTS
from kp.experiments.variants import TEST_TIME, applies
from kp.models import cost as costs
from kp.models.checkpoint import SHIPPED, find_weights, load_detector
from kp.models.detector import describes
from kp.models.encoders import PretrainedError
from kp.reporting import pages, result_tables
from kp.reporting.tables import Column, Table
from kp.support.device import choose_device
from kp.support.errors import explained, one_line
from kp.support.files import InUseError, check_writable, write_file
from kp.support.settings import check_bounds
from kp.training.trainer import TrainingError
from kp.training.validation import Real

RESULTS = Path("runs/ablation.json")


def add_models(parser: argparse.ArgumentParser) -> None:
    """The flags of kp models."""
    parser.description = costs.__doc__
    _add_json(parser)


def add_report(parser: argparse.ArgumentParser) -> None:
    """The flags of kp report."""
    parser.description = pages.__doc__
    parser.add_argument("--check", action="store_true", help="write nothing: fail where a page says something else")


def add_score(parser: argparse.ArgumentParser) -> None:
    """The flags of kp score."""
    parser.description = f"{scorecard.__doc__}\n{photograph_changes.__doc__}\n--images: {own_photographs.__doc__}"
    text = f"weights: shipped ones ({', '.join(SHIPPED)}) or a file; or a detector: "
    text += f"{', '.join(name for name in NAMES if name not in OURS)} (default: {WEIGHTS} harris)"
    parser.add_argument("detectors", nargs="*", metavar="WEIGHTS or NAME", help=text)
    parser.add_argument("--subpixel", action="store_true", help="refine keypoints to a fraction of a pixel")
    text = "instead, the photographs at their own size, by kinds of change: some minutes a detector"
    parser.add_argument("--full-size", action="store_true", help=text)
    text = "instead, photographs of your own: repeatability and, of descriptors, the share of right matches"
    parser.add_argument("--images", type=Path, metavar="FOLDER", help=text)
    text = "sizes in which our detectors look at an image (default: 1)"
    parser.add_argument("--scales", type=int, default=1, metavar="N", help=text)
    _add_json(parser)
    _add_device(parser)


def add_ablate(parser: argparse.ArgumentParser) -> None:
    """The flags of kp ablate."""
    parser.description = ablation.__doc__
    parser.add_argument("names", nargs="*", metavar="NAME", help="variants, see --list (default: all)")
    for name, text in (
        ("steps", "of every run"),
        ("batch", "scenes a step"),
        ("image-size", "side of a training view"),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{text} (default: that of training)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S", help="one run each (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), metavar="RUNS", help="folder of the runs")
    text = f"of the scores (default: {RESULTS})"
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help=text)
    text = f"for the variants that need no training (default: {ENCODERS[0]})"
    parser.add_argument("--weights", default=ENCODERS[0], metavar="NAME|FILE", help=text)
    text = "score again what is in the file; needed after a change of kp, where the weights did not change"
    parser.add_argument("--rescore", action="store_true", help=text)
    text = "folder of real sequences: how much above the floor, the corner response with nothing learnt, each is there"
    parser.add_argument("--validation", type=Path, metavar="ROOT", help=text)
    parser.add_argument("--list", action="store_true", help="only print the variants")
    parser.add_argument("--table", type=Path, metavar="FILE.json", help="only print a file's scores, as Markdown")
    _add_device(parser)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")


def models(args: Namespace) -> None:
    """A line for each of the shipped detectors."""
    check_writable(args.json)
    found = costs.describe(SHIPPED)
    print(result_tables.costs(found).text())
    if args.json is not None:
        _write(args.json, found)


def fill_pages(args: Namespace) -> None:
    """Write the pages that the results have changed, or only tell."""
    filled = pages.fill()
    changed = pages.differing(filled)
    if changed and args.check:
        raise ValueError(f"{', '.join(map(str, changed))}: not what the results say, run python -m kp report")
    for path in changed:
        write_file(path, filled[path].encode())
        print(f"wrote {path}")


def score(args: Namespace) -> None:
    """A line of numbers for each detector."""
    check_writable(args.json)
    check_bounds(EvaluateSettings(scales=args.scales))
    if args.images is not None and (args.full_size or args.subpixel):
        raise ValueError("--images measures photographs one way: leave out --full-size and --subpixel")
    device, found = choose_device(args.device), {}
    names = list(dict.fromkeys(args.detectors or [WEIGHTS, "harris"]))
    maps = {name: _score_map(name, device, args.scales) for name in names}
    if args.images is None:
        numbers = scorecard.FULL_SIZE_NAMES if args.full_size else scorecard.NAMES
        measure = partial(scorecard.scorecard, full_size=args.full_size, subpixel=args.subpixel, device=device)
    else:
        numbers = own_photographs.NAMES
        photographs = PhotographScenes(args.images, VIEW, cache_bytes=0)
        print(photographs.summary())
        measure = partial(own_photographs.measure, made=own_photographs.sequences(photographs.files), device=device)
    title, columns = "detector".ljust(max(map(len, names))), [Column(number, width=5) for number in numbers]
    print(*Table(title, columns, []).head_lines(), sep="\n", flush=True)
    for name, score_map in maps.items():
        found[name] = measure(score_map)
        row = name, [found[name].get(number) for number in numbers]
        print(*Table(title, columns, [row]).row_lines(), sep="\n", flush=True)
        if args.json is not None:
            settings = {"subpixel": args.subpixel, "scales": args.scales, "full_size": args.full_size}
            _write(args.json, {"scores": found, **settings, "versions": results.versions()})


def _write(path: Path, content: Any) -> None:
    write_file(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _score_map(name: str, device: torch.device, scales: int) -> ScoreMap:
    """The detector of that name, or of weights. Raises ValueError where it is neither or cannot run here."""
    if name not in NAMES or name in OURS:
        return load_detector(name, device, scales)
    maps, skipped = score_maps([name], weights=find_weights(WEIGHTS), baseline_weights=None, seed=0, device=device)
    if skipped:
        raise ValueError(f"{name}: {skipped[name]}")
    return maps[name]


def ablate(args: Namespace) -> None:
    """Train what is not trained, score what is not scored, and show all that is in the file."""
    if args.list:
        print(_variants())
        return
    if args.table is not None:
        entries = ablation_results.scored(args.table)
        print(f"{ablation_results.budget(entries)}\n\n{result_tables.ablation(entries).markdown()}")
        return
    names = list(dict.fromkeys(args.names or (*VARIANTS, *TEST_TIME)))
    if unknown := [name for name in names if name not in VARIANTS and name not in TEST_TIME]:
        raise ValueError(f"no variant is called {unknown[0]}: see --list")
    runs, given = _planned(args, names)  # an error is told before hours of work
    ablation_results.read(args.json)
    if args.validation:
        hpatches.read(args.validation)
    device, failed = choose_device(args.device), []
    check_writable(args.json)
    if runs:
        check_writable(args.out / "run")
    real = Real(args.validation, device) if args.validation else None
    try:
        for name, weights in chain(_trained(runs, failed), given):
            _enter(args, name, weights, device, real)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on", file=sys.stderr)
        raise
    entries = ablation_results.read(args.json)
    if entries:
        print(f"{ablation_results.budget(entries)}\n{result_tables.ablation(entries).text()}")
    if failed:
        raise ValueError(f"{len(failed)} of the runs failed: {', '.join(failed)}")


def _planned(args: Namespace, names: list[str]) -> tuple[list[ablation.Run], list[tuple[str, Path]]]:
    """The runs, and the variants without training with the weights they are of. Raises ValueError."""
    shared = [
        f"--{name.replace('_', '-')}={getattr(args, name)}"
        for name in ("steps", "batch", "image_size", "device")
        if getattr(args, name) is not None
    ]
    runs = ablation.plan([name for name in names if name in VARIANTS], shared, args.seeds, args.out)
    given_weights, used = find_weights(args.weights), [name for name in names if name in TEST_TIME]
    if used:
        described = describes(load_detector(args.weights))
        others = [name for name in used if not applies(name, described)]
        if others and args.names:
            has = "has" if described else "has no"
            raise ValueError(f"{others[0]} cannot be tried on {args.weights}, which {has} descriptors")
        used = [name for name in used if name not in others]
    return runs, [(name, given_weights) for name in used]


def _trained(runs: list[ablation.Run], failed: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield variants and their weights as soon as they are trained. After a run that fails, the others still run."""
    for number, run in enumerate(runs, start=1):
        print(f"{run.variant}, seed {run.seed} ({number} of {len(runs)} runs): {run.folder}", flush=True)
        try:
            yield run.variant, ablation.train(run)
        except Exception as error:
            text = explained(error)
            if text is None and not isinstance(error, (TrainingError, PretrainedError, InUseError)):
                raise
            print(f"{run.variant}, seed {run.seed}: {text or one_line(error)}", file=sys.stderr)
            failed.append(f"{run.variant} {run.seed}")


def _enter(args: Namespace, name: str, weights: Path, device: torch.device, real: Real | None) -> None:
    """Score weights and put that into the file, unless it is there."""
    entry = ablation.entry(name, weights)
    known = ablation_results.find(ablation_results.read(args.json), name, entry["seed"])
    changed = known is None or known["weights"].get("sha256") != entry["weights"]["sha256"]
    if args.rescore or changed or (real and "validation" not in known["scores"]):
        scores = ablation.measure(name, weights, device, real)
        ablation_results.put(args.json, entry | {"scores": scores})
        if real:
            above = ", ".join(f"{key[12:]} {value:+.3f}" for key, value in scores.items() if key[:12] == "above_floor_")
            print(f"{name}, seed {entry['seed']}: above the floor: {above}", flush=True)


def _variants() -> str:
    """Every variant and what it changes."""
    first = max(map(len, (*VARIANTS, *TEST_TIME)))
    lines = [f"{name:{first}}  {' '.join(flags)}".rstrip() for name, flags in VARIANTS.items()]
    docs = {name: change.__doc__.splitlines()[0] for name, change in TEST_TIME.items()}
    return "\n".join([*lines, "without training, of --weights:", *(f"{name:{first}}  {docs[name]}" for name in docs)])


COMMANDS = {
    "models": (add_models, models),
    "score": (add_score, score),
    "ablate": (add_ablate, ablate),
    "report": (add_report, fill_pages),
}
