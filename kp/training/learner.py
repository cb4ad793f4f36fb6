"""A step of training: random views, the sum of the loss terms, one update. Under torchrun all ranks take it together.

Each rank draws its own pairs. DistributedDataParallel averages the gradients, so the weights stay equal. Each rank has
its own statistics of batch normalisation (SyncBatchNorm does not run on a CPU); those of rank 0 are saved.
"""

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kp.config import RunSettings, complete, parts
from kp.data.pairs import PrefetchedPairs, ViewPair
from kp.data.photograph_scenes import PhotographScenes
from kp.data.synthetic.render import render
from kp.data.view_groups import ViewGroup
from kp.models.build import make_detector
from kp.models.detector import Detector
from kp.support.device import choose_device, keep_freed_memory
from kp.support.errors import one_line
from kp.training import distributed
from kp.training.batches import DrawScenes, described_pairs, random_groups, random_pairs
from kp.training.describer_step import DescriberStep
from kp.training.ranker_step import RankerStep
from kp.training.score_map_step import ScoreMapStep

_RANK_SEED = 0x1E3779B97F4A7C15  # step between the seeds of two ranks, so large that two runs share no seed
_PART_SEED = 0x2545F4914F6CDD1D  # added to the seed for the pairs of the describer, which others do not depend on
_PREFETCHED_PIXELS = 256 * 160**2  # of one view of all pairs that a GPU draws at once: this takes a gibibyte


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says at which step and why."""


class Learner:
    """A network, the average of its weights, its optimiser and its views. ``step`` counts the updates so far.

    What is trained are its ``parts`` by name: a score map; or a ranker, a describer or both. Each part has views of its
    own, so none depends on whether another is trained beside it.

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
        scenes = photographs.render if photographs else partial(render, families=settings.world.families)
        self.parts = {name: self._part(name, scenes) for name in parts(settings.detector)}

    def _part(self, name: str, scenes: DrawScenes) -> "Part":
        """What is trained of the network under this name, see :func:`kp.config.parts`."""
        s, generator = self.settings, torch.Generator(self.device).manual_seed(self._seed(name))
        if name == "describer":
            steps = _prefetch_steps(self.device, s, s.world.pairs)
            pairs = described_pairs(s, generator, steps, scenes)
            return DescriberStep(s, pairs, self.model, self.average.module)
        steps = _prefetch_steps(self.device, s, s.train.batch)
        if name == "ranker":
            return RankerStep(s, random_groups(s, generator, steps, scenes), self.model, _shared(self.model.ranker))
        return ScoreMapStep(s, random_pairs(s, generator, steps, scenes), _shared(self.model), self.half)

    @property
    def images_per_step(self) -> int:
        """Views that this rank looks at in a step."""
        return sum(part.images_per_step for part in self.parts.values())

    def draw(self) -> list[ViewPair | ViewGroup]:
        """What each of the parts looks at in the next step."""
        return [next(part.pairs) for part in self.parts.values()]

    def look(self, batches: list[ViewPair | ViewGroup]) -> tuple[Tensor, dict[str, float]]:
        """The loss of this rank's views, and what is logged. Raises TrainingError on a term that is not finite."""
        try:
            found = [part.look(batch) for part, batch in zip(self.parts.values(), batches, strict=True)]
        except FloatingPointError as error:
            raise TrainingError(f"step {self.step + 1}: {error}; try a lower --lr") from error
        terms = {name: term for _, terms in found for name, term in terms.items()}
        values = dict(zip(terms, torch.stack([term.detach() for term in terms.values()]).tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingError(f"step {self.step + 1}: the {name} loss is {value}; try a lower --lr")
        return sum(loss for loss, _ in found), values

    def update(self, loss: Tensor, lr: float) -> None:
        """One step down the gradient of the loss, which is the mean of all ranks' losses."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        if loss.requires_grad:  # a describer alone has no loss
            self.optimiser.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.train.clip)
            self.scaler.step(self.optimiser)
            self.scaler.update()
        self.average.update_parameters(self.model)
        for part in self.parts.values():
            part.update()
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to take the very next step: of every rank, which must all ask."""
        states = distributed.gather(torch.get_rng_state())
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "torch": states,
            "parts": {name: _state(part) for name, part in self.parts.items()},
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
        states = state["torch"]
        states = [states] if isinstance(states, Tensor) else states  # of a version that knew no ranks
        if distributed.rank() < len(states):
            torch.set_rng_state(states[distributed.rank()])
        for name, part in self.parts.items():
            self._go_on(name, part, state["parts"][name] if "parts" in state else state)

    def _go_on(self, name: str, part: "Part", state: Mapping[str, Any]) -> None:
        """Continue this rank's views, or draw new ones where the rank or its device is new; and what the part knows."""
        rank, pairs = distributed.rank(), state["pairs"]
        pairs = [pairs] if isinstance(pairs, Tensor) else pairs
        if rank < len(pairs) and part.pairs.generator.get_state().shape == pairs[rank].shape:
            part.pairs.load_state(pairs[rank], state.get("used", [0] * len(pairs))[rank])
        else:
            fresh = torch.Generator(self.device).manual_seed(self._seed(name, self.step))
            part.pairs.load_state(fresh.get_state())
        part.load_state(state.get("seen", state.get("moments", [])))

    def _seed(self, name: str, step: int = 0) -> int:
        """The seed of what a part of this rank sees from a step on: for rank 0 that of the run, but for a describer."""
        own = _PART_SEED if name == "describer" else 0
        return (self.settings.train.seed + step + own + distributed.rank() * _RANK_SEED) % 2**63


class Part(Protocol):
    """A part of a network as a step trains it."""

    pairs: PrefetchedPairs
    images_per_step: int

    def look(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of what ``pairs`` gave, with a gradient where there is one, and what is logged, by name."""

    def update(self) -> None:
        """What follows from a step and has no gradient; all ranks must ask."""

    def state(self) -> list[Any]:
        """What the part knows on each rank, beside the weights; all ranks must ask."""

    def load_state(self, state: list[Any]) -> None:
        """Go on from what :meth:`state` gave; a rank that is new begins with nothing."""


def _state(part: Part) -> dict[str, list]:
    """The views of a part on every rank, and what it knows."""
    chance = distributed.gather(part.pairs.state())
    return {"pairs": [pairs for pairs, _ in chance], "used": [used for _, used in chance], "seen": part.state()}


def _shared(learnt: nn.Module) -> nn.Module:
    """A module whose gradients are means over the ranks."""
    # Without broadcast_buffers a forward pass waits for no other rank, so a rank can tell the others of an error. Only
    # in the second one they wait, as DDP arranges its buckets anew.
    return DistributedDataParallel(learnt, broadcast_buffers=False) if distributed.ranks() > 1 else learnt


def _averaging(memory: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """Exponential averages, over at most a third of the steps so far, so that the first weights are soon forgotten."""

    def update(averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        get_ema_multi_avg_fn(min(memory, ((1 + count) / (4 + count)).item()))(averages, values, count)

    return update


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


def _prefetch_steps(device: torch.device, settings: RunSettings, batch: int) -> int:
    """Steps whose views are drawn at once: a GPU takes as long for few pairs as for many, a CPU does not."""
    if settings.train.prefetch_steps or device.type == "cpu":
        return settings.train.prefetch_steps or 1
    return max(1, _PREFETCHED_PIXELS // (batch * settings.world.image_size**2))


def _half_precision(device: torch.device) -> torch.dtype | None:
    """What CUDA's automatic mixed precision computes in, bfloat16 where the card has it; None elsewhere."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
