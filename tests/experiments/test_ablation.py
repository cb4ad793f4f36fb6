"""A grid of runs: each trained once, scored once, kept in one file; what is wrong is said in one line, at the start."""

import json
import re
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from forked import CONTEXT, Forked

from kp import config
from kp.cli import weights
from kp.cli.main import main
from kp.config import DESCRIBED, DetectorSettings, RunSettings
from kp.evaluation import ablation_results
from kp.experiments import ablation
from kp.experiments.ablation import VARIANTS, parse, plan, slug
from kp.experiments.variants import TEST_TIME, applies
from kp.models.checkpoint import find_weights, load_checkpoint, load_detector, save_weights
from kp.models.detector import thin
from kp.models.mobile import MobileDetector
from kp.support.settings import to_dict
from kp.training import trainer as trainer_module
from kp.training.run_folder import claimed
from kp.training.trainer import Trainer, TrainingError
from kp.training.validation import Validation

TINY = ["--steps", "2", "--batch", "1", "--image-size", "32", "--device", "cpu"]


@pytest.fixture
def scored(monkeypatch):
    """What was scored: (weights file, subpixel), instead of the half minute that it takes; and a small validation."""
    calls = []

    def scorecard(scores, subpixel, device):
        calls.append((scores, subpixel))
        return {"i_75": 0.5 + len(calls) / 100, "rotation_0": 0.8, "rotation_45": 0.6}

    monkeypatch.setattr(ablation, "scorecard", scorecard)
    monkeypatch.setattr(trainer_module, "Validation", partial(Validation, batches=1, batch=4, size=(48, 64), files=()))
    return calls


@pytest.fixture
def ablate(tmp_path, scored):
    def run(*arguments, code=0):
        command = ["ablate", *arguments, "--out", str(tmp_path / "runs"), "--json", str(tmp_path / "out" / "a.json")]
        assert main(command) == code
        path = tmp_path / "out" / "a.json"
        return json.loads(path.read_text())["entries"] if path.exists() else []

    return run


def test_every_variant_can_be_trained_and_is_another_run():
    runs = plan(list(VARIANTS), ["--steps=5", "--batch=3"], [0, 3], ablation.Path("runs"))
    assert len({run.folder for run in runs}) == len(runs) == 2 * len(VARIANTS)
    assert [run.seed for run in runs] == [0] * len(VARIANTS) + [3] * len(VARIANTS)
    assert all(run.settings.train.steps == 5 for run in runs if "--steps" not in VARIANTS[run.variant])
    settings = {json.dumps(to_dict(run.settings)) for run in runs}
    assert len(settings) == len(runs), "two variants are the same"
    batches = {run.variant: run.settings.train.batch for run in runs if "--batch" not in VARIANTS[run.variant]}
    assert {batches["default"], batches["encoder"]} == {3}
    assert batches["descriptors"] is None, "a describer has no batch"
    encoders = {run.settings.detector.encoder for run in runs}
    assert encoders == {"none", *config.ENCODERS}


def test_flags_mean_what_they_mean_in_training():
    settings = parse("x", ["--steps", "7", "--families", "classic", "leaves=2", "--views", "3", "--lr", "0.1"])
    assert (settings.train.steps, settings.train.lr, settings.world.views) == (7, 0.1, 3)
    assert settings.world.families == ("classic", "leaves=2")
    assert parse("x", []) == RunSettings()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--strid", "16"], "unrecognized arguments"),
        (["--stride", "7"], "invalid choice"),
        (["--ema", "2"], "--ema must be"),
        (["--width", "16"], "--width has no effect on a ranker"),
        (["--families", "cats"], "cats"),
        (["--match-radius"], "expected one argument"),
    ],
)
def test_a_wrong_flag_is_told_before_anything_is_trained(monkeypatch, ablate, scored, tmp_path, capsys, flags, message):
    monkeypatch.setitem(VARIANTS, "wrong", tuple(flags))
    assert ablate("default", "wrong", *TINY, code=1) == []
    error = capsys.readouterr().err
    assert "variant 'wrong'" in error
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_grid_is_trained_scored_and_kept(ablate, scored, tmp_path, capsys):
    entries = ablate("labels only", "ema 0.9", "--seeds", "0", "1", *TINY)
    assert [(e["variant"], e["seed"]) for e in entries] == [
        ("labels only", 0),
        ("ema 0.9", 0),
        ("labels only", 1),
        ("ema 0.9", 1),
    ]
    first = entries[0]
    assert first["flags"] == [*VARIANTS["first recipe"], "--localization-weight", "0", "--repeatability-weight", "0"]
    assert (first["steps"], first["batch"], first["image_size"]) == (2, 1, 32)
    assert first["seconds"] > 0
    assert first["scores"] == {"i_75": 0.51, "rotation_0": 0.8, "rotation_45": 0.6}
    assert first["kp"]
    assert first["revision"] is None or re.match(r"[0-9a-f]{7,}", first["revision"])
    out = capsys.readouterr().out
    assert "Training: 2 steps, 1 pairs a step, 32 pixels a side." in out
    lines = {line.split("  ")[0]: line for line in out.splitlines() if line.startswith(("labels only  ", "ema 0.9  "))}
    assert "0.520±0.010" in lines["labels only"]
    assert "0.530±0.010" in lines["ema 0.9"]
    assert len(lines["labels only"]) == len(lines["ema 0.9"])
    assert load_checkpoint(tmp_path / "runs" / "ema-0.9-1" / "checkpoint.pt")["settings"]["train"]["ema"] == 0.9


