"""The cost of 1000 keypoints: every detector is timed, failures are rows, wrong numbers are refused before any work."""

import json
import os
from functools import partial

import pytest
import torch
from forked import CONTEXT

from kp.cli.main import main
from kp.experiments import inference
from kp.experiments.inference import Cost
from kp.experiments.timed_detectors import COMPILED, ONNX, REFERENCE, Timed, detectors
from kp.models.checkpoint import SHIPPED

SIZE = (96, 128)


def test_every_detector_finds_keypoints(tmp_path):
    """But for those whose making takes a minute: onnxruntime has a test below, torch.compile takes longer still."""
    found, image = detectors(tmp_path), inference._image(SIZE)
    kornia, opencv = {"xfeat", "aliked", "aliked-t16", "disk", "keynet"}, {"harris", "fast", "orb", "sift"}
    whole = {"orb, detectAndCompute", "sift, detectAndCompute"}
    assert set(found) == {*kornia, *opencv, *whole, *SHIPPED, "corner", ONNX, COMPILED}
    assert {name for name, one in found.items() if one.descriptors} == kornia - {"keynet"} | whole | {"described"}
    with torch.inference_mode():
        for name in found.keys() - {ONNX, COMPILED}:
            assert found[name].make()(image) is not None
        for name in whole:
            points, values = found[name].make()(image)
            assert len(points) == len(values) > 20


def test_onnxruntime_runs_the_exported_file(onnx_file):
    find = detectors(onnx_file)[ONNX].make()
    keypoints, _, valid = find(inference._image(SIZE))
    assert valid.sum() > 20
    assert (keypoints[valid] < SIZE[::-1]).all()


@pytest.mark.skipif(not inference._STATUS.exists(), reason="only Linux limits memory")
def test_a_detector_that_fails_is_a_row_with_its_reason(monkeypatch):
    found = {
        "fast": detectors(inference.Path())["fast"],
        "broken": Timed(partial(int, "x")),
        "large": Timed(partial(torch.empty, inference.MEMORY, dtype=torch.uint8)),
        "dead": Timed(partial(os._exit, 3)),
    }
    monkeypatch.setattr(inference, "detectors", lambda file: found)
    monkeypatch.setattr(inference, "get_context", lambda method: CONTEXT)  # processes that start at once
    ((fast, broken, large, dead),) = inference.measure([SIZE], [1], repeats=2)
    assert fast.milliseconds > 0
    assert fast[:3] == ("fast", SIZE, 1)
    assert (fast.repeats, fast.skipped) == (2, "")
    assert fast.bytes_per_pixel >= 0
    assert broken.skipped.startswith("invalid literal")
    assert large.skipped == "it needs more than 8 GiB"
    assert dead.skipped == "its process ended with exit code 3"
    assert [cost.milliseconds for cost in (broken, large, dead)] == [None] * 3


def test_a_file_that_cannot_be_exported_is_a_row(monkeypatch):
    def fails(file):
        raise ValueError("exporting needs the package onnx")

    monkeypatch.setattr(inference, "export", fails)
    ((cost,),) = inference.measure([SIZE], [1], 1, [ONNX])
    assert cost == Cost(ONNX, SIZE, 1, skipped="exporting needs the package onnx")


def test_a_detector_that_fails_later_does_not_lose_the_others():
    calls = []

    def find(image):
        calls.append(image)
        if len(calls) == 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte")

    found = {"bad": Timed(lambda: find), "good": Timed(lambda: lambda image: None)}
    times = inference._take_turns(SIZE, found, {"bad": 3, "good": 4})
    assert times["bad"] == "it needs more than 8 GiB"
    assert len(times["good"]) == 4
    assert len(calls) == 2


@pytest.mark.parametrize(("seconds", "turns"), [(0.001, 16), (5.0, 12), (40.0, 1), (90.0, 1)])
def test_slow_detectors_see_fewer_images(seconds, turns):
    assert inference._turns(seconds, 15) == turns


def test_a_detector_that_takes_too_long_is_left_out():
    assert inference._alone(0, 1, inference._first, SIZE, None) == "no result within 0 seconds"


def test_the_command_prints_shares_of_the_reference_and_writes_them(monkeypatch, tmp_path, capsys):
    def measure(sizes, threads, repeats):
        assert (list(sizes), list(threads), repeats) == ([(96, 128), (64, 64)], [1], 3)
        yield [Cost(REFERENCE, SIZE, 1, 80.0, 3, 100.0, True), Cost("default", SIZE, 1, 20.0, 3, 12.5)]
        yield [Cost("disk", (64, 64), 1, skipped="no memory")]

    monkeypatch.setattr(inference, "measure", measure)
    out = tmp_path / "costs.json"
    command = "bench --inference --threads 1 --repeats 3 --size 96x128 64x64 --json"
    assert main([*command.split(), str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[0].split()) == "96x128, 1 thread ms of xfeat bytes a pixel images descriptors"
    assert lines[1].split() == ["default", "20.0", "0.25", "12", "3", "no"]
    assert lines[2].split() == ["xfeat", "80.0", "1.00", "100", "3", "yes"]
    assert lines[-2] == "disk skipped (64x64, 1 thread): no memory"
    costs = json.loads(out.read_text())["costs"]
    assert costs[1] == {
        **{"name": "default", "size": [96, 128], "threads": 1, "milliseconds": 20.0, "repeats": 3},
        **{"bytes_per_pixel": 12.5, "descriptors": False, "skipped": ""},
    }
    assert costs[2]["skipped"] == "no memory"


@pytest.mark.parametrize(
    "flags",
    ["--size 10x640", "--size 480 640", "--size 480x640x3", "--size 64x64 x", "--threads 0", "--repeats 0"],
)
def test_wrong_numbers_are_one_line(monkeypatch, capsys, flags):
    monkeypatch.setattr(inference, "measure", lambda *_: pytest.fail("work before the check"))
    assert main(["bench", "--inference", *flags.split()]) == 1
    err = capsys.readouterr().err
    assert flags.split()[0] in err
    assert len(err.splitlines()) == 1
