"""The processes that ``torchrun`` started, which do one piece of work together; a process of its own is rank 0 of 1."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")

_PATIENCE = timedelta(hours=12)  # one rank may download or measure for long before it meets the others


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def ranks() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def join() -> None:
    """Meet the other ranks, the first time it is called; where there are GPUs, each takes the one of its number."""
    if ranks() == 1 or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)


@contextmanager
def together() -> Iterator[None]:
    """Meet the other ranks, and part from them at the end; meanwhile only rank 0 prints."""
    join()
    with redirect_stdout(sys.stdout if rank() == 0 else io.StringIO()):
        try:
            yield
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()


def first(action: Callable[[], T]) -> T:
    """What an action gives, done by rank 0 before any other rank does it."""
    if rank() > 0:
        gather(None)
    value = action()
    if rank() == 0:
        gather(None)
    return value


def gather(value: T) -> list[T]:
    """The values that all ranks give, by rank: the same list for each of them. They must be picklable."""
    if ranks() == 1:
        return [value]
    values: list[T] = [value] * ranks()
    distributed.all_gather_object(values, value)
    return values
