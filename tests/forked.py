"""Processes for tests that need one: forks of a process that has imported torch and kp, so that they start at once."""

import os
import signal
import sys
import time
from contextlib import suppress
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from tempfile import TemporaryDirectory

CONTEXT = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
CONTEXT.set_forkserver_preload(
    [
        "torch._dynamo",
        "torch.distributed.launcher.api",
        "torch.utils.tensorboard",
        "kp.cli.train",
        "kp.cli.evaluate",
        "kp.cli.use",
        "IPython.core.interactiveshell",
        "matplotlib.pyplot",
    ]
)
RANKS = 2


class Forked:
    """``function()`` as a command of these arguments and variables of the environment; it ends with the ``with`` block.

    What it is asked for is what subprocess.Popen would tell of it.
    """

    def __init__(self, function, *arguments, **variables):
        self._folder = TemporaryDirectory()
        files = [str(Path(self._folder.name, name)) for name in ("out", "err")]
        values = (function, [str(a) for a in arguments], variables | {"FORKED": self._folder.name}, *files)
        self._process = CONTEXT.Process(target=_run, args=values)
        self._process.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in [*self.ranks().values(), self._process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.join()
        self._folder.cleanup()

    @property
    def pid(self):
        return self._process.pid

    def ranks(self):
        """The process of each rank that :func:`torchrun` has started and that has begun, by its number."""
        return {int(path.suffix[1:]): int(path.read_text()) for path in Path(self._folder.name).glob("rank.*")}

    def poll(self):
        """The exit code, or None."""
        return self._process.exitcode

    def finish(self, seconds=200):
        """The exit code, standard output and standard error, once it has ended."""
        self._process.join(seconds)
        assert self.poll() is not None, f"it still runs after {seconds} seconds"
        return self.poll(), *(Path(self._folder.name, name).read_text() for name in ("out", "err"))

    def wait_for(self, path, seconds=200):
        """Until it has written a file."""
        until = time.monotonic() + seconds
        while not path.exists():
            assert self.poll() is None, f"it ended without {path.name}"
            assert time.monotonic() < until
            time.sleep(0.01)


def _run(function, arguments, variables, *files):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    for file, stream in zip(files, (1, 2), strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
    os.environ |= variables
    sys.argv = ["command", *arguments]
    sys.exit(function())


def unread(function):
    """``function()`` where the reader of its standard output has left."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    return function()


def torchrun(function):
    """Run ``function()`` in two ranks: torchrun's own agent, whose processes are forks in place of scripts."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    local = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": str(os.getpid())}
    config = LaunchConfig(1, 1, RANKS, start_method="fork", max_restarts=0, monitor_interval=0.1, **local)
    elastic_launch(config, _rank)(function)


def _rank(function):
    Path(os.environ["FORKED"], f"rank.{os.environ['RANK']}").write_text(str(os.getpid()))
    if code := function():
        sys.exit(code)
