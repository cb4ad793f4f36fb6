"""The house: which package may import which, and where pixels are sampled."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "support": 0,
    "config": 0,
    "geometry": 1,
    "models": 2,
    "data": 3,
    "features": 4,
    "evaluation": 5,
    "reporting": 6,
    "training": 7,
    "experiments": 8,
    "cli": 9,
}
MODULES = sorted((ROOT / "kp").rglob("*.py"))
PACKAGES = [name for name in FLOORS if name != "config"]
OWN_WARPS = {"coords.py", "block_filters.py", "opencv_pairs.py"}  # the last: what the speed of ours is compared with
SAMPLING = {
    "grid_sample",
    "warp_perspective",
    "homography_warp",
    "create_meshgrid",
    "remap",
    "meshgrid",
    "interpolate",
}


def imported(path: Path) -> set[str]:
    """The packages of kp (or config) that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name"
            if node.module == "kp":
                found |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("kp."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("kp.")}
    return found & set(FLOORS)


def test_there_are_ten_packages_and_little_beside_them():
    assert {path.parent.name for path in (ROOT / "kp").glob("*/__init__.py")} == set(PACKAGES)
    assert {path.name for path in (ROOT / "kp").glob("*.py")} == {"__init__.py", "__main__.py", "config.py"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_from_lower_floors(package):
    for path in (ROOT / "kp" / package).rglob("*.py"):
        for other in imported(path) - {package}:
            assert FLOORS[other] < FLOORS[package], f"{path.relative_to(ROOT)} imports kp.{other}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_holds(package):
    docstring = ast.get_docstring(ast.parse((ROOT / "kp" / package / "__init__.py").read_text()))
    assert docstring
    assert len(docstring.splitlines()) <= 10


@pytest.mark.parametrize("path", [p for p in MODULES if p.name not in OWN_WARPS], ids=lambda p: p.stem)
def test_only_geometry_samples_or_warps(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
            assert not (node.attr == "resize" and isinstance(node.value, ast.Name) and node.value.id == "cv2")
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
    assert not names & SAMPLING


@pytest.mark.parametrize("script", ["train_homographic.py", "evaluate.py"])
def test_scripts_stay_thin(script):
    assert len((ROOT / script).read_text().splitlines()) < 80
