"""The training loop: endless synthetic views, the loss, validation with the real metric, checkpoints.

A run lives in one folder: ``checkpoint.pt`` to go on from, ``weights.safetensors`` (averaged weights, for use),
``log.jsonl`` and TensorBoard's event files. Under torchrun all ranks train, and rank 0 validates and writes.
"""

import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from torch import Tensor

from kp.config import RunSettings, complete
from kp.data.pairs import ViewPair
from kp.data.photograph_scenes import PhotographScenes
from kp.data.view_groups import ViewGroup
from kp.models.checkpoint import revision, save_checkpoint, save_weights
from kp.support.errors import explained, one_line
from kp.support.process import Interruption
from kp.support.settings import to_dict
from kp.training import distributed
from kp.training.choices import check
from kp.training.initial import InitialWeights
from kp.training.learner import Learner, TrainingError
from kp.training.logger import Logger, forget_later_steps
from kp.training.run_folder import CHECKPOINT_FILE, WEIGHTS_FILE, claimed
from kp.training.validation import Validation, better

__all__ = ["Trainer", "TrainingError", "learning_rate", "resume"]

_ABOVE = "above_floor_"  # begins the names of such scores


def learning_rate(step: int, progress: float, peak: float, warmup: int, decay: float) -> float:
    """The rate of step 0, 1, ...: a linear rise in steps, a plateau, and a linear fall over the last share of the run.

    Before the fall it depends on the step only, so two runs with a limit in minutes begin alike.
    """
    return peak * min(1, (step + 1) / max(warmup, 1)) * min(1, (1 - progress) / decay if decay > 0 else 1)


