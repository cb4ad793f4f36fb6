"""Shared fixtures, and the number of threads of each of several test processes."""

import os

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # before the import of torch; children inherit it
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import pytest  # and not torch: the process that hands out the tests needs none
from filelock import FileLock

SLOWEST = ("test_inference", "test_onnx", "test_notebooks", "test_readme", "test_distributed_training", "test_trainer")


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that short tests fill the end, when processes wait for the last."""
    items.sort(key=lambda item: item.path.stem not in SLOWEST)


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory, worker_id):
    """The path of the default detector as an ONNX file. It is made once for all test processes, in most of a minute."""
    import torch
    from torch.torch_version import TorchVersion

    if TorchVersion(torch.__version__) < "2.7":
        pytest.skip("torch 2.6 cannot export for any size")
    from kp.cli.main import main

    base = tmp_path_factory.getbasetemp()
    path = (base if worker_id == "master" else base.parent) / "folder" / "kp.onnx"  # the parent is of all processes
    with FileLock(path.parent.with_suffix(".lock")):
        if not path.exists():
            assert main(["export", str(path)]) == 0
    return path
