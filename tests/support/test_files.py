"""Files are written whole or not at all."""

import os
import re
from pathlib import Path

import pytest

from kp.support.files import FileError, check_writable, write_file


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
