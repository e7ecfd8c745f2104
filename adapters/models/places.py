"""Where a model is: a directory, a GGUF file or a hub id. Places are checked without torch, so that a mistake is reported at
once. So is what only looks like a file of a model: a pipe, which would be waited for, or a device, which never ends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from gramian.adapters.files import streams
from gramian.adapters.models.demo_model import demo_model_path
from gramian.extras import need

__all__ = ["WEIGHTS", "Place", "locate"]

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class Place(NamedTuple):
    """The directory or hub id that `from_pretrained` is given, the GGUF file in it if it is one, and whether it is local."""

    name: str
    gguf: str | None
    local: bool


def locate(source: str | Path) -> Place:
    """Find the model that `source` names.

    FileNotFoundError: there is none there. ValueError: a file of another kind, weights that can execute code, pipes and devices
    among the files. ImportError: a GGUF file where its support is not installed.
    """
    path = demo_model_path() if source == "demo" else Path(source).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"{path} is not a model: expected a directory, a .gguf file or a hub id")
        need("demo", ("gguf", "accelerate"), "a GGUF file")
        return Place(str(path.parent), path.name, True)
    if path.is_dir():
        held = {file.name for file in path.iterdir()}
        if "config.json" not in held:
            raise FileNotFoundError(f"{path} holds no model: it has no config.json")
        check_regular(path)
        if not held.intersection(WEIGHTS):
            pickled = sorted(name for name in held if name.endswith((".bin", ".pt", ".pth")))
            if pickled:
                raise ValueError(
                    f"{path} holds only pickled weights ({pickled[0]}), which can execute code when loaded: "
                    "convert them to safetensors"
                )
            raise FileNotFoundError(f"{path} has a config.json but no weights: expected {' or '.join(WEIGHTS)}")
        return Place(str(path), None, True)
    if path.suffix == ".gguf" or not HUB_ID.fullmatch(str(source)):
        raise FileNotFoundError(f"no model {str(source)!r}: no such directory or .gguf file, no hub id like org/name")
    return Place(str(source), None, False)


def check_regular(folder: Path) -> None:
    """Raise ValueError for a pipe, a socket or a device among the files of a model."""
    for file in (*folder.iterdir(), *folder.glob("chat_templates/*")):
        if streams(file):
            raise ValueError(f"{file} is a pipe, a socket or a device, where a model has files only: remove it")
