"""The records of a run: a log with every step, TensorBoard's curves and pictures, a progress bar."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from kp.support.files import write_file

_LOG = "log.jsonl"
_SHOW_EVERY = 10  # steps between updates of the progress bar and TensorBoard; the log has every step


class Logger:
    """Writes the log, the curves and the progress bar of the run in ``folder``, which is made if needed.

    Args:
        step: the last step that was done before.

    Raises:
        OSError: a file cannot be written. ``add_step`` stores this error, and the next :meth:`check` raises it: only
            one rank writes, and in the middle of a step the other ranks would wait for it.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / _LOG
        self.writer = SummaryWriter(folder, purge_step=step + 1)
        self.bar = tqdm(
            total=100.0, desc="training", bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}, {postfix}"
        )
        self.write_error: OSError | None = None

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()
        self.bar.close()

    def add_step(
        self, step: int, seconds: float, terms: Mapping[str, float], rate: float, lr: float, progress: float
    ) -> None:
        """The terms of a step's loss, images a second, learning rate, and the share of the run that is over."""
        try:
            self._write(step, seconds, {"loss": terms, "images_per_second": round(rate, 1), "lr": lr})
            if step % _SHOW_EVERY == 0 or step <= 1:
                self._show(step, terms, rate, progress)
        except OSError as error:
            self.write_error = error

    def check(self) -> None:
        """Raises the OSError of an earlier step."""
        if self.write_error is not None:
            raise self.write_error

    def add_validation(self, step: int, seconds: float, scores: Mapping[str, float], picture: np.ndarray) -> None:
        """The scores of a validation by name, and a picture (H, W, 3) of some pairs."""
        self.check()
        self._write(step, seconds, {"validation": scores})
        for name, value in scores.items():
            self.writer.add_scalar(f"validation/{name}", value, step)
        self.writer.add_image("fixed pairs", picture, step, dataformats="HWC")
        text = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
        tqdm.write(f"step {step}, {seconds / 60:.1f} min, held-out pairs: {text}")

    def _write(self, step: int, seconds: float, entry: Mapping[str, Any]) -> None:
        with self.log.open("a") as log:
            log.write(json.dumps({"step": step, "seconds": round(seconds, 2)} | entry) + "\n")

    def _show(self, step: int, terms: Mapping[str, float], rate: float, progress: float) -> None:
        for name, value in terms.items():
            self.writer.add_scalar(f"loss/{name}", value, step)
        self.writer.add_scalar("images per second", rate, step)
        self.bar.n = round(100 * min(1, progress), 1)
        text = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
        self.bar.set_postfix_str(f"{text}, {rate:.0f} images/s")


def forget_later_steps(folder: Path, step: int) -> None:
    """Remove the steps after ``step`` from the log of a folder, and a line that was cut off."""
    log = folder / _LOG
    if not log.exists():
        return
    kept = []
    for line in log.read_text().splitlines(keepends=True):
        with suppress(json.JSONDecodeError):
            if json.loads(line)["step"] <= step:
                kept.append(line)
    write_file(log, "".join(kept).encode())
