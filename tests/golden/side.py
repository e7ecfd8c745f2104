"""One version runs the cases, each in a directory of its own: `python -P -m golden.side baseline INSTALL RESULT NAMES`."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_models import exact, some_windows, stacked_model, tiny_model, tiny_tokenizer

from golden.cases import CASES, Case
from golden.observation import folder_seen, plain

OWN_METHOD = "own_method"  # the module that cases call the user's own by
TEXT = " ".join(map(str, range(3000)))  # no two windows are alike
SOURCE, TEXT_FILE, TOKEN_FILE = "source", "text.txt", "tokens.safetensors"  # what is put where a case runs
COUNTS = {"few": 7, "many": 360}  # windows; many make several batches
HELD_OUT = some_windows(5, 2)


def made(model: str) -> Any:
    """A model by its name in a case: a family, `exact` (in float64), `bfloat16` or `float16` before it."""
    dtype, _, family = model.rpartition(" ")
    if family in ("t5", "bert"):
        return stacked_model(model)
    if dtype == "exact":
        return exact(family)
    found = tiny_model(family)
    if dtype:
        found.config.dtype = getattr(torch, dtype)
    return found


def windows_of(case: Case) -> torch.Tensor:
    return some_windows(COUNTS[case.tokens], 1)


def pruned(side: Any, case: Case) -> dict[str, Any]:
    """The model after `prune` or `remove`, the report, and the model loaded again from every form it was saved in."""
    model, tokenizer = made(case.model), tiny_tokenizer()
    heldout = HELD_OUT if case.heldout else None
    report = getattr(side, case.verb)(model, windows_of(case), heldout, case.settings)
    found = {"weights": model.state_dict(), "config": model.config.to_dict(), "report": report}
    for form in case.forms:
        side.save(model, tokenizer, Path(form), form, report)
        found[f"loaded {form}"] = side.load(Path(form)).state_dict()
    return found


def streamed(side: Any, case: Case) -> dict[str, Any]:
    saved_source(case.model)
    heldout = HELD_OUT if case.heldout else None
    return {"report": side.stream(Path(SOURCE), Path("streamed"), windows_of(case), heldout, case.settings)}


def commanded(side: Any, case: Case) -> dict[str, Any]:
    saved_source(case.model)
    Path(TEXT_FILE).write_text(TEXT)
    save_file({"tokens": some_windows(9, 3)}, TOKEN_FILE)
    for arguments in case.settings["commands"]:
        if code := side.command(arguments):
            raise RuntimeError(f"{' '.join(arguments)}: exit code {code}")
    return {}


def measured(side: Any, case: Case) -> dict[str, Any]:
    return getattr(side, case.verb)(made(case.model), windows_of(case), case.settings)


def saved_source(model: str) -> None:
    """A checkpoint, by transformers alone, in shards that do not respect blocks."""
    found = made(model)
    found.to(found.config.dtype or torch.float32).save_pretrained(SOURCE, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(SOURCE)


RUNS: dict[str, Callable[[Any, Case], dict[str, Any]]] = {
    "prune": pruned, "remove": pruned, "stream": streamed, "command": commanded,
}  # fmt: skip


def left_by(side: Any, case: Case) -> dict[str, Any]:
    """All that a case left, files included, or what it raised."""
    home = Path.cwd()
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            found = plain(RUNS.get(case.verb, measured)(side, case))
            return {**found, "files": folder_seen(Path(), but=(SOURCE, TEXT_FILE, TOKEN_FILE))}
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}"}
        finally:
            os.chdir(home)


def main(version: str, install: str, result: str, names: str) -> None:
    """Write what the named cases left as JSON. RuntimeError if any of gramian came from elsewhere than the install."""
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    side = import_module(f"golden.{version}")
    sys.modules[OWN_METHOD] = side
    wanted = set(json.loads(names))
    found = {}
    for case in CASES:
        if case.name in wanted:
            found[case.name] = left_by(side, case)
            print(case.name, flush=True)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] == "gramian" and file and not Path(file).is_relative_to(install):
            raise RuntimeError(f"{name} came from {file}, not from {install}")
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
