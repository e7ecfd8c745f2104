"""M_u = E |C_u h(P_u x)|^2, the second moment of what a unit adds to its module's output, from what enters the module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from gramian.adapters.data.tokens import Tokens
from gramian.adapters.methods.unit_sets import UnitSet, places_in
from gramian.adapters.models.layers import Layer
from gramian.adapters.models.units import UnitGroup
from gramian.adapters.run.blocks import Blocks, InMemory
from gramian.adapters.run.forward import batches_of
from gramian.adapters.run.hooks import tapped
from gramian.adapters.run.looking import Looking
from gramian.adapters.run.mixtures import mixture_of
from gramian.adapters.run.walk import Receive, Replay, walk
from gramian.solvers import Moments
from gramian.solvers.backend._xp import to_numpy
from gramian.solvers.units.gaussian import gaussian_means

__all__ = ["channel_moments", "head_moments", "unit_moments"]


def unit_moments(
    model: nn.Module, windows: torch.Tensor | Tokens, unit_sets: Sequence[UnitSet], moment: str, blocks: Blocks | None = None
) -> list[np.ndarray | None]:
    """M_u = E |C_u h(P_u x)|^2 for every unit of every unit set, (units,), where x follows a model of the module's inputs.

    The model of the inputs by `moment`: `gaussian`, x ~ N(mean, covariance) of the dense model's inputs, for feed-forward
    modules; `product`, the second moment of these inputs in the printed formula, for the same modules; `identity`,
    x ~ N(0, I), for all modules and without data. The answer is None for a module whose moments follow from the inputs of its
    consumer: given its attention a head is linear, so a Gaussian adds nothing to them. blocks: where those of the model live,
    if not in memory.
    """
    wanted = [k for k, one in enumerate(unit_sets) if moment == "identity" or one.unit_group.structure.unit_size is None]
    found: list[np.ndarray | None] = [None] * len(unit_sets)
    if wanted:
        home = blocks or InMemory(model)
        places = [[place for place in inside if place in wanted] for inside in places_in(unit_sets, home.paths)]
        mixture = mixture_of(windows) if isinstance(windows, Tokens) else None
        weight = None if mixture is None else mixture.factor
        walk(GatherMoments(model, unit_sets, places, moment, found, weight), home, batches_of(windows))
    return found


@dataclass(frozen=True, eq=False)
class GatherMoments(Looking):
    """The pass that gathers unit moments. places: the modules of every block; found: the moments by module, as they come.
    weight(batch): how often its tokens count, where they are of several domains."""

    model: nn.Module
    unit_sets: Sequence[UnitSet]
    places: Sequence[Sequence[int]]
    moment: str
    found: list[np.ndarray | None]
    weight: Callable[[int], float] | None = None
    name = "moments"
    types: Sequence[type] = ()

    @property
    def stop(self) -> int:
        """After the last block with a module."""
        return 1 + max(index for index, places in enumerate(self.places) if places)

    @property
    def runs(self) -> bool:
        """Whether data are needed."""
        return self.moment != "identity"

    def open(self, index: int, block: nn.Module) -> BlockOfMoments:
        """Begin with a block."""
        groups = {place: self.unit_sets[place].unit_group for place in self.places[index]}
        return BlockOfMoments(self, {place: producers(self.model, unit_group) for place, unit_group in groups.items()})


@dataclass(frozen=True, eq=False)
class BlockOfMoments:
    """The producers of one block by their modules' places."""

    each: GatherMoments
    layers: dict[int, list[Layer]]

    @property
    def taps(self) -> dict[nn.Module, Receive]:
        """The input that the producers of a module share is tapped."""
        return (
            {layers[0].module: partial(tapped, layers[0], self.each.weight) for layers in self.layers.values()}
            if self.each.runs
            else {}
        )

    @property
    def replayed(self) -> list[nn.Module]:
        """Nothing: there is no other path."""
        return []

    def decide(self, replay: Replay, drifted: bool) -> list[None]:
        """Compute the moments of every module."""
        each = self.each
        for place, layers in self.layers.items():
            unit_set = each.unit_sets[place]
            if each.runs or unit_set.unit_group.structure.unit_size is None:
                inputs = layers[0].moments if each.runs else None
                each.found[place] = channel_moments(each.model, unit_set.unit_group, inputs, each.moment)
            else:
                each.found[place] = head_moments(each.model, unit_set)
        return []


def producers(model: nn.Module, unit_group: UnitGroup) -> list[Layer]:
    """The producers of a module; they share one input."""
    names = [f"{unit_group.block}.{path}" for path, _ in unit_group.structure.producers]
    return [Layer(name, model.get_submodule(name)) for name in names]


