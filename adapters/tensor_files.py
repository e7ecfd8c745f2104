"""Safetensors files of numpy arrays: eight bytes that hold the length of a JSON header, then the header, then the numbers.

The format is written out here so that problem files need numpy alone; the weights of models are read by the package
`safetensors`. A file is data and nothing else: a header that does not describe it exactly, to the last byte, is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gramian.adapters.files import write_bytes

__all__ = ["read_tensors", "tensor_names", "tensor_sizes", "write_tensors"]

KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1"}
NAMES = {np.dtype(kind): name for name, kind in KINDS.items()}
LONGEST_HEADER = 100 * 2**20  # bytes, as the format has it
METADATA = "__metadata__"


class Entry:
    """Where one tensor is in a file: its kind, its shape, its first byte and the byte after its last, counted from the end of
    the header."""

    def __init__(self, path: Path, name: str, entry: object) -> None:
        said = entry if isinstance(entry, dict) else {}
        kind: Any = said.get("dtype")
        shape: Any = said.get("shape")
        offsets: Any = said.get("data_offsets")
        lists = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
        if not (isinstance(kind, str) and lists and all(type(number) is int and number >= 0 for number in shape + offsets)):
            raise ValueError(f"{path} is not a readable safetensors file: its header says {entry!r} of {name!r}")
        self.kind: str = kind
        self.shape: tuple[int, ...] = tuple(shape)
        self.first: int = offsets[0]
        self.last: int = offsets[1]


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str], int]:
    """Read the tensors' entries by name, the metadata, and the place of the first number. ValueError unless header and file fit
    each other."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise ValueError(f"{path} is not a readable safetensors file: {size} bytes do not hold a header of {length}")
        try:
            header = json.loads(file.read(length).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a readable safetensors file: its header is no JSON ({error})") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not a readable safetensors file: its header is a {type(header).__name__}")
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{path} is not a readable safetensors file: its metadata is not a mapping of strings")
    entries = {name: Entry(path, name, entry) for name, entry in header.items()}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].first, item[1].last)):
        if entry.first != end or entry.last < entry.first:
            raise ValueError(f"{path} is not a readable safetensors file: {name} begins at {entry.first}, expected {end}")
        end = entry.last
    if end != size - 8 - length:
        raise ValueError(f"{path} is not a readable safetensors file: its tensors end at {end} of {size - 8 - length} bytes")
    return entries, metadata, 8 + length


def tensor_names(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read the kind of every tensor, such as `F32`, by name, and the metadata."""
    entries, metadata, _ = read_header(path)
    return {name: entry.kind for name, entry in entries.items()}, metadata


def tensor_sizes(path: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Read the kind and the shape of every tensor by name, and how many numbers it holds: never more than bytes, whatever its
    shape says."""
    entries = read_header(path)[0]
    return {name: (each.kind, each.shape, min(math.prod(each.shape), each.last - each.first)) for name, each in entries.items()}


def read_tensors(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read tensors of a file by name. ValueError: a damaged file, a name that it does not hold, a kind that numpy does not
    have."""
    entries, _, start = read_header(path)
    tensors = {}
    with path.open("rb") as file:
        for name in names:
            if name not in entries:
                raise ValueError(f"{path} holds the tensors {sorted(entries)}, but {name!r} is needed")
            entry = entries[name]
            if entry.kind not in KINDS:
                raise ValueError(f"{path}: {name} is {entry.kind} but must be one of {', '.join(KINDS)}")
            kind = np.dtype(KINDS[entry.kind])
            if math.prod(entry.shape) * kind.itemsize != entry.last - entry.first:
                raise ValueError(f"{path}: {name} of shape {entry.shape} takes other than {entry.last - entry.first} bytes")
            file.seek(start + entry.first)
            tensors[name] = np.frombuffer(file.read(entry.last - entry.first), kind).reshape(entry.shape)
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a file that appears complete or not at all; after an OSError the file is what it was before."""
    header: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    blocks, end = [], 0
    for name, tensor in tensors.items():
        block = np.ascontiguousarray(tensor).tobytes()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end, end + len(block)]}
        blocks.append(block)
        end += len(block)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of eight
    write_bytes(path, b"".join([len(text).to_bytes(8, "little"), text, *blocks]))
