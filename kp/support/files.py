"""Writing files. A reader sees the whole old file or the whole new file, never a part of one.

Who reads a file, changes its content and writes it again does so inside :func:`locked`, or the change of another
process in between would be lost.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kp.support.errors import one_line


class FileError(OSError):
    """A file cannot be written. The message is one line that names the file."""


class InUseError(FileError):
    """Another process holds a file or a folder."""


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a file for this process, by a lock on ``.<name>.lock`` beside it, whose folder is made if there is none.

    The operating system frees the lock when the process ends, also when it is killed; the empty lock file may stay.
    Within a process the lock may be taken again.

    Raises:
        InUseError: another process holds it, and ``wait`` is False.
        FileError: the lock file cannot be written.
    """
    path = path.resolve()
    lock = FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise InUseError(f"{path} is in use by another process") from None
    except OSError as error:
        raise FileError(f"{path} cannot be written: {one_line(error)}") from error
    try:
        yield
    finally:
        lock.release()


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Replace ``path`` by ``data`` in one step, and make its folder if there is none.

    If this fails, for example because the disk is full, the old file at ``path`` stays and no temporary file is left.
    Links are followed. If ``path`` is neither a file nor a folder, for example a pipe, the data are written to it.

    Raises:
        FileError: the file cannot be written.
    """
    try:
        _replace(path, data)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {one_line(error)}") from error


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A copy of a file, to change: it replaces the file if the block ends without an error. An empty path stays so.

    Raises:
        FileError: the file cannot be written.
    """
    try:
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            if path.exists():
                shutil.copy2(path, temporary)
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {one_line(error)}") from error


def digest(path: Path) -> str:
    """16 digits that say what is in a file, which need not fit into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def changed_since(path: Path, when: float) -> bool:
    """Whether a file was written after a time, in seconds since 1970, or is not there."""
    try:
        return path.stat().st_mtime > when
    except OSError:
        return True


def check_writable(path: Path | None) -> None:
    """Make the folder of a file that is to be written later, and write a probe there. None is accepted.

    Raises:
        FileError: the file could not be written, or ``path`` is a folder.
    """
    if path is None or (path.exists() and not path.is_file() and not path.is_dir()):
        return
    if path.is_dir():
        raise FileError(f"{path} is a folder: name a file in it")
    probe = path.resolve().with_name(".kp-probe")
    try:
        _replace(probe, b"")
        probe.unlink(missing_ok=True)  # another process may have removed it
    except OSError as error:
        raise FileError(f"{path} cannot be written: {one_line(error)}") from error


def _replace(path: Path, data: bytes | memoryview) -> None:
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
