"""What a long run asks of the operating system: a chance to save, to keep its memory, and who is looking."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def progress_interval() -> float:
    """Seconds between two pictures of a progress bar: a log file needs no moving one."""
    return 0.1 if sys.stderr.isatty() else 30.0


@contextmanager
def ignore_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile leave Ctrl-C, which reaches all of a terminal's, to this one."""
    if threading.current_thread() is not threading.main_thread():  # only that one may change signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Interruption:
    """While it lasts, Ctrl-C and SIGTERM only set ``asked``; a second Ctrl-C interrupts at once."""

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
        if self.asked and number == signal.SIGINT:  # a cluster may send SIGTERM twice: to torchrun, and to each rank
            raise KeyboardInterrupt
        self.asked = True
