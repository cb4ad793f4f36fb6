"""Same seed, same run; a killed run goes on as if nothing had happened; what is wrong is said in one line."""

import json
import os
import signal
import sys
from dataclasses import replace
from functools import partial

import pytest
import small_training
import torch
from forked import Forked

import train_homographic
from kp.config import DetectorSettings, RunSettings, complete
from kp.models.checkpoint import (
    load_checkpoint,
    load_detector,
    read_metadata,
    save_checkpoint,
)
from kp.models.mobile import MobileDetector
from kp.support.files import InUseError
from kp.support.settings import to_dict
from kp.training import learner, score_map_step
from kp.training import trainer as trainer_module
from kp.training.logger import Logger, forget_later_steps
from kp.training.trainer import Trainer, TrainingError, learning_rate, resume
from kp.training.validation import Validation

SMALL = RunSettings(detector=DetectorSettings(encoder="mobilenet_v3_small"))
SMALL = replace(
    SMALL,
    world=replace(SMALL.world, image_size=64),
    train=replace(SMALL.train, batch=2, steps=6, device="cpu", validate_every=100.0),
)
FLAGS = [
    "--encoder",
    "mobilenet_v3_small",
    "--batch",
    "2",
    "--image-size",
    "64",
    "--device",
    "cpu",
    "--validate-every",
    "100",
    "--save-every",
    "0",
]


ENCODER = FLAGS[:2]


def losses(trainer, steps):
    return [trainer.take_step() for _ in range(steps)]


def train(*arguments):
    """The exit code of train_homographic.py, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train_homographic.py", *map(str, arguments)])
        return train_homographic.main()


def start(*arguments, **variables):
    """The same in a process of its own."""
    return Forked(small_training.main, *arguments, **variables)


def logged(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def small_validation(monkeypatch):
    small = partial(Validation, batches=1, batch=4, size=(64, 80), files=())
    monkeypatch.setattr(trainer_module, "Validation", small)


def test_the_same_seed_gives_the_same_first_losses(tmp_path):
    first, again = (losses(Trainer(SMALL, tmp_path), 6) for _ in range(2))
    assert first == again
    other = replace(SMALL, train=replace(SMALL.train, seed=1))
    assert losses(Trainer(other, tmp_path), 1) != first[:1]


def test_averages_forget_what_training_began_with():
    """As the running variances of batch normalisation, which begin at 1 and may fall to a hundredth."""
    network = torch.nn.BatchNorm1d(1)
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=learner._averaging(0.99), use_buffers=True)
    average.update_parameters(network)
    network.running_var.fill_(0.01)
    for _ in range(200):
        average.update_parameters(network)
    assert average.module.running_var.item() == pytest.approx(0.01, rel=1e-3)
    network.running_var.fill_(1.01)  # and for good remember as much as they were told to
    average.n_averaged.fill_(10**6)
    average.update_parameters(network)
    assert average.module.running_var.item() == pytest.approx(0.02, rel=1e-3)


def test_a_limit_in_minutes_begins_like_one_in_steps(tmp_path):
    by_clock = replace(SMALL, train=replace(SMALL.train, steps=None, minutes=5.0))
    assert losses(Trainer(by_clock, tmp_path), 2) == losses(Trainer(SMALL, tmp_path), 2)


def test_a_gpu_draws_the_pairs_of_as_many_steps_at_once_as_fit():
    """256 pairs of 160x160, or as many pixels: at least a step's."""
    gpu, steps = torch.device("cuda"), {(8, 160): 32, (8, 320): 8, (100, 160): 2, (500, 160): 1}
    for (batch, side), expected in steps.items():
        settings = replace(SMALL, train=replace(SMALL.train, batch=batch), world=replace(SMALL.world, image_size=side))
        assert learner._prefetch_steps(gpu, settings, batch) == expected
        assert learner._prefetch_steps(torch.device("cpu"), settings, batch) == 1


