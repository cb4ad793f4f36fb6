"""Matches of many pairs, written one by one, so that a run that was interrupted goes on."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kp.features.colmap import require_pycolmap, write_colmap
from kp.features.match_files import save_matches
from kp.features.store import differing, held
from kp.support.errors import one_line
from kp.support.files import FileError, changed_since, check_writable, digest, write_file

FORMATS = (".h5", ".json", ".db")

_TAKEN = {".h5": ("names", "matches", "scores", "counts"), ".db": ("names", "matches")}  # of a result; of json all

Result = dict[str, Any]


class PairStore:
    """The output of ``kp match``: an h5 as hloc, a json, or a database for COLMAP.

    Until :meth:`finish` has written all pairs, the results are lines of ``.NAME.pairs`` beside it; another run with the
    same settings goes on with the pairs that are missing there, and leaves those that the file holds.

    Args:
        out: the file, with one of the suffixes ``FORMATS``.
        settings: what the matches depend on, for JSON; an attribute of an h5.
        overwrite: begin anew, or go on with a run that did; until it is finished the old file stays.

    Raises:
        ValueError: the file is there already, it was begun with other settings, another run is writing it, or pycolmap
            is not there for a database.
        FileError: (an OSError) it cannot be written.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.out, self.settings = out, json.loads(json.dumps(settings))
        self.parts = out.with_name(f".{out.name}.pairs")
        if out.suffix.lower() == ".db":
            require_pycolmap()
        check_writable(out)
        self._lock = held(out)
        begun, results = self._earlier(overwrite)
        self._begun = {"overwrite": overwrite, "written": begun.get("written")}
        self._when = {tuple(result["names"]): result.pop("when", 0.0) for result in results}
        self.results = {tuple(result["names"]): result for result in results}
        self._keep()

    def is_current(self, names: tuple[str, str], images: Sequence[Path]) -> bool:
        """Whether the result of a pair is there, and none of these files was changed since."""
        when = self._when.get(names)
        return when is not None and not any(changed_since(image, when) for image in images)

    def drop(self, names: tuple[str, str]) -> None:
        """Forget the result of a pair, if there is one: that of images which are others now."""
        self.results.pop(names, None)
        self._when.pop(names, None)

    def put(self, result: Result) -> None:
        """Keep of what is known of a pair, for JSON, what the file takes. Raises FileError."""
        taken = _TAKEN.get(self.out.suffix.lower(), tuple(result))
        result = {name: result[name] for name in taken}
        when = time.time()
        try:
            with self.parts.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"when": when} | result) + "\n")
        except OSError as error:
            raise FileError(f"{self.parts} cannot be written: {one_line(error)}") from error
        names = tuple(result["names"])
        self.results[names], self._when[names] = result, when

    def finish(self, pairs: Sequence[tuple[str, str]], find: Callable[[str], Mapping[str, Tensor]]) -> None:
        """Write the file, of those of the ``pairs`` that there are, in this order; without any none.

        Behind them stand the pairs of an earlier run whose file this one has gone on with. Where pairs are missing, the
        results stay for another run. ``find`` gives the features of an image by its name, for COLMAP.

        Raises:
            ValueError: features are not there, or have no ``image_size``, for COLMAP; the results stay for another run.
            FileError: (an OSError) the file cannot be written; what was there stays.
        """
        known = [*pairs, *self.results] if self._begun["written"] else pairs
        results = [self.results[names] for names in dict.fromkeys(known) if names in self.results]
        if results:
            suffix = self.out.suffix.lower()
            if suffix == ".json":
                write_file(self.out, (json.dumps(results) + "\n").encode())
            elif suffix == ".db":
                matches = {tuple(result["names"]): _pairs(result) for result in results}
                images = dict.fromkeys(name for names in matches for name in names)
                write_colmap(self.out, {name: _stored(find(name)) for name in images}, matches)
            else:
                found = [
                    result | {"matches": _pairs(result), "scores": torch.tensor(result["scores"])} for result in results
                ]
                save_matches(self.out, found, self.settings)
            self._begun["written"] = digest(self.out)
        if not self.results or all(names in self.results for names in pairs):
            self.parts.unlink(missing_ok=True)
        else:
            self._keep()

    def close(self) -> None:
        """Let other runs write here."""
        self._lock.close()

    def _keep(self) -> None:
        """Write all results so far, for another run, behind what is to be known of this one."""
        lines = [{"settings": self.settings} | self._begun]
        lines += [{"when": self._when[names]} | result for names, result in self.results.items()]
        write_file(self.parts, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def _earlier(self, overwrite: bool) -> tuple[dict[str, Any], list[Result]]:
        """What is known of a run that this one goes on with, and its results. Raises ValueError on another file."""
        begun, results = self._left()
        if overwrite and (begun.get("settings") != self.settings or not begun.get("overwrite")):
            return {}, []
        if not overwrite and self.out.is_file() and begun.get("written") != digest(self.out):
            raise ValueError(f"{self.out} is there already: name another --out, or --overwrite it")
        if begun and (names := differing(begun["settings"], self.settings)):
            advice = f"as {self.parts.name} beside it says: name another --out, or --overwrite it"
            raise ValueError(f"{self.out} was begun with other settings ({names}), {advice}")
        return begun, results

    def _left(self) -> tuple[dict[str, Any], list[Result]]:
        """What is known of another run, and its results but for a torn last line; nothing where none has left any."""
        if not self.parts.is_file():
            return {}, []
        lines = []
        for line in self.parts.read_text("utf-8", errors="replace").split("\n"):
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        begun, *results = lines or [None]
        if not isinstance(begun, dict) or not isinstance(begun.get("settings"), dict):
            return {}, []
        return (begun, results) if all(isinstance(line, dict) and "names" in line for line in results) else ({}, [])


def _stored(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what is several times as large and no database has."""
    return {name: values for name, values in features.items() if name != "scaled_descriptors"}


def _pairs(result: Result) -> Tensor:
    """The matches (M, 2) of a result, indices of keypoints."""
    return torch.tensor(result["matches"], dtype=torch.long).reshape(-1, 2)
