"""Command lines made from settings classes, whose fields are made by :func:`kp.support.settings.setting`."""

import argparse
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import Field, fields, is_dataclass
from typing import Any, NoReturn, TypeVar, get_args, get_origin

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """A command line whose help keeps its lines and whose errors are one line."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_flags(parser: argparse.ArgumentParser, cls: type) -> None:
    """One flag for every field of a settings class, in a group of its own, with the field's help and default."""
    group = parser.add_argument_group(cls.__doc__.strip().splitlines()[0].replace("``", "").rstrip("."))
    for f in fields(cls):
        name, flag = f.name, "--" + f.name.replace("_", "-")
        text = (f.metadata["help"] + _default(f)).replace("%", "%%")
        common = {"dest": name, "help": text, "default": f.default}
        if f.type is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        else:
            kind, nargs = _kind_and_nargs(f)
            metavar = f.metadata["metavar"]
            group.add_argument(flag, type=kind, nargs=nargs, choices=f.metadata["choices"], metavar=metavar, **common)


def from_args(cls: type[T], args: argparse.Namespace) -> T:
    """The settings of one class, or of a class of such groups, out of parsed arguments."""
    values = {f.name: from_args(f.type, args) if is_dataclass(f.type) else getattr(args, f.name) for f in fields(cls)}
    return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def given(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> set[str]:
    """The names of the arguments that a command line has, whatever their values; ``words`` None: of this process."""
    absent, blank = object(), deepcopy(parser)
    blank.set_defaults(**dict.fromkeys(vars(parser.parse_args(words)), absent))
    return {name for name, value in vars(blank.parse_args(words)).items() if value is not absent}


def _kind_and_nargs(f: Field) -> tuple[type, str | int | None]:
    if get_origin(f.type) is not tuple:
        return next((t for t in get_args(f.type) if t is not type(None)), f.type), None
    kinds = get_args(f.type)
    return kinds[0], "+" if kinds[-1] is Ellipsis else len(kinds)


def _default(f: Field) -> str:
    if f.default is None or f.default == ():
        each = f.metadata["by_model"]
        return f" (default: {each[0]:g}; with an encoder {each[1]:g})" if each else ""
    if isinstance(f.default, bool):
        return " (default: yes)" if f.default else " (default: no)"
    shown = " ".join(map(str, f.default)) if isinstance(f.default, tuple) else f.default
    return f" (default: {shown})"
