"""Whether a model run block by block is the model, checked on a short window before it is used."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from gramian.adapters.models.block_answers import alike
from gramian.adapters.models.block_lists import blocks_of, run_paths, walks_by_block
from gramian.adapters.models.discovery import answers_of, identities, short_window
from gramian.adapters.models.experts import eager_experts
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.tasks import token_inputs, trunk_of
from gramian.adapters.run.forward import enter

__all__ = ["check_blocks"]

AGREED: weakref.WeakKeyDictionary[nn.Module, tuple[weakref.ref[nn.Module], ...]] = weakref.WeakKeyDictionary()


@torch.no_grad()
def check_blocks(model: Any) -> None:
    """Raise ValueError, naming it, for the first block after which hidden states are not bit for bit those of the model's own
    forward pass. On a GPU, whose sums may come in another order each time, they may differ by rounding.

    That every block is given what the one before it returned is checked whenever hidden states enter. More needs the weights:
    of blocks that are read for their turn nothing else is checked.
    """
    if not walks_by_block(model) or any(parameter.is_meta for parameter in model.parameters()):
        return
    blocks, paths, answers = list(blocks_of(model)), run_paths(model), answers_of(model)
    if AGREED.get(model) == identities(model):
        return
    window, own = short_window(model), [torch.empty(0)] * len(blocks)

    def keeping(index: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_: nn.Module, args: Any, answer: Any) -> None:
            own[index] = answers[index].states(answer).clone()

        return keep

    with eval_mode(model), eager_experts(model):
        with ExitStack() as stack:
            for index, block in enumerate(blocks):
                stack.callback(block.register_forward_hook(keeping(index)).remove)
            trunk_of(model)(**token_inputs(model, window))
        (hidden,), calls = enter(model, [window])
        for path, block, call, expected in zip(paths, blocks, calls, own):
            hidden = call(block, hidden)
            if not (alike(hidden, expected) or (hidden.device.type != "cpu" and near(hidden, expected))):
                raise ValueError(
                    f"{path} ({type(block).__name__}) returns other hidden states when it is run by itself than inside "
                    f"{type(model).__name__}, so the model cannot be pruned block by block: prune single layers with "
                    "gramian.capture"
                )
    AGREED[model] = identities(model)


def near(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors differ by rounding at most."""
    tolerance = math.sqrt(torch.finfo(first.dtype).eps)
    return first.shape == second.shape and torch.allclose(first, second.to(first.device), tolerance, tolerance, equal_nan=True)
