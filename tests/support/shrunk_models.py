"""Choices of units to keep of tiny models, and the same models with those units silenced by hooks."""

from __future__ import annotations

import copy

import numpy as np
import torch
from tiny import FAMILIES, VOCABULARY, names_of
from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.models.unit_groups import unit_groups_of

IDS = torch.arange(40).view(2, 20) * 7 % VOCABULARY  # longer than the sliding windows
PADDING = torch.ones(2, 20, dtype=torch.int64)
PADDING[1, :3] = 0
GROUPED = [name for name in FAMILIES if name not in ("opt", "gpt2")]


def channels(seed: int, kept: int) -> list[int]:
    return np.random.default_rng(seed).permutation(48)[:kept].tolist()


def uniform(model: nn.Module) -> dict[str, list[int]]:
    """31 channels and two query heads in every block, other ones in each; where heads are grouped, one of each group."""
    heads = [[0, 2], [1, 3], [0, 3]] if model.config.model_type in GROUPED else [[0, 1], [0, 3], [1, 2]]
    keep = dict(zip(names_of(model, "heads"), heads))
    return keep | {name: channels(place, 31) for place, name in enumerate(names_of(model, "channels"))}


def uneven(model: nn.Module) -> dict[str, list[int]]:
    """Another width in every block: a whole group goes, or one head of each group; nothing goes in some modules."""
    heads = [[2, 3], [1, 2], [3]] if model.config.model_type in GROUPED else [[3, 0, 1], [2], [0]]
    mlps = names_of(model, "channels")
    return dict(zip(names_of(model, "heads"), heads)) | {mlps[0]: channels(8, 1), mlps[-1]: channels(7, 5)}


def silenced(model: PreTrainedModel, keep: dict[str, list[int]]) -> PreTrainedModel:
    """The dense model whose consumers see zeros in the place of every unit that is not kept."""
    model = copy.deepcopy(model)
    for name, unit_group in unit_groups_of(model).items():
        if name in keep:
            signal = torch.zeros(unit_group.units, unit_group.size)
            signal[keep[name]] = 1

            def silence(_, args, signal=signal):
                return (args[0] * signal.reshape(-1).to(args[0].dtype), *args[1:])

            model.get_submodule(name).register_forward_pre_hook(silence)
    return model


def changed(function, model: PreTrainedModel, keep) -> PreTrainedModel:
    model = copy.deepcopy(model)
    function(model, keep)
    return model


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=IDS).logits


def generated(model: PreTrainedModel, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and their scores; greedy, with one row padded on the left."""
    done = model.generate(
        IDS, attention_mask=PADDING, max_new_tokens=6, min_new_tokens=6, do_sample=False, output_scores=True,
        return_dict_in_generate=True, **options,
    )  # fmt: skip
    scores = torch.stack(done.scores)
    return done.sequences, torch.where(scores.isfinite(), scores, 0)
