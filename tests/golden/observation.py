"""What a run left, as dictionaries of plain values that two versions can be compared by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

__all__ = ["folder_seen", "plain"]


def plain(value: Any) -> Any:
    """Tensors and arrays as dtype, shape and SHA-256 of their bytes; mappings and sequences of such; else as in JSON."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        dtype = str(value.dtype).removeprefix("torch.")
        return {"dtype": dtype, "shape": str(list(value.shape)), "sha256": hashlib.sha256(raw).hexdigest()}
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return json.loads(json.dumps(value, default=str))


def folder_seen(folder: Path, but: Collection[str] = ()) -> dict[str, Any]:
    """Every file below a folder, by its path there, except below entries named in `but`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = {str(path.relative_to(folder)): path for path in files if path.relative_to(folder).parts[0] not in but}
    return {name: file_seen(path) for name, path in paths.items()}


def file_seen(path: Path) -> Any:
    """Tensors and metadata of safetensors files, what JSON files say, and the SHA-256 of others and of tokenisers."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return {"metadata": file.metadata() or {}, **{name: plain(file.get_tensor(name)) for name in file.keys()}}
    if path.suffix == ".json" and not path.name.startswith("tokenizer"):
        return json.loads(path.read_text(encoding="utf-8"))
    return hashlib.sha256(path.read_bytes()).hexdigest()
