"""One run of ``evaluate.py``: check everything, measure, print, write."""

import signal
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kp.cli import evaluate_features
from kp.cli.errors import exit_code
from kp.config import MODELS, EvaluateSettings, OutputSettings
from kp.data import hpatches, photographs
from kp.data.download import DownloadError
from kp.data.hpatches import ImageSequence
from kp.evaluation import benchmark, feature_benchmark, protocols, published, results, sweeps
from kp.evaluation.baselines import ScoreMap
from kp.evaluation.compare import above_floors
from kp.evaluation.keypoint_files import ReadKeypoints, file_finder
from kp.evaluation.protocols import Protocol
from kp.evaluation.registry import (
    MINE,
    NAMES,
    FindKeypoints,
    KeypointFiles,
    check_names,
    make_detectors,
    score_maps,
)
from kp.evaluation.summary import summarise, summarise_kinds
from kp.models.checkpoint import find_weights
from kp.reporting.comparison import compare_files
from kp.reporting.html import PAGE, write_page
from kp.reporting.images import examples
from kp.reporting.result_tables import difference_lines, printed_kinds, printed_results, printed_sweeps
from kp.support.device import choose_device
from kp.support.files import check_writable
from kp.support.flags import Parser, add_flags, from_args, given
from kp.support.process import print_line
from kp.support.settings import check_bounds
from kp.training import distributed

Make = Callable[[], Mapping[str, FindKeypoints | KeypointFiles]]


@dataclass
class _Measured:
    """What there is so far: a record for every pair, lines of the self-check, the curves, and what stopped it."""

    records: list[dict[str, Any]]
    checks: list[str]
    curves: list[dict[str, Any]]
    stop: BaseException | None = None


def measure(root: Path | None, download: bool, s: EvaluateSettings, output: OutputSettings) -> None:
    """Measure what the settings say on the sequences in ``root``, or on the built-in photographs; print and write it.

    Raises ValueError with a message of one line, before anything is measured where that is possible; what was measured
    is written before it is raised.
    """
    check_bounds(s)
    if s.features:
        evaluate_features.check(s)
        _check(root, s, output)
        sequences = benchmark.read_sequences(root, s.split, s.subset, s.seed, download)
        evaluate_features.measure(sequences, _source(root, s), s, output)
        return
    names = _names(s)  # checked before a download
    changes = {field: getattr(s, field) for field in ("max_keypoints", "threshold", "nms_size", "nms", "border")}
    chosen = [protocols.choose(name, **changes) for name in dict.fromkeys(s.protocol)]
    _check(root, s, output)
    export = benchmark.exporter(output.export, names, len(chosen)) if output.export else None
    if export and s.subpixel:
        s = replace(s, subpixel=False)
        print("keypoints at whole pixels, as --export writes them")
    sequences = benchmark.read_sequences(root, s.split, s.subset, s.seed, download)
    make, skipped, weights = _detectors(names, s)
    shipped = {name: results.fingerprint(find_weights(name)) for name in names if name in MODELS}
    source = _source(root, s)
    done = _measure(sequences, {p: partial(make, p) for p in chosen}, s, export, str(root or source), skipped)
    if s.curves and done.stop is None:
        native = protocols.choose("native", **changes)
        _measure_curves(done, partial(make, native, files=None), native, s)  # there are no files of these images
    choices = {name: getattr(s, name) for name in ("split", "subset", "scales", "subpixel", "seed")}
    settings = results.settings(source, chosen, **choices)
    content = results.content(done.records, settings, weights, skipped, done.stop is None)
    content |= {"shipped": shipped, "curves": done.curves, "checks": done.checks}
    _write(content, output, sequences, chosen[0], make)
    if done.stop is not None:
        raise done.stop


def _source(root: Path | None, s: EvaluateSettings) -> str:
    """What results call the data set: its name, not where it lies."""
    return root.resolve().name if root else f"the built-in photographs, seed {s.seed}"


def _names(s: EvaluateSettings) -> tuple[str, ...]:
    """What is measured, ``mine`` first if --keypoints names files and it has no other place. Raises ValueError."""
    names = tuple(dict.fromkeys(s.detectors))
    check_names([name for name in names if name != MINE])
    if s.keypoints is None and MINE in names:
        raise ValueError(f"--detectors {MINE} is measured with --keypoints DIR, the folder of its files")
    return names if s.keypoints is None or MINE in names else (MINE, *names)


def _detectors(
    names: Sequence[str], s: EvaluateSettings
) -> tuple[Callable[..., dict[str, FindKeypoints | KeypointFiles]], dict[str, str], dict[str, str] | None]:
    """What makes a protocol's detectors; those that cannot run, and why; and which weights ``kp`` has, if it is one."""
    device, path = choose_device(s.device), find_weights(s.weights)
    where = {"weights": path, "baseline_weights": s.baseline_weights, "device": device, "scales": s.scales}
    files = file_finder(s.keypoints) if s.keypoints else None
    maps, skipped = score_maps([name for name in names if name != MINE], seed=s.seed, **where)
    if not maps and files is None:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in skipped.items()))
    make = partial(_make, names=names, maps=maps, files=files, subpixel=s.subpixel, device=device)
    return make, skipped, results.fingerprint(path) if "kp" in names else None


