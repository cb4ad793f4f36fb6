"""What a part of the training is worth: runs of equal length, each with one change.

Every run of a variant and a seed has a folder of its own. It goes on from its checkpoint if there is one, and is scored
by :mod:`kp.evaluation.scorecard`, or by what its descriptors match. A variant that changes only how a detector is used
needs no run: see :mod:`kp.experiments.variants`. Score maps are taken as training sees them, without thinning; that
they are thinned is a variant too. Most changes were made to the first recipe, which has no map of dark spots. Rows of
options that were removed stay in the result files, with the git revision that can run them again.
"""

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

import kp
from kp.config import ENCODERS, RunSettings, complete
from kp.evaluation.results import fingerprint
from kp.evaluation.scorecard import scorecard
from kp.experiments.variants import TEST_TIME, refined, unchanged
from kp.models.checkpoint import load_checkpoint, load_detector, read_metadata, revision
from kp.models.detector import describes
from kp.support.flags import Parser, add_flags, from_args, given
from kp.support.settings import from_dict
from kp.training.choices import check, check_given, has_effect
from kp.training.run_folder import CHECKPOINT_FILE, WEIGHTS_FILE, claimed
from kp.training.trainer import Trainer, resume
from kp.training.validation import Real, Validation

_MOBILE = (  # an encoder with the scales of the shipped weights
    *("--encoder", "mobilenet_v3_small"),
    *("--derivative-sigmas", "0.7", "1.4", "2.8", "--window-sigmas", "1.5", "2", "4"),
)
_FIRST = (*_MOBILE, "--darkness", "0", "--temperature", "0.1")  # the recipe that most of its changes were tried on
_CHANGES: dict[str, tuple[str, ...]] = {  # of the first recipe, one each
    "labels only": ("--localization-weight", "0", "--repeatability-weight", "0"),
    "no corner labels": ("--corner-weight", "0"),
    "no localization loss": ("--localization-weight", "0"),
    "localization weight 0.1": ("--localization-weight", "0.1"),
    "no repeatability loss": ("--repeatability-weight", "0"),
    "kernels not symmetric": ("--no-symmetric",),
    "grey itself, not contrast": ("--no-normalised",),
    "stride 16": ("--stride", "16"),
    "classic shapes only": ("--families", "classic"),
    "no light": ("--photometric", "0"),
    "light and view change together": ("--illumination-only", "0", "--viewpoint-only", "0"),
    "rotation 180": ("--max-rotation", "180"),
    "rotation 0": ("--max-rotation", "0"),
    "temperature 0.3": ("--temperature", "0.3"),
    "temperature 0.6": ("--temperature", "0.6"),
    "weights vary over 4 px": ("--mix-blur", "4"),
    "400 keypoints per megapixel": ("--keypoints-per-megapixel", "400"),
    "2500 keypoints per megapixel": ("--keypoints-per-megapixel", "2500"),
    "batch 16": ("--batch", "16"),
    "learning rate times 3": ("--lr", "3e-3"),
    "learning rate over 3": ("--lr", "3e-4"),
    "800 steps": ("--steps", "800"),
    "match radius 2": ("--match-radius", "2"),
    "match radius 3": ("--match-radius", "3"),
    "ema 0.9": ("--ema", "0.9"),
    **{name: ("--encoder", name) for name in ENCODERS if name not in _MOBILE},
}
_RANKER = ("--descriptor-size", "0")
VARIANTS: dict[str, tuple[str, ...]] = {  # flags of train_homographic.py that differ from its defaults
    "default": _RANKER,
    "one exposure": (*_RANKER, "--bracket-stops", "0"),
    "even light": (*_RANKER, "--scene-stops", "0"),
    "all views sharp": (*_RANKER, "--out-of-focus-share", "0", "--hard-jpeg-share", "0"),
    "all scenes moved": (*_RANKER, "--still", "0"),
    "twice the detail": (*_RANKER, "--detail", "2"),
    "325 keypoints of the ranker": (*_RANKER, "--keypoints-per-megapixel", "325"),
    "1300 keypoints of the ranker": (*_RANKER, "--keypoints-per-megapixel", "1300"),
    "ranker of width 16": (*_RANKER, "--ranker-width", "16"),
    "encoder": _MOBILE,
    "half of the dark spots": (*_MOBILE, "--darkness", "0.15"),
    "three times the dark spots": (*_MOBILE, "--darkness", "0.9"),
    "first recipe": _FIRST,
    **{name: (*_FIRST, *flags) for name, flags in _CHANGES.items()},
}
_DESCRIBER = ("--ranker-width", "0")
VARIANTS |= {  # of descriptors
    "descriptors": _DESCRIBER,
    **{
        f"descriptors, {name}": (*_DESCRIBER, *flags)
        for name, flags in {
            "classic shapes only": ("--families", "classic"),
            "planes only": ("--families", "planes"),
            "dead leaves only": ("--families", "leaves"),
            "noise only": ("--families", "noise"),
            "no light": ("--photometric", "0"),
            "light twice as strong": ("--photometric", "2"),
            "no day and night": ("--relit-pairs", "0"),
            "all day and night": ("--relit-pairs", "1"),
            "rotation 180": ("--max-rotation", "180"),
            "rotation 15": ("--max-rotation", "15"),
            "scale 1.3": ("--max-scale", "1.3"),
            "32 numbers": ("--descriptor-size", "32"),
            "64 numbers": ("--descriptor-size", "64"),
            "30 steps": ("--steps", "30"),
            "1 pair a step": ("--pairs", "1"),
        }.items()
    },
}
_NO_VALIDATION = 1e6  # minutes between validations, so that there is only the one at the end: runs of equal length
_FREE_SETTINGS = ("device", "validate_every", "save_every")  # with these changed, a run may go on


