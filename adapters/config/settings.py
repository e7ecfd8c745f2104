"""What a setting is: a field of a frozen dataclass with its help, its range, and the methods that it belongs to.

The command line, the checks, recipes, the documentation of `prune` and the settings of a report all derive from these fields.
The module imports nothing heavy, so that help appears at once.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from gramian.adapters.methods.vocabulary import Granularity

__all__ = [
    "EXPRESSION",
    "FLAG",
    "NAME",
    "NATURAL",
    "OPTIONS",
    "POSITIVE",
    "RANGE",
    "SOURCES",
    "Kind",
    "Setting",
    "named_value",
    "check_ranges",
    "one_of",
    "real",
    "setting",
    "settings_of",
]


@dataclass(frozen=True)
class Kind:
    """What values a setting takes.

    described: completes "must be ...". admits(value) says whether a value is one. read(text) turns words of a command line
    into a value, and raises ValueError for words that are none. write(value) is the value as plain numbers, strings and
    lists. annotation: how documentation writes the type. metavar: how help abbreviates a value. choices: all values, where
    they are few.
    """

    described: str
    admits: Callable[[Any], bool]
    read: Callable[[str], Any]
    annotation: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    write: Callable[[Any], Any] = lambda value: value

    def parse(self, text: str) -> Any:
        """The value that a command line spells; ValueError where it is none."""
        try:
            value = self.read(text)
        except ValueError:
            value = text
        if not self.admits(value):
            raise ValueError(f"{text!r} is not {self.described}")
        return value


@dataclass(frozen=True)
class Setting:
    """One setting: its name, its default, and what `setting` says of it."""

    name: str
    default: Any
    kind: Kind
    help: str
    of: Granularity | None
    usual: Any
    repeated: str | None

    @property
    def flag(self) -> str:
        """Its option on the command line."""
        return f"--{self.name.replace('_', '-')}"


def setting(
    default: Any,
    kind: Kind,
    help: str,
    *,
    of: Granularity | None = None,
    usual: Any = None,
    flag: str | None = None,
    repeated: str | None = None,
) -> Any:
    """Declare a setting as a field of a frozen dataclass.

    default: None where the method, or else `usual`, decides. help: one clause, for the command line and for documentation.
    of: the kind of method that it belongs to, both where None. repeated: the option, given once for each entry of a mapping.
    """
    made = {"kind": kind, "help": help, "of": of, "usual": usual, "repeated": repeated}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=made)
    return field(default=default, metadata=made)


def settings_of(config: Any) -> list[Setting]:
    """List the settings that a dataclass, or an instance of one, declares."""
    return [
        Setting(each.name, {} if each.default is dataclasses.MISSING else each.default, **each.metadata)
        for each in dataclasses.fields(config)
    ]


def check_ranges(config: object) -> None:
    """Raise ValueError for a value that its setting does not take; None is one where it is the default."""
    for each in settings_of(config):
        value = getattr(config, each.name)
        if not (value is None and each.default is None) and not each.kind.admits(value):
            raise ValueError(f"{each.name} must be {each.kind.described} but is {value!r}")


# -- kinds -------------------------------------------------------------------------------------------------------------


def is_real(value: Any) -> bool:
    """Whether a value is a number of any library, but no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def real(described: str, admits: Callable[[float], bool], metavar: str, *words: str) -> Kind:
    """Numbers in a range, or one of some words. `admits` must not admit NaN."""

    def read(text: str) -> float | str:
        return text if text in words else float(text)

    def admitted(value: Any) -> bool:
        return value in words if isinstance(value, str) else is_real(value) and admits(float(value))

    annotation = "float" + "".join(f' or "{word}"' for word in words)
    return Kind(described, admitted, read, annotation, metavar, write=lambda value: value if value in words else float(value))


def whole(least: int) -> Kind:
    """Whole numbers of at least `least`."""

    def admits(value: Any) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least

    return Kind(f"a whole number of at least {least}", admits, int, "int", "N", write=int)


def one_of(*choices: str) -> Kind:
    """One of some words."""
    listed = ", ".join(f'"{choice}"' for choice in choices)
    return Kind(f"one of {', '.join(choices)}", lambda value: value in choices, str, f"{{{listed}}}", choices=choices)


def is_expression(value: Any) -> bool:
    """Whether a value is a regular expression."""
    try:
        re.compile(value)
    except (re.error, TypeError):
        return False
    return isinstance(value, str)


def read_range(text: str) -> slice:
    """A range such as `4:30`, for slice(4, 30); either end may be missing, or count from the last."""
    if not re.fullmatch(r"(-?\d+)?:(-?\d+)?", text):
        raise ValueError(text)
    start, stop = (int(end) if end else None for end in text.split(":"))
    return slice(start, stop)


def is_range(value: Any) -> bool:
    """Whether a value is a slice of whole numbers, or text that spells one."""
    if isinstance(value, str):
        return re.fullmatch(r"(-?\d+)?:(-?\d+)?", value) is not None
    return isinstance(value, slice) and value.step in (None, 1)


def spelt_range(value: slice | str) -> str:
    """A range as text."""
    ends = [value.start, value.stop] if isinstance(value, slice) else []
    return value if isinstance(value, str) else ":".join("" if end is None else str(end) for end in ends)


def named_value(text: str) -> tuple[str, Any]:
    """A name and a value, such as `score=newton`; numbers and other values are read as JSON, and `inf` is infinity."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"{text!r} is not NAME=VALUE")
    try:
        return name, math.inf if value == "inf" else json.loads(value)
    except json.JSONDecodeError:
        return name, value


def is_options(value: Any) -> bool:
    """Whether a value is a mapping by names."""
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


FLAG = Kind("true or false", lambda value: isinstance(value, bool), lambda text: text, "bool")
NAME = Kind("a name", lambda value: isinstance(value, str) and bool(value), str, "str", "NAME")
EXPRESSION = Kind("a regular expression", is_expression, str, "str", "REGEX")
POSITIVE, NATURAL = whole(1), whole(0)
RANGE = Kind(
    "a range of blocks, as 4:30 (the first is 0, the last is excluded)", is_range, read_range, "slice or str", "A:B",
    write=spelt_range,
)  # fmt: skip


def named_weight(text: str) -> str | tuple[str, float]:
    """A source of text, or one and its weight, such as `law.txt=0.7`. What is a file is a source, whatever its name."""
    name, equals, weight = text.rpartition("=")
    try:
        return (name, float(weight)) if equals and name and not Path(text).expanduser().is_file() else text
    except ValueError:
        return text


def is_sources(value: Any) -> bool:
    """Whether a value is a source of text, or a mapping from sources to weights."""
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(name, str) and is_real(weight) for name, weight in value.items())
    return isinstance(value, str) and bool(value)


SOURCES = Kind(
    "a source, or sources with their weights", is_sources, named_weight, "str or mapping", "S[=W]",
    write=lambda value: value if isinstance(value, str) else {name: float(weight) for name, weight in value.items()},
)  # fmt: skip
OPTIONS = Kind("a mapping by names", is_options, named_value, "mapping", "NAME=VALUE", write=dict)
