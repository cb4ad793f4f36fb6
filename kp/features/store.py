"""Features of many images, written one by one, so that a run that was interrupted goes on."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kp.features import files
from kp.features.colmap import write_colmap
from kp.support.files import InUseError, changed_since, check_writable, locked, write_file

FORMATS = ("h5", "npz", "csv", "json", "colmap")

_SETTINGS = "kp.json"  # beside the features of each image


class Store:
    """The output of ``kp detect``: one file for all images, or with npz and csv one for each in a folder.

    Until :meth:`finish`, the features of a file for all are in a folder ``.NAME.parts`` beside it, one npz for each
    image; so an image is there whole or not at all, and another run goes on with those that are missing. Images can be
    added later to an h5 and to a folder.

    Args:
        out: the file, or the folder for npz and csv.
        form: one of ``FORMATS``.
        settings: what the features depend on, for JSON.
        overwrite: begin anew; until it is finished the old file stays. In a folder files of images that are not found
            anew stay; another run does not take them for its own.

    Raises:
        ValueError: what is at ``out`` was made with other settings, or another run is writing it.
        FileError: (an OSError) it cannot be written.
    """

    def __init__(self, out: Path, form: str, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.out, self.form, self.settings = out, form, {"format": form} | dict(settings)
        self.one_file = form not in ("npz", "csv")
        self.folder = out.with_name(f".{out.name}.parts") if self.one_file else out
        if not self.one_file and out.exists() and not out.is_dir():
            raise ValueError(f"{out} is a file: {form} needs a folder, with a file for each image")
        check_writable(out if self.one_file else out / _SETTINGS)
        self._lock = held(out)
        self._adds = not overwrite and out.exists()
        finished = self._finished(overwrite)
        check_writable(self.folder / _SETTINGS)
        if overwrite:
            self._forget()
        self._record()
        self.parts = self._known()
        self.names = self.parts | finished

    def is_current(self, name: str, image: Path | None) -> bool:
        """Whether the features of an image are there, and its file was not changed since; None: there is no file."""
        if name not in self.names:
            return False
        written = (self._path(name) if name in self.parts else self.out).stat().st_mtime
        return image is None or not changed_since(image, written)

    def put(self, name: str, features: Mapping[str, Tensor]) -> None:
        """Write the features of an image."""
        files.save(self._path(name), name, features)
        self.parts.add(name)
        self.names.add(name)

    def finish(self) -> None:
        """Put all images into the one file."""
        if self.one_file:
            found = {name: files.load(self._path(name)) for name in sorted(self.parts)}
            if self.form == "colmap":
                write_colmap(self.out, found, {})
            else:
                files.save_all(self.out, found, add=self._adds, settings=self.settings)
            shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let other runs write here."""
        self._lock.close()

    def _path(self, name: str) -> Path:
        if self.one_file:  # names can be longer than those of files
            return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.npz"
        return self.folder / f"{name}.{self.form}"

    def _known(self) -> set[str]:
        """The images that are there. A file in a folder that is older than the settings is not of these settings."""
        if self.one_file:
            return {str(np.load(path)["name"]) for path in self.folder.glob("*.npz")}
        ending, begun = f".{self.form}", (self.folder / _SETTINGS).stat().st_mtime_ns
        files = (path for path in self.folder.rglob(f"*{ending}") if path.stat().st_mtime_ns >= begun)
        return {path.relative_to(self.folder).as_posix()[: -len(ending)] for path in files}

    def _finished(self, overwrite: bool) -> set[str]:
        """The images that an earlier run has put into the one file, which another run may add to."""
        if not self.one_file or overwrite or not self.out.exists():
            return set()
        if self.form != "h5":
            raise ValueError(f"{self.out} is there already: name another --out, or --overwrite it")
        self._compare(files.read_settings(self.out))
        return set(files.names_in(self.out))

    def _record(self) -> None:
        path = self.folder / _SETTINGS
        if path.exists():
            self._compare(json.loads(path.read_text()))
        else:
            write_file(path, (json.dumps(self.settings, indent=1) + "\n").encode())

    def _compare(self, before: Mapping[str, Any]) -> None:
        if not before:
            raise ValueError(f"{self.out} does not say how it was made: name another --out, or --overwrite it")
        now = json.loads(json.dumps(self.settings))
        if names := differing(before, now):
            raise ValueError(f"{self.out} was made with another {names}: name another --out, or --overwrite it")

    def _forget(self) -> None:
        if self.one_file:
            for name in self._known():
                self._path(name).unlink()
        (self.folder / _SETTINGS).unlink(missing_ok=True)


def held(out: Path) -> ExitStack:
    """Hold an output for this run, until what is returned is closed. Raises ValueError where another run holds it."""
    holding = ExitStack()
    try:
        holding.enter_context(locked(out, wait=False))
    except InUseError:
        raise ValueError(f"{out} is being written by another run") from None
    return holding


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The names of the settings that are not the same, in order, with commas."""
    return ", ".join(sorted(key for key in {*before, *now} if before.get(key) != now.get(key)))
