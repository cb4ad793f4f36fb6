"""Fetching HPatches from a small hub on this machine, and unpacking good and bad archives put there by hand."""

import errno
import hashlib
import io
import os
import re
import stat
import sys
import threading
import time
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from kp.data import download, hpatches
from kp.data.download import DownloadError, fetch_hpatches

FOLDER = "hpatches-sequences-release"
PATH = f"/datasets/vbalnt/hpatches/resolve/main/{FOLDER}.zip"


def release(prefix=f"{FOLDER}/"):
    """Names and bytes of two sequences of six pictures of noise."""
    random = np.random.default_rng(0)
    files = {}
    for name in ("i_lamp", "v_wall"):
        for k in range(1, 7):
            files[f"{prefix}{name}/{k}.ppm"] = b"P6\n40 30\n255\n" + random.bytes(40 * 30 * 3)
            if k > 1:
                files[f"{prefix}{name}/H_1_{k}"] = f"1 0 {k}\n0 1 0\n0 0 1\n".encode()
    return files


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return buffer.getvalue()


GOOD = zipped(release())


class Handler(BaseHTTPRequestHandler):
    """The requests that the hub answers for one file: HEAD with a redirect to the storage, then GET there."""

    def do_HEAD(self):
        self.server.requests.append(("HEAD", self.path, self.headers))
        if not self.server.has_file:
            return self.send_error(404)
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}/storage")  # another host
        self.send_header("X-Linked-ETag", f'"{hashlib.sha256(self.server.body).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(self.server.body)))
        if self.server.is_hub:
            self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def do_GET(self):
        self.server.requests.append(("GET", self.path, self.headers))
        body = self.server.body
        start = int((re.match(r"bytes=(\d+)-", self.headers["Range"] or "") or [0, 0])[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self.wfile.write(body[start : self.server.cuts.pop(0) if self.server.cuts else len(body)])

    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture
def hub(monkeypatch):
    """``body``: the file. ``cuts``: the byte at which each answer in turn breaks off."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.body, server.cuts, server.requests = GOOD, [], []
        server.is_hub = server.has_file = True
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setattr(time, "sleep", lambda _: None)  # the pauses of the client
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def no_download(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("a download was tried"))


def by_hand(tmp_path, data):
    """Put an archive beside the folder ``tmp_path / "data"``, which is returned."""
    (tmp_path / f"{FOLDER}.zip").write_bytes(data)
    return tmp_path / "data"


def error(root):
    with pytest.raises(DownloadError) as caught:
        fetch_hpatches(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files_in(folder):
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if not f.is_dir()}


def is_whole(folder):
    files = release(prefix="")
    return files_in(folder) == set(files) and all((folder / n).read_bytes() == data for n, data in files.items())


# --- the download ---


def test_a_new_folder_gets_the_sequences_and_nothing_else_stays(tmp_path, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    root = tmp_path / "a" / "data"
    assert fetch_hpatches(root) == root
    assert is_whole(root)
    assert [s.name for s in hpatches.read(root)] == ["i_lamp", "v_wall"]
    assert os.listdir(root.parent) == ["data"]
    assert {path for _, path, _ in hub.requests} == {PATH, "/storage"}  # no telemetry
    assert not any("torch" in headers["User-Agent"] or headers["Authorization"] for _, _, headers in hub.requests)


def test_a_folder_with_other_files_gets_the_official_folder(tmp_path, hub):
    (tmp_path / "mine.txt").write_text("hello")
    assert fetch_hpatches(tmp_path) == tmp_path / FOLDER
    assert is_whole(tmp_path / FOLDER)
    assert sorted(os.listdir(tmp_path)) == [FOLDER, "mine.txt"]


def test_a_dropped_connection_is_resumed(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cuts = [5000]
    assert is_whole(fetch_hpatches(tmp_path / "data"))
    assert [headers["Range"] for method, _, headers in hub.requests if method == "GET"] == [None, "bytes=5000-"]


def test_an_interrupted_unpacking_leaves_no_part_and_needs_no_second_download(tmp_path, hub, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch_hpatches(tmp_path / "data")
    assert os.listdir(tmp_path) == [f".{FOLDER}.download"]
    assert is_whole(fetch_hpatches(tmp_path / "data"))
    assert [method for method, _, _ in hub.requests].count("GET") == 1
    assert os.listdir(tmp_path) == ["data"]


def test_a_bad_downloaded_archive_is_deleted(tmp_path, hub):
    hub.body = GOOD[:9000]
    assert f"File is not a zip file: download {download.URL} and put it at" in error(tmp_path / "data")
    assert os.listdir(tmp_path) == []


def offline(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def no_server(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")


def another_server(hub, monkeypatch):
    hub.is_hub = False


def no_file(hub, monkeypatch):
    hub.has_file = False


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (offline, "offline mode is enabled"),
        (no_server, "refused"),
        (another_server, "X-Repo-Commit"),
        (no_file, "404"),
    ],
)
def test_no_answer_is_one_line_with_the_address_and_the_place_for_the_file(tmp_path, hub, monkeypatch, prepare, reason):
    prepare(hub, monkeypatch)
    message = error(tmp_path / "data")
    assert reason in message
    assert message.startswith(f"{os.environ['HF_ENDPOINT'].rstrip('/')}{PATH} cannot be downloaded (")
    assert message.endswith(f"put it at {tmp_path / FOLDER}.zip")
    assert os.listdir(tmp_path) == []


def test_without_the_library_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = error(tmp_path / "data")
    assert 'huggingface_hub: pip install "kp[eval]", or download https://huggingface.co/datasets/vbalnt/' in message
    assert message.endswith(f"put it at {tmp_path / FOLDER}.zip")


# --- what is there already ---


def test_sequences_that_are_there_are_left_alone(tmp_path, no_download, capsys):
    root = fetch_hpatches(by_hand(tmp_path, GOOD))
    (root / "i_lamp" / "1.ppm").write_text("mine")
    assert fetch_hpatches(root) == root
    assert "is already there, with 2 sequences" in capsys.readouterr().err
    assert (root / "i_lamp" / "1.ppm").read_text() == "mine"
    assert fetch_hpatches(root / "v_wall") == root / "v_wall"


def test_a_folder_or_file_in_the_way_is_not_touched(tmp_path, no_download):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "thesis.tex").write_text("mine")
    assert "is in the way" in error(tmp_path)
    assert "is in the way" in error(tmp_path / FOLDER / "thesis.tex")
    assert files_in(tmp_path) == {f"{FOLDER}/thesis.tex"}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, no_download):
    assert "cannot be read or written" in error(tmp_path / ("x" * 300))


# --- archives ---


@pytest.mark.parametrize(
    "files",
    [
        release(),
        release(prefix=""),
        release(prefix=f"a/{FOLDER}/") | {f"__MACOSX/a/{FOLDER}/v_wall/._H_1_2": b"x", "a/README": b"x"},
    ],
    ids=["official", "bare", "deep"],
)
def test_an_archive_put_there_by_hand_is_used_and_kept(tmp_path, no_download, files):
    archive = zipped(files)  # which holds the time
    root = by_hand(tmp_path, archive)
    assert is_whole(fetch_hpatches(root))
    assert sorted(os.listdir(tmp_path)) == ["data", f"{FOLDER}.zip"]
    assert (tmp_path / f"{FOLDER}.zip").read_bytes() == archive


def damaged(name):
    """An archive with one bit of a member changed."""
    at = GOOD.find(f"{FOLDER}/{name}".encode()) + len(f"{FOLDER}/{name}") + (0 if "H" in name else 2000)
    return GOOD[:at] + bytes([GOOD[at] ^ 4]) + GOOD[at + 1 :]


def encrypted():
    data = bytearray(GOOD)
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[GOOD.find(header) + flags] |= 1
    return bytes(data)


def special(kind):
    """The release with a member that is not a file."""
    member = zipfile.ZipInfo(f"{FOLDER}/v_wall/7.ppm")
    member.create_system, member.external_attr = 3, (kind | 0o777) << 16
    return zipped(release() | {member: b"/etc/passwd"})


PATCHES = {f"hpatches-release/i_lamp/{k}.png": b"strip" for k in ("ref", "e1", "h1", "t1")}
LEAVES = "is a link or leads out of the folder"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (GOOD[:9000], "File is not a zip file"),
        (damaged("v_wall/3.ppm"), "cannot be unpacked"),  # a stored member
        (damaged("v_wall/H_1_3"), "cannot be unpacked"),  # a deflated one
        (encrypted(), "cannot be unpacked"),
        (zipped(PATCHES), "it is the patches release (65 x 65 pixels), not the sequences"),
        (zipped({"photos/1.jpg": b"x", "H_1_2": b"x"}), "it has no sequences in it"),
        *[(zipped(release() | {name: b"evil"}), LEAVES) for name in ("../evil", f"{FOLDER}/../../evil", "/evil")],
        *[(zipped(release() | {name: b"evil"}), LEAVES) for name in ("C:evil", "..\\evil", f"{FOLDER}/v_wall/..")],
        *[(special(kind), LEAVES) for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR)],
        (zipped(release() | {f"{FOLDER}/bomb": bytes(2_000_000)}), "it would be 0 GB"),
    ],
)
def test_a_bad_archive_is_one_line_and_leaves_nothing(tmp_path, no_download, data, complaint, monkeypatch):
    monkeypatch.setattr(download, "MAX_UNPACKED_BYTES", 2_000_000)
    (tmp_path / "in").mkdir()
    message = error(by_hand(tmp_path / "in", data))
    assert complaint in message
    assert message.endswith(f": download {download.URL} and put it at {tmp_path / 'in' / FOLDER}.zip")
    assert files_in(tmp_path) == {f"in/{FOLDER}.zip"}
    assert os.listdir(tmp_path / "in") == [f"{FOLDER}.zip"]


def test_a_full_disk_is_noticed_before_unpacking(tmp_path, no_download, monkeypatch):
    root, unpacked = by_hand(tmp_path, GOOD), sum(map(len, release().values()))
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda _: namedtuple("usage", "free")(unpacked - 1))
        assert "0.0 GB needed, 0.0 GB free" in error(root)
    assert os.listdir(tmp_path) == [f"{FOLDER}.zip"]
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: namedtuple("usage", "free")(unpacked))
    assert is_whole(fetch_hpatches(root))


def test_a_failure_of_the_last_step_leaves_nothing(tmp_path, no_download, monkeypatch):
    def rename(source, target):
        assert not target.exists()
        assert is_whole(Path(source))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(download.os, "rename", rename)
    assert "input/output error" in error(by_hand(tmp_path, GOOD)).lower()
    assert os.listdir(tmp_path) == [f"{FOLDER}.zip"]


def test_d2_net_leaves_out_5_of_57_and_3_of_59_sequences():
    assert sorted(name[:2] for name in download.D2NET_LEFT_OUT) == ["i_"] * 5 + ["v_"] * 3  # 52 and 56 in its notebook
