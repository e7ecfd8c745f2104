"""The gradient of what a model's output loses, and what it says of every operator at other levels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from gramian.adapters.passes.block_functions import BlockFunction
from gramian.adapters.passes.level_judge import LevelJudge
from gramian.adapters.run.forward import BlockCall
from gramian.solvers.levels.level_budget import Choice
from gramian.solvers.levels.level_prices import level_prices
from gramian.solvers.levels.level_search import Check

__all__ = ["has_gradients", "prices_by"]

REACH = 3  # levels on either side of an operator's own that are read, beside the first and the last

Gradients = tuple[int, torch.Tensor]  # an operator, and the gradient (q, p) of its weight


def prices_by(judge: LevelJudge, choice: Choice, check: Check) -> list[np.ndarray]:
    """By how much the mean divergence over all parts changes where one operator alone goes to another level, as far as its
    gradient at a choice says (`level_prices`); NaN for levels far from its own. check: called for every operator."""
    levels = judge.levels
    levels.put(choice)
    judge.follow(choice)
    slopes: list[np.ndarray] = [np.zeros(0)] * len(choice)
    for place, gradient in gradients(judge):
        check()
        slopes[place] = slopes_of(judge, place, gradient)
    return level_prices(slopes, [np.asarray(row.errors) for row in levels.rows], choice)


def slopes_of(judge: LevelJudge, place: int, gradient: torch.Tensor) -> np.ndarray:
    """<g, V(j) - V(i)> for the levels j of an operator that are read, its own being i."""
    levels, own = judge.levels, judge.levels.present[place]
    last = len(levels.rows[place].amounts) - 1
    found = np.full(last + 1, np.nan)
    for level in {0, *range(max(0, own - REACH), min(last, own + REACH) + 1), last}:
        change = levels.weight(place, level).to(gradient) - levels.layers[place].weight.to(gradient)
        found[level] = 0.0 if level == own else float(torch.vdot(gradient.flatten(), change.flatten()))
    return found


def has_gradients(judge: LevelJudge) -> bool:
    """Whether every block with an operator, and those behind it, can be gone back through; tried with one part."""
    judge.levels.put(judge.followed)
    try:
        return all(bool(torch.isfinite(gradient).all()) for _, gradient in gradients(judge, 1))
    except (RuntimeError, NotImplementedError):
        return False


def gradients(judge: LevelJudge, parts: int | None = None) -> Iterator[Gradients]:
    """Gradients of the mean divergence over the first parts, all by default, along the choice that is followed, in float32 at
    least, from the last block to the first that has an operator; those of one block exist at a time.

    RuntimeError where what is computed has no gradient."""
    levels, count = judge.levels, len(judge.layers)
    some = range(judge.parts if parts is None else parts)
    above = [judge.gradient(part) / len(some) for part in some]
    for number in reversed(range(min(levels.block), count)):
        block, call = judge.layers[number], judge.calls[number]
        assert isinstance(call, BlockCall)
        places = [place for place, each in enumerate(levels.block) if each == number]
        names = {id(each): name for name, each in block.named_parameters()}
        chosen = {names[id(levels.layers[place].parameter)]: levels.layers[place].parameter for place in places}
        function, sums = BlockFunction(block, call, chosen), dict[str, torch.Tensor]()
        for part in some:
            states = judge.leaving(part, number).detach().requires_grad_()
            weights = {name: each.detach().requires_grad_() for name, each in chosen.items()}
            with torch.enable_grad():
                answer = function(weights, states)
            pulled = torch.autograd.grad(answer, [states, *weights.values()], above[part].to(answer), allow_unused=True)
            if pulled[0] is None:
                raise RuntimeError("what a block answers does not follow from what enters it")
            above[part] = pulled[0]
            for name, one in zip(weights, pulled[1:]):
                if one is not None:  # an expert may have had no tokens
                    wide = one.to(torch.promote_types(one.dtype, torch.float32))
                    sums[name] = sums[name].add_(wide) if name in sums else wide
        for place in places:
            layer = levels.layers[place]
            total = sums.get(names[id(layer.parameter)])
            yield place, torch.zeros_like(layer.weight) if total is None else layer.matrix_in(total)
