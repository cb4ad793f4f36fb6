"""Fetching HPatches from a server of this machine that does all that servers and networks do, and from bad archives."""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import socket
import stat
import threading
import time
import zipfile
from collections import namedtuple
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from kp.data import download, hpatches
from kp.data.download import DownloadError, fetch_hpatches

FOLDER = "hpatches-sequences-release"
NAMES = ("i_lamp", "v_wall")


def official(seed=0, prefix=f"{FOLDER}/"):
    """Names and bytes of a release with two sequences of six pictures of noise, of another size for each seed."""
    random = np.random.default_rng(seed)
    files = {}
    for name in NAMES:
        for k in range(1, 7):
            files[f"{prefix}{name}/{k}.ppm"] = f"P6\n40 {30 + seed}\n255\n".encode() + random.bytes(
                40 * (30 + seed) * 3
            )
            if k > 1:
                files[f"{prefix}{name}/H_1_{k}"] = f"1 0 {k}\n0 1 0\n0 0 1\n".encode()
    return files


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return buffer.getvalue()


GOOD, OTHER = zipped(official()), zipped(official(seed=1))


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's fields tell it."""

    def do_GET(self):
        s = self.server
        s.requests.append(self.headers)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file.zip")
            return self.end_headers()
        if s.errors:
            return self.send_error(s.errors.pop(0))
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        still = self.headers["If-Range"] in (None, s.tag)
        start = int(wanted[1]) if wanted and still and s.ranges else 0
        if start >= len(s.body) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(s.body)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(s.body) - 1}/{len(s.body)}")
        if s.length:
            self.send_header("Content-Length", str(len(s.body) - start))
        if s.tag:
            self.send_header(s.tag_name, s.tag)
        self.end_headers()
        upto = s.cuts.pop(0) if s.cuts else len(s.body)
        self.wfile.write(s.body[start:upto])
        if s.stalls:
            s.stalls.pop().wait(5)

    def log_message(self, *_):
        """Keep quiet."""


