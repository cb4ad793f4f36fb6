"""HPatches, fetched: one archive over HTTP, resumed where it stopped, checked, and unpacked whole or not at all.

Beside the folder of the data, ROOT, lie while it is fetched ``hpatches-sequences-release.zip.part``, what the server
said of it (``.part.json``) and a folder to unpack in; afterwards only ROOT and its record, ``ROOT.json``. An archive
put there by hand as ``hpatches-sequences-release.zip`` is used instead of a download, and left as it is.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from errno import ENOSPC
from http.client import HTTPException, HTTPResponse
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from kp.support.errors import one_line
from kp.support.files import write_file
from kp.support.process import progress_interval

FOLDER = "hpatches-sequences-release"
URL = f"https://huggingface.co/datasets/vbalnt/hpatches/resolve/main/{FOLDER}.zip"  # 1.3 GB, 116 sequences
LIMIT = 20_000_000_000  # bytes unpacked: far more than HPatches has, far less than a zip bomb
PAUSES = (1.0, 3.0, 9.0)  # seconds before each new try; from the first again once more of the file has come
TIMEOUT = 30.0  # seconds without a byte

# The sequences with images above 1600 x 1200 pixels, which D2-Net's evaluation deletes: hpatches_sequences/ of
# github.com/mihaidusmanu/d2-net (Dusmanu et al., CVPR 2019). 52 i_* and 56 v_* remain; the spelling is the dataset's.
_LARGE = "i_contruction i_crownnight i_dc i_pencils i_whitebuilding v_artisans v_astronautis v_talent"
D2NET_LEFT_OUT = frozenset(_LARGE.split())


class DownloadError(RuntimeError):
    """Data that cannot be had; the message is one line that says what to do."""


def fetch_hpatches(root: Path, url: str = URL, progress: Callable = tqdm, pauses: Sequence[float] = PAUSES) -> Path:
    """The folder of the sequences: ``root`` or, if that is there without any, ``root/hpatches-sequences-release``.

    Downloads and unpacks the archive at ``url`` unless there are sequences already; interrupted, it goes on when called
    again. ``progress`` makes tqdm's bars; ``pauses``, in seconds, come before new tries. Raises DownloadError.
    """
    try:
        target = root / FOLDER if root.is_dir() and not _count(root) else root
        archive, part = (target.with_name(f"{FOLDER}.zip{end}") for end in ("", ".part"))
        if count := _count(target):
            tqdm.write(f"{target} is already there, with {count} sequences: nothing to download", file=sys.stderr)
            return target
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise DownloadError(f"{target} is in the way and has no sequences: move it, or choose another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not archive.exists():
            _download(url, part, progress, pauses)
        _install(archive if archive.exists() else part, target, url, progress)
        _discard(part)
    except OSError as e:
        reason = f"{e.filename or root} cannot be read or written ({one_line(e)})"
        raise DownloadError(f"{reason}: make room or choose another folder, and run it again") from None
    return target


def _count(folder: Path) -> int:
    """Sequences in a folder that may be one itself."""
    return sum(1 for _ in folder.glob("[iv]_*/H_1_2")) + (folder / "H_1_2").exists()


def _download(url: str, part: Path, progress: Callable, pauses: Sequence[float]) -> None:
    """Complete ``part``, with a new try after each pause."""
    most, left, by_hand = _known(part, url)[0], list(pauses), f"put the file at {part.with_suffix('')} by hand"
    while True:
        try:
            return _transfer(url, part, progress)
        except ValueError as e:
            raise DownloadError(f"{url} {e}: look at it in a browser, or {by_hand}") from None
        except ConnectionError as e:
            have = _known(part, url)[0]
            most, left = (have, list(pauses)) if have > most else (most, left)
            if not left:
                todo = f"run it again ({have} bytes are there), or {by_hand}"
                raise DownloadError(f"{url} cannot be downloaded ({e}): {todo}") from None
            tqdm.write(f"{e}: trying again in {left[0]:g} s", file=sys.stderr)
            time.sleep(left.pop(0))


def _transfer(url: str, part: Path, progress: Callable) -> None:
    """Append what ``part`` lacks, or write all of it, in one request.

    Raises ConnectionError where another request may help and ValueError where none does.
    """
    have, size, tag = _known(part, url)
    if have and have == size:
        return
    with _ask(url, have, tag) as answer:
        extent = answer.headers["Content-Range"] or ""
        if answer.status == 416 and extent == f"bytes */{have}":
            return
        if answer.status != 200 and not re.fullmatch(rf"bytes {have}-\d+/{size or '.*'}", extent):
            _discard(part)
            raise ConnectionError("the server has another file now")
        start, size = (0, answer.length) if answer.status == 200 else (have, size)
        chunks = _chunks(answer)
        head = next(chunks, b"")
        if not start and not b"PK".startswith(head[:2]):  # a web page, say; what was there is kept
            raise ValueError(f"gives no zip archive but {head[:30]!r}")
        _check_space(part.parent, 2 * (size or 0) - start)  # twice, for it has to be unpacked
        bar = {
            "total": size,
            "initial": start,
            "unit": "B",
            "unit_scale": True,
            "desc": FOLDER,
            "mininterval": progress_interval(),
        }
        with open(part, "ab" if start else "wb") as file, progress(**bar) as shown:
            if not start:
                note = {"url": url, "size": size, "tag": answer.headers["ETag"] or answer.headers["Last-Modified"]}
                write_file(part.with_suffix(".part.json"), json.dumps(note).encode())
            for data in chain([head], chunks):
                file.write(data)
                shown.update(len(data))
    if size not in (None, part.stat().st_size):
        raise ConnectionError(f"it ended after {part.stat().st_size} of {size} bytes")


def _ask(url: str, have: int, tag: str | None) -> HTTPResponse | HTTPError:
    """Request a file from byte ``have`` on, if it is still the one of ``tag`` (RFC 9110, 13.1.5); else all of it."""
    headers = {"User-Agent": "kp"} | ({"Range": f"bytes={have}-"} if have else {})
    headers |= {"If-Range": tag} if have and tag and not tag.startswith("W/") else {}
    try:
        return urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as e:
        if e.code == 416 and have:
            return e
        if e.code in (408, 425, 429, 500, 502, 503, 504):  # may be otherwise a little later
            raise ConnectionError(f"HTTP {e.code} {e.reason}") from None
        raise ValueError(f"answers {e.code} {e.reason}") from None
    except (OSError, HTTPException) as e:
        raise ConnectionError(one_line(e)) from None


def _chunks(answer: HTTPResponse) -> Iterator[bytes]:
    try:
        while data := answer.read1(1 << 20):
            yield data
    except (OSError, HTTPException) as e:
        raise ConnectionError(one_line(e)) from None


def _known(part: Path, url: str) -> tuple[int, int | None, str | None]:
    """Bytes of the file at ``url`` that are there, its size and tag; (0, None, None) if there is no going on."""
    note = _read(part.with_suffix(".part.json"))
    have, size = part.stat().st_size if part.exists() else 0, note.get("size")
    if note.get("url") != url or (size is not None and have > size):  # two runs at once make it longer
        return 0, None, None
    return have, size, note.get("tag")


def _read(path: Path) -> dict:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_suffix(".part.json").unlink(missing_ok=True)


def _install(archive: Path, target: Path, url: str, progress: Callable) -> None:
    """Check an archive, unpack it, record it and move it to ``target`` in one step. A download of no use is deleted."""
    record = target.with_name(f"{target.name}.json")
    found = _compared(archive, url, record)
    try:
        with zipfile.ZipFile(archive) as z, TemporaryDirectory(prefix=f"{FOLDER}.", dir=target.parent) as new:
            inside = _inside(z.infolist())
            _check_space(target.parent, sum(member.file_size for member in z.infolist()))
            for member in progress(z.infolist(), desc="unpacking", unit="file", mininterval=progress_interval()):
                z.extract(member, Path(new, "all"))  # checks its CRC
            write_file(record, json.dumps(found, indent=1).encode())
            os.rename(Path(new, "all", inside), target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as e:
        if archive.suffix == ".part":
            _discard(archive)
        todo = f"download {URL} and put it at {archive.with_name(FOLDER)}.zip"
        raise DownloadError(f"{archive} cannot be unpacked, {one_line(e)}: {todo}") from None


def _compared(archive: Path, url: str, record: Path) -> dict[str, str | int]:
    """The record to keep of an archive. Raises DownloadError if there is one already, of another file."""
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = url if archive.suffix == ".part" else archive.resolve().as_uri()
    date = datetime.now(UTC).isoformat(timespec="seconds")
    found = {"url": source, "size": archive.stat().st_size, "sha256": digest, "date": date}
    before = found | _read(record)
    if before["sha256"] != digest:
        is_, was = (f"{f['size']} bytes with sha256 {f['sha256']}" for f in (found, before))
        todo = f"delete {archive} to fetch it again, or {record} to take it"
        raise DownloadError(f"{archive} has {is_}, not {was} as on {before['date']}: {todo}")
    return before


def _inside(members: list[zipfile.ZipInfo]) -> str:
    """The folder in an archive that has the sequences, "" or ending in "/". Raises ValueError on an unfit archive."""
    for member in members:
        name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
        if re.search(r"^/|[\\:\0]|(^|/)\.\.(/|$)", name) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"its member {name!r} is a link or leads out of the folder")
    if (size := sum(member.file_size for member in members)) > LIMIT:
        raise ValueError(f"it would be {size / 1e9:.0f} GB, and HPatches is less than {LIMIT / 1e9:.0f}")
    names = [member.filename for member in members]
    if found := next(filter(None, (re.fullmatch(r"(.*/|)[iv]_[^/]+/H_1_2", name) for name in names)), None):
        return found[1]
    if any(re.search(r"(^|/)[iv]_[^/]+/ref\.png$", name) for name in names):
        raise ValueError("it is the patches release (65 x 65 pixels), not the sequences")
    raise ValueError("it has no sequences in it")


def _check_space(folder: Path, need: int) -> None:
    """Raises OSError where fewer than ``need`` bytes are free."""
    if (free := shutil.disk_usage(folder).free) < need:
        raise OSError(ENOSPC, f"{need / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free", str(folder))
