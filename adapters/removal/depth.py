"""plan_shortening(model, config): which whole blocks may be removed, and how many parameters go, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.models.block_lists import blocks_of, blocks_path, walks_by_block
from gramian.adapters.models.fewer_blocks import stated_blocks
from gramian.adapters.models.short_runs import check_short_run
from gramian.adapters.removal.amount import amount_of, block_parameters
from gramian.adapters.targets import check_finite

__all__ = ["Shortening", "plan_shortening"]

DAMPINGS = (0.01, 0.05, 0.25, 1.0)


@dataclass(frozen=True, eq=False)
class Shortening:
    """path: of the list of blocks. sizes: the parameters of every block. candidates: the numbers of those that may be removed.
    amount: parameters to remove. least: whether that many have to go, as a budget asks for, or the number nearest to it.
    dampings: of refits, among which text set aside chooses."""

    path: str
    sizes: tuple[int, ...]
    candidates: tuple[int, ...]
    amount: float
    least: bool
    dampings: tuple[float, ...]

    def goes_on(self, removed: Sequence[int], block: int) -> bool:
        """Whether a block goes as well as those that have gone: never the last one, and one at least."""
        gone = sum(self.sizes[number] for number in removed)
        if len(removed) + 1 >= len(self.sizes):
            return False
        if self.least:
            return gone < self.amount
        return not removed or abs(gone + self.sizes[block] - self.amount) < abs(gone - self.amount)

    @property
    def steps(self) -> int:
        """About how many blocks go: exactly, where all are of one size."""
        removed: list[int] = []
        for block in self.candidates:
            if self.goes_on(removed, block):
                removed.append(block)
        return len(removed)

    @property
    def visits(self) -> int:
        """How many candidates are tried by the output, and how many blocks are walked afterwards."""
        return sum(len(self.candidates) - step for step in range(self.steps)) + len(self.sizes)


def plan_shortening(model: PreTrainedModel, config: PruneConfig) -> Shortening:
    """Plan how much of a model's depth goes: the number of blocks whose parameters are nearest to the ratio of those inside the
    blocks, at least one, or the least that a budget asks for.

    ValueError: a model that does not run as one list of several blocks, or whose layers share them; one of which the
    configuration can state no block less, or that is another model then; an amount out of reach; settings that choose among
    operators; weights that are not finite.
    """
    if config.include is not None or config.exclude is not None:
        raise ValueError(
            f"{config.method!r} removes whole blocks: choose among them with blocks, and leave include and exclude out"
        )
    if not walks_by_block(model):
        raise ValueError(
            f"{type(model).__name__} has an encoder and a decoder, whose blocks depend on each other: {config.method!r} "
            "removes blocks of models with one list of them"
        )
    blocks, path = list(blocks_of(model)), blocks_path(model)
    if len(blocks) < 2:
        raise ValueError(f"{path} of {type(model).__name__} has one block, and one must remain: nothing can be removed")
    known: set[int] = set()
    for number, block in enumerate(blocks):
        weights = {id(parameter) for parameter in block.parameters()}
        if weights & known:
            raise ValueError(
                f"{path}.{number} shares weights with a block before it: {config.method!r} cannot count its parameters"
            )
        known |= weights
    stated = model.config.get_text_config().num_hidden_layers
    if len(blocks) != stated:
        raise ValueError(
            f"{path} of {type(model).__name__} has {len(blocks)} blocks, but the configuration states {stated} layers: "
            f"{config.method!r} needs one block a layer"
        )
    sizes = tuple(sum(parameter.numel() for parameter in block.parameters()) for block in blocks)
    inside, amount = block_parameters(model), amount_of(model, config)
    candidates = tuple(range(len(blocks))[config.span])
    if not candidates:
        raise ValueError(f"blocks={config.blocks!r} names none of the {len(blocks)} blocks")
    first = first_stated(model, candidates)
    most = sum(sorted((sizes[number] for number in candidates), reverse=True)[: len(blocks) - 1])
    if amount > most:
        raise ValueError(
            f"a ratio of {amount / inside:g} is out of reach: {int(1e4 * most / inside) / 1e4:g} is the largest, as "
            f"{len(blocks) - min(len(candidates), len(blocks) - 1)} of {len(blocks)} blocks must remain"
        )
    check_finite(model)
    check_short_run(model, [number for number in range(len(blocks)) if number != first])
    dampings = DAMPINGS if config.damping is None else (float(config.damping),)
    return Shortening(path, sizes, candidates, amount, config.budget is not None, dampings)


def first_stated(model: PreTrainedModel, candidates: Sequence[int]) -> int:
    """The first block without which the configuration can state the model. ValueError where there is none: why not, of the
    first."""
    reasons = []
    for number in candidates:
        try:
            stated_blocks(model, [each for each in range(len(blocks_of(model))) if each != number])
        except ValueError as error:
            reasons.append(error)
        else:
            return number
    raise reasons[0]
