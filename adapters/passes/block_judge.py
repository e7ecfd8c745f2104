"""What the output of a model loses without some of its blocks, on a few windows: hidden states in front of them are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from gramian.adapters.measure.divergence import MEASURES, Ending, mean_over, predicts_tokens
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.fewer_blocks import stated_blocks
from gramian.adapters.run.forward import batches_of, enter, run_block

__all__ = ["BlockJudge", "judged_windows"]


class BlockJudge:
    """D(without S) for sets S of blocks: mean_t KL(p_t | q_t) of predictions, or another of `MEASURES`, to the dense model's.

    A path is the blocks that remain; what enters each of its blocks is kept, so that a candidate costs the blocks behind it.
    windows: (n, length). score: see `choose_blocks`; of a model without predictions `output` is `hidden`, as `measure` says.
    positions: how many outputs are compared. blocks: the numbers of those that may be removed. recall(step, work): the scores
    of a step, kept or computed by `work`. advance: called for every candidate.
    """

    def __init__(
        self,
        model: Any,
        windows: torch.Tensor,
        score: str,
        positions: int,
        blocks: Sequence[int],
        recall: Callable[[int, Callable[[], dict[int, float]]], dict[int, float]],
        advance: Callable[[], object],
    ) -> None:
        self.model, self.blocks, self.recall, self.advance = model, tuple(blocks), recall, advance
        predicts = predicts_tokens(model)
        if score == "finercut" and not predicts:
            raise ValueError(f"score='finercut' compares logits, which {type(model).__name__} has not: take output or hidden")
        self.measure = "output" if score == "block-influence" else score
        if self.measure == "output" and not predicts:
            self.measure = "hidden"
        self.layers = list(blocks_of(model))
        self.batches: list[Any] = [*batches_of(windows)]
        self.ending = Ending(model, windows, positions, self.measure != "hidden")
        hidden, self.calls = enter(model, self.batches)
        self.path: tuple[int, ...] = tuple(range(len(self.layers)))
        self.entering: list[list[torch.Tensor]] = [hidden]  # of every block of the path that was run, and what leaves the last
        leaving = self.leaving(len(self.path))
        self.ending.check(self.batches[0], leaving[0])
        self.dense = self.outputs(leaving)

    def leaving(self, place: int) -> list[torch.Tensor]:
        """What enters the block at a place of the path, or leaves the last one."""
        while len(self.entering) <= place:
            number = self.path[len(self.entering) - 1]
            self.entering.append(run_block(self.layers[number], self.calls[number], self.entering[-1]))
        return self.entering[place]

    def follow(self, removed: Sequence[int]) -> None:
        """Go on along another path; what is the same at its beginning is kept."""
        path = tuple(number for number in range(len(self.layers)) if number not in removed)
        same = next(
            (place for place, pair in enumerate(zip(path, self.path)) if pair[0] != pair[1]), min(len(path), len(self.path))
        )
        self.path = path
        del self.entering[same + 1 :]

    def outputs(self, leaving: list[torch.Tensor]) -> torch.Tensor:
        """The outputs that are compared."""
        return torch.cat([self.ending.outputs(rows, states) for rows, states in zip(self.batches, leaving)])

    def from_place(self, place: int, states: list[torch.Tensor]) -> float:
        """D where `states` enter the block at a place of the path."""
        for number in self.path[place:]:
            states = run_block(self.layers[number], self.calls[number], states)
        return mean_over(MEASURES[self.measure], self.dense, self.outputs(states))

    def stands(self, removed: Sequence[int]) -> bool:
        """Whether the configuration can state what remains."""
        try:
            stated_blocks(self.model, [number for number in range(len(self.layers)) if number not in removed])
        except ValueError:
            return False
        return True

    def costs(self, removed: Sequence[int], candidates: Sequence[int]) -> Mapping[int, float]:
        """D without the blocks removed and each of the candidates."""
        return self.recall(len(removed), lambda: self.measured(removed, candidates))

    def measured(self, removed: Sequence[int], candidates: Sequence[int]) -> dict[int, float]:
        """The same, computed."""
        self.follow(removed)
        found = {}
        for number in candidates:
            place = self.path.index(number)
            found[number] = self.from_place(place + 1, self.leaving(place))
            self.advance()
        return found

    def influences(self) -> Mapping[int, float]:
        """1 - mean_t cos(x_t, f(x_t)) of every block f of the dense model and what enters it."""
        return self.recall(0, self.block_influences)

    def block_influences(self) -> dict[int, float]:
        """The same, computed."""
        self.follow(())
        found = {}
        for number in self.blocks:
            pairs = zip(self.leaving(number), self.leaving(number + 1))
            cosines = [torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=-1).flatten() for x, y in pairs]
            found[number] = 1 - float(torch.cat(cosines).mean())
            self.advance()
        return found


def judged_windows(windows: torch.Tensor, tokens: int) -> torch.Tensor:
    """As many windows, spread evenly, as have so many tokens, or the beginning of one that is longer."""
    count = max(1, min(len(windows), -(-tokens // windows.shape[1])))
    places = torch.linspace(0, len(windows) - 1, count).round().long()
    return windows[places, :tokens]
