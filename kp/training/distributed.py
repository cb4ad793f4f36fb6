"""The processes that ``torchrun`` started, which do one piece of work together; a process of its own is rank 0 of 1."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")

_PATIENCE = timedelta(hours=12)  # one rank may download or measure for long before it meets the others


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK") or 0) if ranks() > 1 else 0


def ranks() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def join() -> None:
    """Meet the other ranks, the first time it is called; where there are GPUs, each takes the one of its number."""
    if ranks() == 1 or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        distributed.init_process_group(backend, timeout=_PATIENCE)
    except ValueError as error:
        raise SystemExit(f"error: WORLD_SIZE is set, but {error}: start with torchrun, or unset it") from None


@contextmanager
def together() -> Iterator[None]:
    """Meet the other ranks; meanwhile only rank 0 prints. At the end none leaves before all are done.

    torchrun stops every rank as soon as one has failed, and what another was writing would be lost. An exception that
    leaves here is printed by the rank that it comes from, whichever that is, and waits for nobody.
    """
    join()
    out, err = (sys.stdout, sys.stderr) if rank() == 0 else (io.StringIO(), io.StringIO())
    with redirect_stdout(out), redirect_stderr(err):
        yield
    with suppress(ChildProcessError):  # a rank that was lost
        gather(None)
    if distributed.is_initialized():
        _leave()


def _leave() -> None:
    """End the group here, gloo's threads too; no other rank is waited for.

    Such a thread lets go of a collective's tensors a little after the collective is over, and takes Python's lock for
    that. Without this, the interpreter may be ending by then, which aborts the process (SIGABRT).
    """
    gloo = distributed.group.WORLD._get_backend(torch.device("cpu"))
    distributed.destroy_process_group()
    del gloo  # last, as it gives the lock away while it waits for its threads: torch 2.6's group would keep it, forever


def each(action: Callable[[], T]) -> list[T]:
    """What an action gives on every rank, by rank: picklable. What it raises on any rank is raised by all of them."""
    value = error = None
    try:
        value = action()
    except (ValueError, OSError, RuntimeError) as raised:
        error = raised
    outcomes = gather((value, error))
    for _, raised in outcomes:
        if raised is not None:
            raise error or raised  # its own error has its traceback
    return [value for value, _ in outcomes]


def agreed(action: Callable[[], T]) -> T:
    """What an action gives here, which need not be picklable; what it raises on any rank is raised by all of them."""
    value = []
    each(lambda: value.append(action()))
    return value[0]


def alone(action: Callable[[], T]) -> T | None:
    """What an action gives, done by rank 0 alone, and None for the others; what it raises is raised by all."""
    return agreed(lambda: action() if rank() == 0 else None)


def first(action: Callable[[], T]) -> T:
    """What an action gives, done by rank 0 before any other rank does it; what it raises anywhere is raised by all."""
    value = alone(action)
    return agreed(lambda: value if rank() == 0 else action())


def gather(value: T) -> list[T]:
    """The values that all ranks give, by rank: the same list for each of them. They must be picklable.

    Raises ChildProcessError where a rank is there no more.
    """
    if ranks() == 1:
        return [value]
    values: list[T] = [value] * ranks()
    try:
        distributed.all_gather_object(values, value)
    except RuntimeError as error:
        raise ChildProcessError("another rank was lost") from error
    return values
