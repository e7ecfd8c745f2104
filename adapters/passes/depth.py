"""Whole blocks are removed, and the operators of the others that add to the stream are fitted to the dense model's stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from gramian.adapters.methods.depth_methods import ChooseBlocks, Judge, Step
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.discovery import short_window
from gramian.adapters.models.short_runs import cut_exactly
from gramian.adapters.passes.block_judge import BlockJudge, judged_windows
from gramian.adapters.passes.stream_entries import entries_of
from gramian.adapters.passes.stream_fits import StreamFit, stream_errors
from gramian.adapters.removal.depth import Shortening
from gramian.adapters.removal.report import ModuleReport
from gramian.adapters.run.forward import Call, batches_of, enter, run_block
from gramian.adapters.run.journal import Journal, Record
from gramian.adapters.run.naming import naming

__all__ = ["RemoveBlocks", "Shortened"]

ASIDE = 4  # one calibration window in this many judges refits
NAME = "depth"  # of the journal's records, one a step
States = list[torch.Tensor]


@dataclass(frozen=True)
class Shortened:
    """rows: one for every block that there was. removed: the numbers of those that are gone, first gone first. measure: by
    which the output was compared; output: what it was without these blocks, and after refits, on text set aside for that."""

    rows: tuple[ModuleReport, ...]
    removed: tuple[int, ...]
    measure: str
    output: tuple[float, float]


@dataclass(eq=False)
class RemoveBlocks:
    """argmin_b D(without b and those that have gone), block after block, and argmin_V sum_t |h_t(V) - T_t|^2 / |T_t|^2.

    D: see `choose_blocks`. h: what leaves a block that remains, or the one that was removed last behind it; T: the same of the
    dense model. Every operator of a block that adds to the stream is fitted in turn, on three calibration windows of four, from
    the block before the first gap on; a refit is kept where on the fourth both the error of the stream and D are less with it.

    windows, heldout: those that calibrate, and others on which errors are reported. tokens: how many judge the output.
    """

    model: Any
    plan: Shortening
    choose: ChooseBlocks
    compensates: bool
    windows: torch.Tensor
    heldout: torch.Tensor | None
    dtype: torch.dtype
    journal: Journal | None
    keep: Callable[[Sequence[str]], object]
    advance: Callable[[], object]

    def run(self) -> Shortened:
        """Choose, refit, and cut the model."""
        judge: BlockJudge | None = None
        tokens, positions = 0, 0

        def measured(score: str, some: int, outputs: int) -> Judge:
            nonlocal judge, tokens, positions
            tokens, positions = some, outputs
            judge = BlockJudge(
                self.model, judged_windows(self.windows, some), score, outputs, self.plan.candidates, self.recalled,
                self.advance,
            )  # fmt: skip
            return judge

        steps = self.choose(measured, self.plan.goes_on)
        assert judge is not None
        removed = tuple(step.block for step in steps)
        fitted, apart = divided(self.windows) if self.compensates else (self.windows, self.windows[:0])
        if len(apart):  # what judges refits must not be what they are fitted to
            judge = BlockJudge(
                self.model, judged_windows(apart, tokens), judge.measure, positions, (), self.recalled, self.advance
            )  # fmt: skip
        judge.follow(removed)
        rows, output = self.refitted(judge, steps, fitted, apart)
        cut_exactly(self.model, judge.path)
        return Shortened(tuple(rows), removed, judge.measure, output)

    def recalled(self, step: int, work: Callable[[], dict[int, float]]) -> dict[int, float]:
        """The scores of a step, from the journal or for it."""
        if self.journal is None:
            return work()
        if step in self.journal.finished(NAME):
            return {int(number): float(score) for number, score in self.journal.read(NAME, step).rows}
        scores = work()
        self.journal.write(NAME, step, Record([[number, score] for number, score in scores.items()]))
        return scores

    def refitted(
        self, judge: BlockJudge, steps: Sequence[Step], fitted: torch.Tensor, apart: torch.Tensor
    ) -> tuple[list[ModuleReport], tuple[float, float]]:
        """Walk the blocks along three paths: the dense one, the one with gaps, and the same with refits."""
        parts = [batches_of(each) if each is not None and len(each) else [] for each in (fitted, apart, self.heldout)]
        hidden, calls = enter(self.model, [batch for part in parts for batch in part])
        paths = Paths(hidden, calls, tuple(map(len, parts)), self.layers)
        gone = [step.block for step in steps]
        before = after = judge.from_place(0, judge.leaving(0))
        rows: list[ModuleReport] = []
        kept = 0
        for number in range(len(self.layers)):
            started, name = time.perf_counter(), f"{self.plan.path}.{number}"
            if number in gone:
                if len(paths.dense_after) <= number + 1:  # no block is kept before it
                    paths.dense_through(number)
                done = Done(f"removed as number {gone.index(number) + 1}")
            else:
                last = number + 1
                while last in gone:
                    last += 1
                for each in range(number, last):
                    paths.dense_through(each)
                plain, found = paths.next(number)
                done = Done("kept")
                if paths.drifted or last > number + 1:
                    with naming(name):
                        done = self.fit(judge, kept, number, paths, found, last, after) if self.compensates else done
                    after, found = done.output if done.output is not None else after, done.leaving or found
                    paths.drifted = True
                paths.plain, paths.found = plain, found
                kept += 1
            rows.append(row_of(name, number, self.plan, steps, paths, done, time.perf_counter() - started))
            paths.forget(number)
            self.advance()
        return rows, (before, after)

    @cached_property
    def layers(self) -> list[torch.nn.Module]:
        """The blocks that the model has before it is cut."""
        return list(blocks_of(self.model))

    def fit(self, judge: BlockJudge, place: int, number: int, paths: Paths, leaving: States, last: int, output: float) -> Done:
        """Refit what adds to the stream in one block. last: the number of the next block that remains. leaving: what leaves the
        block as it is, and output: D with it."""
        fitted, apart, _ = paths.parts
        if not apart:
            return Done("kept; one window calibrates, and a refit needs one more to be judged")
        block, call, targets = self.layers[number], paths.calls[number], paths.dense_after[last]
        hidden, calls = self.short_run
        found = entries_of(block, calls[number], hidden)
        if not found:
            return Done("kept; what its operators return is not added to the stream")
        aside = slice(fitted, fitted + apart)
        error = float(stream_errors(targets[aside], leaving[aside]).mean())
        if not error > 0:
            return Done("kept; nothing is missing behind it")
        done = Done("kept; a refit did not help")
        names: list[str] = []
        for entry in found:
            name = f"{self.plan.path}.{number}.{entry.path}"
            self.keep([name])
            job = StreamFit(name, block, call, entry, self.dtype)
            with naming(name):
                answer = job.solve(paths.found, targets, fitted, aside, self.plan.dampings)
            nearer = judge.from_place(place, judge.leaving(place)) if answer.error < error else output
            if not nearer < output:
                job.put(job.before)
                continue
            error, output = answer.error, nearer
            names.append(entry.path)
            done = Done(f"kept, {' and '.join(names)} refitted", max(done.residual or 0.0, answer.residual), output)
        return replace(done, leaving=run_block(block, call, paths.found)) if names else done

    @cached_property
    def short_run(self) -> tuple[torch.Tensor, Sequence[Call]]:
        """What enters the blocks for a short window, by which it is found what adds to the stream, and how they are called."""
        hidden, calls = enter(self.model, [short_window(self.model)])
        return hidden[0], calls


@dataclass(frozen=True)
class Done:
    """What was done with a block. leaving: what leaves it since, where that is something else."""

    status: str
    residual: float | None = None
    output: float | None = None
    leaving: States | None = None


class Paths:
    """Hidden states along the dense path, with gaps, and with gaps and refits.

    parts: how many batches are fitted, judge refits, and are held out. dense_after: what enters a block of the dense model, by
    number, None once it is no longer needed."""

    def __init__(
        self, hidden: States, calls: Sequence[Call], parts: tuple[int, ...], layers: Sequence[torch.nn.Module]
    ) -> None:
        self.calls, self.parts, self.layers = calls, parts, layers
        self.dense_after: list[Any] = [hidden]
        self.plain = self.found = hidden
        self.drifted = False

    def dense_through(self, number: int) -> None:
        """Run a block of the dense model, whose weights are still its own."""
        self.dense_after.append(run_block(self.layers[number], self.calls[number], self.dense_after[number]))

    def next(self, number: int) -> tuple[States, States]:
        """What leaves a block on the path with gaps, and on the same with refits."""
        if self.plain is self.dense_after[number]:
            return (self.dense_after[number + 1],) * 2
        plain = run_block(self.layers[number], self.calls[number], self.plain)
        return plain, plain if self.found is self.plain else run_block(self.layers[number], self.calls[number], self.found)

    def forget(self, number: int) -> None:
        """Free what entered a block."""
        self.dense_after[number] = None

    def errors(self, number: int) -> tuple[float, float, float | None, float | None]:
        """Mean errors of the stream behind a block, without and with refits, on calibration and on held-out windows."""
        dense, within = self.dense_after[number + 1], slice(0, sum(self.parts[:2]))
        apart = slice(sum(self.parts[:2]), None)
        plain, found = (float(stream_errors(dense[within], each[within]).mean()) for each in (self.plain, self.found))
        if not self.parts[2]:
            return plain, found, None, None
        others = [float(stream_errors(dense[apart], each[apart]).mean()) for each in (self.plain, self.found)]
        return plain, found, others[0], others[1]


def row_of(
    name: str, number: int, plan: Shortening, steps: Sequence[Step], paths: Paths, done: Done, seconds: float
) -> ModuleReport:
    """The row of a block."""
    there = int(all(step.block != number for step in steps))
    plain, found, plain_apart, found_apart = paths.errors(number)
    scores = [step.scores[number] for step in steps if number in step.scores]
    detail = {"parameters": float(plan.sizes[number])}
    if scores:
        detail["score"] = scores[-1]
    if plain_apart is not None:
        detail["heldout_without_refit"] = plain_apart
    return ModuleReport(
        name, (1, there), (1, there), plain, found, found_apart, done.residual, done.status, seconds, detail
    )  # fmt: skip


def divided(windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows that are fitted, and those that judge refits: every fourth, or the last of fewer; none of a single one."""
    if len(windows) < 2:
        return windows, windows[:0]
    apart = torch.arange(len(windows)) % ASIDE == ASIDE - 1
    apart[-1] |= not bool(apart.any())
    return windows[~apart], windows[apart]