def test_what_is_done_is_not_done_again(ablate, scored, monkeypatch, tmp_path):
    before = ablate("default", *TINY)
    steps = []
    real = Trainer.take_step
    monkeypatch.setattr(Trainer, "take_step", lambda self: steps.append(self.learner.step) or real(self))
    assert ablate("default", *TINY) == before
    assert (len(scored), steps) == (1, [])
    again = ablate("default", "--rescore", *TINY)
    assert [e["scores"]["i_75"] for e in again] == [0.52]
    (tmp_path / "out" / "a.json").unlink()
    assert len(ablate("default", *TINY)) == 1  # scored again, not trained
    assert (len(scored), steps) == (3, [])
    assert len(ablate("default", "ema 0.9", *TINY)) == 2  # beside what was there
    assert (len(scored), steps) == (4, [0, 1])


def test_ctrl_c_loses_nothing(ablate, scored, monkeypatch, tmp_path, capsys):
    straight = ablate("ema 0.9", "--steps", "4", *TINY[2:])
    weights = (tmp_path / "runs" / "ema-0.9-0" / "checkpoint.pt", tmp_path / "straight.pt")
    weights[0].rename(weights[1])
    real = Trainer.take_step

    def interrupted(self):
        terms = real(self)
        self.interrupted = self.learner.step == 3
        return terms

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", interrupted)
        assert ablate("ema 0.9", "default", "--steps", "4", *TINY[2:], code=130) == straight
    assert "interrupted: the same command goes on" in capsys.readouterr().err
    assert load_checkpoint(weights[0])["step"] == 3
    assert len(scored) == 1
    entries = ablate("ema 0.9", "default", "--steps", "4", *TINY[2:])
    assert [(e["variant"], e["steps"]) for e in entries] == [("ema 0.9", 4), ("default", 4)]
    average, expected = (load_checkpoint(path)["average"] for path in weights)
    for name, value in expected.items():
        assert torch.equal(average[name], value), name


def test_other_settings_need_another_folder(ablate, capsys):
    ablate("default", *TINY)
    ablate("default", "--steps", "3", *TINY[2:], code=1)
    error = capsys.readouterr().err.splitlines()[-1]
    assert "default-0 holds a run with other settings" in error


