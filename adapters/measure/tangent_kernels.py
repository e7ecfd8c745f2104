"""Empirical tangent kernels of a model before and after the removal of feed-forward units, and bounds of their change.

    SignGD   Theta(x, z) = <grad f(x), sign grad f(z)>        (TASP, Section 2.2)
    SGD      Theta(x, z) = <grad f(x), grad f(z)>

The inner products are over all weights of feed-forward modules, biases of their producers included; x and z are windows, and
f(x) is a scalar output of the model. The pruned model's kernel is over the weights that it keeps: those set to zero in
Algorithm 1 have gradient zero.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from gramian.adapters.data.tokens import TokensLike, check_windows, samples_of, windows_of
from gramian.adapters.methods.gradients import descend, leaves_of, prediction_value
from gramian.adapters.methods.saliency_methods import check
from gramian.adapters.methods.unit_sets import UnitSet, unit_set_of
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.shrink import Keep, selections, shrink_model
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import UnitGroup, axis, operator
from gramian.adapters.models.wrappers import plain_model
from gramian.solvers.units.kernel_bounds import linear_bound, smooth_bound

__all__ = ["KernelChange", "kernel_change"]

Gradients = dict[str, torch.Tensor]  # by parameter: one row for every window, then the parameter's shape


@dataclass(frozen=True, eq=False)
class KernelChange:
    """|Theta~(x, x) - Theta(x, x)| and what bounds it, for every window x.

    sign, plain: the kernels of SignGD and SGD, (n, n), before and after. The next four are sums for every window, (n,).
    saliency: eps = sum |df/dW W| over removed weights. gone: sum |df/dW| over removed weights. kept: sum |df/dW| over kept
    weights. moved: |grad~ f - grad f|_1 over kept weights, the change of their gradients. smallest: c = min |W| over removed
    weights."""

    sign: tuple[np.ndarray, np.ndarray]
    plain: tuple[np.ndarray, np.ndarray]
    saliency: np.ndarray
    gone: np.ndarray
    kept: np.ndarray
    moved: np.ndarray
    smallest: float

    def __repr__(self) -> str:
        """One line: the number of windows, and the mean change of the SignGD kernel beside its mean."""
        before, change = np.diag(self.sign[0]).mean(), self.change.mean()
        return f"KernelChange({len(self.change)} windows, SignGD kernel {before:.3g} changed by {change:.3g} on average)"

    @property
    def change(self) -> np.ndarray:
        """|Theta~(x, x) - Theta(x, x)| of SignGD, (n,)."""
        return np.asarray(np.abs(np.diag(self.sign[1]) - np.diag(self.sign[0])))

    @property
    def measured_bound(self) -> np.ndarray:
        """gone + moved, which the change never exceeds, whatever the model is; it is known only from both models."""
        return np.asarray(self.gone + self.moved)

    @property
    def linear_bound(self) -> np.ndarray:
        """eps / c, a bound where f is linear in the output of the one pruned module, so that nothing moves.

        In a deep model it is a heuristic, to be read beside the change; see `gramian.solvers.units.kernel_bounds`."""
        return np.asarray(linear_bound(self.saliency, self.smallest))

    def smooth_bound(self, slope: np.ndarray | float, curvature: float) -> np.ndarray:
        """The bound behind a smooth head f = phi(score).

        slope: phi' at each window. curvature: the Lipschitz constant of phi'."""
        return np.asarray(smooth_bound(self.saliency, self.smallest, slope, curvature, self.kept / np.abs(slope)))


def kernel_change(model: PreTrainedModel, tokens: TokensLike, keep: Keep, *, output: str = "logit") -> KernelChange:
    """Theta(x, z) of both kernels on windows of the model, and on windows of what `shrink_model(model, keep)` makes of it.

    The model is not changed. tokens: windows (n, length), or texts with labels, in any form that `windows_of` takes. keep:
    units that are kept, by names of feed-forward consumers. output: which f(x), as for the method `tasp`. The gradients of all
    windows are held at once: 2 n times the feed-forward weights. ValueError is raised for windows that the model cannot read,
    for a model that predicts no tokens, for a `keep` that names attention or removes nothing, and where `plain_model` or
    `shrink_model` raises it.
    """
    model, given = plain_model(model), windows_of(tokens)
    check(output=output)
    check_windows(model, given.windows)
    windows = samples_of(given)
    selected = [(unit_group, units) for unit_group, units, _ in selections(model, keep)]
    for unit_group, _ in selected:
        if unit_group.structure.unit_size is not None:
            raise ValueError(
                f"keep names {unit_group.name!r}, but the kernels are over feed-forward weights: name consumers of channels"
            )
    dropped = [(unit_group, np.setdiff1d(np.arange(unit_group.units), units)) for unit_group, units in selected]
    if not any(len(units) for _, units in dropped):
        raise ValueError("keep removes nothing, so there is no change to measure: name fewer units")
    smaller = copy.deepcopy(model)
    shrink_model(smaller, keep)
    before, after = (gradients(each, windows, output) for each in (model, smaller))
    weights = {name: model.get_parameter(name).detach()[None] for name in before}
    touched = {unit_group.name for unit_group, _ in selected}
    whole = [
        (unit_group, np.arange(unit_group.units))
        for unit_group in unit_groups_of(model).values()
        if unit_group.name not in touched
    ]
    kept = selected + [(unit_group, units) for unit_group, units in whole if unit_group.structure.unit_size is None]
    new = unit_groups_of(smaller)
    narrow = [(new[unit_group.name], np.arange(len(units))) for unit_group, units in kept]

    def total(numbers: Callable[..., torch.Tensor], *pieces: Iterator[torch.Tensor]) -> np.ndarray:
        sums = [numbers(*each).double().abs().flatten(1).sum(dim=1) for each in zip(*pieces, strict=True)]
        return torch.stack(sums).sum(dim=0).cpu().numpy()

    removed = [entries(model, each, dropped) for each in (before, weights)]
    return KernelChange(
        sign=(kernel(before, torch.sign), kernel(after, torch.sign)),
        plain=(kernel(before, lambda each: each), kernel(after, lambda each: each)),
        saliency=total(torch.mul, *removed),
        gone=total(lambda each: each, entries(model, before, dropped)),
        kept=total(lambda each: each, entries(model, before, kept)),
        moved=total(torch.sub, entries(smaller, after, narrow), entries(model, before, kept)),
        smallest=min(float(each.abs().min()) for each in entries(model, weights, dropped) if each.numel()),
    )


def gradients(model: PreTrainedModel, windows: list[Rows], output: str) -> Gradients:
    """grad f at every window, over all feed-forward weights."""
    unit_sets = feed_forward(model)
    leaves = leaves_of(model, unit_sets)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in leaves}
    with eval_mode(model), torch.enable_grad():
        for window in windows:
            value = prediction_value(model, leaves, window, output)
            descend(value, leaves, lambda name, gradient: found[name].append(gradient))
    return {name: torch.stack(rows) for name, rows in found.items()}


def feed_forward(model: PreTrainedModel) -> list[UnitSet]:
    """The modules whose units are hidden channels; ValueError is raised where there are none."""
    unit_groups = [unit_group for unit_group in unit_groups_of(model).values() if unit_group.structure.unit_size is None]
    if not unit_groups:
        raise ValueError(f"{type(model).__name__} has no feed-forward modules whose weights a kernel could be over")
    return [unit_set_of(model, unit_group) for unit_group in unit_groups]


def kernel(of: Gradients, stepped: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """<grad f(x_i), stepped(grad f(x_j))> for all windows i, j, (n, n) in float64."""
    rows = [each.double().flatten(1) for each in of.values()]
    return sum(each @ stepped(each).T for each in rows).cpu().numpy()  # type: ignore[union-attr]


def entries(model: PreTrainedModel, of: Gradients, selected: list[tuple[UnitGroup, np.ndarray]]) -> Iterator[torch.Tensor]:
    """The entries that belong to units of modules, piece by piece in one order; the first axis of `of` is kept."""
    for unit_group, units in selected:
        for name, side, places in unit_group.slabs(units, units):
            index = torch.from_numpy(places).to(of[f"{name}.weight"].device)
            yield of[f"{name}.weight"].index_select(1 + axis(operator(model, name), side), index)
            if side == "outputs" and f"{name}.bias" in of:
                yield of[f"{name}.bias"].index_select(1, index)
