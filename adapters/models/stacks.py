"""Where units can be removed: the lists of blocks of a model, and the depth-2 modules of each block.

A family of `families` has one list. The models in the table here have several lists, or predict no tokens; units are removed
from them on activations of the dense model.

    t5    An encoder and a decoder, of which hidden channels can be removed. Heads cannot: they share a table of relative
          positions, one column a head, that the first block of a stack makes for all its blocks.
    bert  An encoder, of which heads and hidden channels can be removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gramian.adapters.models.block_lists import block_lists, blocks_path, walks_by_block
from gramian.adapters.models.families import FAMILIES, UNIT, Structure

if TYPE_CHECKING:
    from torch import nn

__all__ = ["STACKS", "Stack", "blocks_in", "follows_pruned", "stacks_of"]


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


def follows_pruned(model: nn.Module) -> bool:
    """Return whether units can be removed on activations of the blocks pruned so far."""
    return getattr(getattr(model, "config", None), "model_type", None) not in STACKS and walks_by_block(model)


def stacks_of(model: nn.Module) -> tuple[Stack, ...]:
    """Find the lists of blocks of a model that is in one of the tables."""
    config: Any = model.config
    row = STACKS.get(config.model_type)
    return (Stack(blocks_path(model), FAMILIES[config.model_type].structures),) if row is None else rooted(model, row(config))


def rooted(model: nn.Module, stacks: tuple[Stack, ...]) -> tuple[Stack, ...]:
    """Stacks by their paths from the model, of which the encoder that has them may be a part beside a head."""
    inner: Any = getattr(model, "base_model", model)
    if inner is model or getattr(model.config, "is_encoder_decoder", False):
        return stacks
    return tuple(Stack(f"{inner_name(model, inner)}.{stack.blocks}", stack.structures) for stack in stacks)


def inner_name(model: nn.Module, inner: nn.Module) -> str:
    """The name of a part of a model."""
    return next(str(name) for name, module in model.named_modules() if module is inner)


def blocks_in(model: nn.Module) -> dict[str, nn.Module]:
    """Find all blocks of all lists by their full names, in order."""
    row = STACKS.get(getattr(getattr(model, "config", None), "model_type", ""))
    paths = block_lists(model) if row is None else [stack.blocks for stack in rooted(model, row(model.config))]
    blocks: dict[str, nn.Module] = {}
    for path in paths:
        try:
            found: Any = model.get_submodule(path)
        except AttributeError as error:
            raise ValueError(f"{type(model).__name__} has no {path!r}: load it with `load`") from error
        blocks |= {f"{path}.{index}": block for index, block in enumerate(found)}
    return blocks
