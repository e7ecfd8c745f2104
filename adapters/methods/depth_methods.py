"""Which whole blocks are removed: by what the model's output loses, greedily, or by how little single blocks do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["DEPTH_SCORES", "ChooseBlocks", "Judge", "Step", "choose_blocks"]

DEPTH_SCORES = ("output", "hidden", "finercut", "block-influence")


class Judge(Protocol):
    """What a choice of blocks sees of a model.

    blocks: the numbers of those that may be removed. stands(removed): whether the model can be stated without these blocks.
    """

    @property
    def blocks(self) -> Sequence[int]:
        """Which may be removed."""

    def stands(self, removed: Sequence[int]) -> bool:
        """Whether the configuration can state what remains."""

    def costs(self, removed: Sequence[int], candidates: Sequence[int]) -> Mapping[int, float]:
        """How far the output is from the dense model's without the blocks removed and each of the candidates, by candidate."""

    def influences(self) -> Mapping[int, float]:
        """1 - mean cosine between what enters a block of the dense model and what leaves it, by block."""


@dataclass(frozen=True)
class Step:
    """One block that was removed. scores: of all blocks that could have been, by number."""

    block: int
    scores: Mapping[int, float]


Measured = Callable[[str, int, int], Judge]  # by a score, on so many tokens, and so many positions of them
GoesOn = Callable[[Sequence[int], int], bool]  # whether a block goes as well as those that have gone
ChooseBlocks = Callable[[Measured, GoesOn], tuple[Step, ...]]


def choose_blocks(
    measured: Measured, goes_on: GoesOn, *, score: str = "output", tokens: int = 4096, positions: int = 256
) -> tuple[Step, ...]:
    """argmin_b D(without b and those that have gone), one whole block b after the other, until as many have gone as shall.

    score: D, or a score of single blocks. `output` is mean_t KL(p_t | q_t) in nats, p the dense model's predictions and q those
    without the blocks, and of models that predict nothing `hidden`, mean_t |h_t - g_t|^2 / |h_t|^2 of the last hidden states h
    and g. `finercut` is mean_t arccos(z_t . y_t / (|z_t| |y_t|)) of the logits, the angle by which FinerCut (Zhang et al. 2024)
    judges greedily: it removes attention and feed-forward modules one by one, of which stock configurations cannot state that
    they are gone, so that its measure is taken of whole blocks here. `block-influence` is ShortGPT (Men et al. 2024): the
    blocks with the least 1 - mean_t cos(x_t, f(x_t)), x what enters a block of the dense model and f(x) what leaves it, all at
    once.

    tokens: of the calibration text, by which outputs are compared. positions: how many of them t runs over where logits are
    made, spread evenly. Of equal blocks the first goes. What remains is then refitted, see `--compensate`: the operators that
    add to the stream, from before the first gap on, to the dense model's stream, where the error on text set aside falls and
    the output comes nearer. ValueError where a score is not a number, and where no block can go although more should.
    """
    if score not in DEPTH_SCORES:
        raise ValueError(f"score must be one of {', '.join(DEPTH_SCORES)} but is {score!r}")
    for name, value in (("tokens", tokens), ("positions", positions)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1 but is {value!r}")
    judge = measured(score, tokens, positions)
    steps: list[Step] = []
    removed: list[int] = []
    influences = judge.influences() if score == "block-influence" else None
    while left := [block for block in judge.blocks if block not in removed]:
        if not any(goes_on(removed, block) for block in left):
            break
        scores = judge.costs(removed, left) if influences is None else {block: influences[block] for block in left}
        block = next(best_first(judge, removed, scores), None)
        if block is None:
            raise ValueError(
                f"no further block can be removed beside {', '.join(map(str, sorted(removed))) or 'none'}: the configuration "
                "cannot state what would remain; ask for less"
            )
        if not goes_on(removed, block):
            break
        steps.append(Step(block, scores))
        removed.append(block)
    return tuple(steps)


def best_first(judge: Judge, removed: Sequence[int], scores: Mapping[int, float]) -> Iterator[int]:
    """Blocks without which the model can be stated, the least score first."""
    for block, value in sorted(scores.items(), key=lambda each: (each[1], each[0])):
        if not math.isfinite(value):
            raise ValueError(f"the score of block {block} is {value}: the model's weights or activations are damaged")
        if judge.stands([*removed, block]):
            yield block
