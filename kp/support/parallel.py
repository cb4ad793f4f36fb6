"""The same work on many items, in this process or in a pool of processes."""

import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import TypeVar

import torch
from tqdm import tqdm

from kp.support.device import keep_freed_memory
from kp.support.process import ignore_interrupts, progress_interval

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Item], Result]


def map_items(
    make: Callable[[], Work],
    items: Sequence[Item],
    workers: int = 1,
    name: Callable[[Item], str] = str,
    unit: str = "it",
) -> Iterator[Result]:
    """Yield ``make()(item)`` for every item, in the order of the items, with a progress bar on stderr.

    With ``workers`` > 1, that many processes share the items. Each process calls ``make`` once. ``make``, the items and
    the results must then be picklable.

    Raises:
        ChildProcessError: a worker process was killed.
    """
    style = {"unit": unit, "leave": False, "mininterval": progress_interval(), "dynamic_ncols": True}
    with tqdm(total=len(items), **style) as bar:
        results = map(make(), items) if workers == 1 else _over_processes(make, items, workers)
        for item, result in zip(items, results, strict=True):
            bar.set_postfix_str(name(item), refresh=False)
            bar.update()
            yield result


def _over_processes(make: Callable[[], Work], items: Sequence[Item], workers: int) -> Iterator[Result]:
    packed = pickle.dumps((make, items))  # as bytes: torch would hold one file open for every tensor it sends
    pool = ProcessPoolExecutor(min(workers, len(items)), get_context("spawn"), _begin, (packed,))
    others = active_children()
    try:
        with ignore_interrupts():
            results = pool.map(_work, range(len(items)))  # starts the workers
        yield from results
    except BrokenProcessPool:
        raise ChildProcessError("a worker was killed, perhaps for lack of memory: use fewer --workers") from None
    except BaseException:
        for worker in active_children():
            if worker not in others:
                worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(packed: bytes) -> None:
    """Prepare a worker process: one thread, and its own copy of the work and of all items."""
    global _work_here, _items
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    torch.set_num_threads(1)
    make, _items = pickle.loads(packed)
    _work_here = make()


def _work(index: int) -> Result:
    return _work_here(_items[index])
