"""Derivatives of a model's outputs by the weights that are removed with units, and their sums over units.

The model runs as a function of stand-ins for those weights, which share their storage, so its own parameters never require
gradients: no flag is switched, no `.grad` remains, and after an exception there is nothing to restore. A gradient exists only
until it has been received, so beside the activations of one window a pass holds the gradient of one operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from gramian.adapters.methods.unit_sets import UnitSet, owners, unit_sums
from gramian.adapters.models.examples import Examples, Rows
from gramian.adapters.models.tasks import check_labels, outputs_of, predictions, token_inputs
from gramian.adapters.models.units import Side, axis, operator, width
from gramian.solvers.backend._xp import to_numpy

__all__ = ["Leaves", "UnitSums", "averaged", "check_differentiable", "descend", "leaves_of", "prediction_value", "run"]

Leaves = dict[str, torch.Tensor]  # stand-ins by the names of the parameters
Receive = Callable[[str, torch.Tensor], None]


def leaves_of(model: nn.Module, unit_sets: Sequence[UnitSet]) -> Leaves:
    """Stand-ins for all that is removed with units: the weights of producers and consumers, and the biases of producers.

    The bias of a consumer is kept when units are removed."""
    named = dict(model.named_parameters())
    names = [f"{name}.weight" for name in sides_of(unit_sets)]
    names += [f"{name}.bias" for name, side in sides_of(unit_sets).items() if side == "outputs"]
    return {name: named[name].detach().requires_grad_() for name in names if name in named}


def sides_of(unit_sets: Sequence[UnitSet]) -> dict[str, Side]:
    """The operators of all modules by name, and the side of each on which its units are."""
    return {name: side for unit_set in unit_sets for name, side, _ in owners(unit_set)}


def run(model: nn.Module, leaves: Mapping[str, torch.Tensor], inputs: Mapping[str, Any]) -> Any:
    """The model's output with the stand-ins in place of its weights."""
    others = {name: parameter.detach() for name, parameter in model.named_parameters() if name not in leaves}
    return functional_call(model, {**others, **leaves}, (), dict(inputs))


def descend(value: torch.Tensor, leaves: Leaves, receive: Receive) -> None:
    """One backward pass from a scalar, which calls `receive(name, gradient)` for every stand-in that the scalar depends on.

    Each gradient is freed once it has been received."""

    def hand_over(name: str, leaf: torch.Tensor) -> None:
        gradient, leaf.grad = leaf.grad, None
        assert gradient is not None
        receive(name, gradient)

    with ExitStack() as hooks:
        for name, leaf in leaves.items():
            hooks.callback(leaf.register_post_accumulate_grad_hook(partial(hand_over, name)).remove)
        value.backward(inputs=list(leaves.values()))


def averaged(values: Iterable[torch.Tensor], leaves: Leaves, powers: Sequence[int] = (1,)) -> list[dict[str, torch.Tensor]]:
    """(1/n) sum_i (grad value_i)^power for every power, entry by entry: one tensor for each stand-in.

    The sums are in float32 at least."""
    precise = {name: torch.promote_types(leaf.dtype, torch.float32) for name, leaf in leaves.items()}
    means = [{name: torch.zeros_like(leaf, dtype=precise[name]) for name, leaf in leaves.items()} for _ in powers]
    count = 0

    def receive(name: str, gradient: torch.Tensor) -> None:
        for power, sums in zip(powers, means):
            sums[name].add_(gradient.to(precise[name]) ** power)

    with torch.enable_grad():
        for value in values:
            descend(value, leaves, receive)
            count += 1
    for sums in means:
        for each in sums.values():
            each.div_(count).requires_grad_(False)
    return means


