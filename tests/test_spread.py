"""Work that processes share: the same results in the same order, whoever did it; torchrun's ranks among them."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from test_evaluate_cli import SCRIPT, write_root

from kp import ranks
from kp.spread import spread


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
    results = list(spread(make_square, [5, 3, 9, 0], workers))
    assert [square for square, _ in results] == [25, 9, 81, 0]
    here = {pid == os.getpid() for _, pid in results}
    assert here == {workers == 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_done_before_an_error_is_kept(workers):
    results = spread(make_square, [1, 2, 7, 3], workers)
    assert [next(results)[0], next(results)[0]] == [1, 4]
    with pytest.raises(ValueError, match="seven"):
        next(results)


def test_a_worker_that_is_killed_is_one_error_that_keeps_what_was_done():
    results = spread(make_square, [1, 13], 2)
    with pytest.raises(OSError, match="fewer --workers"):
        list(results)


def test_no_file_stays_open_for_the_tensors_that_workers_are_sent():
    items = [torch.zeros(10) for _ in range(200)]
    before = len(os.listdir("/proc/self/fd"))
    results = spread(make_sum, items, 2)
    assert next(results) == 0
    assert len(os.listdir("/proc/self/fd")) < before + 50
    assert len(list(results)) == 199


@pytest.mark.parametrize("leftover", [{}, {"RANK": "1"}, {"RANK": "", "WORLD_SIZE": ""}])
def test_a_process_of_its_own_is_rank_0_of_1(monkeypatch, leftover):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in leftover.items():
        monkeypatch.setenv(name, value)
    assert (ranks.rank(), ranks.ranks(), ranks.gather("a"), ranks.first(lambda: "b")) == (0, 1, ["a"], "b")


def evaluate_with_ranks(count, *args, cwd):
    """A run of evaluate.py under torchrun; ``cwd`` is away from the repository."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.run(
        [*launcher, str(SCRIPT), *map(str, args)], capture_output=True, text=True, timeout=300, cwd=cwd
    )


def test_ranks_of_torchrun_give_the_numbers_of_one_process(tmp_path):
    root = write_root(tmp_path / "root", ("i_a", "v_b", "v_c"))
    flags = ["--hpatches", root, "--detectors", "harris", "random", "--json"]
    alone = subprocess.run([sys.executable, SCRIPT, *flags, tmp_path / "1.json"], capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    done = evaluate_with_ranks(2, *flags, tmp_path / "2.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("1.json", "2.json"))
    assert first["pairs"] == second["pairs"]
    assert len(second["pairs"]) == 2 * 3 * 2
    assert done.stdout.count("detector") == alone.stdout.count("detector"), "only one rank prints"


def test_an_error_in_one_rank_keeps_what_the_others_did(tmp_path):
    root = write_root(tmp_path / "root", ("i_a", "v_b", "v_c"))
    (root / "v_b" / "2.ppm").write_bytes(b"P6 broken")  # the second sequence: rank 1's only one
    flags = ["--hpatches", root, "--detectors", "harris", "--json", tmp_path / "table.json"]
    done = evaluate_with_ranks(2, *flags, cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("evaluate.py: error: ") == 1
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["complete"] is False
    assert {record["sequence"] for record in content["pairs"]} == {"i_a", "v_c"}


def test_what_is_wrong_for_all_ranks_is_said_once(tmp_path):
    root = write_root(tmp_path / "root", ("i_a",))
    for flags, message in ((["--workers", 2], "leave out --workers"), (["--weights", tmp_path / "none"], "none")):
        done = evaluate_with_ranks(2, "--hpatches", root, *flags, cwd=tmp_path)
        assert done.returncode != 0
        assert [message in line for line in done.stderr.splitlines() if line.startswith("evaluate.py: error")] == [True]
        assert 'evaluate.py", line' not in done.stderr, "a traceback of ours"
