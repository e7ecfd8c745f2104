"""The one walk over a model: at every block inputs are tapped, something is decided, and the block is given back.

    for each block: acquire -> run, with taps -> decide -> keep a record -> commit

Whatever a run does is a `Pass`, and where a block lives is `Blocks`. The hidden states that enter the next block follow from
the weights of the blocks before it, so that a run that was interrupted goes on from its records, to the same bytes.

Of several processes each runs some of the batches. Where what enters a block depends on what was written before, all of them
work on the same block, which shares its work out itself; else each has a block of its own, and its record reaches the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from gramian.adapters.devices import current_device
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.experts import eager_experts
from gramian.adapters.models.layers import Site
from gramian.adapters.run.block_records import record_of, restored
from gramian.adapters.run.blocks import Blocks
from gramian.adapters.run.forward import Call, enter, inputs_of, run_block
from gramian.adapters.run.journal import Journal, Record
from gramian.adapters.run.naming import naming
from gramian.adapters.run.ranks import Shares

__all__ = ["Decision", "Pass", "Refitting", "Replay", "Taps", "walk"]

Receive = Callable[[int, Any], None]  # of what reaches a site: a tensor, or what is routed to the experts of a parameter
Replay = Callable[[Site], "Iterator[Any]"]
Keep = Callable[[int, Record], object]
Taps = Mapping[Site, Receive] | Mapping[nn.Module, Receive]


class Decision(Protocol):
    """What a pass does at one block.

    taps: functions by site; `taps[site](batch, inputs)` sees what reaches the module, or the experts of a parameter. replayed:
    the sites whose inputs wait until the path that is followed has reached them too, in order.
    """

    @property
    def taps(self) -> Taps:
        """What is tapped."""

    @property
    def replayed(self) -> Sequence[Site]:
        """What `decide` may replay."""

    def decide(self, replay: Replay, drifted: bool) -> list[Any]:
        """Decide on what the taps have seen, write to the block, and return the rows that say what was done.

        replay(site): what reaches a site inside the block on the path that the pass follows, with what has been written to
        the block so far. drifted: whether that path differed from the one that was tapped before anything was written.
        """


class Pass(Protocol):
    """One walk over the blocks.

    name: under which records are kept. stop: the number of the block after the last one that is visited. runs: whether blocks
    are run at all. follows: what enters a block, activations of the `dense` model or of the model as `pruned` so far.
    taps_dense: whether, on pruned inputs, the taps see the dense model's activations. types: the dataclasses of rows.
    """

    @property
    def name(self) -> str:
        """Under which records are kept."""

    @property
    def stop(self) -> int:
        """After the last block."""

    @property
    def runs(self) -> bool:
        """Whether blocks are run."""

    @property
    def follows(self) -> str:
        """What enters a block."""

    @property
    def taps_dense(self) -> bool:
        """What the taps see."""

    @property
    def types(self) -> Sequence[type]:
        """Of rows."""

    def open(self, index: int, block: nn.Module) -> Decision:
        """Begin with a block, whose weights are there."""

    def written(self, index: int) -> Iterable[str]:
        """The full names of the operators of a block to which the pass may write."""


@runtime_checkable
class Refitting(Pass, Protocol):
    """A pass on pruned inputs that also fits what is left of a block as a whole, once its operators are decided on.

    target_blend: how far its target goes from what the dense block answers on what enters it to what it answers on the dense
    model's path.
    """

    @property
    def target_blend(self) -> float:
        """How far the target goes."""

    def refit(
        self, index: int, block: nn.Module, entering: Sequence[torch.Tensor | None], targets: Sequence[torch.Tensor | None]
    ) -> list[Any]:
        """Fit a block, by what enters it and what should leave it, and return the rows that say what came of it."""


@dataclass(frozen=True)
class Streams:
    """Hidden states that enter a block, batch by batch, None for those of other processes: in the dense model, and on the path
    that is followed."""

    dense: list[torch.Tensor | None]
    entering: list[torch.Tensor | None]


@torch.no_grad()
def walk(
    each: Pass,
    blocks: Blocks,
    batches: Sequence[Rows],
    *,
    jobs: int = 1,
    journal: Journal | None = None,
    storage: torch.dtype = torch.float32,
    shares: Shares = Shares(),
) -> list[list[Any]]:
    """Visit blocks in order, and return the rows of every block.

    batches: windows of tokens. jobs: how many blocks are worked on at once, which dense inputs allow. journal: where records
    are kept, and from which blocks that are finished are taken, with weights in the dtype `storage`. shares: which process runs
    which batches.
    """
    done = set() if journal is None else journal.finished(each.name)
    runs = each.runs and not done.issuperset(range(each.stop))
    hidden, calls = enter(blocks.model, batches, shares) if runs else ([], [])

    written = None if journal is None else partial(journal.write, each.name)

    def visit(index: int, streams: Streams, keep: Keep | None = written) -> tuple[list[Any], Streams]:
        """Work on one block. keep: what is done with its record."""
        block = blocks.acquire(index)
        call = calls[index] if runs else None
        record = journal.read(each.name, index) if journal is not None and index in done else None
        decision = each.open(index, block) if record is None else None
        drifted = streams.entering is not streams.dense and each.taps_dense
        source = streams.dense if each.taps_dense or each.follows == "dense" else streams.entering
        leaving = source
        again = record is not None and not each.taps_dense and each.follows == "pruned" and bool(record.rows)
        if call is not None and not again:  # else what leaves the block is computed once it has its record's weights
            leaving = run_block(block, call, source, {} if decision is None else decision.taps)
        refits: Refitting | None = None
        dense, targets = (
            leaving,
            list[torch.Tensor | None](),
        )  # what leaves the block on the dense path, and what should leave it
        if call is not None and isinstance(each, Refitting):
            refits = each
            if not each.taps_dense and (again or streams.entering is not streams.dense):
                dense = run_block(block, call, streams.dense)
            if record is None and each.written(index):
                own = run_block(block, call, streams.entering) if drifted else leaving
                targets = [blended(*pair, refits.target_blend) for pair in zip(dense, own)]
                del own
        if record is None:
            assert decision is not None
            rows = decision.decide(partial(replayed, block, call, streams.entering), drifted)
            del decision
            if refits is not None and rows and targets:
                rows += refits.refit(index, block, streams.entering, targets)
            del targets
            if keep is not None:
                keep(index, record_of(rows, blocks.model, each.written(index), storage))
        else:
            rows = restored(record, blocks, each.types)
        following = leaving
        if each.follows == "pruned" and call is not None:
            following = run_block(block, call, streams.entering) if drifted or rows else leaving
        blocks.commit(index)
        return rows, Streams(dense if each.taps_dense or refits is not None else following, following)

    streams, results = Streams(hidden, hidden), []
    with eager_experts(blocks.model):  # tapped or not, so that a run which goes on from its records rounds as one in one piece
        if jobs > 1:
            return at_once(visit, each.stop, streams, jobs, blocks, calls)
        if not shares.ranks.alone and each.follows == "dense":
            return spread(visit, each, blocks, calls, streams, shares, done, journal)
        for index in range(each.stop):
            with naming(blocks.paths[index]):
                rows, streams = visit(index, streams)
            results.append(rows)
    return results


def blended(dense: torch.Tensor | None, own: torch.Tensor | None, blend: float) -> torch.Tensor | None:
    """blend times one tensor and the rest of another, in float32 at least, since rounding would be an error of its own."""
    if dense is None or own is None:
        return None
    precise = torch.promote_types(dense.dtype, torch.float32)
    return own.to(precise) if dense is own else blend * dense.to(precise) + (1 - blend) * own.to(precise)


def at_once(
    visit: Callable[[int, Streams], tuple[list[Any], Streams]],
    stop: int,
    streams: Streams,
    jobs: int,
    blocks: Blocks,
    calls: Sequence[Call],
) -> list[list[Any]]:
    """Visit independent blocks at once: on dense inputs a block's work depends on nothing but its weights and inputs."""

    def rows_of(index: int, entering: Streams) -> list[Any]:
        with current_device(blocks.place), torch.no_grad():  # every thread has its own
            with naming(blocks.paths[index]):
                return visit(index, entering)[0]

    threads = torch.get_num_threads()
    futures: list[Future[list[Any]]] = []
    with ThreadPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        try:
            for index in range(stop):
                following = streams.dense  # computed before the block is handed over, which changes it
                if calls and index + 1 < stop:
                    following = run_block(blocks.acquire(index), calls[index], streams.dense)
                if index >= jobs:
                    futures[index - jobs].result()  # memory holds hidden states of no more blocks than are worked on
                futures.append(pool.submit(rows_of, index, streams))
                streams = Streams(following, following)
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def spread(
    visit: Callable[[int, Streams, Keep | None], tuple[list[Any], Streams]],
    each: Pass,
    blocks: Blocks,
    calls: Sequence[Call],
    streams: Streams,
    shares: Shares,
    done: set[int],
    journal: Journal | None,
) -> list[list[Any]]:
    """Visit independent blocks in rounds of one for every process, which is given what enters its block by all of them."""
    ranks, results = shares.ranks, list[list[Any]]()
    for first in range(0, each.stop, ranks.size):
        turns, here, own = range(first, min(first + ranks.size, each.stop)), first + ranks.rank, Streams([], [])
        for index in turns if calls else ():  # what leaves a block is computed before anything is written to it
            if index not in done:
                whole = collected(streams.dense, shares)
                own = Streams(whole, whole) if index == here else own
            if index + 1 < each.stop:
                with naming(blocks.paths[index]):
                    following = run_block(blocks.acquire(index), calls[index], streams.dense)
                    blocks.commit(index)
                streams = Streams(following, following)
        rows, found = list[Any](), list[Record]()
        if here in turns and here not in done:
            with naming(blocks.paths[here]):
                rows, _ = visit(here, own, partial(kept, found))
        for index in turns:
            if index in done:
                assert journal is not None
                record = journal.read(each.name, index)
            else:
                record = ranks.share(found[0] if index == here else None, index - first)
                if journal is not None:
                    journal.write(each.name, index, record)
                if index == here:
                    results.append(rows)
                    continue
            blocks.acquire(index)
            results.append(restored(record, blocks, each.types))
            blocks.commit(index)
    return results


def kept(records: list[Record], _: int, record: Record) -> None:
    """Keep the record of a block."""
    records.append(record)


def collected(hidden: Sequence[torch.Tensor | None], shares: Shares) -> list[torch.Tensor | None]:
    """The hidden states of all batches, of which every process gives its own."""
    return [shares.ranks.share(states, shares.owner(shares.group(batch))) for batch, states in enumerate(hidden)]


def replayed(block: nn.Module, call: Call | None, entering: Sequence[torch.Tensor | None], site: Site) -> Iterator[Any]:
    """What reaches a site of a block, batch by batch."""
    assert call is not None
    return inputs_of(site, block, call, entering)
