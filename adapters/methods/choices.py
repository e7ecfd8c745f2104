"""What a user chooses among for methods that remove units, by name. Imports nothing, so that help comes at once."""

from __future__ import annotations

from typing import Literal

__all__ = ["ALLOCATIONS", "HEADS", "SCORES", "Heads"]

Heads = Literal["groups", "even"]  # of grouped-query attention: see `menu_of`
HEADS: tuple[Heads, ...] = ("groups", "even")
ALLOCATIONS = ("uniform", "kinds", "numerical", "global")  # see `choose`
SCORES = ("compensated", "box", "newton")
