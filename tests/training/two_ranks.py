"""What torchrun runs for test_distributed_training.py: steps of two ranks, whose outcomes go to files in a folder."""

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from kp.config import DetectorSettings, RunSettings, complete
from kp.models.checkpoint import load_checkpoint
from kp.training import distributed
from kp.training.trainer import Trainer, resume

_D = RunSettings(detector=DetectorSettings(encoder="mobilenet_v3_small"))
SETTINGS = complete(
    replace(
        _D,
        world=replace(_D.world, image_size=48),
        train=replace(_D.train, batch=2, steps=6, device="cpu", warmup=0, clip=1e9),
    )
)


def main(folder: Path) -> None:
    trainer = Trainer(SETTINGS, folder)
    terms = [trainer.take_step()]
    weights = {name: value.clone() for name, value in trainer.learner.model.named_parameters()}
    gradients = {name: value.grad.clone() for name, value in trainer.learner.model.named_parameters()}
    torch.save((weights, gradients), folder / f"step{distributed.rank()}.pt")
    terms += [trainer.take_step() for _ in range(3)]
    broken = Trainer(SETTINGS, folder)
    again = [broken.take_step() for _ in range(2)]
    broken.save()
    resumed = resume(load_checkpoint(folder / "checkpoint.pt"), SETTINGS, folder)
    again += [resumed.take_step() for _ in range(2)]
    same = all(
        torch.equal(a, b) for a, b in zip(*(t.learner.model.parameters() for t in (trainer, resumed)), strict=True)
    )
    (folder / f"terms{distributed.rank()}.json").write_text(
        json.dumps({"straight": terms, "resumed": again, "same": same})
    )


def threads() -> list[str]:
    """The names of this process's threads, as Linux tells them; none elsewhere."""
    return [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]


if __name__ == "__main__":
    with distributed.together():
        main(Path(sys.argv[1]))
        working = threads()
    names = {"working": working, "left": threads()}
    Path(sys.argv[1], f"threads{distributed.rank()}.json").write_text(json.dumps(names))
