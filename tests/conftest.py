"""What several test modules need and takes long to make; and how many threads one of several test processes takes."""

import os

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # before torch is there, and for what tests start
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import pytest
import torch
from torch.torch_version import TorchVersion


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory):
    """The default detector, exported."""
    if TorchVersion(torch.__version__) < "2.7":
        pytest.skip("torch 2.6 cannot export for any size")
    from kp.cli.main import main

    path = tmp_path_factory.mktemp("onnx") / "folder" / "kp.onnx"
    assert main(["export", str(path)]) == 0
    return path
