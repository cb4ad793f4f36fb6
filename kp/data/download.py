"""The download of HPatches from the Hugging Face hub. The archive is unpacked completely or not at all.

The download goes to the folder ``.hpatches-sequences-release.download`` beside the target folder. That folder is
removed after unpacking. If ``hpatches-sequences-release.zip`` lies beside the target folder, it is used instead of a
download and it is kept.
"""

import os
import re
import shutil
import stat
import sys
import zipfile
import zlib
from errno import ENOSPC
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from kp.support.errors import one_line
from kp.support.process import progress_interval

REPOSITORY = "vbalnt/hpatches"  # a dataset of the hub
FOLDER = "hpatches-sequences-release"
ARCHIVE = f"{FOLDER}.zip"  # 1.3 GB, 116 sequences
_PATH = f"datasets/{REPOSITORY}/resolve/main/{ARCHIVE}"
URL = f"https://huggingface.co/{_PATH}"
MAX_UNPACKED_BYTES = 20_000_000_000  # several times the size of HPatches; a zip bomb is larger

# The sequences with images above 1600 x 1200 pixels. D2-Net's evaluation leaves them out: hpatches_sequences/ of
# github.com/mihaidusmanu/d2-net (Dusmanu et al., CVPR 2019). 52 i_* and 56 v_* remain. The spelling is the dataset's.
_LARGE = "i_contruction i_crownnight i_dc i_pencils i_whitebuilding v_artisans v_astronautis v_talent"
D2NET_LEFT_OUT = frozenset(_LARGE.split())


class DownloadError(RuntimeError):
    """The data cannot be fetched. The message is one line that says what to do."""


def fetch_hpatches(root: Path) -> Path:
    """The folder of the sequences: ``root``, or ``root/hpatches-sequences-release`` if ``root`` has other content.

    If the folder has sequences already, nothing is downloaded. The environment variable HF_ENDPOINT names a mirror of
    the hub.

    Raises:
        DownloadError: the archive cannot be downloaded or unpacked, or the disk is full.
    """
    try:
        target = root / FOLDER if root.is_dir() and not _count_sequences(root) else root
        if count := _count_sequences(target):
            tqdm.write(f"{target} is already there, with {count} sequences: nothing to download", file=sys.stderr)
            return target
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise DownloadError(f"{target} is in the way and has no sequences: move it, or choose another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        _install(target)
    except OSError as e:
        reason = f"{e.filename or root} cannot be read or written ({one_line(e)})"
        raise DownloadError(f"{reason}: make room or choose another folder, and run it again") from None
    return target


def _count_sequences(folder: Path) -> int:
    """The number of sequences in a folder. A folder that is a sequence itself counts as one."""
    return sum(1 for _ in folder.glob("[iv]_*/H_1_2")) + (folder / "H_1_2").exists()


def _install(target: Path) -> None:
    """Unpack the archive beside ``target``, or a downloaded one. A downloaded archive is then deleted.

    If unpacking is interrupted or the disk is full, the downloaded archive stays for the next run.
    """
    by_hand = target.with_name(ARCHIVE)
    downloads = target.with_name(f".{FOLDER}.download")
    archive = by_hand if by_hand.exists() else _download(downloads, by_hand)
    try:
        _unpack(archive, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as e:
        shutil.rmtree(downloads, ignore_errors=True)
        todo = f"download {URL} and put it at {by_hand}"
        raise DownloadError(f"{archive} cannot be unpacked, {one_line(e)}: {todo}") from None
    shutil.rmtree(downloads, ignore_errors=True)


def _download(folder: Path, by_hand: Path) -> Path:
    """The path of the archive in ``folder``, downloaded unless it is there. No token and no telemetry are sent."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    url = f"{endpoint}/{_PATH}" if endpoint else URL
    try:
        from huggingface_hub import constants, hf_hub_download
    except ImportError:
        todo = f'pip install "kp[eval]", or download {url} and put it at {by_hand}'
        raise DownloadError(f"the download needs the package huggingface_hub: {todo}") from None
    constants.HF_HUB_DISABLE_TELEMETRY = True  # read at each request; another package may have imported the hub first
    try:
        path = hf_hub_download(
            REPOSITORY, ARCHIVE, repo_type="dataset", local_dir=folder, endpoint=endpoint, token=False
        )
    except Exception as e:  # the errors differ between the versions of the hub and of its HTTP libraries
        if not any(folder.rglob("*.incomplete")):  # some versions go on with such a file in the next run
            shutil.rmtree(folder, ignore_errors=True)
        todo = f"run it again, or get the file elsewhere and put it at {by_hand}"
        raise DownloadError(f"{url} cannot be downloaded ({one_line(e.__cause__ or e)}): {todo}") from None
    return Path(path)


def _unpack(archive: Path, target: Path) -> None:
    """Check and unpack an archive in a temporary folder, then rename that folder to ``target`` in one step.

    Raises:
        ValueError: the archive has unsafe members or no sequences; zipfile raises other errors for a damaged file.
    """
    with zipfile.ZipFile(archive) as z, TemporaryDirectory(prefix=f"{FOLDER}.", dir=target.parent) as temporary:
        members = z.infolist()
        folder = _check_members(members)
        need, free = sum(member.file_size for member in members), shutil.disk_usage(target.parent).free
        if free < need:
            raise OSError(ENOSPC, f"{need / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free", str(target.parent))
        for member in tqdm(members, desc="unpacking", unit="file", mininterval=progress_interval(), disable=None):
            z.extract(member, Path(temporary, "all"))  # checks the CRC
        os.rename(Path(temporary, "all", folder), target)


def _check_members(members: list[zipfile.ZipInfo]) -> str:
    """The folder of the sequences inside an archive: "" or a path that ends in "/".

    Raises:
        ValueError: a member is a link or leads out of the folder, the archive is too large, or it has no sequences.
    """
    for member in members:
        name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
        if re.search(r"^/|[\\:\0]|(^|/)\.\.(/|$)", name) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"its member {name!r} is a link or leads out of the folder")
    if (size := sum(member.file_size for member in members)) > MAX_UNPACKED_BYTES:
        raise ValueError(f"it would be {size / 1e9:.0f} GB, and HPatches is less than {MAX_UNPACKED_BYTES / 1e9:.0f}")
    names = [member.filename for member in members]
    if found := next(filter(None, (re.fullmatch(r"(.*/|)[iv]_[^/]+/H_1_2", name) for name in names)), None):
        return found[1]
    if any(re.search(r"(^|/)[iv]_[^/]+/ref\.png$", name) for name in names):
        raise ValueError("it is the patches release (65 x 65 pixels), not the sequences")
    raise ValueError("it has no sequences in it")
