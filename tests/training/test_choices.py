"""Every number of a training has bounds that are checked before any work; a flag that would do nothing is refused."""

import math
import sys
from dataclasses import fields, replace
from itertools import pairwise
from typing import get_args

import pytest

import train_homographic
from kp.cli import train as command
from kp.config import (
    DAY_AND_NIGHT,
    CameraSettings,
    DetectorSettings,
    EvaluateSettings,
    LightSettings,
    RunSettings,
    TrainSettings,
    WorldSettings,
)
from kp.support.settings import ABOVE_ZERO, check_bounds
from kp.training.choices import FIXED, USED, check, check_given
from kp.training.learner import Learner

FIELDS = [f for group in fields(RunSettings) for f in fields(group.type)]


def is_number(f):
    kinds = {f.type, *get_args(f.type)} - {type(None), Ellipsis}
    return kinds <= {int, float}


def kind(f):
    return int if int in {f.type, *get_args(f.type)} else float


NUMBERS = [f for f in [*FIELDS, *fields(EvaluateSettings)] if is_number(f) or get_args(f.type)[:1] == (float,)]


def words(f, value):
    """The flag with the value in each of its places."""
    flag = "--" + f.name.replace("_", "-")
    return [flag, *[str(value)] * len(f.default)] if isinstance(f.default, tuple) else [f"{flag}={value}"]


def wrong_values(f):
    low, high = f.metadata["bounds"]
    below = 0 if low == ABOVE_ZERO else low - 1
    values = [below, high * 2 + 1, 10**30]
    if kind(f) is float:
        values += ["nan", "inf", "-inf", 1e300, below if low == ABOVE_ZERO else low - 1e-3]
    else:
        values = [int(value) for value in values]
    return values


def test_every_number_has_bounds_that_are_finite():
    assert len(NUMBERS) > 60
    for f in NUMBERS:
        if f.metadata["choices"] is None:
            assert f.metadata["bounds"] is not None, f.name
            assert all(map(math.isfinite, f.metadata["bounds"])), f.name


