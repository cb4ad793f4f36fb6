"""The speed of the parts on this machine: pairs, score maps, keypoints, training steps and matching, in one run."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import torch
from torch.profiler import ProfilerActivity

from kp.config import ENCODER_DEFAULTS
from kp.data.pairs import canvas_size, view_pairs
from kp.data.photometric import change_photometry
from kp.data.synthetic.render import FAMILIES, render
from kp.experiments import opencv_pairs
from kp.experiments.pair_speed import works
from kp.geometry.homography import RandomHomography
from kp.models.keypoints import extract_keypoints
from kp.support.device import keep_freed_memory
from kp.support.process import peak_memory
from kp.training.trainer import Trainer

Row = tuple[str, float, str]  # name, value, unit

_SIZE = opencv_pairs.SIZE
_ON = "{}x{}".format(*_SIZE)


def benchmark(device: torch.device, batch: int | None = None, seconds: float = 3.0) -> list[Row]:
    """Rows of (name, value, unit), each measured for ``seconds`` or a third of it after a warm-up.

    ``batch``: images or pairs that are made together; None: :func:`default_batch`.
    """
    if device.type == "cpu":
        keep_freed_memory()
    batch = batch or default_batch(device)
    generator = torch.Generator(device).manual_seed(0)
    rows = _pair_rows(generator, batch, seconds) + _memory_rows(generator, batch)
    rows += _part_rows(generator, batch, seconds) + _network_rows(generator, batch, seconds)
    return rows + _matching_rows(device, seconds)


def default_batch(device: torch.device) -> int:
    """Pairs that are made together in the measurement: 128 on CUDA, else 16."""
    return 128 if device.type == "cuda" else 16


def profile(device: torch.device, batch: int | None = None) -> str:
    """Tables of the ten operations that take most of the time: for making pairs, and for a training step."""
    generator = torch.Generator(device).manual_seed(0)
    pairs = _pairs(generator, batch or default_batch(device))
    with TemporaryDirectory() as folder:
        step = _trainer(device, Path(folder)).take_step
        works = {"pairs, default mixture": pairs, "training step": step}
        return "\n".join(f"{name}\n{_profile(work, device)}" for name, work in works.items())


def _pairs(
    generator: torch.Generator, batch: int, families: tuple[str, ...] | None = None, light: bool = True
) -> Callable[[], object]:
    """A function that makes the next batch of pairs."""
    photometric = 1.0 if light else 0.0
    pairs = view_pairs(batch, _SIZE, generator, partial(render, families=families), photometric=photometric)
    return partial(next, pairs)


def _pair_rows(generator: torch.Generator, batch: int, seconds: float) -> list[Row]:
    opencv = _opencv_rate(torch.get_num_threads(), seconds)
    ours = {
        "pairs, classic shapes, no light": _pairs(generator, batch, ("classic",), light=False),
        "pairs, classic shapes": _pairs(generator, batch, ("classic",)),
        "pairs, default mixture, all of it": _pairs(generator, batch),
    }
    rates = {name: _rate(work, generator.device, seconds) * batch for name, work in ours.items()}
    return [
        (f"OpenCV's pairs {_ON}, classic shapes, no light", opencv, "pairs/s"),
        *((f"{name} {_ON}", rate, "pairs/s") for name, rate in rates.items()),
        ("classic shapes, no light: ours over OpenCV's", rates["pairs, classic shapes, no light"] / opencv, "times"),
    ]


def _opencv_rate(workers: int, seconds: float) -> float:
    """Pairs per second of ``workers`` threads or processes, whichever are faster."""
    context, threads, rates = get_context("spawn"), cv2.getNumThreads(), []
    pools: list[Executor] = [ThreadPoolExecutor(workers)]
    if workers > 1:
        begin = {"initializer": _begin, "initargs": (context.Barrier(workers, timeout=120),)}
        pools.append(ProcessPoolExecutor(workers, context, **begin))
    for pool in pools:
        with pool:
            rates.append(sum(pool.map(opencv_pairs.measure, range(workers), [seconds] * workers)))
    cv2.setNumThreads(threads)
    return max(rates)


def _begin(barrier: Barrier) -> None:
    """Let a worker wait until all workers have finished their imports."""
    keep_freed_memory()
    barrier.wait()


def _memory_rows(generator: torch.Generator, batch: int) -> list[Row]:
    """The peak memory for making a batch, per pair. Empty where it cannot be measured."""
    device = generator.device
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _pairs(generator, batch)()
        taken = torch.cuda.max_memory_allocated(device) - before
    elif device.type == "cpu" and sys.platform == "linux":
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a new process, because this one keeps freed memory
            taken = pool.submit(_resident_memory, batch, torch.get_num_threads()).result()
    else:
        return []
    return [(f"memory for pairs {_ON}, default mixture, {batch} at a time", taken / batch / 2**20, "MiB/pair")]


def _resident_memory(batch: int, threads: int) -> int:
    """Bytes by which two batches raise the peak memory of this process."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    _pairs(generator, 1)()  # loads what is needed once
    before, pairs = peak_memory(), _pairs(generator, batch)
    pairs(), pairs()
    return peak_memory() - before


