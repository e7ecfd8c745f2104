"""Where a model is: a directory, a GGUF file or a hub id. Places are checked without torch, so that a mistake is reported at
once. So is what only looks like a file of a model: a pipe, which would be waited for, or a device, which never ends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from gramian.adapters.files import streams
from gramian.adapters.models.demo_model import demo_model_path
from gramian.extras import need

__all__ = ["WEIGHTS", "Place", "locate", "variant_of", "weight_files"]

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
VARIANT = re.compile(
    r"model\.(?P<one>(?:(?!-\d{5}-of-\d{5})[^.])+)\.safetensors|model\.safetensors\.index\.(?P<many>[^.]+)\.json"
)
ADAPTER = "adapter_config.json"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class Place(NamedTuple):
    """The directory or hub id that `from_pretrained` is given, the GGUF file in it if it is one, whether it is local, and the
    variant of its weights if they have a name of their own."""

    name: str
    gguf: str | None
    local: bool
    variant: str | None = None


def variant_of(folder: Path) -> str | None:
    """The variant of a directory's weights, `fp16` of `model.fp16.safetensors`; None where they have their usual name, or there
    are none. ValueError where there are several variants, of which none is the usual one."""
    held = {file.name for file in folder.iterdir()}
    if held.intersection(WEIGHTS):
        return None
    found = sorted({match["one"] or match["many"] for name in held if (match := VARIANT.fullmatch(name))})
    if len(found) > 1:
        raise ValueError(f"{folder} holds weights in the variants {', '.join(found)}: name those to be read {WEIGHTS[0]}")
    return found[0] if found else None


def weight_files(folder: Path) -> tuple[Path, Path]:
    """The file that holds all weights of a directory, and the index of several such files; one of them is there."""
    variant = variant_of(folder)
    if variant is None:
        return folder / WEIGHTS[0], folder / WEIGHTS[1]
    return folder / f"model.{variant}.safetensors", folder / f"model.safetensors.index.{variant}.json"


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
        check_regular(path)  # before any of its files is read
        held = {file.name for file in path.iterdir()}
        if ADAPTER in held:
            check_adapter(path, held)
        if "config.json" not in held:
            raise FileNotFoundError(f"{path} holds no model: it has no config.json")
        variant = variant_of(path)
        if variant is None and not held.intersection(WEIGHTS):
            pickled = sorted(name for name in held if name.endswith((".bin", ".pt", ".pth")))
            if pickled:
                raise ValueError(
                    f"{path} holds only pickled weights ({pickled[0]}), which can execute code when loaded: "
                    "convert them to safetensors"
                )
            raise FileNotFoundError(f"{path} has a config.json but no weights: expected {' or '.join(WEIGHTS)}")
        return Place(str(path), None, True, variant)
    if path.suffix == ".gguf" or not HUB_ID.fullmatch(str(source)):
        raise FileNotFoundError(f"no model {str(source)!r}: no such directory or .gguf file, no hub id like org/name")
    return Place(str(source), None, False)


def check_adapter(folder: Path, held: set[str]) -> None:
    """Raise ValueError for adapters of PEFT, which are no model, or which change the one beside them."""
    try:
        base = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        base = None
    merge = "load both with peft, save what model.merge_and_unload() returns, and give that"
    if "config.json" in held:
        raise ValueError(
            f"{folder} holds a model and adapters of PEFT that change it ({ADAPTER}): {merge}, or remove the adapter's files "
            "to have the model without them"
        )
    named = f", {base}" if isinstance(base, str) and base else ""
    raise ValueError(f"{folder} holds adapters of PEFT ({ADAPTER}) for a model that is not here{named}: {merge}")


def check_regular(folder: Path) -> None:
    """Raise ValueError for a pipe, a socket or a device among the files of a model."""
    for file in (*folder.iterdir(), *folder.glob("chat_templates/*")):
        if streams(file):
            raise ValueError(f"{file} is a pipe, a socket or a device, where a model has files only: remove it")
