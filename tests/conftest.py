"""What several test modules need and takes long to make."""

import pytest
import torch
from torch.torch_version import TorchVersion

from kp.__main__ import main


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory):
    """The default detector, exported."""
    if TorchVersion(torch.__version__) < "2.7":
        pytest.skip("torch 2.6 cannot export for any size")
    path = tmp_path_factory.mktemp("onnx") / "folder" / "kp.onnx"
    assert main(["export", str(path)]) == 0
    return path
