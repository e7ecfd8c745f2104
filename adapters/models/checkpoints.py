"""What a directory's weights and configuration may say, before anything is read or built by it.

Weights are files of the directory in the form of safetensors. A configuration describes a model that these weights can fill:
otherwise one line of it takes all memory, or all day.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from gramian.adapters.models.places import weight_files
from gramian.adapters.tensor_files import tensor_sizes

__all__ = ["Stored", "check_configuration", "check_size", "shards_of", "stored_in"]

COUNTED = re.compile(r"(layers?|blocks|experts|labels)$")  # settings that say how many modules, or names, are made one by one
FEW = 1000  # of them are made in no time
WHOLE = ("F64", "F32", "F16", "BF16")  # kinds of numbers, as safetensors calls them, that are weights by themselves
SMALL = 2**20  # numbers of a model that takes no memory to speak of


class Stored(NamedTuple):
    """How many tensors a checkpoint holds, how many numbers in all of them, and the tensors' shapes by name."""

    tensors: int
    numbers: int
    shapes: Mapping[str, tuple[int, ...]]


def shards_of(folder: Path) -> list[str]:
    """The names of the files that hold the weights. ValueError for weights that are not files of this directory in the form of
    safetensors: others might never end, or hold what can be executed."""
    single, index = weight_files(folder)
    names: Iterable[Any] = [single.name]
    if not single.exists():
        try:
            names = dict.fromkeys(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{index} is no index of weights: {type(error).__name__}: {error}") from error
    for name in names:
        plain = isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")
        if not plain or not (folder / name).is_file():
            raise ValueError(f"{folder}: weights are in {name!r}, expected a safetensors file of this directory")
    return list(names)


def stored_in(folder: Path) -> Stored:
    """Count what the files hold, by their headers alone. ValueError for damaged ones, for weights that are no floating-point
    numbers, and as `shards_of` raises it."""
    numbers, shapes = 0, {}
    for file in shards_of(folder):
        try:
            sizes = tensor_sizes(folder / file)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder}: damaged or truncated safetensors weights ({error})") from error
        for name, (kind, shape, size) in sizes.items():
            if name.endswith((".weight", "_proj", "_weight")) and kind not in WHOLE:
                raise ValueError(
                    f"{folder}: {name} is {kind} in the weights, expected floating-point numbers of 16 bits or more: "
                    "dequantise the model and save that"
                )
            shapes[name], numbers = shape, numbers + size
    return Stored(len(shapes), numbers, shapes)


def check_configuration(folder: Path, stored: Stored) -> None:
    """Raise ValueError for a `config.json` that states more layers, or other things that are made one by one, than there are
    tensors. Nothing is said of one that is unreadable: the library says what is wrong there."""
    file = folder / "config.json"
    try:
        found = [json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, RecursionError):
        return
    for part in found:  # which grows on the way
        if not isinstance(part, dict):
            continue
        for key, value in part.items():
            if COUNTED.search(key) and isinstance(value, int) and value > max(FEW, stored.tensors):
                raise ValueError(f"{file} states {key} {value}, and the weights are {stored.tensors} tensors")
            found.append(value)


def check_size(build: Callable[[], nn.Module], stored: Stored, source: str | Path) -> None:
    """Raise ValueError for a model that would hold far more numbers than its weights do, before memory is given to it.

    build: makes the model, here without memory. Those that lack a part of their weights are refused when these are read."""
    with torch.device("meta"):
        model = build()
    needed = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if needed > 2 * max(SMALL, stored.numbers):
        raise ValueError(
            f"{source} states a model of {needed} numbers in its configuration, and its weights hold {stored.numbers}"
        )
