"""What an installed kp needs: run by .ci/run in an environment that holds its core dependencies only."""

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import cv2
import h5py
import torch

SLOWEST = 0.2  # seconds that ``import kp`` may add to ``import torch``
TIME = "import time, torch; began = time.perf_counter(); import kp; print(time.perf_counter() - began)"


def use_the_commands(folder: Path) -> None:
    """kp detect and kp match on pictures, as a new user would."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(15, 20, generator=generator).repeat_interleave(16, 0).repeat_interleave(16, 1)
    image = (blocks * 255).byte().numpy()
    for name, picture in (("a.png", image), ("b.png", image[8:, 8:])):
        cv2.imwrite(str(folder / name), picture)
    (folder / "broken.jpg").write_bytes(b"x")
    done = subprocess.run(["kp", "detect", ".", "--draw", "seen"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1, done
    assert "broken.jpg is truncated or no image" in done.stderr, done.stderr
    with h5py.File(folder / "keypoints.h5") as file:
        assert file["a.png"]["keypoints"].shape[1] == 2
        assert len(file["a.png"]["keypoints"]) > 50
    matched = subprocess.run(["kp", "match", "a.png", "b.png"], cwd=folder, capture_output=True, text=True)
    assert matched.returncode == 0, matched
    assert "homography, pixels of a.png to pixels of b.png" in matched.stdout, matched.stdout


def main() -> None:
    import kp
    from kp.features import describe, match  # noqa: F401  # they need no more than the core

    assert Path(kp.__file__).is_relative_to(sys.prefix), f"{kp.__file__} is not the installed package"
    with torch.inference_mode():
        scores = kp.load_detector()(torch.zeros(1, 1, 48, 64))
    assert scores.shape == (1, 1, 48, 64)
    use_the_commands(Path(tempfile.mkdtemp()))
    extra = [name for name in ("matplotlib", "skimage", "scipy", "tensorboard", "onnx") if find_spec(name)]
    assert not extra, f"core dependencies brought {extra}"
    missing = subprocess.run(["kp", "models"], capture_output=True, text=True)
    assert missing.returncode == 1, missing
    assert "pip install 'kp[all]'" in missing.stderr, missing.stderr
    times = [
        float(subprocess.run([sys.executable, "-c", TIME], capture_output=True, text=True).stdout) for _ in range(3)
    ]
    assert median(times) < SLOWEST, f"import kp takes {median(times):.2f} s more than import torch"
    print(f"core install: load_detector works, import kp takes {median(times) * 1e3:.0f} ms more than import torch")


main()
