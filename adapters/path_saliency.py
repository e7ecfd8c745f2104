"""Saliency of hidden units from paths through the network rather than from its values: SynFlow and PX.

Both differentiate a network of the same architecture with other weights, made of the model's: no gradient can cancel there, as
all numbers on a path are positive. They run in float64, since products over all layers leave the range of float32. Norms and
attention stay as the architecture has them, so "paths" are those of what lies between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from gramian.adapters.gradients import Leaves, UnitSums, descend, leaves_of, run
from gramian.adapters.kinds import embedded_inputs, outputs_of, token_inputs
from gramian.adapters.saliency import embedding_width
from gramian.adapters.structured_methods import Survey

__all__ = ["path_exclusion", "synaptic_flow"]

Change = Callable[[torch.Tensor], torch.Tensor]
Hook = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor | None]


def synaptic_flow(survey: Survey) -> list[np.ndarray]:
    """s = |df(1; |W|)/d|W|| |W|, f the sum of all outputs for one window of ones in place of token embeddings."""
    weights = replaced(survey.model, torch.abs)
    leaves = leaves_among(survey, weights)
    with torch.enable_grad():
        return scored(survey, outputs_of(run(survey.model, weights | leaves, ones(survey))).sum(), leaves)


def path_exclusion(survey: Survey) -> list[np.ndarray]:
    """s = |dR/d(W^2)| W^2, R = <mean over windows of g(x^2, 1, a), h(1, W^2, 1)> over all outputs.

    g: the network with all weights one, on the squared token embeddings x^2, every activation function replaced by the factor
    a = output / input (0 where the input is) that it had when the model itself read the window; for ReLU that is whether the
    unit was on. h: the network with all weights squared, on ones, every activation function replaced by the identity. As g
    knows no weights, it weighs the outputs of h, and no more.
    """
    model, weights = survey.model, replaced(survey.model, torch.square)
    leaves, single = leaves_among(survey, weights), replaced(survey.model, torch.ones_like)
    embed: Any = model.get_input_embeddings()  # type: ignore[operator]
    status: dict[nn.Module, torch.Tensor] = {}
    total: torch.Tensor | float = 0.0
    with torch.no_grad():
        for window in tqdm(survey.windows, desc="paths", unit="window", disable=not survey.progress):
            inputs = token_inputs(model, window[None])
            status.clear()
            with activations(model, lambda module, given, found: status.update({module: share(given, found)})):
                model(**inputs)
            squares = embedded_inputs(model, embed(inputs["input_ids"]).double() ** 2)
            with activations(model, lambda module, given, _: given * status[module]):
                total = total + outputs_of(run(model, single, squares))
    with torch.enable_grad(), activations(model, lambda _, given, __: given):
        answer = outputs_of(run(model, weights | leaves, ones(survey)))
        return scored(survey, (answer * total).sum() / len(survey.windows), leaves)


def replaced(model: nn.Module, change: Change) -> Leaves:
    """All parameters in float64, changed."""
    return {name: change(parameter.detach().double()) for name, parameter in model.named_parameters()}


def leaves_among(survey: Survey, weights: Leaves) -> Leaves:
    """The stand-ins whose units are scored, among those of all parameters."""
    return {name: weights[name].requires_grad_() for name in leaves_of(survey.model, survey.menus)}


def ones(survey: Survey) -> dict[str, Any]:
    """One window of vectors of ones, as long as what the model reads of the survey's."""
    model = survey.model
    shape = (*token_inputs(model, survey.windows[:1])["input_ids"].shape, embedding_width(survey))
    return embedded_inputs(model, torch.ones(shape, dtype=torch.float64, device=next(model.parameters()).device))


def scored(survey: Survey, value: torch.Tensor, leaves: Leaves) -> list[np.ndarray]:
    """Sums over units of |d value / d weight| |weight|."""
    sums = UnitSums(survey.model, survey.menus)
    descend(value, leaves, lambda name, found: sums.add(name, (found * leaves[name]).abs()))
    return sums.atoms()


def share(given: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """output / input, in float64, 0 where the input is."""
    return torch.where(given == 0, 0.0, found.double() / given.double())


@contextmanager
def activations(model: nn.Module, hook: Hook) -> Iterator[None]:
    """While open, `hook(module, input, output)` sees every call of an activation function, and what it returns replaces the
    output unless that is None. ValueError for a model without any."""
    modules = [each for each in model.modules() if type(each).__module__ in ("transformers.activations", nn.ReLU.__module__)]
    if not modules:
        raise ValueError(f"{type(model).__name__} has no activation modules for px to track: choose another method")
    with ExitStack() as hooks:
        for module in modules:
            handle = module.register_forward_hook(lambda each, given, found: hook(each, given[0], found))
            hooks.callback(handle.remove)
        yield