def prediction_value(model: nn.Module, leaves: Leaves, rows: Rows, output: str) -> torch.Tensor:
    """mean_t z_t over what is predicted of a window, or of texts with labels, a scalar.

    rows: a window (length,) or windows (n, length), or `Examples`, of which the tokens that have labels are predicted, or the
    class of each text. z_t by `output`: `logit`, the logit of what was observed; `logprob`, its logarithmic probability;
    `loss`, the same with the other sign. Where the model predicts a number for each text, the logit is that number, and the
    loss its squared error."""
    rows = rows[None] if isinstance(rows, torch.Tensor) and rows.ndim == 1 else rows
    logits, targets = predictions(model, run(model, leaves, token_inputs(model, rows)), rows)
    if targets.is_floating_point():
        predicted = logits.squeeze(-1)
        error = ((predicted - targets) ** 2).mean()
        return predicted.mean() if output == "logit" else -error if output == "logprob" else error
    observed = logits.gather(-1, targets[..., None]).squeeze(-1)
    if output == "logit":
        return observed.mean()
    logprob = (observed - logits.logsumexp(-1)).mean()
    return logprob if output == "logprob" else -logprob


def check_differentiable(model: nn.Module, unit_sets: Sequence[UnitSet], rows: Rows, predicted: bool) -> None:
    """Raise ValueError, in one sentence, for a model whose outputs have no derivatives by the weights of units.

    The model runs once on `rows`, one window or text. predicted: whether what it predicts of them is differentiated, so that
    it has to have a head, and labels that suit it."""
    name = type(model).__name__
    if predicted and isinstance(rows, Examples):
        check_labels(model, rows.labels)
    leaves = leaves_of(model, unit_sets)
    with torch.enable_grad():
        answer = run(model, leaves, token_inputs(model, rows))
        if not hasattr(answer, "logits") and (predicted or not hasattr(answer, "last_hidden_state")):
            raise ValueError(
                f"{name} returns {', '.join(answer) if isinstance(answer, Mapping) else type(answer).__name__} and no logits, "
                "so there is nothing to differentiate: load the model with its head, or choose a method without gradients, "
                "such as numerical or wanda-sp"
            )
        outputs = outputs_of(answer)
        why = ""
        if not (outputs.is_floating_point() or outputs.is_complex()):
            why = f"are {str(outputs.dtype).removeprefix('torch.')}, and whole numbers have no derivatives"
        elif not outputs.requires_grad:
            why = "do not depend on its weights as torch.autograd sees it: they are computed without gradients, or detached"
        if why:
            raise ValueError(
                f"the outputs of {name} {why}, so it has no saliency: choose a method that needs no gradients, such as "
                "numerical or wanda-sp"
            )
        if predicted:
            predictions(model, answer, rows)


class UnitSums:
    """Sums over units of numbers that belong to single weights and arrive parameter by parameter."""

    def __init__(self, model: nn.Module, unit_sets: Sequence[UnitSet]) -> None:
        self.model, self.unit_sets, self.sides = model, unit_sets, sides_of(unit_sets)
        widths = {name: width(operator(model, name), side) for name, side in self.sides.items()}
        self.slices = {name: np.zeros(size) for name, size in widths.items()}  # a number for every output or input

    def add(self, name: str, numbers: torch.Tensor) -> None:
        """Add `numbers`, of the shape of the parameter called `name`. ValueError is raised where they are not finite."""
        path, _, kind = name.rpartition(".")
        if kind == "weight":
            numbers = numbers.sum(dim=1 - axis(operator(self.model, path), self.sides[path]), dtype=torch.float64)
        found = to_numpy(numbers.detach().double())
        if not np.isfinite(found).all():
            raise ValueError(f"{path}: its gradients hold NaN or Inf")
        self.slices[path] += found

    def totals(self) -> list[np.ndarray]:
        """The sums, for every module, over what is removed with each of its scored units, (s,)."""
        return [unit_sums(unit_set, lambda name, _: self.slices[name]) for unit_set in self.unit_sets]

    def parts(self) -> list[np.ndarray]:
        """The same for every operator of a module by itself, producers first and the consumer last, (operators, s). Operators
        of which nothing goes with a unit, such as keys that query heads share, are no part."""

        def alone(only: str) -> Callable[[str, Side], np.ndarray]:
            return lambda name, _: self.slices[name] if name == only else np.zeros_like(self.slices[name])

        return [
            np.stack([unit_sums(unit_set, alone(path)) for path, _, owned in owners(unit_set) if (owned >= 0).any()])
            for unit_set in self.unit_sets
        ]
