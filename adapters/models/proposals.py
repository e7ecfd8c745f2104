"""Depth-2 modules of a block as the shapes of its operators suggest them: heads of attention, hidden channels.

A proposal is a guess, to be proven by numbers (`rehearsal`). It reads the shapes of operators, the order in which a forward
pass met them, names of attributes that hold the size of a head, and names by which configurations state widths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from gramian.adapters.models.families import GROUP, UNIT, Structure
from gramian.adapters.models.units import COUNTS, width

__all__ = ["Proposal", "proposals"]

HEAD_SIZES = ("head_dim", "head_size", "attention_head_size", "dim_head", "d_head", "key_value_proj_dim", "kv_channels")
WIDTHS = (
    "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff", "hidden_dim", "ffn_embed_dim", "inner_dim",
    "shared_expert_intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim",
)  # fmt: skip
HEADS = ("num_attention_heads", "num_key_value_heads", "head_dim")
NAMED = {
    "num_attention_heads": "units", "num_heads": "units", "n_heads": "units", "n_head": "units",
    "num_key_value_heads": "groups", "num_kv_heads": "groups", "intermediate_size": "units", "ffn_hidden_size": "units",
    "hidden_size": "outputs",
}  # fmt: skip
SIZED = ("size", "dim", "width")  # attributes that count rows, and not heads, have such names
PASSIVE = (nn.Dropout, nn.Identity, nn.LayerNorm, nn.ModuleList)


@dataclass(frozen=True)
class Proposal:
    """What one operator may consume units of. consumer: its path in the block. kind: `heads` or `channels`. forms: how its
    units may lie in the producers, and what else may repeat their number, the likeliest first."""

    consumer: str
    kind: str
    forms: tuple[Structure, ...]


def proposals(block: nn.Module, stages: Sequence[Sequence[str]], config: Any, path: str) -> list[Proposal]:
    """Propose depth-2 modules of a block.

    stages: its operators in the order in which a forward pass met them, those of one input together. path: of its list.
    The innermost modules come first: operators are those of one depth-2 module if they lie in one module, and are left over
    otherwise. In it the operator that comes last consumes what the others produce.
    """
    left = {name: place for place, stage in enumerate(stages) for name in stage if not of_an_expert(name)}
    around = {name: name.split(".")[:-1] for name in left}
    scopes = {tuple(parts[:depth]) for parts in around.values() for depth in range(len(parts) + 1)}
    found = []
    for scope in sorted(scopes, key=lambda parts: (-len(parts), parts)):
        inside = {name: place for name, place in left.items() if tuple(around[name][: len(scope)]) == scope}
        proposal = proposed(block, ".".join(scope), inside, config, path)
        if proposal is not None:
            found.append(proposal)
            left = {name: place for name, place in left.items() if name not in inside}
    order = [name for stage in stages for name in stage]
    return sorted(found, key=lambda each: order.index(each.consumer))


def proposed(block: nn.Module, scope: str, inside: dict[str, int], config: Any, path: str) -> Proposal | None:
    """Propose the depth-2 module that the operators inside one module form; None where they form none."""
    if len(inside) < 2:
        return None
    last = max(inside.values())
    consumers = [name for name, place in inside.items() if place == last]
    if len(consumers) > 1:
        return None
    consumer, modules = consumers[0], {name: operator_at(block, name) for name in inside}
    inputs = width(modules[consumer], "inputs")
    rows = {name: width(modules[name], "outputs") for name in inside if name != consumer}
    residual = width(modules[consumer], "outputs")
    if all(width(modules[name], "inputs") != residual for name in rows):  # what is produced from the residual returns to it
        return None
    owner = next((each for each in owners(rows, scope) if head_size(block.get_submodule(each), inputs)), None)
    forms: list[Structure] = []
    if owner is not None:
        forms = list(heads(block, owner, consumer, rows, inputs, config))
    kind = "heads" if forms else "channels"
    if not forms:
        forms = list(channels(block, scope, consumer, rows, inputs, config, path))
    if not forms and not scope:
        return None
    if not forms:
        kind = "units"  # of a form that is not known, which is refused by name
    return Proposal(consumer, kind, tuple(variant for form in forms for variant in variants(block, form, config, inputs)))


def of_an_expert(name: str) -> bool:
    """Whether an operator is in a list of experts, of which a window meets only some."""
    parts = name.split(".")
    return any("expert" in part and number.isdigit() for part, number in pairwise(parts))


def operator_at(block: nn.Module, name: str) -> nn.Linear | Conv1D:
    """The operator at a path."""
    module: Any = block.get_submodule(name)
    return module  # type: ignore[no-any-return]


def owners(rows: dict[str, int], scope: str) -> list[str]:
    """The modules that may know the size of a head: that of the first producer, then the one around all operators."""
    return list(dict.fromkeys([next(iter(rows)).rpartition(".")[0], scope]))


def head_size(owner: nn.Module, inputs: int) -> str:
    """Name the attribute that holds the size of a head, of which `inputs` is a multiple; the empty name where there is none."""
    for attribute in HEAD_SIZES:
        value = getattr(owner, attribute, None)
        if type(value) is int and 0 < value <= inputs and inputs % value == 0:
            return attribute
    return ""


def heads(block: nn.Module, owner: str, consumer: str, rows: dict[str, int], inputs: int, config: Any) -> Iterator[Structure]:
    """Yield how queries, keys and values of the heads may lie in their producers: apart, or fused in one of four orders."""
    module = block.get_submodule(owner)
    size_name = head_size(module, inputs)
    size = getattr(module, size_name)
    units = inputs // size
    keys = HEADS if hasattr(config, HEADS[1]) else ()
    if len(rows) == 3:
        queries = [name for name, count in rows.items() if count == inputs]
        names = sorted(rows, key=by_letter)
        if names[0] not in queries or rows[names[1]] != rows[names[2]]:
            return
        shared = rows[names[1]] != inputs or any("key_value" in each or "kv" in each for each in vars(module))
        level = GROUP if shared else UNIT
        producers = ((names[0], UNIT), (names[1], level), (names[2], level))
        if rows[names[1]] % size == 0 and units % (rows[names[1]] // size) == 0:
            yield Structure(owner, producers, consumer, size_name, keys)
    elif len(rows) == 1:
        ((name, count),) = rows.items()
        if count == 3 * inputs:
            fused = Structure(owner, ((name, 3 * UNIT),), consumer, size_name, keys)
            yield fused
            yield replace(fused, interleaved=True)
            for attribute, value in vars(module).items():
                if type(value) is int and 1 < value <= units and units % value == 0 and attribute not in HEAD_SIZES:
                    yield replace(fused, interleaved=True, groups=attribute)
        elif count > inputs and (count - inputs) % (2 * size) == 0 and units % ((count - inputs) // (2 * size)) == 0:
            fused = Structure(owner, ((name, UNIT + GROUP + GROUP),), consumer, size_name, keys)
            yield fused
            yield replace(fused, interleaved=True)


def by_letter(name: str) -> int:
    """Order operators as queries, keys, values by the first letter of their own names."""
    leaf = name.rpartition(".")[2]
    found = "qkv".find(leaf[:1])
    return found if found >= 0 else next((place for place, letter in enumerate("qkv") if f"{letter}_" in leaf), 3)


def channels(
    block: nn.Module, scope: str, consumer: str, rows: dict[str, int], inputs: int, config: Any, path: str
) -> Iterator[Structure]:
    """Yield how hidden channels may lie in their producers: one, two apart (the gate first), or two fused."""
    activation = activation_of(block, scope)
    keys = width_keys(config, inputs, path)
    names = sorted(rows, key=lambda name: "gate" not in name.rpartition(".")[2]) if len(rows) == 2 else list(rows)
    if all(count == inputs for count in rows.values()) and len(rows) in (1, 2):
        yield Structure(scope, tuple((name, UNIT) for name in names), consumer, keys=keys, activation=activation)
    elif len(rows) == 1 and rows[names[0]] == 2 * inputs:
        fused = Structure(scope, ((names[0], 2 * UNIT),), consumer, keys=keys, activation=activation)
        yield fused
        yield replace(fused, interleaved=True)


def width_keys(config: Any, inputs: int, path: str) -> tuple[str, ...]:
    """The key by which a configuration states the width of a feed-forward module; none where there is no such key."""
    known = [key for key in WIDTHS if hasattr(config, key)]
    side = path.split(".")[-2:][0]
    known.sort(key=lambda key: (not key.startswith(f"{side}_"), getattr(config, key) not in (inputs, None)))
    return tuple(known[:1])


def activation_of(block: nn.Module, scope: str) -> str:
    """The path of the activation of a feed-forward module: a module without weights or parts; empty where none is known."""
    around = block.get_submodule(scope)
    passive = {
        f"{scope}.{name}".removeprefix(".")
        for name, module in around.named_modules()
        if name and not isinstance(module, PASSIVE) and not list(module.children()) and not list(module.parameters())
    }
    named = sorted(name for name in passive if any(word in name.rpartition(".")[2] for word in ("act", "elu")))
    return named[0] if named else min(passive) if len(passive) == 1 else ""


def variants(block: nn.Module, form: Structure, config: Any, inputs: int) -> Iterator[Structure]:
    """Yield a form with the usual attributes that repeat widths, then with those of its owner that hold the same numbers, and
    with the numbers that its forward method may read from the configuration."""
    yield form
    owner = block.get_submodule(form.owner)
    size = getattr(owner, form.unit_size) if form.unit_size else 1
    units = inputs // size
    usual = tuple((name, counted) for name, counted in COUNTS if hasattr(owner, name))
    same = tuple(
        (name, "outputs" if any(word in name for word in SIZED) else "units")
        for name, value in vars(owner).items()
        if type(value) is int
        and name not in (*HEAD_SIZES, *dict(usual), form.groups)
        and value == (inputs if any(word in name for word in SIZED) else units)
    )
    if form.groups:
        same += ((form.groups, "groups"),)
    stated: tuple[tuple[str, str], ...] = ()
    if hasattr(owner, "config"):
        stated = tuple((f"config.{key}", counted) for key, counted in NAMED.items() if hasattr(config, key))
        if form.unit_size is None:
            stated = tuple(each for each in stated if each[0].endswith(("intermediate_size", "ffn_hidden_size")))
        else:
            stated = tuple(each for each in stated if not each[0].endswith(("intermediate_size", "ffn_hidden_size")))
    narrow = tuple(each for each in stated if each[1] != "outputs")
    for counts in (usual + same, usual + narrow, usual + same + stated):
        if counts != usual:
            yield replace(form, counts=counts)
