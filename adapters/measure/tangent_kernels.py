"""Empirical tangent kernels of a model before and after units leave its feed-forward modules, and what bounds their change.

    SignGD   Theta(x, z) = <grad f(x), sign grad f(z)>        (TASP, Section 2.2)
    SGD      Theta(x, z) = <grad f(x), grad f(z)>

over all weights of feed-forward modules, biases of their producers included; x and z are windows, f(x) is a scalar output of
the model. The pruned model's kernel is over the weights that it has left: those set to zero in Algorithm 1 have gradient zero.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from gramian.adapters.data.tokens import Tokens, check_windows
from gramian.adapters.methods.gradients import descend, leaves_of, prediction_value
from gramian.adapters.methods.saliency_methods import check
from gramian.adapters.methods.unit_sets import UnitSet, unit_set_of
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.shrink import Keep, selections, shrink_model
from gramian.adapters.models.unit_groups import UnitGroup, axis, operator, unit_groups_of
from gramian.solvers.units.kernel_bounds import linear_bound, smooth_bound

__all__ = ["KernelChange", "kernel_change"]

Gradients = dict[str, torch.Tensor]  # by parameter: one row for every window, then the parameter's shape


@dataclass(frozen=True, eq=False)
class KernelChange:
    """sign, plain: kernels of SignGD and SGD, (n, n), before and after. Of every window (n,): saliency, eps, the sum of
    |df/dW W| over removed weights; gone, the same of |df/dW|; kept, that over weights that stay; moved, how far the gradients
    of those moved, |grad~ f - grad f|_1. smallest: c, the least |W| of a removed weight."""

    sign: tuple[np.ndarray, np.ndarray]
    plain: tuple[np.ndarray, np.ndarray]
    saliency: np.ndarray
    gone: np.ndarray
    kept: np.ndarray
    moved: np.ndarray
    smallest: float

    @property
    def change(self) -> np.ndarray:
        """|Theta~(x, x) - Theta(x, x)| of SignGD, (n,)."""
        return np.abs(np.diag(self.sign[1]) - np.diag(self.sign[0]))

    @property
    def measured_bound(self) -> np.ndarray:
        """gone + moved, which the change never exceeds, whatever the model; it takes both models to know it."""
        return self.gone + self.moved

    @property
    def linear_bound(self) -> np.ndarray:
        """eps / c: a bound where f is linear in what the one pruned module puts out, and nothing moves; see `ntk_bounds`. In a
        deep model it is a heuristic, to be read beside the change."""
        return np.asarray(linear_bound(self.saliency, self.smallest))

    def smooth_bound(self, slope: np.ndarray | float, curvature: float) -> np.ndarray:
        """The bound behind a smooth head f = phi(score): slope phi' at each window, curvature its Lipschitz constant."""
        return np.asarray(smooth_bound(self.saliency, self.smallest, slope, curvature, self.kept / np.abs(slope)))


