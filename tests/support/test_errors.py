"""Libraries say in many classes that memory ran out or a device failed; each is one line, a fault of kp is none."""

import cv2
import numpy as np
import pytest
import torch

from kp.cli.errors import exit_code
from kp.support.device import choose_device
from kp.support.errors import explained, is_out_of_memory, named, one_line

HUGE = 1 << 46  # bytes; more than a machine has, and than its address space may hold


def of_torch():
    torch.empty(HUGE, dtype=torch.uint8)


def of_numpy():
    np.zeros(1 << 60, np.uint8)


def of_python():
    bytes(1 << 62)


def of_opencv():
    cv2.copyMakeBorder(np.zeros((2, 2), np.uint8), 0, 1 << 30, 0, 1 << 30, cv2.BORDER_REPLICATE)


def of_cuda():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def of_cuda_without_text():
    raise torch.OutOfMemoryError()


SHORTAGES = [of_torch, of_numpy, of_python, of_opencv, of_cuda, of_cuda_without_text]


@pytest.mark.parametrize("allocate", SHORTAGES)
def test_a_lack_of_memory_is_known_in_every_class(allocate, capsys):
    with pytest.raises(Exception) as caught:  # noqa: PT011  # the class is the library's own
        allocate()
    assert is_out_of_memory(caught.value)
    with pytest.raises(ValueError, match=r"^fast on v_wall: out of memory"), named("fast on v_wall"):
        allocate()
    assert exit_code("kp", allocate, error_code=5) == 5
    error = capsys.readouterr().err
    assert error.startswith("kp: error: out of memory (")
    assert "--batch" in error
    assert error.count("\n") == 1


def test_other_errors_are_no_lack_of_memory():
    for error in (
        RuntimeError("shape '[3]' is invalid for input of size 4"),
        ValueError("the text says out of memory"),
        KeyError("out of memory"),
    ):
        assert not is_out_of_memory(error)
        assert explained(error) is None


def test_a_device_that_fails_is_one_line(capsys):
    def fail():
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")

    assert exit_code("kp", fail) == 1
    error = capsys.readouterr().err
    assert "choose another with --device" in error
    assert error.count("\n") == 1


def test_a_fault_of_kp_keeps_its_traceback():
    for raised in (RuntimeError("shape"), KeyError("name"), TypeError("no number")):

        def fail(raised=raised):
            raise raised

        with pytest.raises(type(raised)):
            exit_code("kp", fail)


def test_what_a_library_says_of_an_input_is_about_that_input():
    with pytest.raises(ValueError, match=r"^kp on v_wall: RuntimeError: .*tensor"), named("kp on v_wall"):
        torch.nn.functional.max_pool2d(torch.zeros(1, 1, 0, 0), 3)
    with pytest.raises(ValueError, match=r"^kp on v_wall: error: "), named("kp on v_wall"):
        cv2.cornerHarris(np.zeros((0, 0), np.float32), 2, 3, 0.04)
    with pytest.raises(KeyError), named("kp on v_wall"):
        {}["a fault of kp"]


@pytest.mark.parametrize(
    "name", ["hpu", "privateuseone", "meta", "cuda:99", "abacus", "", "cuda:-1", "cuda:9" + "9" * 30]
)
def test_a_device_that_is_not_there_is_one_line(name):
    with pytest.raises(ValueError, match="here: choose another with --device"):
        choose_device(name)


def test_a_long_message_keeps_both_ends_as_one_line():
    """What failed is said first, and why last."""
    text = one_line(ValueError("no weights:\n" + "tried elsewhere, " * 40 + "name or service not known"))
    assert len(text) in (299, 300)
    assert text.startswith("no weights: tried elsewhere,")
    assert " ... " in text
    assert text.endswith("name or service not known")
    assert one_line(ValueError("a" * 300)) == "a" * 300
