"""The ranks of torchrun take one step together, write one run, and stop together, on the CPU."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import small_training
import torch
from forked import Forked, torchrun
from two_ranks import SETTINGS

from kp.models.checkpoint import load_checkpoint
from kp.models.describer import TILTS
from kp.models.gradient_histograms import ORBITS, SIZE
from kp.training import distributed
from kp.training.discriminant import Moments, discriminant, merged
from kp.training.learner import Learner
from kp.training.score_map_step import loss_terms
from kp.training.trainer import Trainer

HERE = Path(__file__).parent
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
FLAGS = [
    "--encoder",
    "mobilenet_v3_small",
    "--batch",
    "1",
    "--image-size",
    "32",
    "--device",
    "cpu",
    "--validate-every",
    "100",
]


def start(*arguments, **variables):
    """The command in two ranks of torchrun's agent, which fork: ``two`` shows that torchrun itself starts a script."""
    return Forked(partial(torchrun, small_training.main), *arguments, **variables)


def of_torchrun(script, *arguments):
    """Standard output of a script under torchrun itself, whose ranks import everything anew: this takes long."""
    command = [*LAUNCHER, str(HERE / script), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            out, err = running.communicate(timeout=200)
        finally:
            running.terminate()  # torchrun ends its ranks
    assert running.returncode == 0, err
    return out


def errors_of(err):
    """The lines of errors that are ours."""
    return [line for line in err.splitlines() if "error: " in line and ".py:" in line]


def logged(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the weights of each rank after one step, and the losses of a straight and of a resumed run."""
    folder = tmp_path_factory.mktemp("two")
    of_torchrun("two_ranks.py", folder)
    return folder


def step_of_one_process(shares):
    """Parameters and gradients after a step on both ranks' batches by turns, each with statistics of its own."""
    learner = Learner(SETTINGS)
    train = SETTINGS.train
    optimiser = torch.optim.AdamW(learner.model.parameters(), lr=train.lr, weight_decay=train.weight_decay)
    for pair, share in zip(pairs_of_both(), shares, strict=True):
        scores = learner.model(torch.cat([pair.image0, pair.image1]))
        terms = loss_terms(
            pair,
            *scores.chunk(2),
            keypoints_per_megapixel=train.keypoints_per_megapixel,
            match_radius=train.match_radius,
            temperature=train.temperature,
        )
        total = sum(getattr(train, f"{name}_weight") * term for name, term in terms.items())
        (share * total).backward()
    optimiser.step()
    named = dict(learner.model.named_parameters())
    return named, {name: value.grad for name, value in named.items()}


def pairs_of_both():
    with pytest.MonkeyPatch.context() as patch:
        for rank in (0, 1):
            patch.setattr("kp.training.distributed.rank", lambda rank=rank: rank)
            yield Learner(SETTINGS).draw()[0]


def furthest(found, expected):
    return max((found[name] - value).abs().max().item() for name, value in expected.items())


@pytest.mark.skipif(sys.platform != "linux", reason="names of threads are Linux's")
def test_no_thread_of_the_group_outlives_it(two):
    """One that met the ending interpreter would abort the process."""
    for rank in (0, 1):
        working, left = json.loads((two / f"threads{rank}.json").read_text()).values()
        assert any("gloo" in name for name in working)
        assert not any("gloo" in name for name in left)


def test_two_ranks_take_the_step_of_one_process_with_both_their_batches(two):
    (weights, gradients), (weights1, _) = (torch.load(two / f"step{rank}.pt") for rank in (0, 1))
    assert furthest(weights, weights1) == 0, "the ranks have the same weights"
    expected, expected_gradients = step_of_one_process((0.5, 0.5))
    largest = max(gradient.abs().max().item() for gradient in expected_gradients.values())
    assert furthest(weights, expected) < 1e-5
    assert furthest(gradients, expected_gradients) < 1e-5 * largest  # AdamW would hide a wrong scale of them all
    for alone in ((1, 0), (0, 1)):
        other, other_gradients = step_of_one_process(alone)
        assert furthest(weights, other) > 1e-3
        assert furthest(gradients, other_gradients) > 0.1 * largest


def test_ranks_draw_different_pairs_and_rank_0_those_of_one_process():
    first, second = pairs_of_both()
    alone = Trainer(SETTINGS, Path()).learner.draw()[0]
    assert torch.equal(first.image0, alone.image0)
    assert not torch.equal(second.image0, alone.image0)


def test_ranks_that_go_on_take_the_very_next_steps(two):
    zero, one = (json.loads((two / f"terms{rank}.json").read_text()) for rank in (0, 1))
    assert zero == one, "every rank knows the mean losses"
    assert zero["resumed"] == zero["straight"]
    assert zero["same"]
    state = load_checkpoint(two / "checkpoint.pt")
    pairs = state["parts"]["score map"]["pairs"]
    assert len(pairs) == len(state["torch"]) == 2
    assert not torch.equal(*pairs)


def test_one_process_goes_on_from_two_ranks_and_they_from_an_old_checkpoint(two, tmp_path):
    state = load_checkpoint(two / "checkpoint.pt")
    trainer = Trainer(SETTINGS, tmp_path, fresh=False)
    trainer.load_state_dict(state)
    generator = trainer.learner.parts["score map"].pairs.generator
    pairs = state.pop("parts")["score map"]["pairs"]
    assert torch.equal(generator.get_state(), pairs[0])
    trainer.load_state_dict(state | {"pairs": pairs[1], "torch": state["torch"][1]})  # as one process wrote it
    assert torch.equal(generator.get_state(), pairs[1])
    assert trainer.take_step()


def test_two_ranks_write_one_run_and_go_on_with_it(tmp_path):
    folder = tmp_path / "run"
    with start("--out", folder, "--steps", 3, *FLAGS) as running:
        code, out, err = running.finish()
    assert code == 0, err
    assert [out.count(word) for word in ("training on cpu", "held-out pairs", "done: ")] == [1, 1, 1]
    assert len(list(folder.glob("events.out.tfevents*"))) == 1
    assert [path.name for path in folder.glob(".*")] in ([], [".run.lock"]), "a temporary file was left behind"
    with start("--resume", folder, "--steps", 5) as running:
        code, _, err = running.finish()
    assert code == 0, err
    lines = logged(folder)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in lines if "validation" in line] == [3, 5]
    assert load_checkpoint(folder / "checkpoint.pt")["step"] == 5


@pytest.mark.exact
def test_torchrun_writes_one_run(tmp_path):
    out = of_torchrun("small_training.py", "--out", tmp_path, "--steps", 3, *FLAGS)
    assert [out.count(word) for word in ("training on cpu", "held-out pairs", "done: ")] == [1, 1, 1]
    assert [line["step"] for line in logged(tmp_path) if "loss" in line] == [1, 2, 3]


@pytest.mark.parametrize(("signalled", "number"), [("torchrun", signal.SIGINT), (1, signal.SIGTERM)])
def test_whoever_is_asked_to_end_all_end_and_rank_0_saves(tmp_path, signalled, number):
    with start("--out", tmp_path, "--steps", 100000, "--save-every", 100, *FLAGS) as running:
        running.wait_for(tmp_path / "log.jsonl")
        os.kill(running.pid if signalled == "torchrun" else running.ranks()[signalled], number)
        assert running.finish()[0] != 0
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert [line["step"] for line in logged(tmp_path)] == list(range(1, state["step"] + 1))
    assert len(state["parts"]["score map"]["pairs"]) == 2


def test_a_loss_that_is_not_finite_on_one_rank_ends_all(tmp_path):
    with start("--out", tmp_path, "--steps", 3, *FLAGS, POISONED="1") as running:
        code, _, err = running.finish()
    assert code != 0
    (line,) = errors_of(err)
    assert "step 1: the localization loss is nan" in line
    assert not (tmp_path / "checkpoint.pt").exists()


def test_two_ranks_train_a_ranker_and_a_describer(tmp_path):
    """Each rank sums up its own pairs; the maps are those of the sums of both."""
    flags = ["--steps", 2, "--batch", 1, "--image-size", 64, "--pairs", 1, "--device", "cpu"]
    with start("--out", tmp_path / "run", *flags) as running:
        code, _, err = running.finish()
    assert code == 0, err
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    sums = [each["moments"] for each in state["parts"]["describer"]["seen"]]
    assert len(sums) == 2
    assert all(each["count"] > 0 for each in sums)
    assert not torch.equal(sums[0]["products"], sums[1]["products"])
    weight, _ = discriminant(merged([moments(each) for each in sums]), 128, ORBITS)
    assert torch.allclose(state["model"]["describer.linear.weight"], weight.float(), atol=1e-5)
    with start("--out", tmp_path / "broken", *flags, UNRANKED="1") as running:
        code, _, err = running.finish()
    assert code != 0
    (line,) = errors_of(err)
    assert "no shares" in line


def moments(state):
    found = Moments(SIZE, len(TILTS))
    found.load_state_dict(state)
    return found


def test_a_log_that_cannot_be_written_ends_all(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with start("--out", tmp_path, "--steps", 3, *FLAGS) as running:
        code, _, err = running.finish()
    assert code != 0
    (line,) = errors_of(err)
    assert "log.jsonl" in line


def test_a_rank_that_is_lost_ends_all(tmp_path):
    with start("--out", tmp_path, "--steps", 100000, *FLAGS) as running:
        running.wait_for(tmp_path / "log.jsonl")
        os.kill(running.ranks()[1], signal.SIGKILL)
        assert running.finish()[0] != 0


def test_what_is_wrong_is_said_once():
    with start("--device", "nosuch") as running:
        code, _, err = running.finish()
    assert code != 0
    assert len(errors_of(err)) == 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc'"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is '-2'"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set, but"),
        ({"WORLD_SIZE": "2", "RANK": "two"}, "RANK is 'two', not a whole number from 0 to 1"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is '2', not a whole number from 0 to 1"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "x"}, "MASTER_PORT is 'x'"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "99999999"}, "MASTER_PORT is '99999999'"),
    ],
)
def test_variables_of_torchrun_that_are_nonsense_are_one_line(monkeypatch, variables, message):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=message) as caught, distributed.together():
        pytest.fail("the process group cannot have begun")
    assert str(caught.value).startswith("error: ")
    assert "start with torchrun, or unset WORLD_SIZE" in str(caught.value)


def test_an_error_of_any_class_can_be_sent_to_the_other_ranks():
    class Stubborn(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    assert str(distributed._portable(Stubborn("a", "b"))) == "Stubborn: a b"
    kept = MemoryError("no more")
    assert distributed._portable(kept) is kept


@pytest.mark.parametrize("when", ["draw", "update"])
def test_a_rank_whose_memory_runs_out_ends_all(tmp_path, when):
    """In the update the ranks wait for each other's gradients: the others cannot be told."""
    with start("--out", tmp_path, "--steps", 100000, "--save-every", 0, *FLAGS, FULL=when) as running:
        code, _, err = running.finish()
    assert code != 0
    errors = errors_of(err)
    assert len(errors) == 1 if when == "draw" else not errors
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 2