class Trainer:
    """One run: its learner, clock and files. ``run`` trains until the steps or minutes are over.

    Args:
        fresh: False where a state is loaded afterwards; then no pretrained weights are downloaded.
        validation: folder of real sequences; the weights that score best there are kept, without it the last ones.
        initial: weights to begin with; ``settings`` must have their detector.
        photographs: of which the scenes are made; None: they are drawn.
    """

    def __init__(
        self,
        settings: RunSettings,
        folder: Path,
        fresh: bool = True,
        validation: Path | None = None,
        initial: InitialWeights | None = None,
        photographs: PhotographScenes | None = None,
    ) -> None:
        check(settings)
        self.settings, self.folder, self.validation = complete(settings), folder, validation
        revision()  # read now, and cached: files may change during the training
        self.learner = Learner(self.settings, fresh and initial is None, photographs)
        if initial is not None:
            self.learner.begin_with(initial.tensors)
        self.photographs = photographs
        self.init = initial.record if initial else None  # what weights say they began from
        self.began, self.seconds = time.perf_counter(), 0.0
        self.validation_seconds: float | None = None  # expected, of the last validation
        self.scores: dict[str, float] = {}
        self.kept: dict[str, float] = {}  # step and scores of the weights that are: none before the first validation
        self.logger: Logger | None = None  # of the rank that writes, while it runs
        self.interruption, self.interrupted = Interruption(), False  # this rank, any rank

    def run(self) -> dict[str, float]:
        """Train to the end; returns the last validation's scores, on rank 0.

        Ctrl-C (or SIGTERM) lets the step end, saves, and raises KeyboardInterrupt. Raises TrainingError on a loss that
        is not finite, and OSError where a file cannot be written; the last checkpoint stays as it was. An error of one
        rank is raised by all.
        """
        with ExitStack() as held:
            distributed.alone(lambda: held.enter_context(claimed(self.folder)))
            return self._run()

    def _run(self) -> dict[str, float]:
        validation = distributed.alone(lambda: self._make_validation())
        self.logger = distributed.alone(lambda: Logger(self.folder, self.learner.step))
        if self.validation_seconds is None and self.settings.train.minutes is not None:
            duration = distributed.alone(lambda: validation.duration(self.learner.average.module.eval()))
            self.validation_seconds = distributed.gather(duration or 0.0)[0]
        saved = validated = self.seconds
        every = self.settings.train
        self.began = time.perf_counter() - self.seconds
        with self.logger or nullcontext(), self.interruption:
            while self.progress < 1:
                before = self.seconds
                terms = self.take_step()
                self._show(terms, self.learner.images_per_step * distributed.ranks() / (self.seconds - before))
                if self.interrupted:
                    self.save()
                    raise KeyboardInterrupt
                if self.seconds - validated > 60 * every.validate_every:
                    self.validate(validation)
                    saved = validated = self.seconds
                elif self.seconds - saved > 60 * every.save_every:
                    self.save()
                    saved = self.seconds
            self.validate(validation)
        return self.scores

    def _make_validation(self) -> Validation:
        return Validation(self.learner.device, root=self.validation, parts=tuple(self.learner.parts))

    @property
    def progress(self) -> float:
        """The share of the run that is over, by steps if they are set, else by the clock.

        By the clock the last validation is part of the run.
        """
        train = self.settings.train
        if train.steps is not None:
            return self.learner.step / train.steps
        return self.seconds / max(60 * train.minutes - (self.validation_seconds or 0.0), 1.0)

    def take_step(self) -> dict[str, float]:
        """One batch of each rank, one update; returns the terms of the loss, means over the ranks.

        The ranks exchange their reports between the forward and the backward pass, so an error of one rank is raised
        by all. The clock of rank 0 counts for all ranks. Raises TrainingError on a term that is not finite.
        """
        train, losses = self.settings.train, []
        lr = learning_rate(self.learner.step, self.progress, train.lr, train.warmup, train.decay)
        batches = distributed.agreed(self._draw)

        def look() -> _RankReport:
            loss, terms = self.learner.look(batches)
            losses.append(loss)
            return _RankReport(terms, self._clock(), self.interruption.asked)

        reports = distributed.each(look)
        self.seconds, self.interrupted = reports[0].seconds, any(report.stop_requested for report in reports)
        self._update(losses[0], lr)
        return {name: fmean(report.terms[name] for report in reports) for name in reports[0].terms}

    def _update(self, loss: Tensor, lr: float) -> None:
        """One update. Its ranks wait for each other's gradients, so they cannot tell each other of an error."""
        try:
            self.learner.update(loss, lr)
        except Exception as error:
            if distributed.ranks() == 1:
                raise
            text = explained(error) or f"{type(error).__name__}: {one_line(error)}"
            raise distributed.RankError(f"rank {distributed.rank()}, step {self.learner.step + 1}: {text}") from error

    def validate(self, validation: Validation | None) -> None:
        """Measure the averaged weights, show them, keep them unless others are better, and write a checkpoint."""
        self.scores = distributed.alone(lambda: self._measure(validation)) or {}
        if keep := better(self.scores, self.kept):
            self.kept = self.scores | {"step": self.learner.step}
        self.save(keep)
        self.seconds = distributed.gather(self._clock())[0]

    def summary(self) -> list[str]:
        """What to say at the end of the run: which weights are kept and, where they were validated, by how much."""
        lines = [f"kept: the weights of step {self.kept.get('step')} of {self.learner.step}"]
        above = {name.removeprefix(_ABOVE): value for name, value in self.kept.items() if name.startswith(_ABOVE)}
        earlier = None if "mma" in self.kept else self.kept.get("validation")  # versions that named it only so
        for what, score, names in (
            ("repeatability", self.kept.get("real_repeatability", earlier), ("i", "v", "all")),
            ("matching accuracy within 3 px", self.kept.get("mma"), ("mma_i", "mma_v", "mma")),
        ):
            if score is not None:
                parts = ", ".join(f"{n.removeprefix('mma_')} {above[n]:+.3f}" for n in names if n in above)
                lines.append(f"{what} on the validation {score:.3f}; above the floor: {parts}")
        return lines

    def save(self, keep: bool = False) -> None:
        """Write a checkpoint, and the averaged weights to ``keep`` them or while no validation has kept any."""
        state = self.state_dict()
        distributed.alone(lambda: self._write(state, keep or not self.kept))

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to take the very next step."""
        own = {"settings": to_dict(self.settings), "seconds": self.seconds, "scores": self.scores, "kept": self.kept}
        own["init"] = self.init
        if self.photographs is not None:
            own["images"] = {"folder": str(self.photographs.folder)} | self.photographs.record()
        return own | self.learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave. Raises TrainingError where the network is another."""
        self.learner.load_state_dict(state)
        self.seconds, self.scores, self.kept = state["seconds"], state["scores"], state.get("kept", {})
        self.init = state.get("init")

    def _clock(self) -> float:
        """Seconds of this run so far, those before it was resumed included."""
        return time.perf_counter() - self.began

    def _draw(self) -> list[ViewPair | ViewGroup]:
        if self.logger is not None:
            self.logger.check()
        return self.learner.draw()

    def _show(self, terms: dict[str, float], rate: float) -> None:
        if self.logger is not None:
            lr = self.learner.optimiser.param_groups[0]["lr"]
            self.logger.add_step(self.learner.step, self.seconds, terms, rate, lr, self.progress)

    def _measure(self, validation: Validation) -> dict[str, float]:
        detector = self.learner.average.module.eval()
        scores = validation.measure(detector)
        self.logger.add_validation(self.learner.step, self.seconds, scores, validation.picture(detector))
        return scores

    def _write(self, state: dict[str, Any], weights: bool) -> None:
        """Write the weights first, so that a checkpoint never names weights that are not there."""
        if weights:
            origin = {"init": self.init, "images": self.photographs and self.photographs.record()}
            save_weights(
                self.folder / WEIGHTS_FILE,
                self.learner.average.module,
                to_dict(self.settings),
                step=self.learner.step,
                seconds=round(self.seconds, 1),
                scores=self.scores,
                **{name: fact for name, fact in origin.items() if fact},
            )
        save_checkpoint(self.folder / CHECKPOINT_FILE, state)


class _RankReport(NamedTuple):
    """What each rank reports in every step: loss terms by name, seconds of the run, whether it was asked to stop."""

    terms: dict[str, float]
    seconds: float
    stop_requested: bool


def resume(
    state: dict[str, Any],
    settings: RunSettings,
    folder: Path,
    validation: Path | None = None,
    photographs: PhotographScenes | None = None,
) -> Trainer:
    """The trainer of a run's checkpoint, to go on with these settings in this folder.

    Raises:
        TrainingError: the network is another.
        ValueError: the run was trained on photographs, and these are others.
    """
    began, now = state.get("images"), photographs and photographs.record()
    if began and {**began, **(now or {"sha256": None})}["sha256"] != began["sha256"]:
        raise ValueError(f"the run began on other photographs than those of --images now: restore {began['name']}")
    if now and not began:
        raise ValueError("--images: the run began on drawn scenes: leave it out, or begin a new run with --init")
    trainer = Trainer(settings, folder, fresh=False, validation=validation, photographs=photographs)
    trainer.load_state_dict(state)
    if not (folder / WEIGHTS_FILE).exists():
        trainer.kept = {}
    distributed.alone(lambda: forget_later_steps(folder, trainer.learner.step))
    return trainer
