"""The array libraries that are installed, each behind one way in and one way out."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["NUMPY", "Backend", "backends"]


@dataclass(frozen=True)
class Backend:
    """An array library: `asarray` takes numpy arrays there, `numpy` takes them back."""

    name: str
    module: Any

    def asarray(self, array: Any, dtype: str | None = None) -> Any:
        array = np.array(array, dtype=dtype)  # a copy: nobody may see another's arrays
        return self.module.from_numpy(array) if self.name == "torch" else self.module.asarray(array)

    def numpy(self, array: Any) -> np.ndarray:
        return array.get() if self.name == "cupy" else np.asarray(array)

    def dtype(self, name: str) -> Any:
        return getattr(self.module, name)

    def moved(self, record: Any) -> Any:
        """A frozen dataclass, such as a term, with its numpy arrays here; anything else as it is."""
        if not is_dataclass(record) or isinstance(record, type):
            return record
        held = {field.name: getattr(record, field.name) for field in fields(record) if field.init}
        arrays = {name: self.asarray(value) for name, value in held.items() if isinstance(value, np.ndarray)}
        return replace(record, **arrays) if arrays else record

    def __repr__(self) -> str:
        return self.name


NUMPY = Backend("numpy", np)


def backends() -> list[Backend]:
    """numpy, and of torch, array-api-strict and cupy (where there is a GPU) those that are installed."""
    found = [NUMPY]
    for name, module in (("torch", "torch"), ("strict", "array_api_strict"), ("cupy", "cupy")):
        try:
            backend = Backend(name, import_module(module))
            if name != "cupy" or backend.module.cuda.runtime.getDeviceCount() > 0:
                found.append(backend)
        except Exception:  # absent, or present without a driver: both mean that it is not here
            continue
    return found