class Server(ThreadingHTTPServer):
    """``cuts``: byte of the file at which each answer in turn breaks off; ``errors``: HTTP codes to answer first."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.ranges, self.length, self.tag_name, self.tag = GOOD, True, True, "ETag", '"one"'
        self.requests, self.cuts, self.errors, self.stalls = [], [], [], []
        self.url = f"http://127.0.0.1:{self.server_port}/file.zip"

    def handle_error(self, *_):
        """A client that hangs up is what some tests are about."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as s:
        thread = threading.Thread(target=s.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield s
        s.shutdown()
        thread.join()


class Bar(tqdm):
    """A bar that draws nothing and keeps what it was told."""

    def __init__(self, *args, **settings):
        self.kind, self.first, self.whole = settings["unit"], settings.get("initial", 0), settings.get("total")
        self.moved = 0
        super().__init__(*args, **settings, disable=True)

    def update(self, n=1):
        self.moved += n

    def __iter__(self):
        for item in self.iterable:
            self.update()
            yield item


def stopping(error, unit, after):
    """Bars of which those of one unit raise an error once more than ``after`` bytes or files went by."""

    class Stopping(Bar):
        def update(self, n=1):
            super().update(n)
            if self.kind == unit and self.moved > after:
                raise error

    return Stopping


def fetch(root, url, bar=Bar, pauses=(0, 0, 0)):
    return fetch_hpatches(root, url, bar, pauses)


def error(root, url, **settings):
    with pytest.raises(DownloadError) as caught:
        fetch(root, url, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def there(folder):
    """What a folder has, at any depth, folders left out."""
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if not f.is_dir()}


def is_whole(folder, files=None):
    files = official(prefix="") if files is None else files
    return there(folder) == set(files) and all((folder / n).read_bytes() == data for n, data in files.items())


PART, NOTE = f"{FOLDER}.zip.part", f"{FOLDER}.zip.part.json"


@pytest.mark.parametrize("above", [".", "a/b"])
def test_a_new_folder_gets_the_sequences_and_a_record_beside_it(tmp_path, server, above):
    root = tmp_path / above / "data"
    assert fetch(root, server.url) == root
    assert is_whole(root)
    assert [s.name for s in hpatches.read(root)] == ["i_lamp", "v_wall"]
    assert there(root.parent) == {f"data/{n}" for n in official(prefix="")} | {"data.json"}
    record = json.loads((root.parent / "data.json").read_text())
    assert datetime.fromisoformat(record.pop("date")).utcoffset().total_seconds() == 0
    assert record == {"url": server.url, "size": len(GOOD), "sha256": hashlib.sha256(GOOD).hexdigest()}


def test_a_folder_that_is_there_without_sequences_gets_them_in_the_official_folder(tmp_path, server):
    (tmp_path / "mine.txt").write_text("hello")
    assert fetch(tmp_path, server.url) == tmp_path / FOLDER
    assert is_whole(tmp_path / FOLDER)
    assert len(hpatches.read(tmp_path)) == 2
    assert (tmp_path / "mine.txt").read_text() == "hello"


def test_an_archive_of_bare_sequences_and_a_deep_one_will_do_and_files_beside_them_are_left_out(tmp_path, server):
    server.body = zipped(official(prefix=""))
    assert is_whole(fetch(tmp_path / "bare", server.url))
    deep = official(prefix=f"a/{FOLDER}/") | {f"__MACOSX/a/{FOLDER}/v_wall/._H_1_2": b"x", "a/README": b"x"}
    server.body = zipped(deep)
    assert is_whole(fetch(tmp_path / "deep", server.url))


def test_the_default_is_the_official_archive_and_what_is_fetched_can_be_read_like_the_rest():
    assert fetch_hpatches.__defaults__[:2] == (hpatches.URL, tqdm)
    assert all(a < b for a, b in zip(download.PAUSES, download.PAUSES[1:], strict=False))


def test_d2_net_leaves_out_5_of_57_and_3_of_59_sequences():
    assert sorted(name[:2] for name in download.D2NET_LEFT_OUT) == ["i_"] * 5 + ["v_"] * 3  # 52 and 56 in its notebook


def test_a_redirect_is_followed_also_to_resume(tmp_path, server):
    server.cuts = [5000]
    assert is_whole(fetch(tmp_path / "data", server.url.replace("file.zip", "moved")))
    assert [r["Range"] for r in server.requests] == [None, None, "bytes=5000-", "bytes=5000-"]


def test_sequences_that_are_there_are_left_alone(tmp_path, server, capsys):
    root = fetch(tmp_path / "data", server.url)
    (root / "i_lamp" / "1.ppm").write_text("mine")
    before, asked = there(tmp_path), len(server.requests)
    server.body = OTHER
    assert fetch(root, server.url) == root
    assert "is already there, with 2 sequences" in capsys.readouterr().err
    assert (there(tmp_path), len(server.requests)) == (before, asked)
    assert (root / "i_lamp" / "1.ppm").read_text() == "mine"
    assert fetch(root / "v_wall", server.url) == root / "v_wall"
    assert len(server.requests) == asked


def test_a_folder_in_the_way_is_not_touched(tmp_path, server):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "thesis.tex").write_text("mine")
    assert "is in the way" in error(tmp_path, server.url)
    assert "is in the way" in error(tmp_path / FOLDER / "thesis.tex", server.url)
    assert there(tmp_path) == {f"{FOLDER}/thesis.tex"}
    assert server.requests == []


def test_a_folder_that_cannot_be_and_an_address_that_is_none_are_one_line(tmp_path):
    assert "cannot be read or written" in error(tmp_path / ("x" * 300), "http://127.0.0.1/")
    assert "unknown url type" in error(tmp_path / "data", "file.zip")


def test_an_archive_put_there_by_hand_is_used_and_kept(tmp_path, server):
    (tmp_path / f"{FOLDER}.zip").write_bytes(GOOD)
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert server.requests == []
    assert (tmp_path / f"{FOLDER}.zip").read_bytes() == GOOD
    assert json.loads((tmp_path / "data.json").read_text())["url"].startswith("file:///")


def test_a_bad_archive_put_there_by_hand_is_named_and_kept(tmp_path, server):
    (tmp_path / f"{FOLDER}.zip").write_bytes(GOOD[:9000])
    assert f"{FOLDER}.zip cannot be unpacked" in error(tmp_path / "data", server.url)
    assert there(tmp_path) == {f"{FOLDER}.zip"}


def test_a_dropped_connection_is_gone_on_with(tmp_path, server):
    server.cuts = [5000]
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert [(r["Range"], r["If-Range"]) for r in server.requests] == [(None, None), ("bytes=5000-", '"one"')]


def test_the_bar_is_told_of_every_byte_and_of_those_that_were_there(tmp_path, server):
    server.cuts, made = [5000], []

    def bar(*args, **settings):
        made.append(Bar(*args, **settings))
        return made[-1]

    fetch(tmp_path / "data", server.url, bar)
    told = [(b.kind, b.first, b.moved, b.whole) for b in made]
    size = len(GOOD)
    assert told == [("B", 0, 5000, size), ("B", 5000, size - 5000, size), ("file", 0, len(official()), None)]


