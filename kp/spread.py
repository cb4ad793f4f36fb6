"""The same work on one item after the other: in this process, in several, or in the ranks that torchrun started."""

import pickle
import signal
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Series
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import TypeVar

import torch
from tqdm import tqdm

from kp import ranks
from kp.process import Interruption, deaf_to_interrupts, keep_freed_memory, progress_interval

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Item], Result]


def spread(
    make: Callable[[], Work], items: Series[Item], workers: int = 1, name: Callable[[Item], str] = str, unit: str = "it"
) -> Iterator[Result]:
    """Yield ``make()(item)`` for every item, in order, whoever did it; draws a progress bar with names on stderr.

    With more ``workers`` than one, so many processes each make their own work and share the items: what goes to them
    and comes back must be picklable; raises ChildProcessError where one of them is killed. Under torchrun the ranks
    share them instead, and all of them get every result, at the end; a ValueError or OSError that a rank met, or
    Ctrl-C, is raised after what was done has been yielded.
    """
    style = {"unit": unit, "leave": False, "mininterval": progress_interval(), "dynamic_ncols": True}
    with tqdm(total=len(items), disable=ranks.rank() > 0, **style) as bar:

        def step(item: Item, count: int = 1) -> None:
            bar.set_postfix_str(name(item), refresh=False)
            bar.update(count)

        if ranks.ranks() > 1:
            yield from _over_ranks(make(), items, step)
            return
        results = map(make(), items) if workers == 1 else _over_processes(make, items, workers)
        for item, result in zip(items, results, strict=True):
            step(item)
            yield result


def _over_processes(make: Callable[[], Work], items: Series[Item], workers: int) -> Iterator[Result]:
    packed = pickle.dumps((make, items))  # once: torch's own way would hold a file open for every tensor sent
    pool = ProcessPoolExecutor(min(workers, len(items)), get_context("spawn"), _begin, (packed,))
    others = active_children()
    try:
        with deaf_to_interrupts():
            results = pool.map(_work, range(len(items)))  # starts the workers
        yield from results
    except BrokenProcessPool:
        raise ChildProcessError("a worker was killed, perhaps for want of memory: take fewer --workers") from None
    except BaseException:
        for worker in active_children():
            if worker not in others:
                worker.terminate()  # what it is doing is not waited for
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(packed: bytes) -> None:
    """What a worker process does first: it has one core, and its own copy of the work and of all items."""
    global _work_here, _items
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    torch.set_num_threads(1)
    make, _items = pickle.loads(packed)
    _work_here = make()


def _work(index: int) -> Result:
    return _work_here(_items[index])


def _over_ranks(work: Work, items: Series[Item], step: Callable[[Item, int], None]) -> Iterator[Result]:
    """Each rank does every n-th item; then all have all. Ctrl-C, which reaches every rank, lets each end its item."""
    done, stop = {}, None
    with Interruption() as interruption:
        for index in range(ranks.rank(), len(items), ranks.ranks()):
            try:
                done[index] = work(items[index])
            except (ValueError, OSError) as error:
                stop = error
            if interruption.asked:
                stop = KeyboardInterrupt()
            if stop is not None:
                break
            step(items[index], min(ranks.ranks(), len(items) - index))
        try:
            outcomes = ranks.gather((done, stop))
        except ChildProcessError:
            outcomes = [(done, stop or ChildProcessError("another rank was lost: these are not all numbers"))]
    together = {index: result for theirs, _ in outcomes for index, result in theirs.items()}
    for index in sorted(together):
        yield together[index]
    for _, stop in outcomes:
        if stop is not None:
            raise stop
