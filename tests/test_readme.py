"""What the README promises is there: its files, its flags, its Python."""

import re
import subprocess
import sys
from pathlib import Path

import kp
from kp.checkpoint import SHIPPED, read_metadata
from kp.config import MODELS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_linked_files_exist_and_nothing_is_left_to_fill_in():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
    assert "@@" not in README
    assert "TODO" not in README


def test_shipped_weights_load_and_say_where_they_are_from():
    assert set(SHIPPED) == set(MODELS)
    assert kp.load_detector() is not None
    for name, path in SHIPPED.items():
        assert not kp.load_detector(name).training
        assert path.stat().st_size < 4e6
        facts = read_metadata(path)
        assert facts["settings"]["train"]["seed"] >= 0
        assert facts["step"] > 100
        assert re.fullmatch(r"[0-9a-f]{40}", facts["revision"]), "trained by code that was committed"
        assert facts["scores"]["repeatability"] > 0.3


def test_the_python_in_the_readme_runs():
    for code in blocks("python"):
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_flag_in_the_readme_exists():
    for command in re.findall(r"python ((?:train_homographic|evaluate)\.py|-m kp \w+)([^\n#`&]*)", README):
        program = command[0].split()
        text = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True).stdout
        for flag in re.findall(r"--[a-z-]+", command[1]):
            assert flag in text, f"{program} has no {flag}"
