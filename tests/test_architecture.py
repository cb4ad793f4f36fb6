"""The house: who may import whom, and who may touch pixels."""

import ast
import re
from inspect import signature
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"geometry", "config", "files", "curves", "process", "ranks", "symmetry", "opencv_world"},
    {"chance", "views", "homography", "paint", "keypoints", "encoders", "baselines", "protocols", "download", "spread"},
    {
        "photometric",
        "outlines",
        "textures",
        "canvas",
        "detector",
        "losses",
        "metrics",
        "draw",
        "hpatches",
        "learned",
        "downstream",
        "plots",
        "published",
        "paper",
    },
    {"catalogue", "leaves", "planes", "photographs", "checkpoint", "rows", "journal", "ledger", "uses"},
    {"shapes", "detectors", "terminal", "tables", "results", "standin", "models", "export"},
    {"pairs", "compare", "architecture", "fullsize"},
    {"validation", "evaluation", "statistics", "viewpoint", "learner"},
    {"selection", "preview", "sweeps", "examples"},
    {"training", "sections", "scorecard"},
    {"benchmark", "page", "ablation", "report"},
    {"session", "trials"},
    {"__main__"},
]
MODULES = sorted((ROOT / "kp").glob("*.py"))
SAMPLES = {"geometry", "opencv_world"}  # the latter is the other pipeline, which the benchmark measures ours against


def imported(path: Path) -> set[str]:
    """The modules of kp that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kp."):
            found.add(node.module.removeprefix("kp."))
        elif isinstance(node, ast.ImportFrom) and node.module == "kp":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "import by the full name"
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("kp.") for a in node.names if a.name.startswith("kp.")}
    return found


def test_every_module_imports_only_from_floors_below():
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    assert {p.stem for p in MODULES} - {"__init__"} <= set(floor), "a module without a floor"
    for path in MODULES:
        for name in imported(path) - {"__version__"}:
            assert floor[name] < floor.get(path.stem, 99), f"{path.stem} imports {name}"


def test_the_readme_shows_every_module():
    house = (ROOT / "README.md").read_text().split("## The house")[1].split("```")[1]
    assert {path.stem for path in MODULES if path.stem[0] != "_"} <= set(re.findall(r"\w+", house))


@pytest.mark.parametrize("path", [p for p in MODULES if p.stem not in SAMPLES], ids=lambda p: p.stem)
def test_only_geometry_samples_or_warps(path):
    forbidden = {
        "grid_sample",
        "warp_perspective",
        "homography_warp",
        "create_meshgrid",
        "remap",
        "meshgrid",
        "interpolate",
    }
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
            assert not (node.attr == "resize" and isinstance(node.value, ast.Name) and node.value.id == "cv2")
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
    assert not names & forbidden


@pytest.mark.parametrize("script", ["train_homographic.py", "evaluate.py"])
def test_scripts_stay_thin(script):
    assert len((ROOT / script).read_text().splitlines()) < 80


def test_the_settings_have_the_defaults_of_the_functions_they_feed():
    from kp import baselines, config, learned
    from kp.config import DetectorSettings, LightSettings, TrainSettings, WorldSettings
    from kp.detector import Detector
    from kp.homography import random_homographies
    from kp.losses import repeatability_losses
    from kp.photometric import change_photometry
    from kp.protocols import PROTOCOLS
    from kp.shapes import MIXTURE

    assert WorldSettings().families == MIXTURE
    assert tuple(PROTOCOLS) == config.PROTOCOLS
    assert {*config.DETECTORS, *config.BASELINES} == {"kp", "random", *baselines.BASELINES}
    assert config.LEARNED == learned.NAMES
    assert set(config.MODELS) <= set(config.ENCODERS)
    assert {name: p.default for name, p in signature(Detector).parameters.items()} == vars(DetectorSettings())
    losses = signature(repeatability_losses).parameters
    for name in ("density", "slack", "softness", "pooling"):
        assert losses[name].default == getattr(TrainSettings(), name)
    ranges = {name: value for name, value in random_homographies.__kwdefaults__.items() if name.startswith("max_")}
    assert {name: value for name, value in vars(WorldSettings()).items() if name.startswith("max_")} == ranges
    defaults = change_photometry.__kwdefaults__
    assert {name: value for name, value in vars(LightSettings()).items() if name != "photometric"} == defaults
