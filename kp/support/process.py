"""Signals and progress bars of long runs."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def progress_interval() -> float:
    """Seconds between two updates of a progress bar: 0.1 on a terminal, 30 where stderr is a file."""
    return 0.1 if sys.stderr.isatty() else 30.0


def print_line(text: str) -> None:
    """Print at once. If the reader has gone, as with ``| head``, print nothing more: the files are still written."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def peak_memory() -> int:
    """The peak memory of this process in bytes, from ``/proc``. (``getrusage`` includes the memory of the parent.)"""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


@contextmanager
def ignore_interrupts() -> Iterator[None]:
    """Child processes that start inside this context ignore Ctrl-C.

    A terminal sends Ctrl-C to all of its processes. The parent handles it alone. Only the main thread can change
    signals; in another thread the context does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Interruption:
    """A context in which Ctrl-C and SIGTERM only set ``asked``. A second Ctrl-C raises KeyboardInterrupt."""

    asked = False

    def __enter__(self) -> "Interruption":
        self.asked = False
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: object) -> None:
        if self.asked and number == signal.SIGINT:  # a cluster may send SIGTERM twice: to torchrun, and to each process
            raise KeyboardInterrupt
        self.asked = True
