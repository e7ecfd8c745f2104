"""What the walk of a pass takes: the pass itself says, block by block, what it taps, what it waits for, and what it writes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from gramian.adapters.models.experts import Packed
from gramian.adapters.models.layers import Layer, Site
from gramian.adapters.run.blocks import module_at
from gramian.adapters.run.walk import Pass

__all__ = ["Walked", "walked"]

PAIRED = 4  # times the operations of A^T A that G, C and E take together: C is a product of two matrices, and as large as two


@dataclass(frozen=True)
class Walked:
    """One walk over the blocks.

    runs: how often a token runs through the model, parts of blocks included. operations: in moments, for every token. entries:
    of the moments that are in memory at once, at most. kept: widths of the inputs that wait at one block, in all, at most.
    written: the operators that are written to.
    """

    runs: float
    operations: float
    entries: int
    kept: int
    written: tuple[str, ...]


def walked(each: Pass, model: Any, paths: tuple[str, ...], tokens: float = math.inf) -> Walked:
    """Open every block of a pass and run none. paths: of the blocks; their weights need not be in memory. tokens: how many are
    run, which bounds the inputs that packed experts keep."""
    runs, operations, entries, kept = 0.0, 0.0, 0, 0
    follows_pruned = each.follows == "pruned"
    for index in range(each.stop if each.runs else 0):
        block = module_at(model, paths[index])
        decision = each.open(index, block)
        waiting = decision.replayed
        drifted = follows_pruned and each.taps_dense and index > 0  # before anything is written to this block
        following = [site for place, site in enumerate(waiting) if place or drifted or isinstance(site, Packed)]
        runs += (1 + follows_pruned + sum(before(block, site) for site in following)) / len(paths)
        operations += sum(map(squares_of, waiting or decision.taps))
        operations += (PAIRED - 1) * sum(map(squares_of, unpacked(following)))
        sizes = [entries_of(site, tokens, paired=bool(waiting)) for site in waiting or decision.taps]
        entries = max(entries, max(sizes, default=0) if waiting else sum(sizes))
        kept = max(kept, sum(map(width_of, unpacked(waiting))))
    return Walked(runs, operations, entries, kept, tuple(written(each, len(paths))))


def written(each: Pass, blocks: int) -> Iterable[str]:
    """The operators that a pass writes to."""
    return (name for index in range(min(each.stop, blocks)) for name in each.written(index))


def unpacked(sites: Iterable[Site]) -> list[nn.Module]:
    """The sites that are modules, whose inputs on two paths are paired."""
    return [site for site in sites if not isinstance(site, Packed)]


def width_of(site: Site) -> int:
    """The inputs of an operator."""
    return site.width if isinstance(site, Packed) else int(Layer("", site).weight.shape[1])


def squares_of(site: Site) -> int:
    """Operations that a token takes in moments: of packed experts in those of the experts that it is routed to, and in the
    shared ones."""
    return width_of(site) ** 2 * (site.chosen + (not site.hidden) if isinstance(site, Packed) else 1)


def entries_of(site: Site, tokens: float, paired: bool) -> int:
    """Entries of the moments of a site, where inputs of experts, in float32, wait as long as they take less."""
    if not isinstance(site, Packed):
        return (3 if paired else 1) * width_of(site) ** 2
    return int(min(site.count * site.width**2, site.chosen * tokens * site.width / 2)) + site.width**2


def before(block: nn.Module, site: Site) -> float:
    """The part of a block's weights that has run when the inputs of a site are known: those before the module, and those of
    experts too."""
    passed, whole, found = 0, 0, False
    packed = isinstance(site, Packed)
    module = site.module if isinstance(site, Packed) else site
    for each in block.modules():
        found = found or (each is module and not packed)
        size = sum(parameter.numel() for parameter in each.parameters(recurse=False))
        whole += size
        passed += 0 if found else size
        found = found or each is module
    return passed / whole
