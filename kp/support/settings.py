"""Settings classes: fields that know their help and bounds, their check, and the plain values that a file records."""

from dataclasses import asdict, field, fields, is_dataclass
from typing import Any, TypeVar, get_args

T = TypeVar("T")

ABOVE_ZERO = 1e-9  # lower bound of what must be positive


def setting(
    default: Any,
    help: str,
    choices: tuple | None = None,
    metavar: str | None = None,
    bounds: tuple[float, float] | None = None,
    by_model: tuple[float, ...] | None = None,
) -> Any:
    """A dataclass field that also knows its command-line help, choices, placeholder and, for numbers, its bounds.

    Every number has bounds, both of which are finite: so NaN and infinity are out of them, too.

    ``by_model`` are the defaults of a setting that is None until :func:`kp.config.complete`: for a run
    without and with an encoder.
    """
    facts = {"help": help, "choices": choices, "metavar": metavar, "bounds": bounds, "by_model": by_model}
    return field(default=default, metadata=facts)


def check_bounds(*groups: Any) -> None:
    """Raises ValueError, naming the flag and what is allowed, on a number outside the bounds of its setting."""
    for group in groups:
        for f in fields(group):
            value, bounds = getattr(group, f.name), f.metadata["bounds"]
            if bounds is None or value is None:
                continue
            flag, numbers = "--" + f.name.replace("_", "-"), value if isinstance(value, tuple) else (value,)
            low, high = bounds
            for number in numbers:
                if not low <= number <= high:
                    least = "above 0" if low == ABOVE_ZERO else f"at least {low:g}"
                    raise ValueError(f"{flag} must be {least} and at most {high:g}, not {number}")
            if get_args(f.type) == (float, float) and value[0] > value[1]:
                raise ValueError(f"{flag} is the lowest and the highest value, not {value[0]} and {value[1]}")


def by_flag(settings: Any) -> dict[str, Any]:
    """Every setting by its flag's name, out of a class of groups: what :func:`kp.support.flags.from_args` reads."""
    return {name: value for group in vars(settings).values() for name, value in vars(group).items()}


def to_dict(settings: Any) -> dict[str, Any]:
    """Plain values that JSON keeps, groups within groups: what a checkpoint records."""
    return asdict(settings)


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Settings from what a checkpoint recorded. Raises ValueError on a name that this version does not know."""
    kinds = {f.name: f.type for f in fields(cls)}
    if unknown := sorted(set(values) - set(kinds)):
        raise ValueError(f"unknown settings {', '.join(unknown)}: written by another version of kp?")
    plain = {name: from_dict(kinds[name], v) if is_dataclass(kinds[name]) else v for name, v in values.items()}
    return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()})
