"""What a method that removes units receives, and what it returns: the model, one module of it, and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gramian.solvers import Quadratic, RelaxedMask

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gramian.adapters.data.tokens import Tokens
    from gramian.adapters.methods.unit_sets import UnitSet
    from gramian.adapters.run.blocks import Blocks

__all__ = ["ModelContext", "ScoreContext", "UnitScores"]


@dataclass(frozen=True, eq=False)
class ModelContext:
    """The dense model before anything is scored, for methods that need more than the inputs of a module.

    windows: calibration tokens (n, length), or `Tokens` that have labels. unit_sets: what can be removed of each
    module, in order. progress: whether long work shows a bar. blocks: where the model's blocks live, if not in memory."""

    model: nn.Module
    windows: torch.Tensor | Tokens
    unit_sets: Sequence[UnitSet]
    progress: bool = False
    blocks: Blocks | None = None


@dataclass(frozen=True, eq=False)
class ScoreContext:
    """One module as a method scores it.

    position: its place among all modules. count: the number of units to score, which have equally many columns of W. cost:
    parameters of a unit. keep: the fraction that is kept if the same fraction is removed of every module.
    magnitudes(power): sum |w|^power over all weights removed with a unit, (count,). problem: f(V) of the consumer on dense
    inputs, and mean: of these inputs, (p,); both are None unless inputs are gathered. tokens: how many tokens these inputs
    have. damping: d for the ridge d G_jj on changes of weights. jointly: whether the mask problems of all modules are going
    to be solved as one, so that no relaxation of this module alone is needed. statistics: what the method gathered for this
    module.
    """

    position: int
    count: int
    cost: float
    keep: float
    magnitudes: Callable[[int], np.ndarray]
    problem: Quadratic | None = None
    mean: np.ndarray | None = None
    tokens: int = 0
    damping: float = 0.0
    jointly: bool = False
    statistics: Any = None

    def inputs(self) -> Quadratic:
        """The problem, for a method whose needs include `inputs`."""
        assert self.problem is not None
        return self.problem

    def per_unit(self, columns: np.ndarray) -> np.ndarray:
        """sum of column values (p,) over the columns of every unit, (count,)."""
        return np.asarray(np.asarray(columns).reshape(self.count, -1).sum(axis=1))


@dataclass(frozen=True, eq=False)
class UnitScores:
    """The scores of one module's units, the largest kept longest.

    scores (count,): they order the units within the module, and the method compares modules by them; with None, the scores of
    the joint relaxation do. relative: the rise of the module's relative error for each parameter removed, which is comparable
    between modules, where the method knows it. relaxed: a relaxed mask whose bounds hold for any mask of this module, in
    units of `energy`. similar: groups of heads that the method found to be similar. redundant: the
    places of units that are similar to a kept one, where the method looks for them."""

    scores: np.ndarray | None
    relative: np.ndarray | None = None
    relaxed: RelaxedMask | None = None
    energy: float = 1.0
    similar: tuple[tuple[int, ...], ...] = ()
    redundant: np.ndarray | None = None
