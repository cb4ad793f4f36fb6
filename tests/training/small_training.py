"""train_homographic.py with a small validation; the rank in POISONED has a loss that is not finite.

The ranker of the rank in UNRANKED raises an error before its describer looks at anything.

Where FULL is draw or update, the memory of rank 1 runs out there, in its third step.
"""

import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

import train_homographic
from kp.training import learner, ranker_step, score_map_step
from kp.training import trainer as trainer_module
from kp.training.validation import Validation


class Full(learner.Learner):
    """Has memory for two steps."""

    def look(self, batch):
        if self.step == 2 and os.environ["FULL"] == "draw":
            raise MemoryError
        return super().look(batch)

    def update(self, loss, lr):
        if self.step == 2 and os.environ["FULL"] == "update":
            torch.empty(1 << 46, dtype=torch.uint8)
        super().update(loss, lr)


def _no_shares(*_):
    raise ValueError("no shares")


def main():
    """The exit code of the command, in a process that does nothing else afterwards."""
    trainer_module.Validation = partial(Validation, batches=1, batch=4, size=(48, 64), files=())
    if os.environ.get("POISONED", "none") == os.environ.get("RANK"):
        real, nan = score_map_step.repeatability_losses, torch.tensor(float("nan"))
        score_map_step.repeatability_losses = lambda *a, **k: real(*a, **k) | {"localization": nan}
    if os.environ.get("UNRANKED", "none") == os.environ.get("RANK"):
        ranker_step.repeated_shares = _no_shares
    if "FULL" in os.environ and os.environ.get("RANK", "1") == "1":
        trainer_module.Learner = Full
    return train_homographic.main()


if __name__ == "__main__":
    sys.exit(main())
