"""Operators at several levels on the disk: one file each, from which a level is read when a search asks for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from gramian.adapters.run.block_records import as_array, as_tensor
from gramian.adapters.tensor_files import read_tensors, tensor_names, write_tensors

__all__ = ["DENSE", "LevelFiles"]

DENSE = "dense"


class LevelFiles:
    """Weights (q, p) of operators by name and level. A file appears complete or not at all.

    folder: an existing directory, of which nobody else has a part.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """The file of an operator."""
        return self.folder / f"{name}.safetensors"

    def write(self, name: str, weights: Mapping[str, torch.Tensor]) -> None:
        """Write the levels of an operator, each in the dtype that it has."""
        kinds = {level: str(value.dtype).removeprefix("torch.") for level, value in weights.items()}
        arrays = {level: as_array(value.detach().cpu()) for level, value in weights.items()}
        write_tensors(self.path(name), arrays, {"kinds": json.dumps(kinds)})

    def read(self, name: str, level: str) -> torch.Tensor:
        """Read one level of an operator, and nothing else of its file. ValueError for a damaged file."""
        path = self.path(name)
        kinds = json.loads(tensor_names(path)[1]["kinds"])
        return as_tensor(read_tensors(path, [level])[level], kinds[level])
