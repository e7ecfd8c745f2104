"""What a pass finds at a block, as text and arrays, and back: plain values, arrays, and dataclasses of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

from gramian.solvers.backend._xp import to_numpy

__all__ = ["Packer", "unpacked"]

TYPE, ARRAY, TUPLE = "type", "array", "tuple"


class Packer:
    """Turns values into what JSON holds; arrays are put aside, and named by their place.

    arrays: those put aside, as numpy arrays by name. Text, numbers and None are what they are.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def packed(self, value: Any) -> Any:
        """The value in JSON's terms; TypeError for one that has none."""
        if value is None or (isinstance(value, str | bool | int | float) and not isinstance(value, Enum)):
            return value
        if isinstance(value, Enum):
            return {TYPE: type(value).__name__, "name": value.name}
        if is_dataclass(value) and not isinstance(value, type):
            return {TYPE: type(value).__name__, **{each.name: self.packed(getattr(value, each.name)) for each in fields(value)}}
        if isinstance(value, dict):
            return {TYPE: "dict", "items": [[self.packed(key), self.packed(each)] for key, each in value.items()]}
        if isinstance(value, tuple):
            return {TYPE: TUPLE, "items": [self.packed(each) for each in value]}
        if isinstance(value, list):
            return [self.packed(each) for each in value]
        name = f"{len(self.arrays)}"
        self.arrays[name] = to_numpy(value)
        return {TYPE: ARRAY, "name": name, "host": isinstance(value, np.ndarray | np.generic)}


def unpacked(value: Any, arrays: dict[str, np.ndarray], types: dict[str, type], placed: Callable[[np.ndarray], Any]) -> Any:
    """The value that was packed. types: the dataclasses and enumerations that may occur, by name, and no others are made.
    placed(array) brings one home that was no numpy array."""

    def again(each: Any) -> Any:
        return unpacked(each, arrays, types, placed)

    if isinstance(value, list):
        return [again(each) for each in value]
    if not isinstance(value, dict):
        return value
    kind, rest = value[TYPE], {name: each for name, each in value.items() if name != TYPE}
    if kind == ARRAY:
        array = arrays[rest["name"]]
        return array if rest["host"] else placed(array)
    if kind == TUPLE:
        return tuple(again(each) for each in rest["items"])
    if kind == "dict":
        return {again(key): again(each) for key, each in rest["items"]}
    made: Any = types[kind]
    if issubclass(made, Enum):
        return made[rest["name"]]
    return made(**{name: again(each) for name, each in rest.items()})
