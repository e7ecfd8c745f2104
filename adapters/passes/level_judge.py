"""What the output of a model loses with its operators at certain levels; blocks before the first change are not run again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gramian.adapters.measure.divergence import MEASURES, Ending, mean_over, predicts_tokens
from gramian.adapters.models.block_lists import block_names, blocks_of
from gramian.adapters.models.layers import Layer
from gramian.adapters.passes.levels import OperatorLevels
from gramian.adapters.run.forward import enter, run_block
from gramian.adapters.run.level_files import DENSE, LevelFiles
from gramian.solvers.levels.level_budget import Choice

__all__ = ["LevelJudge", "ModelLevels"]

LOGITS = 2**27  # of the dense model that are kept


class ModelLevels:
    """A model whose operators are put to levels, read from the disk as they are needed.

    rows: of the operators, in order. Whoever is done with it calls `restore`, which gives the dense weights back to the bit.
    """

    def __init__(self, model: Any, files: LevelFiles, rows: Sequence[OperatorLevels]) -> None:
        self.model, self.files, self.rows = model, files, tuple(rows)
        self.layers = [Layer.at(model, row.name) for row in rows]
        names = list(block_names(model))
        self.block = [next(place for place, name in enumerate(names) if row.name.startswith(f"{name}.")) for row in rows]
        self.present: Choice = (0,) * len(self.rows)

    @torch.no_grad()
    def put(self, choice: Choice) -> None:
        """Put every operator to its level."""
        for place, (layer, level, present) in enumerate(zip(self.layers, choice, self.present)):
            if level == present:
                continue
            layer.weight.copy_(self.weight(place, level))
        self.present = choice

    def weight(self, place: int, level: int) -> torch.Tensor:
        """The weight (q, p) of an operator at a level."""
        row = self.rows[place]
        if level == len(row.amounts) - 1 and row.vanishes:
            return torch.zeros_like(self.layers[place].weight)
        return self.files.read(row.name, DENSE if level == 0 else str(level))

    def restore(self) -> None:
        """Give the dense weights back."""
        self.put((0,) * len(self.rows))


class LevelJudge:
    """mean_t KL(p_t | q_t) in nats over positions t of some windows, p the dense model's predictions and q those at a choice.

    Of models that predict nothing it is mean_t |h_t - g_t|^2 / |h_t|^2 of their last hidden states. Made while the model is
    dense. Hidden states in front of every block are kept along one choice, `follow`, so that another one costs the blocks from
    the first operator on that differs.

    windows: (n, length), in parts that are judged by themselves. Where some have one window more than others, they count for as
    much more, so that the mean over parts is that over windows. Positions are spread evenly over each window, as many as make
    LOGITS logits in all. ValueError for a model whose output does not follow from its last block.
    """

    def __init__(self, levels: ModelLevels, windows: torch.Tensor, parts: int) -> None:
        model = levels.model
        self.levels, self.layers = levels, list(blocks_of(model))
        predicts = predicts_tokens(model)
        self.measure = "output" if predicts else "hidden"
        width = model.config.get_text_config().vocab_size if predicts else model.get_input_embeddings().embedding_dim
        self.ending = Ending(model, windows, max(len(windows), LOGITS // width), predicts)
        self.rows = [*windows.tensor_split(parts)]
        self.shares = [len(rows) * parts / len(windows) for rows in self.rows]
        self.entering: list[list[torch.Tensor]] = []  # by part, of every block along the choice that is followed
        hidden, self.calls = enter(model, self.rows)
        self.entering = [[states] for states in hidden]
        self.followed: Choice = levels.present
        self.dense: list[torch.Tensor] = []
        for part, rows in enumerate(self.rows):
            leaving = self.leaving(part, len(self.layers))
            if part == 0:
                self.ending.check(rows, leaving)
            self.dense.append(self.ending.outputs(rows, leaving))

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return len(self.rows)

    @property
    def positions(self) -> int:
        """How many positions of all windows are compared."""
        return len(self.ending.positions) * sum(map(len, self.rows))

    def __call__(self, choice: Choice, parts: Sequence[int]) -> list[float]:
        """The divergence of a choice on some parts."""
        self.levels.put(choice)
        moved = [block for block, one, two in zip(self.levels.block, choice, self.followed) if one != two]
        return [self.present(part, min(moved, default=len(self.layers))) for part in parts]

    def present(self, part: int, first: int = 0) -> float:
        """The divergence of the model as it is on one part. first: the block up to which it is the one that is followed."""
        states = self.leaving(part, first)
        for number in range(first, len(self.layers)):
            states = self.through(number, states)
        found = mean_over(MEASURES[self.measure], self.dense[part], self.ending.outputs(self.rows[part], states))
        return self.shares[part] * found

    def gradient(self, part: int) -> torch.Tensor:
        """That of the divergence on one part with respect to what leaves the last block along the choice that is followed."""
        states = self.leaving(part, len(self.layers)).detach().requires_grad_()
        outputs = self.ending.outputs(self.rows[part], states)
        with torch.enable_grad():
            value = self.shares[part] * MEASURES[self.measure](self.dense[part], outputs).mean()
        return torch.autograd.grad(value, states)[0]

    def leaving(self, part: int, place: int) -> torch.Tensor:
        """What enters a block along the choice that is followed, or leaves the last one; the blocks before are its own."""
        states = self.entering[part]
        while len(states) <= place:
            states.append(self.through(len(states) - 1, states[-1]))
        return states[place]

    def through(self, number: int, states: torch.Tensor) -> torch.Tensor:
        """What a block makes of what enters it."""
        return run_block(self.layers[number], self.calls[number], [states])[0]

    def follow(self, choice: Choice) -> None:
        """Keep hidden states along another choice from now on, but for those that are the same."""
        moved = [block for block, one, two in zip(self.levels.block, choice, self.followed) if one != two]
        for states in self.entering if moved else ():
            del states[min(moved) + 1 :]
        self.followed = choice
