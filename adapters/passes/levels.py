"""Operators solved at several levels from moments of the dense model, and written beside it, for a search to choose among."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from gramian.adapters.devices import solver_array, tensor_of
from gramian.adapters.methods.compensation import Compensation, Output, compensate
from gramian.adapters.methods.types import UnitScores
from gramian.adapters.methods.unit_sets import UnitSet
from gramian.adapters.models.layers import Layer
from gramian.adapters.run.level_files import DENSE, LevelFiles
from gramian.solvers import Moments, Pattern, TopK, sparsegpt

__all__ = ["OperatorLevels", "UnitLevels", "WeightLevels", "counts_of", "zeros_of"]

SIDE = 5  # levels on either side of the sparsity that is given
STEPS = 16  # of the units of a module


@dataclass(frozen=True)
class OperatorLevels:
    """What one operator may become.

    amounts: what every level removes, ascending from nothing: weights, or parameters of units. errors: of its output on the
    tokens that were fitted, |X V^T - X W^T|^2 / |X W^T|^2. vanishes: whether all of it is zero at the last level, which then
    needs no file.
    """

    name: str
    amounts: tuple[int, ...]
    errors: tuple[float, ...]
    vanishes: bool = False


@dataclass(frozen=True, eq=False)
class WeightLevels:
    """argmin_V f(V) over V with so many zeros, by SparseGPT, for all levels of `zeros_of` from one Gram matrix.

    dtype: of the checkpoint, to which weights are rounded. The first level is the dense operator, the last one is zero."""

    files: LevelFiles
    patterns: Mapping[str, Pattern]
    dtype: torch.dtype

    def __call__(self, layer: Layer, moments: Moments) -> OperatorLevels:
        """Solve one operator."""
        problem, pattern = layer.problem(moments), self.patterns[layer.name]
        assert isinstance(pattern, TopK)
        size, amounts = layer.weight.numel(), zeros_of(problem.shape, pattern)
        weights, errors = {DENSE: layer.weight.contiguous()}, [0.0]
        for level, zeros in enumerate(amounts[1:-1], start=1):
            solution = sparsegpt(problem, TopK(zeros / size, pattern.per_row))
            weights[str(level)] = rounded(solution.weights, self.dtype)
            errors.append(problem.relative_error(stored(weights[str(level)], layer)))
        self.files.write(layer.name, weights)
        return OperatorLevels(layer.name, amounts, (*errors, 1.0), vanishes=True)


def zeros_of(shape: tuple[int, int], pattern: TopK) -> tuple[int, ...]:
    """How many zeros an operator has at every level: none, as many as its sparsity S says, SIDE levels on either side of it at
    distances of min(S, 1 - S) / (SIDE + 1), and all."""
    rows, columns = shape
    unit = rows if pattern.per_row else 1
    size, given = rows * columns, unit * pattern.zeros(rows * columns // unit)
    step = min(given, size - given) / (SIDE + 1)
    inner = (given + unit * round(side * step / unit) for side in range(-SIDE, SIDE + 1))
    return tuple(sorted({0, *inner, size}))


@dataclass(frozen=True, eq=False)
class UnitLevels:
    """Consumers whose removed units are zero and whose other weights make up for them, for all levels of `counts_of`.

    One order of units gives all levels: that of the method's scores, of `numerical` greedy removal with refits. Producers are
    left as they are, since what they make of a removed unit reaches nothing.
    """

    files: LevelFiles
    unit_sets: Mapping[str, UnitSet]
    scored: Mapping[str, UnitScores]
    least: Mapping[str, int]
    compensation: Compensation
    damping: float
    dtype: torch.dtype
    multiple: int = 1

    def __call__(self, layer: Layer, moments: Moments) -> OperatorLevels:
        """Solve one module's consumer."""
        unit_set, scores = self.unit_sets[layer.name], self.scored[layer.name].scores
        assert scores is not None
        output, group = Output(layer.problem(moments), moments), unit_set.unit_group
        counts = counts_of(unit_set, self.least[layer.name], self.multiple)
        weights, errors = {DENSE: layer.weight.contiguous()}, [0.0]
        for level, count in enumerate(counts[1:], start=1):
            columns = np.isin(np.arange(group.units * group.size), group.columns(unit_set.kept(scores, count)))
            answer = compensate(output, columns, self.compensation, self.damping)
            weights[str(level)] = rounded(answer.weights, self.dtype)
            errors.append(output.problem.relative_error(stored(weights[str(level)], layer)))
        self.files.write(layer.name, weights)
        amounts = tuple((unit_set.removable - count) * unit_set.cost for count in counts)
        return OperatorLevels(layer.name, amounts, tuple(errors))


def counts_of(unit_set: UnitSet, least: int, multiple: int = 1) -> tuple[int, ...]:
    """How many removables a module keeps at every level, from all to the least: STEPS steps, or one by one where there are
    fewer; of channels, multiples of `multiple`."""
    count = unit_set.removable
    unit = multiple if unit_set.channels else 1
    inner = (unit * round(count * (STEPS - step) / STEPS / unit) for step in range(1, STEPS))
    return tuple(sorted({count, least, *(each for each in inner if least < each < count)}, reverse=True))


def rounded(weights: object, dtype: torch.dtype) -> torch.Tensor:
    """Weights in the checkpoint's dtype. ValueError where they are not finite in it."""
    found = tensor_of(weights).to(dtype)
    if not bool(torch.isfinite(found).all()):
        raise ValueError(f"weights of a level hold NaN or Inf in {dtype}")
    return found


def stored(weights: torch.Tensor, layer: Layer) -> object:
    """Weights of a level as an array of the solvers, on the operator's device."""
    return solver_array(weights.to(layer.weight.device, torch.float64))
