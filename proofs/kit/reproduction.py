"""Calls as source code, which a failing check prints so that it can be pasted and run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["snippet"]

WIDTH = 100


def snippet(function: Callable[..., Any], arguments: Sequence[Any]) -> str:
    """Return Python that imports what it needs and calls `function(*arguments)`, with arrays to the last bit.

    What no import leads to (a lambda, a class inside a function) becomes a line of its own, to be completed by hand.
    """
    code = Source()
    called = code.of(function)
    parts = [code.of(argument) for argument in arguments]
    whole = f"{called}({', '.join(parts)})"
    if len(whole) > WIDTH:
        whole = f"{called}(\n" + "".join(f"    {part},\n" for part in parts) + ")"
    imports = sorted(code.imports, key=lambda line: (line.startswith("from"), line))
    return "\n".join([*imports, "", *code.missing, whole])


class Source:
    """Expressions, with the imports and the missing definitions that they need."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.missing: list[str] = []

    def of(self, value: Any) -> str:
        """Return an expression that evaluates to `value`."""
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, np.generic):
            return self.of(value.item())
        if isinstance(value, float):
            return repr(value) if np.isfinite(value) else f'float("{value}")'
        if value is None or isinstance(value, bool | int | str):
            return repr(value)
        if isinstance(value, functools.partial):
            named = [f"{name}={self.of(held)}" for name, held in value.keywords.items()]
            self.imports.add("from functools import partial")
            return f"partial({', '.join([self.of(value.func), *map(self.of, value.args), *named])})"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{self.of(key)}: {self.of(held)}" for key, held in value.items()) + "}"
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return f"{self.of(type(value))}({', '.join(map(self.of, value))})"
        if isinstance(value, tuple | list):
            inner = ", ".join(map(self.of, value))
            return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
        if is_dataclass(value) and not isinstance(value, type) and importable(type(value)):
            return f"{self.of(type(value))}({', '.join(self.arguments(value))})"
        if isinstance(value, Enum):
            return f"{self.of(type(value))}.{value.name}"
        if inspect.ismethod(value):
            return f"{self.of(value.__self__)}.{value.__name__}"
        if importable(value):
            first = value.__qualname__.partition(".")[0]
            self.imports.add(f"from {value.__module__} import {first}")
            return str(value.__qualname__)
        if importable(type(value)) and getattr(value, "__dict__", None) == {}:
            return f"{self.of(type(value))}()"
        name = f"checked{len(self.missing) + 1}"
        self.missing.append(f"{name} = ...  # put here what was checked: {value!r}")
        return name

    def array(self, array: np.ndarray) -> str:
        self.imports.add("import numpy as np")
        if array.size == 0:
            return f"np.zeros({array.shape}, dtype={str(array.dtype)!r})"
        dtype = "" if array.dtype in (np.float64, np.bool_, np.int64) else f", dtype={str(array.dtype)!r}"
        return f"np.array({self.of(array.tolist())}{dtype})"

    def arguments(self, record: Any) -> list[str]:
        """Return the keywords of a dataclass, without those that are None or a number by default and now."""
        held = [(field, getattr(record, field.name)) for field in fields(record) if field.init]
        plain = (bool, int, float, str, type(None))
        return [
            f"{field.name}={self.of(value)}"
            for field, value in held
            if field.default is MISSING or not isinstance(value, plain) or value != field.default
        ]


def importable(value: Any) -> bool:
    """Return whether `from module import name` leads to this function or class."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return False
    try:
        return functools.reduce(getattr, name.split("."), import_module(module)) is value
    except (ImportError, AttributeError, ValueError):
        return False
