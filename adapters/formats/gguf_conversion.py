"""Models as GGUF files, by the converter of llama.cpp, which a package carries.

The converter runs in a process of its own, on a copy of the model that holds nothing that can execute: it lets tokenisers run
code that they bring, and it imports another version of the package `gguf`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from gramian.adapters.formats.carriers import converter_script

__all__ = ["KINDS", "convert", "reason", "run_child", "without_code"]

KINDS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}  # how the converter calls dtypes
CODE = "auto_map"  # the key under which configurations name code of their own


def without_code(folder: Path) -> None:
    """Remove from the configurations of a directory what names code beside them, which `save` has not copied."""
    for file in folder.glob("*.json"):
        document = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(document, dict) and document.pop(CODE, None) is not None:
            file.write_text(json.dumps(document, indent=2), encoding="utf-8")


def convert(folder: Path, file: Path, storage: torch.dtype) -> None:
    """Convert a saved model to a GGUF file that holds its weights in their storage dtype. ValueError, in one line, for a model
    or a tokeniser that the converter does not know."""
    arguments = [str(folder), "--outfile", str(file), "--outtype", KINDS[storage]]
    code, output, errors = run_child("gguf_converter_child.py", [str(converter_script()), *arguments], "")
    if code or not file.is_file():
        raise ValueError(f"llama.cpp's converter cannot make a GGUF of this model: {reason(errors or output, code)}")


def run_child(name: str, arguments: Sequence[str], request: str) -> tuple[int, str, str]:
    """Run a file of this folder in a process that ends when this one does. request: a line on its stdin, which is open until it
    is done. Returns its exit code, stdout and stderr."""
    child = Path(__file__).with_name(name)
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", str(child), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        env={**os.environ, **quiet},
    ) as process:  # fmt: skip
        try:
            return finish(process, request)
        finally:
            process.kill()


def finish(process: subprocess.Popen[str], request: str) -> tuple[int, str, str]:
    """Write the request, and read both streams to their ends, while stdin stays open."""
    from threading import Thread

    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    errors: list[str] = []
    stream = process.stderr
    reader = Thread(target=lambda: errors.append(stream.read()), daemon=True)
    reader.start()
    try:
        process.stdin.write(f"{request}\n")
        process.stdin.flush()
    except BrokenPipeError:  # it has ended, and its stderr says why
        pass
    output = process.stdout.read()
    code = process.wait()
    reader.join()
    return code, output, "".join(errors)


def reason(text: str, code: int) -> str:
    """The line that says why a program has failed: the last error of its log, or of its traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    logged = [line.removeprefix("ERROR:hf-to-gguf:") for line in lines if line.startswith("ERROR:")]
    raised = [line for line in lines if re.match(r"[A-Za-z_.]*(Error|Exception)\b", line)]
    found = (raised or logged or lines)[-1:] or [f"it ends with exit code {code}"]
    return found[0][:300]