def _make(
    protocol: Protocol,
    *,
    names: Sequence[str],
    maps: Mapping[str, ScoreMap],
    files: ReadKeypoints | None,
    subpixel: bool,
    device: torch.device,
) -> dict[str, FindKeypoints | KeypointFiles]:
    """The detectors of a protocol, in the order of their names."""
    detectors = make_detectors(maps, protocol, subpixel, device)
    if files is not None:
        detectors[MINE] = KeypointFiles(files, protocol, subpixel)
    return {name: detectors[name] for name in names if name in detectors}


def _check(root: Path | None, s: EvaluateSettings, output: OutputSettings) -> None:
    """Raises ValueError on a path or a choice that cannot be used, before anything is measured."""
    if root is None and s.subset != "all":
        raise ValueError("--subset chooses among the sequences of --hpatches: add it, or leave out --subset")
    for flag, folder in (("--keypoints", s.keypoints), ("--baseline-weights", s.baseline_weights)):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{flag}: {folder} is not a folder")
    check_writable(output.report and output.report / PAGE)
    check_writable(output.export and output.export / "file")
    check_writable(output.json)  # last: it may name a folder that the others have just made
    if s.curves:
        photographs.folder()


def _measure(
    sequences: Sequence[ImageSequence],
    makers: Mapping[Protocol, Make],
    s: EvaluateSettings,
    export: benchmark.Export | None,
    source: str,
    skipped: Mapping[str, str],
) -> _Measured:
    """Every protocol's table, printed as soon as it is there."""
    done = _Measured([], [], [])
    for protocol, make in makers.items():
        started = time.perf_counter()
        print_line(f"{source}, {len(sequences)} sequences, {protocol.describe()}")
        records, done.stop = benchmark.collect(benchmark.evaluate(sequences, make, protocol, export, s.workers))
        rows = summarise(records, s.split)
        checks = published.check(rows, records, protocol)
        seconds = f"{time.perf_counter() - started:.0f} s"
        kinds = printed_kinds(summarise_kinds(records))
        parts = [*kinds, *difference_lines(above_floors(records, s.split)), *checks, seconds]
        print_line("\n".join([printed_results(rows, skipped), *parts]))
        done.records += records
        done.checks += checks
        if done.stop is not None:
            break
    return done


def _measure_curves(done: _Measured, make: Make, protocol: Protocol, s: EvaluateSettings) -> None:
    try:
        done.curves = sweeps.measure(make, protocol, s.seed, s.workers)
        print_line(printed_sweeps(done.curves))
    except benchmark.STOPS as stop:
        print_line("the curves were not finished, and are left out")
        done.stop = stop


def _write(
    content: dict[str, Any],
    output: OutputSettings,
    sequences: Sequence[ImageSequence],
    protocol: Protocol,
    make: Callable[[Protocol], Mapping[str, FindKeypoints | KeypointFiles]],
) -> None:
    """The files that were asked for: what goes wrong with one does not keep the other from being written."""
    try:
        if output.json:
            results.write(output.json, content)
    finally:
        if output.report:
            detectors = make(protocol)
            name = "kp" if "kp" in detectors else next(iter(detectors))
            shown = examples(sequences, content["pairs"], name, detectors[name], protocol) if content["pairs"] else []
            print_line(f"see {write_page(output.report, content, shown)}")


def parse(argv: list[str] | None) -> Namespace:
    """The command line."""
    names = f"detectors: {', '.join(NAMES)}; with --keypoints also {MINE}\n{evaluate_features.NAMES}"
    text = f"{benchmark.__doc__}\n{feature_benchmark.__doc__}"
    parser = Parser("evaluate.py", description=text, epilog=f"{names}\n\n{benchmark.EXAMPLES}")
    text = f"HPatches sequences ({hpatches.FOLDER} if ROOT is left out); without this flag, the built-in photographs"
    parser.add_argument("--hpatches", nargs="?", const=Path(hpatches.FOLDER), type=Path, metavar="ROOT", help=text)
    text = f"fetch HPatches first, to ROOT or {hpatches.FOLDER}, unless it is there"
    parser.add_argument("--download", action="store_true", help=text)
    text = "measure nothing: say what differs between two files written with --json, and whether by more than chance"
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help=text)
    for group in (OutputSettings, EvaluateSettings):
        add_flags(parser, group)
    args = parser.parse_args(argv)
    evaluate_features.check_given(parser, argv)
    if args.compare and (others := sorted(given(parser, argv) - {"compare"})):
        parser.error(f"--compare only prints: leave out {', '.join('--' + name.replace('_', '-') for name in others)}")
    return args


def run(args: Namespace) -> None:
    """What the command line asks for. Raises ValueError with a message of one line."""
    output = from_args(OutputSettings, args)
    if args.compare:
        print(compare_files(*args.compare))
        return
    if distributed.ranks() > 1:
        raise ValueError("torchrun is for training: here --workers N shares the sequences among processes")
    root = Path(hpatches.FOLDER) if args.download and args.hpatches is None else args.hpatches
    measure(root, args.download, from_args(EvaluateSettings, args), output)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a cluster or a container sends: as Ctrl-C
    args = parse(argv)
    interrupted = "interrupted: the numbers cover the sequences that were done; a download starts again next time"
    return exit_code("evaluate.py", lambda: run(args), (DownloadError,), lambda: interrupted, error_code=2)