@pytest.fixture
def no_work(tmp_path, monkeypatch):
    """Fails the test where a run begins, and where a folder is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "Trainer", lambda *_, **__: pytest.fail("the work began"))
    yield
    assert list(tmp_path.iterdir()) == []


def train(monkeypatch, capsys, *arguments):
    """Exit code and the only line of errors."""
    monkeypatch.setattr(sys, "argv", ["train_homographic.py", *map(str, arguments)])
    code = train_homographic.main()
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("train_homographic.py: error: ")
    assert not any("Traceback" in line for line in error)
    return code, error[-1]


MODELS = {  # the words that choose what a run trains
    "ranker": ["--descriptor-size", "0"],
    "score map": ["--encoder", "mobilenet_v3_small"],
    "describer": ["--ranker-width", "0"],
}


@pytest.mark.parametrize("f", [f for f in FIELDS if f.metadata["bounds"]], ids=lambda f: f.name)
def test_a_number_out_of_bounds_is_refused_before_any_work(no_work, monkeypatch, capsys, f):
    flag = "--" + f.name.replace("_", "-")
    model = next((words for trained, words in MODELS.items() if f.name in USED[trained]), [])
    for value in wrong_values(f):
        code, line = train(monkeypatch, capsys, *model, *words(f, value))
        assert code not in (0, 130), value
        assert flag in line, value
        assert " and at most " in line or "argument --" in line, value  # argparse takes -inf for a flag
    code, line = train(monkeypatch, capsys, *model, *words(f, "seven"))
    assert code not in (0, 130)
    assert flag in line


@pytest.mark.parametrize("f", [f for f in fields(EvaluateSettings) if f.metadata["bounds"]], ids=lambda f: f.name)
def test_a_number_of_evaluate_out_of_bounds_names_its_flag(f):
    for value in wrong_values(f):
        if isinstance(value, str):
            value = float(value)
        with pytest.raises(ValueError, match=r"^--" + f.name.replace("_", "-") + ".* and at most "):
            check_bounds(replace(EvaluateSettings(), **{f.name: value}))


def test_numbers_at_their_bounds_are_accepted():
    for group in fields(RunSettings):
        for f in fields(group.type):
            for value in f.metadata["bounds"] or ():
                value = (value,) * len(f.default) if isinstance(f.default, tuple) else value
                check_bounds(replace(group.type(), **{f.name: value}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jpeg-quality", "90", "50"], "--jpeg-quality is the lowest and the highest value"),
        (["--jpeg-quality", "50"], "--jpeg-quality"),
        (["--jpeg-quality", "50", "nan"], "--jpeg-quality must be"),
        (["--derivative-sigmas", "1", "2"], "one number for each scale"),
        (["--derivative-sigmas", "1", "2", "nan", "4"], "--derivative-sigmas must be"),
        (["--half-size-scales", "5"], "--half-size-scales must be at most the number of scales"),
        (["--families", "cats"], "--families: unknown family cats"),
        (["--families", "leaves=nan"], "--families: "),
        (["--families", "leaves=0"], "--families: "),
        (["--families"], "--families"),
        (["--max-translation", "5"], "--max-translation must be at least 0 and at most 1, not 5.0"),
        (["--encoder", "mobilenet_v3_small", "--viewpoint-only", "2"], "--viewpoint-only must be at least 0 and at"),
        (["--encoder", "mobilenet_v3_small", "--viewpoint-only", "0.9"], "their sum is at most 1"),
        (["--validation", "nowhere"], "nowhere does not exist"),
        (["--images", "nowhere"], "--images: nowhere is not a folder"),
        (["--init", "nowhere"], "no weights at nowhere"),
        (["--init", "default"], "--init default: nothing of these weights is learnt"),
        (["--descriptor-size", "0", "--ranker-width", "0"], "leave nothing to train"),
        (["--descriptor-size", "1"], "--descriptor-size 1 tells nothing apart"),
        (["--init", "ranked", "--ranker-width", "16"], "--ranker-width is 48 in the weights of --init ranked, not 16"),
        (["--init", "ranked", "--encoder", "mobilenet_v3_small"], "--encoder is none in the weights of --init ranked"),
        (["--init", "mobilenet_v3_small", "--pretrained"], "--pretrained begins with other weights than --init"),
        (["--resume", "nowhere", "--init", "ranked"], "no checkpoint at nowhere"),
        (["--out", "/proc/nowhere"], "cannot be written"),
        (["--out", "/dev/null"], "is a file: choose another folder"),
        (
            [
                *("--encoder", "mobilenet_v3_small", "--corner-weight", "0", "--localization-weight", "0"),
                *("--repeatability-weight", "0"),
            ],
            "nothing to train",
        ),
    ],
)
def test_other_choices_that_are_wrong_are_one_line_before_any_work(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "Trainer", lambda *_, **__: pytest.fail("the work began"))
    code, line = train(monkeypatch, capsys, *arguments)
    assert code not in (0, 130)
    assert message in line


# --- flags that would do nothing ---


@pytest.mark.parametrize("f", FIELDS, ids=lambda f: f.name)
def test_a_flag_of_another_model_is_refused(no_work, monkeypatch, capsys, f):
    of_some = any(f.name in used for used in USED.values())
    for trained, model in MODELS.items():
        if not of_some or f.name in USED[trained]:
            continue
        default = f.default if f.default is not None else f.metadata["by_model"][0]
        given = words(f, default if not isinstance(default, tuple) else default[0])
        given = ["--" + f.name] if f.type is bool else given
        code, line = train(monkeypatch, capsys, *model, *given)
        assert code not in (0, 130)
        assert f"--{f.name.replace('_', '-')} has no effect on a {trained}" in line


def test_a_run_that_trains_both_takes_the_flags_of_both():
    check_given(
        ["ranker_width", "lr", "bracket_stops", "descriptor_size", "jpeg", "pairs", "still"], DetectorSettings()
    )
    with pytest.raises(ValueError, match="--width has no effect on a ranker or a describer, only on a score map"):
        check_given(["width"], DetectorSettings())


@pytest.mark.parametrize("trained", USED)
def test_a_model_reads_none_of_the_settings_of_the_others(monkeypatch, trained):
    """Training steps, with settings that note what is read of them; those of the light are read all at once."""
    detectors = {"encoder": "mobilenet_v3_small"}, {"descriptor_size": 0}, {"ranker_width": 0}
    detector = dict(zip(("score map", "ranker", "describer"), detectors, strict=True))[trained]
    s, names = RunSettings(detector=DetectorSettings(**detector)), set()
    small = replace(s, world=replace(s.world, image_size=64), train=replace(s.train, batch=1, device="cpu"))

    def noting(self, name):
        if sys._getframe(1).f_globals["__name__"] not in ("dataclasses", "kp.config"):  # these copy them all
            names.add(name)
        return object.__getattribute__(self, name)

    for group in (DetectorSettings, WorldSettings, CameraSettings, TrainSettings):
        monkeypatch.setattr(group, "__getattribute__", noting)
    learner = Learner(small)
    for _ in range(6):  # a describer sees pairs of both kinds
        loss, _ = learner.look(learner.draw())
        learner.update(loss, 1e-3)
    # these are also checked, or recorded, where they are not used
    checked = {"half_size_scales", "darkness", "mix_blur", "contrast_sigma", "pretrained", "ranker_width"}
    checked |= {"ranker_weight", "descriptor_size", "covariance_scale"}
    checked |= {"warmup", "decay"}  # of the trainer
    if trained == "describer":  # its camera has values of its own, and nothing of a bracket is left where all is relit
        checked |= {"bracket_stops", *DAY_AND_NIGHT}
        checked |= {"lr", "weight_decay", "ema"}  # of an optimiser that has nothing to do
    others = frozenset().union(*USED.values()) - USED[trained]
    assert not names & others - checked
    assert {"image_size", "score_blur"} <= names, "nothing was noted"
    assert USED[trained] - names <= {*vars(LightSettings())} | checked, "noted too little"


def test_each_setting_of_some_models_is_a_setting():
    assert {f.name for f in FIELDS} >= frozenset().union(*USED.values())
    assert {f.name for f in fields(CameraSettings)} <= USED["ranker"]
    assert set(MODELS) == set(USED)
    check(RunSettings())


def test_fixed_settings_are_those_that_a_checkpoint_decides():
    assert set(FIXED) == {*vars(DetectorSettings()), "seed", "init"}


def test_no_name_is_used_twice():
    names = sorted(f.name for f in FIELDS)
    assert all(a != b for a, b in pairwise(names))
