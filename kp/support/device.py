"""The device to compute on, and a memory setting for CPUs."""

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` is CUDA, else MPS, else the CPU. Raises ValueError if it does not exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:  # torch raises any of several classes, ImportError among them
        raise ValueError(f"no device {name} here: choose another with --device") from error
    return device


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """A context without autocast. Where there is none it does nothing, because torch would export its body twice."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@cache
def keep_freed_memory() -> None:
    """Make glibc keep freed memory for later allocations, in the whole process, from now on.

    On a CPU, new pages from the operating system take more time than the arithmetic of a training step.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            allocator = ctypes.CDLL("libc.so.6")
            allocator.mallopt(_M_MMAP_MAX, 0)
            allocator.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
