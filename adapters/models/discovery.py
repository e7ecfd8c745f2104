"""The operators of a model, found by running it: one short window goes through it, and hooks note what each operator receives.

    operators  `Linear` and `Conv1D` modules that are called inside the blocks, and packed experts, but no gates: the score of
               an expert, or a single number, is no matrix to be pruned.
    a stage    the operators of a block that receive the very same tensors: one storage, offset and shape, while the tensors
               are kept alive. Equal numbers are not enough.
    order      stages are in the order of their first calls, so that a stage comes after those that its input depends on.

A module that is called twice, or has two names, is one operator. Blocks of a model whose weights are not in memory are given
zeros, one block of each kind at a time: which tensors flow where does not depend on numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from gramian.adapters.models.block_answers import Answer, Arguments
from gramian.adapters.models.block_lists import block_names, blocks_of, full_name, run_paths
from gramian.adapters.models.experts import eager_experts, expert_at, packed_in, stages_in
from gramian.adapters.models.families import FAMILIES, chosen_names
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.stand_ins import kind_of_block, lent, replaced_forward
from gramian.adapters.models.tasks import token_inputs, trunk_of

__all__ = [
    "Calls", "answers_of", "calls_of", "identities", "is_operator", "noted", "operator_names", "short_window", "stages_of",
]  # fmt: skip

Stages = tuple[tuple[str, ...], ...]
LENGTH = 6  # of a short window
MARKS = ("_token_id", "_token_index")  # in a configuration: tokens that stand for something else


@dataclass
class Seen:
    """What was seen of a model. blocks: by which it is noticed that layers were removed or replaced. stages: of each block, or
    of the model as one block. answers: of each block."""

    blocks: tuple[weakref.ref[nn.Module], ...]
    stages: tuple[Stages, ...]
    answers: tuple[Answer, ...]


@dataclass
class Calls:
    """The inputs of operators, by name, in the order of their first calls. kept: the tensors, which must not be freed while
    others are compared with them."""

    inputs: dict[str, list[Hashable]] = field(default_factory=dict)
    kept: list[torch.Tensor] = field(default_factory=list)

    def note(self, path: str, module: nn.Module, given: torch.Tensor) -> None:
        """Add one call. The experts of a packed parameter are a stage of their own: each is given other tokens."""
        self.kept.append(given)
        place = (given.untyped_storage().data_ptr(), given.storage_offset(), given.shape, given.stride(), given._version)
        for number, stage in enumerate(stages_in(path, module)):
            for name in stage:
                self.inputs.setdefault(name, []).append((path, number))
        if is_operator(module):
            self.inputs.setdefault(path, []).append(place)

    def stages(self) -> Stages:
        """Group operators by all that they received."""
        found: dict[Hashable, list[str]] = {}
        for name, places in self.inputs.items():
            found.setdefault(tuple(places), []).append(name)
        return tuple(map(tuple, found.values()))


SEEN: weakref.WeakKeyDictionary[nn.Module, Seen] = weakref.WeakKeyDictionary()
REPEATED: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()  # modules that a block calls more than once


def stages_of(model: nn.Module) -> tuple[Stages, ...]:
    """Find the stages of every block in order, each a tuple of operators as dotted paths inside the block; of an
    encoder-decoder model those of its one block, the model itself.

    The operators of a stage receive the very same input, and a stage comes after those that its input depends on. A row of
    `FAMILIES` with stages is believed. ValueError: a model without a list of blocks, a block that is not run, or more than
    once, or whose answer holds no hidden states.
    """
    row = FAMILIES.get(getattr(getattr(model, "config", None), "model_type", ""))
    if row is not None and row.stages:
        return (row.stages,) * len(blocks_of(model))
    return seen(model).stages


def answers_of(model: nn.Module) -> tuple[Answer, ...]:
    """Find what form the answer of every block has. Errors are those of `stages_of`."""
    return seen(model).answers


def calls_of(module: nn.Module) -> int:
    """Return how often a block calls an operator inside it."""
    return REPEATED.get(module, 1)


def operator_names(model: nn.Module, include: str | None = None, exclude: str | None = None) -> list[str]:
    """List the full names of the operators to prune, in order: those that `include` matches somewhere (a regular expression;
    None matches all) and `exclude` does not. ValueError for a bad expression, where no operator is chosen, and those of
    `stages_of`."""
    names = [
        full_name(path, operator)
        for path, stages in zip(run_paths(model), stages_of(model), strict=True)
        for stage in stages
        for operator in stage
    ]
    if not names:
        raise ValueError(f"no operator of {type(model).__name__} was called inside its blocks, so there is nothing to prune")
    return chosen_names(names, include, exclude)


def short_window(model: Any) -> torch.Tensor:
    """Two windows of a few tokens, without tokens that stand for something else, such as an image."""
    config = model.config.get_text_config()
    marks = [value for each in (model.config, config) for name, value in vars(each).items() if name.endswith(MARKS)]
    special = {token for value in marks for token in (value if isinstance(value, list | tuple) else [value])}
    plain = [token for token in range(min(config.vocab_size, 4096)) if token not in special] or [0]
    count = 2 * LENGTH
    return torch.tensor([plain[token % len(plain)] for token in range(count)]).view(2, LENGTH)


def seen(model: nn.Module) -> Seen:
    """What was seen of a model, now or before."""
    blocks, known = identities(model), SEEN.get(model)
    if known is None or known.blocks != blocks:  # references are equal while they are to the same living module
        known = SEEN[model] = Seen(blocks, *observed(model))
    return known


def identities(model: nn.Module) -> tuple[weakref.ref[nn.Module], ...]:
    """Refer to the blocks of a model without keeping them alive."""
    return tuple(weakref.ref(model.get_submodule(name)) for name in block_names(model))


@torch.no_grad()
def observed(model: Any) -> tuple[tuple[Stages, ...], tuple[Answer, ...]]:
    """Run a short window through a model, and note what its operators receive and what its blocks return."""
    paths = run_paths(model)
    blocks = [model.get_submodule(path) if path else model for path in paths]
    calls = [Calls() for _ in blocks]
    answers: list[Answer | None] = [None] * len(blocks)
    known: set[int] = set()
    leaders: dict[Hashable, int] = {}
    with ExitStack() as stack:
        stack.enter_context(eval_mode(model))
        stack.enter_context(eager_experts(model))
        stack.enter_context(lent(model, blocks if paths != ("",) else []))
        for index, (path, block) in enumerate(zip(paths, blocks)):
            first = index
            if path and any(parameter.is_meta for parameter in block.parameters()):
                first = leaders.setdefault(kind_of_block(block), index)
            if first == index:
                names = operators_in(model, block, path, known)
                stack.enter_context(noted(names, calls[index]))
            else:
                calls[index] = calls[first]
            if path:
                stack.enter_context(replaced_forward(block, visited(block, path, answers, index, first)))
        trunk_of(model)(**token_inputs(model, short_window(model)))
    for path, answer in zip(paths, answers):
        if path and answer is None:
            raise ValueError(f"{path} of {type(model).__name__} is not run when text is read: it cannot be pruned by block")
    for block, each in zip(blocks, calls):
        for name, places in each.inputs.items():
            if len(places) > 1 and expert_at(block, name) is None:
                REPEATED[block.get_submodule(name)] = len(places)
    return tuple(each.stages() for each in calls), tuple(each or Answer() for each in answers)


def visited(
    block: Any, path: str, answers: list[Answer | None], index: int, first: int
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the forward of a block note the form of its answer; a block like an earlier one is passed by."""

    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if answers[index] is not None:
                raise ValueError(f"{path} runs more than once, so the model cannot be run block by block")
            try:
                hidden, _ = Arguments.of(args, kwargs)
                if first != index:
                    answers[index] = form = answers[first] or Answer()
                    return form.filled(hidden)
                with lent(block, []):
                    answer = own(*args, **kwargs)
                answers[index] = Answer.of(answer, hidden)
            except ValueError as error:
                raise ValueError(f"{path} ({type(block).__name__}): {error}") from error
            return answer

        return forward

    return around


