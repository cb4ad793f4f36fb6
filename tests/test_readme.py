"""README keeps its promises: it is short, its files and flags exist, its commands and its Python code run."""

import re
import runpy
import shlex
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

import kp
from kp.config import MODELS, WEIGHTS
from kp.data import pairs, photographs
from kp.evaluation import scorecard, sweeps
from kp.models import cost
from kp.models.checkpoint import SHIPPED, read_metadata
from kp.training.validation import Validation

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAX_LINES = 200


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_it_is_short():
    assert len(README.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("page", ["README.md", "notebooks/report.md", "notebooks/results.md"])
def test_linked_files_exist_and_nothing_is_left_to_fill_in(page):
    """So do the headings that links name."""
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        name, _, heading = link.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), link
        assert not heading or heading in anchors(file.read_text()), link
    assert "TODO" not in text


def anchors(text):
    """As GitHub makes them of the headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_layout_names_every_package():
    packages = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("kp/*/__init__.py")}
    assert set(re.findall(r"^(kp/\w+) ", README, re.MULTILINE)) == packages


def test_shipped_weights_load_and_say_where_they_are_from():
    assert set(SHIPPED) == set(MODELS)
    assert kp.load_detector() is not None
    for name, path in SHIPPED.items():
        assert not kp.load_detector(name).training
        assert path.stat().st_size < 4e6
        facts = read_metadata(path)
        assert facts["settings"]["train"]["seed"] >= 0
        if name != WEIGHTS:  # of which nothing is learnt
            assert re.fullmatch(r"[0-9a-f]{40}", facts["revision"]), "trained by code that was committed"
            assert facts["step"] > 100
            assert facts["scores"].get("repeatability", facts["scores"].get("photographs_mma")) > 0.3


def test_every_flag_in_the_readme_exists(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    uses = re.findall(
        r"(?:python (train_homographic|evaluate)\.py|(?:^|`|-m )kp (\w+))([^\n#`&]*)", README, re.MULTILINE
    )
    uses = [(f"{script}.py" if script else f"-m kp {command}", rest) for script, command, rest in uses]
    assert {"train_homographic.py", "-m kp detect", "-m kp match", "-m kp export"} < {program for program, _ in uses}
    for program in {program for program, _ in uses}:
        run(f"python {program} --help")
        known = re.findall(r"--[a-z0-9-]+", capsys.readouterr().out)
        for flag in re.findall(r"--[a-z0-9-]+", " ".join(rest for used, rest in uses if used == program)):
            assert flag in known, f"{program} has no {flag}"


def run(command):
    """The exit code of a command, run in this process and in the current folder."""
    python, *argv = shlex.split(command)
    if python == "kp":
        python, argv = "python", ["-m", "kp", *argv]
    assert python == "python", command
    if module := argv[0] == "-m":
        argv = argv[1:]
    start = runpy.run_module if module else runpy.run_path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as ended:
            start(argv[0], run_name="__main__")
    return ended.value.code


SHORT = {  # a part of a command that takes long, and a part that takes a second
    "--hpatches ROOT": "--hpatches ROOT --split i",
    "--minutes 2": "--steps 1 --batch 2 --image-size 64",
    "kp report": "kp report --check",
    "evaluate.py --weights runs/first/weights.safetensors": (
        "evaluate.py --weights runs/first/weights.safetensors --detectors kp random"
    ),
    "--curves": "--curves --detectors harris random",
}
ELSEWHERE = (  # what runs these, or what they stand for
    r"python3? -m (venv|pytest)",  # .ci/run
    r"pip install|bin/activate",
    r"torchrun",  # tests/training/test_distributed_training.py
    r"kp export",  # tests/features/test_onnx.py
    r"kp bench --inference",  # tests/experiments/test_inference.py
    r"python train_homographic.py( --encoder NAME)?$",  # the same for two minutes
    r"kp ablate$",  # the same for two variants
    r"python -m kp( --help)?$",  # the test of flags
)


def commands():
    """Every command of the blocks and of the text between them, in order, but for those of ELSEWHERE."""
    lines = [line.split("  #")[0] for block in blocks("bash") for line in block.splitlines()]
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    lines += [" ".join(code.split()) for code in re.findall(r"`((?:python|torchrun) [^`]+)`", prose)]
    found = dict.fromkeys(command.strip() for line in lines for command in line.split(" && ") if command.strip())
    return [command for command in found if not any(re.search(pattern, command) for pattern in ELSEWHERE)]


def shortened(command):
    for long, instead in SHORT.items():
        command = command.replace(long, instead)
    return command


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with what a clone has and with two tiny sequences in the folder ROOT."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("kp", "train_homographic.py", "evaluate.py"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "notebooks" / "results").mkdir(parents=True)
    (folder / "notebooks" / "figures").mkdir()
    (folder / "notebooks" / "results" / "training").symlink_to(ROOT / "notebooks" / "results" / "training")
    (folder / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(folder / "photos" / name), data.camera())
    (folder / "pairs.txt").write_text("a.jpg b.jpg\n")
    for name in ("i_a", "v_a"):
        (folder / "ROOT" / name).mkdir(parents=True)
        for number in range(1, 7):
            image = np.random.default_rng(number).integers(0, 255, (12, 16), dtype=np.uint8)
            cv2.imwrite(str(folder / "ROOT" / name / f"{number}.png"), cv2.resize(image, (160, 120)))
            np.savetxt(folder / "ROOT" / name / f"H_1_{number}", np.eye(3))
    return folder


def test_the_commands_in_the_readme_run(desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    monkeypatch.setattr(photographs, "FILES", photographs.FILES[:1])
    monkeypatch.setattr(scorecard, "held_out_pairs", partial(pairs.held_out_pairs, 1, 2, (64, 80)))
    # batches, pairs, pixels, photographs, real sequences
    monkeypatch.setattr(Validation.__init__, "__defaults__", (1, 2, (64, 80), (), None, False))
    monkeypatch.setattr(sweeps, "SWEEPS", {name: values[:1] for name, values in sweeps.SWEEPS.items()})
    monkeypatch.setattr(cost, "milliseconds", partial(cost.milliseconds, size=(48, 64), repeats=1))
    for command in commands():
        code = run(shortened(command))
        assert not code, f"{command}: {capsys.readouterr().err}"
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})
