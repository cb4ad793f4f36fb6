"""Reading sequences in the layout of HPatches (Balntas et al., CVPR 2017) from disk.

The names and formats of the files: :mod:`kp.data.image_files` and :mod:`kp.data.homography_files`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kp.data.download import FOLDER, URL
from kp.data.homography_files import has_plain_text, numbered_homographies, read_homography
from kp.data.image_files import HPatchesError, check_suffix, numbered_images, read_image
from kp.geometry.coords import Size, warp_points
from kp.support.errors import one_line

DOWNLOAD = f"add --download, or get {FOLDER}.zip of vbalnt/hpatches ({URL}), unpack it and pass the folder {FOLDER}"

_REPAIR = "unpack the archive again, or number images and homographies alike and without gaps"
_MAX_LISTED = 8  # numbers in a message


@dataclass(frozen=True)
class ImageSequence:
    """One scene: images 1..N, and the homographies from image 1 (the reference) to each other image.

    Attributes:
        name: the name of the folder, for example ``v_wall``.
        split: ``i`` (the light changes) or ``v`` (the viewpoint changes).
        images: N functions without arguments. Each returns a gray image (1, 1, H, W) in [0, 1].
        homographies: N - 1 matrices (3, 3), float64, pixels of image 1 -> pixels of image 2..N.
        files: the N - 1 files of the homographies; empty for a sequence made in memory, or if a file has other text
            than numbers.
        kind: what changes, for sequences made in memory: ``i``, ``v``, ``hard``, ``rotation_45``, ``zoom``, ...
        valid: N masks (1, 1, H, W), the pixels that show the scene; empty where all pixels do.
    """

    name: str
    split: str
    images: tuple[Callable[[], Tensor], ...]
    homographies: tuple[Tensor, ...]
    files: tuple[Path, ...] = ()
    kind: str = ""
    valid: tuple[Tensor, ...] = ()

    def homography(self, number: int, size1: Size) -> Tensor:
        """H_0to1 (1, 3, 3), float64, pixels of image 1 -> pixels of image ``number``, with w = 1 at image 1's centre.

        A homography times a number is the same homography. With this scale, points in front of the camera have w > 0.

        Args:
            number: 2..N.
            size1: (H, W) of image 1.
        """
        H = self.homographies[number - 2]
        centre = torch.tensor([(size1[1] - 1) / 2, (size1[0] - 1) / 2, 1], dtype=H.dtype)
        w = H[2] @ centre
        if w == 0:
            file = self.files[number - 2].name if self.files else f"H_1_{number}"
            raise HPatchesError(f"{self.name}/{file} sends the centre of image 1 to infinity: restore the file")
        return (H / w)[None]


def read(root: str | Path, split: str = "all") -> list[ImageSequence]:
    """The sequences of a folder, sorted by name.

    A sequence is a folder with images ``1.ppm``, ``2.ppm``, ... and texts ``H_1_2``, ``H_1_3``, ... Other types of
    images, the names of Oxford's sequences (``img1.ppm``, ``H1to2p``) and numbers from 0 are read, too. Folders without
    such files are ignored. Homographies are read and checked now. Images are read when they are used.

    The split of a folder ``i_*`` or ``v_*`` is in its name. The split of another folder is ``i`` if no homography moves
    a corner of a square of 1000 pixels by 1 pixel or more, else ``v``.

    Args:
        root: the folder of the sequences, the folder above it, or a single sequence.
        split: ``i``, ``v`` or ``all``.

    Raises:
        HPatchesError: there are no sequences, or one is incomplete or damaged.
    """
    path = Path(root) if Path(root).name not in ("", "..") else Path(root).resolve()  # the sequence needs a name
    folders = [f for f in _sequence_folders(path) if split == "all" or _split_in_name(f) in ("", split)]
    sequences = [s for s in map(_read_sequence, folders) if split in ("all", s.split)]
    if not sequences:
        raise HPatchesError(f"{root} has no {split}_* sequence: choose another split")
    return sequences


def _sequence_folders(root: Path) -> list[Path]:
    if not root.exists():
        raise HPatchesError(f"{root} does not exist: {DOWNLOAD}, or measure the built-in photographs: no --hpatches")
    if not root.is_dir():
        raise HPatchesError(f"{root} is not a folder: unpack the archive and pass the folder {FOLDER}")
    entries = _entries(root)
    if numbered_homographies(entries) or (_split_in_name(root) and numbered_images(entries)):
        return [root]
    folders = [f for f in entries if _is_sequence(f)]
    sure = any(_split_in_name(f) or numbered_homographies(_entries(f)) for f in folders)
    if not sure and (root / FOLDER).is_dir():
        return _sequence_folders(root / FOLDER)
    if (not sure and any(root.glob("[iv]_*/ref.png"))) or (root / "ref.png").exists():
        raise HPatchesError(f"{root} is the patches release, not the sequences: {DOWNLOAD}")
    if not folders and numbered_images(entries):
        return [root]
    if not folders:
        raise HPatchesError(f"{root} has no folder i_* or v_*, or of another name, with images and H_1_*: {DOWNLOAD}")
    return folders


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name."""
    try:
        return sorted(folder.iterdir())
    except OSError as e:
        raise HPatchesError(f"{folder} cannot be read ({one_line(e)}): allow it, or choose another folder") from None