@pytest.mark.parametrize("prefetch_steps", [1, 3])
def test_going_on_from_a_checkpoint_takes_the_very_next_steps(tmp_path, prefetch_steps):
    settings = replace(SMALL, train=replace(SMALL.train, prefetch_steps=prefetch_steps))
    straight = Trainer(settings, tmp_path)
    expected = losses(straight, 5)
    broken = Trainer(settings, tmp_path)
    assert losses(broken, 2) == expected[:2]
    broken.save()
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    resumed = resume(state, settings, tmp_path)
    assert resumed.learner.step == 2
    assert losses(resumed, 3) == expected[2:]
    for a, b in zip(straight.learner.average.parameters(), resumed.learner.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_writes_all_it_promises(tmp_path):
    scores = Trainer(SMALL, tmp_path).run()
    assert 0 <= scores["repeatability"] <= 1
    lines = logged(tmp_path)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert set(lines[0]["loss"]) == {"corner", "localization", "repeatability"}
    assert lines[-1]["validation"] == scores
    assert list(tmp_path.glob("events.out.tfevents*"))
    assert [path.name for path in tmp_path.glob(".*")] in ([], [".run.lock"]), "a temporary file was left behind"
    facts = read_metadata(tmp_path / "weights.safetensors")
    assert facts["settings"] == json.loads(json.dumps(to_dict(complete(SMALL))))
    assert facts["step"] == 6
    assert (tmp_path / "checkpoint.pt").stat().st_size < 16e6
    detector = load_detector(tmp_path / "weights.safetensors")
    assert not detector.training
    assert detector(torch.rand(1, 1, 40, 40)).shape == (1, 1, 40, 40)


class Scheduled(Validation):
    """Gives the next of some scores, whatever the weights are."""

    def __init__(self, scores):
        super().__init__(torch.device("cpu"), batches=1, batch=4, size=(48, 64), files=())
        self.scores = iter(scores)

    def measure(self, detector):
        return {"validation": next(self.scores)}


def test_the_weights_that_validate_best_are_kept(tmp_path):
    trainer, schedule = Trainer(SMALL, tmp_path), Scheduled([0.5, 0.7, 0.6])

    def validate():
        trainer.logger.add_step(trainer.learner.step, 0.0, trainer.take_step(), 1.0, 0.1, 0.0)
        trainer.validate(schedule)
        facts = read_metadata(tmp_path / "weights.safetensors")
        return facts["step"], facts["scores"]["validation"]

    with Logger(tmp_path, 0) as trainer.logger:
        assert validate() == (1, 0.5)
        assert validate() == (2, 0.7)
        best = trainer.learner.average.module.mix.weight.clone()
        assert validate() == (2, 0.7)
    assert torch.equal(load_detector(tmp_path / "weights.safetensors").mix.weight, best)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert (state["step"], state["kept"]) == (3, {"validation": 0.7, "step": 2})
    trainer = resume(state, SMALL, tmp_path)
    with Logger(tmp_path, 3) as trainer.logger:
        schedule.scores = iter([0.65, 0.71])
        assert validate() == (2, 0.7), "what was kept before is remembered"
        assert validate() == (5, 0.71)
    (tmp_path / "weights.safetensors").unlink()
    trainer = resume(load_checkpoint(tmp_path / "checkpoint.pt"), SMALL, tmp_path)
    with Logger(tmp_path, 5) as trainer.logger:
        schedule.scores = iter([0.1])
        assert validate() == (6, 0.1), "weights that are gone are no longer the best"


def test_until_a_validation_the_latest_weights_are_kept(tmp_path):
    trainer = Trainer(SMALL, tmp_path)
    for step in (1, 2):
        trainer.take_step()
        trainer.save()
        assert read_metadata(tmp_path / "weights.safetensors")["step"] == step


def test_a_non_finite_loss_stops_with_step_and_term(tmp_path, monkeypatch):
    trainer = Trainer(SMALL, tmp_path)
    trainer.take_step()
    kept = {k: v.clone() for k, v in trainer.learner.model.state_dict().items()}
    real = score_map_step.repeatability_losses

    def poisoned(*args, **kwargs):
        return real(*args, **kwargs) | {"localization": torch.tensor(float("nan"))}

    monkeypatch.setattr(score_map_step, "repeatability_losses", poisoned)
    with pytest.raises(TrainingError, match="step 2: the localization loss is nan"):
        trainer.take_step()
    assert all(
        torch.equal(v, kept[k])
        for k, v in trainer.learner.model.state_dict().items()
        if "running" not in k and "num_" not in k
    )


def test_weights_that_blow_up_stop_with_the_step(tmp_path):
    trainer = Trainer(SMALL, tmp_path)
    trainer.take_step()
    with torch.no_grad():
        trainer.learner.model.mix.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="step 2: the scores"):
        trainer.take_step()


