"""Which types of models are pruned, saved and loaded again: tiny random models of every type in `common/tiny_types.py`.

    python benchmarks/model_types.py [--types llama mixtral ...] [--out FILE]

Wanda zeroes half of the weights in memory (unstructured and 2:4) and block by block from the files (streamed), and removes a
fifth of the parameters (units, saved with equal widths by padding). Of models with mixtures of experts, whole experts are
removed as well (experts). A try works if

    zeros    are at least 45 % of the entries of all matrices of the part that reads text: those of `Linear` and `Conv1D`
             modules and of packed experts, embeddings and heads apart (no condition where units are removed);
    errors   in the report are those of inputs that hooks here see in the dense model, to 1e-6; of packed experts, on the tokens
             that the router sent to them;
    loading  what was saved, with the stock class of transformers, gives the same logits, or hidden states of encoders; what is
             streamed, those of the same model pruned in memory.

Else the reason is kept, in one line. Types that are not run keep what the result file has of them.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from common.results import RESULTS, save
from common.tiny_types import TYPES, VOCABULARY, random_model
from torch import nn
from torch.overrides import TorchFunctionMode

import gramian
from gramian.adapters.models.experts import packed_in
from gramian.adapters.models.tasks import auto_class, outputs_of, token_inputs
from gramian.versions import versions

WINDOWS = torch.randint(3, 250, (8, 24), generator=torch.Generator().manual_seed(1))
OTHERS = torch.randint(3, 250, (2, 24), generator=torch.Generator().manual_seed(2))
ZEROS, ERROR, LOGITS = 0.45, 1e-6, 1e-5
SETTINGS: dict[str, dict[str, Any]] = {
    "unstructured": {"method": "wanda", "sparsity": 0.5, "calibrate_on": "dense"},
    "2:4": {"method": "wanda", "sparsity": "2:4", "calibrate_on": "dense"},
    "streamed": {"method": "wanda", "sparsity": 0.5, "calibrate_on": "dense"},
    "units": {"method": "wanda-sp", "ratio": 0.2, "allocation": "per_type"},
    "experts": {"method": "experts", "ratio": 0.1},
}


class Unlike(Exception):
    """What was done is not what was asked for."""


def answer(model: Any) -> torch.Tensor:
    """Logits, or hidden states, on windows that calibrate nothing."""
    with torch.no_grad():
        return outputs_of(model(**token_inputs(model, OTHERS)))


def matrices(model: nn.Module) -> dict[str, torch.Tensor]:
    """All matrices of the part that reads text, by name: 2-D ones of `Linear` and `Conv1D`, 3-D ones of packed experts."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    found = {}
    for name, module in model.named_modules():
        if module is head or any(part in name for part in ("vision", "projector", "pooler")):
            continue
        for leaf, parameter in module.named_parameters(recurse=False):
            linear = parameter.ndim == 2 and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
            if linear or (parameter.ndim == 3 and not isinstance(module, nn.Conv1d)):
                found[f"{name}.{leaf}"] = parameter
    return found


