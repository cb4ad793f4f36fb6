"""The cost of 1000 keypoints: every detector is timed, numbers are written, wrong sizes are refused."""

import json

from kp.cli.main import main
from kp.experiments import inference
from kp.experiments.inference import REFERENCE, Cost
from kp.models.checkpoint import SHIPPED


def test_every_detector_is_timed_and_takes_memory():
    times = inference._milliseconds((64, 96), 1)
    assert set(times) == {REFERENCE, "corner", "harris", "fast", "orb", "sift", *SHIPPED}
    assert min(times.values()) > 0
    assert inference._peak((256, 256), "corner") >= 0


def test_the_command_prints_shares_of_the_reference_and_writes_them(monkeypatch, tmp_path, capsys):
    costs = [Cost(REFERENCE, 1, 80.0, 100.0), Cost("default", 1, 20.0, 12.5)]
    monkeypatch.setattr(inference, "measure", lambda size, threads: costs if size == (96, 128) else [])
    out = tmp_path / "costs.json"
    assert main(["bench", "--inference", "--threads", "1", "--size", "96", "128", "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["1", "thread", "ms", "of", REFERENCE, "bytes", "a", "pixel"]
    assert lines[1].split() == ["default", "20.0", "0.25", "12"]
    assert json.loads(out.read_text())["costs"][1] == costs[1]._asdict()


def test_wrong_numbers_are_one_line(capsys):
    assert main(["bench", "--inference", "--size", "10", "640"]) == 1
    assert main(["bench", "--inference", "--threads", "0"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
