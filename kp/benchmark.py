"""How fast the parts are on this machine, side by side in one run."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from kp.config import RunSettings
from kp.homography import RandomHomography
from kp.keypoints import extract_keypoints
from kp.pairs import view_pairs
from kp.photometric import change_photometry
from kp.shapes import FAMILIES, render
from kp.training import Trainer


def benchmark(device: torch.device, batch: int = 16, seconds: float = 3.0) -> list[tuple[str, float, str]]:
    """Rows of (what, how many a second, of what), each measured for at least ``seconds`` after a warm-up."""
    size, canvas = (240, 320), (360, 480)
    generator = torch.Generator(device).manual_seed(0)
    scenes = {
        name: _rate(lambda name=name: render(batch, canvas, generator, (name,)), device, seconds / 3) * batch
        for name in FAMILIES
    }
    rows = [(f"render {name} 360x480", rate, "images/s") for name, rate in scenes.items()]
    image = render(batch, canvas, generator).image
    look = RandomHomography(size, padding="reflection", generator=generator)
    view = look(image)
    pairs = view_pairs(batch, size, generator)
    parts = {
        "render, all families 360x480": lambda: render(batch, canvas, generator),
        "warp to 240x320": lambda: look(image),
        "change light 240x320": lambda: change_photometry(view, generator),
    }
    rows += [(name, _rate(f, device, seconds) * batch, "images/s") for name, f in parts.items()]
    rows.append(("pairs 240x320, all of it", _rate(lambda: next(pairs), device, seconds) * batch, "pairs/s"))
    return rows + _network_rows(device, view, seconds)


def _network_rows(device: torch.device, view: torch.Tensor, seconds: float) -> list[tuple[str, float, str]]:
    settings = RunSettings()
    settings = replace(settings, train=replace(settings.train, device=str(device)))
    with TemporaryDirectory() as folder:
        trainer = Trainer(settings, Path(folder))
        steps = _rate(trainer.take_step, device, seconds)
        detector = trainer.average.module.eval()
        with torch.inference_mode():
            scores = detector(view)
            images = _rate(lambda: detector(view), device, seconds) * len(view)
            maps = _rate(lambda: extract_keypoints(scores, 300), device, seconds) * len(view)
    name = f"{settings.detector.encoder}, {settings.train.batch} pairs of {settings.world.crop}x{settings.world.crop}"
    return [
        ("score map 240x320", images, "images/s"),
        ("keypoints from a map 240x320", maps, "images/s"),
        (f"training, {name}", steps, "steps/s"),
    ]


def _rate(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Calls of ``work`` a second, all of them finished, after two calls that do not count."""

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    work(), work()
    wait()
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds or calls < 3:
        work()
        calls += 1
    wait()
    return calls / (time.perf_counter() - began)
