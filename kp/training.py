"""The training loop: endless synthetic pairs, the sum of the loss terms, validation with the real metric, checkpoints.

A run lives in one folder: ``checkpoint.pt`` to go on from, ``weights.safetensors`` (averaged weights, for use),
``log.jsonl`` and TensorBoard's event files.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from kp.checkpoint import save_checkpoint, save_weights
from kp.config import RunSettings, to_dict
from kp.detector import Detector, choose_device
from kp.files import write_atomically
from kp.losses import corner_loss, repeatability_losses
from kp.pairs import view_pairs
from kp.process import Interruption, keep_freed_memory
from kp.shapes import parse_mixture, render
from kp.validation import Validation
from kp.views import ViewPair

_SHOW_EVERY = 10  # steps between looks at the progress bar and TensorBoard; the log has every step


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says at which step and why."""


def check(settings: RunSettings) -> None:
    """Raises ValueError, naming the flag, on a setting with which nothing can be trained."""
    bounds = {
        "batch": (1, math.inf),
        "steps": (1, math.inf),
        "width": (1, math.inf),
        "crop": (32, math.inf),
        "seed": (0, 2**63 - 1),
        "decay": (0, 1),
        "ema": (0, 1),
        "minutes": (1e-9, math.inf),
        "lr": (1e-9, math.inf),
        "clip": (1e-9, math.inf),
        "density": (1e-9, 1e6),
        "photometric": (0, 2),
    }
    parse_mixture(settings.world.families)
    values = {name: value for group in vars(settings).values() for name, value in vars(group).items()}
    for name, value in values.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            low, high = bounds.get(name, (0, math.inf))
            if not (math.isfinite(value) and low <= value <= high):
                least = "above 0" if low == 1e-9 else f"at least {low}"
                most = "" if high == math.inf else f" and at most {high:g}"
                raise ValueError(f"--{name.replace('_', '-')} must be {least}{most}, not {value}")


def loss_terms(pair: ViewPair, scores0: Tensor, scores1: Tensor, density: float, slack: float) -> dict[str, Tensor]:
    """Every term of the loss by name, the mean of its two directions."""
    corner = corner_loss(scores0, pair.corners0, pair.corner_mask0, pair.valid0, pair.ignore0)
    forth = {"corner": corner} | repeatability_losses(pair, scores0, scores1, density, slack=slack)
    back_pair = pair.swap()
    corner = corner_loss(scores1, pair.corners1, pair.corner_mask1, pair.valid1, pair.ignore1)
    back = {"corner": corner} | repeatability_losses(back_pair, scores1, scores0, density, slack=slack)
    return {name: (forth[name] + back[name]) / 2 for name in forth}


def learning_rate(step: int, progress: float, peak: float, warmup: int, decay: float) -> float:
    """The rate of step 0, 1, ...: a linear rise in steps, a plateau, and a linear fall over the last share of the run.

    Up to the fall it depends on the step alone, so that two runs with a limit in minutes begin alike.
    """
    return peak * min(1, (step + 1) / max(warmup, 1)) * min(1, (1 - progress) / decay if decay > 0 else 1)


