"""Operators by block and by kind, read off their names: `model.layers.3.mlp.down_proj` is the kind `down_proj` of block 3."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Block", "Grid", "grid_of"]

FEW = 8  # numbered operators of one kind in a block that stand apart; more of them, or experts, stand together

Block = tuple[str, int | None]  # the list that a block is in, and its number there


@dataclass(frozen=True)
class Grid:
    """Places of rows by block and kind. labels: a short name of every kind, unlike all others. cells: by block and kind, the
    places of the rows there; experts of a kind are together in one cell."""

    blocks: tuple[Block, ...]
    kinds: tuple[str, ...]
    labels: tuple[str, ...]
    cells: Mapping[tuple[Block, str], tuple[int, ...]]

    def of_kind(self, kind: str) -> list[int]:
        """The places of all rows of a kind."""
        return sorted(place for (_, each), places in self.cells.items() if each == kind for place in places)

    @property
    def lists(self) -> tuple[str, ...]:
        """The lists of blocks, in order."""
        return tuple(dict.fromkeys(name for name, _ in self.blocks))


def grid_of(names: Sequence[str]) -> Grid:
    """Read blocks and kinds off the names of operators, in the order of their first appearance; blocks by number."""
    split = [split_name(name) for name in names]
    crowds = Counter((block, starred(rest)) for block, rest in split)
    most: dict[str, int] = {}
    for (_, family), size in crowds.items():
        most[family] = max(most.get(family, 0), size)
    cells: dict[tuple[Block, str], list[int]] = {}
    for place, (block, rest) in enumerate(split):
        family = starred(rest)
        apart = 1 < most[family] <= FEW and "expert" not in family
        cells.setdefault((block, rest if apart else family), []).append(place)
    lists = list(dict.fromkeys(block[0] for block, _ in split))
    blocks = sorted(
        {block for block, _ in cells}, key=lambda block: (lists.index(block[0]), -1 if block[1] is None else block[1])
    )
    kinds = tuple(dict.fromkeys(kind for _, kind in cells))
    return Grid(tuple(blocks), kinds, short_names(kinds), {key: tuple(places) for key, places in cells.items()})


def split_name(name: str) -> tuple[Block, str]:
    """The block that an operator is in, by the first number of its name, and what follows."""
    parts = name.split(".")
    at = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    if at is None or at == len(parts) - 1:
        return ("", None), name
    return (".".join(parts[:at]), int(parts[at])), ".".join(parts[at + 1 :])


def starred(rest: str) -> str:
    """A name inside a block with `*` for every number."""
    return ".".join("*" if part.isdecimal() else part for part in rest.split("."))


def short_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """The shortest ends of names that tell them apart, without what stands for a number."""
    plain = [[part for part in kind.split(".") if part != "*"] or [kind] for kind in kinds]
    found = []
    for place, parts in enumerate(plain):
        others = [other for at, other in enumerate(plain) if at != place]
        length = next((n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others)), len(parts))
        if parts[-length].isdecimal():  # a number alone says nothing
            length = min(len(parts), length + 1)
        found.append(".".join(parts[-length:]))
    return tuple(name if found.count(name) == 1 else kind for name, kind in zip(found, kinds))