def test_a_log_forgets_what_came_after_the_checkpoint(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    forget_later_steps(tmp_path, 2)
    assert [line["step"] for line in logged(tmp_path)] == [1, 2]


def test_minutes_replace_recorded_steps(tmp_path):
    assert train("--out", tmp_path / "run", "--steps", 2, *FLAGS) == 0
    assert train("--resume", tmp_path / "run", "--minutes", "0.0001") == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["settings"]["train"]["steps"] is None


def test_steps_replace_recorded_minutes(tmp_path):
    assert train("--out", tmp_path / "run", "--minutes", "0.0001", *FLAGS) == 0
    assert train("--resume", tmp_path / "run", "--steps", 2) == 0
    recorded = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["settings"]["train"]
    assert (recorded["steps"], recorded["minutes"]) == (2, None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_a_step_and_a_validation_on_cuda(tmp_path):
    trainer = Trainer(replace(SMALL, train=replace(SMALL.train, device="cuda")), tmp_path)
    assert all(0 <= value < 1e4 for value in trainer.take_step().values())
    assert 0 <= trainer.run()["repeatability"] <= 1
    load_detector(tmp_path / "weights.safetensors", "cuda")(torch.rand(1, 1, 50, 60, device="cuda"))


def test_the_learning_rate_rises_stays_and_falls():
    rate = [learning_rate(step, step / 1000, 1.0, 100, 0.4) for step in range(1001)]
    assert rate[0] == pytest.approx(0.01)
    assert rate[99] == rate[300] == rate[600] == pytest.approx(1.0)
    assert rate[800] == pytest.approx(0.5)
    assert rate[1000] == 0


def test_validation_is_always_the_same(tmp_path):
    first, second = (Validation(torch.device("cpu"), 1, 3, (48, 64), files=()) for _ in range(2))
    assert torch.equal(first.pairs[0].image1, second.pairs[0].image1)
    detector = MobileDetector().eval()
    assert first.measure(detector) == second.measure(detector)
    many = Validation(torch.device("cpu"), 1, 4, (48, 64), files=())
    assert many.picture(detector).shape == (4 * (48 + 4), 4 * (64 + 4), 3)


# --- the command ---


def test_kill_9_and_resume(tmp_path):
    straight = tmp_path / "straight"
    with start("--out", straight, "--steps", 8, *FLAGS) as running:
        assert running.finish()[0] == 0
    folder = tmp_path / "killed"
    with start("--out", folder, "--steps", 8, *FLAGS) as running:
        running.wait_for(folder / "checkpoint.pt")
    assert running.poll() == -signal.SIGKILL
    assert load_checkpoint(folder / "checkpoint.pt")["step"] < 8
    with start("--resume", folder) as again:
        code, _, err = again.finish()
    assert code == 0, err
    expected = {line["step"]: line["loss"] for line in logged(straight) if "loss" in line}
    found = [(line["step"], line["loss"]) for line in logged(folder) if "loss" in line]
    assert found == list(expected.items())  # each step once


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves(tmp_path, number):
    never = [*FLAGS[:-1], "100"]  # minutes between checkpoints: only the interruption writes one
    with start("--out", tmp_path, "--steps", 100000, *never) as running:
        running.wait_for(tmp_path / "log.jsonl")
        os.kill(running.pid, number)
        code, _, err = running.finish()
    assert code == 130
    assert "Traceback" not in err
    assert "--resume" in err
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "{tmp}/nowhere"], "no checkpoint at"),
        (["--resume", "{tmp}/damaged"], "not a checkpoint of kp, or is damaged"),
        (["--resume", "{tmp}/run", "--encoder", "mobilenet_v3_large"], "--encoder has no place in a run that goes on"),
        (["--resume", "{tmp}/run", "--seed", "5"], "--seed has no place in a run that goes on"),
        (["--resume", "{tmp}/run", "--darkness=0.1"], "--darkness has no place in a run that goes on"),
        (["--resume", "{tmp}/run", "--pretrained"], "--pretrained has no place in a run that goes on"),
        (["--resume", "{tmp}/run", "--no-symmetric"], "--symmetric has no place in a run that goes on"),
        (["--resume", "{tmp}/run", "--init", "ranked"], "--init has no place in a run that goes on"),
        (["--resume", "{tmp}/run", "--views", "3"], "--views has no effect on a score map"),
        (["--resume", "{tmp}/run", "--lr", "nan"], "--lr must be above 0"),
        (["--resume", "{tmp}/run", "--images", "{tmp}"], "has no photograph that can be read"),
        (["--resume", "{tmp}/run", "--out", "{tmp}/other"], "leave out --out"),
        (["--out", "{tmp}/run"], "holds a run"),
        (["--out", "{tmp}/a-file"], "a-file"),
        (["--max-perspective", "1.5"], "--max-perspective must be"),
        (["--device", "cuda:99"], "no device cuda:99"),
        (["--batch", "0"], "--batch must be at least 1"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--minutes", "-1"], "--minutes must be above 0"),
        (["--minutes", "1", "--steps=5"], "--steps or --minutes: choose one"),
        (["--min", "5"], "unrecognized arguments: --min 5"),
        ([*ENCODER, "--width", "0"], "--width must be at least 1"),
        (["--lr", "nan"], "--lr must be above 0"),
        ([*ENCODER, "--temperature", "0"], "--temperature must be above 0"),
        ([*ENCODER, "--mix-blur", "0.5"], "--mix-blur must be at least 1"),
        (["--scales", "2"], "unrecognized arguments: --scales 2"),
        (["--keypoints-per-megapixel", "inf"], "--keypoints-per-megapixel must be above 0"),
        ([*ENCODER, "--photometric", "3"], "--photometric must be at least 0 and at most 2"),
        (["--seed", "99999999999999999999"], "--seed must be"),
        (["--image-size", "8"], "--image-size must be at least"),
        (["--encoder", "resnet50"], "invalid choice"),
        ([*ENCODER, "--illumination-only", "2"], "--illumination-only must be at least 0 and at most 1"),
        ([*ENCODER, "--illumination-only", "0.7"], "their sum is at most 1"),
        (["--window-sigmas", "1"], "one number for each scale"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    save_checkpoint(tmp_path / "run" / "checkpoint.pt", Trainer(SMALL, tmp_path).state_dict())
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "checkpoint.pt").write_bytes(b"PK\x03\x04 half a file")
    (tmp_path / "a-file").write_text("")
    monkeypatch.chdir(tmp_path)
    assert train(*(a.format(tmp=tmp_path) for a in arguments)) not in (0, 130)
    stderr = capsys.readouterr().err
    assert "Traceback" not in stderr
    error = stderr.strip().splitlines()[-1]
    assert error.startswith("train_homographic.py: error:")
    assert message in error


def test_help_teaches(capsys):
    train("--help")
    text = capsys.readouterr().out
    for flag in ("--minutes", "--resume", "--max-rotation", "--encoder", "--pretrained", "--seed"):
        assert flag in text
    assert "degrees" in text
    assert "(default: 45.0)" in text


# --- the ranker, which is what is trained without an encoder ---

RANKER = replace(
    RunSettings(detector=DetectorSettings(descriptor_size=0)),
    world=replace(RunSettings().world, image_size=96, views=3),
    train=replace(RunSettings().train, batch=1, steps=3, device="cpu", validate_every=100.0),
)


def test_without_an_encoder_the_ranker_is_trained(tmp_path):
    trainer = Trainer(RANKER, tmp_path)
    before = {name: value.clone() for name, value in trainer.learner.model.named_parameters()}
    assert all(name.startswith("ranker.") for name in before)
    trainer.run()
    assert set(logged(tmp_path)[0]["loss"]) == {"ranking", "repeatability", "repeatability_by_score"}
    assert trainer.learner.images_per_step == 3
    after = dict(trainer.learner.model.named_parameters())
    assert all(not torch.equal(after[name], value) for name, value in before.items())
    detector = load_detector(tmp_path / "weights.safetensors")
    assert detector.keypoints(torch.rand(1, 1, 64, 64), 10).xy.shape == (1, 10, 2)


def test_the_ranker_goes_on_from_a_checkpoint_with_the_very_next_steps(tmp_path):
    expected = losses(Trainer(RANKER, tmp_path), 3)
    broken = Trainer(RANKER, tmp_path)
    assert losses(broken, 1) == expected[:1]
    broken.save()
    assert losses(resume(load_checkpoint(tmp_path / "checkpoint.pt"), RANKER, tmp_path), 2) == expected[1:]


def test_numbers_that_depend_on_the_model_are_filled_in():
    ranker, encoder = complete(RunSettings()), complete(SMALL)
    assert (ranker.train.steps, ranker.train.batch, ranker.world.image_size) == (300, 2, 480)
    assert (encoder.train.lr, encoder.train.warmup, encoder.world.image_size) == (1e-3, 100, 64)
    timed = complete(replace(RANKER, train=replace(RANKER.train, steps=None, minutes=2.0)))
    assert (timed.train.steps, timed.train.decay) == (None, 0.6)
    assert complete(ranker) == ranker


def test_nothing_to_train_is_told(tmp_path):
    with pytest.raises(ValueError, match="leave nothing to train"):
        Trainer(replace(RANKER, detector=replace(RANKER.detector, ranker_width=0)), tmp_path)


def test_the_last_validation_is_part_of_a_run_by_the_clock(tmp_path):
    trainer = Trainer(replace(RANKER, train=replace(RANKER.train, steps=None, minutes=1.0)), tmp_path)
    trainer.seconds = 30.0
    assert trainer.progress == 0.5
    trainer.validation_seconds = 20.0
    assert trainer.progress == 0.75


@pytest.mark.parametrize("when", ["draw", "update"])
def test_memory_that_runs_out_is_one_line_and_the_checkpoint_is_kept(tmp_path, when):
    with start("--out", tmp_path, "--steps", 100000, *FLAGS, FULL=when) as running:
        code, _, err = running.finish()
    assert code == 1
    assert "Traceback" not in err
    assert "train_homographic.py: error: out of memory" in err.splitlines()[-1]
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 2


# --- what a resumed run may change, and who holds its folder ---


def test_what_may_change_in_a_run_that_goes_on_does_act(tmp_path):
    """The weight decay is also in the optimiser's state, whose number must not win."""
    trainer = Trainer(SMALL, tmp_path)
    trainer.take_step()
    changes = {"weight_decay": 0.25, "clip": 0.1, "ema": 0.5, "lr": 0.01, "repeatability_weight": 2.0}
    settings = replace(SMALL, train=replace(SMALL.train, **changes))
    resumed = resume(trainer.state_dict(), settings, tmp_path)
    assert [group["weight_decay"] for group in resumed.learner.optimiser.param_groups] == [0.25]
    same = resume(trainer.state_dict(), SMALL, tmp_path)
    for name, value in changes.items():
        one = resume(trainer.state_dict(), replace(SMALL, train=replace(SMALL.train, **{name: value})), tmp_path)
        for each in (one, same):
            each.load_state_dict(trainer.state_dict())
            each.take_step()
        weights = (each.learner.average.module.mix.weight for each in (one, same))
        assert not torch.equal(*weights), name


def test_a_second_run_in_a_folder_is_refused_and_a_killed_one_leaves_it_free(tmp_path, capsys):
    with start("--out", tmp_path / "run", "--steps", 100000, *FLAGS) as running:
        running.wait_for(tmp_path / "run" / "checkpoint.pt")
        for arguments in (["--out", tmp_path / "run", *FLAGS], ["--resume", tmp_path / "run", "--steps", 1]):
            assert train(*arguments) == 1
            error = capsys.readouterr().err
            assert f"another process trains in {tmp_path / 'run'}" in error
            assert error.count("\n") == 1
        with pytest.raises(InUseError):
            Trainer(SMALL, tmp_path / "run").run()
    step = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"]
    assert train("--resume", tmp_path / "run", "--steps", step + 1) == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"] == step + 1
