"""The names of values for settings of methods. The module imports nothing, so that help appears at once."""

from __future__ import annotations

from typing import Literal

__all__ = ["ALLOCATIONS", "HEADS", "SCORES", "Granularity", "Heads"]

Granularity = Literal["weights", "units"]  # what a method decides on

Heads = Literal["groups", "per_kv_group"]  # of grouped-query attention: see `unit_set_of`
HEADS: tuple[Heads, ...] = ("groups", "per_kv_group")
# Of each kind of method, its default first: see `allocated_sparsities` and `select_units`.
ALLOCATIONS: dict[Granularity, tuple[str, ...]] = {
    "weights": ("uniform", "owl", "alpha", "angles", "magnitude", "search"),
    "units": ("equal", "per_type", "score", "loss", "angles", "search"),
}
SCORES = ("compensated", "box", "newton")
