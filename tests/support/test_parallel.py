"""Work shared by processes: the same results in the same order, from any process."""

import os
import signal

import pytest
import torch

from kp.support.parallel import map_items

# Starting two workers takes seconds (each imports torch), so one pool shows several properties.


def square(item):
    """The square of an item and the process that computed it; some items end badly."""
    if isinstance(item, torch.Tensor):
        return item.square(), os.getpid()
    if item == 7:
        raise ValueError("seven is not accepted")
    if item == 13:
        os.kill(os.getpid(), signal.SIGKILL)  # what the system does when memory runs out
    return item**2, os.getpid()


def make_square():
    return square


def test_one_process_works_in_order_and_keeps_results_before_an_error():
    results = map_items(make_square, [5, 3, 7, 0])
    assert [next(results), next(results)] == [(25, os.getpid()), (9, os.getpid())]
    with pytest.raises(ValueError, match="seven"):
        next(results)


def test_processes_work_in_order_and_keep_results_before_an_error():
    tensors = [torch.tensor(float(i)) for i in range(200)]
    before = len(os.listdir("/proc/self/fd"))
    results = map_items(make_square, [*tensors, 5, 3, 7, 0], 2)
    assert next(results)[0] == 0
    assert len(os.listdir("/proc/self/fd")) < before + 50, "a file stays open for each tensor"
    found = [next(results) for _ in range(201)]
    assert [float(value) for value, _ in found] == [float(i**2) for i in range(1, 200)] + [25, 9]
    assert os.getpid() not in {pid for _, pid in found}
    with pytest.raises(ValueError, match="seven"):
        next(results)


def test_a_killed_worker_is_one_error():
    with pytest.raises(ChildProcessError, match="fewer --workers"):
        list(map_items(make_square, [13], 2))  # one item starts one process
