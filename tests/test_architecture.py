"""The house: who may import whom, and who may touch pixels."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"geometry", "config", "files", "curves"},
    {"chance", "views", "homography", "paint", "keypoints", "encoders", "baselines"},
    {"photometric", "shapes", "detector", "losses", "metrics", "draw", "hpatches"},
    {"pairs", "photographs", "checkpoint", "report"},
    {"validation", "evaluation"},
    {"training", "preview"},
    {"benchmark"},
    {"__main__"},
]
MODULES = sorted((ROOT / "kp").glob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules of kp that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kp."):
            found.add(node.module.removeprefix("kp."))
        elif isinstance(node, ast.ImportFrom) and node.module == "kp":
            found |= {alias.name for alias in node.names}
    return found


def test_every_module_imports_only_from_floors_below():
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    assert {p.stem for p in MODULES} - {"__init__"} <= set(floor), "a module without a floor"
    for path in MODULES:
        for name in imported(path) - {"__version__"}:
            assert floor[name] < floor.get(path.stem, 99), f"{path.stem} imports {name}"


@pytest.mark.parametrize("path", [p for p in MODULES if p.stem != "geometry"], ids=lambda p: p.stem)
def test_only_geometry_samples_or_warps(path):
    forbidden = {"grid_sample", "warp_perspective", "homography_warp", "create_meshgrid", "remap", "meshgrid"}
    names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
    names |= {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
    assert not names & forbidden


@pytest.mark.parametrize("script", ["train_homographic.py", "evaluate.py"])
def test_scripts_stay_thin(script):
    assert len((ROOT / script).read_text().splitlines()) < 80


def test_the_lattice_of_families_is_the_one_on_the_command_line():
    from kp.config import FAMILIES
    from kp.shapes import FAMILIES as RENDERED

    assert tuple(RENDERED) == FAMILIES