class Trainer:
    """One run: its network, optimiser, pairs and clock. ``run`` trains until the steps or minutes are over.

    A trainer that is not ``fresh`` is to be given a state, so no pretrained weights are fetched for it.
    """

    def __init__(self, settings: RunSettings, folder: Path, fresh: bool = True) -> None:
        check(settings)
        self.settings, self.folder = settings, folder
        train, network = settings.train, settings.detector
        self.device = choose_device(train.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(train.seed)
        pretrained = network.pretrained and fresh
        self.model = Detector(network.encoder, network.stride, network.prior, network.width, pretrained)
        self.model.to(self.device, memory_format=torch.channels_last).train()
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(train.ema), use_buffers=True)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=train.lr, weight_decay=train.weight_decay)
        self.half = _half_precision(self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half == torch.float16)
        self.generator = torch.Generator(self.device).manual_seed(train.seed)
        self.pairs = _pairs(settings, self.generator)
        self.step, self.seconds = 0, 0.0
        self.scores: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        """Train to the end; returns the last validation's scores.

        Ctrl-C (or SIGTERM) lets the step end, saves, and raises KeyboardInterrupt. Raises TrainingError on a loss that
        is not finite, and OSError where a file cannot be written; the last checkpoint stays as it was.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        validation = Validation(self.device)
        saved = validated = self.seconds
        every = self.settings.train
        started = time.perf_counter() - self.seconds
        with (
            SummaryWriter(self.folder, purge_step=self.step + 1) as writer,
            _progress_bar() as bar,
            Interruption() as interruption,
        ):
            while self.progress < 1:
                before = self.seconds
                terms = self.take_step()
                self.seconds = time.perf_counter() - started
                self._show(terms, 2 * every.batch / (self.seconds - before), bar, writer)
                if interruption.asked:
                    self.save()
                    raise KeyboardInterrupt
                if self.seconds - validated > 60 * every.validate_every:
                    self.validate(validation, writer)
                    saved = validated = self.seconds = time.perf_counter() - started
                elif self.seconds - saved > 60 * every.save_every:
                    self.save()
                    saved = self.seconds
            self.validate(validation, writer)
        return self.scores

    @property
    def progress(self) -> float:
        """The share of the run that is over, by steps if they are set, else by the clock."""
        train = self.settings.train
        return self.step / train.steps if train.steps is not None else self.seconds / (60 * train.minutes)

    def take_step(self) -> dict[str, float]:
        """One batch, one update; returns the terms of the loss. Raises TrainingError on a term that is not finite."""
        train = self.settings.train
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.progress, train.lr, train.warmup, train.decay)
        pair = next(self.pairs)
        images = torch.cat([pair.image0, pair.image1]).to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            scores0, scores1 = self.model(images).chunk(2)
        if not scores0.isfinite().all() or not scores1.isfinite().all():
            raise TrainingError(
                f"step {self.step + 1}: the scores, and so every loss, are not finite; try a lower --lr"
            )
        terms = loss_terms(pair, scores0, scores1, train.density, train.slack)
        self._check_finite(terms)
        total = sum(getattr(train, f"{name}_weight") * term for name, term in terms.items())
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.model.parameters(), train.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update_parameters(self.model)
        self.step += 1
        return {name: term.item() for name, term in terms.items()}

    def validate(self, validation: Validation, writer: SummaryWriter) -> None:
        """Measure the averaged weights, show them, and write weights and checkpoint."""
        detector = self.average.module.eval()
        self.scores = validation.measure(detector)
        self._log({"validation": self.scores})
        for name, value in self.scores.items():
            writer.add_scalar(f"validation/{name}", value, self.step)
        writer.add_image("fixed pairs", validation.picture(detector), self.step, dataformats="HWC")
        text = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in self.scores.items())
        tqdm.write(f"step {self.step}, {self.seconds / 60:.1f} min, held-out pairs: {text}")
        self.save()

    def save(self) -> None:
        """Write checkpoint and weights, each in one piece."""
        save_checkpoint(self.folder / "checkpoint.pt", self.state_dict())
        save_weights(
            self.folder / "weights.safetensors",
            self.average.module,
            to_dict(self.settings),
            step=self.step,
            seconds=round(self.seconds, 1),
            scores=self.scores,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to take the very next step."""
        return {
            "settings": to_dict(self.settings),
            "step": self.step,
            "seconds": self.seconds,
            "scores": self.scores,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "pairs": self.generator.get_state(),
            "torch": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave. Raises TrainingError where the network is another."""
        try:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
        except RuntimeError as error:
            raise TrainingError(
                "the checkpoint is of another network: leave the network's flags as they were"
            ) from error
        self.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:  # empty where the run did not scale its gradients
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds, self.scores = state["step"], state["seconds"], state["scores"]
        torch.set_rng_state(state["torch"])
        if self.generator.get_state().shape == state["pairs"].shape:  # made on the same kind of device
            self.generator.set_state(state["pairs"])
        else:
            self.generator.manual_seed(self.settings.train.seed + self.step)

    def forget_later_steps(self) -> None:
        """Take from the log the steps that were taken after the checkpoint, and a line that was cut off."""
        log = self.folder / "log.jsonl"
        if not log.exists():
            return
        kept = []
        for line in log.read_text().splitlines(keepends=True):
            with suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= self.step:
                    kept.append(line)
        write_atomically(log, "".join(kept).encode())

    def _check_finite(self, terms: dict[str, Tensor]) -> None:
        finite = torch.stack([term.detach() for term in terms.values()]).isfinite().tolist()
        for (name, term), good in zip(terms.items(), finite, strict=True):
            if not good:
                raise TrainingError(f"step {self.step + 1}: the {name} loss is {term.item()}; try a lower --lr")

    def _show(self, terms: dict[str, float], rate: float, bar: tqdm, writer: SummaryWriter) -> None:
        self._log({"loss": terms, "images_per_second": round(rate, 1), "lr": self.optimiser.param_groups[0]["lr"]})
        if self.step % _SHOW_EVERY and self.step > 1:
            return
        for name, value in terms.items():
            writer.add_scalar(f"loss/{name}", value, self.step)
        writer.add_scalar("images per second", rate, self.step)
        bar.n = round(100 * min(1, self.progress), 1)
        bar.set_postfix_str(" ".join(f"{name} {value:.3f}" for name, value in terms.items()) + f", {rate:.0f} images/s")

    def _log(self, entry: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, "seconds": round(self.seconds, 2)} | entry) + "\n")


def resume(state: dict[str, Any], settings: RunSettings, folder: Path) -> Trainer:
    """The trainer of a run's checkpoint, to go on with these settings in this folder. Raises TrainingError."""
    trainer = Trainer(settings, folder, fresh=False)
    trainer.load_state_dict(state)
    trainer.forget_later_steps()
    return trainer


def _pairs(settings: RunSettings, generator: torch.Generator) -> Iterator[ViewPair]:
    world, light = settings.world, to_dict(settings.light)
    return view_pairs(
        settings.train.batch,
        (world.crop, world.crop),
        generator,
        render=partial(render, families=world.families),
        photometric=light.pop("photometric"),
        light=light,
        max_translation=world.max_translation,
        max_scale=world.max_scale,
        max_rotation=world.max_rotation,
        max_shear=world.max_shear,
        max_perspective=world.max_perspective,
    )


def _half_precision(device: torch.device) -> torch.dtype | None:
    """What CUDA's automatic mixed precision computes in, bfloat16 where the card has it; None elsewhere."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _progress_bar() -> tqdm:
    return tqdm(total=100.0, desc="training", bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}, {postfix}")
