"""Work that processes share: the same results in the same order, whoever did it; torchrun's ranks among them."""

import os
import signal

import pytest
import torch

from kp.support.parallel import map_items


def square_or_complain(item):
    if item == 7:
        raise ValueError("seven is not liked")
    if item == 13:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out
    return item**2, os.getpid()


def make_sum():
    return torch.sum


def make_square():
    return square_or_complain


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_from_as_many_processes_as_asked(workers):
    results = list(map_items(make_square, [5, 3, 9, 0], workers))
    assert [square for square, _ in results] == [25, 9, 81, 0]
    here = {pid == os.getpid() for _, pid in results}
    assert here == {workers == 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_done_before_an_error_is_kept(workers):
    results = map_items(make_square, [1, 2, 7, 3], workers)
    assert [next(results)[0], next(results)[0]] == [1, 4]
    with pytest.raises(ValueError, match="seven"):
        next(results)


def test_a_worker_that_is_killed_is_one_error_that_keeps_what_was_done():
    results = map_items(make_square, [1, 13], 2)
    with pytest.raises(OSError, match="fewer --workers"):
        list(results)


def test_no_file_stays_open_for_the_tensors_that_workers_are_sent():
    items = [torch.zeros(10) for _ in range(200)]
    before = len(os.listdir("/proc/self/fd"))
    results = map_items(make_sum, items, 2)
    assert next(results) == 0
    assert len(os.listdir("/proc/self/fd")) < before + 50
    assert len(list(results)) == 199
