"""Files are written whole or not at all."""

import os
import re
import sys
import time
from pathlib import Path

import pytest
from forked import Forked

from kp.support.files import FileError, InUseError, check_writable, locked, write_file


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    write_file(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=re.escape(f"{path} cannot be written: No space left on device")):
        write_file(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_through_a_link_and_its_folder_is_made(tmp_path):
    target, link = tmp_path / "deep" / "folder" / "file", tmp_path / "link"
    write_file(target, b"one")
    link.symlink_to(target)
    write_file(link, memoryview(b"two"))
    assert link.is_symlink()
    assert target.read_bytes() == b"two"


def test_a_place_that_cannot_be_written_is_found_before(tmp_path):
    check_writable(None)
    check_writable(Path("/dev/null"))
    check_writable(tmp_path / "new" / "file")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(FileError, match="is a folder"):
        check_writable(tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        check_writable(tmp_path / "file" / "below")


def hold():
    """Hold a file, and write another once it is held."""
    with locked(Path(sys.argv[1])):
        Path(sys.argv[2]).write_text("held")
        time.sleep(1000)


def test_a_file_is_held_against_other_processes_and_free_when_they_are_killed(tmp_path):
    path = tmp_path / "new" / "file"
    with Forked(hold, path, tmp_path / "held") as other:
        other.wait_for(tmp_path / "held")
        with pytest.raises(InUseError, match="is in use by another process"), locked(path, wait=False):
            pytest.fail("both hold it")
    with locked(path, wait=False), locked(path, wait=False):  # within a process it may be taken again
        assert not path.exists()


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"), locked(tmp_path / "file" / "below"):
        pytest.fail("held")
