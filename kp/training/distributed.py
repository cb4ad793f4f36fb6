"""The processes (ranks) that ``torchrun`` starts to train together. A process without torchrun is rank 0 of 1."""

import importlib
import io
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from kp.support.errors import one_line

T = TypeVar("T")

_ADVICE = "start with torchrun, or unset WORLD_SIZE"
_TIMEOUT = timedelta(hours=12)  # one rank may download or measure for a long time before it meets the others


class RankError(Exception):
    """An error of one rank that the others do not know of: they wait for it, and torchrun has to end them."""


def rank() -> int:
    """The number of this process, from 0. Raises ValueError where torchrun's variables are nonsense."""
    return _variable("RANK", 0, 0, ranks() - 1) if ranks() > 1 else 0


def ranks() -> int:
    """How many processes there are. Raises ValueError where torchrun's variables are nonsense."""
    return _variable("WORLD_SIZE", 1, 1, 1_000_000)


def _variable(name: str, default: int, low: int, high: int) -> int:
    """A whole number among the environment variables that torchrun sets. Raises ValueError on anything else."""
    text = os.environ.get(name) or str(default)
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise ValueError(f"{name} is {text!r}, not a whole number from {low} to {high}: {_ADVICE}")
    return value


def join() -> None:
    """Start the process group, once. Where there are GPUs, each rank takes the GPU of its number.

    Raises:
        ValueError: torchrun's variables are nonsense, or the processes do not find each other.
    """
    if ranks() == 1 or distributed.is_initialized():
        return
    rank(), _variable("MASTER_PORT", 29500, 0, 65535)
    local = _variable("LOCAL_RANK", 0, 0, 1_000_000)
    importlib.import_module("torch._dynamo")  # imported later, as torchvision does, it would keep the group's threads
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        distributed.init_process_group(backend, timeout=_TIMEOUT)
    except (ValueError, RuntimeError) as error:  # torch's DistNetworkError is a RuntimeError
        raise ValueError(f"WORLD_SIZE is set, but {one_line(error)}: {_ADVICE}") from error


@contextmanager
def together() -> Iterator[None]:
    """Start the process group; inside the ``with`` block only rank 0 prints. At its end all ranks wait for each other.

    torchrun stops every rank as soon as one has failed; what another rank was writing would then be lost. An exception
    that leaves the block does not wait for the other ranks, and its own rank prints it; a RankError as one line.
    """
    try:
        join()
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    try:
        out, err = (sys.stdout, sys.stderr) if rank() == 0 else (io.StringIO(), io.StringIO())
        with redirect_stdout(out), redirect_stderr(err):
            yield
    except RankError as error:
        raise SystemExit(f"error: {error}") from None
    with suppress(ChildProcessError):  # a rank that was lost
        gather(None)
    if distributed.is_initialized():
        _leave()


def _leave() -> None:
    """End the process group and the threads of gloo, without waiting for the other ranks.

    Such a thread frees the tensors of a collective a little after the collective is over, and takes Python's lock for
    that. If the interpreter is already ending then, the process aborts (SIGABRT).
    """
    gloo = distributed.group.WORLD._get_backend(torch.device("cpu"))
    distributed.destroy_process_group()
    del gloo  # last, as it gives the lock away while it waits for its threads: torch 2.6's group would keep it, forever


def each(action: Callable[[], T]) -> list[T]:
    """Run ``action`` on every rank; returns the results by rank (picklable). An error of any rank is raised by all."""
    value = error = None
    try:
        value = action()
    except Exception as raised:  # of any class: the other ranks must not wait for this one
        error = raised if ranks() == 1 else _portable(raised)
    outcomes = gather((value, error))
    for _, raised in outcomes:
        if raised is not None:
            raise error or raised  # its own error has its traceback
    return [value for value, _ in outcomes]


def _portable(error: Exception) -> Exception:
    """The error itself, or one of its text where it cannot be sent to the other ranks."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {one_line(error)}")
    return error


def agreed(action: Callable[[], T]) -> T:
    """Run ``action`` on every rank; returns the result of this rank. An error of any rank is raised by all."""
    value = []
    each(lambda: value.append(action()))
    return value[0]


def alone(action: Callable[[], T]) -> T | None:
    """Run ``action`` on rank 0 only; returns its result there, None elsewhere. An error is raised by all ranks."""
    return agreed(lambda: action() if rank() == 0 else None)


def first(action: Callable[[], T]) -> T:
    """Run ``action`` on rank 0, then on the others; returns the result of this rank. An error is raised by all."""
    value = alone(action)
    return agreed(lambda: value if rank() == 0 else action())


def gather(value: T) -> list[T]:
    """The values of all ranks, by rank: the same list on each rank. They must be picklable.

    Raises:
        ChildProcessError: a rank was lost.
    """
    if ranks() == 1:
        return [value]
    values: list[T] = [value] * ranks()
    try:
        distributed.all_gather_object(values, value)
    except RuntimeError as error:
        raise ChildProcessError("another rank was lost") from error
    return values
