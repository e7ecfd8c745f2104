"""Forward passes block by block: the hidden states between blocks, and the other arguments that each block is called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import nn

from gramian.adapters.data.domains import interleaved
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.devices import release_cached
from gramian.adapters.models.block_answers import Answer, Arguments, alike
from gramian.adapters.models.block_lists import blocks_of, run_paths, walks_by_block
from gramian.adapters.models.discovery import answers_of, calls_of
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.layers import Site
from gramian.adapters.models.stand_ins import replaced_forward
from gramian.adapters.models.tasks import token_inputs, trunk_of
from gramian.adapters.run.hooks import watch
from gramian.adapters.run.ranks import Shares

__all__ = [
    "TOKENS_PER_BATCH",
    "BlockCall",
    "Call",
    "ModelCall",
    "batches_in",
    "batches_of",
    "domains_of_batches",
    "enter",
    "inputs_of",
    "run_block",
]

TOKENS_PER_BATCH = 2048  # about as many at most
FEW_TOKENS = 512  # fewer in a batch would not pay
EVENLY = 4  # how many batches there are is a multiple of it, so that as many processes have as much to do, or two
States = TypeVar("States", bound=torch.Tensor | None)  # of one batch; None where another process runs it


def batches_of(given: torch.Tensor | Tokens) -> list[Rows]:
    """Split windows (n, length) into batches of about `TOKENS_PER_BATCH` tokens or fewer, at least one window each.

    Texts with labels stand in a batch with others that are as long, so that no batch holds padding: whatever is gathered of
    what reaches a layer is then of tokens alone. A batch is of one domain, and batches of several come in turns."""
    rows: list[Rows] = [given] if isinstance(given, torch.Tensor) else given.by_length()
    split = [evenly(each, batches_in(len(each), longest(each))) for each in rows]
    if isinstance(given, Tokens) and given.domains is not None:
        return interleaved(split)
    return [batch for each in split for batch in each]


def domains_of_batches(given: Tokens) -> list[int]:
    """The domain of every one of `batches_of`, by number."""
    assert given.domains is not None
    numbers = [number for number, count in enumerate(given.domains.counts) if count]
    split = [[number] * batches_in(len(each), longest(each)) for number, each in zip(numbers, given.by_length())]
    return interleaved(split)


def batches_in(count: int, length: int) -> int:
    """How many batches so many windows of a length are split into."""
    fewest = -(-count // max(1, TOKENS_PER_BATCH // length))
    even = EVENLY * -(-fewest // EVENLY)
    return even if even <= count and count * length >= even * FEW_TOKENS else fewest


def evenly(rows: Rows, batches: int) -> list[Rows]:
    """Parts of nearly as many rows each, in order."""
    ends = [len(rows) * number // batches for number in range(batches + 1)]
    return [
        rows[first:last] if isinstance(rows, torch.Tensor) else rows.part(slice(first, last)) for first, last in pairwise(ends)
    ]


def longest(rows: Rows) -> int:
    """How many tokens a model reads, or predicts from, of one of the rows."""
    if isinstance(rows, torch.Tensor):
        return rows.shape[1]
    return max(rows.ids.shape[1], rows.labels.shape[-1] if rows.labels.ndim == 2 else 1)


@dataclass(frozen=True)
class BlockCall:
    """How one block is called with hidden states, and which part of its answer they are.

    Its other arguments are kept by batch size and length, because windows without padding differ in nothing else, and follow
    the block to its device.
    """

    by_shape: Mapping[tuple[int, int], Arguments]
    answer: Answer

    def __call__(self, block: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        given = self.by_shape[hidden.shape[0], hidden.shape[1]]
        return self.answer.states(given.run(block, hidden))


@dataclass(frozen=True)
class ModelCall:
    """A whole model as its only block: the number of a batch goes in, and since nothing follows, it comes out."""

    model: Any
    batches: Sequence[Rows]

    def __call__(self, block: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        self.model(**token_inputs(self.model, self.batches[int(hidden)]))
        return hidden


Call = BlockCall | ModelCall


@torch.no_grad()
def enter(model: Any, batches: Sequence[Rows], shares: Shares = Shares()) -> tuple[list[Any], Sequence[Call]]:
    """Compute the hidden states that enter the first block, one tensor per batch of token windows, and the call of every block.

    A batch that another process runs, by `shares`, has None in its place.

    The model itself runs, with its embedding, positions and masks as it makes them, but with its blocks replaced by
    identities, and without a cache, which would grow with every replay. Into a model that does not run block by block the
    numbers of the batches enter. ValueError, naming the block, where a block is not given what the one before it returned.
    """
    if not walks_by_block(model):
        numbers = [torch.tensor(number) if shares.mine(number) else None for number in range(len(batches))]
        return numbers, [ModelCall(model, batches)]
    answers, paths = answers_of(model), run_paths(model)
    passed: list[torch.Tensor] = []  # what the blocks of one run were given
    seen: list[dict[tuple[int, int], Arguments]] = [{} for _ in paths]
    hidden: list[torch.Tensor | None] = []
    shapes = set()
    with ExitStack() as stack:
        for index, block in enumerate(blocks_of(model)):
            stack.enter_context(replaced_forward(block, bypass(index, paths[index], answers[index], seen[index], passed)))
        for batch, rows in enumerate(batches):
            mine, shape = shares.mine(batch), (rows if isinstance(rows, torch.Tensor) else rows.ids).shape
            if not mine and shape in shapes:
                hidden.append(None)
                continue
            shapes.add(shape)
            passed.clear()
            trunk_of(model)(**token_inputs(model, rows))
            if len(passed) != len(paths):
                raise ValueError(f"{len(passed)} of the {len(paths)} blocks of {type(model).__name__} ran on a window")
            hidden.append(passed[0] if mine else None)
    return hidden, [BlockCall(*each) for each in zip(seen, answers)]


def bypass(
    index: int, path: str, answer: Answer, calls: dict[tuple[int, int], Arguments], passed: list[torch.Tensor]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the forward of a block that returns the hidden states that it is given, in the block's form of `answer`.

    calls: where its other arguments are noted. passed: what the blocks before it were given, with which it must agree."""

    def identity(*args: Any, **kwargs: Any) -> Any:
        states, given = Arguments.of(args, kwargs)
        if len(passed) != index or (passed and not alike(passed[-1], states)):
            raise ValueError(
                f"{path} is not given what the block before it returns, so the model cannot be run block by block: prune "
                "single layers with gramian.capture"
            )
        passed.append(states)
        calls.setdefault((states.shape[0], states.shape[1]), given)
        return answer.filled(states)

    return lambda _: identity


