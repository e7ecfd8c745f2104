"""Where the blocks of a model are, read from its modules without running anything.

A model's blocks are its outermost `ModuleList` with most parameters: of a model inside a wrapper for images or sounds, the
outermost one of the part that reads text. An encoder-decoder model has one such list on either side, and what the decoder's
blocks read beside their input comes from the encoder: it is run as one block, the model itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gramian.adapters.models.families import FAMILIES

if TYPE_CHECKING:
    from torch import nn

__all__ = ["block_lists", "block_names", "blocks_of", "blocks_path", "full_name", "run_paths", "walks_by_block"]


def walks_by_block(model: nn.Module) -> bool:
    """Return whether the model runs as one list of blocks, one after the other."""
    return not getattr(getattr(model, "config", None), "is_encoder_decoder", False)


def blocks_path(model: nn.Module) -> str:
    """Find the dotted path from the model to its list of blocks.

    ValueError: a path of a row of `FAMILIES` that leads to no list, a model without a list of blocks.
    """
    row = FAMILIES.get(getattr(getattr(model, "config", None), "model_type", ""))
    if row is not None and row.blocks:
        return checked(model, row.blocks)
    return largest(model, text_part(model))


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """Find the model's blocks. Errors are those of `blocks_path`."""
    blocks: nn.ModuleList = model.get_submodule(blocks_path(model))  # type: ignore[assignment]
    return blocks


def block_lists(model: nn.Module) -> tuple[str, ...]:
    """Find the paths of all lists of blocks: one, or of an encoder-decoder model the encoder's and the decoder's."""
    if walks_by_block(model):
        return (blocks_path(model),)
    from transformers import PreTrainedModel  # here, so that tables are read without waiting for it

    assert isinstance(model, PreTrainedModel)
    return tuple(largest(model, side) for side in (model.get_encoder(), model.get_decoder()))


def block_names(model: nn.Module) -> tuple[str, ...]:
    """List the full names of all blocks of all lists, in order."""
    return tuple(
        f"{path}.{index}" for path in block_lists(model) for index, _ in enumerate(model.get_submodule(path).children())
    )


def run_paths(model: nn.Module) -> tuple[str, ...]:
    """List the full names of what runs one after the other: the blocks, or the model itself, of the empty name."""
    return block_names(model) if walks_by_block(model) else ("",)


def full_name(path: str, inside: str) -> str:
    """Join the path of a block, empty for the model itself, with a path inside it."""
    return f"{path}.{inside}" if path else inside


def checked(model: nn.Module, path: str) -> str:
    """Return the path of a row, which leads to a list of blocks; ValueError where it does not."""
    from torch import nn

    try:
        blocks = model.get_submodule(path)
    except AttributeError as error:
        raise ValueError(f"{type(model).__name__} has no {path!r}: load it as a causal language model") from error
    if not isinstance(blocks, nn.ModuleList):
        raise ValueError(f"{path!r} of {type(model).__name__} is a {type(blocks).__name__}, not a list of blocks")
    if not len(blocks):
        raise ValueError(f"{path!r} of {type(model).__name__} has no blocks: its configuration states none")
    return path


def text_part(model: nn.Module) -> nn.Module:
    """Find the part of a model that reads text: itself, but for wrappers of images and sounds."""
    from torch import nn
    from transformers import PreTrainedModel

    found = model.get_decoder() if isinstance(model, PreTrainedModel) else model
    return found if isinstance(found, nn.Module) else model


def largest(model: nn.Module, part: nn.Module) -> str:
    """Find the path, from the model, of the outermost list of modules of a part of it that has most parameters."""
    from torch import nn

    found: dict[str, int] = {}
    if isinstance(model, nn.Module) and isinstance(part, nn.Module):
        prefix = next((name for name, module in model.named_modules() if module is part), "")
        for path, modules in outermost(part, f"{prefix}." if prefix else ""):
            found[path] = sum(parameter.numel() for parameter in modules.parameters())
    if not found or not max(found.values()):
        raise ValueError(
            f"{type(model).__name__} has no list of blocks (a ModuleList with parameters), by which it could be run block by "
            "block: prune single layers with gramian.capture, which needs none"
        )
    return max(found, key=found.__getitem__)


def outermost(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.ModuleList]]:
    """Yield the lists of modules that are in no other, by their paths."""
    from torch import nn

    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield f"{prefix}{name}", child
        else:
            yield from outermost(child, f"{prefix}{name}.")