def kernel_change(model: PreTrainedModel, tokens: Tokens | torch.Tensor, keep: Keep, *, output: str = "logit") -> KernelChange:
    """Both kernels on windows of the model and of what `shrink_model(model, keep)` makes of it; the model stays as it is.

    tokens: windows (n, length). keep: units that stay, by names of feed-forward consumers. output: the f(x), as for the
    method `tasp`. Holds the gradients of all windows at once: 2 n times the feed-forward weights. ValueError for windows that
    the model cannot read, a model that predicts no tokens, a `keep` that names attention or removes nothing, and the errors
    of `shrink`.
    """
    windows = tokens.windows if isinstance(tokens, Tokens) else tokens
    check(output=output)
    check_windows(model, windows)
    chosen = [(unit_group, units) for unit_group, units, _ in selections(model, keep)]
    for unit_group, _ in chosen:
        if unit_group.structure.unit_size is not None:
            raise ValueError(
                f"keep names {unit_group.name!r}, but the kernels are over feed-forward weights: name consumers of channels"
            )
    leaving = [(unit_group, np.setdiff1d(np.arange(unit_group.units), units)) for unit_group, units in chosen]
    if not any(len(units) for _, units in leaving):
        raise ValueError("keep removes nothing, so there is no change to measure: leave units out")
    smaller = copy.deepcopy(model)
    shrink_model(smaller, keep)
    before, after = (gradients(each, windows, output) for each in (model, smaller))
    weights = {name: model.get_parameter(name).detach()[None] for name in before}
    touched = {unit_group.name for unit_group, _ in chosen}
    whole = [
        (unit_group, np.arange(unit_group.units))
        for unit_group in unit_groups_of(model).values()
        if unit_group.name not in touched
    ]
    staying = chosen + [(unit_group, units) for unit_group, units in whole if unit_group.structure.unit_size is None]
    new = unit_groups_of(smaller)
    stayed = [(new[unit_group.name], np.arange(len(units))) for unit_group, units in staying]

    def total(numbers: Callable[..., torch.Tensor], *pieces: Iterator[torch.Tensor]) -> np.ndarray:
        sums = [numbers(*each).double().abs().flatten(1).sum(dim=1) for each in zip(*pieces, strict=True)]
        return torch.stack(sums).sum(dim=0).cpu().numpy()

    removed = [entries(model, each, leaving) for each in (before, weights)]
    return KernelChange(
        sign=(kernel(before, torch.sign), kernel(after, torch.sign)),
        plain=(kernel(before, lambda each: each), kernel(after, lambda each: each)),
        saliency=total(torch.mul, *removed),
        gone=total(lambda each: each, entries(model, before, leaving)),
        kept=total(lambda each: each, entries(model, before, staying)),
        moved=total(torch.sub, entries(smaller, after, stayed), entries(model, before, staying)),
        smallest=min(float(each.abs().min()) for each in entries(model, weights, leaving) if each.numel()),
    )


def gradients(model: PreTrainedModel, windows: torch.Tensor, output: str) -> Gradients:
    """Of f at every window, over all feed-forward weights."""
    unit_sets = feed_forward(model)
    leaves = leaves_of(model, unit_sets)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in leaves}
    with eval_mode(model), torch.enable_grad():
        for window in windows:
            value = prediction_value(model, leaves, window, output)
            descend(value, leaves, lambda name, gradient: found[name].append(gradient))
    return {name: torch.stack(rows) for name, rows in found.items()}


def feed_forward(model: PreTrainedModel) -> list[UnitSet]:
    """The modules whose units are hidden channels; ValueError where there are none."""
    unit_groups = [unit_group for unit_group in unit_groups_of(model).values() if unit_group.structure.unit_size is None]
    if not unit_groups:
        raise ValueError(f"{type(model).__name__} has no feed-forward modules whose weights a kernel could be over")
    return [unit_set_of(model, unit_group) for unit_group in unit_groups]


def kernel(of: Gradients, stepped: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """<grad f(x_i), stepped(grad f(x_j))>, (n, n) in float64."""
    rows = [each.double().flatten(1) for each in of.values()]
    return sum(each @ stepped(each).T for each in rows).cpu().numpy()  # type: ignore[union-attr, return-value]


def entries(model: PreTrainedModel, of: Gradients, chosen: list[tuple[UnitGroup, np.ndarray]]) -> Iterator[torch.Tensor]:
    """What belongs to units of modules, piece by piece in one order; the first axis of `of` is kept."""
    for unit_group, units in chosen:
        for name, side, places in unit_group.slabs(units, units):
            index = torch.from_numpy(places).to(of[f"{name}.weight"].device)
            yield of[f"{name}.weight"].index_select(1 + axis(operator(model, name), side), index)
            if side == "outputs" and f"{name}.bias" in of:
                yield of[f"{name}.bias"].index_select(1, index)
