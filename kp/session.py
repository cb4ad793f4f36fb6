"""One run of ``evaluate.py``: check everything, measure, print, write."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kp import evaluation, photographs, protocols, published, ranks, results, sweeps
from kp.checkpoint import find_weights
from kp.config import MODELS, OURS, EvaluateSettings, OutputSettings
from kp.detector import choose_device
from kp.detectors import Detector, make_detectors, score_maps
from kp.examples import examples
from kp.hpatches import Sequence, check_writable
from kp.page import PAGE, write_page
from kp.protocols import Protocol
from kp.rows import summarise
from kp.terminal import table

Make = Callable[[], Mapping[str, Detector]]


@dataclass
class _Measured:
    """What there is so far: a record for every pair, lines of the self-check, the curves, and what stopped it."""

    records: list[dict[str, Any]]
    checks: list[str]
    curves: list[dict[str, Any]]
    stop: BaseException | None = None


def run(root: Path | None, download: bool, s: EvaluateSettings, output: OutputSettings) -> None:
    """Measure what the settings say on the sequences in ``root``, or on the built-in photographs; print and write it.

    Raises ValueError with a message of one line, before anything is measured where that is possible; what was measured
    is written before it is raised.
    """
    names = tuple(dict.fromkeys(s.detectors))
    changes = {field: getattr(s, field) for field in ("max_keypoints", "threshold", "nms_size", "border")}
    chosen = [protocols.choose(name, **changes) for name in dict.fromkeys(s.protocol)]
    _check(s, output)
    export = evaluation.exporter(output.export, names, len(chosen)) if output.export else None
    if export and s.subpixel and (ours := [name for name in names if name in OURS]):
        s = replace(s, subpixel=False)
        print(f"{', '.join(ours)}: keypoints at whole pixels, as --export writes them")
    sequences = ranks.first(lambda: evaluation.read_sequences(root, s.split, s.subset, s.seed, download))
    make, skipped, weights = _detectors(names, s)
    shipped = {name: results.fingerprint(find_weights(name)) for name in names if name in MODELS}
    source = str(root or f"the built-in photographs, seed {s.seed}")
    done = _measure(sequences, {p: partial(make, p) for p in chosen}, s, export, source, skipped)
    if s.curves and done.stop is None:
        native = protocols.choose("native", **changes)
        _measure_curves(done, partial(make, native), native, s)
    choices = {name: getattr(s, name) for name in ("split", "subset", "scales", "subpixel", "seed")}
    settings = results.settings(source, chosen, **choices)
    content = results.content(done.records, settings, weights, skipped, done.stop is None)
    content |= {"shipped": shipped, "curves": done.curves, "checks": done.checks}
    if ranks.rank() == 0:
        _write(content, output, sequences, chosen[0], make)
    if done.stop is not None:
        raise done.stop


def _detectors(
    names: Series[str], s: EvaluateSettings
) -> tuple[Callable[[Protocol], dict[str, Detector]], dict[str, str], dict[str, str] | None]:
    """What makes a protocol's detectors; those that cannot run, and why; and which weights ``kp`` has, if it is one."""
    device, path = choose_device(s.device), find_weights(s.weights)
    where = {"weights": path, "baseline_weights": s.baseline_weights, "device": device, "scales": s.scales}
    maps, skipped = ranks.first(lambda: score_maps(names, seed=s.seed, **where))
    if not maps:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in skipped.items()))
    make = partial(make_detectors, maps, subpixel=s.subpixel, device=device)
    return make, skipped, results.fingerprint(path) if "kp" in names else None


def _check(s: EvaluateSettings, output: OutputSettings) -> None:
    """Raises ValueError where the work could not be shared, or a file not be written, before anything is measured."""
    if s.scales is not None and s.scales < 1:
        raise ValueError(f"--scales must be at least 1, not {s.scales}")
    if s.workers < 1:
        raise ValueError(f"--workers must be at least 1, not {s.workers}")
    if s.workers > 1 and ranks.ranks() > 1:
        raise ValueError("torchrun's ranks share the sequences already: leave out --workers")
    check_writable(output.json)
    check_writable(output.report and output.report / PAGE)
    if s.curves:
        photographs.folder()


def _measure(
    sequences: Series[Sequence],
    makers: Mapping[Protocol, Make],
    s: EvaluateSettings,
    export: evaluation.Export | None,
    source: str,
    skipped: Mapping[str, str],
) -> _Measured:
    """Every protocol's table, printed as soon as it is there."""
    done = _Measured([], [], [])
    for protocol, make in makers.items():
        started = time.perf_counter()
        _say(f"{source}, {len(sequences)} sequences, {protocol.describe()}")
        records, done.stop = evaluation.collect(evaluation.evaluate(sequences, make, protocol, export, s.workers))
        rows = summarise(records, s.split)
        checks = published.check(rows, records, protocol)
        seconds = f"{time.perf_counter() - started:.0f} s"
        _say("\n".join([table(rows, skipped), *checks, seconds]))
        done.records += records
        done.checks += checks
        if done.stop is not None:
            break
    return done


def _measure_curves(done: _Measured, make: Make, protocol: Protocol, s: EvaluateSettings) -> None:
    try:
        done.curves = sweeps.measure(make, protocol, s.seed, s.workers)
        _say(sweeps.table(done.curves))
    except evaluation.STOPS as stop:
        _say("the curves were not finished, and are left out")
        done.stop = stop


def _write(
    content: dict[str, Any],
    output: OutputSettings,
    sequences: Series[Sequence],
    protocol: Protocol,
    make: Callable[[Protocol], Mapping[str, Detector]],
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
            _say(f"see {write_page(output.report, content, shown)}")


def _say(text: str) -> None:
    """Print at once. Where nobody listens any more, as behind ``| head``, go on in silence: files are to be written."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