def _part_rows(generator: torch.Generator, batch: int, seconds: float) -> list[Row]:
    canvas, device = canvas_size(_SIZE), generator.device
    image = render(batch, canvas, generator).image
    warp = RandomHomography(_SIZE, padding="reflection", antialias=True, generator=generator)
    view = warp(image)
    works = {f"render {name}": partial(render, batch, canvas, generator, (name,)) for name in FAMILIES}
    works["render the default mixture"] = partial(render, batch, canvas, generator)
    on = "{}x{}".format(*canvas)
    rows = [(f"{name} {on}", _rate(work, device, seconds / 3) * batch, "images/s") for name, work in works.items()]
    works = {"warp to": lambda: warp(image), "change light": lambda: change_photometry(view, generator)}
    return rows + [(f"{name} {_ON}", _rate(work, device, seconds) * batch, "images/s") for name, work in works.items()]


def _trainer(device: torch.device, folder: Path) -> Trainer:
    settings = ENCODER_DEFAULTS
    return Trainer(replace(settings, train=replace(settings.train, device=str(device))), folder)


def _network_rows(generator: torch.Generator, batch: int, seconds: float) -> list[Row]:
    view, device = render(batch, _SIZE, generator).image, generator.device
    with TemporaryDirectory() as folder:
        trainer = _trainer(device, Path(folder))
        steps = _rate(trainer.take_step, device, seconds)
        detector = trainer.learner.average.module.eval()
        several = deepcopy(detector)
        several.num_scales = 4
        with torch.inference_mode():
            scores = detector(view)
            images = _rate(lambda: detector(view), device, seconds) * batch
            in_four = _rate(lambda: several(view), device, seconds) * batch
            maps = _rate(lambda: extract_keypoints(scores, 300), device, seconds) * batch
    network, train, side = trainer.settings.detector, trainer.settings.train, trainer.settings.world.image_size
    return [
        (f"score map {_ON}", images, "images/s"),
        (f"score map {_ON}, looked at in four sizes", in_four, "images/s"),
        (f"keypoints from a map {_ON}", maps, "images/s"),
        (f"training, {network.encoder}, {train.batch} pairs of {side}x{side}", steps, "steps/s"),
    ]


def _matching_rows(device: torch.device, seconds: float) -> list[Row]:
    """Two photographs matched: milliseconds of each part, of all parts, and of SIFT in their place."""
    return [(f"two photographs: {name}", 1e3 / _rate(work, device, seconds / 3), "ms") for name, work in works(device)]


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _rate(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Finished calls of ``work`` per second. A first call is not timed."""
    work()
    _wait(device)
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds or not calls:
        work()
        calls += 1
    _wait(device)
    return calls / (time.perf_counter() - began)


def _profile(work: Callable[[], object], device: torch.device) -> str:
    work()
    _wait(device)
    on_card = device.type == "cuda"
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_card]) as seen:
        for _ in range(3):
            work()
        _wait(device)
    return seen.key_averages().table(f"self_{'cuda' if on_card else 'cpu'}_time_total", row_limit=10)
