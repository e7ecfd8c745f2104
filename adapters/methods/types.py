"""What a method that removes units is told, and what it answers: the model, one module of it, and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gramian.solvers import Quadratic, RelaxedMask

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gramian.adapters.methods.unit_sets import UnitSet

__all__ = ["UnitScores", "ScoreContext", "ModelContext"]


@dataclass(frozen=True, eq=False)
class ModelContext:
    """The dense model before anything is scored, for methods that have to look at more than a module's inputs. windows:
    calibration tokens (n, length). unit_sets: what can be removed, in order. progress:
    whether long work shows a bar."""

    model: nn.Module
    windows: torch.Tensor
    unit_sets: Sequence[UnitSet]
    progress: bool = False


@dataclass(frozen=True, eq=False)
class ScoreContext:
    """One module as a score sees it. position: its place among all. count: units to score, each as many columns of W.

    problem: f(V) of its consumer on dense inputs, and mean: of these inputs (p,); None unless the method needs inputs.
    magnitudes(power): sum |w|^power over all weights removed with a unit, (count,). cost: parameters of a unit. keep:
    the part that stays if all modules lose equally. damping: d for the ridge d G_jj on changes of weights. jointly: the
    mask problems of all modules are going to be solved as one, so a relaxation of this module alone is not needed. evidence:
    what the method gathered for this module.
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
        """The problem, where the method was promised one."""
        assert self.problem is not None
        return self.problem

    def per_unit(self, columns: np.ndarray) -> np.ndarray:
        """Sums of column values (p,) over the columns of every unit."""
        return np.asarray(columns).reshape(self.count, -1).sum(axis=1)


@dataclass(frozen=True, eq=False)
class UnitScores:
    """scores (count,): the order within the module, and what the method compares modules by; None: those of the joint
    relaxation. relative: rise of the module's relative error for each parameter removed, which is comparable between modules,
    where the method knows it. relaxed: a relaxed mask whose bounds hold for any mask of this module, in units of `energy`.
    similar: groups of its units that the method found alike."""

    scores: np.ndarray | None
    relative: np.ndarray | None = None
    relaxed: RelaxedMask | None = None
    energy: float = 1.0
    similar: tuple[tuple[int, ...], ...] = ()