class Seen(TorchFunctionMode):
    """Every product of tokens with a matrix, by where the matrix lies in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: dict[int, list[torch.Tensor]] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in ("linear", "matmul", "__matmul__", "mm", "addmm", "bmm"):
            given = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)]
            tokens, matrix = given[1:3] if function.__name__ == "addmm" else given[:2]
            pairs = [(matrix, tokens)] if matrix.ndim == 2 else list(zip(matrix, tokens)) if function.__name__ == "bmm" else []
            for each, reached in pairs:
                self.inputs.setdefault(each.data_ptr(), []).append(reached.reshape(-1, reached.shape[-1]))
        return function(*args, **kwargs)


def errors(dense: Any, pruned: Any, names: list[str]) -> dict[str, float]:
    """|X V^T - X W^T|^2 / |X W^T|^2 of operators, X as it comes in the dense model, whose experts run one after the other."""
    dense.config._experts_implementation = "eager"
    with torch.no_grad(), Seen() as seen:
        dense(**token_inputs(dense, WINDOWS))
    found = {}
    for name in names:
        before, after = (weight_of(model, name) for model in (dense, pruned))
        if before.data_ptr() not in seen.inputs:
            if name.rpartition(".")[2].isdecimal():
                continue  # no token was sent to this expert
            raise Unlike(f"{name} multiplies nothing")
        inputs = torch.cat(seen.inputs[before.data_ptr()]).double()
        over = turned(dense, name) or inputs.shape[1] != before.shape[1]
        before, after = (each.double().T if over else each.double() for each in (before, after))
        found[name] = float(((inputs @ (after - before).T) ** 2).sum() / ((inputs @ before.T) ** 2).sum())
    return found


def turned(model: Any, name: str) -> bool:
    """Whether a weight is stored as inputs x outputs."""
    module = model.get_submodule(name) if not name[-1].isdecimal() else model.get_submodule(name.rsplit(".", 2)[0])
    return type(module).__name__ == "Conv1D" or bool(getattr(module, "is_transposed", False))


def weight_of(model: Any, name: str) -> torch.Tensor:
    """The matrix of an operator, or of one of the packed experts."""
    try:
        weight: torch.Tensor = model.get_submodule(name).weight
        return weight
    except AttributeError:
        packed, _, number = name.rpartition(".")
        return model.get_parameter(packed)[int(number)]


def check_zeros(model: Any) -> float:
    every = matrices(model).values()
    zeros = sum(int((each == 0).sum()) for each in every) / sum(each.numel() for each in every)
    if zeros < ZEROS:
        raise Unlike(f"zeros are {zeros:.1%} of all matrices")
    return zeros


def check_loads(model: Any, folder: Path) -> float:
    """How far apart the answers of a model and of what was saved of it are, relative to the largest."""
    loaded = auto_class(model.config).from_pretrained(folder, dtype=torch.float32).eval()
    mine, theirs = answer(model), answer(loaded)
    apart = float((mine - theirs).abs().max() / mine.abs().max())
    if not apart <= LOGITS:
        raise Unlike(f"what loads again answers otherwise, by {apart:.1e}")
    return apart


def in_memory(dense: Any, settings: dict[str, Any], folder: Path) -> tuple[Any, dict[str, Any]]:
    """Prune a copy in memory, and check it."""
    model = copy.deepcopy(dense)
    report: Any = gramian.prune(model, WINDOWS, **settings, progress=False)
    gramian.save(model, None, folder / "saved", report=report, pad="ratio" in settings)
    if "ratio" in settings:
        before, after = report.block_parameters
        return model, {"removed": round(1 - after / before, 4), "apart": check_loads(model, folder / "saved")}
    zeros, rows = check_zeros(model), {row.name: row.relative_error for row in report.operators}
    mine = errors(dense, model, list(rows))
    worst = max(abs(mine[name] - rows[name]) / max(mine[name], 1e-3) for name in mine)
    if not worst <= ERROR:
        raise Unlike(f"an error in the report is off by {worst:.1e}")
    return model, {"zeros": round(zeros, 4), "error": worst, "apart": check_loads(model, folder / "saved")}


def streamed(dense: Any, settings: dict[str, Any], folder: Path) -> tuple[Any, dict[str, Any]]:
    """Prune block by block from the files, and compare with the same in memory."""
    gramian.save(dense, None, folder / "dense")
    gramian.prune(str(folder / "dense"), WINDOWS, **settings, out=folder / "saved", progress=False)
    model = copy.deepcopy(dense)
    gramian.prune(model, WINDOWS, **settings, progress=False)
    return model, {"zeros": round(check_zeros(model), 4), "apart": check_loads(model, folder / "saved")}


def tried(attempt: Callable[..., tuple[Any, dict[str, Any]]], dense: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """What came of a try."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return {"works": True, **attempt(dense, settings, Path(folder))[1]}
        except Exception as error:  # whatever it is, it is the result
            line = " ".join(str(error).split()).replace(f"{folder}/", "")
            line = re.sub(r"\b[\w.]*\.\d+\.(?=\w)", "", line)  # the path of a block
            reason = line if isinstance(error, Unlike | ValueError) else f"{type(error).__name__}: {line}"
            return {"works": False, "reason": reason}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", choices=TYPES, metavar="TYPE", default=list(TYPES), help="default: all")
    parser.add_argument("--tries", nargs="+", choices=SETTINGS, metavar="TRY", default=list(SETTINGS), help="default: all")
    parser.add_argument("--out", type=Path, default=RESULTS / "model_types.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    known = json.loads(arguments.out.read_text(encoding="utf-8"))["types"] if arguments.out.is_file() else {}
    for model_type in arguments.types:
        dense = random_model(model_type)
        tries = [name for name in arguments.tries if name != "experts" or any(packed_in(each) for each in dense.modules())]
        rows = {name: tried(streamed if name == "streamed" else in_memory, dense, SETTINGS[name]) for name in tries}
        print(model_type, {name: row.get("reason", "works") for name, row in rows.items()}, flush=True)
        known[model_type] = known.get(model_type, {}) | rows
        types = {each: known[each] for each in TYPES if each in known}
        save(arguments.out, {"versions": versions(), "vocabulary": VOCABULARY, "types": types})


if __name__ == "__main__":
    main()
