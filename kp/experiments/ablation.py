"""What a part of the training is worth: runs of equal length that differ from another in one thing each.

Every run of a variant and a seed lives in a folder of its own, goes on from its checkpoint if there is one, and is
scored by :mod:`kp.evaluation.scorecard`, never on real test sequences. What only changes how a detector is used needs
no run: see :mod:`kp.experiments.variants`. Score maps are taken as training sees them: that they are thinned when they
are used, or are of several sizes of an image, are variants too. Most changes are of the first recipe, which leaves to
chance on which side of edges keypoints lie; those named after it differ from it.
"""

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

import kp
from kp.config import ENCODERS, DetectorSettings, Parser, RunSettings, add_flags, from_args, from_dict
from kp.evaluation.results import fingerprint
from kp.evaluation.scorecard import scorecard
from kp.experiments.variants import TEST_TIME, as_they_are, refined
from kp.models.checkpoint import load_checkpoint, load_detector, read_metadata, revision
from kp.training.trainer import WEIGHTS_FILE, Trainer, check, resume

_FIRST = ("--darkness", "0", "--softness", "0.1")  # the recipe that most changes were tried on
_CHANGES: dict[str, tuple[str, ...]] = {  # of the first recipe, one each
    "labels only": ("--repeatability-weight", "0", "--ranking-weight", "0"),
    "no corner labels": ("--corner-weight", "0"),
    "no repeatability": ("--repeatability-weight", "0"),
    "repeatability 0.1": ("--repeatability-weight", "0.1"),
    "no ranking": ("--ranking-weight", "0"),
    "learnt from scratch": ("--prior", "none"),
    "kernels not symmetric": ("--no-symmetric",),
    "grey itself, not contrast": ("--no-normalised",),
    "pixel-shuffled maps too": ("--shuffled",),
    "stride 16": ("--stride", "16"),
    "classic shapes only": ("--families", "classic"),
    "no light": ("--photometric", "0"),
    "light and view change together": ("--same-view", "0", "--same-light", "0"),
    "rotation 180": ("--max-rotation", "180"),
    "rotation 0": ("--max-rotation", "0"),
    "ranked half as one picture": ("--pooling", "0.5"),
    "ranked as one picture": ("--pooling", "1"),
    "softness 0.3": ("--softness", "0.3"),
    "softness 0.6": ("--softness", "0.6"),
    "policy gradient": ("--policy",),
    "four views of a scene": ("--views", "4"),
    "weights vary over 4 px": ("--mix-blur", "4"),
    "density 400": ("--density", "400"),
    "density 2500": ("--density", "2500"),
    "batch 16": ("--batch", "16"),
    "thrice the learning rate": ("--lr", "3e-3"),
    "a third of the learning rate": ("--lr", "3e-4"),
    "800 steps": ("--steps", "800"),
    "slack 2": ("--slack", "2"),
    "slack 3": ("--slack", "3"),
    "ema 0.9": ("--ema", "0.9"),
    **{name: ("--encoder", name) for name in ENCODERS if name != DetectorSettings().encoder},
}
VARIANTS: dict[str, tuple[str, ...]] = {  # flags of train_homographic.py that differ from its defaults
    "default": (),
    "half of the dark spots": ("--darkness", "0.15"),
    "thrice the dark spots": ("--darkness", "0.9"),
    "first recipe": _FIRST,
    **{name: (*_FIRST, *flags) for name, flags in _CHANGES.items()},
}
_NEVER = 1e6  # minutes between validations but for the one at the end: rows are of runs of equal length
_ANY_TIME = ("device", "validate_every", "save_every")  # settings that a run may go on without


class Run(NamedTuple):
    """A training run of a variant."""

    variant: str
    settings: RunSettings
    folder: Path

    @property
    def seed(self) -> int:
        return self.settings.train.seed


def plan(names: Sequence[str], shared: Sequence[str], seeds: Sequence[int], out: Path) -> list[Run]:
    """The runs of variants, every variant's first seed first; ``shared`` are flags of all of them.

    Raises ValueError, in one line, on flags with which nothing can be trained.
    """
    return [
        Run(name, parse(name, [*shared, "--seed", str(seed), *VARIANTS[name]]), out / f"{slug(name)}-{seed}")
        for seed in dict.fromkeys(seeds)
        for name in names
    ]


def parse(name: str, flags: Sequence[str]) -> RunSettings:
    """The settings that train_homographic.py has with these flags. Raises ValueError, naming the variant."""
    parser = _Flags(name, allow_abbrev=False)
    for group in fields(RunSettings):
        add_flags(parser, group.type)
    settings = from_args(RunSettings, parser.parse_args(flags))
    try:
        check(settings)
    except ValueError as error:
        parser.error(str(error))
    return settings


class _Flags(Parser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"variant {self.prog!r}: {message}")


def slug(name: str) -> str:
    """A variant's name as part of a folder's."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())


def train(run: Run) -> Path:
    """The weights of a run, which is trained to its end unless it was.

    Raises what :class:`kp.training.trainer.Trainer` does, and ValueError where its folder holds a run with other
    settings.
    """
    weights, checkpoint = run.folder / WEIGHTS_FILE, run.folder / "checkpoint.pt"
    settings = replace(run.settings, train=replace(run.settings.train, validate_every=_NEVER))
    if not checkpoint.exists():
        Trainer(settings, run.folder).run()
        return weights
    state = load_checkpoint(checkpoint)
    recorded = from_dict(RunSettings, state["settings"])
    same = {name: getattr(run.settings.train, name) for name in _ANY_TIME}
    if replace(recorded, train=replace(recorded.train, **same)) != run.settings:
        raise ValueError(f"{run.folder} holds a run with other settings: choose another --out, or remove it")
    trainer = resume(state, settings, run.folder)
    if trainer.progress < 1 or not weights.exists() or read_metadata(weights).get("step") != trainer.learner.step:
        trainer.run()
    return weights


def measure(name: str, weights: Path, device: torch.device | str = "cpu") -> dict[str, float]:
    """The scorecard of weights, used as the variant of this name says."""
    change, detector = TEST_TIME.get(name, as_they_are), load_detector(weights, device)
    detector.scales, detector.thinned = 1, False
    return scorecard(change(detector), subpixel=change is refined, device=device)


def entry(name: str, weights: Path) -> dict[str, Any]:
    """What :mod:`kp.evaluation.ablation_results` keeps of a variant, but for its scores."""
    facts = read_metadata(weights)
    world, training = (facts["settings"].get(group, {}) for group in ("world", "train"))
    return {
        "variant": name,
        "seed": training.get("seed", 0),
        "flags": list(VARIANTS[name]) if name in VARIANTS else None,
        "steps": facts.get("step"),
        "seconds": facts.get("seconds"),
        "batch": training.get("batch"),
        "crop": world.get("crop"),
        "weights": fingerprint(weights),
        "kp": kp.__version__,
        "revision": revision(),
    }