def _is_sequence(folder: Path) -> bool:
    """True for a folder, not hidden, with at least one numbered image or homography."""
    if folder.name.startswith(".") or not folder.is_dir():
        return False
    try:
        entries = _entries(folder)
    except HPatchesError:
        if _split_in_name(folder):
            raise
        return False  # for example, lost+found
    return bool(numbered_images(entries) or numbered_homographies(entries))


def _split_in_name(folder: Path) -> str:
    """The split ``i`` or ``v`` if the name of the folder is ``i_*`` or ``v_*``, else an empty text."""
    return folder.name[0] if re.match(r"[iv]_.", folder.name) else ""


def _read_sequence(folder: Path) -> ImageSequence:
    entries = _entries(folder)
    images, all_homographies = numbered_images(entries), numbered_homographies(entries)
    sources = {source for source, _ in all_homographies}
    first = 0 if 0 in images or (0 in sources and 1 not in sources) else 1
    files = {k: f for (source, k), f in all_homographies.items() if source == first and k > first}
    _check_numbers(folder, images.keys(), files.keys(), first, [f.name for _, f in sorted(all_homographies.items())])
    for path in images.values():
        check_suffix(path)
    loaders = tuple(partial(read_image, images[number]) for number in sorted(images))
    paths = tuple(files[number] for number in sorted(files))
    homographies = tuple(read_homography(path) for path in paths)
    split = _split_in_name(folder) or ("i" if all(map(_is_near_identity, homographies)) else "v")
    return ImageSequence(folder.name, split, loaders, homographies, paths if all(map(has_plain_text, paths)) else ())


def _check_numbers(folder: Path, images: Iterable[int], targets: Iterable[int], first: int, names: list[str]) -> None:
    """Raise HPatchesError unless there are images ``first``, ``first + 1``, ... and a homography to each but the first.

    Args:
        folder: named in the message.
        images: the numbers of the images.
        targets: the k of the homographies from image ``first`` to image k.
        first: the number of the reference.
        names: of all files of homographies.
    """
    images, targets = set(images), set(targets)
    if len(images | targets | {first}) < 2 and not names:
        raise HPatchesError(f"{folder} has only one image: a sequence needs at least images 1 and 2, and H_1_2")
    has_images = f"has images {_listing(sorted(images))}" if images else "has no images 1.ppm, 2.ppm, ..."
    if not targets:
        others = f", only {_listing(names)}" if names else ""
        todo = f"add a text of 9 numbers for each k, which sends pixels of image {first} to pixels of image k"
        raise HPatchesError(f"{folder} {has_images} but no homography H_{first}_k{others}: {todo}")
    known = images | targets | {first}
    known |= {n + 1 for n in known if n < max(known)}  # a number of each gap
    missing = [f"image {n}" for n in sorted(known - images)]
    missing += [f"H_{first}_{n}" for n in sorted(known - targets - {first})]
    if missing:
        has = f"it {has_images} and H_{first}_k for k = {_listing(sorted(targets))}"
        raise HPatchesError(f"{folder} lacks {_listing(missing)}: {has}; {_REPAIR}")


def _listing(items: Sequence[int | str]) -> str:
    return ", ".join(map(str, items[:_MAX_LISTED])) + (", ..." if len(items) > _MAX_LISTED else "")


def _is_near_identity(H_0to1: Tensor) -> bool:
    """True if a homography (3, 3) moves each corner of a square of 1000 pixels by less than 1 pixel."""
    corners = torch.tensor([[[0, 0], [999, 0], [0, 999], [999, 999]]], dtype=H_0to1.dtype)
    w = H_0to1[2] @ torch.tensor([499.5, 499.5, 1], dtype=H_0to1.dtype)
    moved, in_front = warp_points(corners, H_0to1[None] / w)
    return bool(in_front.all() and ((moved - corners).norm(dim=-1) < 1).all())
