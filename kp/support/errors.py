"""Errors as one line of text, and which errors of libraries are the machine's rather than a fault of kp."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager

_CUT = " ... "  # in place of the middle of a long message
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|insufficient memory|can(?:'t|not) allocate|failed to allocate|bad_alloc"
)
_DEVICE_FAILED = re.compile(r"cuda error|cudnn error|cublas error|cudnn_status|cublas_status|device-side assert")


def one_line(error: BaseException, max_length: int = 300) -> str:
    """The message of an error without line breaks, at most ``max_length`` characters: of a longer one both ends.

    For an error of the operating system this is its own text, without the path. For an error without a message it is
    the name of its class. Torch's message about a file that holds more than weights is advice to run what it holds: it
    is replaced.
    """
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of plain weights"
    inner = getattr(error, "reason", error)  # urllib wraps the first error
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    text = " ".join(str(text).split())
    half = (max_length - len(_CUT)) // 2
    return text if len(text) <= max_length else text[:half] + _CUT + text[-half:]


def is_library_error(error: BaseException) -> bool:
    """Whether an error is of the classes that torch, OpenCV and onnxruntime raise for everything."""
    return isinstance(error, RuntimeError) or type(error).__module__.split(".")[0] in ("cv2", "onnxruntime")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out.

    Python and numpy raise MemoryError, CUDA torch.OutOfMemoryError. Torch's allocator on the CPU raises a plain
    RuntimeError, and OpenCV a cv2.error: their text tells.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return is_library_error(error) and bool(_NO_MEMORY.search(str(error).lower()))


def explained(error: BaseException) -> str | None:
    """What happened and what to do, in one line, where the machine failed; None for any other error."""
    if is_out_of_memory(error):
        advice = "use smaller images, fewer at once (--batch) or fewer --workers, or another --device"
        return f"out of memory ({one_line(error, 120)}): {advice}"
    if is_library_error(error) and _DEVICE_FAILED.search(str(error).lower()):
        return f"the device failed ({one_line(error, 120)}): choose another with --device"
    return None


@contextmanager
def named(what: str) -> Iterator[None]:
    """Inside the ``with`` block, what the input, the machine or a library did wrong is a ValueError about ``what``.

    Raises:
        ValueError: instead of ValueError, MemoryError, RuntimeError or cv2.error; one line that begins with ``what``.
    """
    try:
        yield
    except Exception as error:
        text = explained(error)
        if text is None and isinstance(error, ValueError):
            text = one_line(error)
        if text is None and is_library_error(error):
            text = f"{type(error).__name__}: {one_line(error)}"
        if text is None:
            raise
        raise ValueError(f"{what}: {text}") from error
