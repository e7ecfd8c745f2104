"""What a user chooses among for methods that remove units, by name. Imports nothing, so that help comes at once."""

from __future__ import annotations

from typing import Literal

__all__ = ["ALLOCATIONS", "HEADS", "SCORES", "Heads"]

Heads = Literal["groups", "per_kv_group"]  # of grouped-query attention: see `unit_set_of`
HEADS: tuple[Heads, ...] = ("groups", "per_kv_group")
ALLOCATIONS = ("uniform", "per_type", "score", "loss")  # see `choose`
SCORES = ("compensated", "box", "newton")
