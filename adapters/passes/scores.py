"""The pass that scores units on the dense model, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from gramian.adapters.methods.types import ScoreContext, UnitScores
from gramian.adapters.methods.unit_sets import UnitSet, magnitudes
from gramian.adapters.models.layers import Layer
from gramian.adapters.run.hooks import tapped
from gramian.adapters.run.looking import Looking
from gramian.adapters.run.walk import Receive, Replay
from gramian.solvers import Certificate, MaskProblem, RelaxedMask, Status
from gramian.solvers.backend._xp import to_numpy
from gramian.solvers.units.mask import Budget

__all__ = ["ScoreUnits", "Verdict"]


@dataclass(frozen=True, eq=False)
class Verdict:
    """The scores of one module, and its mask problem where only the joint relaxation of all can say how much is removed."""

    scores: UnitScores
    problem: MaskProblem | None = None


@dataclass(frozen=True, eq=False)
class ScoreUnits(Looking):
    """Scores of every module's units on the dense model, with the moments of one block at a time.

    score: of the method. inputs: whether it needs the moments of what enters the consumers. statistics(): what the method
    has gathered, by module, once the first module is scored. removal: parameters to remove. places: the modules of every block
    that runs. weight(batch): how often its tokens count, where they are of several domains.
    """

    model: Any
    unit_sets: Sequence[UnitSet]
    places: Sequence[Sequence[int]]
    score: Callable[[ScoreContext], UnitScores]
    inputs: bool
    allocation: str
    damping: float
    removal: float
    statistics: Callable[[], Sequence[Any]]
    advance: Callable[[], object]
    weight: Callable[[int], float] | None = None
    name = "scores"
    types: Sequence[type] = (Verdict, UnitScores, MaskProblem, RelaxedMask, Budget, Certificate, Status)

    @property
    def stop(self) -> int:
        """After the last block with a module."""
        return 1 + max(index for index, places in enumerate(self.places) if places)

    @property
    def runs(self) -> bool:
        """Whether moments of the dense model are needed."""
        return self.inputs or self.allocation == "loss"

    def open(self, index: int, block: nn.Module) -> BlockOfScores:
        """Begin with a block."""
        consumers = {place: self.unit_sets[place].name for place in self.places[index]}
        return BlockOfScores(self, {place: Layer(name, self.model.get_submodule(name)) for place, name in consumers.items()})

    def scored(self, place: int, layer: Layer) -> Verdict:
        """Score the units of one module, whose consumer's dense moments are those of `layer` if any are gathered."""
        unit_set = self.unit_sets[place]
        problem = layer.problem() if self.runs else None
        context = ScoreContext(
            position=place,
            count=len(unit_set.scored),
            cost=unit_set.cost * unit_set.removable / len(unit_set.scored),
            keep=1 - self.removal / sum(each.removable * each.cost for each in self.unit_sets),
            magnitudes=partial(magnitudes, self.model, unit_set),
            problem=problem,
            mean=to_numpy(layer.moments.total) / layer.moments.tokens if self.runs else None,
            tokens=layer.moments.tokens,
            damping=self.damping,
            jointly=self.allocation == "loss" and not unit_set.mixed,
            statistics=self.statistics()[place],
        )
        try:
            scores = self.score(context)
        except ValueError as error:
            raise ValueError(f"{unit_set.name}: {error}") from error
        self.advance()
        if problem is None or self.allocation != "loss" or scores.relative is not None:
            return Verdict(scores)
        mask = MaskProblem.from_problem(problem, groups=len(unit_set.scored))
        if mask.silent:
            raise ValueError(
                f"{unit_set.name}: its output is zero, so it has no relative error: leave it out with exclude, or choose an "
                "allocation that compares no outputs"
            )
        return Verdict(scores, mask)


class BlockOfScores:
    """The consumers of one block by their modules' places, with the moments of what reaches them."""

    def __init__(self, each: ScoreUnits, layers: dict[int, Layer]) -> None:
        self.each, self.layers = each, layers

    @property
    def taps(self) -> dict[nn.Module, Receive]:
        """Every consumer is tapped, if moments are needed."""
        return (
            {layer.module: partial(tapped, layer, self.each.weight) for layer in self.layers.values()} if self.each.runs else {}
        )

    @property
    def replayed(self) -> list[nn.Module]:
        """Nothing: there is no other path."""
        return []

    def decide(self, replay: Replay, drifted: bool) -> list[Verdict]:
        """Score module by module; the moments of a module are free afterwards."""
        return [self.each.scored(place, self.layers.pop(place)) for place in list(self.layers)]
