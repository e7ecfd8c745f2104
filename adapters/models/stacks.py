"""Where units can be removed: the lists of blocks of a model, and the depth-2 modules of each block.

A family of `families` has one list, which runs block by block. The models in the table here have several lists, or predict no
tokens, and cannot be run one block at a time; they are pruned on activations of the dense model.

    t5    An encoder and a decoder, of which hidden channels can be removed. Heads cannot: they share a table of relative
          positions, one column a head, that the first block of a stack makes for all its blocks.
    bert  An encoder, of which heads and hidden channels can be removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gramian.adapters.models.families import FAMILIES, UNIT, Structure, blocks_of, family_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["STACKS", "Stack", "blocks_in", "run_paths", "stacks_of", "walks_by_block"]


@dataclass(frozen=True)
class Stack:
    """One list of blocks. blocks: the dotted path from the model to the list. structures: the depth-2 modules of each block."""

    blocks: str
    structures: tuple[Structure, ...]


def t5(config: Any) -> tuple[Stack, ...]:
    """Describe DenseActDense, or DenseGatedActDense where the configuration says so: the last layer of a block, which in the
    decoder comes after one more."""
    inner = ("wi_0", "wi_1") if config.is_gated_act else ("wi",)

    def stack(path: str, layer: int) -> Stack:
        owner = f"layer.{layer}.DenseReluDense"
        producers = tuple((f"{owner}.{name}", UNIT) for name in inner)
        return Stack(path, (Structure(owner, producers, f"{owner}.wo", keys=("d_ff",), activation=f"{owner}.act"),))

    return stack("encoder.block", 1), stack("decoder.block", 2)


def bert(config: Any) -> tuple[Stack, ...]:
    """Describe attention and the feed-forward module of an encoder's block."""
    heads = Structure(
        "attention.self",
        tuple((f"attention.self.{name}", UNIT) for name in ("query", "key", "value")),
        "attention.output.dense",
        "attention_head_size",
    )
    channels = Structure(
        "",
        (("intermediate.dense", UNIT),),
        "output.dense",
        keys=("intermediate_size",),
        activation="intermediate.intermediate_act_fn",
    )
    return (Stack("encoder.layer", (heads, channels)),)


STACKS: dict[str, Callable[[Any], tuple[Stack, ...]]] = {
    "t5": t5,
    "bert": bert,
}  # of the configuration, by model type


def walks_by_block(model: nn.Module) -> bool:
    """Return whether the model can be run block by block; ValueError for a model type that is in neither table."""
    if getattr(getattr(model, "config", None), "model_type", None) in STACKS:
        return False
    family_of(model)
    return True


def run_paths(model: nn.Module) -> tuple[str, ...]:
    """The full names of what runs one after the other: the blocks, or the model itself, of the empty name."""
    if not walks_by_block(model):
        return ("",)
    path = family_of(model).blocks
    return tuple(f"{path}.{index}" for index in range(len(blocks_of(model))))


def stacks_of(model: nn.Module) -> tuple[Stack, ...]:
    """Find the lists of blocks of a model. ValueError: a model type that is in neither table, a row that names no depth-2
    modules."""
    if not walks_by_block(model):
        return STACKS[model.config.model_type](model.config)  # type: ignore[union-attr, index]
    family = family_of(model)
    if not family.structures:
        known = ", ".join(sorted({*STACKS, *(name for name, row in FAMILIES.items() if row.structures)}))
        raise ValueError(f"the family row of {type(model).__name__} names no depth-2 modules; supported: {known}")
    return (Stack(family.blocks, family.structures),)


def blocks_in(model: nn.Module) -> dict[str, nn.Module]:
    """Find all blocks of all lists by their full names, in order."""
    if walks_by_block(model):
        return {f"{family_of(model).blocks}.{index}": block for index, block in enumerate(blocks_of(model))}
    blocks: dict[str, nn.Module] = {}
    for stack in stacks_of(model):
        try:
            found: Any = model.get_submodule(stack.blocks)
        except AttributeError as error:
            raise ValueError(f"{type(model).__name__} has no {stack.blocks!r}: load it with `load`") from error
        blocks |= {f"{stack.blocks}.{index}": block for index, block in enumerate(found)}
    return blocks


def block_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Find the lists of blocks, outermost lists that hold most parameters: one, or two of an encoder-decoder model."""
    from torch import nn

    found: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    sizes = {name: sum(each.numel() for each in module.parameters()) for name, module in found.items()}
    count = 2 if getattr(model.config, "is_encoder_decoder", False) else 1
    chosen = sorted(sizes, key=lambda name: -sizes[name])[:count]
    return {name: module for name, module in found.items() if name in chosen}
