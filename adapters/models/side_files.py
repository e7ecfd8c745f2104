"""What stands beside a model's weights and is no part of them: licence, model card, processors, templates, modules of sentence
encoders. Nothing here reads such files; they are copied byte for byte.

Copied are files directly in the model's directory, and those of folders that `modules.json` names, where sentence encoders keep
their pooling and what follows it. Never copied are weights at the top, their indices and other forms of them, what can execute
(code, pickles, archives), hidden files, links that lead out of the directory, and what is too large to stand beside weights.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from transformers import PreTrainedModel

from gramian.adapters.files import PAGE, REPORT, streams
from gramian.adapters.models.origins import GENERATION, origin_of
from gramian.adapters.models.own_classes import CODE

__all__ = ["copy_side_files"]

LOG = logging.getLogger(__name__)
LARGEST = 2**26  # bytes of one file
MOST = 2**28  # bytes of all of them
COUNT = 1000  # files
WEIGHTS = (
    ".safetensors", ".gguf", ".ggml", ".onnx", ".onnx_data", ".h5", ".hdf5", ".keras", ".msgpack", ".ot",
    ".tflite", ".pb", ".mlmodel", ".params", ".npy", ".npz",
)  # fmt: skip
INDEX = re.compile(r"\.index(\.[^.]+)?\.json$")  # of weights in several files
EXECUTABLE = (
    ".py", ".pyc", ".pyo", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".bash", ".bat", ".cmd", ".ps1", ".js", ".jar",
    ".class", ".whl", ".egg", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".zip", ".tar", ".gz",
    ".tgz", ".bz2", ".xz", ".7z", ".zst",
)  # fmt: skip
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")  # forms of the weights, or of a training run, that nobody misses
UNMISSED = ("pytorch_model", "model", "training_args", "optimizer", "scheduler", "rng_state", "scaler", "consolidated")
BEGINNINGS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"\x7fELF", b"#!", b"\xca\xfe\xba\xbe")
OURS = (REPORT, PAGE, "config.json", CODE, GENERATION)  # written anew, or not at all
STATED_TWICE = ("special_tokens_map.json", "added_tokens.json")  # in the files of a tokeniser that is saved, which may differ


def copy_side_files(model: PreTrainedModel, draft: Path, with_tokenizer: bool) -> None:
    """Copy what stands beside a model in the directory that it was loaded from to where it is saved, but for files that are
    there already.

    with_tokenizer: a tokeniser was saved, so that its own files stand there. Files that the model may need and that are not
    copied are named in a remark, each with why. OSError where a file cannot be read or written.
    """
    origin = origin_of(model)
    if origin is None:
        return
    source = origin.folder
    if not source.is_dir():
        LOG.warning(
            f"{source} is gone, so that what stood beside the model there (licence, model card, processors) is not saved"
        )
        return
    left_out: list[str] = []
    copied = total = 0
    for name in sorted(candidates(source)):
        path, home = source / name, draft / name
        if home.exists() or name in OURS or (with_tokenizer and name in STATED_TWICE):
            continue
        size = path.stat().st_size if path.is_file() else 0
        if why := refused(source, path):
            left_out.append(f"{name} ({why})")
        elif size > LARGEST or total + size > MOST or copied == COUNT:
            left_out.append(f"{name} (too large with its {size} bytes, or one of too many)")
        else:
            home.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, home)
            copied, total = copied + 1, total + size
    if left_out:
        LOG.warning(f"files beside the model in {source} that are not saved with it: {'; '.join(left_out)}")


def candidates(source: Path) -> Iterator[str]:
    """The names, relative to the directory, of files that are no form of the model's own weights."""
    for path in source.iterdir():
        name = path.name.lower()
        hidden = name.startswith(".") or path.is_dir() or name.endswith(WEIGHTS) or INDEX.search(name) is not None
        if not hidden and not (name.endswith(PICKLED) and name.startswith(UNMISSED)):
            yield path.name
    for folder in module_folders(source):
        for path in sorted((source / folder).rglob("*")):
            if not path.is_dir() and not any(part.startswith(".") for part in path.relative_to(source).parts):
                yield path.relative_to(source).as_posix()


def module_folders(source: Path) -> list[str]:
    """The folders that a sentence encoder names as its modules, none outside the directory."""
    try:
        modules = json.loads((source / "modules.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    named = [each.get("path") for each in modules if isinstance(each, dict)] if isinstance(modules, list) else []
    inside = [PurePosixPath(path) for path in named if isinstance(path, str) and path not in ("", ".")]
    return sorted({str(path) for path in inside if not path.is_absolute() and ".." not in path.parts})


def refused(source: Path, path: Path) -> str:
    """Why a file is never copied, if so: it leads out of the directory, is none, or can execute."""
    if streams(path):
        return "a pipe, a socket or a device"
    if not contained(source, path):
        return "a link that leads out of the directory"
    if path.name.lower().endswith(EXECUTABLE):
        return "code, a pickle or an archive, which can execute"
    with path.open("rb") as file:
        if file.read(4).startswith(BEGINNINGS):
            return "its content can execute"
    return ""


def contained(source: Path, path: Path) -> bool:
    """Whether a path, its links followed, is inside its directory, or in the store that the hub's cache keeps for it."""
    there = Path(os.path.realpath(path))
    base = Path(os.path.realpath(source))
    stores = [base, *([base.parent.parent / "blobs"] if base.parent.name == "snapshots" else [])]
    return there.is_file() and any(there.is_relative_to(store) for store in stores)
