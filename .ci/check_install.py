"""What an installed kp needs: run by .ci/run in an environment that holds its core dependencies only."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch

SLOWEST = 0.2  # seconds that ``import kp`` may add to ``import torch``
TIME = "import time, torch; began = time.perf_counter(); import kp; print(time.perf_counter() - began)"


def main() -> None:
    import kp
    from kp.features import describe, match  # noqa: F401  # they need no more than the core

    assert Path(kp.__file__).is_relative_to(sys.prefix), f"{kp.__file__} is not the installed package"
    with torch.inference_mode():
        scores = kp.load_detector()(torch.zeros(1, 1, 48, 64))
    assert scores.shape == (1, 1, 48, 64)
    extra = [name for name in ("matplotlib", "skimage", "scipy", "tensorboard", "onnx") if find_spec(name)]
    assert not extra, f"core dependencies brought {extra}"
    missing = subprocess.run(["kp", "models"], capture_output=True, text=True)
    assert missing.returncode == 1, missing
    assert "pip install 'kp[all]'" in missing.stderr, missing.stderr
    times = [
        float(subprocess.run([sys.executable, "-c", TIME], capture_output=True, text=True).stdout) for _ in range(5)
    ]
    assert median(times) < SLOWEST, f"import kp takes {median(times):.2f} s more than import torch"
    print(f"core install: load_detector works, import kp takes {median(times) * 1e3:.0f} ms more than import torch")


main()