def test_a_run_that_fails_does_not_stop_the_others(ablate, monkeypatch, capsys):
    real = Trainer.take_step

    def poisoned(self):
        if self.settings.train.ema == 0.9:
            raise TrainingError("step 1: the ranking loss is nan")
        return real(self)

    monkeypatch.setattr(Trainer, "take_step", poisoned)
    entries = ablate("ema 0.9", "default", *TINY, code=1)
    assert [e["variant"] for e in entries] == ["default"]
    error = capsys.readouterr().err
    assert "ema 0.9, seed 0: step 1: the ranking loss is nan" in error
    assert "1 of the runs failed: ema 0.9 0" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cats"], "no variant is called cats"),
        (["default", "--steps", "0"], "--steps must be at least 1"),
        (["default", "--seeds", "-1"], "--seed must be at least 0"),
        (["default", "--device", "cuda:99"], "no device cuda:99"),
        (["sub-pixel", "--weights", "nowhere"], "no weights at nowhere"),
        (["--table", "nowhere.json"], "holds no scores"),
        (["default", "--batch", "99999999"], "--batch must be at least 1 and at most 4096"),
        (["default", "--image-size", "8"], "--image-size must be at least 32"),
        (["default", "--validation", "nowhere"], "nowhere does not exist"),
    ],
)
def test_bad_input_is_one_line(ablate, tmp_path, capsys, arguments, message):
    assert ablate(*arguments, code=1) == []
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "content",
    [
        "half a {",
        "[]",
        "{}",
        '{"entries": 3}',
        '{"entries": [{"variant": "default"}]}',
        '{"entries": [{"variant": "a", "seed": 0, "weights": {}, "scores": {"i_75": "much"}}]}',
    ],
)
@pytest.mark.parametrize("command", ["--table", "--json"])
def test_a_damaged_file_is_one_line_and_is_kept(tmp_path, capsys, scored, content, command):
    path = tmp_path / "a.json"
    path.write_text(content)
    assert main(["ablate", "default", command, str(path), "--out", str(tmp_path / "runs"), *TINY]) == 1
    error = capsys.readouterr().err
    assert "a.json" in error
    assert error.count("\n") == 1
    assert path.read_text() == content
    assert not (tmp_path / "runs").exists()


def test_the_list_says_what_each_variant_changes(capsys):
    assert main(["ablate", "--list"]) == 0
    out = capsys.readouterr().out
    for name in (*VARIANTS, *TEST_TIME):
        assert f"\n{name} " in f"\n{out}" or f"\n{name}\n" in f"\n{out}"
    assert "--max-rotation 180" in out


def test_markdown_of_a_file(tmp_path, capsys):
    for seed, value in enumerate((0.25, 0.75)):
        scores = {"i_75": value, "rotation_0": 0.8, "rotation_45": 0.4, "shift": 0.125}
        entry = {"seed": seed, "weights": {}, "steps": 300, "batch": 8, "image_size": 160, "scores": scores}
        ablation_results.put(tmp_path / "a.json", entry | {"variant": "a", "flags": ["--ema", "0.9"]})
        ablation_results.put(tmp_path / "a.json", entry | {"variant": "b", "seed": 0, "flags": None, "steps": 9})
    assert main(["ablate", "--table", str(tmp_path / "a.json")]) == 0
    title, _, head, rule, a, b = capsys.readouterr().out.splitlines()
    assert title == "Training: 300 steps, 8 pairs a step, 160 pixels a side."
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, a, b)]
    assert rule.count("---") == len(cells[0]) == len(cells[1]) == len(cells[2])
    a, b = (dict(zip(cells[0], line, strict=True)) for line in cells[1:])
    assert (a["variant"], a["seeds"], a["i_75"]) == ("a", "2", "0.500±0.250")
    assert (a["rotation_45/rotation_0"], a["v_75"]) == ("0.500±0.000", "-")
    assert (b["variant"], b["seeds"], b["i_75"], b["shift"]) == ("b", "1", "0.750", "0.125")


# --- without training ---


def test_test_time_variants_change_how_weights_are_used(ablate, scored, tmp_path):
    weights = tmp_path / "w.safetensors"
    save_weights(
        weights,
        MobileDetector(),
        to_dict(RunSettings(detector=DetectorSettings(encoder="mobilenet_v3_small"))),
        step=7,
    )
    given = "--weights", str(weights)
    of_maps = [name for name in TEST_TIME if not applies(name, True) or name == "given weights"]
    entries = ablate(*of_maps, *given)
    assert [e["variant"] for e in entries] == list(of_maps)
    assert all(e["flags"] is None and e["steps"] == 7 for e in entries)
    assert len({e["weights"]["sha256"] for e in entries}) == 1
    assert [subpixel for _, subpixel in scored] == [name == "sub-pixel" for name in of_maps]
    assert not (tmp_path / "runs").exists()
    assert len(ablate("four sizes", *given)) == len(of_maps)
    assert len(scored) == len(of_maps)


def test_only_the_variant_that_says_so_is_thinned(monkeypatch):
    torch.manual_seed(0)
    image, maps = torch.rand(1, 1, 33, 47), {}
    monkeypatch.setattr(ablation, "scorecard", lambda scores, subpixel, device: scores)
    with torch.no_grad():
        for name in ("given weights", "thinned", "encoder"):
            maps[name] = ablation.measure(name, find_weights("mobilenet_v3_small"))(image)
    assert torch.equal(maps["given weights"], maps["encoder"])
    assert torch.equal(maps["thinned"], thin(maps["encoder"], 10.0))