def test_pauses_grow_and_begin_again_when_more_has_come(tmp_path, server, monkeypatch):
    slept = []
    monkeypatch.setattr(download.time, "sleep", slept.append)
    server.cuts = [3000, 3000, 6000, 6000, 6000]
    assert "6000 bytes are there" in error(tmp_path / "data", server.url, pauses=(1, 2))
    assert slept == [1, 2, 1, 2]


def test_a_server_that_ignores_ranges_is_begun_again_with(tmp_path, server):
    server.cuts, server.ranges = [5000], False
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert [r["Range"] for r in server.requests] == [None, "bytes=5000-"]


def test_a_file_that_changes_on_the_way_is_not_mixed(tmp_path, server):
    server.cuts = [5000]
    error(tmp_path / "data", server.url, pauses=())
    server.body, server.tag = OTHER, '"two"'
    assert is_whole(fetch(tmp_path / "data", server.url), official(seed=1, prefix=""))
    assert [(r["Range"], r["If-Range"]) for r in server.requests] == [(None, None), ("bytes=5000-", '"one"')]


@pytest.mark.parametrize(
    ("name", "tag", "sent"),
    [("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT", True), ("ETag", 'W/"weak"', False), ("ETag", None, False)],
)
def test_what_tells_a_file_from_a_later_one(tmp_path, server, name, tag, sent):
    server.tag_name, server.tag, server.cuts = name, tag, [5000]
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert [(r["Range"], r["If-Range"]) for r in server.requests[1:]] == [("bytes=5000-", tag if sent else None)]


def test_without_a_tag_a_file_of_another_size_is_begun_again(tmp_path, server):
    server.tag, server.cuts = None, [5000]
    error(tmp_path / "data", server.url, pauses=())
    other = official(seed=1) | {f"{FOLDER}/README": b"longer"}
    server.body = zipped(other)
    assert is_whole(fetch(tmp_path / "data", server.url), {n.removeprefix(f"{FOLDER}/"): d for n, d in other.items()})
    assert [r["Range"] for r in server.requests] == [None, "bytes=5000-", None]


def test_a_part_of_another_address_is_not_gone_on_with(tmp_path, server):
    server.cuts = [5000]
    error(tmp_path / "data", server.url + "?old", pauses=())
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert [r["Range"] for r in server.requests] == [None, None]


def test_a_part_is_dropped_of_which_nothing_is_known(tmp_path, server):
    (tmp_path / PART).write_bytes(GOOD[:5000])
    (tmp_path / NOTE).write_text("{")
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert [r["Range"] for r in server.requests] == [None]


def test_a_part_longer_than_it_can_be_is_begun_again(tmp_path, server):
    server.cuts = [5000]
    error(tmp_path / "data", server.url, pauses=())
    (tmp_path / PART).write_bytes(GOOD + b"x")
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert [r["Range"] for r in server.requests] == [None, None]


def test_a_whole_part_of_unknown_size_is_recognised(tmp_path, server):
    server.length = False
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path / "data", server.url, stopping(KeyboardInterrupt(), "file", 3))
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert [r["Range"] for r in server.requests] == [None, f"bytes={len(GOOD)}-"]


def test_a_part_of_a_file_that_has_become_shorter_is_begun_again(tmp_path, server):
    server.length, server.tag, server.body = False, None, GOOD + OTHER
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path / "data", server.url, stopping(KeyboardInterrupt(), "file", 3))
    server.body = GOOD
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert [r["Range"] for r in server.requests] == [None, f"bytes={len(GOOD + OTHER)}-", None]


def test_a_server_that_always_stops_early_is_one_line_and_keeps_the_part(tmp_path, server):
    server.cuts = [5000] * 9
    message = error(tmp_path / "data", server.url)
    assert f"it ended after 5000 of {len(GOOD)} bytes" in message
    assert f"run it again (5000 bytes are there), or put the file at {tmp_path / FOLDER}.zip by hand" in message
    assert there(tmp_path) == {PART, NOTE}
    assert (tmp_path / PART).read_bytes() == GOOD[:5000]