class Run(NamedTuple):
    """A training run of a variant."""

    variant: str
    settings: RunSettings
    folder: Path

    @property
    def seed(self) -> int:
        return self.settings.train.seed


def plan(names: Sequence[str], shared: Sequence[str], seeds: Sequence[int], out: Path) -> list[Run]:
    """The runs of variants, every variant's first seed first; ``shared`` are flags, --NAME=VALUE, of all that use them.

    Raises ValueError, in one line, on flags with which nothing can be trained.
    """
    runs = []
    for seed in dict.fromkeys(seeds):
        for name in names:
            detector = parse(name, VARIANTS[name]).detector
            of_it = [f for f in shared if has_effect(f.split("=")[0].strip("-").replace("-", "_"), detector)]
            settings = parse(name, [*of_it, "--seed", str(seed), *VARIANTS[name]])
            runs.append(Run(name, settings, out / f"{slug(name)}-{seed}"))
    return runs


def parse(name: str, flags: Sequence[str]) -> RunSettings:
    """The settings that train_homographic.py has with these flags. Raises ValueError, naming the variant."""
    parser = _Flags(name, allow_abbrev=False)
    for group in fields(RunSettings):
        add_flags(parser, group.type)
    settings = from_args(RunSettings, parser.parse_args(flags))
    try:
        check(settings)
        check_given(given(parser, flags), settings.detector)
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
    settings; InUseError where another process trains there.
    """
    with claimed(run.folder):
        return _train(run)


def _train(run: Run) -> Path:
    weights, checkpoint = run.folder / WEIGHTS_FILE, run.folder / CHECKPOINT_FILE
    settings = replace(run.settings, train=replace(run.settings.train, validate_every=_NO_VALIDATION))
    if not checkpoint.exists():
        Trainer(settings, run.folder).run()
        return weights
    state = load_checkpoint(checkpoint)
    recorded = from_dict(RunSettings, state["settings"])
    same = {name: getattr(run.settings.train, name) for name in _FREE_SETTINGS}
    if replace(recorded, train=replace(recorded.train, **same)) != complete(run.settings):
        raise ValueError(f"{run.folder} holds a run with other settings: choose another --out, or remove it")
    trainer = resume(state, settings, run.folder)
    if trainer.progress < 1 or not weights.exists() or read_metadata(weights).get("step") != trainer.learner.step:
        trainer.run()
    return weights


def measure(name: str, weights: Path, device: torch.device | str = "cpu", real: Real | None = None) -> dict[str, float]:
    """The scorecard of weights, used as the variant of this name says; and how much above the floor it is on ``real``.

    Of a detector with an encoder, the maps are not thinned. Of one with descriptors, what these match.
    """
    change, detector = TEST_TIME.get(name, unchanged), load_detector(weights, device)
    if detector.settings.encoder != "none":
        detector.settings = replace(detector.settings, thinning=0.0)
    used = change(detector)
    if describes(used):
        scores = Validation(torch.device(device), parts=("describer",)).measure(used)
    else:
        scores = scorecard(used, subpixel=change is refined, device=device)
    return scores | real.measure(used) if real else scores


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
        "image_size": world.get("image_size"),
        "weights": fingerprint(weights),
        "kp": kp.__version__,
        "revision": revision(),
    }