def test_names_become_folders():
    assert slug("ema 0.9") == "ema-0.9"
    assert slug("No, really: A/B") == "no-really-a-b"
    assert weights.RESULTS.parts[0] == "runs"  # not among what is committed: the report's table is written on purpose


def test_a_validation_that_does_not_fit_comes_after_what_is_wrong_with_the_runs(ablate, monkeypatch, capsys):
    """Measuring the floor takes minutes: it must not come first."""
    monkeypatch.setattr(weights, "Real", lambda *_: pytest.fail("the floor was measured"))
    monkeypatch.setattr(weights.hpatches, "read", lambda root: [])
    assert ablate("default", "--steps", "0", "--validation", "somewhere", code=1) == []
    assert ablate("sub-pixel", "--weights", "nowhere", "--validation", "somewhere", code=1) == []
    assert "no weights at nowhere" in capsys.readouterr().err


def test_an_out_that_is_a_file_is_told_before_anything_is_trained(tmp_path, scored, capsys):
    (tmp_path / "file").write_text("")
    assert main(["ablate", "default", "--out", str(tmp_path / "file"), "--json", str(tmp_path / "a.json"), *TINY]) == 1
    assert "cannot be written" in capsys.readouterr().err


def _claim():
    """Hold the folder of a run, and write a file once it is held."""
    with claimed(Path(sys.argv[1])):
        Path(sys.argv[2]).write_text("held")
        time.sleep(1000)


def test_a_run_of_another_process_does_not_stop_the_others(ablate, tmp_path, capsys):
    with Forked(_claim, tmp_path / "runs" / "ema-0.9-0", tmp_path / "held") as other:
        other.wait_for(tmp_path / "held")
        assert [e["variant"] for e in ablate("ema 0.9", "default", *TINY, code=1)] == ["default"]
        assert "ema 0.9, seed 0: another process trains in" in capsys.readouterr().err
    assert len(ablate("ema 0.9", "default", *TINY)) == 2


def _put_many(path, first, barrier):
    barrier.wait(120)
    for seed in range(first, first + 25):
        facts = {"weights": {}, "scores": {}, "flags": None, "steps": 1, "batch": 1, "image_size": 32}
        ablation_results.put(path, facts | {"variant": "a", "seed": seed})


def test_two_processes_that_write_one_file_lose_no_entry(tmp_path):
    path, barrier = tmp_path / "a.json", CONTEXT.Barrier(2)
    writers = [CONTEXT.Process(target=_put_many, args=(path, 25 * n, barrier)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    assert sorted(entry["seed"] for entry in ablation_results.read(path)) == list(range(50))


def test_descriptors_are_scored_by_what_they_match(ablate, monkeypatch, capsys):
    monkeypatch.setattr(ablation, "Validation", partial(Validation, batches=1, batch=1, size=(96, 128), files=()))
    [entry] = ablate("descriptors", *TINY[:4], "--image-size", "96")
    assert set(entry["scores"]) == {"synthetic_mma", "synthetic_right_matches", "synthetic_homography_auc"}
    [_, entry] = ablate("histograms alone", "--weights", DESCRIBED)
    assert entry["flags"] is None
    assert entry["scores"]["synthetic_mma"] > 0
    detector = load_detector(DESCRIBED)
    assert TEST_TIME["no tilts"](detector).describer.tilts() is None
    assert TEST_TIME["histograms alone"](detector).describer.tilts() is None
    assert detector.describer.tilts() is not None
    capsys.readouterr()
    assert ablate("histograms alone", code=1)
    assert "which has no descriptors" in capsys.readouterr().err
    assert ablate("thinned", "--weights", DESCRIBED, code=1)
    assert "which has descriptors" in capsys.readouterr().err


def test_the_table_has_the_scores_of_descriptors_where_there_are_some(tmp_path, capsys):
    entry = {"seed": 0, "weights": {}, "flags": [], "scores": {"mma": 0.5, "right_matches": 100.0}}
    entry |= {"steps": 9, "batch": 8, "image_size": 96}
    ablation_results.put(tmp_path / "a.json", entry | {"variant": "a"})
    assert main(["ablate", "--table", str(tmp_path / "a.json")]) == 0
    head = capsys.readouterr().out.splitlines()[2]
    assert "right_matches" in head
    assert "i_75" not in head
