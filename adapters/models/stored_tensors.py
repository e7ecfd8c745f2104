"""The tensors of a checkpoint on the disk, read one at a time, and written file by file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from gramian.adapters.files import write_json
from gramian.adapters.models.places import WEIGHTS, weight_files

__all__ = ["StoredTensors", "WrittenTensors"]


class StoredTensors:
    """The tensors of a safetensors checkpoint, which are read one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def files(self) -> dict[str, str]:
        """The file that holds each tensor; ValueError where the checkpoint's own list cannot be read."""
        single, index = weight_files(self.folder)
        try:
            if not single.is_file():
                return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
            with safe_open(single, framework="pt") as file:
                return dict.fromkeys(file.keys(), single.name)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder}: its weights cannot be read: {type(error).__name__}: {error}") from error

    def alike(self, one: str, other: str) -> bool:
        """Whether two tensors are equal."""
        return one == other or self.read(one).equal(self.read(other))

    def shapes(self, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The shapes of some tensors, none of which is read."""
        shapes = {}
        for name in names:
            with safe_open(self.folder / self.files[name], framework="pt") as file:
                shapes[name] = tuple(file.get_slice(name).get_shape())
        return shapes

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating-point tensor."""
        return next((value.dtype for name in self.files if (value := self.read(name)).is_floating_point()), torch.float32)

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor; ValueError where it cannot be read."""
        try:
            with safe_open(self.folder / self.files[name], framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.folder}: {name} cannot be read: {error}") from error


class WrittenTensors:
    """The files of a sharded checkpoint, as they come."""

    def __init__(self, draft: Path) -> None:
        self.draft = draft
        self.files: list[dict[str, int]] = []  # bytes of every tensor, by name, of the files written so far

    def add(self, tensors: dict[str, torch.Tensor]) -> None:
        """Write one more file."""
        path = self.draft / f"{len(self.files) + 1:05}.safetensors"
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
        except SafetensorError as error:  # safetensors reports a full disk as its own error
            raise OSError(f"writing {path.name} failed: {error}") from error
        self.files.append({name: tensor.nbytes for name, tensor in tensors.items()})

    def finish(self) -> None:
        """Name the files as sharded checkpoints do, and write their index."""
        homes: dict[str, str] = {}
        for number, file in enumerate(self.files, start=1):
            name = f"model-{number:05}-of-{len(self.files):05}.safetensors"
            (self.draft / f"{number:05}.safetensors").rename(self.draft / name)
            homes |= dict.fromkeys(file, name)
        total = sum(size for file in self.files for size in file.values())
        write_json(self.draft / WEIGHTS[1], {"metadata": {"total_size": total}, "weight_map": dict(sorted(homes.items()))})