class Reached(Exception):
    """Raised out of a block once the module of interest has been called: the rest of the block is not needed."""


def joined(site: Site, receive: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wait for all inputs of a module that a block calls more than once, and hand them on as one, (tokens, inputs)."""
    count, waiting = calls_of(site) if isinstance(site, nn.Module) else 1, list[torch.Tensor]()

    def gather(inputs: torch.Tensor) -> None:
        waiting.append(inputs.flatten(0, -2))
        if len(waiting) == count:
            tokens = torch.cat(waiting)
            waiting.clear()
            receive(tokens)

    return receive if count == 1 else gather


@torch.no_grad()
def run_block(
    block: nn.Module,
    call: Call,
    hidden: Sequence[States],
    receivers: Mapping[Site, Callable[[int, Any], None]] | Mapping[nn.Module, Callable[[int, Any], None]] | None = None,
) -> list[States]:
    """Compute the outputs of `block` for every batch, each on the device that the batch came from, and None for None.

    receivers: functions by module inside the block; `receivers[module](batch index, inputs)` sees what flows into the module,
    and for a packed parameter what was `Routed` to its experts.
    """
    outputs: list[Any] = []

    def relay(receive: Callable[[int, Any], None]) -> Callable[[Any], None]:
        return lambda inputs: receive(len(outputs), inputs)

    with ExitStack() as hooks:
        for site, receive in (receivers or {}).items():
            hooks.enter_context(watch(site, joined(site, relay(receive))))
        for states in hidden:
            outputs.append(None if states is None else call(block, states).to(states.device))
    release_cached(next(block.parameters()).device)
    return outputs


@torch.no_grad()
def inputs_of(site: Site, block: nn.Module, call: Call, hidden: Sequence[torch.Tensor | None]) -> Iterator[Any]:
    """Yield what flows into one module inside `block`, or what is `Routed` to the experts of a packed parameter, batch by
    batch, None for a batch of which nothing reaches it; nothing past that module is computed."""
    found: list[Any] = []

    def receive(inputs: Any) -> None:
        found.append(inputs)
        raise Reached

    with watch(site, joined(site, receive)):
        for states in hidden:
            with suppress(Reached):
                if states is not None:
                    call(block, states)
            yield found.pop() if found else None