def channel_moments(model: nn.Module, unit_group: UnitGroup, inputs: Moments | None, moment: str) -> np.ndarray:
    """M_i = |C_i|^2 E h_i^2 of hidden channels i, (units,), h = a(g) or u a(g), with g = A x + b and u = B x + c.

    For Gaussian x, (g, u) is Gaussian, and E h^2 follows by quadrature (`gaussian_means`), whatever the activation a and the
    means are. Greedy Output Approximation, Eq. (3), gives it for a linear a and, with a factor 1/2 that is exact for ReLU and
    means of zero, for the others. `product` is that formula with S = E x x^T: 1/2 |C_i|^2 A_i S A_i^T and, for gated modules,
    1/2 |C_i|^4 (A_i S A_i^T) (B_i S B_i^T), the product of two scores (its Section 7.2), which is no second moment.
    inputs: the moments of the producers' input, or None for mean 0 and covariance I.
    """
    consumer = double(Layer(unit_group.name, model.get_submodule(unit_group.name)).weight)
    norms = np.sum(consumer**2, axis=0)
    rows, offsets = [], []
    for layer, (_, levels) in zip(producers(model, unit_group), unit_group.structure.producers):
        for places in unit_group.starts(levels):
            rows.append(double(layer.weight)[places])
            offsets.append(bias(layer)[places])
    width = rows[0].shape[1]
    mean, second = np.zeros(width), np.eye(width)
    if inputs is not None:
        mean, second = to_numpy(inputs.total) / inputs.tokens, to_numpy(inputs.require()) / inputs.tokens
    if moment == "product":
        scores = [norms * np.sum((each @ second) * each, axis=1) for each in rows]
        return np.asarray(0.5 * np.prod(scores, axis=0))
    covariance = second if inputs is None else second - np.outer(mean, mean)
    means = [each @ mean + offset for each, offset in zip(rows, offsets)]
    mixed = rows[0] @ covariance
    variance = np.maximum(np.sum(mixed * rows[0], axis=1), 0.0)
    activation = model.get_submodule(f"{unit_group.block}.{unit_group.structure.activation}")
    plain, first, quadratic = gaussian_means(partial(squared, activation), means[0], variance)
    if len(rows) == 1:
        return np.asarray(norms * plain)
    deviation = np.sqrt(variance)
    slope = np.divide(np.sum(mixed * rows[1], axis=1), deviation, out=np.zeros_like(deviation), where=deviation > 0)
    rest = np.maximum(np.sum((rows[1] @ covariance) * rows[1], axis=1) - slope**2, 0.0)
    square = (means[1] ** 2 + rest) * plain + 2 * means[1] * slope * first + slope**2 * quadratic  # E u^2 a(g)^2
    return np.asarray(norms * square)


def head_moments(model: nn.Module, unit_set: UnitSet) -> np.ndarray:
    """sum over the heads of a unit of |W_O [W_V b_V]|_F^2, (units,).

    That is E |W_O (W_V z + b_V)|^2 for z ~ N(0, I), the tokens as a head mixes them, as if heads were independent. Rows of
    attention sum to one, so b_V passes through."""
    unit_group = unit_set.unit_group
    consumer = double(Layer(unit_group.name, model.get_submodule(unit_group.name)).weight)
    last = producers(model, unit_group)[-1]
    weight, offset = double(last.weight), bias(last)
    moments = np.empty(unit_group.units)
    for unit in range(unit_group.units):
        *_, (_, _, places), _ = unit_group.slabs(np.array([unit]), np.array([unit // unit_group.members]))
        values = places[-unit_group.size :]  # values are the last section of the last producer
        output = consumer[:, unit_group.columns(np.array([unit]))]
        inner = weight[values] @ weight[values].T + np.outer(offset[values], offset[values])
        moments[unit] = np.sum((output.T @ output) * inner)
    return np.asarray(moments[unit_set.scored].sum(axis=1))


def squared(activation: nn.Module, values: np.ndarray) -> np.ndarray:
    """a(x)^2, entry by entry."""
    return np.asarray(activation(torch.from_numpy(values)).numpy() ** 2)


def double(tensor: torch.Tensor) -> np.ndarray:
    """The tensor in float64."""
    return to_numpy(tensor.double())


def bias(layer: Layer) -> np.ndarray:
    """The bias of a layer, (outputs,) in float64, zeros where there is none."""
    given = getattr(layer.module, "bias", None)
    return np.zeros(layer.weight.shape[0]) if given is None else double(given)
