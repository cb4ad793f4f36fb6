"""A step of training: random pairs, the sum of the loss terms, one update. Under torchrun all ranks take it together.

Each rank draws its own pairs. DistributedDataParallel averages the gradients, so the weights stay equal. Each rank has
its own statistics of batch normalisation (SyncBatchNorm does not run on a CPU); those of rank 0 are saved.
"""

import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kp.config import RunSettings, complete, kind
from kp.data.pairs import ViewPair
from kp.data.photograph_scenes import PhotographScenes
from kp.data.synthetic.render import render
from kp.data.view_groups import ViewGroup
from kp.models.build import make_detector
from kp.models.detector import Detector
from kp.models.ranker import Ranker
from kp.support.device import choose_device, keep_freed_memory
from kp.support.errors import one_line
from kp.training import distributed
from kp.training.batches import described_pairs, random_groups, random_pairs
from kp.training.describer_step import DescriberStep
from kp.training.losses import corner_loss, repeatability_losses
from kp.training.ranker_step import RankerStep

_RANK_SEED = 0x1E3779B97F4A7C15  # step between the seeds of two ranks, so large that two runs share no seed
_PREFETCHED_PIXELS = 256 * 160**2  # of one view of all pairs that a GPU draws at once: this takes a gibibyte


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says at which step and why."""


def loss_terms(pair: ViewPair, scores0: Tensor, scores1: Tensor, **choices: float) -> dict[str, Tensor]:
    """Every term of the loss by name, the mean of its two directions; ``choices``: see repeatability_losses."""
    corner = corner_loss(scores0, pair.corners0, pair.corner_mask0, pair.valid0, pair.ignore0)
    forward = {"corner": corner} | repeatability_losses(pair, scores0, scores1, **choices)
    corner = corner_loss(scores1, pair.corners1, pair.corner_mask1, pair.valid1, pair.ignore1)
    backward = {"corner": corner} | repeatability_losses(pair.swap(), scores1, scores0, **choices)
    return {name: (forward[name] + backward[name]) / 2 for name in forward}


class Learner:
    """A network, the average of its weights, its optimiser and its pairs. ``step`` counts the updates so far.

    With ``fresh`` False a state is loaded afterwards, so no pretrained weights are downloaded. ``photographs`` take the
    place of drawn scenes.
    """

    def __init__(self, settings: RunSettings, fresh: bool = True, photographs: PhotographScenes | None = None) -> None:
        self.settings, self.step = complete(settings), 0
        settings = self.settings
        train = settings.train
        self.device = distributed.first(partial(_device, train.device))
        if self.device.type == "cpu":
            keep_freed_memory()
        self.model = distributed.first(partial(_network, settings, fresh)).to(
            self.device, memory_format=torch.channels_last
        )
        self.average = AveragedModel(self.model, multi_avg_fn=_averaging(train.ema), use_buffers=True)
        fused = self.device.type == "cuda"  # one kernel for all weights
        choices = {"lr": train.lr, "weight_decay": train.weight_decay, "fused": fused}
        self.optimiser = torch.optim.AdamW(self.model.parameters(), **choices)
        self.half = _half_precision(self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half == torch.float16)
        self.generator = torch.Generator(self.device).manual_seed(_seed(train.seed, distributed.rank()))
        steps = train.prefetch_steps or _prefetch_steps(self.device, settings)
        scenes = photographs.render if photographs else partial(render, families=settings.world.families)
        self.trained = kind(settings.detector)
        draw = {"ranker": random_groups, "describer": described_pairs}.get(self.trained, random_pairs)
        self.pairs = draw(settings, self.generator, steps, scenes)
        learnt = {"ranker": self.ranker, "describer": self.describer}.get(self.trained, self.model)
        # Without broadcast_buffers a forward pass waits for no other rank, so a rank can tell the others of an error.
        many = distributed.ranks() > 1 and any(p.requires_grad for p in learnt.parameters())
        self.shared = DistributedDataParallel(learnt, broadcast_buffers=False) if many else learnt
        self.apart: RankerStep | DescriberStep | None = None  # what learns from more than the pairs of a step
        if self.trained == "describer":
            self.apart = DescriberStep(settings, self.model, self.average.module)
        if self.trained == "ranker":
            self.apart = RankerStep(settings, self.model)

    @property
    def ranker(self) -> Ranker | None:
        """The part that is trained where there is no encoder."""
        return getattr(self.model, "ranker", None)

    @property
    def describer(self) -> nn.Module | None:
        """The part that is trained where keypoints are described."""
        return getattr(self.model, "describer", None)

    @property
    def images_per_step(self) -> int:
        """Views that this rank looks at in a step."""
        return self.settings.train.batch * (self.settings.world.views if self.trained == "ranker" else 2)

    def look(self, batch: ViewPair | ViewGroup) -> tuple[Tensor, dict[str, float]]:
        """The loss of this rank's views, and what is logged. Raises TrainingError on a term that is not finite."""
        loss, terms = self.apart.look(batch, self.shared, self.half) if self.apart else self._look_at_pairs(batch)
        values = dict(zip(terms, torch.stack([term.detach() for term in terms.values()]).tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingError(f"step {self.step + 1}: the {name} loss is {value}; try a lower --lr")
        return loss, values

    def _look_at_pairs(self, pair: ViewPair) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the loss terms of score maps, and the terms."""
        train = self.settings.train
        images = torch.cat([pair.image0, pair.image1]).to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            scores = self.shared(images)
        if not scores.isfinite().all():
            raise TrainingError(
                f"step {self.step + 1}: the scores, and so every loss, are not finite; try a lower --lr"
            )
        choices = {name: getattr(train, name) for name in ("keypoints_per_megapixel", "match_radius", "temperature")}
        terms = loss_terms(pair, *scores.chunk(2), **choices)
        return sum(getattr(train, f"{name}_weight") * term for name, term in terms.items()), terms

    def update(self, loss: Tensor, lr: float) -> None:
        """One step down the gradient of the loss, which is the mean of all ranks' losses."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        if loss.requires_grad:  # a describer without an encoder has been computed in look()
            self.optimiser.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.train.clip)
            self.scaler.step(self.optimiser)
            self.scaler.update()
        self.average.update_parameters(self.model)
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to take the very next step: of every rank, which must all ask."""
        chance = distributed.gather((*self.pairs.state(), torch.get_rng_state()))
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "pairs": [pairs for pairs, _, _ in chance],
            "used": [used for _, used, _ in chance],
            "torch": [state for _, _, state in chance],
            "seen": self.apart.state() if self.apart else [],
        }

    def begin_with(self, tensors: dict[str, Tensor]) -> None:
        """Take over a detector's weights, before the first step. Raises TrainingError where they do not fit."""
        try:
            self.model.load_state_dict(tensors)
            self.average.module.load_state_dict(tensors)
        except RuntimeError as error:
            raise TrainingError(f"the weights are of another network: {one_line(error)}") from error

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
        for group in self.optimiser.param_groups:  # the checkpoint's numbers, but for what a resumed run may change
            group["weight_decay"] = self.settings.train.weight_decay
        if state["scaler"]:  # empty where the run did not scale its gradients
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        pairs, states = ([s] if isinstance(s, Tensor) else s for s in (state["pairs"], state["torch"]))
        self._load_chance(pairs, state.get("used", [0] * len(pairs)), states)
        if self.apart:
            self.apart.load_state(state.get("seen", state.get("moments", [])))

    def _load_chance(self, pairs: list[Tensor], used: list[int], states: list[Tensor]) -> None:
        """Continue this rank's random numbers, or start new ones where the rank or its device is new."""
        rank = distributed.rank()
        if rank < len(states):
            torch.set_rng_state(states[rank])
        if rank < len(pairs) and self.generator.get_state().shape == pairs[rank].shape:
            self.pairs.load_state(pairs[rank], used[rank])
        else:
            fresh = torch.Generator(self.device).manual_seed(_seed(self.settings.train.seed + self.step, rank))
            self.pairs.load_state(fresh.get_state())


def _averaging(memory: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """Exponential averages, over at most a third of the steps so far, so that the first weights are soon forgotten."""

    def update(averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        get_ema_multi_avg_fn(min(memory, ((1 + count) / (4 + count)).item()))(averages, values, count)

    return update


def _seed(seed: int, rank: int) -> int:
    """The seed of the pairs of a rank: for rank 0 the seed itself."""
    return (seed + rank * _RANK_SEED) % 2**63


def _device(name: str) -> torch.device:
    """The device of this rank. Raises ValueError where it is none, or not for it alone."""
    device = choose_device(name)
    if distributed.ranks() > 1 and device.type not in ("cpu", "cuda"):
        raise ValueError(f"torchrun's ranks cannot meet on {device}: take --device cpu")
    if distributed.ranks() > 1 and device.type == "cuda":
        here, cards = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
        if device.index is not None or here > cards:
            raise ValueError(f"each of torchrun's {here} ranks takes a GPU of its own, of {cards}: not {name} for all")
    return device


def _network(settings: RunSettings, fresh: bool) -> Detector:
    torch.manual_seed(settings.train.seed)
    return make_detector(settings.detector, pretrained=settings.detector.pretrained and fresh).train()


def _prefetch_steps(device: torch.device, settings: RunSettings) -> int:
    """Steps whose pairs are drawn at once: a GPU takes as long for few pairs as for many, a CPU does not."""
    return (
        1
        if device.type == "cpu"
        else max(1, _PREFETCHED_PIXELS // (settings.train.batch * settings.world.image_size**2))
    )


def _half_precision(device: torch.device) -> torch.dtype | None:
    """What CUDA's automatic mixed precision computes in, bfloat16 where the card has it; None elsewhere."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