def test_a_server_that_falls_silent_is_left(tmp_path, server, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    server.cuts, silence = [5000], threading.Event()
    server.stalls = [silence]
    began = time.monotonic()
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert time.monotonic() - began < 4
    silence.set()
    assert [r["Range"] for r in server.requests] == [None, "bytes=5000-"]


def test_no_server_is_one_line_that_says_what_to_do(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{s.getsockname()[1]}/file.zip"
    message = error(tmp_path / "data", url)
    assert message.startswith(f"{url} cannot be downloaded ({os.strerror(errno.ECONNREFUSED)})")
    assert f"put the file at {tmp_path / FOLDER}.zip by hand" in message
    assert there(tmp_path) == set()


def test_a_server_that_is_busy_is_asked_again_and_one_that_says_no_is_not(tmp_path, server):
    server.errors = [503, 429]
    assert is_whole(fetch(tmp_path / "data", server.url))
    server.errors, server.requests = [404], []
    message = error(tmp_path / "more" / "data", server.url)
    assert "answers 404 Not Found: look" in message
    assert f"put the file at {tmp_path / 'more' / FOLDER}.zip by hand" in message
    assert len(server.requests) == 1
    assert there(tmp_path / "more") == set()


def test_a_web_page_is_no_archive_and_costs_nothing_that_was_there(tmp_path, server):
    server.body, server.ranges = b"<!DOCTYPE html><title>Hotel</title>", False
    assert "gives no zip archive but b'<!DOCTYPE html>" in error(tmp_path / "data", server.url)
    assert there(tmp_path) == set()
    server.body, server.cuts = GOOD, [5000]
    error(tmp_path / "data", server.url, pauses=())
    server.body = b"<!DOCTYPE html><title>Hotel</title>"
    assert "gives no zip archive" in error(tmp_path / "data", server.url)
    assert (tmp_path / PART).read_bytes() == GOOD[:5000]
    server.body, server.ranges = GOOD, True
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert server.requests[-1]["Range"] == "bytes=5000-"


def test_ctrl_c_keeps_the_part_for_the_next_run(tmp_path, server):
    server.cuts = [len(GOOD) // 2]
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path / "data", server.url, stopping(KeyboardInterrupt(), "B", 2000))
    assert there(tmp_path) == {PART, NOTE}
    have = (tmp_path / PART).stat().st_size
    assert 2000 < have < len(GOOD)
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert [r["Range"] for r in server.requests] == [None, f"bytes={have}-"]


def test_an_interrupted_unpacking_leaves_no_half_dataset_and_needs_no_second_download(tmp_path, server):
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path / "data", server.url, stopping(KeyboardInterrupt(), "file", 7))
    assert sorted(os.listdir(tmp_path)) == [PART, NOTE]
    assert is_whole(fetch(tmp_path / "data", server.url))
    assert len(server.requests) == 1


def test_until_the_last_step_there_is_nothing_at_the_target(tmp_path, server, monkeypatch):
    def rename(source, target):
        assert not target.exists()
        assert is_whole(Path(source))
        assert Path(source).stat().st_dev == target.parent.stat().st_dev
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(download.os, "rename", rename)
    assert "input/output error" in error(tmp_path / "data", server.url).lower()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_truncated_archive_is_noticed_and_deleted(tmp_path, server, share):
    server.body = GOOD[: int(len(GOOD) * share)]
    assert "cannot be unpacked, File is not a zip file: download https://huggingface.co/" in error(
        tmp_path / "data", server.url
    )
    assert there(tmp_path) == set()
    server.body = GOOD
    assert is_whole(fetch(tmp_path / "data", server.url))


@pytest.mark.parametrize("name", ["v_wall/3.ppm", "v_wall/H_1_3"])  # stored, and deflated
def test_a_damaged_member_is_noticed_and_recorded_nowhere(tmp_path, server, name):
    at = GOOD.find(f"{FOLDER}/{name}".encode()) + len(f"{FOLDER}/{name}") + (0 if "H" in name else 2000)
    server.body = GOOD[:at] + bytes([GOOD[at] ^ 4]) + GOOD[at + 1 :]
    assert "cannot be unpacked" in error(tmp_path / "data", server.url)
    assert os.listdir(tmp_path) == []
    server.body = GOOD
    assert is_whole(fetch(tmp_path / "data", server.url))


def test_another_archive_than_the_first_is_refused_until_the_record_goes(tmp_path, server):
    root = fetch(tmp_path / "data", server.url)
    record = (tmp_path / "data.json").read_text()
    root.rename(tmp_path / "old")
    server.body = OTHER
    message = error(root, server.url)
    for data in (GOOD, OTHER):
        assert f"{len(data)} bytes with sha256 {hashlib.sha256(data).hexdigest()}" in message
    assert str(tmp_path / "data.json") in message
    assert (tmp_path / "data.json").read_text() == record
    assert not root.exists()
    assert is_whole(tmp_path / "old")
    (tmp_path / "data.json").unlink()
    assert is_whole(fetch(root, server.url), official(seed=1, prefix=""))
    assert len(server.requests) == 2


def test_the_same_archive_again_is_taken_and_keeps_its_record(tmp_path, server):
    root = fetch(tmp_path / "data", server.url)
    record = json.loads((tmp_path / "data.json").read_text()) | {"date": "2020-01-01T00:00:00+00:00"}
    (tmp_path / "data.json").write_text(json.dumps(record))
    shutil.rmtree(root)
    assert is_whole(fetch(root, server.url))
    assert json.loads((tmp_path / "data.json").read_text()) == record


def patches():
    return {f"hpatches-release/{name}/{k}.png": b"strip" for name in NAMES for k in ("ref", "e1", "h1", "t1")}


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (patches(), "it is the patches release (65 x 65 pixels), not the sequences: download https://huggingface.co/"),
        ({"photos/1.jpg": b"x", "H_1_2": b"x"}, "it has no sequences in it"),
        ({}, "it has no sequences in it"),
    ],
)
def test_an_archive_of_something_else(tmp_path, server, files, complaint):
    server.body = zipped(files)
    assert complaint in error(tmp_path / "data", server.url)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        f"{FOLDER}/../../evil",
        f"{FOLDER}/v_wall/..",
        "{tmp}/evil",
        "C:/evil",
        "C:evil",
        "..\\evil",
        f"{FOLDER}/a\\..\\evil",
    ],
)
def test_a_member_that_leads_out_is_refused_before_anything_is_written(tmp_path, server, name, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "extract", lambda *_: pytest.fail("unpacked"))
    server.body = zipped(official() | {name.format(tmp=tmp_path): b"evil"})
    assert "leads out of the folder" in error(tmp_path / "in" / "data", server.url)
    assert there(tmp_path) == set()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_member_that_is_no_file_is_refused(tmp_path, server, kind, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "extract", lambda *_: pytest.fail("unpacked"))
    link = zipfile.ZipInfo(f"{FOLDER}/v_wall/7.ppm")
    link.create_system, link.external_attr = 3, (kind | 0o777) << 16
    server.body = zipped(official() | {link: b"/etc/passwd"})
    assert "is a link" in error(tmp_path / "data", server.url)
    assert there(tmp_path) == set()