def operators_in(model: nn.Module, block: nn.Module, path: str, known: set[int]) -> dict[str, nn.Module]:
    """Find the operators inside a block, and modules of packed experts, by their paths in it: of an encoder-decoder model those
    of its lists of blocks. known: weights of earlier blocks, which are left out."""
    inside = tuple(f"{name}." for name in block_names(model)) if not path else ("",)
    found: dict[str, nn.Module] = {}
    for name, module in block.named_modules():
        if not name.startswith(inside) or not (packed_in(module) or (is_operator(module) and not is_gate(block, name, module))):
            continue
        weights = {id(weight) for weight in module.parameters(recurse=False)}
        if not weights & known:
            known |= weights
            found[name] = module
    return found


def is_operator(module: nn.Module) -> bool:
    """Tell whether a module computes X W^T with a weight matrix of its own."""
    if not (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"):
        return False
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 2


def is_gate(block: nn.Module, name: str, module: Any) -> bool:
    """Tell whether an operator makes one number, or a score for each of the experts beside it."""
    outputs = module.weight.shape[1 if type(module).__name__ == "Conv1D" else 0]
    if outputs == 1:
        return True
    parents = [name.rpartition(".")[0]]
    if parents[0]:
        parents.append(parents[0].rpartition(".")[0])
    return any(outputs in experts_in(block.get_submodule(parent), module) for parent in parents if parent)


def experts_in(parent: nn.Module, module: nn.Module) -> Iterator[int]:
    """Yield how many experts there may be beside a module: entries of lists, first sizes of packed weights."""
    for each in parent.modules():
        if isinstance(each, nn.ModuleList):
            if not any(inner is module for inner in each.modules()):
                yield len(each)
        elif not isinstance(each, nn.modules.conv._ConvNd):
            yield from (len(weight) for weight in each.parameters(recurse=False) if weight.ndim == 3)


@contextmanager
def noted(operators: dict[str, nn.Module], calls: Calls) -> Iterator[None]:
    """Note the inputs of operators while the context is open."""

    def noting(name: str) -> Callable[..., None]:
        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.note(name, operators[name], args[0] if args else next(iter(kwargs.values())))

        return note

    handles = [module.register_forward_pre_hook(noting(name), with_kwargs=True) for name, module in operators.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
