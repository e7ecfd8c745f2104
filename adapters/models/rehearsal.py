"""Which proposed depth-2 modules are what they seem: on a copy, to remove units is the same as to zero them.

The copy (`model_copies`) runs the model's own code in the model's own shapes, with weights that are drawn at random. A unit
group is proven when, for several choices of units, the block computes the same with the units' columns of the consumer zeroed
as with the units cut out, and the narrow model the same with a cache as without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from gramian.adapters.models.families import Structure
from gramian.adapters.models.model_copies import TOLERANCE, Stage, Understudy, difference
from gramian.adapters.models.proposals import Proposal, proposals
from gramian.adapters.models.stand_ins import kind_of_block
from gramian.adapters.models.units import UnitGroup, read_unit_group, rearrange, width

__all__ = ["Proven", "rehearsed", "tried"]


@dataclass(frozen=True)
class Proven:
    """What can be removed. structures: by the full name of every block. refused: why not, by the full name of a consumer. rows:
    what a table says of every block, which was to be proven; None where it was proposed."""

    structures: Mapping[str, tuple[Structure, ...]]
    refused: Mapping[str, str]
    rows: Mapping[str, tuple[Structure, ...]] | None = None


@torch.no_grad()
def rehearsed(
    model: PreTrainedModel, lists: Mapping[str, nn.ModuleList], rows: Mapping[str, tuple[Structure, ...]] | None = None
) -> Proven:
    """Prove or refuse the depth-2 modules of every block, those of rows or else those that are proposed. lists: lists of blocks
    by their full names. rows: depth-2 modules by the full names of blocks.

    ValueError: a model that cannot be run for it.
    """
    kinds: dict[Any, list[str]] = {}
    for path, blocks in lists.items():
        for index, block in enumerate(blocks):
            kinds.setdefault((path, kind_of_block(block)), []).append(f"{path}.{index}")
    stage = Stage(model, [names[0] for names in kinds.values()], {name: names[0] for names in kinds.values() for name in names})
    try:
        stages = stage.stages()
    except Exception as error:  # stock code raises anything
        raise ValueError(
            f"units of {type(model).__name__} cannot be found: a short window does not run through it ({first_line(error)})"
        ) from error
    cached, shared = stage.agrees_with_cache(), shared_weights(model)
    structures: dict[str, tuple[Structure, ...]] = {}
    refused: dict[str, str] = {}
    for (path, _), names in kinds.items():
        found: list[Structure] = []
        guesses = proposals(stage.block(names[0]), stages[names[0]], model.config.get_text_config(), path)
        if rows is not None:
            guesses = [Proposal(each.consumer, "heads" if each.unit_size else "channels", (each,)) for each in rows[names[0]]]
        for proposal in guesses:
            form, reason = first_proven(stage, names[0], proposal, cached)
            paths = [proposal.consumer, *(path for path, _ in form.producers)] if form else []
            if twice := sorted({f"{name}.{path}" for name in names for path in paths} & shared):
                form, reason = None, f"{proposal.kind} cannot be removed: {twice[0]} has weights that are used elsewhere too"
            if form is not None:
                found.append(form)
            else:
                refused |= {f"{name}.{proposal.consumer}": reason for name in names}
        structures |= dict.fromkeys(names, tuple(found))
    return Proven({name: structures[name] for path, blocks in lists.items() for name in names_in(path, blocks)}, refused, rows)


def shared_weights(model: nn.Module) -> set[str]:
    """The full names of modules whose weights have another name too."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return {name for each in names.values() if len(each) > 1 for name in each}


def names_in(path: str, blocks: nn.ModuleList) -> list[str]:
    """The full names of the blocks of a list."""
    return [f"{path}.{index}" for index in range(len(blocks))]


def first_proven(stage: Stage, name: str, proposal: Proposal, cached: bool) -> tuple[Structure | None, str]:
    """Find the first form of a proposal that is proven, else the reason why there is none."""
    reasons = []
    for form in proposal.forms:
        reason = tried(stage, name, form, cached)
        if reason is None:
            return form, ""
        reasons.append(reason)
    if not reasons:
        return None, f"{proposal.kind} cannot be removed: its operators are in none of the forms that are known"
    return None, f"{proposal.kind} cannot be removed: {spanning(stage.block(name), proposal.forms[0]) or reasons[0]}"


def tried(stage: Stage, name: str, form: Structure, cached: bool) -> str | None:
    """Remove units of one block; None where that is the same as to zero them, else what happened."""
    try:
        unit_group = read_unit_group(stage.model, name, form)
    except ValueError as error:
        return str(error)
    for units, groups in choices(unit_group):
        with Understudy(stage, name) as dense:
            masked = dense.with_columns_zeroed(unit_group, units)
        if difference(masked, dense.output) < TOLERANCE:
            return f"zeroing columns of {form.consumer} changes nothing"
        with Understudy(stage, name) as narrow:
            try:
                rearrange(stage.model, unit_group, units, groups)
                whole = stage.run()
                apart = difference(stage.answer(name), masked)
                drift = difference(stage.run_cached(), whole) if cached else 0.0
            except Exception as error:  # stock code raises anything
                return f"its forward pass fails on fewer of them ({first_line(error)})"
        del narrow
        if not apart < TOLERANCE:
            return f"cut out and zeroed they differ, by {apart:.2g} of its output"
        if not drift < TOLERANCE:
            return f"once some are cut out, a cache changes what it computes, by {drift:.2g}"
    return None


def choices(unit_group: UnitGroup) -> list[tuple[np.ndarray, np.ndarray]]:
    """Some units and groups to keep: about half of the groups, twice, and one unit less of every group."""
    random, found = np.random.default_rng(0), []
    for part in (2, 3) if unit_group.groups > 1 else ():
        groups = np.sort(random.permutation(unit_group.groups)[: max(1, unit_group.groups // part)])
        found.append((unit_group.of_groups(groups), groups))
    if unit_group.members > 1:
        flags = np.ones((unit_group.groups, unit_group.members), dtype=bool)
        flags[np.arange(unit_group.groups), random.integers(unit_group.members, size=unit_group.groups)] = False
        found.append((np.flatnonzero(flags), np.arange(unit_group.groups)))
    return found


def spanning(block: nn.Module, form: Structure) -> str:
    """Say which parameters beside the operators there are for every unit, so that units are not independent; empty where none
    are found."""
    owner = block.get_submodule(form.owner)
    if form.unit_size is None:
        return ""
    operators = {f"{path}." for path, _ in form.producers} | {f"{form.consumer}."}
    inputs = width_at(block, form.consumer, "inputs")
    units = inputs // getattr(owner, form.unit_size)
    counts = {width_at(block, path) for path, _ in form.producers} | {inputs}
    for name, parameter in owner.named_parameters():
        path = f"{form.owner}.{name}".removeprefix(".")
        if path.startswith(tuple(operators)):
            continue
        if parameter.numel() == units:
            return f"{path} has an entry for every head"
        if parameter.numel() in counts:
            return f"{path.rpartition('.')[0]} spans all heads of a projection"
    for name, module in owner.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) > 1:
            return f"{form.owner}.{name} has a part for every head".removeprefix(".")
    return ""


def width_at(block: nn.Module, path: str, side: Any = "outputs") -> int:
    """The inputs or outputs of an operator."""
    module: Any = block.get_submodule(path)
    return width(module, side)


def first_line(error: Exception) -> str:
    """The first line of what was raised."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
