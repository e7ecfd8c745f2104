"""Levels of operators searched by the model's own output: solved, judged, exchanged, and the model dense again at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from gramian.adapters.passes.dense_operators import DenseOperators
from gramian.adapters.passes.depth import divided
from gramian.adapters.passes.level_gradients import has_gradients, prices_by
from gramian.adapters.passes.level_judge import LevelJudge, ModelLevels
from gramian.adapters.passes.levels import OperatorLevels
from gramian.adapters.run.blocks import Blocks
from gramian.adapters.run.forward import batches_of
from gramian.adapters.run.journal import Journal, Record
from gramian.adapters.run.level_files import LevelFiles
from gramian.adapters.run.records import Packer, unpacked
from gramian.adapters.run.walk import walk
from gramian.progress import bar
from gramian.solvers.levels.convex_start import convex_start
from gramian.solvers.levels.level_budget import LevelBudget
from gramian.solvers.levels.level_search import Confirmed, SearchState, begun, search_levels

__all__ = ["Search", "Searched", "found_by_search", "level_files"]

PARTS = 8  # of the windows that choose
NAME = "search"  # of its record in the journal


@dataclass(frozen=True, eq=False)
class Search:
    """What a search is given. windows: that calibrate, of which every fourth chooses; heldout: that do neither. minutes: of
    exchanges. journal: where levels and the state of the search are kept. keep(names): called before these operators are
    written to. progress: whether bars are shown."""

    blocks: Blocks
    windows: torch.Tensor
    heldout: torch.Tensor
    minutes: float
    journal: Journal | None
    keep: Callable[[Sequence[str]], object]
    progress: bool


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search has found.

    rows: of the operators. state: of the search, whose best choice is a level for each.
    judge: of held-out windows, one a part; values: the divergence there of the uniform choice, of the start, and of what was
    found. chosen_on: how many windows chose, at how many positions.
    """

    rows: tuple[OperatorLevels, ...]
    state: SearchState
    judge: LevelJudge
    values: Mapping[str, Sequence[float]]
    chosen_on: tuple[int, int]

    def document(self) -> dict[str, Any]:
        """The figures for a report, once the model is what the run makes of it."""
        values = {**self.values, "final": [self.judge.present(part) for part in range(self.judge.parts)]}
        return {
            "measure": self.judge.measure,
            "chosen_on": {"windows": self.chosen_on[0], "positions": self.chosen_on[1]},
            "start": self.state.first.value,
            "found": self.state.best.value,
            "heldout": {
                "windows": self.judge.parts,
                "positions": self.judge.positions,
                **{name: mean_and_error(each) for name, each in values.items()},
                "found - start": mean_and_error(np.subtract(values["found"], values["start"])),
                "found - uniform": mean_and_error(np.subtract(values["found"], values["uniform"])),
            },
            "rounds": self.state.rounds,
            "accepted": self.state.accepted,
            "evaluations": self.state.evaluations,
            "seconds": self.state.seconds,
            "ended": self.state.ended,
        }


def mean_and_error(values: Sequence[float] | np.ndarray) -> dict[str, float | None]:
    """The mean over windows and its standard error, None of a single one. Of differences it is that of pairs."""
    found = np.asarray(values, dtype=np.float64)
    error = None if len(found) < 2 else float(found.std(ddof=1)) / math.sqrt(len(found))
    return {"mean": float(found.mean()), "standard_error": error}


@contextmanager
def level_files(journal: Journal | None) -> Iterator[LevelFiles]:
    """Where levels are written: in the journal, with which they go, else in a directory that goes when the context ends."""
    if journal is not None:
        journal.levels.mkdir(exist_ok=True)
        yield LevelFiles(journal.levels)
        return
    with TemporaryDirectory(prefix="gramian-levels-") as folder:
        yield LevelFiles(Path(folder))


def found_by_search(
    search: Search,
    files: LevelFiles,
    levels: Callable[[int, Callable[[], object]], DenseOperators],
    count: int,
    wanted: float,
    shares: Mapping[str, float],
    groups: Callable[[Sequence[str]], Sequence[Sequence[int]]],
) -> Searched:
    """argmin_i D(i) over levels of operators that remove `wanted` in all, D the divergence of the model's output.

    levels(fitted, advance): the pass that solves them on so many batches. count: of the operators. shares: the part of its
    last amount that each loses by the uniform choice. groups(names): places of operators that may vanish together.
    """
    blocks, model, journal = search.blocks, search.blocks.model, search.journal
    fitted, choosing = divided(search.windows)
    batches = batches_of(fitted)
    with bar(count, "levels", "operator", shown=search.progress) as shown:
        solve = levels(len(batches), shown.update)
        rows = [row for block in walk(solve, blocks, batches, journal=journal) for row in block]
    names = [row.name for row in rows]
    search.keep(names)
    operators = ModelLevels(model, files, rows)
    judge = LevelJudge(operators, choosing, min(PARTS, len(choosing)))
    test = LevelJudge(operators, search.heldout, len(search.heldout))
    amounts = tuple(np.asarray(row.amounts) for row in rows)
    budget = LevelBudget(amounts, math.ceil(wanted))
    uniform = convex_start(budget, [uneven(each, shares[name]) for each, name in zip(amounts, names)]).choice
    budget = budget.widened(uniform)
    separable = convex_start(budget, [np.asarray(row.errors) for row in rows]).choice
    with bar(max(1, round(60 * search.minutes)), "search", "second", shown=search.progress) as shown:
        done = 0

        def keep(state: SearchState) -> None:
            nonlocal done
            judge.follow(state.present.choice)
            shown.set_postfix_str(f"divergence {state.first.value:.4g} -> {state.best.value:.4g}", False)
            shown.update(int(state.seconds) - done)
            done = int(state.seconds)
            if journal is not None:
                journal.write(NAME, 0, Record(Packer().packed(state)))

        if journal is not None and journal.finished(NAME):
            state = unpacked(
                journal.read(NAME, 0).rows, {}, {each.__name__: each for each in (SearchState, Confirmed)}, np.asarray
            )
        else:
            state = begun(budget, judge, judge.parts, [each for each in (uniform, separable) if budget.admits(each)])
        keep(state)
        prices = partial(prices_by, judge) if has_gradients(judge) else None
        limit = 60 * search.minutes
        state = search_levels(budget, judge, state, groups=groups(names), prices=prices, time_limit=limit, keep=keep)
    choices = {"uniform": uniform, "start": state.first.choice, "found": state.best.choice}
    values = {name: test(choice, range(test.parts)) for name, choice in choices.items()}
    operators.restore()
    return Searched(tuple(rows), state, test, values, (len(choosing), judge.positions))


def uneven(amounts: np.ndarray, share: float) -> np.ndarray:
    """(a - s A)^2 / A of amounts a of which the last is A: their sum is least where every operator loses its share s."""
    return np.asarray((amounts - share * amounts[-1]) ** 2 / max(1, amounts[-1]))
