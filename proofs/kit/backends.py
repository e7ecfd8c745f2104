"""The array libraries that are installed, each behind one way in and one way out."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

from gramian.solvers.backend._xp import to_numpy

__all__ = ["NUMPY", "Backend", "backends"]


@dataclass(frozen=True)
class Backend:
    """An array library, in which `asarray` puts numpy arrays and from which `numpy` takes them back. gpu: whether they live on
    one."""

    name: str
    module: Any
    gpu: bool = False

    def asarray(self, array: Any, dtype: str | None = None) -> Any:
        array = np.array(array, dtype=dtype)  # a copy: nobody may see another's arrays
        if not self.name.startswith("torch"):
            return self.module.asarray(array)
        return self.module.from_numpy(array).to("cuda" if self.gpu else "cpu")

    def numpy(self, array: Any) -> np.ndarray:
        return to_numpy(array)

    def dtype(self, name: str) -> Any:
        return getattr(self.module, name)

    def moved(self, record: Any) -> Any:
        """Return a frozen dataclass, such as a term, with its numpy arrays in this library, and anything else as it is."""
        if not is_dataclass(record) or isinstance(record, type):
            return record
        held = {field.name: getattr(record, field.name) for field in fields(record) if field.init}
        arrays = {name: self.asarray(value) for name, value in held.items() if isinstance(value, np.ndarray)}
        return replace(record, **arrays) if arrays else record

    def __repr__(self) -> str:
        return self.name


NUMPY = Backend("numpy", np)


def backends() -> list[Backend]:
    """Return numpy and, of torch, array-api-strict and, where there is a GPU, cupy and torch on it, those that are
    installed."""
    found = [NUMPY]
    for name, module, gpu in (
        ("torch", "torch", False),
        ("strict", "array_api_strict", False),
        ("cupy", "cupy", True),
        ("torch-cuda", "torch", True),
    ):
        try:
            backend = Backend(name, import_module(module), gpu)
            backend.asarray(np.zeros(1))
        except Exception:  # absent, or present without a device: both mean that it is not here
            continue
        found.append(backend)
    return found
