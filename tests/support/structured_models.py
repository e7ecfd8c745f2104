"""Tiny models pruned by structured methods, and what hooks see of a model: references that know nothing of moments."""

from __future__ import annotations

import numpy as np
import torch
from tiny_models import FAMILIES, VOCABULARY, exact
from transformers import PreTrainedModel

from gramian.adapters import prune
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import operator

__all__ = ["GATED", "HELD", "TOKENS", "exact", "generated", "in_blocks", "kept_columns", "logits", "pruned", "rows_of", "seen"]

TOKENS = torch.randint(0, VOCABULARY, (10, 40), generator=torch.Generator().manual_seed(0))
HELD = torch.randint(0, VOCABULARY, (3, 40), generator=torch.Generator().manual_seed(1))
GATED = [name for name in FAMILIES if name not in ("opt", "gpt2")]


def pruned(model: PreTrainedModel, **options):
    """The model pruned, and its report; 30 % unless told otherwise."""
    return model, prune(model, TOKENS, progress=False, **{"method": "numerical", "ratio": 0.3, "heldout": HELD} | options)


def in_blocks(model: PreTrainedModel) -> int:
    path = next(name for name, module in model.named_modules() if module is blocks_of(model))
    return sum(tensor.numel() for name, tensor in model.state_dict().items() if name.startswith(f"{path}."))


@torch.no_grad()
def seen(model: PreTrainedModel, tokens: torch.Tensor) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inputs (N, p) and outputs less bias (N, q) of every consumer while the model reads the tokens."""
    found, handles = {}, []
    for name in unit_groups_of(model):
        module = operator(model, name)

        def note(_, args, output, name=name, bias=module.bias):
            values = output if bias is None else output - bias
            found[name] = tuple(each.reshape(-1, each.shape[-1]).double().numpy() for each in (args[0], values))

        handles.append(module.register_forward_hook(note))
    model(input_ids=tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=HELD, use_cache=False).logits


def generated(model: PreTrainedModel) -> torch.Tensor:
    """Tokens that the model continues with, greedily, with its cache."""
    return model.generate(HELD[:, :20], attention_mask=torch.ones(3, 20), max_new_tokens=6, min_new_tokens=6, do_sample=False)


def rows_of(model: PreTrainedModel, name: str) -> np.ndarray:
    """The weight of an operator, outputs by inputs."""
    module = operator(model, name)
    weight = module.weight.detach().numpy()
    return weight.T if type(module).__name__ == "Conv1D" else weight


def kept_columns(dense: PreTrainedModel, model: PreTrainedModel, name: str) -> np.ndarray:
    """Columns of a consumer that stayed, told by the producer's rows, which are moved but not changed."""
    unit_group = unit_groups_of(dense)[name]
    path = f"{unit_group.block}.{unit_group.structure.producers[0][0]}"
    before, after = (rows_of(each, path) for each in (dense, model))
    width = unit_group.units * unit_group.size  # of the first section, where there are several
    where = {row.tobytes(): place for place, row in enumerate(before[:width])}
    return np.array([where[row.tobytes()] for row in after if row.tobytes() in where])


def same_model(ours, theirs) -> bool:
    here, there = ours.state_dict(), theirs.state_dict()
    return here.keys() == there.keys() and all(here[name].equal(there[name]) for name in here)
