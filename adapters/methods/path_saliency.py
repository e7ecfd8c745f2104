"""Saliency of hidden units from paths through the network rather than from its values: SynFlow and PX.

Both differentiate a network of the same architecture with other weights, made of the model's, so that no number on a path is
negative. They run in float64, since products over all layers exceed the range of float32. Norms and attention are kept as the
architecture has them, so that "paths" are those between them; their derivatives have both signs, so gradients may cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from gramian.adapters.data.tokens import samples_of
from gramian.adapters.methods.gradients import Leaves, UnitSums, descend, leaves_of, run
from gramian.adapters.methods.types import ModelContext
from gramian.adapters.models.tasks import embedded_inputs, outputs_of, token_inputs
from gramian.progress import progress

__all__ = ["activation_modules", "path_exclusion", "synaptic_flow"]

ROUNDING = 1e-13  # scores below this fraction of the outputs are zero but for the rounding of float64 sums

Change = Callable[[torch.Tensor], torch.Tensor]
Hook = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor | None]


def synaptic_flow(context: ModelContext) -> list[np.ndarray]:
    """s = |df(1; |W|)/d|W|| |W|, with f the sum of all outputs for one window of ones in place of token embeddings.

    ValueError is raised where that sum does not depend on the weights."""
    weights = replaced(context.model, torch.abs)
    leaves = leaves_among(context, weights)
    with torch.enable_grad():
        read = token_inputs(context.model, samples_of(context.windows)[0])
        outputs = outputs_of(run(context.model, weights | leaves, ones(context.model, read)))
        scores = scored(context, outputs.sum(), leaves)
    if max(float(each.max()) for each in scores) <= ROUNDING * float(outputs.detach().abs().sum()):
        raise ValueError(
            f"the outputs of {type(context.model).__name__} have a sum that does not depend on its weights, as behind a "
            "LayerNorm with equal weights, so synflow has nothing to rank by: choose another method"
        )
    return scores


def path_exclusion(context: ModelContext) -> list[np.ndarray]:
    """s = |dR/d(W^2)| W^2, R = <mean over windows of g(x^2, 1, a), h(1, W^2, 1)> over all outputs.

    g is the network with all weights one, on the squared token embeddings x^2, where every activation function is replaced
    by the factor a = output / input (0 where the input is 0) that it had when the model itself read the window; for ReLU the
    factor says whether the unit was on. h is the network with all weights squared, on ones, where every activation function
    is replaced by the identity. As g does not depend on the weights, it only weighs the outputs of h.
    """
    model, weights = context.model, replaced(context.model, torch.square)
    leaves, single = leaves_among(context, weights), replaced(context.model, torch.ones_like)
    status: dict[nn.Module, torch.Tensor] = {}
    totals: dict[tuple[torch.Size, ...], torch.Tensor] = {}  # of outputs, by the lengths of what is read
    reads: dict[tuple[torch.Size, ...], dict[str, Any]] = {}
    samples = samples_of(context.windows)
    with torch.no_grad():
        for sample in progress(samples, "paths", "window", context.progress):
            inputs = token_inputs(model, sample)
            status.clear()
            with activations(model, lambda module, given, found: status.update({module: factor_of(given, found)})):
                model(**inputs)
            squares = embedded_inputs(model, inputs, lambda embeddings: embeddings.double() ** 2)
            with activations(model, lambda module, given, _: given * status[module]):
                outputs = outputs_of(run(model, single, squares))
            lengths = tuple(each.shape for each in inputs.values() if isinstance(each, torch.Tensor))
            totals[lengths] = outputs + totals[lengths] if lengths in totals else outputs
            reads[lengths] = inputs
    with torch.enable_grad(), activations(model, lambda _, given, __: given):
        value = torch.zeros((), dtype=torch.float64, device=next(iter(leaves.values())).device)
        for lengths, total in totals.items():
            answer = outputs_of(run(model, weights | leaves, ones(model, reads[lengths])))
            value = value + (answer * total).sum()
        return scored(context, value / len(samples), leaves)


def replaced(model: nn.Module, change: Change) -> Leaves:
    """`change` of every parameter in float64, by name."""
    return {name: change(parameter.detach().double()) for name, parameter in model.named_parameters()}


def leaves_among(context: ModelContext, weights: Leaves) -> Leaves:
    """The stand-ins whose units are scored, among those of all parameters, made to require gradients."""
    return {name: weights[name].requires_grad_() for name in leaves_of(context.model, context.unit_sets)}


def ones(model: nn.Module, read: Mapping[str, Any]) -> dict[str, Any]:
    """Vectors of ones in place of the embeddings of what the model reads."""
    return embedded_inputs(model, read, lambda embeddings: torch.ones_like(embeddings, dtype=torch.float64))


def scored(context: ModelContext, value: torch.Tensor, leaves: Leaves) -> list[np.ndarray]:
    """sum |d value / d w| |w| over the weights w removed with each unit, for every module."""
    sums = UnitSums(context.model, context.unit_sets)
    descend(value, leaves, lambda name, found: sums.add(name, (found * leaves[name]).abs()))
    return sums.totals()


def factor_of(given: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """output / input in float64, and 0 where the input is 0."""
    return torch.where(given == 0, 0.0, found.double() / given.double())


def activation_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that are activation functions; ValueError is raised for a model without any."""
    modules = [each for each in model.modules() if type(each).__module__ in ("transformers.activations", nn.ReLU.__module__)]
    if not modules:
        raise ValueError(f"{type(model).__name__} has no activation modules for px to track: choose another method")
    return modules


@contextmanager
def activations(model: nn.Module, hook: Hook) -> Iterator[None]:
    """While open, `hook(module, input, output)` is called after every activation function.

    What the hook returns replaces the output, unless it returns None."""
    with ExitStack() as hooks:
        for module in activation_modules(model):
            handle = module.register_forward_hook(lambda each, given, found: hook(each, given[0], found))
            hooks.callback(handle.remove)
        yield
