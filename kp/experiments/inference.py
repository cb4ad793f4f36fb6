"""What it costs to find the best 1000 keypoints of an image: time beside other detectors, and peak memory.

Each detector first finds the keypoints of one image in a process of its own, which gives its peak memory and says
whether it can be measured at all. Then all detectors take turns in one process, so that a busy machine slows all of
them; the median time and its ratio to XFeat's ``detectAndCompute`` count.

These rules alone leave a detector out or give it fewer images: ``MEMORY``, ``PATIENCE`` and ``TURNS``.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import cv2
import torch
from torch import Tensor

from kp.data import photographs
from kp.data.hpatches import read_image
from kp.experiments.timed_detectors import ONNX, REFERENCE, Timed, detectors, export
from kp.geometry.coords import Size, resize
from kp.support.device import keep_freed_memory
from kp.support.errors import is_out_of_memory, one_line
from kp.support.process import peak_memory

__all__ = ["MEMORY", "PATIENCE", "REFERENCE", "REPEATS", "TURNS", "Cost", "measure"]

MEMORY = 8 * 2**30  # bytes: a detector whose process asks for more is left out
PATIENCE = 300  # seconds: a detector that takes longer to start, to compile and to see one image is left out
TURNS = 60  # seconds: a detector sees as many images as fit into them, by the time of its first one, but at least 1
REPEATS = 15
_FILE = "brick.png"  # of the built-in photographs: textured all over, so that every detector has 1000 keypoints
_STATUS = Path("/proc/self/status")


class Cost(NamedTuple):
    """The cost of a detector for an image of ``size`` (H, W), or the reason why it was ``skipped``.

    ``milliseconds`` is the median of ``repeats`` images. ``bytes_per_pixel`` is the peak memory; None where it is not
    known: without ``/proc``, and for what is compiled, because the compiler has taken more before.
    """

    name: str
    size: Size
    threads: int
    milliseconds: float | None = None
    repeats: int = 0
    bytes_per_pixel: float | None = None
    descriptors: bool = False
    skipped: str = ""


class _First(NamedTuple):
    """The first image: seconds, and the bytes by which it raised the peak memory of the process."""

    seconds: float
    memory: int | None


def measure(
    sizes: Iterable[Size], threads: Iterable[int], repeats: int = REPEATS, names: Collection[str] | None = None
) -> Iterator[list[Cost]]:
    """The costs of the detectors, a list for each size (H, W) and number of threads of torch, OpenCV and onnxruntime.

    Args:
        repeats: images for each detector, the first not counted.
        names: of the detectors; None: all.
    """
    counts = list(threads)
    with TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "detector.onnx"
        found = {name: one for name, one in detectors(onnx_file).items() if names is None or name in names}
        failed = _export(onnx_file) if ONNX in found else {}
        for size in sizes:
            for count in counts:
                yield _costs(found, failed, size, count, repeats)


def _export(onnx_file: Path) -> dict[str, str]:
    """Write the file for onnxruntime; the reason where it cannot be written."""
    try:
        export(onnx_file)
    except Exception as error:
        return {ONNX: one_line(error)}
    return {}


def _costs(found: Mapping[str, Timed], failed: Mapping[str, str], size: Size, threads: int, repeats: int) -> list[Cost]:
    """The costs of an image of one size with one number of threads."""
    firsts = {name: failed.get(name) or _alone(PATIENCE, threads, _first, size, one) for name, one in found.items()}
    turns = {n: _turns(first.seconds, repeats) for n, first in firsts.items() if isinstance(first, _First)}
    times = _alone(None, threads, _take_turns, size, {name: found[name] for name in turns}, turns) if turns else {}
    costs = []
    for name, one in found.items():
        first, cost = firsts[name], Cost(name, size, threads, descriptors=one.descriptors)
        values = first if isinstance(first, str) else times if isinstance(times, str) else times[name]
        if isinstance(values, str):
            costs.append(cost._replace(skipped=values))
            continue
        counted = values[1:] or values
        memory = None if first.memory is None else first.memory / (size[0] * size[1])
        costs.append(cost._replace(milliseconds=median(counted), repeats=len(counted), bytes_per_pixel=memory))
    return costs


def _turns(seconds: float, repeats: int) -> int:
    """How many images a detector sees that takes so long for one; of several, the first does not count."""
    return max(1, min(repeats + 1, int(TURNS / seconds)))


def _image(size: Size) -> Tensor:
    return resize(read_image(photographs.folder() / _FILE), size).clamp(0, 1).contiguous()


def _first(size: Size, one: Timed) -> _First:
    """One image, after another that loads what is needed: a small one, or one of its size for what is compiled."""
    _limit_memory()
    find, image = one.make(), _image(size)
    find(image if one.compiled else image[..., :64, :64].contiguous())
    known = _STATUS.exists() and not one.compiled
    before, began = peak_memory() if known else 0, time.perf_counter()
    find(image)
    seconds = time.perf_counter() - began
    return _First(seconds, peak_memory() - before if known else None)


def _limit_memory() -> None:
    """Let allocations beyond MEMORY fail in this process. Only Linux counts what a process really writes to."""
    if _STATUS.exists():
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def _take_turns(size: Size, found: Mapping[str, Timed], turns: Mapping[str, int]) -> dict[str, list[float] | str]:
    """The milliseconds of each image by detector, or the reason why it failed."""
    image, made = _image(size), {name: one.make() for name, one in found.items()}
    times: dict[str, Any] = {name: [] for name in made}
    for turn in range(max(turns.values())):
        for name in [name for name in made if turn < turns[name] and not isinstance(times[name], str)]:
            began = time.perf_counter()
            try:
                made[name](image)
                times[name].append(1e3 * (time.perf_counter() - began))
            except Exception as error:
                times[name] = _reason(error)
    return times


def _alone(patience: float | None, threads: int, work: Callable, *values: object) -> Any:
    """What ``work`` returns in a process of its own, or, as text, the reason why it returns nothing."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, threads, work, values))
    process.start()
    sender.close()
    try:
        if receiver.poll(patience):
            return receiver.recv()
        process.kill()
        return f"no result within {patience} seconds"
    except EOFError:
        process.join()
        return f"its process ended with exit code {process.exitcode}"
    finally:
        process.join(10)  # torch's compiler cleans up after itself
        process.kill()
        process.join()


def _send(sender: Connection, threads: int, work: Callable, values: tuple) -> None:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    keep_freed_memory()
    try:
        with torch.inference_mode():
            result = work(*values)
    except Exception as error:
        result = _reason(error)
    with suppress(BrokenPipeError):
        sender.send(result)


def _reason(error: Exception) -> str:
    return f"it needs more than {MEMORY / 2**30:g} GiB" if is_out_of_memory(error) else one_line(error)