def test_a_bomb_is_refused(tmp_path, server, monkeypatch):
    monkeypatch.setattr(download, "LIMIT", 2_000_000)
    server.body = zipped(official() | {f"{FOLDER}/bomb": bytes(2_000_000)})
    assert len(server.body) < 200_000
    assert "it would be 0 GB" in error(tmp_path / "data", server.url)
    assert there(tmp_path) == set()


def test_an_encrypted_archive_is_one_line(tmp_path, server):
    server.body = bytearray(GOOD)
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        server.body[GOOD.find(header) + flags] |= 1
    server.body = bytes(server.body)
    assert "cannot be unpacked" in error(tmp_path / "data", server.url)


def test_a_full_disk_is_noticed_before_the_download_and_before_the_unpacking(tmp_path, server, monkeypatch):
    usage, free = namedtuple("usage", "free"), [2 * len(GOOD) - 1]
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(free[0]))
    assert "0.0 GB needed, 0.0 GB free" in error(tmp_path / "data", server.url)
    assert there(tmp_path) == set()
    unpacked = sum(map(len, official().values()))
    (tmp_path / f"{FOLDER}.zip").write_bytes(GOOD)
    free[0] = unpacked - 1
    assert "0.0 GB needed, 0.0 GB free" in error(tmp_path / "data", server.url)
    assert there(tmp_path) == {f"{FOLDER}.zip"}
    free[0] = unpacked
    assert is_whole(fetch(tmp_path / "data", server.url))


@pytest.mark.parametrize("unit", ["B", "file"])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing_half_unpacked(tmp_path, server, unit):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    message = error(tmp_path / "data", server.url, bar=stopping(full, unit, 5))
    assert message.startswith(f"{tmp_path / 'data'} cannot be read or written ({full.strerror}): make room")
    assert sorted(os.listdir(tmp_path)) == [PART, NOTE]
    assert is_whole(fetch(tmp_path / "data", server.url))
