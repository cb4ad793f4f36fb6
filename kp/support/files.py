"""Writing files so that a reader sees all of the old one or all of the new one, never half of either."""

import os
import tempfile
from pathlib import Path

from kp.support.errors import one_line


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Replace ``path`` by ``data`` in one step; its folder is made if need be.

    On any failure, a full disk among them, what was at ``path`` stays as it was, nothing is left beside it, and OSError
    is raised. A link is followed; what is no file but, say, a pipe is written to as it is.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(data)
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class FileError(ValueError):
    """A file that cannot be written; the message is one line that names it."""


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write a file, complete or not at all, making its folder. Raises FileError, also when the disk is full."""
    try:
        write_atomically(path, data)
    except OSError as e:
        raise FileError(f"{path} cannot be written: {one_line(e)}") from None


def check_writable(path: Path | None) -> None:
    """Make the folder of a file to be written, if any, and try to write there. Raises FileError."""
    if path is None:
        return
    if path.is_dir():
        raise FileError(f"{path} is a folder: name a file in it")
    if path.exists() and not path.is_file():
        return  # a pipe, say
    probe = path.resolve().with_name(".kp-probe")
    try:
        write_atomically(probe, b"")
        probe.unlink(missing_ok=True)  # another rank may have been here
    except OSError as e:
        raise FileError(f"{path} cannot be written: {one_line(e)}") from None
