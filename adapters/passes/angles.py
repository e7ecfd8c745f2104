"""How far each block of the dense model turns the hidden states that it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gramian.adapters.models.block_answers import Answer, Arguments
from gramian.adapters.models.examples import Rows
from gramian.adapters.run.blocks import Blocks
from gramian.adapters.run.looking import Looking
from gramian.adapters.run.mixtures import Mixture
from gramian.adapters.run.walk import Replay, Taps, walk
from gramian.solvers.levels.turning_blocks import angles, turning_weights

__all__ = ["Turns", "block_angles", "turning_blocks"]


def block_angles(blocks: Blocks, batches: Sequence[Rows], mixture: Mixture | None = None) -> dict[str, float]:
    """mean_t arccos(x_t . f(x_t) / (|x_t| |f(x_t)|)) / pi of every block f and what enters it, x, by path, from 0 to 1.

    mixture: of the domains, where there are several; tokens count by their weights."""
    rows = walk(Turns(len(blocks.paths), None if mixture is None else mixture.factor), blocks, batches)
    return {path: found for path, (found,) in zip(blocks.paths, rows)}


def turning_blocks(blocks: Blocks, batches: Sequence[Rows], mixture: Mixture | None = None) -> dict[str, float]:
    """`turning_weights` of the blocks, by path."""
    found = block_angles(blocks, batches, mixture)
    return dict(zip(found, turning_weights(list(found.values()))))


@dataclass(frozen=True)
class Turns(Looking):
    """The pass that compares what enters blocks with what leaves them. weight(batch): how often its tokens count."""

    stop: int
    weight: Callable[[int], float] | None = None
    name = "angles"
    runs = True
    types: Sequence[type] = ()

    def open(self, index: int, block: nn.Module) -> Turned:
        """Begin with a block."""
        found = Turned(self.weight)
        found.hook = block.register_forward_hook(found.see, with_kwargs=True)
        return found


@dataclass(eq=False)
class Turned:
    """The angles of one block, which sees its batches in order. hook: on the block, until it has seen them all."""

    weight: Callable[[int], float] | None
    total: float = 0.0
    mass: float = 0.0
    batch: int = 0
    hook: Any = None
    taps: Taps = field(default_factory=dict)
    replayed: Sequence[nn.Module] = ()

    def see(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Any) -> None:
        """Add the angles of one batch."""
        entering, _ = Arguments.of(args, kwargs)
        leaving = Answer.of(answer, entering).states(answer)
        turned = angles(entering.double(), leaving.double())
        factor = 1.0 if self.weight is None else self.weight(self.batch)
        self.total += factor * float(turned.sum())
        self.mass += factor * turned.numel()
        self.batch += 1

    def decide(self, replay: Replay, drifted: bool) -> list[float]:
        """The mean angle, in parts of half a turn."""
        self.hook.remove()
        return [self.total / self.mass]
