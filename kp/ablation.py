"""What a part of the training is worth: runs of equal length that differ from another in one thing each.

Every run of a variant and a seed lives in a folder of its own, goes on from its checkpoint if there is one, and is
scored by :mod:`kp.scorecard`, never on real test sequences. What only changes how a detector is used needs no run.
Score maps are taken as training sees them; that they are thinned when they are used is a variant too. Most changes are
of the first recipe, which leaves to chance on which side of edges keypoints lie; those named after it differ from it.
"""

import re
from collections.abc import Callable
from collections.abc import Sequence as Series
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

import kp
from kp.baselines import BASELINES, ScoreMap
from kp.checkpoint import load_checkpoint, load_detector, read_metadata, revision
from kp.config import ENCODERS, DetectorSettings, Parser, RunSettings, add_flags, from_args, from_dict
from kp.detector import Detector, thin
from kp.geometry import resize
from kp.results import fingerprint
from kp.scorecard import scorecard
from kp.training import Trainer, check, resume

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
_ANY_TIME = ("device", "validate_every", "save_every")  # settings that a run may go on without


class Run(NamedTuple):
    """A training run of a variant."""

    variant: str
    settings: RunSettings
    folder: Path

    @property
    def seed(self) -> int:
        return self.settings.train.seed


def plan(names: Series[str], shared: Series[str], seeds: Series[int], out: Path) -> list[Run]:
    """The runs of variants, every variant's first seed first; ``shared`` are flags of all of them.

    Raises ValueError, in one line, on flags with which nothing can be trained.
    """
    return [
        Run(name, parse(name, [*shared, "--seed", str(seed), *VARIANTS[name]]), out / f"{slug(name)}-{seed}")
        for seed in dict.fromkeys(seeds)
        for name in names
    ]


def parse(name: str, flags: Series[str]) -> RunSettings:
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

    Raises what :class:`kp.training.Trainer` does, and ValueError where its folder holds a run with other settings.
    """
    weights, checkpoint = run.folder / "weights.safetensors", run.folder / "checkpoint.pt"
    if not checkpoint.exists():
        Trainer(run.settings, run.folder).run()
        return weights
    state = load_checkpoint(checkpoint)
    recorded = from_dict(RunSettings, state["settings"])
    same = {name: getattr(run.settings.train, name) for name in _ANY_TIME}
    if replace(recorded, train=replace(recorded.train, **same)) != run.settings:
        raise ValueError(f"{run.folder} holds a run with other settings: choose another --out, or remove it")
    trainer = resume(state, run.settings, run.folder)
    if trainer.progress < 1 or not weights.exists() or read_metadata(weights).get("step") != trainer.learner.step:
        trainer.run()
    return weights


def harris(_: ScoreMap) -> ScoreMap:
    """OpenCV's Harris in its place."""
    return BASELINES["harris"]


def harris_thinned(_: ScoreMap) -> ScoreMap:
    """OpenCV's Harris, its response thinned: what thinning is worth to a detector that has learnt nothing."""

    def thinned_response(image: Tensor) -> Tensor:
        response = BASELINES["harris"](image)
        return thin(response.clamp(min=0)).where(response.isfinite(), -torch.inf)

    return thinned_response


def untrained(scores: ScoreMap) -> ScoreMap:
    """The default detector before its first step: corner response and dark spots."""
    return Detector(thinned=False).eval().to(next(scores.parameters()).device)


def response(scores: ScoreMap) -> ScoreMap:
    """The corner response alone, without dark spots: the first recipe before its first step."""
    return Detector(darkness=0, thinned=False).eval().to(next(scores.parameters()).device)


def thinned(scores: ScoreMap) -> ScoreMap:
    """Score maps thinned, as the shipped detectors' are outside training."""
    return lambda image: thin(scores(image))


def image_pyramid(scores: ScoreMap) -> ScoreMap:
    """The mean of the score maps of an image as it is, shrunk to 1/sqrt(2) and to 1/2."""

    def pyramid(image: Tensor) -> Tensor:
        size, maps = tuple(image.shape[-2:]), [scores(image)]
        for scale in (2**-0.5, 0.5):
            small = tuple(max(1, round(n * scale)) for n in size)
            maps.append(resize(scores(resize(image, small).clamp(0, 1)), size))
        return torch.stack(maps).mean(0)

    return pyramid


def smoothed(scores: ScoreMap) -> ScoreMap:
    """Score maps blurred by a Gaussian of standard deviation 1 px."""
    return lambda image: gaussian_blur2d(scores(image), (7, 7), (1.0, 1.0), border_type="replicate")


def mixed_alike(scores: Detector) -> ScoreMap:
    """The maps mixed alike everywhere, by the means of their weights: without what the encoder tells apart."""
    detector = deepcopy(scores)
    detector.mix.register_forward_hook(lambda *call: call[-1].mean((-2, -1), keepdim=True).expand_as(call[-1]))
    return detector


def of_the_negative(scores: ScoreMap) -> ScoreMap:
    """Score maps of the negative: what they owe to keypoints that are darker, or brighter, than what is around."""
    return lambda image: scores(1 - image)


def as_they_are(scores: ScoreMap) -> ScoreMap:
    """Nothing changed: what the others are to be compared with."""
    return scores


def refined(scores: ScoreMap) -> ScoreMap:
    """The same score maps, but keypoints are refined to a fraction of a pixel."""
    return scores


TEST_TIME: dict[str, Callable[[ScoreMap], ScoreMap]] = {  # on given weights, which are not trained
    "harris": harris,
    "harris, thinned": harris_thinned,
    "untrained": untrained,
    "corner response": response,
    "given weights": as_they_are,
    "thinned": thinned,
    "image pyramid": image_pyramid,
    "smoothed scores": smoothed,
    "mixed alike everywhere": mixed_alike,
    "of the negative": of_the_negative,
    "sub-pixel": refined,
}


def measure(name: str, weights: Path, device: torch.device | str = "cpu") -> dict[str, float]:
    """The scorecard of weights, used as the variant of this name says."""
    change, detector = TEST_TIME.get(name, as_they_are), load_detector(weights, device)
    detector.thinned = False
    return scorecard(change(detector), subpixel=change is refined, device=device)


def entry(name: str, weights: Path) -> dict[str, Any]:
    """What :mod:`kp.ledger` keeps of a variant, but for its scores."""
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
