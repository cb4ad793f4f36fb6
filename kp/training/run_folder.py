"""The folder of a run: the names of its files, and that only one process at a time trains in it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kp.support.files import FileError, InUseError, check_writable, locked

WEIGHTS_FILE, CHECKPOINT_FILE = "weights.safetensors", "checkpoint.pt"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a run's folder, which is made if there is none: a second run in it would mix with the first.

    Raises:
        InUseError: another process trains there.
        FileError: nothing can be written there.
    """
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file: choose another folder for the run")
    check_writable(folder / CHECKPOINT_FILE)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / "run", wait=False))
        except InUseError:
            raise InUseError(
                f"another process trains in {folder}: wait for its end, or choose another folder"
            ) from None
        yield
